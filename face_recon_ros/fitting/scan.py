"""Fits a face model to a neutral scan: similarity and identity under the model's prior.

Non-rigid ICP in the manner of Amberg et al. 2007 (point-to-plane, Gauss-Newton over all
parameters at once), with Tukey's biweight (Beaton and Tukey 1974) against hair, holes and eyes.
How much the scan is believed is estimated from the residuals in every step: a head that the model
cannot say is not bought with coefficients no head has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.alignment import Similarity, align_points
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.core.surface import Surface, facial_region

INNER_LANDMARKS = np.arange(17, 68)
_LEFT_EYE_CORNER, _RIGHT_EYE_CORNER = 45, 36
_PLAUSIBLE_EYE_CORNER_DISTANCE = (0.06, 0.14)  # metres; adults 0.08 to 0.11
# Neighbouring scan points err together: what the model cannot say is one or two centimetres wide.
_EFFECTIVE_OBSERVATIONS = 150
_LEAST_SURFACE_SIGMA = 0.0001  # metres, of one effective observation
_LEAST_LANDMARK_SIGMA = 0.0008  # metres per axis; surfaces alone let points slide along the skin
_LOG_SCALE_SIGMA = 0.1  # where a scale is asked for at all: size is part of identity
# Annealing: robust width (metres) and number of scan points of each step.
_STEPS = (
    *((width, 1500) for width in np.geomspace(0.020, 0.004, 8)),
    *((0.003, 4000) for _ in range(4)),
)
_VERTEX_STEPS = 6
_MIN_NORMAL_COSINE = 0.5
_MARGIN = 0.012  # metres around the facial skin that also attract scan points

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScanFit:
    """A face model fitted to a scan.

    Attributes:
        identity: (K_id,) coefficients.
        scan_from_face: similarity of the model's metres onto the scan's.
        vertices: (V, 3) metres, scan frame, of the fitted model.
        distance: (N,) metres, of each scan vertex in the facial region to the nearest surface.
        landmark_distance: (68,) metres, NaN where the model or the scan has none.
    """

    identity: Array
    scan_from_face: Similarity
    vertices: Array
    distance: Array
    landmark_distance: Array

    def figures(self) -> dict[str, float | int]:
        """The JSON of `face-recon model fit`: millimetres over the facial region."""
        mm = self.distance * 1e3
        inner = self.landmark_distance[INNER_LANDMARKS]
        return {
            "median_mm": float(np.median(mm)),
            "mean_mm": float(mm.mean()),
            "p95_mm": float(np.percentile(mm, 95)),
            "landmark_mean_mm": float(np.nanmean(inner) * 1e3),
            "points": len(mm),
            "landmarks": int(np.isfinite(inner).sum()),
            "scale": float(self.scan_from_face.scale),
            "identity_rms": float(np.sqrt(np.mean(self.identity**2))),
        }


def fit_scan(
    model: MorphableModel,
    scan_vertices: ArrayLike,
    landmarks: ArrayLike,
    *,
    free_scale: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ScanFit:
    """Fits similarity and identity to a neutral scan.

    The facial region is the ball of the NoW challenge around the nose (`core.surface`), without
    the points whose nearest surface is not facial skin (ears, neck, eyeballs, mouth interior).

    Args:
        model: all of the head.
        scan_vertices: (N, 3) metres, any frame.
        landmarks: (68, 3) metres, the scan's frame, iBUG order; NaN where not annotated. They
            start the fit and stay in it as observations.
        free_scale: estimate a scale too, for scans whose unit is not to be trusted. Otherwise it
            is one: how large a head is, is part of who it is.
        progress: called with (step, steps).

    Raises:
        DataError: too few landmarks or points, or a size no face has.
    """
    scan, marks = np.asarray(scan_vertices, np.float64), np.asarray(landmarks, np.float64)
    scan = scan[np.isfinite(scan).all(axis=1)] if scan.ndim == 2 else scan
    _check(scan, marks)
    usable = np.isfinite(marks).all(axis=1) & model.landmarks.known
    inner = INNER_LANDMARKS[usable[INNER_LANDMARKS]]
    if len(inner) < 6:
        raise DataError(
            "at least 6 of the inner landmarks 17 to 67",
            f"{len(inner)}",
            "annotate eye corners, nose and mouth",
        )
    problem = _Problem(model, marks[inner], inner, free_scale)
    state = problem.start()
    for _ in range(3):
        state = problem.step(state, None)
    near = scan[facial_region(scan, _filled(marks, problem, state, model))]
    some = {count: _thinned(near, count) for count in {count for _, count in _STEPS}}
    for i, (width, count) in enumerate(_STEPS):
        if progress:
            progress(i, len(_STEPS))
        state = problem.step(state, problem.observe(state, some[count], width))
    return _result(model, problem, state, near, marks, usable)


def fit_vertices(model: MorphableModel, vertices: ArrayLike, which: ArrayLike) -> Array:
    """The face of the model nearest to one given vertex by vertex: what the model can say.

    Args:
        model: of V vertices.
        vertices: (V, 3) metres, any frame, in the model's topology.
        which: (V,) bool, the vertices that count.

    Returns:
        (K_id,) identity: the most likely one, noise estimated from the residuals.
    """
    chosen = np.flatnonzero(which)
    target = np.asarray(vertices, np.float64)[chosen]
    mean = model.mean_shape[chosen].astype(np.float64)
    basis = model.identity_basis.reshape(model.n_vertices, -1)[chosen].astype(np.float64)
    k = model.k_identity
    basis = basis.reshape(-1, k)
    hessian, prior = np.zeros((k + 6, k + 6)), np.diag(np.repeat([1.0, 0.0], [k, 6]))
    hessian[:k, :k] = basis.T @ basis
    face_from_target = align_points(target, mean, with_scale=False)
    identity = np.zeros(k)
    for _ in range(_VERTEX_STEPS):  # pose and identity together: one at a time creeps
        moved = face_from_target.apply(target)
        centre = moved.mean(axis=0)
        turns = [np.cross(moved - centre, axis) for axis in np.eye(3)]  # minus axis x offset
        shifts = np.tile(-np.eye(3), (len(moved), 1, 1))
        motion = np.concatenate([np.stack(turns, axis=2), shifts], axis=2).reshape(-1, 6)
        hessian[:k, k:] = basis.T @ motion
        hessian[k:, :k], hessian[k:, k:] = hessian[:k, k:].T, motion.T @ motion
        off = (moved - mean).ravel()
        variance = max(float(np.mean((off - basis @ identity) ** 2)), _LEAST_SURFACE_SIGMA**2)
        weight = _EFFECTIVE_OBSERVATIONS / variance / len(chosen)
        gradient = np.concatenate([basis.T @ off, motion.T @ off])
        solved = np.linalg.solve(weight * hessian + prior, weight * gradient)
        identity = solved[:k]
        turn = rotation_from_vector(solved[k : k + 3])
        step = Similarity(1.0, turn, centre - turn @ centre + solved[k + 3 :])
        face_from_target = Similarity(
            1.0,
            step.rotation @ face_from_target.rotation,
            step.apply(face_from_target.translation),
        )
    return identity


@dataclass(frozen=True)
class _State:
    identity: Array
    face_from_scan: Similarity


@dataclass(frozen=True)
class _Observations:
    """Scan points and the tangent planes they are attracted to. Metres, face frame.

    Attributes:
        basis: (N, 3, K) identity basis at the foot points.
        foot: (N, 3) on the model's surface.
        normal: (N, 3) unit.
        moved: (N, 3) the scan points.
        weight: (N,) in [0, 1].
    """

    basis: Array
    foot: Array
    normal: Array
    moved: Array
    weight: Array


class _Problem:
    """The quantities of one fit that do not change from step to step."""

    def __init__(
        self, model: MorphableModel, marks: Array, which: NDArray[np.integer], free_scale: bool
    ) -> None:
        self.mean = model.mean_shape.astype(np.float64)
        self._flat = model.identity_basis.astype(np.float64)
        self.basis = self._flat.reshape(model.n_vertices, 3, -1)
        self.triangles = model.triangles
        self.free_scale = free_scale
        self._marks = marks
        self._mark_mean = model.landmarks.of(self.mean)[which]
        self._mark_basis = model.landmarks.of(self.basis)[which]
        self._skin = model.subsets[FACIAL_SKIN]
        low = self.mean[self._skin].min(axis=0) - _MARGIN
        high = self.mean[self._skin].max(axis=0) + _MARGIN
        inside = ((self.mean > low) & (self.mean < high)).all(axis=1)
        self._zone = model.triangles[inside[model.triangles].all(axis=1)]
        self._normals = VertexNormals(model.triangles, model.n_vertices)

    def start(self) -> _State:
        """The mean face, on the scan by its landmarks."""
        face_from_scan = align_points(self._marks, self._mark_mean, with_scale=self.free_scale)
        return _State(np.zeros(self.basis.shape[2]), face_from_scan)

    def shape(self, state: _State) -> Array:
        """(V, 3) metres, face frame."""
        return np.asarray(self.mean + (self._flat @ state.identity).reshape(-1, 3))

    def observe(self, state: _State, points: Array, width: float) -> _Observations:
        """Nearest surface points of (N, 3) scan points, weighted by how far they are."""
        shape = self.shape(state)
        normals = self._normals(shape.astype(np.float32)).astype(np.float64)
        moved = state.face_from_scan.apply(points)
        hit = Surface(shape, self._zone).nearest(moved)
        corners = self._zone[hit.triangle]
        normal = np.einsum("nc,ncd->nd", hit.barycentric, normals[corners])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        offset = np.abs(((moved - hit.points) * normal).sum(axis=1))
        weight = np.clip(1 - (hit.distance / width) ** 2, 0, 1) ** 2
        # Where the nearest point lies sideways (the edge of a hole) the plane says nothing.
        weight *= offset >= _MIN_NORMAL_COSINE * hit.distance - 1e-5
        weight *= self._skin[corners].all(axis=1)
        keep = weight > 0
        if keep.sum() < 100:
            raise DataError(
                "a scan surface around its landmarks",
                f"{int(keep.sum())} usable points",
                "check that scan and landmarks share one frame and unit",
            )
        basis = np.einsum("nc,ncdk->ndk", hit.barycentric[keep], self.basis[corners[keep]])
        return _Observations(basis, hit.points[keep], normal[keep], moved[keep], weight[keep])

    def step(self, state: _State, seen: _Observations | None) -> _State:
        """One Gauss-Newton step over (identity, rotation, translation, log scale).

        Scan and landmarks are believed as far as their residuals go. Residuals count in the
        scan's size (divided by the scale), else shrinking it would pay.
        """
        k = len(state.identity)
        pose = state.face_from_scan
        hessian, gradient = np.zeros((k + 7, k + 7)), np.zeros(k + 7)
        hessian[range(k), range(k)] = 1.0  # the prior: identity ~ N(0, I)
        gradient[:k] = -state.identity
        hessian[k + 6, k + 6] = _LOG_SCALE_SIGMA**-2
        gradient[k + 6] = -np.log(pose.scale) / _LOG_SCALE_SIGMA**2
        if seen is not None:
            about = seen.moved - pose.translation
            rows = np.concatenate(
                [
                    np.einsum("nd,ndk->nk", seen.normal, seen.basis),
                    -np.cross(about, seen.normal),
                    -seen.normal,
                    -(seen.normal * (seen.foot - pose.translation)).sum(axis=1, keepdims=True),
                ],
                axis=1,
            )
            residual = (seen.normal * (seen.moved - seen.foot)).sum(axis=1)
            variance = max(
                float(seen.weight @ residual**2 / seen.weight.sum()),
                (pose.scale * _LEAST_SURFACE_SIGMA) ** 2,
            )
            weight = seen.weight * (_EFFECTIVE_OBSERVATIONS / len(seen.weight) / variance)
            hessian += (rows * weight[:, None]).T @ rows
            gradient += rows.T @ (weight * residual)
        moved = pose.apply(self._marks)
        shape = self._mark_mean + self._mark_basis @ state.identity
        rows = np.zeros((len(moved), 3, k + 7))
        rows[:, :, :k] = self._mark_basis
        for axis, unit in enumerate(np.eye(3)):
            rows[:, :, k + axis] = -np.cross(unit, moved - pose.translation)
            rows[:, axis, k + 3 + axis] = -1.0
        rows[:, :, k + 6] = -(shape - pose.translation)
        rows, residual = rows.reshape(-1, k + 7), (moved - shape).ravel()
        variance = max(float(np.mean(residual**2)), (pose.scale * _LEAST_LANDMARK_SIGMA) ** 2)
        hessian += rows.T @ rows / variance
        gradient += rows.T @ residual / variance
        free = k + 7 if self.free_scale else k + 6
        delta = np.zeros(k + 7)
        delta[:free] = np.linalg.solve(hessian[:free, :free], gradient[:free])
        return _State(
            state.identity + delta[:k],
            Similarity(
                pose.scale * float(np.exp(np.clip(delta[k + 6], -0.2, 0.2))),
                rotation_from_vector(delta[k : k + 3]) @ pose.rotation,
                pose.translation + delta[k + 3 : k + 6],
            ),
        )


def _check(scan: Array, marks: Array) -> None:
    if scan.ndim != 2 or scan.shape[1] != 3 or len(scan) < 1000:
        raise DataError(
            "a scan of at least 1,000 vertices", f"shape {scan.shape}", "check the mesh file"
        )
    if marks.shape != (68, 3):
        raise DataError("68 landmarks x y z", f"shape {marks.shape}", "check the .pts3d file")
    apart = float(np.linalg.norm(marks[_RIGHT_EYE_CORNER] - marks[_LEFT_EYE_CORNER]))
    low, high = _PLAUSIBLE_EYE_CORNER_DISTANCE
    if np.isfinite(apart) and not low <= apart <= high:
        raise DataError(
            f"outer eye corners {low * 1e3:.0f} to {high * 1e3:.0f} mm apart",
            f"{apart * 1e3:.3g} mm",
            "name the unit of the files with --unit (m, cm or mm)",
        )


def _filled(marks: Array, problem: _Problem, state: _State, model: MorphableModel) -> Array:
    """(68, 3) scan landmarks, the model's own in place of missing ones."""
    own = state.face_from_scan.inverse().apply(model.landmarks.of(problem.shape(state)))
    return np.where(np.isfinite(marks), marks, own)


