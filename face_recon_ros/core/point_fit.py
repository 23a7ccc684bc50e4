"""The face model fitted to dense points: Gauss-Newton with priors, all faces in one batch.

Wood et al. 2022 ("3D face reconstruction with dense landmarks", ECCV): a network says where points
of the face model's surface lie in the picture and how sure it is of each; pose, identity and
expression follow from them by least squares. Points err together (a cheek slides as a whole), so
they count for less than as many independent ones: `FitPrior.independence`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.rigid import rotation_from_vector

Array = NDArray[np.float64]

#: Unknowns of the pose: rotation vector (radians), translation (right and down over `reach`,
#: away over depth).
POSE = 6
#: A point that fits worse than expected by the square root of this counts half.
_OUTLIER = 9.0
#: A pose that moves by more than this many of its prior's standard deviations has diverged.
_FARTHEST = 8.0


@dataclass(frozen=True)
class FitPrior:
    """What is known before a point is seen: standard deviations around the start of the fit.

    Attributes:
        rotation: radians.
        translation: over `FitState.units`: right, down, away.
        identity: (K_id,) standard deviations of people, or one of all coefficients.
        expression: (K_exp,) activations.
        independence: what a point counts for, over an independent one.
        pose_scale: factors of the pose's standard deviations that make them true on held-out
            renderings: of rotation, of translation across the line of sight, of depth.
        start_information: (K_id,) what the start of the fit says of identity there, beyond the
            prior: the inverse variance of its errors, less one.
        population: (K_id,) mean identity of people.
        training_mean: (K_id,) mean identity of the people that the network was trained on: its
            answer where a picture says nothing of identity.
    """

    rotation: float
    translation: tuple[float, float, float]
    identity: float | NDArray[np.float64]
    expression: NDArray[np.float64]
    independence: float
    pose_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    start_information: float | NDArray[np.float64] = 0.0
    population: float | NDArray[np.float64] = 0.0
    training_mean: float | NDArray[np.float64] = 0.0

    @property
    def start_shift(self) -> float | NDArray[np.float64]:
        """(K_id,) from the network's identity to the same for a prior around the population."""
        return (self.population - self.training_mean) / (1.0 + self.start_information)

    def identity_information(self, k_identity: int) -> Array:
        """(K_id, K_id) about the identity of a person, around the start of the fit."""
        return np.diag(np.broadcast_to(1.0 / np.square(self.identity), k_identity))

    def precision(self, k_identity: int) -> Array:
        """(6 + K_exp + K_id,) of all unknowns."""
        sigma = np.concatenate(
            [
                np.full(3, self.rotation),
                np.asarray(self.translation),
                self.expression,
                np.broadcast_to(self.identity, k_identity),
            ]
        )
        return np.asarray(1.0 / np.square(sigma))


@dataclass(frozen=True)
class FitState:
    """Pose and shape of N faces.

    Attributes:
        rotation: (N, 3, 3) camera_from_face, in a camera of focal length 1.
        translation: (N, 3) metres.
        identity: (N, K_id).
        expression: (N, K_exp).
        reach: (N,) metres, by which translation right and down is measured; None: the depth. In
            the nominal crop camera that is the depth, whatever the camera of the fit.
    """

    rotation: NDArray[np.floating]
    translation: NDArray[np.floating]
    identity: NDArray[np.floating]
    expression: NDArray[np.floating]
    reach: NDArray[np.floating] | None = None

    @property
    def units(self) -> Array:
        """(N, 3) metres, by which translation is measured: right, down, away."""
        depth = np.asarray(self.translation[:, 2], np.float64)
        across = depth if self.reach is None else np.asarray(self.reach, np.float64)
        return np.stack([across, across, depth], 1)


@dataclass(frozen=True)
class PointFit:
    """The answer for N faces.

    Attributes:
        state: the fit.
        information: (N, M, M) inverse covariance of all unknowns, priors included, M = 6 + K_exp +
            K_id: rotation about the camera's axes, translation over `FitState.units`, expression,
            identity.
        pose_covariance: (N, 6, 6) of rotation and translation over `FitState.units`.
        identity_information: (N, K_id, K_id) about identity, the rest marginalised.
        with_identity: (N, 6 + K_exp, K_id) how pose and expression follow a change of identity.
        residual: (N,) root mean square of the points' residuals over what the network expected.
        converged: (N,) the fit is finite, fits no worse than its start and lies not far from it.
    """

    state: FitState
    information: Array
    pose_covariance: Array
    identity_information: Array
    with_identity: Array
    residual: Array
    converged: NDArray[np.bool_]


