"""`face-recon`: what can be done without ROS. `face-recon COMMAND --help` explains each."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from face_recon_ros.cli.avatar import add_avatar_command
from face_recon_ros.cli.evaluate import add_evaluation_commands
from face_recon_ros.cli.fit import add_fit_command
from face_recon_ros.cli.model import add_model_commands
from face_recon_ros.cli.places import check_outputs, expand_home
from face_recon_ros.cli.reconstruct import add_reconstruct_command
from face_recon_ros.cli.record import add_record_command
from face_recon_ros.cli.stream import add_stream_command
from face_recon_ros.cli.train import add_training_commands
from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.io.folders import DiskFullError

EXIT_FAULT = 2  # a fault that the user can fix, one line on stderr
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_EXAMPLES = """examples:
  face-recon reconstruct portrait.jpg --out out      meshes, overlay and coefficients of a picture
  face-recon reconstruct talk.mp4 --out out          the same of a video
  face-recon avatar talk.mp4 --out me.glb             a person's head for Blender, three.js, games
  face-recon evaluate speed --source talk.mp4 --out speed.json
  face-recon model info                              what the shipped face model is made of

Live video and ROS 2: scripts/demo.sh, or ros2 launch face_recon_ros demo.launch.py"""

#: package -> the pip extra that brings it; everything else is there from the start
EXTRAS = {
    "distributed": "cluster",
    "igl": "evaluate",
    "jinja2": "evaluate",
    "matplotlib": "evaluate",
    "numba": "train",
    "onnx": "train",
    "ray": "ray",
    "rerun": "view",
    "rosbags": "bags",
    "scipy": "evaluate",
    "torch": "train",
}


def make_parser() -> argparse.ArgumentParser:
    """The whole command line. Every command sets `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="face-recon",
        description="3D faces from pictures and videos.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_reconstruct_command(commands)
    add_avatar_command(commands)
    add_stream_command(commands)
    add_evaluation_commands(commands)
    add_fit_command(commands)
    add_record_command(commands)
    add_model_commands(commands)
    add_training_commands(commands)
    return parser


def _runtime_warnings() -> list[str]:
    """Of ONNX Runtime, if the command has used it."""
    used = sys.modules.get("face_recon_ros.core.onnx_session")
    return used.runtime_warnings() if used else []


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that worker processes and their files go, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _make_streams_usable() -> None:
    """Streams that were closed (`2>&-`) take what they are told; names that are no text, too."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: without the program's name; None takes the process's.

    Returns:
        0, or `EXIT_FAULT` after one line on stderr. A bug raises.

    Raises:
        SystemExit: a wrong command line, or SIGTERM.
    """
    _make_streams_usable()
    args = make_parser().parse_args(argv)
    with _ended_by_sigterm():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        expand_home(args)
        check_outputs(args)
        code = int(args.run(args) or 0)
        sys.stdout.flush()
        for warning in _runtime_warnings():
            print(f"face-recon: {warning}", file=sys.stderr)
        return code
    except FaceReconError as fault:
        print(f"face-recon: {fault}", file=sys.stderr)
    except ModuleNotFoundError as fault:
        package = (fault.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        remedy = f"pip install 'face_recon_ros[{EXTRAS[package]}]'"
        print(f"face-recon: expected the package {package}, got none; {remedy}", file=sys.stderr)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away: head, less
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed at exit
    except PermissionError as fault:
        remedy = "ask its owner, or choose another"
        print(
            f"face-recon: expected the right to use {fault.filename}, got none; {remedy}",
            file=sys.stderr,
        )
    except OSError as fault:
        if not fault.errno:
            raise
        what = f"expected to use {fault.filename or 'a file'}, got {fault.strerror}"
        told = DiskFullError.of(fault, "the output") or f"{what}; check its path and its disk"
        print(f"face-recon: {told}", file=sys.stderr)
    return EXIT_FAULT
