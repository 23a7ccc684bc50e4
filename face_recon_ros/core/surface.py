"""Distances from points to a triangle mesh, exact, and the alignment that makes them small.

libigl is needed here (development, evaluation, model fitting); the live pipeline does not import
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


@dataclass(frozen=True)
class NearestPoints:
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
        """Sorts the triangles into a tree of bounding boxes.

        Args:
            vertices: (V, 3).
            triangles: (F, 3) indices; F >= 1.

        Raises:
            DataError: there is no triangle, or an index points nowhere.
        """
        import igl

        v, f = np.array(vertices, np.float64), np.array(triangles, np.int64)
        if len(f) == 0 or f.min() < 0 or f.max() >= len(v) or not np.isfinite(v[f]).all():
            raise DataError(
                "a mesh of finite triangles",
                f"{len(v)} vertices, {len(f)} triangles",
                "give a triangulated mesh, not a point cloud",
            )
        self.corners: Array = v[f]
        self._vertices, self._triangles = v, f
        self._tree = igl.AABB()
        self._tree.init(v, f)

    def normals(self) -> Array:
        """(F, 3) unit normals; zero for a triangle without area."""
        a, b, c = self.corners.transpose(1, 0, 2)
        n = np.cross(b - a, c - a)
        return np.asarray(n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-300))

    def nearest(self, points: ArrayLike) -> NearestPoints:
        """Nearest point of the surface for each of (N, 3) points, in the frame of the mesh."""
        p = np.array(points, np.float64, order="C").reshape(-1, 3)
        _, triangle, where = self._tree.squared_distance(self._vertices, self._triangles, p)
        weights = nearest_barycentric(where, self.corners[triangle])
        return NearestPoints(triangle, weights, where, np.linalg.norm(p - where, axis=1))


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
        step, *_ = np.linalg.lstsq(jacobian.T @ jacobian, jacobian.T @ _dot(p - q, n), rcond=1e-12)
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
