"""The command line as a user meets it: files in, files out, one line when something is wrong."""

import ast
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import every_command, fails
from fixtures import ARKIT_NAMES, K_ALBEDO, K_IDENTITY, draw_discs

from face_recon_ros.cli import common
from face_recon_ros.cli import main as cli_main
from face_recon_ros.cli.main import EXIT_FAULT, EXTRAS, main, make_parser
from face_recon_ros.core.overlay import Overlay
from face_recon_ros.core.pattern import TurningHead
from face_recon_ros.core.pipeline import STAGES, FacePipeline
from face_recon_ros.io.folders import DiskFullError, write_whole
from face_recon_ros.io.meshes import read_mesh

ROOT = Path(__file__).resolve().parents[2]
RED, GREEN = (230, 90, 60), (90, 230, 60)


@pytest.fixture
def models(network_path, face_model_path, monkeypatch):
    """Options for the small world's models; its detector in place of mediapipe's."""
    from fixtures import DiscDetector

    monkeypatch.setattr(
        "face_recon_ros.core.finder.make_detector", lambda config=None: DiscDetector()
    )
    return ["--network", str(network_path), "--face-model", str(face_model_path)]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    two = draw_discs(320, 240, (80, 100, 30, RED), (220, 120, 40, GREEN))
    cv2.imwrite(str(folder / "two.png"), two[..., ::-1])
    cv2.imwrite(str(folder / "none.png"), np.zeros((240, 320, 3), np.uint8))
    return folder


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (320, 240))
    for k in range(20):
        writer.write(draw_discs(320, 240, (80 + 5 * k, 100, 30, RED))[..., ::-1])
    writer.release()
    return path


def test_a_picture_becomes_meshes_overlay_and_coefficients(models, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    source = pictures / "two.png"
    assert main(["reconstruct", str(source), "--out", str(out), "--mesh", "both", *models]) == 0
    assert "2 faces" in capsys.readouterr().out
    told = json.loads((out / "two.json").read_text())
    table = np.load(out / "two.npz", allow_pickle=False)
    overlay = cv2.imread(str(out / "two_overlay.png"))
    assert overlay.shape == (240, 320, 3)
    assert (overlay != cv2.imread(str(source))).any()
    assert len(told["faces"]) == 2 == len(table["id"])
    for k, face in enumerate(told["faces"]):
        assert len(face["identity"]) == K_IDENTITY and len(face["albedo"]) == K_ALBEDO
        assert set(face["expression"]) == set(ARKIT_NAMES)
        np.testing.assert_allclose(face["identity"], table["identity"][k], atol=1e-6)
        np.testing.assert_allclose(
            face["camera_from_face"]["translation"], table["camera_from_face_translation"][k]
        )
        assert (out / f"two_{face['id']}_views.png").is_file()
        ply, obj = (read_mesh(out / name) for name in face["meshes"])
        assert len(ply.colours) == len(ply.vertices) < len(obj.vertices)  # OBJ: always fine
        np.testing.assert_allclose(ply.vertices.mean(axis=0), obj.vertices.mean(axis=0), atol=5e-3)
        texture = cv2.imread(str(out / f"two_{face['id']}.png"))
        assert texture.shape == (1024, 1024, 3) and np.ptp(texture) > 0
        # The JSON's pose and camera put the mesh where the box is.
        pose = face["camera_from_face"]
        points = ply.vertices @ np.array(pose["rotation"]).T + pose["translation"]
        pixels = points @ np.array(face["camera_matrix"]).T
        centre = (pixels[:, :2] / pixels[:, 2:]).mean(axis=0)
        box = np.array(face["box"])
        np.testing.assert_allclose(centre, (box[:2] + box[2:]) / 2, atol=0.1 * (box[2] - box[0]))


def test_a_folder_is_done_picture_by_picture(models, pictures, tmp_path):
    out = tmp_path / "out"
    assert main(["reconstruct", str(pictures), "--out", str(out), *models]) == 0
    assert len(json.loads((out / "two.json").read_text())["faces"]) == 2
    assert json.loads((out / "none.json").read_text())["faces"] == []
    empty = np.load(out / "none.npz")
    assert empty["identity"].shape == (0, K_IDENTITY) and empty["box"].shape == (0, 4)


def test_a_folder_is_the_same_for_any_number_of_processes(tmp_path):
    """With what ships, as other processes know no stand-ins."""
    folder = tmp_path / "in"
    folder.mkdir()
    head = TurningHead(320, 240)
    for k in range(2):
        cv2.imwrite(str(folder / f"{k}.png"), head.render(0.2 * k)[..., ::-1])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    for workers in ("1", "2"):
        out = tmp_path / workers
        command = ["reconstruct", str(folder), "--out", str(out), "--workers", workers]
        assert main(command) == 0
    names = sorted(p.name for p in (tmp_path / "1").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "2").iterdir())
    assert "0.json" in names and not any("unfinished" in name for name in names)
    for name in names:
        one, two = ((tmp_path / w / name).read_bytes() for w in ("1", "2"))
        assert one == two, name


