"""How much a still face trembles when the detector's box does: no smoothing, one pass."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.morphable_model import FACIAL_SKIN
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.evaluation.chain import new_tracks, reconstruct

#: Standard deviations of a detector's boxes on a still face, of the box's side: middle and size.
SCATTER, ZOOM = 0.012, 0.02


def scattered_boxes(
    box: ArrayLike, count: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """(count, 4) boxes around a (4,) box, pixels, as a detector's scatter."""
    low, high = np.asarray(box, np.float64).reshape(2, 2)
    middle = (low + high) / 2 + random.normal(0, SCATTER * (high[0] - low[0]), (count, 2))
    half = (high - low) / 2 * np.exp(random.normal(0, ZOOM, (count, 1)))
    return np.concatenate([middle - half, middle + half], 1).astype(np.float32)


def jitter_px(
    rgb: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    reconstructor: FaceReconstructor,
    camera: PinholeCamera | None = None,
) -> float:
    """How far the facial skin's vertices are from their own mean.

    Args:
        rgb: (H, W, 3) uint8.
        boxes: (N, 4) of one still face; each is answered for itself.
        reconstructor: what is measured; nothing is smoothed, as every box is a new track.
        camera: that took the picture; None guesses one.

    Returns:
        Root mean square, pixels of the picture; NaN where no answer is usable.
    """
    camera = camera or PinholeCamera.from_fov(rgb.shape[1], rgb.shape[0])
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
