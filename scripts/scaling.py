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
time of several.

The start of a process counts, too: a second or two of imports and models before its first item. So
the work is as long as the least that is worth a second process: four minutes of video in eight
bags, a thousand pictures. More --pictures and --bags show the speed of a long run; shorter bags
(--seconds) show the cost of the start.
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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from face_recon_ros.core.types import Image
from face_recon_ros.evaluation.record import record
from face_recon_ros.io.source_config import TEST_PATTERN, SourceConfig
from face_recon_ros.io.sources import open_source

NAMES = ("reconstruct", "geometry", "bags", "train prepare")
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


def make_case(name: str, folder: Path, options: argparse.Namespace) -> Case:
    """Makes the input of one of `NAMES` and names the command."""
    if name == "bags":
        bag = folder / "bag"
        record(_turning_head(options.seconds), bag)
        bags = [
            str(shutil.copytree(bag, folder / f"bag_{k}", copy_function=os.link))
            for k in range(options.bags)
        ]
        return Case(("evaluate", "bag", *bags), "reports", len(bags), "bags")
    if name == "train prepare":
        photographs = options.photographs or _photographs(folder, options.pictures)
        count = sum(path.is_file() for path in photographs.rglob("*"))
        command = ("train", "prepare", str(photographs), "--set", "skip_grey=false")
        return Case(command, "run", count, "photographs")
    stills = _stills(folder, options.pictures)
    if name == "geometry":
        command = ("evaluate", "geometry", "--images", str(stills))
        return Case(command, "g.json", options.pictures, "pictures")
    only = folder / "only_pictures"
    only.mkdir()
    for path in stills.glob("*.png"):
        for k in range(COPIES):
            os.link(path, only / f"{path.stem}_{k}.png")
    return Case(("reconstruct", str(only)), "reconstructed", COPIES * options.pictures, "pictures")


def _stills(folder: Path, count: int) -> Path:
    """Rendered people, once."""
    stills = folder / "stills"
    if not stills.exists():
        face_recon("evaluate", "synthetic", "--random", str(count), "--out", str(stills))
    return stills


def _photographs(folder: Path, pictures: int) -> Path:
    """Small JPEG files of the stills, 40 of each."""
    photographs = folder / "photographs"
    photographs.mkdir()
    names = sorted(_stills(folder, pictures).glob("*.png"))
    for k in range(40 * pictures):
        picture = cv2.resize(cv2.imread(str(names[k % len(names)])), (250, 250))
        cv2.imwrite(str(photographs / f"face_{k:05d}.jpg"), picture)
    return photographs


def _turning_head(duration_s: float) -> Iterator[Image]:
    """Images of the test pattern; a stamp of 0 would mean "not stamped"."""
    source = open_source(SourceConfig(source=TEST_PATTERN, loop=True))
    for image in islice(source, round(duration_s * source.fps)):
        yield replace(image, stamp=image.stamp + 1.0)


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
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of video in a bag (default: %(default)g)"
    )
    parser.add_argument("--workers", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--only", choices=NAMES, help="one command (default: all)")
    options = parser.parse_args()
    result: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="face_recon_scaling_") as temporary:
        folder = Path(temporary)
        for name in [options.only] if options.only else NAMES:
            case = make_case(name, folder, options)
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
