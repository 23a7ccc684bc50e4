"""The commands, from arguments to files and exit codes; reports; comparison; figures of
sequences."""

from __future__ import annotations

import argparse
import functools
import json
import re
import shutil
from dataclasses import replace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from recordings import NAMES, NO_CROPS, Scripted, write_mocap_bag
from truth import write_and_learn

from face_recon_ros.cli import common, options
from face_recon_ros.cli.main import make_parser
from face_recon_ros.core.crop import crop_from_face_box
from face_recon_ros.core.crop_pose import coefficients_from_crop_pose, crop_from_camera_pose
from face_recon_ros.core.errors import ConfigError, DataError, SourceError
from face_recon_ros.core.models import NETWORK, find_model
from face_recon_ros.core.pipeline import FacePipeline, Frame, PipelineConfig
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Image, Mesh
from face_recon_ros.evaluation.compare import compare
from face_recon_ros.evaluation.metrics import Interval
from face_recon_ros.evaluation.output import plain, read_json, write_json
from face_recon_ros.evaluation.record import record
from face_recon_ros.evaluation.report import (
    Report,
    draw_points,
    in_words,
    line,
    show,
    with_interval,
)
from face_recon_ros.evaluation.sequence import (
    Observation,
    Recording,
    blink_coupling_mm,
    sequence_figures,
)
from face_recon_ros.evaluation.synthetic import facing, soft_light
from face_recon_ros.fitting import photo
from face_recon_ros.fitting.photo_config import FitConfig, FitLevel
from face_recon_ros.io.bags import open_bag
from face_recon_ros.io.meshes import read_mesh, write_ply


def run(*arguments):
    args = make_parser().parse_args([str(a) for a in arguments])
    return args.run(args)


@pytest.fixture
def oracle_chain(monkeypatch, oracle, model):
    """The commands measure the oracle, with no network on disk."""
    monkeypatch.setattr(common, "still_chain", lambda args: (oracle, model))
    monkeypatch.setattr(
        common, "pipeline_provenance", lambda args, **settings: {"settings": settings}
    )
    return oracle


def assert_self_contained(path):
    """One page, well formed as far as it is ours, that loads nothing."""
    page = path.read_text()
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("data:", "#", "./")) for link in links)
    assert all((path.parent / unquote(link)).is_file() for link in links if link.startswith("./"))
    assert "<script" not in page and "@import" not in page and "url(http" not in page
    for drawing in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(drawing)
    return page


@pytest.mark.parametrize(
    "kind", ["", "landmarks", "geometry", "pose", "identity", "bag", "compare"]
)
def test_help_says_what_is_read_and_written(kind, capsys):
    with pytest.raises(SystemExit) as done:
        run("evaluate", *([kind] if kind else []), "--help")
    told = capsys.readouterr().out
    assert done.value.code == 0
    for word in {"": ["bag", "compare", "--out"], "compare": ["A.json", "B.json"]}.get(
        kind, ["--out", "--network", "--face-model"]
    ):
        assert word in told


STILLS = ("landmarks", "geometry", "pose", "identity", "photometric")


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *((k, o) for k in STILLS for o in ("--level", "--part", "--max-faces", "--detect-every")),
        *((k, "--regressor-every") for k in STILLS),
        *((k, "--fov") for k in STILLS[1:]),
    ],
)
def test_options_without_effect_are_refused(kind, option, capsys):
    """An option that is taken changes something."""
    layout = ("--layout", "synthetic") if kind == "pose" else ()
    with pytest.raises(SystemExit):
        run("evaluate", kind, "--images", "x", "--out", "y.json", *layout, option, "7")
    assert option in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("evaluate", kind, "--help")
    assert option not in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "temporal", "pattern", "--out", "x", "--frames", "-5"),
        ("evaluate", "bag", "x", "--out", "x", "--frames", "-5"),
        ("record", "pattern", "--out", "x", "--frames", "many"),
        ("evaluate", "speed", "--source", "x", "--out", "x", "--frames", "0"),
        ("evaluate", "synthetic", "--out", "x", "--turntable", "0"),
        ("evaluate", "photometric", "--images", "x", "--out", "x", "--max-images", "-1"),
        ("evaluate", "landmarks", "--images", "x", "--out", "x", "--refine", "-1"),
    ],
)
def test_counts_that_are_none_are_refused(command, capsys):
    with pytest.raises(SystemExit) as done:
        run(*command)
    told = capsys.readouterr().err
    assert done.value.code == 2 and command[-2] in told and f"got {command[-1]}" in told