def test_a_video_becomes_a_video_and_one_table(models, video, tmp_path):
    out = tmp_path / "out"
    assert main(["reconstruct", str(video), "--out", str(out), *models]) == 0
    table = np.load(out / "faces.npz")
    assert table["image"].tolist() == list(range(20))
    np.testing.assert_allclose(table["stamp"], np.arange(20) / 25, atol=1e-3)
    assert len(set(table["id"])) == 1
    (face,) = json.loads((out / "faces.json").read_text())["faces"]
    assert face["images"] == 20
    moved = table["box"][-1] - table["box"][0]
    np.testing.assert_allclose(moved, [95, 0, 95, 0], atol=6)
    capture = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 20


def test_frames_limits_and_mesh_none_writes_none(models, video, tmp_path):
    out = tmp_path / "out"
    options = ["--frames", "5", "--mesh", "none"]
    assert main(["reconstruct", str(video), "--out", str(out), *options, *models]) == 0
    assert len(np.load(out / "faces.npz")["id"]) == 5
    assert not list(out.glob("*.ply")) and not list(out.glob("*.obj"))


def test_a_video_that_is_stopped_leaves_what_its_first_images_give(
    models, video, tmp_path, capsys, monkeypatch
):
    assert (
        main(["reconstruct", str(video), "--out", str(tmp_path / "5"), "--frames", "5", *models])
        == 0
    )
    drawn, draw = [], Overlay.draw

    def draw_and_press(*args):
        drawn.append(args)
        if len(drawn) == 5:
            signal.raise_signal(signal.SIGINT)
        return draw(*args)

    monkeypatch.setattr(Overlay, "draw", draw_and_press)
    assert main(["reconstruct", str(video), "--out", str(tmp_path / "stopped"), *models]) == 0
    assert (
        "stopped by Ctrl-C: the results are those of the first 5 of 20" in capsys.readouterr().err
    )
    told = {}
    for run in ("5", "stopped"):
        table = dict(np.load(tmp_path / run / "faces.npz"))
        (name,) = set(table.pop("id"))
        files = sorted(p.name.replace(name, "ID") for p in (tmp_path / run).iterdir())
        (face,) = json.loads((tmp_path / run / "faces.json").read_text())["faces"]
        capture = cv2.VideoCapture(str(tmp_path / run / "overlay.mp4"))
        told[run] = files, face["images"], int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        told[run, "table"] = table
    assert told["stopped"] == told["5"] and told["5"][1:] == (5, 5)
    for key, values in told["5", "table"].items():
        np.testing.assert_array_equal(told["stopped", "table"][key], values)


@pytest.mark.parametrize("source", ["pictures", "video"])
def test_anonymise_hides_faces_in_overlays_only(source, models, request, tmp_path):
    source = request.getfixturevalue(source)
    shown = {}
    for option in ([], ["--anonymise"]):
        out = tmp_path / f"out{len(option)}"
        assert main(["reconstruct", str(source), "--out", str(out), *option, *models]) == 0
        files = {p.suffix: p.name for p in out.iterdir()}
        shown[len(option)] = sorted(files)
        capture = cv2.VideoCapture(str(next(out.glob("*overlay*"))))
        shown[len(option), "picture"] = capture.read()[1].astype(int)
    assert shown[0] == shown[1]
    assert (np.abs(shown[0, "picture"] - shown[1, "picture"]) > 20).any()


def test_speed_measures_every_stage(models, video, tmp_path, capsys):
    out = tmp_path / "speed.json"
    options = ["--frames", "30", "--warmup", "5"]
    arguments = ["evaluate", "speed", "--source", str(video), "--out", str(out), *options]
    assert main([*arguments, *models]) == 0
    told = json.loads(out.read_text())
    assert told["frames"] == told["total_ms"]["count"] == 30
    assert told["faces_per_frame"] >= 1  # for a moment two, where the loop joins
    assert set(told["stage_ms"]) == set(STAGES) - {"refine", "depth"}
    stages = told["stage_ms"]
    assert stages["detect"]["count"] + stages["track"]["count"] == 30
    assert stages["infer"]["p50"] <= stages["infer"]["p95"] <= stages["infer"]["p99"]
    spent = sum(stage["mean"] * stage["count"] for stage in stages.values())
    assert spent == pytest.approx(30 * told["total_ms"]["mean"])
    inference = stages["infer"]["mean"] * 30
    assert told["overhead_ratio"] == pytest.approx((spent - inference) / inference)
    assert told["fps"] == pytest.approx(30_000 / spent)
    assert told["memory_mb"]["peak_rss"] > 10


