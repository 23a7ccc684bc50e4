"""Fast z-buffer for training on CPUs (numba). Rendering must not starve the network."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.rasterizer import Fragments


def rasterize(
    points_px: NDArray[np.float32],
    depth: NDArray[np.float32],
    triangles: NDArray[np.int32],
    height: int,
    width: int,
) -> Fragments:
    """Draws triangles into a z-buffer; both sides are drawn.

    Args:
        points_px: (V, 2) pixels, centres at integers.
        depth: (V,) metres along the optical axis; triangles with a corner at or behind 0 are
            left out.
        triangles: (F, 3) vertex indices.
        height: pixels.
        width: pixels.

    Raises:
        IndexError: a triangle has a corner without a point.
    """
    _check_corners(triangles, len(points_px))
    triangle = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 3), np.float32)
    inverse_depth = np.zeros((height, width), np.float32)
    _fill(
        np.ascontiguousarray(points_px, np.float32),
        np.ascontiguousarray(depth, np.float32),
        triangles,
        triangle,
        weights,
        inverse_depth,
    )
    with np.errstate(divide="ignore"):
        return Fragments(triangle, weights, np.float32(1.0) / inverse_depth)


def _check_corners(triangles: NDArray[np.int32], n: int) -> None:
    """Compiled loops read beyond arrays without a word."""
    if triangles.size and not 0 <= triangles.min() <= triangles.max() < n:
        raise IndexError(f"triangles of {triangles.max() + 1} vertices, values of {n}")


@numba.njit(cache=True, nogil=True, fastmath=False)
def _fill(points, depth, triangles, triangle, weights, inverse_depth):
    height, width = triangle.shape
    for f in range(triangles.shape[0]):
        i, j, k = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        if depth[i] <= 0 or depth[j] <= 0 or depth[k] <= 0:
            continue
        xi, yi = points[i, 0], points[i, 1]
        xj, yj = points[j, 0], points[j, 1]
        xk, yk = points[k, 0], points[k, 1]
        area = (xj - xi) * (yk - yi) - (yj - yi) * (xk - xi)
        if abs(area) < 1e-9:
            continue
        x0 = max(int(np.ceil(min(xi, xj, xk))), 0)
        x1 = min(int(np.floor(max(xi, xj, xk))), width - 1)
        y0 = max(int(np.ceil(min(yi, yj, yk))), 0)
        y1 = min(int(np.floor(max(yi, yj, yk))), height - 1)
        wi, wj, wk = 1.0 / depth[i], 1.0 / depth[j], 1.0 / depth[k]
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                a = ((xj - x) * (yk - y) - (yj - y) * (xk - x)) / area
                b = ((xk - x) * (yi - y) - (yk - y) * (xi - x)) / area
                c = 1.0 - a - b
                if a < 0.0 or b < 0.0 or c < 0.0:
                    continue
                a, b, c = a * wi, b * wj, c * wk
                total = a + b + c
                if total > inverse_depth[y, x]:
                    inverse_depth[y, x] = total
                    triangle[y, x] = f
                    weights[y, x, 0] = a / total
                    weights[y, x, 1] = b / total
                    weights[y, x, 2] = c / total


def interpolate(
    fragments: Fragments, triangles: NDArray[np.int32], values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(V, C) vertex values -> (H, W, C) at the pixels; zero where there is no triangle.

    Raises:
        IndexError: a triangle has a corner without a value.
    """
    _check_corners(triangles, len(values))
    height, width = fragments.triangle.shape
    out = np.zeros((height, width, values.shape[1]), np.float32)
    _gather(fragments.triangle, fragments.weights, triangles, np.ascontiguousarray(values), out)
    return out


@numba.njit(cache=True, nogil=True)
def _gather(triangle, weights, triangles, values, out):
    for y in range(triangle.shape[0]):
        for x in range(triangle.shape[1]):
            f = triangle[y, x]
            if f >= 0:
                for corner in range(3):
                    v = triangles[f, corner]
                    for c in range(values.shape[1]):
                        out[y, x, c] += weights[y, x, corner] * values[v, c]


@numba.njit(cache=True, nogil=True)
def vertex_normals(vertices, triangles):
    """(V, 3) float32 area-weighted unit normals of (V, 3) float32 vertices, (F, 3) triangles."""
    out = np.zeros_like(vertices)
    for f in range(triangles.shape[0]):
        i, j, k = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ax, ay, az = (
            vertices[j, 0] - vertices[i, 0],
            vertices[j, 1] - vertices[i, 1],
            vertices[j, 2] - vertices[i, 2],
        )
        bx, by, bz = (
            vertices[k, 0] - vertices[i, 0],
            vertices[k, 1] - vertices[i, 1],
            vertices[k, 2] - vertices[i, 2],
        )
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(out.shape[0]):
        length = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2)
        if length > 0:
            out[v] /= length
    return out