def test_a_picture_that_is_not_there_is_told(tmp_path, oracle_chain):
    with pytest.raises(SourceError, match=r"nobody\.jpg"):
        run("fit", tmp_path / "nobody.jpg", "--out", tmp_path)


def test_a_video_without_a_face_is_told_what_may_help(tmp_path, monkeypatch, capsys):
    blind = argparse.Namespace(process=lambda image, camera: Frame([], NO_CROPS, None, {}))
    monkeypatch.setattr(common, "live_pipeline", lambda args: (blind, NAMES))
    assert run("evaluate", "temporal", "pattern", "--frames", 5, "--out", tmp_path / "t") == 0
    assert "no face in 5 frames; " in capsys.readouterr().err


def test_pipeline_options_that_stills_refuse_keep_their_defaults():
    command = ["evaluate", "landmarks", "--images", "x", "--out", "y", "--min-score", "0.3"]
    args = make_parser().parse_args(command)
    default = PipelineConfig()
    assert options.pipeline_config(args).tracker == default.tracker
    assert options.pipeline_config(args).reconstructor == default.reconstructor
    assert options.pipeline_config(args).detector.min_score == 0.3


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (("temporal", "pattern", "--frames", 2), {"frames": 2, "fov_deg": 60.0}),
        (
            ("bag", "BAG", "--frames", 2, "--image-topic", "/camera/image_raw", "--fov", 50),
            {"frames": 2, "image_topic": "/camera/image_raw", "truth_topic": "", "fov_deg": 50.0},
        ),
    ],
)
def test_provenance_of_sequences_names_all_that_changes_figures(
    tmp_path, monkeypatch, model, command, settings
):
    record([Image(np.zeros((48, 64, 3), np.uint8), t, "cam") for t in (1.0, 2.0)], tmp_path / "b")
    pipeline = Scripted()
    pipeline.reconstructor = argparse.Namespace(model=model)
    monkeypatch.setattr(common, "live_pipeline", lambda args: (pipeline, NAMES))
    out = tmp_path / "out"
    command = [tmp_path / "b" if word == "BAG" else word for word in command]
    more = ("--detect-every", 3, "--max-faces", 2, "--level", "fine", "--part", "head")
    assert run("evaluate", *command, "--out", out, *more) == 0
    provenance = read_json(out / "result.json" if out.is_dir() else out)["provenance"]
    told = provenance["settings"]
    assert {"face_net.onnx", "face_points.onnx", "face_model.npz"} <= set(provenance["models"])
    more = {"detect_every": 3, "max_faces": 2, "level": "fine", "part": "head"}
    assert told.items() >= {**settings, **more, "calibration": None}.items()


def test_landmarks_command_keeps_its_contract(tmp_path, scenes, oracle_chain, capsys):
    write_and_learn(tmp_path / "in", scenes.turntable(3), oracle_chain)
    (tmp_path / "in" / "alone.pts").write_text("")
    out, page = tmp_path / "deep" / "out.json", tmp_path / "out.html"
    assert (
        run(
            *("evaluate", "landmarks", "--images", tmp_path / "in", "--fov", 40),
            *("--out", out, "--report", page),
        )
        == 0
    )
    result = json.loads(out.read_text())
    assert {"count", "missed", "nme68", "nme51", "per_image"} <= result.keys()
    assert result["count"] == 3 and result["nme68"] < 1e-3
    assert all({"name", "nme68", "nme51"} <= e.keys() for e in result["per_image"])
    assert "alone.pts" in capsys.readouterr().err
    text = assert_self_contained(page)
    assert text.count("<svg") == 2 and text.count("<figure>") == 3 and "alone.pts" in text