class PointFitter:
    """Fits one face model to points of its surface.

    Attributes:
        mean: (P, 3) the mean face's points, face frame, metres.
        prior: before any point is seen.
    """

    def __init__(
        self,
        model: MorphableModel,
        vertices: NDArray[np.intp],
        prior: FitPrior,
        every: int = 1,
    ) -> None:
        """Takes the rows of the named vertices.

        Args:
            model: face model.
            vertices: (P,) indices into its mesh.
            prior: before any point is seen.
            every: this one of so many points is used and counts for all of them. Neighbours err
                alike, so the answer is as good and takes less time.
        """
        self._used = slice(None, None, every)
        self._independence = prior.independence * every
        self._unit_interval = model.expression_prior == "unit_interval"
        n = model.n_vertices
        self.mean = model.mean_shape[vertices].astype(np.float32)
        vertices = vertices[self._used]
        self._used_mean = model.mean_shape[vertices].astype(np.float64)
        identity = model.identity_basis.reshape(n, 3, -1)[vertices]
        expression = model.expression_basis.reshape(n, 3, -1)[vertices]
        basis = np.concatenate([expression, identity], 2).astype(np.float32)
        self._k_identity = identity.shape[2]
        self._rest = POSE + expression.shape[2]
        self._by_axis = np.ascontiguousarray(basis.transpose(1, 0, 2))  # (3, P, K)
        self._by_point = np.ascontiguousarray(
            basis.reshape(-1, basis.shape[2]).T, float
        )  # (K, P 3)
        self.prior = prior
        self._precision = prior.precision(self._k_identity)

    def fit(
        self,
        start: FitState,
        seen: NDArray[np.floating],
        sigma: NDArray[np.floating],
        identity_information: NDArray[np.floating] | None = None,
        steps: int = 2,
        rounds: int = 1,
    ) -> PointFit:
        """Gauss-Newton from `start`, which is also the middle of the prior.

        The normal equations are made once a round: a regressor's answer leaves little curvature,
        and one round will do. Each step weighs the residuals again, so that points that fit far
        worse than they promised, and than the others, count less (Cauchy).

        Args:
            start: N faces.
            seen: (N, P, 2) where the points lie in the picture of focal length 1: x / z, y / z.
            sigma: (N, P) standard deviations, metres at the face's depth.
            identity_information: (N, K_id, K_id) in place of the prior's on identity.
            steps: of Gauss-Newton in each round.
            rounds: how often the normal equations are made, at least once.
        """
        n, m = len(seen), len(self._precision)
        prior = np.zeros((n, m, m))
        prior[:, np.arange(m), np.arange(m)] = self._precision
        if identity_information is not None:
            prior[:, self._rest :, self._rest :] = identity_information
        places = np.asarray(seen, np.float64)[:, self._used]
        variance = np.square(np.asarray(sigma, np.float64)[:, self._used])
        weight = self._independence / variance
        depth = np.asarray(start.translation[:, 2], np.float64)
        root = np.sqrt(weight)
        state, offset, first = start, np.zeros((n, m)), None
        for _ in range(rounds):
            rows = self._jacobian(state, depth, root).reshape(n, 2 * len(self._used_mean), m)
            information = prior + np.array([r.T @ r for r in rows]).reshape(n, m, m)
            equations = _NormalEquations.of(information, self._rest)
            for _ in range(steps):
                residual = self._residual(state, places, depth)
                surprise = np.square(residual).sum(1) / variance / 2
                if first is None:  # the start itself says nothing of what is an outlier
                    first, surprise = surprise.mean(1), np.zeros_like(surprise)
                usual = np.maximum(np.median(surprise, axis=1, keepdims=True), 1.0)
                pull = residual * (root / (1 + surprise / usual / _OUTLIER))[:, None]
                gradient = (pull.astype(np.float32).reshape(n, 1, rows.shape[1]) @ rows)[:, 0]
                gradient = gradient - (prior @ offset[..., None])[..., 0]
                state, offset = self._move(state, offset, equations.solve(gradient))
        residual = self._residual(state, places, depth)
        last = (np.square(residual).sum(1) / variance / 2).mean(1)
        good = np.isfinite(last) & np.isfinite(offset).all(1) & (state.translation[:, 2] > 0)
        good &= last <= np.maximum(1.0 if first is None else first, 1.0)
        moved = np.abs(offset[:, :POSE]) * np.sqrt(self._precision[:POSE])
        good &= (moved < _FARTHEST).all(1)
        return PointFit(
            _choose(good, state, start),
            information,
            equations.covariance(POSE),
            equations.schur,
            -equations.across,
            np.sqrt(last),
            good,
        )

    def given(self, fit: PointFit, identity: NDArray[np.floating]) -> PointFit:
        """The same fit of people whose identity is known otherwise.

        Args:
            fit: of N faces.
            identity: (N, K_id) who they are; pose and expression follow.
        """
        away = identity - fit.state.identity.astype(np.float64)
        if not away.any():
            return fit
        change = np.concatenate([(fit.with_identity @ away[..., None])[..., 0], away], 1)
        return replace(fit, state=self._move(fit.state, np.zeros_like(change), change)[0])

    def _shape(self, state: FitState) -> Array:
        """(N, P, 3) the points in the face frame, turned as the head is.

        In double precision, as all sums here: else results would depend on the number of threads.
        """
        coefficients = np.concatenate([state.expression, state.identity], 1).astype(np.float64)
        moved = (coefficients @ self._by_point).reshape(-1, *self._used_mean.shape)
        shape = self._used_mean + moved
        return np.asarray(shape @ np.asarray(state.rotation, np.float64).transpose(0, 2, 1))

    def _residual(self, state: FitState, seen: Array, at_depth: Array) -> Array:
        """(N, 2, P) metres at the depth of the start."""
        x = self._shape(state) + state.translation[:, None]
        slope = x[..., :2] / np.maximum(x[..., 2:], 1e-3)
        away = (seen - slope) * at_depth[:, None, None]
        return np.asarray(away.transpose(0, 2, 1))

    def _jacobian(self, state: FitState, at_depth: Array, weight: Array) -> NDArray[np.float32]:
        """(N, 2, P, M) derivatives of where the points are seen, metres at the start's depth.

        Each point's are multiplied with its weight, (N, P). Single precision: their products are
        half of the work, and what they cannot say the residuals correct in the next step.
        """
        turned = self._shape(state)
        x = turned + state.translation[:, None]
        z = np.maximum(x[..., 2], 1e-3)
        n, p = z.shape
        out = np.empty((n, 2, p, len(self._precision)), np.float32)
        flat = self._by_axis.reshape(3, -1)
        moved = (state.rotation.astype(np.float32) @ flat).reshape(n, *self._by_axis.shape)
        a, b, c = turned[..., 0], turned[..., 1], turned[..., 2]
        zero = np.zeros_like(a)
        spins = np.stack([[zero, c, -b], [-c, zero, a], [b, -a, zero]])  # omega x (R v)
        units = state.units
        scale = weight / z * at_depth[:, None]
        for axis in range(2):
            slope = x[..., axis] / z
            row = out[:, axis]
            row[..., :3] = (spins[axis] - slope * spins[2]).transpose(1, 2, 0)
            row[..., 3:POSE] = 0.0
            row[..., 3 + axis] = units[:, axis, None]
            row[..., POSE - 1] = -slope * units[:, 2, None]
            np.multiply(moved[:, 2], -slope.astype(np.float32)[..., None], out=row[..., POSE:])
            row[..., POSE:] += moved[:, axis]
            row *= scale.astype(np.float32)[..., None]
        return out

    def _move(self, state: FitState, offset: Array, change: Array) -> tuple[FitState, Array]:
        """One step on, and how far it is from the start then; expressions stay in their range."""
        turn = np.array([rotation_from_vector(v) for v in change[:, :3]]).reshape(-1, 3, 3)
        expression = state.expression + change[:, POSE : self._rest]
        if self._unit_interval:
            expression = np.clip(expression, 0.0, 1.0)
        change[:, POSE : self._rest] = expression - state.expression
        moved = FitState(
            turn @ state.rotation,
            state.translation + change[:, 3:POSE] * state.units,
            state.identity + change[:, self._rest :],
            expression,
            state.reach,
        )
        return moved, offset + change


