#!/usr/bin/env python3
"""Runs the nodes on a source and records what they publish: overlay, mesh, figures."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEPARATE = ("detector", "reconstruction", "visualization", "camera")  # the source last
RENDERED = ("pattern", "portrait")
START_S = 60.0
STOP_S = 15.0
WHAT = {
    "overlay.mp4": "the mesh on the images",
    "preview.png": "one of them: look here first",
    "mesh.ply": "the face, for MeshLab or Blender",
    "person.glb": "the person's head with 52 expressions: Blender, three.js, game engines",
    "summary.json": "rates and latencies",
    "view.rrd": "the live view: rerun view.rrd",
}
RESULTS = ("overlay.mp4", "preview.png", "mesh.ply", "summary.json", "view.rrd", "person.glb")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo.sh",
        description="Camera to meshes over real DDS. Writes overlay.mp4, preview.png, mesh.ply "
        "and summary.json, received by processes of their own, and the person's avatar, "
        "person.glb, into the folder --out.",
        epilog="examples: scripts/demo.sh; scripts/demo.sh --source me.mp4; "
        "scripts/demo.sh --source /dev/video0 --frames 300",
    )
    parser.add_argument(
        "--source",
        default="portrait",
        help="video file, camera (/dev/video0), stream (rtsp://, http://), folder of pictures, "
        "rosbag2, `pattern` (a rendered head that turns and talks) or `portrait` (a photographed "
        "person, moving; the default)",
    )
    parser.add_argument("--frames", type=int, default=0, help="stop after so many images")
    parser.add_argument("--headless", action="store_true", help="open no window")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "demo", help="folder of results (runs/demo)"
    )
    parser.add_argument(
        "--composed",
        choices=("true", "false"),
        default="true",
        help="one process, or several (false)",
    )
    parser.add_argument(
        "--view",
        nargs="?",
        const="window",
        choices=("window", "web"),
        help="live 3D view (rerun) in a window or, `--view web`, as a page at "
        "http://127.0.0.1:9090; with --headless a recording of it, view.rrd",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=ROOT / "config" / "demo.yaml",
        help="parameters of all nodes (default: config/demo.yaml)",
    )
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME:=VALUE", help="any node parameter"
    )
    options = parser.parse_args(arguments)
    if options.frames < 0:
        parser.error("expected --frames of at least 0 (0: to the end)")
    return options


def environment() -> dict[str, str]:
    """A ROS graph of our own: this machine only, a domain of its own, room for images."""
    old = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    ours = {
        "ROS_DOMAIN_ID": os.environ.get("FACE_RECON_DOMAIN_ID", str(random.randint(1, 100))),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        f"FAST{'RTPS' if old else 'DDS'}_DEFAULT_PROFILES_FILE": str(ROOT / "config/fastdds.xml"),
        "PYTHONUNBUFFERED": "1",
    }
    if os.environ.get("ROS_DISTRO") == "humble":
        ours["ROS_LOCALHOST_ONLY"] = "1"
    return {**os.environ, **ours}


def node_commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> command of every node, in the order of their start."""
    parameters = ["--params-file", str(options.config)]
    camera = [
        f"camera.source:={json.dumps(options.source)}",  # quoted: 0 is a name here too
        f"camera.max_frames:={options.frames}",
        f"camera.loop:={str(options.source in RENDERED and options.frames > 0).lower()}",
        "camera.exit_at_end:=true",
        f"camera.wait_for_subscriber_s:={START_S}",
    ]
    for assignment in [*camera, *options.param]:
        parameters += ["-p", assignment]
    names = ("pipeline",) if options.composed == "true" else SEPARATE
    return {
        name: [sys.executable, "-m", f"face_recon_ros.nodes.{name}", "--ros-args", *parameters]
        for name in names
    }


@contextlib.contextmanager
def processes() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes by name; whatever happens, none of them outlives the block."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        yield running
    finally:
        stop(running)


