"""Fusion of a registered depth image into the distance of a head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.rigid import Rigid, rotation_from_vector

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RangeReading:
    """What a depth image says of a head's distance.

    Attributes:
        distance: from camera to sellion, metres.
        sigma: standard deviation, metres.
        share: of the skin in view that had a depth.
    """

    distance: float
    sigma: float
    share: float


@dataclass(frozen=True)
class DepthConfig:
    """When a depth image is believed.

    Attributes:
        min_points: A depth image is used if at least this number of skin points has a
            depth.
        min_share: A depth image is used if at least this share of the visible skin points
            has a depth.
        max_spread: A depth image is refused if depths scatter around the expected surface
            by more than this, in metres; hair, a hand or an edge does that.
        surface: The face model's surface has this standard deviation, in metres.
        sensor: The sensor's distance has this standard deviation, as a share.
        gate: A depth that is farther from the expected distance than this number of
            standard deviations is refused.
    """

    min_points: int = ranged(20, 1, 100000)
    min_share: float = ranged(0.3, 0.0, 1.0)
    max_spread: float = ranged(0.03, 0.0, 1.0)
    surface: float = ranged(0.005, 0.0, 1.0)
    sensor: float = ranged(0.01, 0.0, 1.0)
    gate: float = ranged(4.0, 0.0, 100.0)

    def __post_init__(self) -> None:
        check_ranges(self)


def check_registered(depth: NDArray[np.float64], camera: PinholeCamera) -> None:
    """Raises ImageError unless `depth` is (H, W), the size of the colour image."""
    if depth.shape != (camera.height, camera.width):
        size = " x ".join(map(str, depth.shape[::-1]))
        raise ImageError(
            f"a depth image of {camera.width} x {camera.height}, as the colour image",
            size,
            "give the registered (aligned) depth image of your camera",
        )


def read_range(
    depth: ArrayLike,
    camera: PinholeCamera,
    camera_from_face: Rigid,
    skin_points: ArrayLike,
    skin_normals: ArrayLike,
    config: DepthConfig | None = None,
) -> RangeReading | None:
    """Distance of a head from a registered depth image: a robust median over the skin in view.

    A head that was taken for larger than it is was put too far by the same factor, and so was
    every point of its skin: one factor fits all of them.

    Args:
        depth: (H, W) metres along the optical axis, in the colour camera; 0 or NaN is a hole.
        camera: the colour camera.
        camera_from_face: expected pose, metres.
        skin_points: (N, 3) face frame, metres.
        skin_normals: (N, 3) face frame, outwards.
        config: when to believe.

    Returns:
        The reading, or None where holes or outliers leave no clear majority.
    """
    config = config or DepthConfig()
    image = np.asarray(depth, np.float64)
    points = np.asarray(camera_from_face.apply(np.asarray(skin_points, np.float64)))
    normals = np.asarray(skin_normals, np.float64) @ camera_from_face.rotation.T
    length = np.maximum(np.linalg.norm(points, axis=1) * np.linalg.norm(normals, axis=1), 1e-12)
    facing = (normals * points).sum(axis=1) / length < -0.3
    pixels = np.round(camera.project(points))
    inside = np.isfinite(pixels).all(axis=1)
    inside &= (pixels >= 0).all(axis=1) & (pixels < image.shape[::-1]).all(axis=1)
    seen = facing & inside
    column, row = pixels[seen].astype(np.intp).T
    measured, expected = image[row, column], points[seen, 2]
    valid = np.isfinite(measured) & (measured > 0.0)
    share = float(valid.mean()) if len(valid) else 0.0
    if valid.sum() < config.min_points or share < config.min_share:
        return None
    factors = measured[valid] / expected[valid]
    factor = float(np.median(factors))
    distance = float(np.linalg.norm(camera_from_face.translation)) * factor
    spread = 1.4826 * float(np.median(np.abs(factors - factor))) * distance / factor
    if spread > config.max_spread:
        return None
    independent = max(float(valid.sum()) / 10.0, 1.0)  # neighbouring pixels err together
    sigma = np.sqrt(spread**2 / independent + config.surface**2 + (config.sensor * distance) ** 2)
    return RangeReading(distance, float(sigma), share)


def fuse_range(
    camera_from_face: Rigid,
    covariance: ArrayLike,
    reading: RangeReading | None,
    config: DepthConfig | None = None,
) -> tuple[Rigid, Array]:
    """Product of the two Gaussians along the viewing ray: depth corrects, it does not replace.

    Args:
        camera_from_face: from the image, metres.
        covariance: (6, 6) of it, as `pose_covariance` makes it.
        reading: of a depth image; None changes nothing.
        config: its `gate` refuses a reading that cannot be this head.

    Returns:
        Pose and covariance.
    """
    prior = np.asarray(covariance, np.float64)
    if reading is None:
        return camera_from_face, prior
    gate = (config or DepthConfig()).gate
    distance = max(float(np.linalg.norm(camera_from_face.translation)), 1e-6)
    row = np.concatenate([camera_from_face.translation / distance, np.zeros(3)])
    spread = float(row @ prior @ row) + reading.sigma**2
    innovation = reading.distance - distance
    if innovation**2 > gate**2 * spread:
        return camera_from_face, prior
    gain = prior @ row / spread
    change = gain * innovation
    pose = Rigid(
        rotation_from_vector(change[3:]) @ camera_from_face.rotation,
        camera_from_face.translation + change[:3],
    )
    return pose, np.asarray(prior - np.outer(gain, row @ prior))
