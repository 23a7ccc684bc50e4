"""Lips that touch and do not intersect, in all people and expressions.

Two means. Near the seam between the lips a displacement field is replaced by what a smooth map of
space would do (`coupling`): such a map moves touching surfaces together. And what still goes
through the other lip is pushed apart, both lips alike, by the smoothest field that does it
(`LipSeam.parted`). The mean leaves some room for people who differ from it (`LipSeam.with_room`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial import cKDTree

from face_recon_ros.core.morphable_model import VertexNormals
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.surface import Surface
from face_recon_ros.face_model.head_mesh import BODY, HeadMesh
from face_recon_ros.face_model.topology import Subdivision

_TOUCHING = 0.0012  # metres between points of the two lips that belong to the seam
_RIGID = 0.0022  # metres around the seam that move as space does ...
_SOFT = 0.0040  # ... and how fast that fades
_KERNEL = 0.0042  # metres: smoothness of that map
_CANTHUS = (0.0030, 0.0025, 0.0035)  # the same three around the inner corner of the eye
_CANTHUS_ZONE = 0.010  # metres
_RIDGE = 0.02
_ZONE = 0.012  # metres around the seam whose motion that map follows
_GIVES_WAY = 0.0045  # metres around the seam that move when lips are parted
_LOOK = 0.003  # metres: farther apart is beyond the corners
_LOOSE = 0.001  # metres: lips farther apart than this are not brought together
_CLOSED = 0.017  # metres from the midline: so far closed lips are brought together
_GRID = 0.0003  # metres
_ROUNDS = 12
# Metres, face frame. In some people the lower lip is so thin that its skin meets its inside here;
# so far around it is thicker, by so much at the most.
_THIN = (-0.004, 0.0, -0.080)
_AROUND = 0.012
_THICKER = 0.0006


@dataclass(frozen=True)
class LipSeam:
    """The two lips near their seam.

    Attributes:
        head: the control mesh.
        matrix: (V, C) subdivision.
        lower: (C,) what goes down with the jaw.
        zone: control vertices near the seam.
        share: (C,) how much of the motion that parts the lips a vertex takes.
        triangles: fine triangles of the upper and of the lower lip.
        seam: (S, 3) metres, points of the mean's seam.
    """

    head: HeadMesh
    matrix: sp.csr_matrix
    lower: NDArray[np.bool_]
    zone: NDArray[np.intp]
    share: NDArray[np.float64]
    triangles: tuple[NDArray[np.intp], NDArray[np.intp]]
    seam: NDArray[np.float64]

    def coupling(self, mean: NDArray[np.float64]) -> sp.csr_matrix:
        """(C, C) K: `field - K field` moves what touches together.

        Args:
            mean: (C, 3) metres.
        """
        return as_space_moves(
            self.head, mean, self.seam, self.zone, self.lower, (_RIGID, _SOFT, _KERNEL)
        )

    def parted(
        self, control: NDArray[np.float64], gap: float, touch: bool = False
    ) -> NDArray[np.float64]:
        """(C, 3) the control vertices with the upper lip at least `gap` above the lower; metres.

        Args:
            control: (C, 3) metres, mirror-symmetric or not.
            gap: metres.
            touch: lips farther apart are brought together to `gap` too, all along the seam.
        """
        out = control.copy()
        for _ in range(_ROUNDS):
            lateral, opening = self._opening(out)
            move = (gap - opening) / 2
            if not touch:
                move = np.maximum(move, 0)
            beyond = (opening > _LOOSE) | (np.abs(lateral) > _CLOSED)
            move[beyond] = np.maximum(move[beyond], 0)
            if not len(move) or np.abs(move).max() < 0.05 * gap:
                break
            move = gaussian_filter1d(move if touch else maximum_filter1d(move, 3), 1.5)
            at = np.interp(out[:, 1], lateral, move) * self.share
            out[:, 2] += np.where(self.lower, -at, at)
        return out

    def with_room(
        self, control: NDArray[np.float64], gap: float, inside: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """(C, 3) the mean of all people: lips parted, the lower one thicker, mirror-symmetric.

        What has no part in this stays to the last bit. Metres.

        Args:
            control: (C, 3) metres, mirror-symmetric but for the parting of the lips.
            gap: metres between the lips.
            inside: (C,) the inside of the lower lip.
        """
        out = self.parted(control, gap)
        normals = VertexNormals(self.head.triangles, self.head.n_control)(out.astype(np.float32))
        distance = np.linalg.norm(out - _THIN, axis=1)
        thicker = _THICKER * np.exp(-((distance / _AROUND) ** 4)) * inside
        out += thicker[:, None] * normals
        out = (out + out[self.head.mirror] * np.array([1.0, -1.0, 1.0])) / 2
        return np.where(np.abs(out - control) > 1e-9, out, control)

    def _opening(
        self, control: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places across the mouth, and how far apart the lips are there at the least. Metres.

        Both lips are looked at as heights over a grid, the upper from below, the lower from above.
        """
        fine = self.matrix @ control
        of_lips = fine[np.unique(np.vstack(self.triangles))]
        low, high = of_lips[:, :2].min(axis=0), of_lips[:, :2].max(axis=0)
        columns, rows = (np.ceil((high - low) / _GRID).astype(int) + 1).tolist()
        points = (fine[:, :2] - low) / _GRID
        heights = []
        for sign, triangles in zip((1.0, -1.0), self.triangles, strict=True):
            depth = 1.0 + sign * fine[:, 2]  # metres; positive
            seen = rasterize(points, depth, triangles, rows, columns)
            height = np.full((rows, columns), np.nan)
            hit = seen.triangle >= 0
            height[hit] = interpolate(seen, triangles, fine[:, 2:])[hit, 0]
            heights.append(height)
        apart = heights[0] - heights[1]
        apart[np.isnan(apart)] = np.inf
        opening = apart.min(axis=1)
        good = np.isfinite(opening) & (np.abs(opening) < _LOOK)
        return (low[1] + np.arange(rows) * _GRID)[good], opening[good]


