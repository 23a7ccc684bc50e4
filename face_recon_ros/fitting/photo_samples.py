"""Samples of a photograph and of a rendering, with their derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """Points on the mesh.

    Attributes:
        corners: (M, 3) vertices of the triangle of each.
        weights: (M, 3) barycentric, float32.
    """

    corners: NDArray[np.intp]
    weights: Array


def interpolate_samples(values: Array, samples: Samples) -> Array:
    """(M, X) values at the samples, of (V, X) values at vertices."""
    return np.asarray(np.einsum("mk,mkx->mx", samples.weights, values[samples.corners]))


def look_up(image: Array, px: Array) -> Array:
    """(M, 3) bilinear samples of (H, W, 3), the border repeated."""
    x, y = np.ascontiguousarray(px[:, :1], np.float32), np.ascontiguousarray(px[:, 1:], np.float32)
    blocks = [
        cv2.remap(
            image,
            x[i : i + 30000],
            y[i : i + 30000],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for i in range(0, len(px), 30000)
    ]
    return np.concatenate(blocks)[:, 0] if blocks else np.zeros((0, 3), np.float32)


def difference(image: Array, axis: int) -> Array:
    """Derivative of an image (H, W, ...) along an axis, per pixel; same shape."""
    return np.asarray(np.gradient(image, axis=axis), np.float32)


def sh_slope(normals: Array) -> Array:
    """(M, 9, 3) derivative of `illumination.sh_basis` by the normal."""
    x, y, z = normals.T
    s3, s5, s15 = (np.float32(np.sqrt(k)) for k in (3, 5, 15))
    o = np.zeros_like(x)
    one = o + 1
    rows = [
        (o, o, o),
        (o, s3 * one, o),
        (o, o, s3 * one),
        (s3 * one, o, o),
        (s15 * y, s15 * x, o),
        (o, s15 * z, s15 * y),
        (o, o, 3 * s5 * z),
        (s15 * z, o, s15 * x),
        (s15 * x, -s15 * y, o),
    ]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1).astype(np.float32)
