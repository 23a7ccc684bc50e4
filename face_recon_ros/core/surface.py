"""Distances from points to a triangle mesh, exact, and the alignment that makes them small.

scipy is needed here (development, evaluation, model fitting); the live pipeline does not import
this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.alignment import Similarity
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import rotation_from_vector

Array = NDArray[np.float64]

_BLOCK = 20_000
_FIRST_CANDIDATES = 16  # triangles by their centres


@dataclass(frozen=True)
class SurfacePoints:
    """Where on a mesh the nearest points lie, one per query.

    Attributes:
        triangle: (N,) index of the triangle.
        barycentric: (N, 3) weights of its corners.
        points: (N, 3) the nearest points, frame and unit of the mesh.
        distance: (N,) unit of the mesh.
    """

    triangle: NDArray[np.intp]
    barycentric: Array
    points: Array
    distance: Array


class Surface:
    """A triangle mesh that answers nearest-point queries exactly."""

    def __init__(self, vertices: ArrayLike, triangles: ArrayLike) -> None:
        """Sorts the triangles for searching.

        Args:
            vertices: (V, 3).
            triangles: (F, 3) indices; F >= 1.

        Raises:
            DataError: there is no triangle, or an index points nowhere.
        """
        from scipy.spatial import cKDTree

        v, f = np.asarray(vertices, np.float64), np.asarray(triangles, np.intp)
        if len(f) == 0 or f.min() < 0 or f.max() >= len(v) or not np.isfinite(v[f]).all():
            raise DataError(
                "a mesh of finite triangles",
                f"{len(v)} vertices, {len(f)} triangles",
                "give a triangulated mesh, not a point cloud",
            )
        self.corners: Array = v[f]
        centres = self.corners.mean(axis=1)
        radii = np.linalg.norm(self.corners - centres[:, None], axis=2).max(axis=1)
        # A triangle's nearest point lies within its radius of its centre. Triangles of like size
        # share a tree, so that a few huge ones do not spoil the bound for all.
        self._radii: Array = radii
        self._unit_normals = self.normals()
        self._offsets = _dot(self._unit_normals, self.corners[:, 0])
        octave = np.floor(np.log2(np.maximum(radii, 1e-12))).astype(int)
        self._groups = []
        for members in sorted(
            (np.flatnonzero(octave == value) for value in np.unique(octave)), key=len, reverse=True
        ):
            tree = cKDTree(centres[members])
            self._groups.append((members, tree, float(radii[members].max())))

    def normals(self) -> Array:
        """(F, 3) unit normals; zero for a triangle without area."""
        a, b, c = self.corners.transpose(1, 0, 2)
        n = np.cross(b - a, c - a)
        return np.asarray(n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-300))

    def nearest(self, points: ArrayLike) -> SurfacePoints:
        """Nearest point of the surface for each of (N, 3) points, in the frame of the mesh."""
        p = np.asarray(points, np.float64).reshape(-1, 3)
        parts = [self._nearest_block(p[i : i + _BLOCK]) for i in range(0, len(p), _BLOCK)]
        triangle = np.concatenate([np.zeros(0, np.intp), *(part[0] for part in parts)])
        weights = np.concatenate([np.zeros((0, 3)), *(part[1] for part in parts)])
        where = np.einsum("nc,ncx->nx", weights, self.corners[triangle])
        return SurfacePoints(triangle, weights, where, np.linalg.norm(p - where, axis=1))

    def _nearest_block(self, p: Array) -> tuple[NDArray[np.intp], Array]:
        nearest = _Nearest(
            np.full(len(p), np.inf), np.zeros((len(p), 3)), np.zeros(len(p), np.intp)
        )
        for members, tree, radius in self._groups:
            todo = np.flatnonzero(tree.query(p)[0] - radius < nearest.distance)
            k, tried = min(_FIRST_CANDIDATES, len(members)), 0
            while len(todo):
                reach, index = tree.query(p[todo], k=k)
                reach, index = reach.reshape(len(todo), k), index.reshape(len(todo), k)
                candidates = members[index]
                if tried == 0:
                    self._try(nearest, p, todo, candidates[:, 0])
                    tried = 1
                others = candidates[:, tried:]
                # No point of a triangle is nearer than its ball, or its plane: few are looked at.
                ball = reach[:, tried:] - self._radii[others]
                height = np.einsum("nkx,nx->nk", self._unit_normals[others], p[todo])
                plane = np.abs(height - self._offsets[others])
                bound = np.maximum(ball, plane)
                row, column = np.nonzero(bound < nearest.distance[todo][:, None])
                self._try(nearest, p, todo[row], others[row, column])
                if k == len(members):
                    break
                todo = todo[reach[:, -1] - radius < nearest.distance[todo]]
                tried, k = k, min(4 * k, len(members))
        return nearest.triangle, nearest.weights

    def _try(
        self, nearest: _Nearest, p: Array, query: NDArray[np.intp], triangle: NDArray[np.intp]
    ) -> None:
        """Takes over what is nearer; rows of `query` and `triangle` are pairs to look at."""
        inside = nearest_barycentric(p[query], self.corners[triangle])
        gap = np.einsum("nc,ncx->nx", inside, self.corners[triangle]) - p[query]
        distance = np.sqrt(_dot(gap, gap))
        order = np.lexsort((distance, query))  # the nearest of each query comes first
        first = np.ones(len(order), bool)
        first[1:] = query[order][1:] != query[order][:-1]
        chosen = order[first]
        chosen = chosen[distance[chosen] < nearest.distance[query[chosen]]]
        nearest.distance[query[chosen]] = distance[chosen]
        nearest.weights[query[chosen]] = inside[chosen]
        nearest.triangle[query[chosen]] = triangle[chosen]


@dataclass
class _Nearest:
    """The best so far of N queries: see `SurfacePoints`."""

    distance: Array
    weights: Array
    triangle: NDArray[np.intp]


def nearest_barycentric(points: ArrayLike, corners: ArrayLike) -> Array:
    """Where on each triangle the point nearest to each query lies.

    Ericson 2005, Real-Time Collision Detection, 5.1.5.

    Args:
        points: (..., 3).
        corners: (..., 3, 3), the last axes corner and coordinate; leading axes broadcast.

    Returns:
        (..., 3) weights of the corners: none negative, sum one; degenerate triangles count as
        their edges.
    """
    p, t = np.asarray(points, np.float64), np.asarray(corners, np.float64)
    a, b, c = t[..., 0, :], t[..., 1, :], t[..., 2, :]
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac)
    d20, d21 = _dot(ap, ab), _dot(ap, ac)
    area = d00 * d11 - d01 * d01
    solid = area > 1e-14 * d00 * d11
    divisor = np.where(solid, area, 1.0)
    v, w = (d11 * d20 - d01 * d21) / divisor, (d00 * d21 - d01 * d20) / divisor
    face = np.stack([1 - v - w, v, w], axis=-1)
    ends = ((0, 1), (1, 2), (2, 0))
    edges = np.zeros((*v.shape, 3, 3))
    gaps = np.empty((*v.shape, 3))
    for k, (i, j) in enumerate(ends):
        start, along = t[..., i, :], t[..., j, :] - t[..., i, :]
        share = np.clip(_dot(p - start, along) / np.maximum(_dot(along, along), 1e-300), 0, 1)
        edges[..., k, i], edges[..., k, j] = 1 - share, share
        gap = p - start - share[..., None] * along
        gaps[..., k] = _dot(gap, gap)
    edge = np.take_along_axis(edges, gaps.argmin(axis=-1)[..., None, None], axis=-2)[..., 0, :]
    inside = solid & (face >= 0).all(axis=-1)
    return np.asarray(np.where(inside[..., None], face, edge))


def align_to_surface(
    surface: Surface,
    points: ArrayLike,
    points_from_surface: Similarity,
    *,
    with_scale: bool,
    iterations: int = 50,
) -> tuple[Similarity, Array]:
    """Moves a mesh onto scan points by least squares of the point-to-surface distances.

    Point-to-plane Gauss-Newton (Chen and Medioni 1992), as in the NoW protocol (Sanyal et al.
    2019) started from landmarks. The mesh moves and the points stay, so that a scale cannot cheat
    by shrinking the scan.

    Args:
        surface: the mesh.
        points: (N, 3) scan points, in the unit distances are wanted in.
        points_from_surface: where to start.
        with_scale: let the scale change too.
        iterations: at most so many; it stops when the root mean square no longer falls.

    Returns:
        The motion, and the (N,) distances under it in the unit of `points`.
    """
    p = np.asarray(points, np.float64)
    normals = surface.normals()
    current = points_from_surface
    near = surface.nearest(current.inverse().apply(p))
    distances = near.distance * current.scale
    for _ in range(iterations):
        q = current.apply(near.points)
        n = normals[near.triangle] @ current.rotation.T
        centre = q.mean(axis=0)
        columns = [np.cross(q - centre, n), n]
        if with_scale:
            columns.append(_dot(q - centre, n)[:, None])
        jacobian = np.concatenate(columns, axis=1)
        step, *_ = np.linalg.lstsq(jacobian, _dot(p - q, n), rcond=1e-10)
        rotation = rotation_from_vector(step[:3])
        scale = float(np.exp(step[6])) if with_scale else 1.0
        moved = Similarity(
            current.scale * scale,
            rotation @ current.rotation,
            scale * rotation @ (current.translation - centre) + centre + step[3:6],
        )
        near_moved = surface.nearest(moved.inverse().apply(p))
        moved_distances = near_moved.distance * moved.scale
        before, after = np.mean(distances**2), np.mean(moved_distances**2)
        if not after < before:
            break
        current, near, distances = moved, near_moved, moved_distances
        if before - after < 1e-4 * before:
            break
    return current, distances


def facial_region(points: ArrayLike, landmarks_68: ArrayLike) -> NDArray[np.bool_]:
    """Which scan points belong to the face: a ball around the nose, as in the NoW challenge.

    Feng et al. 2018 and Sanyal et al. 2019: centre 0.3 of the way from below the nose to between
    the inner eye corners, radius 1.2 times the mean of outer-eye distance and nose length.

    Args:
        points: (N, 3) scan points.
        landmarks_68: (68, 3) iBUG landmarks of the same scan, same unit and frame.

    Returns:
        (N,) True inside.
    """
    marks = np.asarray(landmarks_68, np.float64)
    if marks.shape != (68, 3):
        raise DataError("68 3D landmarks", f"shape {marks.shape}", "check the .pts3d file")
    bottom, bridge = marks[33], (marks[39] + marks[42]) / 2
    centre = bottom + 0.3 * (bridge - bottom)
    outer = np.linalg.norm(marks[36] - marks[45])
    radius = 1.2 * (outer + np.linalg.norm(bridge - bottom)) / 2
    gap = np.linalg.norm(np.asarray(points, np.float64) - centre, axis=1)
    return np.asarray(gap <= radius)


def _dot(a: Array, b: Array) -> Array:
    return np.asarray((a * b).sum(axis=-1))
