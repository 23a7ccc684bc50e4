"""Rotations and rigid motions: SO(3) and SE(3).

A rotation is a (3, 3) matrix or a rotation vector (3,) in radians (axis times angle). A rigid
motion `b_from_a` maps points given in frame a to frame b.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_SMALL = 1e-8


def rotation_from_vector(vector: ArrayLike) -> Array:
    """Exponential map of SO(3) (Rodrigues).

    Args:
        vector: (3,) rotation vector, radians.

    Returns:
        (3, 3) rotation matrix.
    """
    # In plain numbers: with arrays of three numpy takes five times as long.
    x, y, z = np.asarray(vector, np.float64).tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < _SMALL:
        s, k, c = 1.0, 0.0, 1.0
    else:
        s, k, c = math.sin(angle) / angle, (1.0 - math.cos(angle)) / angle**2, math.cos(angle)
    return np.array(
        [
            [c + k * x * x, k * x * y - s * z, k * x * z + s * y],
            [k * x * y + s * z, c + k * y * y, k * y * z - s * x],
            [k * x * z - s * y, k * y * z + s * x, c + k * z * z],
        ]
    )


def vector_from_rotation(rotation: ArrayLike) -> Array:
    """Logarithm of SO(3), the inverse of `rotation_from_vector` for angles below pi.

    Args:
        rotation: (3, 3) rotation matrix.

    Returns:
        (3,) rotation vector, radians, of length at most pi.
    """
    x, y, z, w = quaternion_from_rotation(rotation).tolist()
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 if sine < _SMALL else 2.0 * math.atan2(sine, w) / sine
    return np.array([scale * x, scale * y, scale * z])


def quaternion_from_rotation(rotation: ArrayLike) -> Array:
    """Unit quaternion of a rotation matrix.

    Args:
        rotation: (3, 3) rotation matrix.

    Returns:
        (4,) quaternion x, y, z, w with w >= 0.
    """
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(rotation, np.float64).tolist()
    # Shepperd 1978: each row is the quaternion times four times one of its components; that of
    # the largest component loses nothing, not at pi either.
    rows = (
        (1.0 + a - e - i, b + d, c + g, h - f),
        (b + d, 1.0 - a + e - i, f + h, c - g),
        (c + g, f + h, 1.0 - a - e + i, d - b),
        (h - f, c - g, d - b, 1.0 + a + e + i),
    )
    x, y, z, w = max(zip(rows, range(4), strict=True), key=lambda row: row[0][row[1]])[0]
    length = math.copysign(math.sqrt(x * x + y * y + z * z + w * w), w)
    return np.array([x / length, y / length, z / length, w / length])


def rotation_from_quaternion(quaternion: ArrayLike) -> Array:
    """Rotation matrix of a quaternion of any non-zero length.

    Args:
        quaternion: (4,) x, y, z, w.

    Returns:
        (3, 3) rotation matrix.
    """
    q = np.asarray(quaternion, np.float64)
    x, y, z, w = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_between(a: ArrayLike, b: ArrayLike) -> Array:
    """The smallest rotation that turns direction `a` into direction `b`.

    Args:
        a: (3,) direction.
        b: (3,) direction, not opposite to `a`.

    Returns:
        (3, 3) rotation matrix with `R a / |a| = b / |b|`.
    """
    # In plain numbers: with arrays of three numpy takes five times as long.
    u, v = _direction(a), _direction(b)
    c = u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
    x, y, z = (
        u[1] * v[2] - u[2] * v[1],
        u[2] * v[0] - u[0] * v[2],
        u[0] * v[1] - u[1] * v[0],
    )
    k = 1.0 / (1.0 + c) if c > -1.0 else math.nan
    return np.array(
        [
            [c + k * x * x, k * x * y - z, k * x * z + y],
            [k * x * y + z, c + k * y * y, k * y * z - x],
            [k * x * z - y, k * y * z + x, c + k * z * z],
        ]
    )


def _direction(vector: ArrayLike) -> tuple[float, float, float]:
    x, y, z = np.asarray(vector, np.float64).tolist()
    length = math.sqrt(x * x + y * y + z * z) or math.nan
    return x / length, y / length, z / length


def angle_between(a_rotation: ArrayLike, b_rotation: ArrayLike) -> float:
    """Geodesic distance of two rotations.

    Args:
        a_rotation: (3, 3).
        b_rotation: (3, 3).

    Returns:
        Angle in radians, in [0, pi].
    """
    apart = np.asarray(a_rotation, np.float64) - np.asarray(b_rotation, np.float64)
    chord = math.sqrt(float(np.vdot(apart, apart)))
    return 2.0 * math.asin(min(chord / math.sqrt(8.0), 1.0))  # Huynh 2009, equation 19


def nearest_rotation(matrix: ArrayLike) -> Array:
    """The rotation R of the greatest trace of R^T M: orthogonal Procrustes.

    Args:
        matrix: (..., 3, 3) M, such as a sum of rotations.

    Returns:
        (..., 3, 3) rotation matrices.
    """
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    u[..., 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return np.asarray(u @ vt)


@dataclass(frozen=True)
class Rigid:
    """A rigid motion; name it `b_from_a`.

    Attributes:
        rotation: (3, 3) rotation matrix.
        translation: (3,) metres, origin of a in b.
    """

    rotation: Array
    translation: Array

    @staticmethod
    def identity() -> Rigid:
        """The motion that leaves every point where it is."""
        return Rigid(np.eye(3), np.zeros(3))

    def __matmul__(self, b_from_a: Rigid) -> Rigid:
        """`c_from_b @ b_from_a` is `c_from_a`."""
        return Rigid(
            self.rotation @ b_from_a.rotation,
            self.rotation @ b_from_a.translation + self.translation,
        )

    def inverse(self) -> Rigid:
        """`b_from_a.inverse()` is `a_from_b`."""
        return Rigid(self.rotation.T, -self.rotation.T @ self.translation)

    def apply(self, points: ArrayLike) -> NDArray[np.floating]:
        """Maps points; keeps float32 where it is given.

        Args:
            points: (..., 3) in frame a, metres.

        Returns:
            (..., 3) in frame b, metres.
        """
        p = np.asarray(points)
        dtype = p.dtype if p.dtype == np.float32 else np.float64
        return np.asarray(
            p @ self.rotation.T.astype(dtype) + self.translation.astype(dtype), dtype=dtype
        )
