"""The face model fitted to dense points: Gauss-Newton with priors, all faces in one batch.

Wood et al. 2022 ("3D face reconstruction with dense landmarks", ECCV): a network says where points
of the face model's surface lie in the picture and how sure it is of each; pose, identity and
expression follow from them by least squares. Points err together (a cheek slides as a whole), so
they count for less than as many independent ones: `FitPrior.independence`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop_pose import CROP_FOCAL
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.rigid import rotation_from_vector

Array = NDArray[np.float64]

#: Unknowns of the pose: rotation vector (radians), translation over depth.
POSE = 6


@dataclass(frozen=True)
class FitPrior:
    """What is known before a point is seen: standard deviations around the start of the fit.

    Attributes:
        rotation: radians.
        translation: over the face's depth: right, down, away.
        identity: standard deviations of people.
        expression: (K_exp,) activations.
        independence: what a point counts for, over an independent one.
    """

    rotation: float
    translation: tuple[float, float, float]
    identity: float
    expression: NDArray[np.float64]
    independence: float

    def precision(self, k_identity: int) -> Array:
        """(6 + K_id + K_exp,) of all unknowns."""
        sigma = np.concatenate(
            [
                np.full(3, self.rotation),
                np.asarray(self.translation),
                np.full(k_identity, self.identity),
                self.expression,
            ]
        )
        return np.asarray(1.0 / np.square(sigma))


@dataclass(frozen=True)
class FitState:
    """Pose and shape of N faces.

    Attributes:
        rotation: (N, 3, 3) crop_from_face.
        translation: (N, 3) metres.
        identity: (N, K_id).
        expression: (N, K_exp).
    """

    rotation: NDArray[np.floating]
    translation: NDArray[np.floating]
    identity: NDArray[np.floating]
    expression: NDArray[np.floating]


@dataclass(frozen=True)
class PointFit:
    """The answer for N faces.

    Attributes:
        state: the fit.
        information: (N, M, M) inverse covariance of all unknowns, priors included, M = 6 + K_id +
            K_exp: rotation about the crop camera's axes, translation over depth, identity,
            expression.
        residual: (N,) root mean square of the points' residuals over what the network expected.
        converged: (N,) the fit is finite and lies no worse than its start.
    """

    state: FitState
    information: Array
    residual: Array
    converged: NDArray[np.bool_]


class PointFitter:
    """Fits one face model to points of its surface."""

    def __init__(self, model: MorphableModel, vertices: NDArray[np.intp], prior: FitPrior) -> None:
        """Takes the rows of the named vertices.

        Args:
            model: face model.
            vertices: (P,) indices into its mesh.
            prior: before any point is seen.
        """
        self._unit_interval = model.expression_prior == "unit_interval"
        n = model.n_vertices
        self.mean = model.mean_shape[vertices].astype(np.float32)
        identity = model.identity_basis.reshape(n, 3, -1)[vertices]
        expression = model.expression_basis.reshape(n, 3, -1)[vertices]
        self._basis = np.concatenate([identity, expression], 2).astype(np.float32)
        self._k_identity = identity.shape[2]
        self.prior = prior
        self._precision = prior.precision(self._k_identity)

    def fit(
        self,
        start: FitState,
        seen: NDArray[np.floating],
        sigma: NDArray[np.floating],
        identity_information: NDArray[np.floating] | None = None,
        steps: int = 2,
    ) -> PointFit:
        """Gauss-Newton from `start`, which is also the middle of the prior.

        Args:
            start: N faces.
            seen: (N, P, 2) where the points lie, crop sides from the middle.
            sigma: (N, P) standard deviations, metres at the face's depth.
            identity_information: (N, K_id, K_id) in place of the prior's on identity.
            steps: of Gauss-Newton.
        """
        n, k = len(seen), self._k_identity
        places = np.asarray(seen, np.float64)
        prior = np.zeros((n, len(self._precision), len(self._precision)))
        prior[:] = np.diag(self._precision)
        if identity_information is not None:
            prior[:, POSE : POSE + k, POSE : POSE + k] = identity_information
        unit = np.asarray(CROP_FOCAL / start.translation[:, 2], np.float64)  # crop sides per metre
        weight = self.prior.independence / np.square(np.asarray(sigma, np.float64))
        state, offset = start, np.zeros((n, len(self._precision)))
        information, first = prior, np.zeros(n)
        for step in range(steps):
            residual, jacobian = self._linearise(state, places, unit)
            surprise = np.square(residual).sum(2) / np.square(sigma) / 2
            if step == 0:
                first = surprise.mean(1)
                w = weight
            else:  # points that fit far worse than they promised count less (Cauchy)
                w = weight / (1 + surprise / 9.0)
            rows = jacobian.reshape(n, jacobian.shape[1] * 2, jacobian.shape[3])
            weighted = rows * np.repeat(w, 2, axis=1)[..., None].astype(np.float32)
            information = prior + (weighted.transpose(0, 2, 1) @ rows).astype(np.float64)
            gradient = np.einsum(
                "npm,np->nm", weighted, residual.reshape(n, residual.shape[1] * 2)
            )
            gradient -= np.einsum("nij,nj->ni", prior, offset)
            change = np.linalg.solve(information, gradient[..., None])[..., 0]
            moved = self._move(state, change)
            change[:, POSE:] = np.concatenate(
                [moved.identity - state.identity, moved.expression - state.expression], 1
            )
            state, offset = moved, offset + change
        residual, _ = self._linearise(state, places, unit, jacobian=False)
        last = (np.square(residual).sum(2) / np.square(sigma) / 2).mean(1)
        good = np.isfinite(last) & np.isfinite(offset).all(1) & (state.translation[:, 2] > 0)
        good &= last <= np.maximum(first, 1.0)
        return PointFit(_choose(good, state, start), information, np.sqrt(last), good)

    def _linearise(
        self, state: FitState, seen: Array, unit: Array, jacobian: bool = True
    ) -> tuple[Array, NDArray[np.float32]]:
        """(N, P, 2) residuals in metres, (N, P, 2, M) their derivatives."""
        n, p = seen.shape[:2]
        coefficients = np.concatenate([state.identity, state.expression], 1).astype(np.float32)
        m = self._basis.shape[2]
        shape = self.mean + (coefficients @ self._basis.reshape(-1, m).T).reshape(n, p, 3)
        turned = shape @ state.rotation.transpose(0, 2, 1).astype(np.float32)
        x = turned + state.translation[:, None].astype(np.float32)
        z = np.maximum(x[..., 2:], 1e-3)
        slope = x[..., :2] / z
        residual = (seen - CROP_FOCAL * slope) / unit[:, None, None]
        if not jacobian:
            return residual, np.zeros(0, np.float32)
        d = np.empty((n, p, 3, POSE + m), np.float32)
        zero = np.zeros_like(turned[..., 0])
        a, b, c = turned[..., 0], turned[..., 1], turned[..., 2]
        d[..., 0, :3] = np.stack([zero, c, -b], -1)  # omega x (R v)
        d[..., 1, :3] = np.stack([-c, zero, a], -1)
        d[..., 2, :3] = np.stack([b, -a, zero], -1)
        d[..., 3:POSE] = np.eye(3) * state.translation[:, None, 2, None, None]
        rotation = state.rotation[:, None].astype(np.float32)
        d[..., POSE:] = rotation @ self._basis[None]
        pixel = (CROP_FOCAL / z / unit[:, None, None]).astype(np.float32)
        out = d[..., :2, :] - slope[..., None].astype(np.float32) * d[..., 2:, :]
        return residual, out * pixel[..., None]

    def _move(self, state: FitState, change: Array) -> FitState:
        k = self._k_identity
        turn = np.array([rotation_from_vector(v) for v in change[:, :3]]).reshape(-1, 3, 3)
        expression = state.expression + change[:, POSE + k :]
        if self._unit_interval:
            expression = np.clip(expression, 0.0, 1.0)
        return FitState(
            turn @ state.rotation,
            state.translation + change[:, 3:POSE] * state.translation[:, 2:],
            state.identity + change[:, POSE : POSE + k],
            expression,
        )


def _choose(good: NDArray[np.bool_], fit: FitState, start: FitState) -> FitState:
    values = {}
    for name in ("rotation", "translation", "identity", "expression"):
        ours, theirs = getattr(fit, name), getattr(start, name)
        values[name] = np.where(good.reshape(-1, *[1] * (ours.ndim - 1)), ours, theirs)
    return FitState(**values)