def test_geometry_and_pose_commands_keep_their_contract(tmp_path, scenes, oracle_chain):
    write_and_learn(tmp_path / "in", scenes.turntable(2), oracle_chain)
    out = tmp_path / "out.json"
    common = ("--images", tmp_path / "in", "--out", out)
    assert run("evaluate", "geometry", *common, "--report", tmp_path / "g.html") == 0
    result = json.loads(out.read_text())
    assert {"count", "median_mm", "mean_mm", "std_mm", "metrical", "per_image"} <= result.keys()
    assert {"median_mm", "mean_mm", "std_mm"} <= result["metrical"].keys()
    assert_self_contained(tmp_path / "g.html")
    page = tmp_path / "p.html"
    assert run("evaluate", "pose", *common, "--layout", "synthetic", "--report", page) == 0
    assert json.loads(out.read_text())["all"]["geodesic_deg"]["mean"] < 0.01
    text = assert_self_contained(page)
    assert "0 of 2" in text and "turn_001" in text and "viewing ray" not in text
    assert "without extreme, offset removed" in text and "euler_convention" in text
    assert text.count("<svg") == 2 and text.count("<figure>") == 2


def test_identity_command_writes_a_page(tmp_path, scenes, oracle_chain, model):
    rng = np.random.default_rng(0)
    for person in range(3):
        known = {"identity": rng.normal(size=model.k_identity)}
        for shot in range(2):
            name = f"Person_{person}_{shot:04d}"
            scene = scenes.scene(name, facing([0, 0, 0.6], yaw=0.1 * shot, pitch=0.05 * person))
            write_and_learn(tmp_path / "in", [scene], oracle_chain, **{name: known})
    page = tmp_path / "page.html"
    command = ("--images", tmp_path / "in", "--out", tmp_path / "out.json", "--report", page)
    assert run("evaluate", "identity", *command) == 0
    text = assert_self_contained(page)
    assert "AUC, identity" in text and "6 photographs, 3 people" in text


def test_temporal_and_speed_write_pages(tmp_path, monkeypatch, model):
    class Pipeline(Scripted):
        reconstructor = argparse.Namespace(
            model=model,
            network=argparse.Namespace(size=112, provider="cpu", path=find_model(NETWORK)),
        )

        def process(self, image, camera=None):
            return replace(super().process(image, camera), timings={"infer": 0.01, "total": 0.02})

    monkeypatch.setattr(common, "live_pipeline", lambda args: (Pipeline(1.0), NAMES))
    monkeypatch.setattr(FacePipeline, "from_config", lambda config: Pipeline(1.0))
    for kind, *source in (("temporal", "pattern"), ("speed", "--source", "pattern")):
        out, page = tmp_path / f"{kind}.json", tmp_path / f"{kind}.html"
        assert run("evaluate", kind, *source, "--frames", 20, "--out", out, "--report", page) == 0
        assert read_json(out)["protocol"]["name"] == kind
        assert run("evaluate", "compare", out, out) == 0
        text = assert_self_contained(page)
        assert "pattern: 20 frames" in text and "<td>machine</td><td>cpu " in text
    assert "overhead" in text and "total_ms.p99" in text


def test_photometric_and_fit_commands(tmp_path, scenes, oracle_chain, model, monkeypatch):
    # how well it fits: test/fitting/test_photo.py
    short = functools.partial(FitConfig, levels=(FitLevel(4.0, 4, True),))
    monkeypatch.setattr(photo, "FitConfig", short)
    write_and_learn(tmp_path / "in", scenes.turntable(1), oracle_chain)
    image = next((tmp_path / "in").glob("*.png"))

    real = oracle_chain.estimate

    def with_crop(views):
        e = real(views)
        crop = crop_from_face_box(views[-1].box, 1.5, 224)
        nominal = crop_from_camera_pose(e.camera_from_face, crop, e.camera)
        rotation, translation = coefficients_from_crop_pose(nominal)
        coefficients = replace(
            e.coefficients,
            rotation=np.float32(rotation[None]),
            translation=np.float32(translation[None]),
            illumination=soft_light()[None],
        )
        return replace(e, coefficients=coefficients, crop=crop, crop_from_face=nominal)

    oracle_chain.estimate = with_crop
    out = tmp_path / "out.json"
    page = tmp_path / "page.html"
    command = ("evaluate", "photometric", "--images", tmp_path / "in", "--out", out)
    assert run(*command, "--report", page) == 0
    assert "turn_000" in assert_self_contained(page)
    assert json.loads(out.read_text())["photometric"] < 8  # resampling and anti-aliasing remain
    assert run("fit", image, "--out", tmp_path / "fit") == 0
    result = json.loads((tmp_path / "fit" / f"{image.stem}_fit.json").read_text())
    assert result["photometric_end"] <= result["photometric_start"] + 0.5
    assert result["seconds"] > 0
    assert len(read_mesh(tmp_path / "fit" / f"{image.stem}_fit.ply").vertices) > 500
    with pytest.raises(DataError):
        run("evaluate", "photometric", "--images", tmp_path / "nowhere", "--out", out)


