"""`face-recon evaluate photometric`: how much the rendered face looks like the photograph."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from face_recon_ros.core.crop import Crop
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.evaluation.chain import Estimator
from face_recon_ros.evaluation.datasets import Sample, Skipped, images_by_name
from face_recon_ros.evaluation.metrics import bootstrap
from face_recon_ros.evaluation.portrait import FIT_SIZE
from face_recon_ros.evaluation.stills import HERE, Execution, Still, StillBenchmark, score_samples
from face_recon_ros.fitting.photo import PhotometricFitter
from face_recon_ros.fitting.photo_config import FROM_SCRATCH

PROTOCOL = {
    "name": "photometric",
    "difference": "mean absolute, of 255, over visible skin as the estimate places it",
    "crop": f"{FIT_SIZE} x {FIT_SIZE} pixels",
}


class PhotometricBenchmark(StillBenchmark[None]):
    """Renderings of single pictures."""

    def __init__(self, model: MorphableModel, fit: bool = False) -> None:
        """Takes the whole, coarse model, and whether to run the iterative fit, too."""
        self._fitter = PhotometricFitter(model)
        self._from_scratch = PhotometricFitter(model, FROM_SCRATCH) if fit else None

    def truth(self, sample: Sample) -> None:
        """The picture itself."""

    def score(self, still: Still[None]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Differences, and the seconds that they took."""
        e = still.estimate
        if e is None:
            return {}, {}
        pixels = Crop(e.crop.centre_px, e.crop.side_px, FIT_SIZE).extract(still.rgb)
        error = self._fitter.photometric_error(pixels, e.coefficients)
        figures: dict[str, Any] = {"network_s": still.seconds, "photometric": error}
        if self._from_scratch is None:
            return figures, {}
        fits = {
            "fit_from_network": (self._fitter, [e.coefficients]),
            "fit_from_scratch": (self._from_scratch, self._from_scratch.from_scratch(FIT_SIZE)),
        }
        for name, (fitter, start) in fits.items():
            began = time.perf_counter()
            end = fitter.fit(pixels, start).photometric_end
            figures[name] = {"photometric": end, "seconds": time.perf_counter() - began}
        return figures, {}


def evaluate_photometric(
    folder: str | Path,
    estimator: Estimator,
    model: MorphableModel,
    *,
    fit: bool = False,
    max_images: int = 0,
    execution: Execution = HERE,
) -> dict[str, Any]:
    """Measures the difference between rendering and photograph.

    Args:
        folder: of pictures.
        estimator: what is measured.
        model: whole head, coarse.
        fit: run the iterative fit from the network's answer and from scratch on each, too.
        max_images: evenly chosen; 0 takes all.
        execution: where pictures are worked on.

    Raises:
        DataError: no picture with a face.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"a folder of pictures at {root}", "no such folder", "check the path")
    skipped = Skipped()
    paths = [*images_by_name(root, skipped).values()]
    if max_images and len(paths) > max_images:
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, max_images).astype(int)]
    samples = [Sample(p.stem, p, {}) for p in paths]
    scored = score_samples(
        samples, PhotometricBenchmark(model, fit), estimator, skipped, execution
    )
    entries = [s.entry() for s in scored]
    found = [e for e in entries if e["found"]]
    if not found:
        raise DataError(
            f"pictures with faces in {root}",
            f"{len(paths)} pictures",
            "faces must be upright and 24 pixels or more; try --min-score 0.3",
        )
    values = np.array([e["photometric"] for e in found], np.float64)
    result: dict[str, Any] = {
        "protocol": PROTOCOL,
        "count": len(entries),
        "missed": len(entries) - len(found),
        "photometric": float(np.nanmean(values)),
        "photometric_interval_95": bootstrap(values[np.isfinite(values)]),
        "network_s": float(np.median([e["network_s"] for e in found])),
    }
    for name in ("fit_from_network", "fit_from_scratch") if fit else ():
        result[name] = {
            "photometric": float(np.nanmean([e[name]["photometric"] for e in found])),
            "seconds": float(np.median([e[name]["seconds"] for e in found])),
        }
    return {**result, "skipped": skipped.as_json(), "per_image": entries}
