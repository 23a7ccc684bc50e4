"""How much a still face trembles when the detector's box does: no smoothing, one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.boxes import scattered
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.morphable_model import FACIAL_SKIN
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.types import Detector
from face_recon_ros.evaluation.chain import largest, new_tracks, reconstruct
from face_recon_ros.evaluation.datasets import Skipped, read_stored_image
from face_recon_ros.evaluation.stills import HERE, Execution, run_stills
from face_recon_ros.io.jobs import PerProcess

#: Standard deviations of a detector's boxes on a still face, of the box's side: middle and size.
BOX_SHIFT, BOX_ZOOM = 0.012, 0.02


def jitter_px(
    rgb: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    reconstructor: FaceReconstructor,
) -> float:
    """How far the facial skin's vertices are from their own mean.

    Args:
        rgb: (H, W, 3) uint8.
        boxes: (N, 4) of one still face; each is answered for itself.
        reconstructor: what is measured; nothing is smoothed, as every box is a new track.

    Returns:
        Root mean square, pixels of the picture; NaN where no answer is usable.
    """
    camera = PinholeCamera.from_fov(rgb.shape[1], rgb.shape[0], whole=False)
    skin = np.flatnonzero(reconstructor.model.subsets[FACIAL_SKIN])
    points = [
        camera.project(face.camera_from_face.apply(face.mesh.vertices[skin]))
        for face in reconstruct(reconstructor, rgb, new_tracks(boxes), camera)
    ]
    if not points:
        return float("nan")
    away = np.stack(points) - np.mean(points, axis=0)
    return float(np.sqrt((away**2).sum(axis=2).mean()))


def scaled_to(
    rgb: NDArray[np.uint8], box: ArrayLike, face_px: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The picture scaled until its (4,) face box is `face_px` wide, and the box in it."""
    edges = np.asarray(box, np.float64)
    scale = face_px / (edges[2] - edges[0])
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), edges * scale


@dataclass(frozen=True)
class JitterScorer:
    """Jitter of the largest face of a picture, for `run_stills`.

    Attributes:
        detector: finds the face.
        reconstructor: what is measured.
        boxes: how many scatter around the face.
        face_px: width that the face is scaled to.
    """

    detector: PerProcess[Detector]
    reconstructor: PerProcess[FaceReconstructor]
    boxes: int
    face_px: float

    def __call__(self, picture: tuple[int, Path]) -> float | None:
        """`jitter_px` of a picture; None without a face, or a usable answer.

        Args:
            picture: seed of the boxes, and file.
        """
        seed, file = picture
        rgb = read_stored_image(file)
        detections = self.detector.value.detect(rgb)
        if (best := largest(detections)) is None:
            return None
        rgb, box = scaled_to(rgb, detections.boxes[best], self.face_px)
        random = np.random.default_rng(seed)
        boxes = scattered(box, self.boxes, BOX_SHIFT, BOX_ZOOM, random)
        jitter = jitter_px(rgb, boxes, self.reconstructor.value)
        return jitter if np.isfinite(jitter) else None


def evaluate_jitter(
    files: Iterable[Path], scorer: JitterScorer, execution: Execution = HERE
) -> dict[str, Any]:
    """Jitter of the faces in pictures: how many, median and 90th percentile, pixels."""
    pictures = {f"jitter {file.stem}": (k, file) for k, file in enumerate(files)}
    scores = run_stills(pictures, scorer, Skipped(), execution, what="jitter")
    known = [score for score in scores.values() if score is not None]
    median, p90 = np.percentile(known, [50, 90]).tolist() if known else (float("nan"),) * 2
    return {"faces": len(known), "face_px": scorer.face_px, "median": median, "p90": p90}
