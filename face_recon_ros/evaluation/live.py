"""`face-recon evaluate bag --real-time`: the bag played to the real nodes, at its own pace.

What it measures (rates, drops, latency, load) belongs to this machine at this moment and is kept
apart from the deterministic figures. It runs scripts/demo.py, so that what is measured is what
users run.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from face_recon_ros.core.errors import ConfigError, DataError

_DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"
_LIMIT_S = 3600


def run_live(bag: Path, out: Path) -> dict[str, Any]:
    """Plays a bag to the composed pipeline node.

    Args:
        bag: with raw images.
        out: folder for what the demo writes: summary.json, overlay.mp4, mesh.ply.

    Returns:
        The demo's summary, with wall-clock seconds and cores in use.

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
    command = [sys.executable, str(_DEMO), "--headless", "--source", source, "--out", str(out)]
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
            "is ROS in this environment (scripts/setup_env.sh), and has the bag raw images?",
        )
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures: dict[str, Any] = json.loads(summary.read_text())
    return {**figures, "wall_s": wall, "cores_used": used / wall}