def test_no_face_is_told(models, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    line = fails(capsys, "reconstruct", pictures / "none.png", "--out", out, *models)
    assert "a face" in line
    assert (out / "none_overlay.png").is_file()
    assert "a face" in fails(
        capsys, "evaluate", "speed", "--source", pictures / "none.png", "--out", out / "s.json",
        "--frames", "3", *models,
    )  # fmt: skip


def test_bad_input_is_told_in_one_line(models, pictures, tmp_path, capsys):
    ok = ["--out", tmp_path / "out", *models]
    assert "does not exist" in fails(capsys, "reconstruct", tmp_path / "none.mp4", *ok)
    (tmp_path / "text.mp4").write_text("no video")
    assert "expected a video" in fails(capsys, "reconstruct", tmp_path / "text.mp4", *ok)
    (tmp_path / "file").write_text("in the way")
    two = pictures / "two.png"
    inside = tmp_path / "file" / "x"
    assert "a place to write" in fails(capsys, "reconstruct", two, "--out", inside, *models)
    assert "no such file" in fails(capsys, "reconstruct", two, *ok, "--network", "none/x.onnx")
    assert "min_score" in fails(capsys, "reconstruct", two, *ok, "--min-score", "7")
    assert "field of view" in fails(capsys, "reconstruct", two, *ok, "--fov", "400")
    assert "calibration" in fails(capsys, "reconstruct", two, *ok, "--calibration", "none.yaml")


def test_a_full_disk_is_told_in_one_line(models, pictures, tmp_path, capsys, monkeypatch):
    faults = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError("a library's own")]

    def fault(*_):
        raise faults[0]

    monkeypatch.setattr("face_recon_ros.cli.reconstruct.open_input", fault)
    command = ["reconstruct", pictures, "--out", tmp_path / "out", *models]
    assert "room on the disk" in fails(capsys, *command)
    del faults[0]
    with pytest.raises(OSError, match="a library's own"):  # the system had no part in it
        main([str(word) for word in command])


def test_what_is_not_written_whole_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(DiskFullError, match=f"room on the disk for {tmp_path / 'file'}"):
            write_whole(tmp_path / "file", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]
    write_whole(tmp_path / "new folder" / "file", "new")
    assert (tmp_path / "new folder" / "file").read_text() == "new"


def test_a_missing_package_names_the_extra(monkeypatch, capsys, tmp_path):
    def needs_torch(_):
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    monkeypatch.setattr("face_recon_ros.cli.reconstruct.run", needs_torch)
    parser = make_parser()
    args = parser.parse_args(["reconstruct", "x", "--out", str(tmp_path)])
    monkeypatch.setattr(
        cli_main, "make_parser", lambda: type("P", (), {"parse_args": lambda *_: args})
    )
    args.run = needs_torch
    assert main([]) == EXIT_FAULT
    assert "pip install 'face_recon_ros[train]'" in capsys.readouterr().err


def test_a_bug_is_not_hidden(monkeypatch, models, pictures, tmp_path):
    def broken(*_):
        raise ModuleNotFoundError("No module named 'typo'", name="typo")

    monkeypatch.setattr("face_recon_ros.cli.reconstruct.open_input", broken)
    with pytest.raises(ModuleNotFoundError):
        main(["reconstruct", str(pictures), "--out", str(tmp_path / "out"), *models])


