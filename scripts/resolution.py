#!/usr/bin/env python3
"""Asks the package index whether the requirements resolve to wheels on every platform we name.

Nothing is installed or downloaded but metadata. `uv` does the resolution, because pip reads
environment markers with the interpreter that runs it, whatever --python-version says. The answers
are kept in requirements/resolution.json, and the table of docs/install.md is made from them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
RECORD = REQUIREMENTS / "resolution.json"
PAGE = ROOT / "docs" / "install.md"
BEGIN, END = "<!-- begin of the matrix -->", "<!-- end of the matrix -->"
#: Pure Python that is published as source only, so that "wheels only" would refuse it.
SOURCE_ONLY = ("empy",)
SHOWN = ("numpy", "opencv-contrib-python", "mediapipe")
TIMEOUT_S = 300


@dataclass(frozen=True)
class Platform:
    """Where ROS 2 comes from, and what runs it.

    Attributes:
        ros: a distribution of ROS 2 from apt, or `wheels`.
        system: the operating system.
        python: its version, MAJOR.MINOR.
        libc: the newest manylinux tag that it can install, as uv names it.
    """

    ros: str
    system: str
    python: str
    libc: str


PLATFORMS = (
    Platform("humble", "Ubuntu 22.04", "3.10", "manylinux_2_35"),
    Platform("jazzy", "Ubuntu 24.04", "3.12", "manylinux_2_39"),
    Platform("kilted", "Ubuntu 24.04", "3.12", "manylinux_2_39"),
    Platform("lyrical", "Ubuntu 26.04", "3.14", "manylinux_2_40"),
    Platform("wheels", "Linux, glibc 2.28 or newer", "3.10", "manylinux_2_28"),
    Platform("wheels", "Linux, glibc 2.28 or newer", "3.11", "manylinux_2_28"),
    Platform("wheels", "Linux, glibc 2.28 or newer", "3.12", "manylinux_2_28"),
    Platform("wheels", "Linux, glibc 2.28 or newer", "3.13", "manylinux_2_28"),
    Platform("wheels", "Linux, glibc 2.28 or newer", "3.14", "manylinux_2_28"),
)
MACHINES = ("x86_64", "aarch64")
HARDWARE = ("cpu", "gpu")


@dataclass(frozen=True)
class Cell:
    """One answer of the index.

    Attributes:
        ros: see `Platform`.
        python: see `Platform`.
        machine: x86_64 or aarch64.
        hardware: cpu or gpu.
        versions: package -> version, of those worth showing; empty where nothing resolves.
        fault: why nothing resolves, one line; empty where it does.
    """

    ros: str
    python: str
    machine: str
    hardware: str
    versions: dict[str, str]
    fault: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Which question this is the answer to."""
        return self.ros, self.python, self.machine, self.hardware


def requirements_of(ros: str, hardware: str) -> tuple[list[str], Path]:
    """Requirement lines and constraints file of an installation."""
    names = ["runtime", hardware, *(["ros"] if ros == "wheels" else [])]
    lines = []
    for name in names:
        for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines():
            wanted = line.partition("#")[0].strip()
            if wanted:
                lines.append(wanted)
    suffix = "" if ros == "wheels" else f"-{ros}"
    return lines, REQUIREMENTS / f"constraints{suffix}.txt"


def resolve(platform: Platform, machine: str, hardware: str) -> Cell:
    """Asks the index for one platform.

    Raises:
        FileNotFoundError: there is no uv.
        subprocess.TimeoutExpired: the index does not answer.
        ConnectionError: the index cannot be reached.
    """
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise FileNotFoundError("expected uv, got none; pip install -r requirements/test.txt")
    lines, constraints = requirements_of(platform.ros, hardware)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as excluded:
        excluded.write("\n".join(SOURCE_ONLY))
        excluded.flush()
        done = _compile(uv, platform, machine, excluded.name, constraints, lines)
    key = (platform.ros, platform.python, machine, hardware)
    if done.returncode == 0:
        pins = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
        runtime = "onnxruntime-gpu" if hardware == "gpu" else "onnxruntime"
        return Cell(*key, {name: pins[name] for name in (runtime, *SHOWN)}, "")
    message = " ".join(done.stderr.split())
    if "No solution found" not in message:
        raise ConnectionError(f"expected an answer of the package index, got {message[-300:]}")
    return Cell(*key, {}, reason(message))


def _compile(
    uv: str, platform: Platform, machine: str, excluded: str, constraints: Path, lines: list[str]
) -> subprocess.CompletedProcess[str]:
    options = {
        "--python-version": platform.python,
        "--python-platform": f"{machine}-{platform.libc}",
        "--excludes": excluded,
        "--constraints": str(constraints),
    }
    told = [word for option in options.items() for word in option]
    quiet = ["--no-build", "--no-header", "--no-annotate", "--quiet"]
    return subprocess.run(
        [uv, "pip", "compile", "-", *quiet, *told],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def reason(message: str) -> str:
    """Uv's explanation in one line: which package has no wheel there."""
    without = re.findall(r"([\w.-]+)(?:\[[\w,]*\])?[=<>0-9.,]* has no (?:usable )?wheels", message)
    return f"no wheel of {without[0]}" if without else message[:160]


def every_cell() -> list[Cell]:
    """Answers for all platforms, machines and kinds of hardware."""
    cells = []
    for platform in PLATFORMS:
        for machine in MACHINES:
            for hardware in HARDWARE:
                cells.append(resolve(platform, machine, hardware))
                print(*cells[-1].key, cells[-1].fault or "resolves", file=sys.stderr)
    return cells


def read_record() -> tuple[str, list[Cell]]:
    """Date and answers of the last time."""
    content = json.loads(RECORD.read_text())
    return content["date"], [Cell(**cell) for cell in content["cells"]]


def table(date: str, cells: list[Cell]) -> str:
    """The matrix as Markdown."""
    rows = [
        "| ROS 2 | system | Python | machine | CPU: onnxruntime | GPU: onnxruntime-gpu | "
        + " | ".join(SHOWN)
        + " |",
        "|---" * (6 + len(SHOWN)) + "|",
    ]
    answers = {cell.key: cell for cell in cells}
    for platform in PLATFORMS:
        for machine in MACHINES:
            cpu, gpu = (
                answers[platform.ros, platform.python, machine, hardware] for hardware in HARDWARE
            )
            columns = [platform.ros, platform.system, platform.python, machine]
            columns += [cpu.versions.get("onnxruntime", cpu.fault)]
            columns += [gpu.versions.get("onnxruntime-gpu", gpu.fault)]
            columns += [cpu.versions.get(name, "") for name in SHOWN]
            rows.append(f"| {' | '.join(columns)} |")
    return "\n".join([*rows, "", f"Asked on {date} by `scripts/resolution.py`."])


def page_with(text: str, matrix: str) -> str:
    """The page with its matrix replaced."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{matrix}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Asks, keeps the answers and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only write the table again")
    if not parser.parse_args().table:
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        content = {"date": today, "cells": [asdict(cell) for cell in every_cell()]}
        RECORD.write_text(json.dumps(content, indent=1) + "\n")
    PAGE.write_text(page_with(PAGE.read_text(), table(*read_record())))


if __name__ == "__main__":
    main()
