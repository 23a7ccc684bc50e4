#!/usr/bin/env python3
"""Measures what a second process brings to the commands that share out their work.

    scripts/scaling.py [--out scaling.json] [--photographs DIR]

reconstruct, evaluate geometry, evaluate bag and train prepare run on pictures and bags that this
script renders (or on your photographs), with one process and with several, in turn; that takes
about a quarter of an hour. The figures: wall time and CPU time of the least of the rounds,
how many times as fast several processes are, and items a second. Run it on a quiet machine: two
processes cannot be twice as fast where another program wants the second core. The ratio of CPU
times also says something on a busy one: how much the processes add to the work.

One process may use a part of a second core (libigl looks for nearest points in threads), so that
two cannot be twice as fast. `cores` is the measure without that: CPU time of one process over wall
time of several. The start of the processes counts, too: more --pictures and --bags show the
speed of a long run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "face_recon_ros")
TARGET = 1.8  # times as fast, with two processes
PHOTOGRAPHS_PER_S = 150.0
COPIES = 8  # of each picture, for reconstruct: it takes less time than geometry


@dataclass(frozen=True)
class Case:
    """A command that shares out items.

    Attributes:
        arguments: of face-recon, without --out and --workers.
        out: name of what it writes.
        items: how many.
        unit: what an item is.
    """

    arguments: tuple[str, ...]
    out: str
    items: int
    unit: str


def face_recon(*arguments: str) -> None:
    """Runs a command; its output is shown if it fails."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"face-recon {' '.join(arguments)}\n{done.stderr}")


def cases(folder: Path, options: argparse.Namespace) -> dict[str, Case]:
    """Renders the input and names the commands."""
    import cv2

    pictures, photographs = options.pictures, options.photographs
    stills, bag = folder / "stills", folder / "bag"
    face_recon("evaluate", "synthetic", "--random", str(pictures), "--out", str(stills))
    face_recon("record", "pattern", "--out", str(bag))
    bags = [str(shutil.copytree(bag, folder / f"bag_{k}")) for k in range(options.bags)]
    if photographs is None:
        photographs = folder / "photographs"
        photographs.mkdir()
        names = sorted(stills.glob("*.png"))
        for k in range(40 * pictures):
            picture = cv2.resize(cv2.imread(str(names[k % len(names)])), (250, 250))
            cv2.imwrite(str(photographs / f"face_{k:05d}.jpg"), picture)
    count = sum(path.is_file() for path in photographs.rglob("*"))
    only = folder / "only_pictures"
    only.mkdir()
    for path in stills.glob("*.png"):
        for k in range(COPIES):
            shutil.copy(path, only / f"{path.stem}_{k}.png")
    return {
        "reconstruct": Case(
            ("reconstruct", str(only)), "reconstructed", COPIES * pictures, "pictures"
        ),
        "geometry": Case(
            ("evaluate", "geometry", "--images", str(stills)), "g.json", pictures, "pictures"
        ),
        "bags": Case(("evaluate", "bag", *bags), "reports", len(bags), "bags"),
        "train prepare": Case(
            ("train", "prepare", str(photographs), "--set", "skip_grey=false"),
            "run",
            count,
            "photographs",
        ),
    }


def seconds(case: Case, folder: Path, workers: int) -> tuple[float, float]:
    """Wall and CPU time of a command, its processes among it."""
    out = folder / case.out
    shutil.rmtree(out, ignore_errors=True)
    before, began = os.times(), time.perf_counter()
    face_recon(*case.arguments, "--out", str(out), "--workers", str(workers))
    wall, after = time.perf_counter() - began, os.times()
    return wall, sum(after[2:4]) - sum(before[2:4])


def fast_enough(name: str, row: dict[str, Any]) -> bool:
    """Whether two processes do what the documentation says."""
    if name == "train prepare":
        return bool(row["items_per_s"] >= PHOTOGRAPHS_PER_S)
    return bool(row["times_as_fast"] >= TARGET)


def main() -> int:
    """Measures, prints and writes; 1 where two processes are not fast enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="for train prepare")
    parser.add_argument("--pictures", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--bags", type=int, default=8, help="at least 2 (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--only", default="", metavar="NAME", help="one command (default: all)")
    options = parser.parse_args()
    result: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="face_recon_scaling_") as name:
        folder = Path(name)
        for name, case in cases(folder, options).items():
            if options.only not in ("", name):
                continue
            times: dict[int, list[tuple[float, float]]] = {1: [], options.workers: []}
            for _ in range(options.rounds):
                for workers, measured in times.items():
                    measured.append(seconds(case, folder, workers))
            (one, cpu_one), (many, cpu_many) = (
                (min(wall for wall, _ in runs), min(cpu for _, cpu in runs))
                for runs in times.values()
            )
            result[name] = {
                "items": case.items,
                "unit": case.unit,
                "wall_s": {"1": one, str(options.workers): many},
                "cpu_s": {"1": cpu_one, str(options.workers): cpu_many},
                "times_as_fast": one / many,
                "cores": cpu_one / many,
                "items_per_s": case.items / many,
            }
            print(
                f"{name:14} {one:7.1f} s, with {options.workers} processes {many:7.1f} s: "
                f"{one / many:.2f} times as fast ({cpu_one / many:.2f} cores), "
                f"{case.items / many:.1f} {case.unit} a second; "
                f"CPU {cpu_one:.1f} and {cpu_many:.1f} s",
                flush=True,
            )
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    slow = [name for name, row in result.items() if not fast_enough(name, row)]
    if slow:
        print(f"too slow: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
