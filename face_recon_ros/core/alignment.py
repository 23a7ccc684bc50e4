"""Best rigid and similarity motions between two sets of corresponding points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import DataError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """A rigid motion with a change of scale; name it `b_from_a`.

    Attributes:
        scale: length in b over length in a, above zero.
        rotation: (3, 3) rotation matrix.
        translation: (3,) metres, origin of a in b.
    """

    scale: float
    rotation: Array
    translation: Array

    def apply(self, points: ArrayLike) -> Array:
        """Maps (..., 3) points from a to b."""
        p = np.asarray(points, np.float64)
        return np.asarray(self.scale * (p @ self.rotation.T) + self.translation)

    def inverse(self) -> Similarity:
        """`b_from_a.inverse()` is `a_from_b`."""
        return Similarity(
            1.0 / self.scale,
            self.rotation.T,
            -self.rotation.T @ self.translation / self.scale,
        )


def align_points(a: ArrayLike, b: ArrayLike, *, with_scale: bool) -> Similarity:
    """The motion `b_from_a` of least squares between corresponding points.

    Umeyama 1991, "Least-squares estimation of transformation parameters between two point
    patterns".

    Args:
        a: (N, 3) points, N >= 3, not all on one line.
        b: (N, 3) the same points in the other frame.
        with_scale: estimate the scale too; otherwise it is one.

    Raises:
        DataError: the points do not determine a motion.
    """
    p, q = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if p.shape != q.shape or p.ndim != 2 or p.shape[1] != 3 or len(p) < 3:
        raise DataError(
            "two equal lists of three or more 3D points",
            f"{p.shape} and {q.shape}",
            "check that both sides hold the same landmarks",
        )
    p_mean, q_mean = p.mean(axis=0), q.mean(axis=0)
    p0, q0 = p - p_mean, q - q_mean
    u, singular, vt = np.linalg.svd(q0.T @ p0)
    if not np.isfinite(singular).all() or singular[1] <= 1e-12 * max(singular[0], 1e-300):
        raise DataError(
            "points that span a plane at least",
            "points in one line or spot, or not finite",
            "check the landmarks",
        )
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (p0 * p0).sum()) if with_scale else 1.0
    return Similarity(scale, rotation, q_mean - scale * rotation @ p_mean)
