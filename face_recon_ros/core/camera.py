"""The pinhole camera, with what real ones have: distortion, a region of interest, binning.

Camera frames are optical (REP-103): x right, y down, z forward. Pixel centres are at integers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import CameraError

DEFAULT_HORIZONTAL_FOV_DEG = 60.0
#: Image sides: focal lengths from 1 / 1000 (a view of 180 degrees) to 1000 (of 0.06), and how far
#: from a region of interest the principal point of the whole image may lie.
_MAX_FOCAL = 1000.0
_MAX_OFFSET = 1000.0
_DISTORTION_SIZES = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}


@dataclass(frozen=True)
class PinholeCamera:
    """Intrinsics of the image as it arrives (region of interest and binning already applied).

    Attributes:
        width: pixels.
        height: pixels.
        matrix: (3, 3) camera matrix K, pixels.
        distortion: (D,) coefficients in OpenCV's order.
        distortion_model: `plumb_bob`, `rational_polynomial` or `equidistant`.
        calibrated: False when K is only a guess from a field of view.
        whole: False when the image may have been cut out of another one, as photographs are: a
            guess then says nothing of its perspective.
    """

    width: int
    height: int
    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    distortion_model: str = "plumb_bob"
    calibrated: bool = True
    whole: bool = True

    def __post_init__(self) -> None:
        k = np.asarray(self.matrix, np.float64)
        d = np.asarray(self.distortion, np.float64).ravel()
        object.__setattr__(self, "matrix", k)
        if d.size == 0 and self.distortion_model == "equidistant":
            d = np.zeros(4)  # an ideal fisheye still bends
        object.__setattr__(self, "distortion", d)
        if self.width <= 0 or self.height <= 0:
            raise CameraError(
                "an image size above zero",
                f"{self.width} x {self.height}",
                "publish the CameraInfo of the camera's driver",
            )
        if k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
            raise CameraError(
                "a finite 3 x 3 camera matrix K with positive focal lengths",
                f"K = {k.ravel().tolist()}",
                "calibrate the camera (camera_calibration) or publish no CameraInfo at all",
            )
        side = max(self.width, self.height)
        focals, centre = np.diag(k)[:2] / side, k[:2, 2] / side
        if not ((focals > 1 / _MAX_FOCAL) & (focals < _MAX_FOCAL)).all() or not (
            (np.abs(centre) < _MAX_OFFSET).all() and abs(k[0, 1]) < k[0, 0]
        ):
            raise CameraError(
                f"intrinsics of a camera of {self.width} x {self.height}, in pixels",
                f"K = {k.ravel().tolist()}",
                "calibrate the camera (camera_calibration) at the size of its images",
            )
        if self.distortion_model not in _DISTORTION_SIZES:
            raise CameraError(
                f"a distortion model of {', '.join(_DISTORTION_SIZES)}",
                repr(self.distortion_model),
                "rectify the image first (image_proc) or recalibrate with one of these",
            )
        sizes = _DISTORTION_SIZES[self.distortion_model]
        if (d.size != 0 and d.size not in sizes) or not np.isfinite(d).all():
            raise CameraError(
                f"{' or '.join(map(str, sizes))} finite coefficients for {self.distortion_model}",
                f"{d.tolist()}",
                "recalibrate the camera",
            )

    @staticmethod
    def from_fov(
        width: int,
        height: int,
        horizontal_fov_deg: float = DEFAULT_HORIZONTAL_FOV_DEG,
        *,
        whole: bool = True,
    ) -> PinholeCamera:
        """A guess for an uncalibrated camera: centred, square pixels, stated field of view.

        Args:
            width: pixels.
            height: pixels.
            horizontal_fov_deg: degrees, in (0, 180), across the longer side of the image.
            whole: False when the image may have been cut out of another one.
        """
        if not 0.0 < horizontal_fov_deg < 180.0:
            raise CameraError(
                "a field of view between 0 and 180 degrees",
                f"{horizontal_fov_deg}",
                "give your camera's, usually 50 to 90",
            )
        focal_px = 0.5 * max(width, height) / np.tan(np.radians(horizontal_fov_deg) / 2)
        matrix = np.array(
            [
                [focal_px, 0.0, (width - 1) / 2],
                [0.0, focal_px, (height - 1) / 2],
                [0.0, 0.0, 1.0],
            ]
        )
        return PinholeCamera(width, height, matrix, calibrated=False, whole=whole)

    def cropped(self, x_px: int, y_px: int, width: int, height: int) -> PinholeCamera:
        """The camera of a region of interest of this image."""
        matrix = self.matrix.copy()
        matrix[0, 2] -= x_px
        matrix[1, 2] -= y_px
        return replace(self, width=width, height=height, matrix=matrix)

    def resized(self, width: int, height: int) -> PinholeCamera:
        """The camera of this image resized (or binned) to another size."""
        sx, sy = width / self.width, height / self.height
        matrix = self.matrix.copy()
        matrix[0] *= sx
        matrix[1] *= sy
        matrix[0, 2] += (sx - 1) / 2  # pixel centres at integers
        matrix[1, 2] += (sy - 1) / 2
        return replace(self, width=width, height=height, matrix=matrix)

    @property
    def shows_perspective(self) -> bool:
        """Whether K, known or guessed, says how near a face of known size is."""
        return self.calibrated or self.whole

    @functools.cached_property
    def focal_px(self) -> float:
        """Geometric mean of the two focal lengths, pixels."""
        return float(np.sqrt(self.matrix[0, 0] * self.matrix[1, 1]))

    @functools.cached_property
    def is_ideal(self) -> bool:
        """Whether it is a pinhole without distortion; a fisheye never is, whatever its numbers."""
        return self.distortion_model != "equidistant" and not self.distortion.any()

    @functools.cached_property
    def _pinhole(self) -> tuple[float, float, float, float, float]:
        """Focal length, skew and centre of x, focal length and centre of y."""
        (fx, skew, cx), (_, fy, cy), _ = self.matrix.tolist()
        return fx, skew, cx, fy, cy

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Pixels of points in the camera frame.

        Args:
            points: (..., 3) metres, camera optical frame; z > 0 is in front of the camera.

        Returns:
            (..., 2) pixels; NaN where z <= 0.
        """
        p = np.asarray(points, np.float64)
        if p.ndim == 1 and self.is_ideal:  # in plain numbers, several times faster
            x, y, depth = p.tolist()
            if not depth > 0:
                return np.full(2, np.nan)
            fx, skew, cx, fy, cy = self._pinhole
            return np.array([fx * (x / depth) + skew * (y / depth) + cx, fy * (y / depth) + cy])
        z = p[..., 2:3]
        with np.errstate(divide="ignore", invalid="ignore"):
            rays = np.where(z > 0, p[..., :2] / z, np.nan)
        if not self.is_ideal:
            shape = rays.shape
            xyz = np.concatenate([rays, np.ones_like(z)], -1).reshape(-1, 1, 3)
            zero = np.zeros(3)
            if self.distortion_model == "equidistant":
                flat, _ = cv2.fisheye.projectPoints(xyz, zero, zero, self.matrix, self.distortion)
            else:
                flat, _ = cv2.projectPoints(xyz, zero, zero, self.matrix, self.distortion)
            return np.asarray(flat, np.float64).reshape(shape)
        k = self.matrix
        u = k[0, 0] * rays[..., 0] + k[0, 1] * rays[..., 1] + k[0, 2]
        v = k[1, 1] * rays[..., 1] + k[1, 2]
        return np.stack([u, v], -1)

    def rays_from_pixels(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Directions through pixels, the inverse of `project` up to depth.

        Args:
            pixels: (..., 2).

        Returns:
            (..., 3) points at z = 1, camera optical frame.
        """
        p = np.asarray(pixels, np.float64)
        if p.ndim == 1 and self.is_ideal:  # in plain numbers, several times faster
            (u, v), (fx, skew, cx, fy, cy) = p.tolist(), self._pinhole
            y = (v - cy) / fy
            return np.array([(u - cx - skew * y) / fx, y, 1.0])
        if not self.is_ideal:
            flat = np.ascontiguousarray(p.reshape(-1, 1, 2))
            if self.distortion_model == "equidistant":
                xy = cv2.fisheye.undistortPoints(flat, self.matrix, self.distortion)
            else:
                xy = _undistort(flat, self.matrix, self.distortion)
            xy = np.asarray(xy, np.float64).reshape(p.shape)
        else:
            k = self.matrix
            y = (p[..., 1] - k[1, 2]) / k[1, 1]
            x = (p[..., 0] - k[0, 2] - k[0, 1] * y) / k[0, 0]
            xy = np.stack([x, y], -1)
        return np.concatenate([xy, np.ones_like(xy[..., :1])], -1)


def same_camera(a: PinholeCamera, b: PinholeCamera) -> bool:
    """Whether two cameras see the same."""
    return a is b or (
        (a.width, a.height, a.distortion_model) == (b.width, b.height, b.distortion_model)
        and a.shows_perspective == b.shows_perspective
        and np.array_equal(a.matrix, b.matrix)
        and np.array_equal(a.distortion, b.distortion)
    )


def _undistort(
    pixels: NDArray[np.float64], matrix: NDArray[np.float64], distortion: NDArray[np.float64]
) -> NDArray[np.float64]:
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-9)
    eye = np.eye(3)
    if hasattr(cv2, "undistortPointsIter"):  # OpenCV 4
        out = cv2.undistortPointsIter(pixels, matrix, distortion, eye, eye, criteria)
    else:  # OpenCV 5
        out = cv2.undistortPoints(pixels, matrix, distortion, R=eye, P=eye, criteria=criteria)
    return np.asarray(out, np.float64)