@pytest.fixture
def heeded_sigint():
    """Who runs the tests in the background of a shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_sigint")
def test_a_command_that_is_ended_cleans_up_and_says_so_by_its_status(
    monkeypatch, models, pictures, tmp_path
):
    cleaned, statuses = [], {signal.SIGINT: 130, signal.SIGTERM: 143}
    before = {number: signal.getsignal(number) for number in statuses}

    def endless(*_):
        try:
            os.kill(os.getpid(), list(statuses)[len(cleaned)])
            time.sleep(60)
        finally:
            cleaned.append(True)

    monkeypatch.setattr("face_recon_ros.cli.reconstruct.open_input", endless)
    command = ["reconstruct", str(pictures), "--out", str(tmp_path / "out"), *models]
    for status in statuses.values():
        try:
            assert main(command) == status
        except SystemExit as end:
            assert end.code == status
    assert len(cleaned) == len(statuses)
    assert {number: signal.getsignal(number) for number in statuses} == before


def test_the_extras_that_are_named_exist():
    setup = ast.parse((ROOT / "setup.py").read_text())
    keyword = next(
        k for k in ast.walk(setup) if isinstance(k, ast.keyword) and k.arg == "extras_require"
    )
    extras = ast.literal_eval(keyword.value)
    for module, extra in EXTRAS.items():
        package = {"igl": "libigl"}.get(module, module)
        assert any(line.startswith(package) for line in extras[extra]), (
            f"{package} is not in the extra {extra}"
        )


def test_every_command_explains_itself_and_can_run():
    commands = list(every_command(make_parser()))
    assert {words[0] for words, _ in commands if words} >= {"reconstruct", "evaluate", "train"}
    for words, parser in commands:
        leaf = not any(isinstance(getattr(a, "choices", None), dict) for a in parser._actions)
        assert parser.description, words
        assert parser.get_default("run") is not None or not leaf, words
        assert "usage: face-recon" in parser.format_help()


def test_every_option_says_what_it_is():
    for words, parser in every_command(make_parser()):
        for action in parser._actions:
            if not isinstance(action.choices, dict):
                assert action.help and not action.help.startswith("("), (words, action.dest)


@pytest.mark.parametrize("arguments, code", [(["--help"], 0), ([], 2), (["nonsense"], 2)])
def test_as_a_program(arguments, code):
    done = subprocess.run(
        [sys.executable, "-m", "face_recon_ros", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == code
    assert "face-recon" in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr


def test_pictures_of_one_person_become_one_head(models, tmp_path, capsys):
    """Three pictures of a disc that is now more, now less red: one head between them."""
    folder, out = tmp_path / "ann", tmp_path / "out"
    folder.mkdir()
    for i, red in enumerate((200, 215, 230)):
        others = [(250, 60, 12, GREEN)] if i == 1 else []  # somebody small behind
        disc = draw_discs(320, 240, (120, 120, 40, (red, 90, 60)), *others)
        cv2.imwrite(str(folder / f"p{i}.png"), disc[..., ::-1])
    cv2.imwrite(str(folder / "nobody.png"), np.zeros((240, 320, 3), np.uint8))
    (folder / "broken.png").write_bytes(b"no picture")
    assert main(["reconstruct", "--same-person", str(folder), "--out", str(out), *models]) == 0
    told = capsys.readouterr()
    assert "1 head from 3 pictures" in told.out and "broken.png" in told.err
    assert "no face in 1 of 4 pictures: nobody.png" in told.err
    result, table = json.loads((out / "faces.json").read_text()), np.load(out / "faces.npz")
    assert result["pictures"] == ["p0.png", "p1.png", "p2.png"]
    (person,) = result["faces"]
    assert person["id"] == "person" and person["images"] == 3
    np.testing.assert_array_equal(table["identity"], np.tile(table["identity"][:1], (3, 1)))
    apart = []
    for i in range(3):
        alone = tmp_path / f"alone{i}"
        picture = folder / f"p{i}.png"
        assert main(["reconstruct", str(picture), "--out", str(alone), *models]) == 0
        faces = json.loads((alone / f"p{i}.json").read_text())["faces"]
        apart.append(max(faces, key=lambda f: f["box"][2] - f["box"][0])["identity"])
    np.testing.assert_allclose(person["identity"], np.mean(apart, axis=0), atol=0.03)
    assert np.std(apart, axis=0).max() > 0.01  # they did differ
    assert read_mesh(out / "faces_person.ply").vertices.shape[1] == 3
    assert (out / "faces_person_views.png").is_file() and (out / "p1.png_overlay.png").is_file()


def test_pictures_of_one_person_that_are_stopped_give_a_head_of_the_first(
    models, tmp_path, capsys, monkeypatch
):
    folder, out = tmp_path / "ann", tmp_path / "out"
    folder.mkdir()
    for i in range(4):
        disc = draw_discs(320, 240, (100 + 10 * i, 120, 40, RED))
        cv2.imwrite(str(folder / f"p{i}.png"), disc[..., ::-1])
    seen, process = [], FacePipeline.process_person

    def process_and_press(*args, **options):
        seen.append(args)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)
        return process(*args, **options)

    monkeypatch.setattr(FacePipeline, "process_person", process_and_press)
    assert main(["reconstruct", "--same-person", str(folder), "--out", str(out), *models]) == 0
    assert (
        "stopped by Ctrl-C: the results are those of the first 2 of 4" in capsys.readouterr().err
    )
    assert json.loads((out / "faces.json").read_text())["pictures"] == ["p0.png", "p1.png"]
    overlays = {"p0.png_overlay.png", "p1.png_overlay.png"}
    assert {p.name for p in out.iterdir()} == overlays | {
        "faces.json", "faces.npz", "faces_person.ply", "faces_person_views.png"
    }  # fmt: skip


def test_a_second_run_replaces_the_files_of_the_first_and_no_others(
    models, pictures, video, tmp_path, capsys
):
    out = tmp_path / "out"
    run = ["reconstruct", "--out", str(out), *models]
    assert main([*run, str(video), "--mesh", "all"]) == 0
    (first,) = json.loads((out / "faces.json").read_text())["faces"]
    assert main([*run, str(pictures / "two.png")]) == 0
    (out / "faces_mine.ply").touch()
    kept = {"faces.json", "faces.npz", "faces_mine.ply", "overlay.mp4"}
    kept |= {p.name for p in out.glob("two*")}
    assert (out / f"faces_{first['id']}.mtl").is_file()
    capsys.readouterr()
    assert main([*run, str(video), "--mesh", "ply"]) == 0
    assert "replaced" not in capsys.readouterr().err  # the same video, again
    meshes = {f"faces_{first['id']}{suffix}" for suffix in (".ply", "_views.png")}
    assert {p.name for p in out.iterdir()} == kept | meshes
    fails(capsys, *run, _video_of_nobody(tmp_path / "none.avi"))
    assert {p.name for p in out.iterdir()} == kept
    assert main([*run, str(video)]) == 0
    assert f"replaced the results of {tmp_path / 'none.avi'}" in capsys.readouterr().err
    (out / "faces.json").write_text('{"source": "x", "files": "of another program"}')
    assert main([*run, str(video)]) == 0


def _video_of_nobody(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (320, 240))
    for _ in range(4):
        writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()
    return path


def test_options_that_change_nothing_are_told(models, pictures, video, tmp_path, capsys):
    run = ["reconstruct", "--out", str(tmp_path / "out"), *models]
    assert main([*run, str(video), "--frames", "2", "--workers", "2", "--refine", "3"]) == 0
    told = capsys.readouterr().err
    assert "no effect on videos, bags and cameras: --workers, --refine" in told
    assert main([*run, str(pictures / "two.png"), "--detect-every", "1", "--workers", "2"]) == 0
    assert "no effect on pictures: --detect-every\n" in capsys.readouterr().err
    assert main([*run, str(pictures), "--same-person", "--workers", "2"]) == 0
    assert "no effect on --same-person: --workers" in capsys.readouterr().err
    assert main([*run, str(video), "--frames", "2"]) == 0
    assert "no effect" not in capsys.readouterr().err


def test_pictures_without_a_face_are_named(models, pictures, tmp_path, capsys):
    assert main(["reconstruct", str(pictures), "--out", str(tmp_path / "out"), *models]) == 0
    assert "no face in 1 of 2 pictures: none\n" in capsys.readouterr().err


def test_a_video_is_not_overwritten_by_its_own_overlay(models, video, tmp_path, capsys):
    mine = video.rename(tmp_path / "overlay.mp4")
    before = mine.read_bytes()
    told = fails(capsys, "reconstruct", mine, "--out", tmp_path, *models)
    assert "which is read" in told and mine.read_bytes() == before


def test_one_person_needs_pictures_with_a_face(models, video, tmp_path, capsys):
    out = ["--out", tmp_path / "out", *models]
    assert "folder" in fails(capsys, "reconstruct", "--same-person", video, *out)
    empty = tmp_path / "empty"
    empty.mkdir()
    fails(capsys, "reconstruct", "--same-person", empty, *out)
    cv2.imwrite(str(empty / "black.png"), np.zeros((240, 320, 3), np.uint8))
    assert "face" in fails(capsys, "reconstruct", "--same-person", empty, *out)


def test_tables_are_aligned_and_empty_ones_have_their_header():
    text = common.table(("mm", "ours", "of"), [("median", 1.25, "skin"), ("a", None, "x")])
    assert text.splitlines() == ["mm      ours  of", "median  1.25  skin", "a          -  x"]
    assert common.table(("a", "b"), []) == "a  b"
