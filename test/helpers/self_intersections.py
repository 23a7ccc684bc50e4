"""Where a surface runs through itself: pairs of triangles of one mesh that cut each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIDES = np.array([[0, 1], [1, 2], [2, 0]])


def self_intersections(
    vertices: NDArray[np.floating], triangles: NDArray[np.integer]
) -> NDArray[np.intp]:
    """(N, 2) pairs of triangles of which a side of one goes through the inside of the other.

    Triangles that share a vertex are neighbours and never count.

    Args:
        vertices: (V, 3), any unit and frame.
        triangles: (F, 3) those to look at, up to a few thousand.
    """
    corners = np.asarray(vertices, np.float64)[triangles]
    first, second = _near_pairs(corners.min(axis=1), corners.max(axis=1))
    meet = (triangles[first][:, :, None] == triangles[second][:, None, :]).any(axis=(1, 2))
    first, second = first[~meet], second[~meet]
    cut = _pierces(corners[first], corners[second]) | _pierces(corners[second], corners[first])
    return np.stack([first[cut], second[cut]], axis=1)


def _near_pairs(
    low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Index pairs i < j of axis-aligned boxes (F, 3) that overlap, swept along the widest axis."""
    axes = np.argsort(-np.ptp(low, axis=0))
    order = np.argsort(low[:, axes[0]], kind="stable")
    low, high = low[order][:, axes], high[order][:, axes]
    # Boxes that begin before box i ends stand behind it in the order, up to `until[i]`.
    until = np.searchsorted(low[:, 0], high[:, 0], side="right")
    count = until - np.arange(len(low)) - 1
    i = np.repeat(np.arange(len(low)), count)
    j = i + 1 + np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    for axis in (1, 2):
        near = (low[i, axis] <= high[j, axis]) & (low[j, axis] <= high[i, axis])
        i, j = i[near], j[near]
    i, j = order[i], order[j]
    return np.minimum(i, j), np.maximum(i, j)


def _pierces(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether a side of triangle `one` goes through triangle `other`, both (N, 3, 3)."""
    a, b, c = other[:, 0], other[:, 1], other[:, 2]
    normal = np.cross(b - a, c - a)
    height = np.einsum("npd,nd->np", one - a[:, None], normal)
    found = np.zeros(len(one), bool)
    for p, q in _SIDES:
        through = height[:, p] * height[:, q] < 0
        n = np.flatnonzero(through & ~found)
        share = height[n, p] / (height[n, p] - height[n, q])
        point = one[n, p] + share[:, None] * (one[n, q] - one[n, p])
        inside = np.ones(len(n), bool)
        for u, v in _SIDES:
            edge = other[n, v] - other[n, u]
            inside &= (np.cross(edge, point - other[n, u]) * normal[n]).sum(axis=1) > 0
        found[n[inside]] = True
    return found