def as_space_moves(
    head: HeadMesh,
    mean: NDArray[np.float64],
    centres: NDArray[np.float64],
    sources: NDArray[np.intp],
    side: NDArray[np.bool_],
    reach: tuple[float, float, float],
) -> sp.csr_matrix:
    """(C, C) K: `field - K field` is, near the centres, a smooth map of space.

    That map is a local linear fit (moving least squares) to the field at the sources, both sides
    with half of the weight; it keeps affine motions as they are.

    Args:
        head: the control mesh.
        mean: (C, 3) metres.
        centres: (N, 3) metres.
        sources: control vertices the map follows.
        side: (C,) which of two surfaces a vertex belongs to.
        reach: metres around the centres that move so, how fast that fades, width of the fit.
    """
    rigid, soft, kernel = reach
    body = np.flatnonzero(head.parts == BODY)
    distance, _ = cKDTree(centres).query(mean[body])
    weight = np.exp(-((np.maximum(distance - rigid, 0) / soft) ** 2))
    rows, columns, values = [], [], []
    for v, w in zip(body[weight > 1e-3], weight[weight > 1e-3], strict=True):
        offset = (mean[sources] - mean[v]) / kernel
        share = np.exp(-0.5 * (offset**2).sum(axis=1))
        near = share > 1e-4
        ids, offset, share = sources[near], offset[near], share[near]
        for value in (True, False):
            of_side = side[ids] == value
            share[of_side] /= max(share[of_side].sum(), 1e-6)
        design = np.concatenate([np.ones((len(ids), 1)), offset], axis=1)
        system = design.T @ (design * share[:, None]) + _RIDGE * np.diag([0.0, 1, 1, 1])
        fit = np.linalg.solve(system, (design * share[:, None]).T)[0]
        rows += [v] * (len(ids) + 1)
        columns += [*ids, v]
        values += [*(-w * fit), w]
    n = head.n_control
    return sp.csr_matrix((values, (rows, columns)), shape=(n, n))


def canthus_coupling(
    head: HeadMesh, mean: NDArray[np.float64], corners: NDArray[np.intp]
) -> sp.csr_matrix:
    """(C, C) the same for the fold where the lids meet at the inner corners of the eyes.

    Args:
        head: the control mesh.
        mean: (C, 3) metres.
        corners: control vertices at the bottom of the folds.
    """
    distance, _ = cKDTree(mean[corners]).query(mean)
    sources = np.flatnonzero((distance < _CANTHUS_ZONE) & (head.parts == BODY))
    one = np.zeros(head.n_control, bool)
    return as_space_moves(head, mean, mean[corners], sources, one, _CANTHUS)


def lip_seam(
    head: HeadMesh,
    lower: NDArray[np.bool_],
    lips: NDArray[np.bool_],
    mean: NDArray[np.float64],
    subdivision: Subdivision,
) -> LipSeam:
    """Finds the seam.

    Args:
        head: the control mesh.
        lower: (C,) `annotations.lower_jaw`.
        lips: (C,) lips and inside of the mouth.
        mean: (C, 3) metres; lips about touch.
        subdivision: of the control mesh.
    """
    fine = subdivision.matrix @ mean
    inside = subdivision.matrix @ lips.astype(float) > 0.3
    side = subdivision.matrix @ lower.astype(float)
    of_lips = inside[subdivision.triangles].all(axis=1)
    front = fine[subdivision.triangles, 0].mean(axis=1) > fine[inside, 0].max() - 0.03
    triangles = [
        subdivision.triangles[
            of_lips & front & (np.abs(side[subdivision.triangles] - below) < 0.2).all(axis=1)
        ]
        for below in (0.0, 1.0)
    ]
    points = np.unique(triangles[0])
    hit = Surface(fine, triangles[1]).nearest(fine[points])
    seam = fine[points[hit.distance < _TOUCHING]]
    distance, _ = cKDTree(seam).query(mean)
    zone = np.flatnonzero((distance < _ZONE) & (head.parts == BODY))
    share = np.exp(-((np.maximum(distance - _RIGID, 0) / _GIVES_WAY) ** 2))
    share[head.parts != BODY] = 0.0
    return LipSeam(
        head, subdivision.matrix, lower, zone, share, (triangles[0], triangles[1]), seam
    )
