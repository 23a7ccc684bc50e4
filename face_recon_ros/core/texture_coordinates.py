"""Texture coordinates of a mesh and of parts of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def coarse_uv_triangles(data: dict[str, NDArray[Any]]) -> NDArray[np.int32]:
    """(F_c, 3) the coarse triangles' indices into `uvs`; (0, 3) where the file does not tell them.

    A triangle in four: the first three of them have its corners, in blocks of F_c triangles.
    """
    fine, coarse, uvs = data["triangles"], data["coarse_triangles"], data["uv_triangles"]
    n = len(coarse)
    if len(uvs) != len(fine):
        return np.zeros((0, 3), np.int32)
    if np.array_equal(fine, coarse):
        return uvs.astype(np.int32)
    if len(fine) == 4 * n and np.array_equal(fine[: 3 * n, 0], coarse.T.ravel()):
        return np.ascontiguousarray(uvs[: 3 * n, 0].reshape(3, n).T, np.int32)
    return np.zeros((0, 3), np.int32)


def used_uvs(
    uvs: NDArray[np.float32], uv_triangles: NDArray[np.integer]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Texture coordinates (T, 2) without those that no triangle (F, 3) has, and the triangles."""
    kept, index = np.unique(uv_triangles, return_inverse=True)
    return uvs[kept], index.reshape(uv_triangles.shape).astype(np.int32)