def _thinned(points: Array, count: int) -> Array:
    """About `count` of (N, 3) points, evenly spread over space."""
    if len(points) <= count:
        return points
    low, high = 1e-5, float(np.ptp(points, axis=0).max())
    first = np.arange(len(points))
    for _ in range(24):
        cell = np.sqrt(low * high)
        index = np.floor(points / cell).astype(np.int64)
        x, y, z = (index - index.min(axis=0)).T
        _, found = np.unique((x << 42) | (y << 21) | z, return_index=True)
        low, high = (low, cell) if len(found) < count else (cell, high)
        first = found
        if count <= len(found) <= 1.1 * count:
            break
    return points[np.sort(first)]


def _result(
    model: MorphableModel,
    problem: _Problem,
    state: _State,
    near: Array,
    marks: Array,
    usable: NDArray[np.bool_],
) -> ScanFit:
    scan_from_face = state.face_from_scan.inverse()
    vertices = scan_from_face.apply(problem.shape(state))
    hit = Surface(vertices, model.triangles).nearest(near)
    skin = model.subsets[FACIAL_SKIN][model.triangles[hit.triangle]].all(axis=1)
    landmark_distance = np.full(68, np.nan)
    landmark_distance[usable] = np.linalg.norm(
        model.landmarks.of(vertices)[usable] - marks[usable], axis=1
    )
    return ScanFit(state.identity, scan_from_face, vertices, hit.distance[skin], landmark_distance)


def landmarks_by_fit(
    mean: Array, triangles: NDArray[np.int64], model: MorphableModel
) -> NDArray[np.int64]:
    """(68,) the vertices nearest to a model's landmarks after fitting it to the mean face.

    Args:
        mean: (V, 3) metres, face axes, any origin.
        triangles: (F, 3).
        model: that has landmarks.
    """
    from scipy.spatial import cKDTree

    own = model.mean_shape[model.landmarks_68].astype(np.float64)
    # The tip of the nose is what stands out furthest near the middle.
    middle = np.abs(mean[:, 1] - np.median(mean[:, 1])) < 0.015
    tip = mean[np.flatnonzero(middle)[np.argmax(mean[middle, 0])]]
    marks = own + (tip - model.mean_shape[model.landmarks_68[30]])
    tree = cKDTree(mean)
    used = np.unique(triangles)
    for _ in range(3):
        fit = fit_scan(model, mean[used], mean[tree.query(marks)[1]])
        marks = fit.vertices[model.landmarks_68]
    return np.asarray(tree.query(marks)[1], np.int64)
