"""Points on the triangles of a mesh, which move with its vertices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class SurfacePoints(NamedTuple):
    """N points by the vertices around them.

    Attributes:
        corners: (N, 3) vertex indices, -1 where they are not part of the mesh.
        weights: (N, 3) float32 barycentric, of sum 1.
    """

    corners: NDArray[np.intp]
    weights: NDArray[np.float32]

    @staticmethod
    def of_vertices(vertices: ArrayLike) -> SurfacePoints:
        """Points that are (N,) vertices themselves."""
        index = np.asarray(vertices, np.intp)
        weights = np.tile(np.array([1, 0, 0], np.float32), (len(index), 1))
        return SurfacePoints(np.repeat(index[:, None], 3, axis=1), weights)

    @staticmethod
    def checked(corners: ArrayLike, weights: ArrayLike) -> SurfacePoints:
        """Points from a file.

        Raises:
            ValueError: shapes or values that are none.
        """
        index, shares = np.asarray(corners, np.intp), np.asarray(weights, np.float32)
        if index.ndim != 2 or index.shape[1] != 3 or index.shape != shares.shape:
            raise ValueError(f"corners {index.shape} and weights {shares.shape}, not (N, 3) each")
        if not (np.abs(shares.sum(axis=1) - 1) < 1e-3).all():
            raise ValueError("weights of points do not sum to 1")
        return SurfacePoints(index, shares)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) whether all corners are part of the mesh."""
        return np.asarray((self.corners >= 0).all(axis=1))

    def of(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """(N, ...) values of the vertices, (V, ...), at the points; of unknown ones any."""
        return np.asarray(np.einsum("nk,nk...->n...", self.weights, values[self.corners]))

    def renumbered(self, new_index: NDArray[np.integer]) -> SurfacePoints:
        """The same points of a part of the mesh.

        Args:
            new_index: (V + 1,) of each vertex; -1 of those left out, and last.
        """
        return SurfacePoints(new_index[self.corners].astype(np.intp), self.weights)
