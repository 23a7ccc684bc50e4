#!/usr/bin/env python3
"""Simulates the gaze controller in closed loop and plots step and pursuit into docs/images/.

30 Hz, 100 ms from exposure to controller, image noise, a servo with delay and lag. Prints the
figures that docs/robot.md quotes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from face_recon_ros.robot.closed_loop_simulation import (
    Following,
    Scene,
    around,
    follow,
    step_figures,
)
from face_recon_ros.robot.neck import neck_from_urdf

ROOT = Path(__file__).resolve().parents[1]

BAND_DEG = 1.5
START_S = 1.0


def main() -> None:
    """Runs the scenarios, prints their figures, draws them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder")
    parser.add_argument(
        "--urdf", type=Path, default=ROOT / "urdf" / "pan_tilt.urdf", help="of the neck"
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs per scenario (default 5)")
    arguments = parser.parse_args()
    neck = neck_from_urdf(
        arguments.urdf.read_text(),
        ("pan_joint", "tilt_joint"),
        "camera_optical_frame",
        max_velocity=2.0,
        max_acceleration=8.0,
        limit_margin=0.02,
    )
    scenarios = {
        "step": (lambda t: around(0.0 if t < START_S else np.radians(30)), 4.0),
        "pursuit": (lambda t: around(np.radians(np.clip(30 * (t - START_S) - 50, -50, 50))), 4.3),
    }
    runs: dict[tuple[str, bool], list[Following]] = {}
    for name, (head_at, duration_s) in scenarios.items():
        for capture_time in (True, False):
            seeds = arguments.seeds if capture_time else 1
            scenes = [Scene(capture_time=capture_time, seed=seed) for seed in range(seeds)]
            runs[name, capture_time] = [follow(neck, head_at, duration_s, scene=s) for s in scenes]
    for capture_time in (True, False):
        report(runs["step", capture_time], runs["pursuit", capture_time], capture_time)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw("step", runs, arguments.out / "robot_step.png")
    draw("pursuit", runs, arguments.out / "robot_pursuit.png")


def report(steps: list[Following], pursuits: list[Following], capture_time: bool) -> None:
    """Prints the worst figures of all seeds."""
    figures = [step_figures(f, START_S, np.radians(BAND_DEG)) for f in steps]
    late = [np.degrees(f.errors[f.times > START_S + 1.0]) for f in pursuits]
    print(
        f"{'pose at capture time' if capture_time else 'newest pose'} ({len(steps)} runs): "
        f"30 degree step settles in {max(s for s, _ in figures):.2f} s, "
        f"overshoot {np.degrees(max(o for _, o in figures)):.1f} degrees; "
        f"30 degrees/s followed within {max(e.max() for e in late):.1f} degrees "
        f"(mean {np.mean([e.mean() for e in late]):.1f}); "
        f"stops hit {sum(f.limits_hit for f in steps + pursuits)} times"
    )


def draw(name: str, runs: dict[tuple[str, bool], list[Following]], path: Path) -> None:
    """Pan angle over time above, angle between look axis and head below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, height_ratios=[3, 2])
    good, bad = runs[name, True][0], runs[name, False][0]
    above.plot(good.times, np.degrees(good.wanted[:, 0]), "k--", lw=1, label="head")
    above.plot(bad.times, np.degrees(bad.positions[:, 0]), color="0.7", label="newest pose")
    above.plot(good.times, np.degrees(good.positions[:, 0]), "C0", label="pose at capture time")
    above.set_ylabel("pan (degrees)")
    above.legend(loc="upper left", frameon=False)
    below.plot(bad.times, np.degrees(bad.errors), color="0.7")
    for run in runs[name, True]:
        below.plot(run.times, np.degrees(run.errors), "C0", lw=0.8, alpha=0.6)
    below.axhline(3.0, color="C3", lw=0.8, ls=":")
    below.set_ylabel("gaze error (degrees)")
    below.set_xlabel("time (s)")
    below.set_ylim(0, 35)
    figure.align_ylabels()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