def test_bag_command_writes_report_and_the_same_bytes_twice(tmp_path, monkeypatch, model, capsys):
    x = Rigid(rotation_from_vector([0.1, 0.2, 0.3]), np.array([0.0, 0.05, 0.1]))
    write_mocap_bag(tmp_path / "bag", 0.1, x=x)

    class Pipeline(Scripted):
        class reconstructor:  # noqa: N801
            pass

    def fresh(args):
        pipeline = Pipeline(2.0)
        pipeline.reconstructor.model = model
        return pipeline, NAMES

    monkeypatch.setattr(common, "live_pipeline", fresh)
    monkeypatch.setattr(
        common, "pipeline_provenance", lambda args, **settings: {"settings": settings}
    )
    for name in "ab":
        assert run("evaluate", "bag", tmp_path / "bag", "--out", tmp_path / name) == 0
    a, b = (tmp_path / name / "result.json" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    assert "second" not in a.read_text() or "wall" not in a.read_text()
    pages = [(tmp_path / name / "report.html").read_bytes() for name in "ab"]
    assert pages[0] == pages[1]
    page = assert_self_contained(tmp_path / "a" / "report.html")
    assert "x real time" not in page  # the wall clock's figures are in timing.json
    assert "mean rotation error" in page and 4 <= page.count("<figure>") <= 8  # a second apart
    timing = read_json(tmp_path / "a" / "timing.json")
    assert timing["replay_s"] > 0 and timing["report_s"] > 0
    assert run("evaluate", "compare", a, b) == 0

    # Several: a folder each, sums over all, and a bag that is none costs only itself.
    other = "again & 100% <b>"
    shutil.copytree(tmp_path / "bag", tmp_path / other)
    (storage,) = (tmp_path / other).glob("*.mcap")
    storage.write_bytes(storage.read_bytes()[:-20])
    (tmp_path / "broken").mkdir()
    many = [tmp_path / name for name in ("bag", "broken", other)]
    out = tmp_path / "many"
    capsys.readouterr()
    assert run("evaluate", "bag", *many, "--out", out, "--workers", "1") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "face-recon" in line]
    assert len(told) == 2 and str(many[1]) in told[0]
    assert str(many[2]) in told[1] and "without its index" in told[1]
    result = read_json(out / "result.json")
    assert [bag["name"] for bag in result["bags"]] == ["bag", other]
    assert [fault["name"] for fault in result["faults"]] == ["broken"]
    alone = read_json(a)["sequence"]
    for name in ("bag", other):
        assert read_json(out / name / "result.json")["sequence"] == alone
        assert (out / name / "report.html").is_file()
    assert result["frames"] == 2 * alone["frames"]
    page = assert_self_contained(out / "report.html")
    assert "broken" in page and page.count('<a href="./') == 2
    assert not (out / ".unfinished").exists()
    with pytest.raises(ConfigError, match="one bag for --real-time"):
        run("evaluate", "bag", *many, "--out", out, "--real-time")
    with pytest.raises(DataError, match="a bag that can be replayed, got 2 that cannot"):
        run("evaluate", "bag", many[1], many[1], "--out", tmp_path / "none", "--workers", "1")


def test_record_command(tmp_path, scenes):
    write_folder = tmp_path / "pictures"
    write_and_learn(
        write_folder, scenes.turntable(4), type("Nobody", (), {"learn": lambda *_: None})
    )
    assert run("record", write_folder, "--out", tmp_path / "bag", "--frames", 3) == 0

    bag = open_bag(tmp_path / "bag")
    assert bag.counts["/camera/image_raw"] == 3
    with pytest.raises(DataError):
        run("record", write_folder, "--out", tmp_path / "bag")


