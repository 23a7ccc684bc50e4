"""What every evaluation writes: plain JSON, and what the figures were measured with."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from face_recon_ros.core.errors import DataError, reason
from face_recon_ros.core.models import sha256_of
from face_recon_ros.core.onnx_session import runtime
from face_recon_ros.evaluation.metrics import Interval
from face_recon_ros.io.folders import write_whole

#: Called with (done, total) as work goes on.
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Says nothing."""


def plain(value: Any) -> Any:
    """Arrays, intervals and NaN -> what JSON can hold (NaN and infinity become null)."""
    if isinstance(value, Interval):
        return {"value": plain(value.value), "low": plain(value.low), "high": plain(value.high)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def write_json(path: str | Path, result: Mapping[str, Any]) -> None:
    """Writes a result whole or not at all; equal results give equal bytes."""
    text = json.dumps(plain(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, text)


def read_json(path: str | Path) -> dict[str, Any]:
    """A result written by `write_json`.

    Raises:
        DataError: no such file, or no JSON object in it.
    """
    try:
        result = json.loads(Path(path).read_text())
    except (OSError, ValueError) as fault:
        raise DataError(
            f"an evaluation result at {path}", reason(fault), "give an evaluation's --out file"
        ) from None
    if not isinstance(result, dict):
        raise DataError(
            f"a JSON object in {path}", type(result).__name__, "give an evaluation's --out file"
        )
    return result


def provenance(files: Iterable[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured and on what machine; the same each time on the same machine.

    Args:
        files: model files in use.
        settings: options that change figures.
    """
    return {
        "models": {p.name: sha256_of(p) for p in files},
        "settings": dict(settings),
        "machine": {
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(),
        },
        "versions": {
            "face_recon_ros": _version("face_recon_ros"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "onnxruntime": str(runtime().__version__),
        },
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "source checkout"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
