"""Colours of an image at points of a face, and the logarithms of their ratios to the model's."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.arrays import Float32

DARKEST = 0.02  # sRGB-encoded: below, ratios mean nothing


def sample(rgb: NDArray[np.uint8], pixels: NDArray[np.floating]) -> Float32:
    """(N, 3) sRGB-encoded colours in [0, 1] of an image at (N, 2) pixels, bilinear."""
    n = len(pixels)
    columns = min(max(n, 1), 16384)  # cv2.remap takes fewer than 2^15: long lists are folded
    rows = max(1, -(-n // columns))
    maps = np.zeros((2, rows * columns), np.float32)
    maps[:, :n] = pixels.T
    x, y = maps.reshape(2, rows, columns)
    out = cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out.reshape(-1, 3)[:n], np.float32) * np.float32(1 / 255)


def log_ratio(colours: Float32, model_colours: Float32) -> Float32:
    """(N, 3) log of one over the other, both sRGB-encoded."""
    ratio = np.log(np.maximum(colours, DARKEST) / np.maximum(model_colours, DARKEST))
    return np.asarray(ratio, np.float32)


def agreement(ratio: Float32, smooth: Float32, tolerance: NDArray[np.floating] | float) -> Float32:
    """(N,) in [0, 1]: 1 up to half the tolerance, 0 from the tolerance on.

    Args:
        ratio: (N, 3) log ratios.
        smooth: (N, 3) what they should be.
        tolerance: (N, 3) of the darkest and the brightest channel, and between them; or of all.
    """
    darker, brighter, hue = tolerance.T if isinstance(tolerance, np.ndarray) else 3 * [tolerance]
    most, least = extremes(ratio - smooth)
    off = np.maximum(most / brighter, least / -darker)
    np.maximum(off, (most - least) / hue, out=off)
    return np.asarray(np.clip(2 - 2 * off, 0, 1), np.float32)


def extremes(values: Float32) -> tuple[Float32, Float32]:
    """(N,) largest and smallest of three columns; numpy's own reduction takes ten times longer."""
    a, b, c = values.T
    return np.maximum(np.maximum(a, b), c), np.minimum(np.minimum(a, b), c)


def median(values: Float32) -> Float32:
    """(K,) upper medians of the columns of (N, K); numpy's own takes five times longer."""
    middle = len(values) // 2
    return np.asarray(np.partition(values, middle, axis=0)[middle], np.float32)


def combine(basis: Float32, field: NDArray[np.floating]) -> Float32:
    """(N, C) the field (K, C) at points whose basis (N, K) is; without BLAS and its threads."""
    nothing = np.zeros((len(basis), field.shape[1]), np.float32)
    return np.asarray(cv2.gemm(basis, field.astype(np.float32), 1.0, nothing, 0.0), np.float32)
