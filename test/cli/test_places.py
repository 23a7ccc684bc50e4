"""Where commands read and write: wrong places, odd names, and a camera that is stopped."""

import argparse
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import every_command, fails

from face_recon_ros.cli import common, numbers, options
from face_recon_ros.cli.main import main, make_parser
from face_recon_ros.cli.stopping import StoppableSource, stoppable
from face_recon_ros.core.errors import SourceError
from face_recon_ros.core.models import user_path
from face_recon_ros.core.pattern import TurningHead
from face_recon_ros.core.types import Image
from face_recon_ros.io.folders import write_whole
from face_recon_ros.io.journal import Journal
from face_recon_ros.io.sources import SourceConfig, open_source

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {"out", "report", "preview", "write", "csv"}


def test_every_place_that_is_written_is_checked_before_the_work():
    commands = [(words, parser) for words, parser in every_command(make_parser())]
    for words, parser in commands:
        named = WRITTEN & {action.dest for action in parser._actions}
        assert named <= set(parser.get_default("outputs") or {}), words
    assert sum(bool(parser.get_default("outputs")) for _, parser in commands) > 20


@pytest.mark.parametrize(
    "command",
    [
        "reconstruct {folder} --out {folder}",
        "reconstruct --same-person {folder} --out {folder}/.",
        "evaluate tracking {folder} --truth {file} --preview {folder} --out x.json",
        "evaluate detection --images {folder} --preview {folder} --out x.json",
        "evaluate compare {file} {other} --out {other}",
        "train prepare {folder} --out {folder}",
    ],
)
def test_what_is_read_is_not_written_to(command, tmp_path, capsys):
    """A second run would take the first one's results for pictures, or an input is lost."""
    folder, file, other = tmp_path / "folder", tmp_path / "a.json", tmp_path / "b.json"
    folder.mkdir()
    file.touch()
    other.touch()
    words = command.format(folder=folder, file=file, other=other).split()
    assert "which is read" in fails(capsys, *words)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "evaluate synthetic --random 1 --out {}",
        "evaluate tracking --people 1 --write {} --out x.json",
    ],
)
def test_pictures_with_truth_are_not_mixed_with_those_of_an_earlier_run(command, tmp_path, capsys):
    (tmp_path / "old.png").touch()
    told = fails(capsys, *command.format(tmp_path).split())
    assert "a new or empty folder" in told and "old.png" in {p.name for p in tmp_path.iterdir()}


def test_a_preview_says_that_pictures_of_others_are_among_its_own(tmp_path, capsys):
    common.make_preview(tmp_path / "new")
    assert capsys.readouterr().err == ""
    (tmp_path / "new" / "0001.png").touch()
    common.make_preview(tmp_path / "new")
    assert "has pictures already" in capsys.readouterr().err