@dataclass(frozen=True)
class _NormalEquations:
    """Of N faces, solved in two blocks: the last unknowns, identity, apart from the rest.

    Two small inverses take half as long as one large one, and the Schur complement of the rest is
    the information about identity that a track needs.

    Attributes:
        rest: (N, R, R) inverse of the rest's block.
        across: (N, R, K) `rest` times the block of rest and identity.
        schur: (N, K, K) information about identity, the rest marginalised.
        inverse: (N, K, K) of `schur`.
    """

    rest: Array
    across: Array
    schur: Array
    inverse: Array

    @staticmethod
    def of(information: Array, rest: int) -> _NormalEquations:
        """Of (N, M, M) information; the first `rest` unknowns are the rest."""
        mixed = information[:, :rest, rest:]
        inner = np.asarray(np.linalg.inv(information[:, :rest, :rest]))
        across = np.asarray(inner @ mixed)
        schur = information[:, rest:, rest:] - mixed.transpose(0, 2, 1) @ across
        schur = (schur + schur.transpose(0, 2, 1)) / 2
        return _NormalEquations(inner, across, schur, np.asarray(np.linalg.inv(schur)))

    def solve(self, gradient: Array) -> Array:
        """(N, M) -> (N, M)."""
        rest = self.rest.shape[1]
        first, last = gradient[:, :rest, None], gradient[:, rest:, None]
        identity = self.inverse @ (last - self.across.transpose(0, 2, 1) @ first)
        others = self.rest @ first - self.across @ identity
        return np.concatenate([others, identity], 1)[..., 0]

    def covariance(self, count: int) -> Array:
        """(N, count, count) of the first unknowns, all others marginalised."""
        across = self.across[:, :count]
        added = across @ self.inverse @ across.transpose(0, 2, 1)
        return np.asarray(self.rest[:, :count, :count] + added)


def _choose(good: NDArray[np.bool_], fit: FitState, start: FitState) -> FitState:
    values = {}
    for name in ("rotation", "translation", "identity", "expression"):
        ours, theirs = getattr(fit, name), getattr(start, name)
        values[name] = np.where(good.reshape(-1, *[1] * (ours.ndim - 1)), ours, theirs)
    return replace(start, **values)
