"""`evaluate bag --real-time`: what is passed on to the demo, and what is made of its summary."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from face_recon_ros.cli.evaluate import add_evaluation_commands
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.models import FACE_MODEL, NETWORK, find_model
from face_recon_ros.evaluation import live

ROOT = Path(live.__file__).resolve().parents[2]

STUB = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
summary = {"frames_in": 30, "frames_processed": 27, "arguments": sys.argv[1:]}
(out / "summary.json").write_text(json.dumps(summary))
"""


def bag_arguments(*more):
    parser = argparse.ArgumentParser()
    add_evaluation_commands(parser.add_subparsers(required=True))
    command = ["evaluate", "bag", "some bag", "--out", "x", "--real-time"]
    return parser.parse_args([*command, *map(str, more)])


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A demo that tells its arguments, in a checkout of its own."""
    path = tmp_path / "scripts" / "demo.py"
    path.parent.mkdir()
    path.write_text(STUB)
    monkeypatch.setattr(live, "_DEMO", path)
    return path


def test_every_option_reaches_the_demo(tmp_path, demo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ost.yaml", "some.tflite"):
        (tmp_path / name).write_text("")
    args = bag_arguments(
        "--detector", "full_range", "--min-score", 1, "--tiles", 3,
        "--max-faces", 3, "--detect-every", 2, "--regressor-every", 5,
        "--network", find_model(NETWORK), "--level", "fine", "--part", "head", "--threads", 4,
        "--provider", "cpu", "--image-topic", "/left/image", "--frames", 25, "--fov", 50,
        "--calibration", "ost.yaml", "--detector-model", "some.tflite",
    )  # fmt: skip
    parameters = live.node_parameters(args)
    told = live.run_live(args.bag[0], tmp_path / "out", frames=args.frames, parameters=parameters)

    spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts" / "demo.py")
    real = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real)
    options = real.parse_arguments(told["arguments"])  # the real demo takes them
    assert options.frames == 25 and options.source == str(args.bag[0].resolve())
    assert options.headless and options.out == tmp_path / "out"
    got = {name: yaml.safe_load(v) for name, _, v in (p.partition(":=") for p in options.param)}
    assert got == {
        "camera.topic": "/left/image",
        "camera.calibration": str(tmp_path / "ost.yaml"),
        "camera.fov_deg": 50.0,
        "detector.backend": "full_range",
        "detector.model": str(tmp_path / "some.tflite"),
        "detector.min_score": 1.0,
        "detector.tiles": 3,
        "tracker.detect_every": 2,
        "tracker.max_faces": 3,
        "reconstructor.network": str(find_model(NETWORK).resolve()),
        "reconstructor.regressor_every": 5,
        "reconstructor.face_model": str(find_model(FACE_MODEL).resolve()),
        "reconstructor.level": "fine",
        "reconstructor.part": "head",
        "reconstructor.provider": "cpu",
        "reconstructor.threads": 4,
    }
    assert isinstance(got["detector.min_score"], float)  # ROS tells 1 from 1.0
    known = set(re.findall(r"^\| `([\w.]+)`", (ROOT / "docs/parameters.md").read_text(), re.M))
    assert got.keys() <= known


def test_what_is_not_given_is_left_to_the_nodes(tmp_path):
    parameters = live.node_parameters(bag_arguments())
    assert not {"camera.topic", "camera.calibration", "detector.model"} & parameters.keys()


def test_drops_and_load_are_added_to_the_summary(tmp_path, demo):
    told = live.run_live(tmp_path / "bag", tmp_path / "out", parameters={})
    assert told["drops"] == 3 and told["wall_s"] > 0 and told["cores_used"] >= 0
    json.dumps(told)


def test_a_demo_that_fails_says_why(tmp_path, demo):
    demo.write_text("import sys; print('no such topic'); sys.exit(1)")
    with pytest.raises(DataError, match="no such topic"):
        live.run_live(tmp_path / "bag", tmp_path / "out", parameters={})


def test_the_demo_does_not_delete_its_own_source(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts" / "demo.py")
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    video = tmp_path / "overlay.mp4"
    video.touch()
    words = ["demo.py", "--source", str(video), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert demo.main() == 1
    assert "which is read" in capsys.readouterr().err and video.is_file()
