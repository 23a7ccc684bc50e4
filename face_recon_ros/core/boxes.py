"""Boxes `left, top, right, bottom` in pixels: intersection over union, suppression, scatter."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.types import Float32


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes.

    Args:
        a: (N, 4) x0, y0, x1, y1.
        b: (M, 4).

    Returns:
        (N, M) in [0, 1].
    """
    p = np.asarray(a, np.float64).reshape(-1, 1, 4)
    q = np.asarray(b, np.float64).reshape(1, -1, 4)
    low = np.maximum(p[..., :2], q[..., :2])
    high = np.minimum(p[..., 2:], q[..., 2:])
    shared = np.maximum(high - low, 0.0).prod(axis=-1)
    area_p = np.maximum(p[..., 2:] - p[..., :2], 0.0).prod(axis=-1)
    area_q = np.maximum(q[..., 2:] - q[..., :2], 0.0).prod(axis=-1)
    return np.asarray(shared / np.maximum(area_p + area_q - shared, 1e-12))


def nms(boxes: Float32, scores: Float32, max_iou: float = 0.3) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4).
        scores: (N,).
        max_iou: intersection over union from which two boxes are the same face.

    Returns:
        Indices to keep, best first.
    """
    order = np.argsort(-scores, kind="stable")
    shared = iou(boxes, boxes)
    keep: list[int] = []
    for i in order:
        if all(shared[i, j] <= max_iou for j in keep):
            keep.append(int(i))
    return np.array(keep, np.intp)


def scattered(
    box: ArrayLike, count: int, shift: float, zoom: float, random: np.random.Generator
) -> Float32:
    """Boxes such as a detector gives for one face from picture to picture.

    Args:
        box: (4,) of the face, pixels.
        count: how many.
        shift: standard deviation of a box's middle, in widths of the face.
        zoom: standard deviation of the logarithm of its side.
        random: source of chance.

    Returns:
        (count, 4) pixels.
    """
    low, high = np.asarray(box, np.float64).reshape(2, 2)
    middle = (low + high) / 2 + random.normal(0, shift, (count, 2)) * (high[0] - low[0])
    half = (high - low) / 2 * np.exp(random.normal(0, zoom, (count, 1)))
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