def start(
    command: list[str], env: dict[str, str], stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """Starts a process that Ctrl-C does not reach (we stop it ourselves) and that dies with us."""
    libc = ctypes.CDLL(None)
    set_parent_death_signal = 1
    return subprocess.Popen(
        command,
        env=env,
        stdout=stdout,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(set_parent_death_signal, signal.SIGTERM),
    )


def stop(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Asks all to stop, and ends those that do not listen."""
    for process in running.values():
        if process.poll() is None:
            process.terminate()
    until = time.monotonic() + STOP_S
    for process in running.values():
        try:
            process.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """Runs the demo; 0 when the source was played to its end."""
    options = parse_arguments(sys.argv[1:])
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:  # a file of that name, or no right to write there
        print(
            f"demo failed: expected a folder for --out, got {options.out} ({fault.strerror}); "
            "give another",
            file=sys.stderr,
        )
        return 1
    source = Path(options.source)
    for result in (options.out / name for name in RESULTS):
        if result.exists() and source.exists() and result.samefile(source):
            print(
                f"demo failed: expected another --out, got {options.out}: it holds {source}, "
                "which is read; choose another",
                file=sys.stderr,
            )
            return 1
    for name in RESULTS:
        (options.out / name).unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    env = environment()
    interrupted = False
    with processes() as nodes, processes() as recorders:
        for what in ("meshes", "overlay"):
            command = [sys.executable, "-m", "face_recon_ros.nodes.recorder", what]
            recorders[what] = start([*command, "--out", str(options.out)], env, subprocess.PIPE)
        for what, recorder in recorders.items():  # nothing may be published before they listen
            if not (recorder.stdout and recorder.stdout.readline()):
                print(f"demo failed: the recorder of {what} did not start", file=sys.stderr)
                return 1
        if options.view:
            command = [sys.executable, "-m", "face_recon_ros.nodes.viewer"]
            if options.view == "web":
                command += ["--web"]
            elif options.headless:
                command += ["--save", str(options.out / "view.rrd")]
            recorders["viewer"] = start(command, env)
        for name, command in node_commands(options).items():
            nodes[name] = start(command, env)
        last = nodes[name]
        print(f"running on {options.source}; Ctrl-C ends it", flush=True)
        try:
            while last.poll() is None:
                time.sleep(0.2)
                failed = [n for n, p in nodes.items() if p.poll() not in (None, 0)]
                failed += [n for n, p in recorders.items() if p.poll() is not None]
                if failed:
                    print(f"demo failed: {', '.join(failed)} ended early", file=sys.stderr)
                    return 1
        except KeyboardInterrupt:
            interrupted = True
        if last.poll() not in (None, 0):
            return 1
        if options.composed == "false" and not interrupted:
            time.sleep(2.0)  # the other nodes publish their last figures once a second
        stop(nodes)
        stop(recorders)
    if not interrupted:
        make_avatar(options, env)
    return report(options.out)


def make_avatar(options: argparse.Namespace, env: dict[str, str]) -> None:
    """The person of the source as a glTF file; not of cameras, whose images are gone."""
    source = Path(options.source)
    if options.source not in RENDERED and not (source.is_file() or source.is_dir()):
        return
    out = str(options.out / "person.glb")
    command = [sys.executable, "-m", "face_recon_ros", "avatar", options.source, "--out", out]
    done = subprocess.run(
        [*command, "--frames", str(options.frames)], env=env, capture_output=True, text=True
    )
    if done.returncode:
        print(f"no avatar: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)


def report(folder: Path) -> int:
    """Prints what came out of it."""
    path = folder / "summary.json"
    if not path.is_file():
        print("demo failed: no summary was written", file=sys.stderr)
        return 1
    summary = json.loads(path.read_text())
    shown = ("frames_in", "frames_processed", "mesh_messages_received", "mesh_hz", "latency_ms")
    print(", ".join(f"{key} {summary[key]}" for key in shown))
    for file in sorted(folder.iterdir()):
        print(f"  {file}" + (f"    {WHAT[file.name]}" if file.name in WHAT else ""))
    if summary["mesh_messages_received"] == 0:
        print(
            "no face was found: is there one, at least a sixtieth of the picture's longer side?",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
