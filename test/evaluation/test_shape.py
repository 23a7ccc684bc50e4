"""Shape, expressions and jitter of reconstructors that know the truth, and err as told."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from face_recon_ros.cli import evaluate_shape as shape_command
from face_recon_ros.cli.main import main
from face_recon_ros.core.boxes import scattered
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import crop_from_face_box
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.types import Coefficients, Face, Mesh
from face_recon_ros.evaluation.compare import compare
from face_recon_ros.evaluation.expression import (
    MEASURES,
    amplitude,
    channel_table,
    correlation,
    measures,
    untrusted,
)
from face_recon_ros.evaluation.expression_benchmark import evaluate_expression
from face_recon_ros.evaluation.head_poses import pose_errors
from face_recon_ros.evaluation.jitter import jitter_px
from face_recon_ros.evaluation.metrics import point_to_plane_mm, shape_distance_mm, skill
from face_recon_ros.evaluation.output import plain
from face_recon_ros.evaluation.shape import KnownView, ShapeScorer, evaluate_shape
from face_recon_ros.evaluation.synthetic import facing
from face_recon_ros.io.jobs import PerProcess

CAMERA = PinholeCamera.from_fov(64, 64, 40.0)


class Knowing:
    """A reconstructor that reads in the first pixel which of its views a picture shows."""

    def __init__(self, model, views=(), *, identity=1.0, expression=1.0, blind=False):
        self.model, self.views = model, list(views)
        self.shares = identity, expression
        self.blind = blind
        self.shift = np.zeros(3)

    def crops(self, tracks):
        return [crop_from_face_box(track.box, 1.3, 32) for track in tracks]

    def extract(self, rgb, crops):
        return np.stack([np.full((32, 32, 3), rgb[0, 0, 0]) for _ in crops])

    def predict(self, pixels):
        m = self.model
        c = Coefficients.zeros(len(pixels), m.k_identity, m.k_expression, m.k_albedo)
        for i, crop in enumerate(pixels):
            view = self.views[crop[0, 0, 0]]
            c.identity[i] = self.shares[0] * view.identity
            c.expression[i] = self.shares[1] * view.expression
        translation = np.nan if self.blind else 1.0
        c.translation[:] = translation
        return Prediction(c, np.ones(len(pixels), np.float32))

    def look(self, tracks, crops, pixels):
        return crops, pixels, self.predict(pixels)

    def face_boxes(self, crops, coefficients):
        return np.array([[10, 10, 50, 50]] * len(crops), np.float32)

    def fit(self, pictures, tracks, crops, prediction, camera, *, mirrored):
        return prediction

    def decode(self, tracks, crops, prediction, camera):
        faces = []
        for i, (track, crop) in enumerate(zip(tracks, crops, strict=True)):
            if not prediction.usable[i]:
                continue
            row = prediction.coefficients[i]
            mesh = Mesh(
                self.model.vertices(row.identity[0], row.expression[0]), self.model.triangles
            )
            pose = facing([0, 0, 0.6])
            pose = replace(pose, translation=pose.translation + self.shift * crop.centre_px[0])
            faces.append(Face(track, crop, row, pose, mesh, track.box, track.stamp))
        return faces


def people_of(model, count=4, views=3):
    rng = np.random.default_rng(0)
    people = []
    for person in range(count):
        identity = rng.standard_normal(model.k_identity).astype(np.float32)
        people.append(
            [
                KnownView(
                    np.full((64, 64, 3), person * views + view, np.uint8),
                    CAMERA,
                    facing([0, 0, 0.6]),
                    identity,
                    rng.uniform(0, 1, model.k_expression).astype(np.float32),
                )
                for view in range(views)
            ]
        )
    return people


def pictures(people):
    return [view for views in people for view in views]


def evaluated(people, reconstructor):
    """Of people who are given as their pictures."""
    scorer = ShapeScorer(list, PerProcess(lambda: reconstructor))
    return evaluate_shape(people, scorer, reconstructor.model)


def test_who_knows_everything_has_no_error_and_full_skill(model):
    people = people_of(model)
    result = evaluated(people, Knowing(model, pictures(people)))
    assert result["people"] == 4 and result["views"] == 12 and result["unusable"] == 0
    assert result["shape_mm"]["one_view"] == pytest.approx(0.0, abs=1e-3)
    assert result["shape_mm"]["track"] == pytest.approx(0.0, abs=1e-3)
    assert result["shape_mm"]["mean_face"] > 2.0
    assert result["point_to_plane_mm"]["track"] == pytest.approx(0.0, abs=1e-3)
    across = result["point_to_plane_mm"]["mean_face"]
    assert 0.3 < across / result["shape_mm"]["mean_face"] < 0.7
    assert result["skill"]["one_view"] == pytest.approx(1.0, abs=1e-3)
    assert result["rank"] == {"one_view": 1.0, "track": 1.0}
    assert result["vertices_px"]["mean"] == pytest.approx(0.0, abs=1e-2)
    assert untrusted(result["expression"]) == []
    # Three pictures are too few for a track to know the person.
    assert all(np.isnan(row["correlation"]) for row in result["expression_in_track"])
    json.dumps(result["expression"])


def test_a_track_counts_from_its_seventh_picture_on(model):
    people = people_of(model, 2, views=9)
    result = evaluated(people, Knowing(model, pictures(people)))
    assert untrusted(result["expression_in_track"]) == []
    shown = [views[k].expression[0] > 0.05 for views in people for k in range(6, 9)]
    assert result["expression_in_track"][0]["shown"] == pytest.approx(np.mean(shown))


def test_sliding_along_a_surface_is_not_across_it():
    """Of a plane: metres along it, then across it; a plane moved as a whole has no error."""
    plane = np.random.default_rng(0).normal(0, 0.1, (500, 3)) * [1, 1, 0]
    normals = np.tile([0.0, 0.0, 1.0], (500, 1))
    step = np.random.default_rng(1).choice([-0.002, 0.002], 500)[:, None]
    along, across = plane + step * [1, 0, 0], plane + step * [0, 0, 1]
    assert point_to_plane_mm(along, plane, normals) == pytest.approx(0.0, abs=1e-9)
    assert shape_distance_mm(along, plane) == pytest.approx(2.0, rel=0.02)
    assert point_to_plane_mm(across, plane, normals) == pytest.approx(2.0, rel=0.02)
    assert point_to_plane_mm(plane + normals, plane, normals) == pytest.approx(0.0, abs=1e-9)


def test_the_mean_face_has_no_skill(model):
    people = people_of(model)
    result = evaluated(people, Knowing(model, pictures(people), identity=0.0, expression=0.0))
    assert result["skill"] == {"one_view": 0.0, "track": 0.0}
    assert result["identity_rms"]["one_view"] == 0.0 < result["identity_rms"]["truth"]
    assert len(untrusted(result["expression"])) == model.k_expression


def test_shrunk_answers_are_seen_as_such(model):
    people = people_of(model)
    result = evaluated(people, Knowing(model, pictures(people), identity=0.5, expression=0.3))
    assert 0.4 < result["skill"]["one_view"] < 0.6
    assert result["rank"]["one_view"] == 1.0
    row = result["expression"][0]
    assert row["correlation"] == pytest.approx(1.0) and row["amplitude"] == pytest.approx(0.3)


def test_results_of_two_networks_can_be_compared(model):
    people = people_of(model, 6)
    results = [
        plain(evaluated(people, Knowing(model, pictures(people), identity=share)))
        for share in (0.0, 0.8)
    ]
    verdicts = {change.name: change.verdict for change in compare(*results)}
    assert verdicts["one_view_mm"] == verdicts["track_mm"] == "better"


def test_no_usable_answer_and_nobody_are_refused(model):
    people = people_of(model, 2, 1)
    with pytest.raises(DataError, match="usable answer"):
        evaluated(people, Knowing(model, pictures(people), blind=True))
    with pytest.raises(DataError, match="usable answer"):
        evaluated([], Knowing(model))


def test_shape_distance_knows_neither_place_nor_size():
    rng = np.random.default_rng(1)
    shape, other = rng.standard_normal((2, 50, 3))
    apart = shape_distance_mm(other, shape)
    assert apart > 0
    assert shape_distance_mm(2.0 * other + [1, 2, 3], shape) == pytest.approx(apart)
    assert shape_distance_mm(shape, shape) == 0.0


def test_skill_is_nought_at_the_mean_face_and_one_at_the_floor():
    assert skill(3.0, 3.0, 1.0) == 0.0 and skill(3.0, 1.0, 1.0) == 1.0
    assert skill(3.0, 4.0, 1.0) == -0.5
    assert np.isnan(skill(1.0, 1.0, 1.0))


def test_channels_that_never_move_are_not_trusted():
    truth = np.random.default_rng(0).uniform(0, 1, (100, 3))
    ours = np.stack([truth[:, 0], np.zeros(100), 1 - truth[:, 2]], 1)
    table = channel_table(["a", "b", "c"], ours, truth)
    assert untrusted(table) == ["b", "c"]
    assert table[0]["correlation"] == pytest.approx(1.0)
    assert np.isnan(table[1]["correlation"]) and table[1]["amplitude"] == 0.0
    assert table[2]["correlation"] == pytest.approx(-1.0)
    assert np.isnan(correlation([], [])) and np.isnan(amplitude([], []))


def test_jitter_is_what_the_box_moves(model):
    """A face that ignores its box is still; one that goes with it trembles as the box does."""
    view = people_of(model, 1, 1)[0][0]
    boxes = scattered([10, 10, 50, 50], 40, 0.012, 0.02, np.random.default_rng(0))
    still = Knowing(model, [view])
    assert jitter_px(view.rgb, boxes, still) == pytest.approx(0.0, abs=1e-3)
    assumed = PinholeCamera.from_fov(64, 64)
    still.shift = np.array([0.6 / assumed.focal_px, 0, 0])  # a pixel a pixel, at the sellion
    middles = (boxes[:, 0] + boxes[:, 2]) / 2
    assert jitter_px(view.rgb, boxes, still) == pytest.approx(np.std(middles), rel=0.15)
    assert np.isnan(jitter_px(view.rgb, boxes, Knowing(model, [view], blind=True)))


def test_pose_errors_of_equal_poses_are_nought():
    pose = facing([0, 0.1, 0.6], yaw=0.3)
    assert pose_errors(pose, pose) == (pytest.approx(0.0, abs=1e-5), 0.0)
    farther = replace(pose, translation=1.1 * pose.translation)
    assert pose_errors(farther, pose)[1] == pytest.approx(0.1)


def test_the_command_writes_all_figures_and_the_same_on_any_number_of_processes(
    tmp_path, capsys, monkeypatch
):
    pytest.importorskip("numba")
    monkeypatch.setattr(shape_command, "JITTER_BOXES", 6)
    results = []
    for workers in ("1", "2"):
        out = tmp_path / f"{workers}.json"
        sizes = ["--people", "2", "--views", "2", "--pictures", "2", "--heads", "0"]
        where = ["--workers", workers]
        assert main(["evaluate", "shape", "--out", str(out), *sizes, *where]) == 0
        results.append(json.loads(out.read_text()))
    assert results[0] == results[1]
    result = results[0]
    assert result["shape_mm"]["one_view"] > 0 and result["shape_mm"]["track"] > 0
    assert len(result["expression"]) == 52
    assert result["pictures"]["count"] == 2 and "jitter_px" in result["pictures"]
    assert "as one track" in capsys.readouterr().out


def test_people_may_have_the_shapes_of_scans(tmp_path, capsys):
    pytest.importorskip("numba")
    fits = []
    for k, scale in enumerate((0.0, 2.0)):
        fits.append(tmp_path / f"{k}.json")
        fits[-1].write_text(json.dumps({"identity": [scale] + [0.0] * 79}))
    out = tmp_path / "shape.json"
    sizes = ["--views", "1", "--pictures", "0", "--heads", "0", "--workers", "1"]
    command = ["evaluate", "shape", "--out", str(out), *sizes, "--identities"]
    assert main([*command, *map(str, fits)]) == 0
    result = json.loads(out.read_text())
    assert result["people"] == 2
    assert result["identity_rms"]["truth"] == pytest.approx(np.sqrt(4 / 160), abs=1e-3)
    fits[0].write_text(json.dumps({"median_mm": 0.3}))
    assert main([*command, *map(str, fits)]) != 0
    assert "model fit" in capsys.readouterr().err


def test_measures_are_blind_to_place_size_and_attitude_but_see_what_a_face_does(model):
    marks = model.landmarks_68
    rest = np.zeros(model.k_expression)
    still = measures(model.vertices(np.zeros(model.k_identity), rest)[marks])
    turn = facing([0.1, -0.2, 0.6], yaw=0.7, pitch=0.2).rotation
    moved = 350.0 * model.mean_shape[marks] @ turn.T + 7.0
    assert measures(moved) == pytest.approx(still, abs=1e-5)
    assert measures(moved * [1, 1, -1]) == pytest.approx(still, abs=1e-5)  # depth the other way
    for name, (_, channels) in MEASURES.items():
        for channel in channels:
            act = [
                channel[1:] in (n, n.removesuffix("Left"), n.removesuffix("Right"))
                for n in model.expression_names
            ]
            assert any(act)
            shown = model.vertices(np.zeros(model.k_identity), 0.8 * np.array(act, float))[marks]
            change = measures(shown)[name] - still[name]
            assert change * (1 if channel[0] == "+" else -1) > 0.005, (name, channel, change)
    assert all(np.isnan(v) for v in measures(np.zeros((68, 3))).values())


def test_expressions_on_photographs(tmp_path, model, scenes, oracle, capsys):
    """Who gives what the landmarks show has amplitude 1; who gives a third of it, a third."""
    rng = np.random.default_rng(0)
    names = list(model.expression_names)
    known = {}
    for i in range(4):
        expression = np.zeros(model.k_expression)
        expression[names.index("jawOpen")] = 0.3 * i
        scene = scenes.scene(f"s{i}", facing([0, 0, 0.6]), expression=expression)
        rgb = scene.render(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8))
        cv2.imwrite(str(tmp_path / f"s{i}.png"), rgb[..., ::-1])
        true = scene.camera_from_face.apply(model.landmarks.of(scene.mesh.vertices))
        pixels = scene.camera.project(true)
        depth = true[:, 2:] * scene.camera.focal_px / 0.6
        np.savetxt(tmp_path / f"s{i}.xyz", np.hstack([pixels, depth]))
        known[i] = (rgb, scene, expression)
        oracle.learn(rgb, scene, expression=expression)
    whole = evaluate_expression(tmp_path, oracle, model)
    lips = whole["measures"]["lips"]
    assert whole["count"] == 4 and whole["missed"] == 0
    assert lips["mesh"]["correlation"] > 0.99
    assert lips["mesh"]["amplitude"] == pytest.approx(1.0, abs=0.1)
    assert lips["channels"]["+jawOpen"] > 0.98
    for rgb, scene, expression in known.values():
        oracle.learn(rgb, scene, expression=expression / 3)
    part = evaluate_expression(tmp_path, oracle, model)["measures"]["lips"]
    assert part["mesh"]["amplitude"] == pytest.approx(lips["mesh"]["amplitude"] / 3, rel=0.15)
    oracle.blind = {rgb.tobytes() for rgb, *_ in known.values()}
    with pytest.raises(DataError, match="three photographs"):
        evaluate_expression(tmp_path, oracle, model)
    with pytest.raises(DataError):
        evaluate_expression(tmp_path / "nowhere", oracle, model)
