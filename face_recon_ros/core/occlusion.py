"""Which parts of a face are hidden by hands or masks: where dense points are uncertain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.types import Float32

#: Points away from the middle of the face are less certain: by a factor e over this distance.
#: Measured on 64 portraits; the rest varies by 20 %.
_SPREAD_M = 0.064
_SEEN, _HIDDEN = 1.5, 2.1  # uncertainty over the usual of this picture: up to, from
_SURE, _UNSURE = 0.9, 0.5  # presence


class OcclusionSense:
    """Turns the uncertainty of dense points into the visibility of each vertex."""

    def __init__(
        self, points: NDArray[np.floating] | None, vertices: NDArray[np.floating]
    ) -> None:
        """Prepares what depends on the mesh only.

        Args:
            points: (P, 3) the dense points on the mean face, metres, face frame; None: there
                are none, and nothing is known to be hidden.
            vertices: (V, 3) of the mean mesh, same frame.
        """
        points = np.zeros((1, 3)) if points is None else points
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        distance = np.linalg.norm((points - middle)[:, 1:], axis=1)
        self._usual = np.exp(distance / _SPREAD_M)
        self._nearest = np.zeros(len(vertices), np.intp)
        for i in range(0, len(vertices), 1024):
            apart = (points**2).sum(axis=1) - 2 * vertices[i : i + 1024] @ points.T
            self._nearest[i : i + 1024] = apart.argmin(axis=1)

    def __call__(
        self, sigma: NDArray[np.floating] | None, presence: float | None = None
    ) -> Float32 | None:
        """How far the vertices of one face are seen.

        Args:
            sigma: (P,) standard deviations of the points, any unit; None: there are none.
            presence: how sure the network is that this is a face.

        Returns:
            (V,) in [0, 1]; None where nothing says so.
        """
        if sigma is None:
            return None
        doubt = sigma / self._usual
        usual = np.partition(doubt, len(doubt) // 4)[len(doubt) // 4]
        seen = np.clip((_HIDDEN - doubt / max(usual, 1e-12)) / (_HIDDEN - _SEEN), 0, 1)
        if presence is not None:
            seen *= np.clip((presence - _UNSURE) / (_SURE - _UNSURE), 0, 1)
        return np.asarray(seen.astype(np.float32)[self._nearest])
