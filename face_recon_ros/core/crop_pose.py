"""From the network's view of the crop to metres in front of the real camera.

The network sees only the crop, so it answers for a nominal crop camera: a pinhole camera that
looks straight at the middle of the crop, with a focal length of `CROP_FOCAL` crop sides (Deng et
al. 2019: 1015 pixels at 224). `rotation` is the rotation vector of that camera's view of the face
relative to a face looking straight into it; `translation` is the sellion in that camera. What the
crop really determines is the pixel of the sellion, the pixels per metre there, and the face's
attitude to the viewing ray; those three carry over to any real camera in closed form.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.errors import CameraError
from face_recon_ros.core.rigid import (
    Rigid,
    rotation_between,
    rotation_from_vector,
    vector_from_rotation,
)

CROP_FOCAL = 1015.0 / 224.0

#: Attitude of a face that looks straight into a camera: its x (out) is -z, its y (left) is x,
#: its z (up) is -y.
CAMERA_FROM_FRONTAL_FACE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])


OPTICAL_AXIS = np.array([0.0, 0.0, 1.0])


@functools.cache
def crop_camera(size: int) -> PinholeCamera:
    """The nominal camera of a crop of `size` x `size` pixels."""
    focal_px, centre = CROP_FOCAL * size, (size - 1) / 2
    matrix = np.array([[focal_px, 0.0, centre], [0.0, focal_px, centre], [0.0, 0.0, 1.0]])
    return PinholeCamera(size, size, matrix)


def crop_from_face(rotation: ArrayLike, translation: ArrayLike) -> Rigid:
    """The face in the nominal crop camera.

    Args:
        rotation: (3,) the network's rotation vector, radians.
        translation: (3,) the network's translation, metres.
    """
    return Rigid(
        rotation_from_vector(rotation) @ CAMERA_FROM_FRONTAL_FACE,
        np.asarray(translation, np.float64),
    )


def coefficients_from_crop_pose(
    crop_from_face: Rigid,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inverse of `crop_from_face`: (3,) rotation vector in radians, (3,) translation in metres."""
    rotation = vector_from_rotation(crop_from_face.rotation @ CAMERA_FROM_FRONTAL_FACE.T)
    return rotation, crop_from_face.translation


def camera_from_face(crop_from_face: Rigid, crop: Crop, camera: PinholeCamera) -> Rigid:
    """Carries a face over from the nominal crop camera to the real one.

    The sellion keeps its pixel, the face its size there and its attitude to the viewing ray.

    Args:
        crop_from_face: face in the nominal crop camera.
        crop: where the crop lies in the image.
        camera: the camera that took the image.

    Returns:
        The face in the camera's optical frame.

    Raises:
        CameraError: there the camera's distortion has no inverse.
    """
    sellion = crop_from_face.translation
    focal_px = CROP_FOCAL * crop.side_px  # of the nominal camera, in pixels of the image
    offset = focal_px * crop.image_from_crop_rotation @ (sellion[:2] / sellion[2])
    ray = camera.rays_from_pixels(crop.centre_px + offset)
    range_m, length = math.hypot(*sellion.tolist()), math.hypot(*ray.tolist())
    nominal_px = focal_px * (range_m / sellion[2]) ** 1.5  # per radian; see `px_per_radian`
    distance = range_m * px_per_radian(camera, ray) / nominal_px
    if not (math.isfinite(length) and math.isfinite(distance)):
        raise CameraError(
            "a camera that sees every pixel of its image in some direction",
            f"{camera.distortion_model} distortion {camera.distortion.tolist()}",
            "calibrate the camera again, with the board also at the border of the image",
        )
    camera_from_crop = (
        rotation_between(OPTICAL_AXIS, ray)
        @ roll_about_axis(crop.angle)
        @ rotation_between(sellion, OPTICAL_AXIS)
    )
    return Rigid(camera_from_crop @ crop_from_face.rotation, ray * (distance / length))


def crop_from_camera_pose(camera_from_face: Rigid, crop: Crop, camera: PinholeCamera) -> Rigid:
    """Inverse of `camera_from_face`: what the network should answer for a face of known pose."""
    nominal = crop_camera(crop.size)
    sellion = camera_from_face.translation
    crop_ray = nominal.rays_from_pixels(crop.to_crop(camera.project(sellion)))
    distance = (
        math.hypot(*sellion.tolist())
        * px_per_radian(nominal, crop_ray)
        / (px_per_radian(camera, sellion) * crop.scale)
    )
    crop_from_camera = (
        rotation_between(OPTICAL_AXIS, crop_ray)
        @ roll_about_axis(-crop.angle)
        @ rotation_between(sellion, OPTICAL_AXIS)
    )
    return Rigid(
        crop_from_camera @ camera_from_face.rotation,
        crop_ray * (distance / math.hypot(*crop_ray.tolist())),
    )


def roll_about_axis(angle: float) -> NDArray[np.float64]:
    """Rotation about the optical axis, radians, clockwise as seen in the image."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def px_per_radian(camera: PinholeCamera, direction: ArrayLike) -> float:
    """Image scale around a direction: root of the determinant of d(pixel)/d(angle)."""
    if camera.is_ideal:  # focal / cos across the line of sight, focal / cos^2 along it
        x, y, z = np.asarray(direction, np.float64).tolist()
        farther = math.hypot(x, y, z) / z if z > 0.0 else math.nan
        return camera.focal_px * farther * math.sqrt(farther)
    step = 1e-4
    tilt = rotation_between(OPTICAL_AXIS, direction)
    offsets = np.array([[step, 0, 1], [-step, 0, 1], [0, step, 1], [0, -step, 1]])
    right, left, down, up = camera.project(offsets @ tilt.T)
    a, b = (right - left) / (2 * step), (down - up) / (2 * step)
    return float(np.sqrt(abs(a[0] * b[1] - a[1] * b[0])))
