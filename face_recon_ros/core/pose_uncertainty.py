"""How sure a head pose is.

A picture of a face of unknown size gives its direction precisely and its distance badly. The
covariance is the sum of first-order effects of unknowns (head size, focal length) and of noise in
the image. These are priors, not measurements on this face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.rigid import Rigid

Array = NDArray[np.float64]

_FACE_SIDE_M = 0.15  # side of the face box of an average face
_LEAST_PRESENCE = 0.05  # covariances stay finite below it


@dataclass(frozen=True)
class PoseNoise:
    """What is not known when a head pose is read from one image; standard deviations.

    Attributes:
        head_size: Head sizes have this standard deviation, as a share; 5.5 % covers adults
            (pupil distance 63 +- 3.6 mm).
        focal: Without calibration, the focal length has this standard deviation, as a
            share.
        scale: The face's measured size in the crop has this standard deviation, as a
            share.
        position: The sellion's place in the crop has this standard deviation, in face
            sides.
        image_px: Everything measured in the image has this standard deviation in pixels;
            it makes far faces less certain.
        attitude: The rotation of a near head has this standard deviation, in radians.
    """

    head_size: float = ranged(0.055, 0.0, 1.0)
    focal: float = ranged(0.25, 0.0, 1.0)
    scale: float = ranged(0.02, 0.0, 1.0)
    position: float = ranged(0.02, 0.0, 1.0)
    image_px: float = ranged(0.5, 0.0, 100.0)
    attitude: float = ranged(0.06, 0.0, 3.1416)

    def __post_init__(self) -> None:
        check_ranges(self)


def pose_covariance(
    camera_from_face: Rigid,
    camera: PinholeCamera,
    noise: PoseNoise | None = None,
    measured: Array | None = None,
    presence: float = 1.0,
) -> Array:
    """Covariance of a head pose.

    Args:
        camera_from_face: the pose, metres.
        camera: that took the image.
        noise: what is not known.
        measured: (6, 6) what the picture itself says, from `covariance_in_camera`, in place of
            `noise`'s `scale`, `position`, `image_px` and `attitude`; None where it does not.
        presence: probability that a face is seen there. The picture is believed by that much:
            what it tells counts with this share of its information.

    Returns:
        (6, 6): x, y, z in metres, then rotations about the camera's x, y, z in radians.
    """
    noise = noise or PoseNoise()
    position = camera_from_face.translation
    distance = max(math.hypot(*position.tolist()), 1e-6)
    ray = position / distance
    out = _from_table(ray, distance, camera, noise) if measured is None else measured
    out = np.asarray(out / min(max(presence, _LEAST_PRESENCE), 1.0), np.float64)
    out[:3, :3] += noise.head_size**2 * np.outer(position, position)
    if not camera.calibrated:
        effect = _effect_of_focal(ray, distance)
        out += noise.focal**2 * np.outer(effect, effect)
    return out


def _from_table(ray: Array, distance: float, camera: PinholeCamera, noise: PoseNoise) -> Array:
    """(6, 6) of noise in the image."""
    blur = noise.image_px / (camera.focal_px * _FACE_SIDE_M / distance)  # noise in face sides
    along = distance * np.hypot(noise.scale, blur)
    across = np.hypot(_FACE_SIDE_M * noise.position, distance * noise.image_px / camera.focal_px)
    # Turns are seen as shifts of features by about half a face side.
    turn = np.hypot(noise.attitude, 2.0 * blur)
    out = np.zeros((6, 6))
    out[:3, :3] = across**2 * np.eye(3) + (along**2 - across**2) * np.outer(ray, ray)
    out[3:, 3:] = turn**2 * np.eye(3)
    return out


def covariance_in_camera(
    covariance: ArrayLike, crop_from_face: Rigid, camera_from_face: Rigid
) -> Array:
    """Carries the covariance of a fit over from the nominal crop camera, to first order.

    Args:
        covariance: (6, 6) rotation about the crop camera's axes, radians, then translation over
            depth.
        crop_from_face: the pose in the nominal crop camera, metres.
        camera_from_face: the same in the real camera, metres.

    Returns:
        (6, 6): x, y, z in metres, then rotations about the camera's x, y, z in radians.
    """
    turn = camera_from_face.rotation @ crop_from_face.rotation.T
    nominal = crop_from_face.translation
    length = max(math.hypot(*nominal.tolist()), 1e-9)
    ray = nominal / length
    farther = math.hypot(*camera_from_face.translation.tolist()) / length
    # Across the line of sight a face keeps its size, along it its share of the distance.
    stretch = np.eye(3) + (farther - 1) * np.outer(ray, ray)
    carry = np.zeros((6, 6))
    carry[:3, 3:] = nominal[2] * turn @ stretch
    carry[3:, :3] = turn
    return np.asarray(carry @ np.asarray(covariance, np.float64) @ carry.T)


def _effect_of_focal(ray: Array, distance: float) -> Array:
    """(6,) what a focal length longer by the share 1 does to a pose: farther, nearer the axis."""
    x, y, z = ray.tolist()
    across = x * x + y * y
    # tan(angle) is proportional to 1 / focal: the turn is z times the ray cross the axis.
    moved = [x - z * z * x, y - z * z * y, z + z * across]
    return np.array([distance * m for m in moved] + [z * y, -z * x, 0.0])
