"""What REP-155 publishes of a face in a picture: region, landmarks, upright crop.

Coordinates are normalised: (0, 0) is the image's top left corner, (1, 1) its bottom right one.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.surface_points import SurfacePoints
from face_recon_ros.core.types import Face

N_LANDMARKS = 70  # 68 in iBUG order, then the right and the left pupil


def normalised(points_px: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """(..., 2) pixels, centres at integers -> (..., 2) shares of the image, clipped to [0, 1]."""
    shares = (np.asarray(points_px, np.float64) + 0.5) / [width, height]
    return np.clip(shares, 0.0, 1.0)


def normalised_box(box_px: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """(4,) x0, y0, x1, y1 in pixels -> the same in shares of the image, clipped to [0, 1]."""
    return normalised(np.asarray(box_px).reshape(2, 2), width, height).ravel()


def landmarks(face: Face, model: MorphableModel, camera: PinholeCamera) -> NDArray[np.float64]:
    """The landmarks of hri_msgs/FacialLandmarks.

    Args:
        face: its mesh is of `model`.
        model: knows their places; a landmark that is not part of it gets confidence 0.
        camera: that took the image.

    Returns:
        (70, 3) x, y in shares of the image, and confidence: the track's score, 0 for a point that
        lies outside the image.
    """
    pupils = SurfacePoints.of_vertices(model.interpupillary)
    vertices = face.mesh.vertices
    points = np.concatenate([model.landmarks.of(vertices), pupils.of(vertices)])
    points = face.camera_from_face.apply(points)
    pixels = camera.project(points)
    size = np.array([camera.width, camera.height])
    inside = ((pixels >= -0.5) & (pixels <= size - 0.5)).all(axis=1)
    known = np.concatenate([model.landmarks.known, pupils.known])
    known &= np.isfinite(pixels).all(axis=1)
    out = np.zeros((N_LANDMARKS, 3))
    out[known, :2] = normalised(pixels[known], camera.width, camera.height)
    out[known & inside, 2] = np.clip(face.track.score, 0.0, 1.0)
    return out


def upright(
    crop_pixels: NDArray[np.uint8], face: Face, model: MorphableModel, camera: PinholeCamera
) -> NDArray[np.uint8]:
    """The crop turned so that the eyes are level; black where it turns in from outside.

    Args:
        crop_pixels: (S, S, 3) of `face.crop`.
        face: its mesh is of `model`.
        model: knows the pupils.
        camera: that took the image.
    """
    if (model.interpupillary < 0).any():
        return crop_pixels
    pupils = camera.project(face.camera_from_face.apply(face.mesh.vertices[model.interpupillary]))
    right, left = face.crop.to_crop(pupils)  # the subject's: left one is right in the image
    if not np.isfinite([right, left]).all():
        return crop_pixels
    tilt_deg = float(np.degrees(np.arctan2(left[1] - right[1], left[0] - right[0])))
    centre = (face.crop.size - 1) / 2
    turn = cv2.getRotationMatrix2D((centre, centre), tilt_deg, 1.0)
    size = (face.crop.size, face.crop.size)
    return np.asarray(cv2.warpAffine(crop_pixels, turn, size), np.uint8)
