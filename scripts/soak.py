#!/usr/bin/env python3
"""Leaves the pipeline node running at 30 Hz and watches its memory and latency, from outside."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import demo
import numpy as np

_FPS, _WIDTH, _HEIGHT, _SECONDS = 30.0, 640, 480, 1.0
_START_S = 120.0


@dataclass
class Record:
    """What was seen, with seconds since the first mesh."""

    latency: list[tuple[float, float]] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def summary(self, warm_up_s: float) -> dict[str, float]:
        """First and last third after the warm-up: resident memory, MB, and p99 latency, ms."""
        memory, latency = (_thirds(rows, warm_up_s) for rows in (self.memory, self.latency))
        mb = [float(np.mean(values)) for values in memory]
        p99_ms = [float(np.percentile(values, 99)) * 1e3 for values in latency]
        after = [t for t, _ in self.latency if t >= warm_up_s]
        return {
            "hz": (len(after) - 1) / (after[-1] - after[0]),
            "memory_first_mb": mb[0],
            "memory_last_mb": mb[-1],
            "memory_growth_percent": 100 * (mb[-1] / mb[0] - 1),
            "p99_first_ms": p99_ms[0],
            "p99_last_ms": p99_ms[-1],
            "p99_drift_percent": 100 * (p99_ms[-1] / p99_ms[0] - 1),
        }


def _thirds(rows: list[tuple[float, float]], begin: float) -> list[list[float]]:
    edges = np.linspace(begin, rows[-1][0], 4)
    return [
        [value for t, value in rows if low <= t <= high] for low, high in itertools.pairwise(edges)
    ]


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/soak.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="after the warm-up")
    parser.add_argument("--warm-up-minutes", type=float, default=2.0, help="not measured")
    parser.add_argument("--max-growth", type=float, default=1.0, help="of memory, percent")
    parser.add_argument("--max-drift", type=float, default=10.0, help="of p99 latency, percent")
    parser.add_argument("--min-hz", type=float, default=29.0, help="of meshes received")
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME:=VALUE", help="any node parameter"
    )
    options = parser.parse_args(arguments)
    if min(options.minutes, options.warm_up_minutes) <= 0:
        parser.error("expected minutes above zero")
    return options


def write_video(path: Path) -> None:
    """A head that turns, which can be looped."""
    from face_recon_ros.core.pattern import TurningHead

    head = TurningHead(_WIDTH, _HEIGHT)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), _FPS, (_WIDTH, _HEIGHT))
    n = round(_SECONDS * _FPS)
    for k in [*range(n), *reversed(range(n))]:  # to and fro: it ends where it begins
        video.write(np.ascontiguousarray(head.render(k / _FPS)[..., ::-1]))
    video.release()


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def watch(process: demo.subprocess.Popen[bytes], seconds: float) -> Record:
    """Receives meshes for so long; every minute it says how things are."""
    import rclpy
    from sensor_msgs.msg import PointCloud2

    from face_recon_ros.nodes.conversions import seconds_from_stamp
    from face_recon_ros.nodes.recorder import COUNTING_QOS

    record, begin, told = Record(), [0.0], [0.0]
    rclpy.init()
    node = rclpy.create_node("soak")

    def receive(msg: PointCloud2) -> None:
        now, begin[0] = time.monotonic(), begin[0] or time.monotonic()
        late = time.time() - seconds_from_stamp(msg.header.stamp)
        record.latency.append((now - begin[0], late))

    def measure() -> None:
        if not begin[0]:
            return
        now = time.monotonic() - begin[0]
        record.memory.append((now, resident_mb(process.pid)))
        if now - told[0] >= 60.0:
            last = [late for t, late in record.latency if t > now - 60.0]
            p99_ms = np.percentile(last, 99) * 1e3 if last else np.nan
            print(
                f"{now / 60:6.1f} min  {len(last) / 60:5.2f} Hz  p99 {p99_ms:6.1f} ms  "
                f"{record.memory[-1][1]:6.1f} MB",
                flush=True,
            )
            told[0] = now

    node.create_subscription(PointCloud2, "/face/mesh/vertices", receive, COUNTING_QOS)
    node.create_timer(1.0, measure)
    start = time.monotonic()
    while process.poll() is None and time.monotonic() < (begin[0] or start + _START_S) + seconds:
        rclpy.spin_once(node, timeout_sec=0.5)
    node.destroy_node()
    rclpy.try_shutdown()
    return record


def main() -> int:
    """0 when memory, latency and rate held."""
    options = parse_arguments(sys.argv[1:])
    os.environ.update(env := demo.environment())
    warm_up_s, seconds = 60 * options.warm_up_minutes, 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder, demo.processes() as nodes:
        video = Path(folder) / "head.avi"
        write_video(video)
        parameters = [f"camera.source:={video}", "camera.loop:=true", *options.param]
        flags = [flag for p in parameters for flag in ("-p", p)]
        command = [sys.executable, "-m", "face_recon_ros.nodes.pipeline", "--ros-args", *flags]
        nodes["pipeline"] = demo.start(command, env)
        record = watch(nodes["pipeline"], warm_up_s + seconds)
        ended = nodes["pipeline"].poll()
    if ended is not None or not record.memory or record.memory[-1][0] < warm_up_s + seconds / 2:
        print(f"soak failed: the node ended early (status {ended}) or was silent", file=sys.stderr)
        return 1
    summary = record.summary(warm_up_s)
    print(", ".join(f"{key} {value:.2f}" for key, value in summary.items()))
    held = (
        summary["memory_growth_percent"] <= options.max_growth
        and summary["p99_drift_percent"] <= options.max_drift
        and summary["hz"] >= options.min_hz
    )
    print("held" if held else "did not hold")
    return 0 if held else 1


if __name__ == "__main__":
    status = main()
    from face_recon_ros.nodes.runtime import leave

    leave(status, None)  # the destructors of Fast DDS hang at times