def test_synthetic_command(tmp_path, scenes):
    scene = scenes.scene("scan", facing([0, 0, 0.6]))

    coloured = Mesh(scene.mesh.vertices * 1000, scene.mesh.triangles, scene.mesh.colours)
    write_ply(tmp_path / "scan.ply", coloured)
    np.savetxt(tmp_path / "scan.pts3d", 1000 * scene.neutral_landmarks)
    options = ("--turntable", 2, "--size", 120)
    mesh = ("--mesh", tmp_path / "scan.ply", "--mesh-landmarks", tmp_path / "scan.pts3d")
    assert run("evaluate", "synthetic", "--out", tmp_path / "a", *options, *mesh) == 0
    names = {p.suffix for p in (tmp_path / "a").iterdir()}
    assert names == {".png", ".pts", ".pts3d", ".ply", ".json"}
    with pytest.raises(ConfigError):
        run("evaluate", "synthetic", "--out", tmp_path / "b", *options, *mesh[:2])
    write_ply(tmp_path / "scan.ply", Mesh(coloured.vertices, coloured.triangles))
    with pytest.raises(DataError, match="colours"):
        run("evaluate", "synthetic", "--out", tmp_path / "b", *options, *mesh)


# Comparison --------------------------------------------------------------------------------------


def result_of(errors, name="68 landmarks", missed=0):
    entries = [{"name": str(i), "found": True, "nme68": float(e)} for i, e in enumerate(errors)]
    return {"protocol": {"name": name}, "missed": missed, "per_image": entries}


def verdict(a, b, **options):
    return {c.name: c.verdict for c in compare(a, b, **options)}


def test_comparison_pairs_and_knows_chance():
    rng = np.random.default_rng(0)
    hard = rng.exponential(0.05, 300)
    a = result_of(hard)
    assert verdict(a, result_of(hard + 0.001))["nme68"] == "worse"  # small, but on every image
    assert verdict(a, result_of(hard - 0.001))["nme68"] == "better"
    assert verdict(a, result_of(hard + rng.normal(0, 0.01, 300)))["nme68"] == "same"
    assert verdict(a, result_of(hard + 0.001), tolerance=0.1)["nme68"] == "same"


def test_a_count_is_worse_only_beyond_chance():
    def found(missed):
        r = result_of(np.full(60, 0.1), missed=missed)
        for entry in r["per_image"][:missed]:
            entry["found"] = False
        return r

    assert verdict(found(0), found(1))["missed"] == "same"
    assert verdict(found(0), found(5))["missed"] == "same"  # 2 / 2^5 > 0.05
    assert verdict(found(0), found(6))["missed"] == "worse"
    assert verdict(found(6), found(0))["missed"] == "better"
    assert verdict(found(20), found(21))["missed"] == "same"
    assert next(
        c for c in compare(found(0), found(6)) if c.kind == "count"
    ).chance == pytest.approx(2 / 64)

    def frames(switches, n=300):
        return {"protocol": {"name": "t"}, "sequence": {"id_switches": switches, "frames": n}}

    assert verdict(frames(0), frames(1)) == {"sequence.id_switches": "same"}
    assert verdict(frames(0), frames(9)) == {"sequence.id_switches": "worse"}
    assert verdict(frames(3), frames(12, 1200)) == {"sequence.id_switches": "same"}  # as often
    assert verdict(frames(30), frames(60, 1200)) == {"sequence.id_switches": "better"}
    assert verdict(frames(900, 2000), frames(1100, 2000)) == {"sequence.id_switches": "worse"}
    assert verdict(frames(0), frames(0)) == {"sequence.id_switches": "same"}


