"""`face-recon evaluate landmarks`: mean error on annotated photographs (300-W, AFW, ...)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop_pose import crop_camera
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.types import Detections
from face_recon_ros.evaluation.chain import ANNOTATED_FACE_IOU, Estimator, associate, box_of_points
from face_recon_ros.evaluation.datasets import Sample, Skipped, list_samples, read_landmarks
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
from face_recon_ros.evaluation.stills import HERE, Execution, Still, StillBenchmark, score_samples

Array = NDArray[np.float64]

FAILURE_LIMIT = 0.08

PROTOCOL = {
    "name": "68 landmarks",
    "normalisation": "nme*: outer eye corners 36-45; nme*_box: root of the landmarks' box area",
    "contour": "points 0-16 slide to the visible outline, as annotators place them",
    "association": f"detection with IoU >= {ANNOTATED_FACE_IOU} to the annotated points' box",
    "means": "over found faces; auc and failure_rate count missed faces as failures",
    "visible_only": "points whose mean-shape skin faces the camera in the estimated pose",
    "offset51_px": "mean of prediction minus annotation, right and down, pixels of the images",
    "nme51_offset_removed": "nme51 after that one offset is taken off all predictions",
}


@dataclass(frozen=True)
class LandmarkBenchmark(StillBenchmark[Array]):
    """Landmarks of single pictures.

    Attributes:
        projector: of the estimator's face model.
        fov_deg: of the pictures' camera; None: unknown.
    """

    projector: LandmarkProjector
    fov_deg: float | None = None

    def truth(self, sample: Sample) -> Array:
        """(68, 2) pixels."""
        annotated = read_landmarks(sample.annotations[".pts"], 2)
        if interocular_distance(annotated) <= 0:
            raise DataError("two distinct eye corners", "one point", "restore the annotation")
        return annotated

    def choose(self, detections: Detections, truth: Array, width: int, height: int) -> int | None:
        """The detection that overlaps the annotated points' box."""
        return associate(detections, box_of_points(truth))

    def camera(self, sample: Sample, truth: Array, width: int, height: int) -> PinholeCamera:
        """Of the given field of view, else as all benchmarks have it."""
        if self.fov_deg is None:
            return super().camera(sample, truth, width, height)
        return PinholeCamera.from_fov(width, height, self.fov_deg)

    def score(self, still: Still[Array]) -> tuple[dict[str, Any], dict[str, Any]]:
        """All errors of the face."""
        e = still.estimate
        if e is None or still.box is None:
            return {}, {}
        row = e.coefficients
        known = still.camera.shows_perspective
        camera_from_face = e.camera_from_face if known else e.crop_from_face
        camera = e.camera if known else crop_camera(e.crop.size)
        predicted = self.projector.project(
            row.identity[0], row.expression[0], camera_from_face, camera
        )
        if not known:
            predicted = e.crop.to_image(predicted)
        visible = self.projector.visible(camera_from_face)
        return {
            **landmark_errors(predicted, still.truth, visible),
            "box": still.box.astype(np.float64).round(2),
            "landmarks": predicted.round(2),
            "residual_px": (predicted - still.truth).round(2),
        }, {}


def evaluate_landmarks(
    folder: str | Path,
    estimator: Estimator,
    projector: LandmarkProjector,
    *,
    fov_deg: float | None = None,
    execution: Execution = HERE,
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
        execution: where pictures are worked on.

    Returns:
        The result, see docs/evaluation.md: count, missed, nme68, nme51, ..., per_image.

    Raises:
        DataError: nothing to evaluate.
    """
    skipped = Skipped()
    samples = list_samples(folder, (".pts",), skipped)

    scored = score_samples(
        samples,
        LandmarkBenchmark(projector, fov_deg),
        estimator,
        skipped,
        execution,
        wanted="readable image with 68 points",
    )
    return summarise([s.entry() for s in scored], skipped)


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
