"""The benchmarks, run by an oracle on synthetic truth: what goes in must come out."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.io
from truth import write_and_learn

from face_recon_ros.core.detection import DetectorConfig, make_detector
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import VertexNormals
from face_recon_ros.core.rasterizer import rasterize
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.surface import Surface
from face_recon_ros.core.types import Detections, Mesh
from face_recon_ros.evaluation import metrics
from face_recon_ros.evaluation.chain import StillChain, associate, largest
from face_recon_ros.evaluation.datasets import (
    Skipped,
    list_samples,
    read_landmarks,
    read_stored_image,
)
from face_recon_ros.evaluation.geometry import evaluate_geometry
from face_recon_ros.evaluation.identity import evaluate_identity
from face_recon_ros.evaluation.landmark_benchmark import evaluate_landmarks
from face_recon_ros.evaluation.landmarks import LandmarkProjector
from face_recon_ros.evaluation.metrics import CONTOUR
from face_recon_ros.evaluation.pose_benchmark import evaluate_pose
from face_recon_ros.evaluation.scans import REGIONS, read_scan, region_distances, scan_distances
from face_recon_ros.evaluation.synthetic import (
    ModelScenes,
    facing,
    read_truth,
    scene_of_mesh,
    write_scenes,
)
from face_recon_ros.io.meshes import read_mesh, write_ply

# Landmarks ---------------------------------------------------------------------------------------

FOV_DEG = 40.0  # of the scenes


def test_without_a_camera_only_perspective_is_wrong(tmp_path, scenes, crop_oracle):
    write_and_learn(tmp_path, scenes.turntable(5), crop_oracle)
    known = evaluate_landmarks(tmp_path, crop_oracle, scenes.projector)
    assert known["nme51"] < 1e-4 and known["nme68"] < 1e-4  # NAME.json has the camera
    for path in tmp_path.glob("*.json"):
        path.unlink()
    result = evaluate_landmarks(tmp_path, crop_oracle, scenes.projector)
    assert 1e-4 < result["nme51"] < 0.02 and result["nme68"] < 0.06


def test_a_camera_that_cannot_be_the_pictures_is_told(tmp_path, scenes, oracle):
    write_and_learn(tmp_path, scenes.turntable(4), oracle)
    files = sorted(tmp_path.glob("*.json"))
    files[0].write_text("[]")  # says nothing of a camera
    files[1].write_text(json.dumps({"camera": {"width": 4}}))
    truth = json.loads(files[2].read_text())
    truth["camera"]["width"] += 1
    files[2].write_text(json.dumps(truth))
    result = evaluate_landmarks(tmp_path, oracle, scenes.projector)
    assert result["count"] == 2
    assert result["skipped"]["count"] == 2
    said = json.dumps(result["skipped"])
    assert "turn_001.json" in said and "turn_002.json" in said


def test_an_oracle_has_no_landmark_error(tmp_path, scenes, oracle):
    write_and_learn(tmp_path, scenes.turntable(5), oracle)
    result = evaluate_landmarks(tmp_path, oracle, scenes.projector, fov_deg=FOV_DEG)
    assert (result["count"], result["missed"]) == (5, 0)
    assert result["nme68"] < 1e-4 and result["nme51"] < 1e-4 and result["nme68_visible"] < 1e-4
    assert [e["name"] for e in result["per_image"]] == [f"turn_{i:03d}" for i in range(5)]
    assert result["skipped"]["count"] == 0


def test_a_known_shift_of_the_annotation_is_the_error(tmp_path, scenes, oracle):
    scenes_list = write_and_learn(tmp_path, scenes.turntable(3), oracle)
    for scene in scenes_list:
        points = np.add(scene.landmarks_px, (3.0, 4.0))
        np.savetxt(tmp_path / f"{scene.name}.pts", points)
    result = evaluate_landmarks(tmp_path, oracle, scenes.projector, fov_deg=FOV_DEG)
    expected = np.mean([5 / metrics.interocular_distance(s.landmarks_px) for s in scenes_list])
    assert result["nme68"] == pytest.approx(expected, rel=1e-3)
    assert result["nme51"] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(result["offset51_px"], (-3.0, -4.0), atol=0.02)
    assert result["nme51_offset_removed"] < 1e-4


def test_bad_input_is_named_counted_and_the_rest_evaluated(tmp_path, scenes, oracle):
    write_and_learn(tmp_path, scenes.turntable(6), oracle)
    (tmp_path / "turn_000.pts").unlink()
    (tmp_path / "turn_001.png").unlink()
    (tmp_path / "turn_002.pts").write_text("1 2\n3 4\n")
    (tmp_path / "turn_003.png").write_bytes(b"no picture")
    oracle.blind.add(read_stored_image(tmp_path / "turn_004.png").tobytes())
    result = evaluate_landmarks(tmp_path, oracle, scenes.projector, fov_deg=FOV_DEG)
    assert (result["count"], result["missed"]) == (2, 1)
    reasons = {e["name"]: e["reason"] for e in result["skipped"]["files"]}
    assert "image without annotation" in reasons["turn_000.png"]
    assert "annotation without image" in reasons["turn_001.pts"]
    assert "2 lines" in reasons["turn_002"]
    assert "expected a picture" in reasons["turn_003"]
    missed = next(e for e in result["per_image"] if e["name"] == "turn_004")
    assert not missed["found"]
    assert result["failure_rate_0.08"] == 0.5


def test_nothing_to_evaluate(tmp_path, scenes, oracle):
    with pytest.raises(DataError, match="no such folder"):
        evaluate_landmarks(tmp_path / "nowhere", oracle, scenes.projector)
    with pytest.raises(DataError, match="0 images"):
        evaluate_landmarks(tmp_path, oracle, scenes.projector)
    (tmp_path / "a.pts").write_text("1 2\n")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none usable"):
        evaluate_landmarks(tmp_path, oracle, scenes.projector)


def test_two_images_of_one_name_are_told_and_the_first_is_used(tmp_path):
    for name in ("a.jpg", "a.png", "a.PNG", "b.png"):
        (tmp_path / name).write_bytes(b"")
    for name in ("a.pts", "b.pts"):
        (tmp_path / name).write_text("")
    skipped = Skipped()
    samples = list_samples(tmp_path, (".pts",), skipped)
    assert [s.image.name for s in samples] == ["a.PNG", "b.png"]
    assert set(skipped.reasons) == {"a.jpg", "a.png"}
    assert all("a.PNG is used" in reason for reason in skipped.reasons.values())
    assert skipped.as_json()["count"] == 2


def test_ibug_files_count_pixels_from_one(tmp_path):
    points = np.arange(136.0).reshape(68, 2)
    body = "\n".join(f"{x} {y}" for x, y in points)
    (tmp_path / "plain.pts").write_text(body)
    (tmp_path / "ibug.pts").write_text(f"version: 1\nn_points: 68\n{{\n{body}\n}}\n")
    np.testing.assert_array_equal(read_landmarks(tmp_path / "plain.pts", 2), points)
    np.testing.assert_array_equal(read_landmarks(tmp_path / "ibug.pts", 2), points - 1)
    (tmp_path / "nan.pts").write_text(body.replace("0.0 1.0", "nan 1.0"))
    for name in ("nan.pts", "plain.pts"):
        with pytest.raises(DataError):
            read_landmarks(tmp_path / name, 3 if name == "plain.pts" else 2)


def test_the_face_that_overlaps_the_annotation_is_taken():
    boxes = np.float32([[0, 0, 100, 100], [200, 0, 260, 60]])
    two = Detections(boxes, np.float32([0.9, 0.8]))
    assert associate(two, [205, 5, 255, 55]) == 1
    assert associate(two, [400, 400, 450, 450]) is None
    assert associate(Detections.empty(), [0, 0, 1, 1]) is None
    assert largest(two) == 0 and largest(Detections.empty()) is None


# The contour -------------------------------------------------------------------------------------


def skin_mask(model, scene):
    skin = model.subset("facial_skin")
    q = scene.camera_from_face.apply(skin.mean_shape)
    camera = scene.camera
    fragments = rasterize(camera.project(q), q[:, 2], skin.triangles, camera.height, camera.width)
    return (fragments.triangle >= 0).astype(np.uint8)


@pytest.mark.parametrize("yaw_deg", [-50, -35, 35, 50])
def test_on_a_turned_head_the_far_contour_lies_on_the_visible_edge(model, scenes, yaw_deg):
    scene = scenes.scene("x", facing([0, 0, 0.55], yaw=np.radians(yaw_deg)))
    mask = skin_mask(model, scene)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    static = scene.camera.project(scene.camera_from_face.apply(scene.neutral_landmarks))
    # The cheek of the far side: positive yaw turns the nose to the image's right.
    far = np.arange(13, 16) if yaw_deg > 0 else np.arange(1, 4)
    size = metrics.interocular_distance(scene.landmarks_px)

    def depth(points):
        x, y = np.rint(points[far]).astype(int).T
        return np.maximum(inside[y, x], outside[y, x])

    assert depth(scene.landmarks_px).max() < 0.06 * size + 1.5
    assert depth(static).mean() > 2 * depth(scene.landmarks_px).mean()
    near = np.arange(1, 4) if yaw_deg > 0 else np.arange(13, 16)
    jaw = static[CONTOUR].astype(np.float32)[:, None]
    away = [cv2.pointPolygonTest(jaw, p, True) for p in scene.landmarks_px[near].tolist()]
    assert np.abs(away).max() < 0.06 * size  # still on the line of the jaw


def test_from_the_front_the_contour_is_spaced_as_annotators_have_it(scenes):
    """Nearly evenly; only beside the ears the first gap is wider and those below are narrower."""
    outline = scenes.scene("x", facing([0, 0, 1.0])).landmarks_px[CONTOUR]
    gaps = np.linalg.norm(np.diff(outline, axis=0), axis=1)
    half = [1.12, 0.94, 0.94, 0.91, 0.98, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(gaps / gaps[6:10].mean(), half + half[::-1], rtol=0.06)


def test_the_contour_turns_with_the_head_and_mirrors(scenes):
    """Rolling the head rolls the points; turning it the other way mirrors them."""
    left = scenes.scene("x", facing([0, 0, 0.55], yaw=0.6)).landmarks_px
    rolled = scenes.scene("x", facing([0, 0, 0.55], yaw=0.6, roll=0.4)).landmarks_px
    centre = (scenes.camera.width - 1) / 2
    turn = rotation_from_vector([0, 0, 0.4])[:2, :2]
    np.testing.assert_allclose((left - centre) @ turn.T + centre, rolled, atol=1e-6)
    right = scenes.scene("x", facing([0, 0, 0.55], yaw=-0.6)).landmarks_px
    size = metrics.interocular_distance(scenes.scene("x", facing([0, 0, 0.55])).landmarks_px)
    mirrored = right[CONTOUR[::-1]] * [-1, 1] + [2 * centre, 0]
    assert np.linalg.norm(left[CONTOUR] - mirrored, axis=1).max() < 0.08 * size


def test_inner_landmarks_are_the_models(model, scenes):
    rng = np.random.default_rng(0)
    identity, expression = rng.normal(size=model.k_identity), np.zeros(model.k_expression)
    expression[3] = 0.7
    pose = facing([0.05, -0.02, 0.6], yaw=0.3)
    vertices = model.vertices(identity, expression)
    expected = scenes.camera.project(pose.apply(model.landmarks.of(vertices)))
    got = scenes.projector.project(identity, expression, pose, scenes.camera)
    np.testing.assert_allclose(got[17:], expected[17:], atol=1e-3)


def test_visibility_of_a_profile(scenes):
    visible = scenes.projector.visible(facing([0, 0, 0.6], yaw=np.radians(75)))
    assert visible[:17].all()
    assert visible[36] and not visible[45]  # positive yaw hides the subject's left eye
    assert scenes.projector.visible(facing([0, 0, 0.6]))[36:48].all()


def test_a_part_of_the_model_without_all_landmarks_is_refused(model):
    some = np.where(np.arange(68) == 36, -1, model.landmarks_68)
    with pytest.raises(Exception, match="landmark"):
        LandmarkProjector(replace(model, landmarks_68=some))


# Geometry ----------------------------------------------------------------------------------------


def test_an_oracle_has_no_shape_error_and_the_mean_face_has_one(tmp_path, model, scenes, oracle):
    rng = np.random.default_rng(1)
    identity = rng.normal(size=model.k_identity)
    scene = scenes.scene("one", facing([0, 0, 0.6]), identity=identity)
    write_and_learn(tmp_path, [scene], oracle, one={"identity": identity})
    right = evaluate_geometry(tmp_path, oracle, model)
    assert right["count"] == 1 and right["missed"] == 0
    assert right["median_mm"] < 0.01 and right["metrical"]["median_mm"] < 0.01
    assert right["skill"]["corresponding_mm"] == pytest.approx(1.0, abs=0.05)
    assert right["floor"]["corresponding_mm"] < 0.1 < right["mean_face"]["corresponding_mm"]
    oracle.known = {k: (s, {}) for k, (s, _) in oracle.known.items()}
    wrong = evaluate_geometry(tmp_path, oracle, model)
    assert wrong["median_mm"] > 10 * right["median_mm"] and wrong["median_mm"] > 0.1
    assert wrong["metrical"]["median_mm"] >= 0.9 * wrong["median_mm"]
    assert wrong["median_mm"] == pytest.approx(wrong["mean_face"]["median_mm"])
    assert wrong["skill"]["corresponding_mm"] == wrong["skill"]["landmark_mm"] == 0.0
    assert set(wrong["regions"]) == {"nose", "mouth", "eyes_forehead", "cheeks_jaw"}


def test_the_scans_frame_does_not_matter_and_its_size_only_metrically(
    tmp_path, model, scenes, oracle
):
    scene = scenes.scene("one", facing([0, 0, 0.6]))
    write_and_learn(tmp_path, [scene], oracle)
    mesh = read_mesh(tmp_path / "one.ply")
    marks = read_landmarks(tmp_path / "one.pts3d", 3)
    turn = rotation_from_vector([0.5, 1.0, -0.3])
    moved = (1.05 * mesh.vertices @ turn.T + [100, 50, -20]).astype(np.float32)
    write_ply(tmp_path / "one.ply", Mesh(moved, mesh.triangles))
    np.savetxt(tmp_path / "one.pts3d", 1.05 * marks @ turn.T + [100, 50, -20])
    result = evaluate_geometry(tmp_path, oracle, model)
    assert result["median_mm"] < 0.02
    assert result["metrical"]["median_mm"] > 0.3


def test_a_known_offset_of_the_surface_is_measured(tmp_path, model, scenes, oracle):
    """The scan is the true face pushed out by 1 mm along its normals."""
    scene = scenes.scene("one", facing([0, 0, 0.6]))
    write_and_learn(tmp_path, [scene], oracle)
    normals = VertexNormals(model.triangles, model.n_vertices)(scene.neutral.vertices)
    rng = np.random.default_rng(0)
    side = np.where(rng.random(len(normals)) < 0.5, 1.0, -1.0)[:, None]
    pushed = 1000 * scene.neutral.vertices + side * normals
    write_ply(tmp_path / "one.ply", Mesh(pushed.astype(np.float32), scene.neutral.triangles))
    result = evaluate_geometry(tmp_path, oracle, model)
    assert 0.75 < result["metrical"]["median_mm"] <= 1.01


def test_a_region_does_not_pay_for_another(tmp_path, model, scenes, oracle):
    """A nose that sits 3 mm too far out is a good nose in the wrong place."""
    scene = scenes.scene("one", facing([0, 0, 0.6]))
    write_and_learn(tmp_path, [scene], oracle)
    scan = read_scan(tmp_path / "one.ply", tmp_path / "one.pts3d")
    nose = scan.region == list(REGIONS).index("nose")
    points = scan.points + np.outer(nose, [3.0, 0.0, 0.0])
    scan = replace(scan, points=points)
    surface = Surface(1000.0 * scene.neutral.vertices, scene.neutral.triangles)
    whole, scan_from_mesh = scan_distances(surface, scan.landmarks, scan, metrical=False)
    apart = region_distances(surface, scan, scan_from_mesh)
    assert np.median(whole[nose]) > 0.5
    assert np.median(apart[nose]) < 0.1 and np.median(apart[~nose]) < 0.1


def test_images_of_one_person_are_scored_together_too(tmp_path, model, scenes, oracle):
    """Who errs in one picture and knows better in the last has it right as a track."""
    identity = np.random.default_rng(2).normal(size=model.k_identity)
    views = [facing([0, 0, 0.6], yaw=yaw) for yaw in (-0.3, 0.3)]
    turn = [scenes.scene(f"a{i}", v, identity=identity) for i, v in enumerate(views)]
    write_and_learn(tmp_path, turn, oracle, a1={"identity": identity})
    result = evaluate_geometry(tmp_path, oracle, model, floor=False)
    assert "floor" not in result and "skill" not in result
    people = result["people"]
    assert people["count"] == 1 and people["images"] == 2
    assert people["ours"]["corresponding_mm"] < 0.01 < people["mean_face"]["corresponding_mm"]
    assert result["corresponding_mm"] == pytest.approx(
        people["mean_face"]["corresponding_mm"] / 2, rel=1e-3
    )


def test_a_scan_of_another_topology_has_a_floor_but_no_correspondence(
    tmp_path, model, scenes, oracle
):
    identity = np.random.default_rng(3).normal(size=model.k_identity)
    scene = scenes.scene("one", facing([0, 0, 0.6]), identity=identity)
    write_and_learn(tmp_path, [scene], oracle)
    mesh = read_mesh(tmp_path / "one.ply")
    write_ply(tmp_path / "one.ply", Mesh(mesh.vertices, mesh.triangles[::-1]))
    result = evaluate_geometry(tmp_path, oracle, model)
    assert np.isnan(result["corresponding_mm"])
    assert result["floor"]["median_mm"] < 0.1 < result["mean_face"]["median_mm"]
    assert result["skill"]["median_mm"] == 0.0


def test_geometry_with_bad_input(tmp_path, model, scenes, oracle):
    write_and_learn(tmp_path, scenes.turntable(3), oracle)
    (tmp_path / "turn_000.pts3d").unlink()
    (tmp_path / "turn_001.ply").write_bytes(b"ply\nend_header\n")
    result = evaluate_geometry(tmp_path, oracle, model)
    assert result["count"] == 1 and result["skipped"]["count"] == 2
    with pytest.raises(DataError):
        evaluate_geometry(tmp_path / "nowhere", oracle, model)


# Pose --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn_deg", [0.0, 3.0])
def test_a_known_pose_error_is_measured_on_synthetic_truth(tmp_path, scenes, oracle, turn_deg):
    oracle.turn = rotation_from_vector([0.0, 0.0, np.radians(turn_deg)])
    write_and_learn(tmp_path, scenes.random(4), oracle)
    result = evaluate_pose(tmp_path, "synthetic", oracle)
    assert result["all"]["geodesic_deg"]["mean"] == pytest.approx(turn_deg, abs=0.05)
    removed = result["all"]["offset_removed"]
    assert removed["offset_deg"] == pytest.approx(turn_deg, abs=0.05)
    assert removed["geodesic_deg"]["mean"] < 0.05


def write_aflw2000(folder, scenes, oracle, angles_deg):
    """Scenes at annotated pitch, yaw, roll, as the data set stores them."""
    for i, (pitch, yaw, roll) in enumerate(np.radians(angles_deg)):
        rotation = metrics.AFLW2000.rotation(pitch, yaw, roll)
        scene = scenes.scene(f"image{i:05d}", Rigid(rotation, np.array([0, 0, 0.55])))
        write_and_learn(folder, [scene], oracle)
        (folder / f"{scene.name}.json").unlink()
        points = np.concatenate([scene.landmarks_px.T, np.zeros((1, 68))])
        para = np.array([[pitch, yaw, roll, 0, 0, 0, 1]])
        scipy.io.savemat(folder / f"{scene.name}.mat", {"Pose_Para": para, "pt3d_68": points})


def test_aflw2000_layout_angles_extremes_and_damage(tmp_path, scenes, oracle):
    write_aflw2000(tmp_path, scenes, oracle, [[10, 20, 5], [-5, -40, 0], [0, 105, 0], [0, 0, 0]])
    (tmp_path / "image00003.mat").write_bytes(b"damaged")
    result = evaluate_pose(tmp_path, "aflw2000", oracle)
    assert (result["count"], result["extreme_count"]) == (3, 1)
    assert result["without_extreme"]["count"] == 2
    assert result["all"]["mae_deg"]["mean"] < 1e-4
    assert result["skipped"]["count"] == 1
    true = result["per_image"][0]["true_deg"]
    assert [true[k] for k in ("pitch", "yaw", "roll")] == pytest.approx([10, 20, 5])


def test_aflw2000_beyond_a_profile_keeps_its_annotated_angles(tmp_path, scenes, oracle):
    """Yaw 92 and 98 lie within the limit of 99, however their matrices are taken apart."""
    stored = [[3, 92, -2], [-4, -98, 1], [0, 105, 0]]
    write_aflw2000(tmp_path, scenes, oracle, stored)
    oracle.turn = rotation_from_vector([0.0, 0.0, np.radians(8.0)])  # to and fro over 90 degrees
    result = evaluate_pose(tmp_path, "aflw2000", oracle)
    assert (result["extreme_count"], result["without_extreme"]["count"]) == (1, 2)
    for entry, angles in zip(result["per_image"], stored, strict=True):
        assert [*entry["true_deg"].values()] == pytest.approx(angles)
        assert entry["geodesic_deg"] == pytest.approx(8.0, abs=0.01)
        assert max(entry["error_deg"].values()) < 9.0
    assert result["all"]["mae_deg"]["mean"] < 5.0
    assert result["all"]["offset_removed"]["mae_deg"]["mean"] < 0.1


def test_extreme_heads_are_counted_found_or_missed(tmp_path, scenes, oracle):
    write_aflw2000(tmp_path, scenes, oracle, [[0, 0, 0], [0, 105, 0]])
    oracle.blind.add(read_stored_image(tmp_path / "image00001.png").tobytes())
    result = evaluate_pose(tmp_path, "aflw2000", oracle)
    assert (result["count"], result["missed"], result["extreme_count"]) == (2, 1, 1)


def test_biwi_layout_and_the_rgb_cameras_own_turn(tmp_path, scenes, oracle):
    folder = tmp_path / "01"
    rgb_from_depth = rotation_from_vector([0.0, np.radians(1.5), 0.0])
    camera = scenes.camera
    for i, yaw in enumerate([-0.4, 0.3]):
        scene = scenes.scene(f"frame_{i:05d}_rgb", facing([0, 0, 0.7], yaw=yaw))
        write_and_learn(folder, [scene], oracle)
        in_depth = rgb_from_depth.T @ scene.camera_from_face.rotation
        head = in_depth @ metrics.BIWI.dataset_face_from_face.T
        centre = 1000 * rgb_from_depth.T @ scene.camera_from_face.translation
        lines = [*(" ".join(map(str, row)) for row in head), "", " ".join(map(str, centre))]
        (folder / f"frame_{i:05d}_pose.txt").write_text("\n".join(lines))
    rows = [*camera.matrix, np.zeros(5), *rgb_from_depth, np.zeros(3)]
    text = "\n\n".join(" ".join(map(str, row)) for row in rows)
    (folder / "rgb.cal").write_text(f"{text}\n\n{camera.width} {camera.height}\n")
    (folder / "frame_00009_pose.txt").write_text("1 0 0")
    result = evaluate_pose(tmp_path, "biwi", oracle)
    assert result["count"] == 2 and result["skipped"]["count"] == 1
    assert result["all"]["geodesic_deg"]["mean"] == pytest.approx(1.5, abs=0.05)
    assert result["in_rgb_camera"]["geodesic_deg"]["mean"] < 0.05


def test_pose_with_bad_input(tmp_path, oracle):
    for layout in ("aflw2000", "biwi", "synthetic"):
        with pytest.raises(DataError):
            evaluate_pose(tmp_path, layout, oracle)
    with pytest.raises(DataError, match="layout"):
        evaluate_pose(tmp_path, "other", oracle)


# Identity ----------------------------------------------------------------------------------------


def test_identity_separates_people_as_well_as_their_coefficients_do(
    tmp_path, model, scenes, oracle
):
    rng = np.random.default_rng(0)
    for noise, low, high in ((0.05, 0.999, 1.0), (50.0, 0.2, 0.8)):
        oracle.known.clear()
        folder = tmp_path / str(noise)
        for person in range(5):
            identity = rng.normal(size=model.k_identity)
            for photo in range(3):
                name = f"Person_{person}_{photo:04d}"
                scene = scenes.scene(
                    name, facing([0, 0, 0.6], yaw=0.1 * photo, pitch=0.05 * person)
                )
                seen = identity + noise * rng.normal(size=model.k_identity)
                write_and_learn(folder, [scene], oracle, **{name: {"identity": seen}})
        result = evaluate_identity(folder, oracle, lambda _, e: e.coefficients.identity[0])
        assert result["embedding"]["auc_cosine"] == result["identity"]["auc_cosine"]
        assert (result["persons"], result["same_pairs"], result["missed"]) == (5, 15, 0)
        assert low <= result["identity"]["auc_cosine"] <= high
        interval = result["identity"]["auc_cosine_interval_95"]
        assert interval.low <= interval.value <= interval.high


def test_identity_needs_several_photographs(tmp_path, oracle):
    (tmp_path / "Alone_0001.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="two people"):
        evaluate_identity(tmp_path, oracle)


# Scenes ------------------------------------------------------------------------------------------


def test_a_scene_written_is_read_back(tmp_path, scenes):
    scene = scenes.scene("one", facing([0.02, -0.03, 0.6], yaw=0.4, pitch=0.1, roll=-0.2))
    write_scenes([scene], tmp_path)
    camera, pose = read_truth(tmp_path / "one.json")
    np.testing.assert_allclose(camera.matrix, scene.camera.matrix)
    np.testing.assert_allclose(pose.rotation, scene.camera_from_face.rotation)
    np.testing.assert_allclose(
        read_landmarks(tmp_path / "one.pts", 2), scene.landmarks_px, atol=1e-3
    )
    mesh = read_mesh(tmp_path / "one.ply")
    np.testing.assert_allclose(mesh.vertices, 1000 * scene.neutral.vertices, atol=1e-3)
    (tmp_path / "one.json").write_text(json.dumps({"camera": {}}))
    with pytest.raises(DataError):
        read_truth(tmp_path / "one.json")


def test_the_shipped_chain_recovers_a_turntable(tmp_path, model):
    """The bounds that docs/evaluation.md states."""
    write_scenes(ModelScenes(model, size_px=320).turntable(5, seed=1), tmp_path)
    reconstructor = FaceReconstructor.from_config(ReconstructorConfig())
    chain = StillChain(make_detector(DetectorConfig()), reconstructor)
    pose = evaluate_pose(tmp_path, "synthetic", chain)
    marks = evaluate_landmarks(tmp_path, chain, LandmarkProjector(model), fov_deg=FOV_DEG)
    shape = evaluate_geometry(tmp_path, chain, model)
    assert pose["missed"] == marks["missed"] == shape["missed"] == 0
    assert pose["all"]["geodesic_deg"]["mean"] < 6
    assert marks["nme51"] < 0.07
    assert shape["median_mm"] < 1.0 and shape["metrical"]["median_mm"] < 1.1


def test_signs_of_facing():
    out, left, _ = np.eye(3)
    assert (facing([0, 0, 1], yaw=0.3).rotation @ out)[0] > 0
    assert (facing([0, 0, 1], pitch=0.3).rotation @ out)[1] < 0
    assert (facing([0, 0, 1], roll=0.3).rotation @ left)[1] > 0


def test_a_rendered_head_is_where_its_landmarks_are(scenes):
    scene = scenes.scene("x", facing([0.03, 0.02, 0.6], yaw=0.2))
    face = np.abs(scene.render().astype(int) - 128).max(axis=2) > 6
    x, y = np.rint(scene.landmarks_px[27:36]).astype(int).T
    assert face[y, x].all() and not face[0].any()


def test_a_foreign_coloured_mesh_in_any_frame(model, scenes):
    own = scenes.scene("x", facing([0, 0, 0.6]))
    turn = rotation_from_vector([0.3, -1.2, 0.5])
    moved = Mesh(
        (own.mesh.vertices @ turn.T + [1, 2, 3]).astype(np.float32),
        own.mesh.triangles,
        own.mesh.colours,
    )
    marks = own.neutral_landmarks @ turn.T + [1, 2, 3]
    pose = facing([0, 0, 0.6])
    theirs = scene_of_mesh("x", moved, marks, model, scenes.camera, pose)
    difference = np.abs(theirs.render().astype(int) - own.render())
    assert np.percentile(difference, 99) <= 3
    np.testing.assert_allclose(theirs.landmarks_px[17:], own.landmarks_px[17:], atol=0.05)