def test_identity_speed_and_noise_are_compared():
    def people(auc):
        i = {
            "auc_cosine": auc,
            "auc_cosine_interval_95": plain(Interval(auc, auc - 0.02, auc + 0.02)),
        }
        return {"protocol": {"name": "identity"}, "identity": i}

    assert verdict(people(0.9), people(0.85)) == {"identity.auc_cosine": "worse"}
    assert verdict(people(0.9), people(0.95)) == {"identity.auc_cosine": "better"}
    assert verdict(people(0.9), people(0.88)) == {"identity.auc_cosine": "same"}
    assert verdict(people(0.9), people(0.85), tolerance=0.1) == {"identity.auc_cosine": "same"}

    def speed(ms, overhead=0.5):
        total = {"p50": ms, "p95": ms, "p99": 2 * ms}
        return {"protocol": {"name": "speed"}, "total_ms": total, "overhead_ratio": overhead}

    slower = verdict(speed(10), speed(11, 0.3))
    assert [slower[f"total_ms.{p}"] for p in ("p50", "p95", "p99")] == ["worse"] * 3
    assert slower["overhead_ratio"] == "better"
    assert set(verdict(speed(10), speed(10.2)).values()) == {"same"}

    def noise(mm):
        brief = {"frames": 3, "depth_noise_mm": None}
        long = {"frames": 90, "depth_noise_mm": mm}
        return {"protocol": {"name": "temporal"}, "sequence": {"tracks": {"a": brief, "b": long}}}

    assert verdict(noise(1.0), noise(1.2)) == {"main_track.depth_noise_mm": "worse"}
    assert verdict(noise(1.0), noise(0.8)) == {"main_track.depth_noise_mm": "better"}


def test_comparison_uses_what_is_common_and_refuses_what_is_not(tmp_path):
    a = result_of(np.linspace(0.1, 0.2, 20))
    changes = compare(a, result_of(np.linspace(0.1, 0.2, 10)))
    assert next(c for c in changes if c.name == "nme68").pairs == 10
    with pytest.raises(DataError, match="one protocol"):
        compare(a, result_of([0.1], name="other"))
    with pytest.raises(DataError, match="in common"):
        compare({"protocol": {"name": "x"}}, {"protocol": {"name": "x"}})
    (tmp_path / "broken.json").write_text("[1")
    with pytest.raises(DataError):
        read_json(tmp_path / "broken.json")


def test_compare_command_is_a_gate(tmp_path, capsys):
    errors = np.linspace(0.05, 0.1, 40)
    for name, values in (("a", errors), ("b", errors * 1.2)):
        write_json(tmp_path / name, result_of(values))
    assert run("evaluate", "compare", tmp_path / "a", tmp_path / "b") == 1
    assert run("evaluate", "compare", tmp_path / "b", tmp_path / "a") == 0
    out = tmp_path / "c.json"
    assert (
        run(
            "evaluate", "compare", tmp_path / "a", tmp_path / "b", "--tolerance", 0.5, "--out", out
        )
        == 0
    )
    assert read_json(out)["changes"][0]["difference"]["value"] > 0
    assert "worse" in capsys.readouterr().out


# Sequences ---------------------------------------------------------------------------------------


def recording_of(**tracks):
    """name -> list of (stamp, box x)."""
    recording = Recording()
    stamps = sorted({t for seen in tracks.values() for t, _ in seen})
    recording.stamps = list(stamps)
    recording.faces_per_frame = [
        sum(any(t == s for t, _ in seen) for seen in tracks.values()) for s in stamps
    ]
    for name, seen in tracks.items():
        for t, x in seen:
            box = np.array([x, 0, x + 50, 50.0])
            recording.tracks[name].append(
                Observation(t, box, facing([0, 0, 0.6]), np.zeros(4), np.zeros(52))
            )
    return recording


def test_id_switches_are_renamed_and_traded_people():
    stamps = np.arange(20) / 10
    steady = recording_of(a=[(t, 0) for t in stamps], b=[(t, 200) for t in stamps])
    assert sequence_figures(steady, NAMES)["id_switches"] == 0
    renamed = recording_of(a=[(t, 0) for t in stamps[:8]], b=[(t, 5) for t in stamps[10:]])
    assert sequence_figures(renamed, NAMES)["id_switches"] == 1
    elsewhere = recording_of(a=[(t, 0) for t in stamps[:8]], b=[(t, 300) for t in stamps[10:]])
    assert sequence_figures(elsewhere, NAMES)["id_switches"] == 0
    a = [(t, 0 if t < 1 else 200) for t in stamps]
    b = [(t, 200 if t < 1 else 0) for t in stamps]
    assert sequence_figures(recording_of(a=a, b=b), NAMES)["id_switches"] == 1


