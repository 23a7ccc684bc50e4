"""`face-recon evaluate landmarks`: mean error on annotated photographs (300-W, AFW, ...)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import DEFAULT_HORIZONTAL_FOV_DEG, PinholeCamera
from face_recon_ros.core.crop_pose import crop_camera
from face_recon_ros.core.errors import DataError
from face_recon_ros.evaluation.chain import (
    SAME_FACE_IOU,
    Estimator,
    associate,
    batches,
    box_of_points,
    prefetched,
)
from face_recon_ros.evaluation.datasets import (
    Sample,
    Skipped,
    list_samples,
    read_image,
    read_landmarks,
    readable,
)
from face_recon_ros.evaluation.landmarks import LandmarkProjector
from face_recon_ros.evaluation.metrics import (
    CONTOUR,
    INNER,
    N_LANDMARKS,
    bootstrap,
    bounding_box_size,
    error_curve,
    interocular_distance,
    normalised_mean_error,
)
from face_recon_ros.evaluation.output import Progress, no_progress

BATCH = 8
FAILURE_LIMIT = 0.08

PROTOCOL = {
    "name": "68 landmarks",
    "normalisation": "nme*: outer eye corners 36-45; nme*_box: root of the landmarks' box area",
    "contour": "points 0-16 slide to the visible outline, as annotators place them",
    "association": f"detection with IoU >= {SAME_FACE_IOU} to the annotated points' box",
    "means": "over found faces; auc and failure_rate count missed faces as failures",
    "visible_only": "points whose mean-shape skin faces the camera in the estimated pose",
    "offset51_px": "mean of prediction minus annotation, right and down, pixels of the images",
    "nme51_offset_removed": "nme51 after that one offset is taken off all predictions",
}


@dataclass(frozen=True)
class _View:
    sample: Sample
    rgb: NDArray[np.uint8]
    annotated: NDArray[np.float64]
    box: NDArray[np.float32] | None
    camera: PinholeCamera


def evaluate_landmarks(
    folder: str | Path,
    estimator: Estimator,
    projector: LandmarkProjector,
    *,
    fov_deg: float | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures landmark error over a folder of NAME.jpg + NAME.pts.

    Args:
        folder: see `datasets.list_samples`.
        estimator: what is measured.
        projector: of the estimator's face model.
        fov_deg: horizontal field of view assumed for every photograph. None: unknown, so that the
            landmarks are those of the face in the crop as the network sees it. Which distance,
            and with it which perspective, a guess would add moves the contour by up to a point of
            error, most on photographs that were cut out of larger ones.
        progress: called as images are done.

    Returns:
        The result, see docs/evaluation.md: count, missed, nme68, nme51, ..., per_image.

    Raises:
        DataError: nothing to evaluate.
    """
    skipped = Skipped()
    samples = list_samples(folder, (".pts",), skipped)

    def load(sample: Sample) -> _View:
        annotated = read_landmarks(sample.annotations[".pts"], 2)
        if interocular_distance(annotated) <= 0:
            raise DataError("two distinct eye corners", "one point", "restore the annotation")
        rgb = read_image(sample.image)
        detections = estimator.detect(rgb)
        found = associate(detections, box_of_points(annotated))
        box = None if found is None else detections.boxes[found]
        camera = PinholeCamera.from_fov(
            rgb.shape[1],
            rgb.shape[0],
            DEFAULT_HORIZONTAL_FOV_DEG if fov_deg is None else fov_deg,
        )
        return _View(sample, rgb, annotated, box, camera)

    entries: list[dict[str, Any]] = []
    views = prefetched(readable(samples, load, skipped), lambda pair: pair[1], ahead=2 * BATCH)
    for batch in batches(views, BATCH):
        entries.extend(_score(batch, estimator, projector, fov_deg is not None))
        progress(len(entries) + len(skipped.reasons), len(samples))
    if not entries:
        raise DataError(
            "at least one readable image with 68 points",
            f"{len(skipped.reasons)} files, none usable",
            "see the reasons: "
            + "; ".join(f"{k}: {v}" for k, v in [*skipped.reasons.items()][:3]),
        )
    return summarise(entries, skipped)


