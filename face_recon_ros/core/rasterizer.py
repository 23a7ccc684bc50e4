"""Triangles to pixels: a z-buffer in plain numpy, fast for many small triangles.

Corners are snapped to 1/256 pixel and tested in integers with the top-left rule, as graphics
hardware does: a pixel on a shared edge belongs to exactly one of the two triangles. Pixel centres
are at integers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SUBPIXELS = 256

#: Corners further out are left out. Within, all integers below stay under 2^53, so that float64
#: holds them exactly; the floor of a quotient of two such numbers is exact too.
_MAX_PX = 1 << 16


class Fragments(NamedTuple):
    """What each pixel sees.

    Attributes:
        triangle: (H, W) int32 index of the visible triangle, -1 where there is none.
        weights: (H, W, 3) float32 perspective-correct barycentric coordinates; zero where none.
        depth: (H, W) float32 metres; infinite where there is none.
    """

    triangle: NDArray[np.int32]
    weights: NDArray[np.float32]
    depth: NDArray[np.float32]


def rasterize(
    points_px: ArrayLike, depth: ArrayLike, triangles: ArrayLike, height: int, width: int
) -> Fragments:
    """Draws triangles into a z-buffer; both sides are drawn, the nearest wins.

    Args:
        points_px: (V, 2) pixels, x and y.
        depth: (V,) metres along the optical axis.
        triangles: (F, 3) vertex indices. Left out are those with a corner that is not finite, at
            or behind depth 0, or absurdly far outside.
        height: of the picture, pixels.
        width: pixels.
    """
    corners_px = np.asarray(points_px, np.float64).reshape(-1, 2)
    z = np.asarray(depth, np.float64).ravel()
    faces = np.asarray(triangles, np.intp).reshape(-1, 3)
    good = (np.abs(corners_px) < _MAX_PX).all(axis=1) & np.isfinite(z) & (z > 0)
    index = np.flatnonzero(good[faces].all(axis=1))
    snapped = np.rint(np.where(good[:, None], corners_px, 0.0) * SUBPIXELS)
    pixel, face, weights = _cover(snapped, faces, index, height, width)

    inverse = weights / z[faces[face]].T
    inverse_depth = inverse.sum(axis=0)
    winner = np.full(height * width, -1, np.intp)
    rest = np.arange(len(pixel))
    while len(rest):  # once per layer of depth
        winner[pixel[rest]] = rest
        rest = rest[inverse_depth[rest] > inverse_depth[winner[pixel[rest]]]]
    seen = np.flatnonzero(winner >= 0)
    won = winner[seen]

    out_triangle = np.full(height * width, -1, np.int32)
    out_weights = np.zeros((height * width, 3), np.float32)
    out_depth = np.full(height * width, np.inf, np.float32)
    out_triangle[seen] = face[won]
    out_weights[seen] = (inverse[:, won] / inverse_depth[won]).T
    out_depth[seen] = 1.0 / inverse_depth[won]
    return Fragments(
        out_triangle.reshape(height, width),
        out_weights.reshape(height, width, 3),
        out_depth.reshape(height, width),
    )


def interpolate(
    fragments: Fragments, triangles: ArrayLike, attributes: ArrayLike
) -> NDArray[np.float32]:
    """Attributes of vertices where each pixel sees them.

    Args:
        fragments: from `rasterize`.
        triangles: (F, 3) vertex indices, the same.
        attributes: (V, C).

    Returns:
        (H, W, C) float32; zero where there is no triangle.
    """
    values = np.asarray(attributes, np.float32)
    out = np.zeros((fragments.triangle.size, values.shape[1]), np.float32)
    seen = np.flatnonzero(fragments.triangle >= 0)
    corners = np.asarray(triangles)[fragments.triangle.ravel()[seen]]
    weights = fragments.weights.reshape(-1, 3)[seen]
    out[seen] = np.einsum("nk,nkc->nc", weights, values[corners])
    return out.reshape(*fragments.triangle.shape, -1)


def _cover(
    points: NDArray[np.float64],
    faces: NDArray[np.intp],
    index: NDArray[np.intp],
    height: int,
    width: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """All (pixel, face, (3, n) barycentric weights) with the pixel inside the face.

    Every triangle is cut into rows, every row into the span of pixels inside all three edges.
    `points` are whole subpixels.
    """
    x, y = points.T[:, faces[index].T]  # (3, F) each
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    top = np.maximum(np.ceil(y.min(axis=0) / SUBPIXELS), 0)
    bottom = np.minimum(np.floor(y.max(axis=0) / SUBPIXELS), height - 1)
    beside = (x.max(axis=0) < 0) | (x.min(axis=0) > (width - 1) * SUBPIXELS)
    drawn = np.flatnonzero((area != 0) & (top <= bottom) & ~beside)
    x, y, area, index = x[:, drawn], y[:, drawn], area[drawn], index[drawn]
    owner, row = _expand(top[drawn], bottom[drawn])

    # Edge k, opposite to corner k, is positive inside: b - a x in subpixels squared, x in pixels.
    first, last = np.zeros(len(row)), np.full(len(row), width - 1.0)
    edges = []
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        fall, rise = np.sign(area) * (y[j] - y[i]), np.sign(area) * (x[j] - x[i])
        top_left = (fall < 0) | ((fall == 0) & (rise > 0))  # these own the pixels right on them
        a = (fall * SUBPIXELS)[owner]
        b = (rise * SUBPIXELS)[owner] * row + (fall * x[i] - rise * y[i])[owner]
        edges.append((a, b))
        limit = b - 1 + top_left[owner]  # inside is a x <= limit
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = limit / a
        last = np.where(a > 0, np.minimum(last, np.floor(bound)), last)
        first = np.where(a < 0, np.maximum(first, np.ceil(bound)), first)
        last = np.where((a == 0) & (limit < 0), -1.0, last)
    span, column = _expand(first, last)
    weights = np.empty((3, len(span)))
    for weight, (a, b) in zip(weights, edges, strict=True):
        np.subtract(b[span], a[span] * column, out=weight)
    owner = owner[span]
    weights /= np.abs(area)[owner]
    return (row[span] * width + column).astype(np.intp), index[owner], weights


def _expand(
    first: NDArray[np.float64], last: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(owner, value): the integers of each closed range; none where last < first."""
    count = np.maximum(last - first + 1, 0).astype(np.intp)
    owner = np.repeat(np.arange(len(count)), count)
    start = np.cumsum(count) - count
    return owner, np.asarray(np.arange(len(owner)) - np.repeat(start - first, count), np.float64)