def test_figures_of_nothing_and_of_short_tracks():
    empty = sequence_figures(Recording(), NAMES)
    assert (empty["frames"], empty["missed_frames"], empty["track_count"]) == (0, 0, 0)
    short = sequence_figures(recording_of(a=[(0.0, 0)]), NAMES)
    assert short["tracks"]["a"]["frames"] == 1


def test_depth_that_moves_with_blinks_is_found_and_motion_is_not():
    for rate in (30, 60):
        t = np.arange(20 * rate) / rate
        lids = ((t % 3) < 0.2).astype(float)[:, None]
        walk = 0.6 + 0.05 * np.sin(0.5 * t)
        assert blink_coupling_mm(t, lids, walk) == pytest.approx(0, abs=0.7)
        moved = blink_coupling_mm(t, lids, walk + 0.004 * lids[:, 0])
        assert moved == pytest.approx(4, abs=0.7)
        assert np.isnan(blink_coupling_mm(t, 0 * lids, walk))
        slow = 0.5 + 0.3 * np.sin(0.2 * t)[:, None]  # lids follow the gaze; nobody blinks
        assert np.isnan(blink_coupling_mm(t, slow, walk))
        assert np.isnan(blink_coupling_mm(t[:rate], lids[:rate], walk[:rate]))
    assert np.isnan(blink_coupling_mm(np.zeros(0), np.zeros((0, 2)), np.zeros(0)))


# Output ------------------------------------------------------------------------------------------


def test_json_holds_no_nan_and_is_written_whole(tmp_path):
    value = {"a": np.float32(1.5), "b": [np.nan, np.inf], "c": Interval(1, 0, 2), "d": np.bool_(1)}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {
        "a": 1.5, "b": [None, None], "c": {"value": 1, "low": 0, "high": 2}, "d": True,
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError):
        write_json(tmp_path / "file" / "x.json", value)


def test_report_escapes_what_comes_from_outside(tmp_path):
    report = Report("<b>", "a & b")
    report.table(("x",), [("<script>alert(1)</script>",)])
    report.pictures([(np.zeros((4, 4, 3), np.uint8), '"><script>')])
    report.write(tmp_path / "r.html")
    assert "<script" not in assert_self_contained(tmp_path / "r.html")


def test_cells():
    assert (show(None), show(float("nan")), show(3), show(2.34567)) == ("–", "–", "3", "2.346")
    assert with_interval(0.0421, Interval(0.0421, 0.04, 0.044), 100, " %") == "4.21 % [4, 4.4]"
    assert show({"a_b": 1.23456, "c": None}) == "a_b 1.235, c –" and show([True, ""]) == "yes, –"
    assert plain(np.array([1, 2])) == [1, 2]
    assert in_words("depth_noise_mm") == "depth noise, mm"
    assert in_words("identity_drift_per_s") == "identity drift a second"
    assert (in_words("frames"), in_words("id_switches")) == ("frames", "id switches")


def test_a_long_line_keeps_its_peak_and_breaks_where_nothing_was_seen():
    drawn = []
    axes = argparse.Namespace(plot=lambda x, y, **_: drawn.append((x, y)))
    x = np.arange(20_000) / 30
    y = np.sin(x)
    y[12_345] = 9.0
    line(axes, x[(x < 300) | (x > 320)], y[(x < 300) | (x > 320)])
    ((x, y),) = drawn
    assert len(x) < 2100 and np.nanmax(y) == 9.0 and (np.diff(x[~np.isnan(x)]) > 0).all()
    assert np.isnan(y).sum() == 1 and np.nanmax(x[: int(np.flatnonzero(np.isnan(x))[0])]) < 300
    line(axes, [], [])
    line(axes, [1.0], [2.0])
    assert [len(x) for x, _ in drawn[1:]] == [0, 1]


def test_points_are_drawn_where_they_are():
    picture = draw_points(np.zeros((100, 100, 3), np.uint8), ([[20, 20], [80, 80]], (255, 0, 0)))
    assert picture.shape == (320, 320, 3)
    y, x = np.nonzero(picture[..., 0] > 200)
    assert abs(x.mean() - 160) < 3 and abs(y.mean() - 160) < 3