def summarise(entries: list[dict[str, Any]], skipped: Skipped) -> dict[str, Any]:
    """Figures over per-image entries."""
    found = [e for e in entries if e["found"]]

    def column(key: str) -> NDArray[np.float64]:
        return np.array([e[key] for e in found], np.float64)

    everyone = np.array([e["nme68"] if e["found"] else np.inf for e in entries], np.float64)
    area, failures = error_curve(everyone, FAILURE_LIMIT)
    means = {
        key: float(np.nanmean(column(key))) if found else float("nan")
        for key in ("nme68", "nme51", "nme17", "nme68_box", "nme51_box", "nme68_visible")
    }
    residual = column("residual_px").reshape(-1, N_LANDMARKS, 2)[:, INNER]
    offset = residual.mean(axis=(0, 1)) if found else np.full(2, np.nan)
    left_over = np.linalg.norm(residual - offset, axis=2).mean(axis=1) / column("interocular_px")
    return {
        "protocol": PROTOCOL,
        "count": len(entries),
        "missed": len(entries) - len(found),
        **means,
        "offset51_px": offset,
        "nme51_offset_removed": float(left_over.mean()) if found else float("nan"),
        "nme68_interval_95": bootstrap(column("nme68")),
        "nme51_interval_95": bootstrap(column("nme51")),
        "nme68_median": float(np.median(column("nme68"))) if found else float("nan"),
        f"auc_{FAILURE_LIMIT}": area,
        f"failure_rate_{FAILURE_LIMIT}": failures,
        "skipped": skipped.as_json(),
        "per_image": entries,
    }


def _score(
    batch: list[_View], estimator: Estimator, projector: LandmarkProjector, camera_known: bool
) -> Iterator[dict[str, Any]]:
    with_face = [view for view in batch if view.box is not None]
    estimates = iter(estimator.estimate([(v.rgb, v.box, v.camera) for v in with_face]))
    for view in batch:
        if view.box is None:
            yield {"name": view.sample.name, "image": view.sample.image.name, "found": False}
            continue
        e = next(estimates)
        if camera_known:
            camera_from_face, camera = e.camera_from_face, e.camera
        else:
            camera_from_face, camera = e.crop_from_face, crop_camera(e.crop.size)
        predicted = projector.project(
            e.coefficients.identity[0], e.coefficients.expression[0], camera_from_face, camera
        )
        if not camera_known:
            predicted = e.crop.to_image(predicted)
        yield {
            "name": view.sample.name,
            "image": view.sample.image.name,
            "found": True,
            **landmark_errors(predicted, view.annotated, projector.visible(camera_from_face)),
            "box": view.box.astype(np.float64).round(2),
            "landmarks": predicted.round(2),
            "residual_px": (predicted - view.annotated).round(2),
        }


def landmark_errors(
    predicted: NDArray[np.float64], annotated: NDArray[np.float64], visible: NDArray[np.bool_]
) -> dict[str, float]:
    """All normalised mean errors of one face.

    Args:
        predicted: (68, 2) pixels.
        annotated: (68, 2) pixels.
        visible: (68,) bool.
    """
    eyes, box = interocular_distance(annotated), bounding_box_size(annotated)
    return {
        "nme68": normalised_mean_error(predicted, annotated, eyes),
        "nme51": normalised_mean_error(predicted, annotated, eyes, INNER),
        "nme17": normalised_mean_error(predicted, annotated, eyes, CONTOUR),
        "nme68_box": normalised_mean_error(predicted, annotated, box),
        "nme51_box": normalised_mean_error(predicted, annotated, box, INNER),
        "nme68_visible": normalised_mean_error(predicted, annotated, eyes, visible=visible),
        "interocular_px": eyes,
    }
