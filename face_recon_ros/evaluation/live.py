"""`face-recon evaluate bag --real-time`: the bag played to the real nodes, at its own pace.

What it measures (rates, drops, latency, load) belongs to this machine at this moment and is kept
apart from the deterministic figures. It runs scripts/demo.py, so that what is measured is what
users run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from face_recon_ros.core.camera import DEFAULT_HORIZONTAL_FOV_DEG
from face_recon_ros.core.errors import ConfigError, DataError
from face_recon_ros.core.inference import find_network
from face_recon_ros.core.models import find_model, user_path

_DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"
_LIMIT_S = 3600


def node_parameters(args: argparse.Namespace) -> dict[str, str | int | float]:
    """The nodes' parameters that say what the options of `evaluate bag` say.

    Args:
        args: of pipeline and camera options, and `image_topic`.
    """
    values: dict[str, str | int | float] = {
        "camera.topic": args.image_topic,
        "camera.calibration": _whole_path(args.calibration),
        "camera.fov_deg": float(DEFAULT_HORIZONTAL_FOV_DEG if args.fov is None else args.fov),
        "detector.backend": args.detector,
        "detector.model": _whole_path(args.detector_model),
        "detector.min_score": float(args.min_score),
        "detector.tiles": args.tiles,
        "tracker.detect_every": args.detect_every,
        "tracker.max_faces": args.max_faces,
        "reconstructor.network": str(find_network(args.network, args.provider).resolve()),
        "reconstructor.regressor_every": args.regressor_every,
        "reconstructor.face_model": str(find_model(args.face_model).resolve()),
        "reconstructor.level": args.level,
        "reconstructor.part": args.part,
        "reconstructor.provider": args.provider,
        "reconstructor.threads": args.threads,
    }
    return {name: value for name, value in values.items() if value != ""}


def _whole_path(path: str | Path | None) -> str:
    """A file's path from the root, as the nodes run in another folder; a shipped name as it is."""
    whole = user_path(path or "").resolve()
    return str(whole if whole.is_file() else path or "")


def run_live(
    bag: Path, out: Path, *, frames: int = 0, parameters: Mapping[str, str | int | float]
) -> dict[str, Any]:
    """Plays a bag to the composed pipeline node.

    Args:
        bag: to play.
        out: folder for what the demo writes: summary.json, overlay.mp4, mesh.ply.
        frames: stop after so many images; 0 plays all.
        parameters: of the nodes, by name.

    Returns:
        The demo's summary, with images that were not processed (`drops`), wall-clock seconds and
        cores in use.

    Raises:
        ConfigError: the demo or ROS is not here.
        DataError: it failed.
    """
    if not _DEMO.is_file():
        raise ConfigError(
            f"the demo at {_DEMO}", "none", "run from a checkout, or leave --real-time out"
        )
    out.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    source = str(bag.resolve())
    command = [sys.executable, str(_DEMO), "--headless", "--source", source]
    command += ["--out", str(out.resolve()), "--frames", str(frames)]
    for name, value in parameters.items():
        command += ["--param", f"{name}:={json.dumps(value)}"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=_DEMO.parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"a replay within {_LIMIT_S} s", "none", "use a shorter bag or --frames"
        ) from None
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = out / "summary.json"
    if done.returncode != 0 or not summary.is_file():
        lines = done.stdout.strip().splitlines()
        raise DataError(
            "the nodes to play the bag",
            lines[-1] if lines else f"exit code {done.returncode}",
            "is ROS in this environment (scripts/setup_env.sh), and has the bag images?",
        )
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures: dict[str, Any] = json.loads(summary.read_text())
    drops = figures["frames_in"] - figures["frames_processed"]
    return {**figures, "drops": drops, "wall_s": wall, "cores_used": used / wall}