def test_no_option_takes_a_number_that_is_none():
    for words, parser in every_command(make_parser()):
        for action in parser._actions:
            assert action.type is not float, (words, action.dest)
    for text in ("nan", "-inf", "1e999", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"finite number, got {text}"):
            numbers.finite(text)
    assert numbers.finite("-1.5e3") == -1500.0


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_a_place_that_cannot_be_written_to_is_told_before_the_work(option, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    command = ["evaluate", "landmarks", "--images", tmp_path / "nowhere"]
    for wrong in ("file/deep/x", "folder"):
        places = {"--out": tmp_path / "new" / "x.json", "--report": tmp_path / "new" / "x.html"}
        places[option] = tmp_path / wrong
        told = fails(capsys, *command, *(word for pair in places.items() for word in pair))
        assert f"at {tmp_path / wrong}" in told or f"write {tmp_path / wrong}" in told
        assert f"choose another {option}" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_where_a_folder_is_wanted_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    for command in (["evaluate", "bag", "a", "b"], ["reconstruct", "x"], ["model", "info"]):
        option = "--pictures" if command[0] == "model" else "--out"
        told = fails(capsys, *command, option, tmp_path / "file")
        assert "expected a folder at" in told and f"choose another {option}" in told


def test_the_home_folder_is_found_whatever_the_shell_leaves(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in the way").touch()
    assert str(tmp_path) in fails(capsys, "reconstruct", "x", "--out=~/in the way")
    monkeypatch.chdir(tmp_path)
    assert user_path("~/x") == tmp_path / "x"
    (tmp_path / "~$letter.png").write_bytes(b"no home of that name")
    assert "text" not in fails(capsys, "reconstruct", "~$letter.png", "--out", "out")


def test_what_the_user_may_not_read_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    def fault(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/secret.png")

    monkeypatch.setattr("face_recon_ros.cli.reconstruct.open_input", fault)
    assert "/secret.png" in fails(capsys, "reconstruct", "/secret.png", "--out", tmp_path / "out")


def test_what_the_system_refuses_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    long = "x" * 300
    assert "name too long" in fails(capsys, "reconstruct", long, "--out", tmp_path / "out")
    assert "name too long" in fails(capsys, "reconstruct", "x", "--out", tmp_path / long)

    def fault(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("face_recon_ros.cli.reconstruct.open_input", fault)
    assert "Input/output error" in fails(capsys, "reconstruct", "x", "--out", tmp_path / "out")


def test_nothing_is_left_of_a_recording_without_images(tmp_path, capsys):
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff damaged")
    assert "damaged" in fails(capsys, "record", tmp_path / "x.jpg", "--out", tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("record pattern --out bag --calibration", "another structure"),
        ("evaluate compare file", "evaluation's --out file"),
        ("evaluate tracking pattern --out x.json --truth", "in line 1 of"),
    ],
)
@pytest.mark.parametrize("content", [None, b"\xff\xfe\0", b"- 1\n"])
def test_files_of_another_kind_are_told_without_pythons_words(
    command, says, content, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    says = {None: "got No such file", b"\xff\xfe\0": "no text"}.get(content, says)
    if content:
        Path("file").write_bytes(content)
    told = fails(capsys, *command.split(), "file")
    assert says in told and "Errno" not in told and "codec" not in told


def test_a_name_that_nothing_would_read_is_refused_before_the_work(tmp_path, capsys):
    for command in ("avatar x", "model build", "model import ict x", "export x"):
        told = fails(capsys, *command.split(), "--out", tmp_path / "file.txt")
        assert "--out that ends in ." in told and "'file.txt'" in told


def test_an_empty_name_is_none(tmp_path, monkeypatch, capsys):
    """As of a variable that the shell does not know; the working folder would be taken for it."""
    monkeypatch.chdir(tmp_path)
    assert "an empty name" in fails(capsys, "reconstruct", "", "--out", "out")
    with pytest.raises(SystemExit):
        main(["reconstruct", "pattern", "--out", ""])
    assert "got an empty one" in capsys.readouterr().err


def test_sources_of_other_kinds_are_told_apart(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x.png").write_bytes(b"")
    out = ["--out", tmp_path / "out"]
    assert "a pipe" in fails(capsys, "reconstruct", tmp_path / "pipe", *out)
    assert "a stream of rtsp" in fails(capsys, "reconstruct", "ftp://x/a.mp4", *out)
    told = fails(capsys, "reconstruct", tmp_path / "x.png", "--image-topic", "/x", *out)
    assert "expected a bag for --image-topic" in told


@pytest.mark.parametrize(
    "words",
    [
        ["tracking", "talk.mp4", "--truth", "gt.txt", "--write", "room"],
        ["tracking", "talk.mp4", "--truth", "gt.txt", "--portraits", "faces"],
        ["detection", "--images", "faces", "--backgrounds", "rooms"],
    ],
)
def test_an_option_that_would_do_nothing_is_refused(words, tmp_path, capsys):
    told = fails(capsys, "evaluate", *words, "--out", tmp_path / "x.json")
    assert any(option in told for option in ("--portraits", "--backgrounds"))


def test_names_that_are_no_text_cost_nothing(tmp_path):
    name = os.fsdecode(b"bad\xff")
    journal = Journal(tmp_path / "journal", "settings")
    journal.write(name, {"faces": 1})
    assert journal.read(name) == {"faces": 1}
    write_whole(tmp_path / "x.json", json.dumps({"name": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "x.json").read_text()) == {"name": name}


def test_two_runs_of_one_command_do_not_break_each_other(tmp_path):
    """The one that ends first removes the answers of both."""
    first, second = (Journal(tmp_path / "journal", "settings") for _ in range(2))
    first.write("a", 1)
    second.write("a", 1)
    first.remove()
    second.write("b", 2)
    assert second.read("b") == 2
    second.remove()
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away_is_no_fault(tmp_path):
    """As `face-recon model info | true`: nothing on stderr, not even when Python ends."""
    code = (
        "import os, sys; os.close(0); from face_recon_ros.cli.main import main; sys.exit(main())"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code, "model", "verify"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=120,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 2


def test_streams_may_be_closed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["model", "verify"]) == 0
    assert main(["record", "pattern", "--frames", "1", "--out", str(tmp_path / "bag")]) == 0


class _Camera:
    """Images without end; Ctrl-C is pressed at the image of that number, before it is given."""

    name, live, fps, length, camera_info = "camera", True, 30.0, None, None
    warnings = ()

    def __init__(self, pressed_at):
        self._pressed_at = pressed_at

    def __iter__(self):
        for number in range(100):
            if number == self._pressed_at:
                signal.raise_signal(signal.SIGINT)
            yield Image(np.zeros((8, 8, 3), np.uint8), float(number))


@pytest.mark.parametrize("while_working", [False, True])
def test_a_camera_is_ended_by_ctrl_c_and_nothing_is_lost(while_working):
    before = signal.getsignal(signal.SIGINT)
    seen = []
    for image in StoppableSource(_Camera(None if while_working else 3)):
        seen.append(image.stamp)
        if while_working and len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
    assert seen == [0.0, 1.0, 2.0]
    assert signal.getsignal(signal.SIGINT) == before


def test_a_camera_that_is_lost_loses_none_of_its_images(capsys):
    class Unplugged(_Camera):
        def __iter__(self):
            yield from itertools.islice(super().__iter__(), self._pressed_at)
            raise SourceError("images from camera", "none", "is it still connected?")

    assert len(list(StoppableSource(Unplugged(3)))) == 3
    assert "got none" in capsys.readouterr().err
    with pytest.raises(SourceError):
        list(StoppableSource(Unplugged(0)))


def test_ctrl_c_ends_all_where_there_is_nothing_to_keep():
    with pytest.raises(KeyboardInterrupt):
        list(StoppableSource(_Camera(0)))
    with pytest.raises(KeyboardInterrupt):  # twice: whoever presses it does not want to wait
        for _ in StoppableSource(_Camera(None)):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_ends_live_sources_in_every_command(monkeypatch, tmp_path):
    args = make_parser().parse_args(["record", "pattern", "--out", str(tmp_path / "bag")])
    assert not isinstance(options.open_input(args)[0], StoppableSource)
    monkeypatch.setattr(options, "open_source", lambda *_, **__: _Camera(None))
    source = options.open_input(args)[0]
    assert isinstance(source, StoppableSource) and stoppable(source) is source


def test_ctrl_c_while_the_command_is_loaded_gives_no_traceback(tmp_path):
    """A module of ours that is pressed upon, in place of one that takes long to load."""
    program = (
        "import sys, importlib.abc\n"
        "class Pressed(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'face_recon_ros.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from face_recon_ros.__main__ import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_what_was_stopped_is_told_of_the_images_that_were_wanted(capsys):
    for frames, total in ((0, " of 9"), (5, " of 5"), (20, " of 9")):
        camera = _Camera(3)
        camera.length = 9
        assert len(list(stoppable(camera, frames))) == 3
        assert f"first 3{total} images" in capsys.readouterr().err


def test_a_recording_that_is_stopped_keeps_its_images(monkeypatch, tmp_path, capsys):
    head = TurningHead.render
    pressed = itertools.count()

    def render(self, *args):
        if next(pressed) == 3:
            signal.raise_signal(signal.SIGINT)
        return head(self, *args)

    monkeypatch.setattr(TurningHead, "render", render)
    assert main(["record", "pattern", "--out", str(tmp_path / "bag")]) == 0
    told = capsys.readouterr()
    assert "stopped by Ctrl-C" in told.err and "first 3 of" in told.err
    assert "3 images in" in told.out
    assert len(list(open_source(SourceConfig(str(tmp_path / "bag"))))) == 3
