"""`face-recon evaluate speed`: what each stage of the pipeline costs, and all of it together.

The clock stands while pictures are decoded: figures are of the pipeline alone, from an image in
memory to faces with meshes and poses. What ROS adds is in the demo's summary.json.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.pipeline import STAGES, FacePipeline
from face_recon_ros.core.types import Image

PROTOCOL = {
    "name": "speed",
    "stage_ms": "of the frames in which the stage ran",
    "total_ms": "image in memory -> faces with meshes and poses; decoding is not in it",
    "fps": "frames over time spent in the pipeline",
    "overhead_ratio": "everything beside the network's inference, over that inference",
    "memory_mb": "peak resident memory of the process",
}


def measure(
    pipeline: FacePipeline,
    images: Iterable[tuple[Image, PinholeCamera]],
    *,
    warmup: int,
    source: str,
) -> dict[str, Any]:
    """Runs the pipeline over images and sums up.

    Args:
        pipeline: freshly made.
        images: in order, each with its camera; the first `warmup` are not measured.
        warmup: number of images that are not measured.
        source: its name, for the error.

    Raises:
        DataError: no image, or no face in any: there is nothing to measure.
    """
    frames: list[dict[str, float]] = []
    faces = 0
    for k, (image, camera) in enumerate(images):
        frame = pipeline.process(image, camera)
        if k >= warmup:
            frames.append(frame.timings)
            faces += len(frame.faces)
    if faces == 0:
        raise DataError(
            f"a face in {source}", "none", "choose another source, or a lower --min-score"
        )
    stages = [name for name in STAGES if any(name in timings for timings in frames)]
    inference = sum(timings["infer"] for timings in frames)
    total = sum(timings["total"] for timings in frames)
    return {
        "protocol": PROTOCOL,
        "frames": len(frames),
        "faces_per_frame": faces / len(frames),
        "image_size": [camera.width, camera.height],
        "stage_ms": {name: summary([t[name] for t in frames if name in t]) for name in stages},
        "total_ms": summary([timings["total"] for timings in frames]),
        "fps": len(frames) / total,
        "overhead_ratio": (total - inference) / inference,
        "memory_mb": {"peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024},
    }


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles and mean in milliseconds, and how many there were."""
    ms = 1e3 * np.asarray(seconds, np.float64)
    p50, p95, p99 = np.percentile(ms, [50, 95, 99])
    return {"count": len(ms), "p50": p50, "p95": p95, "p99": p99, "mean": float(ms.mean())}
