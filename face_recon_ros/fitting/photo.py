"""Iterative analysis by synthesis (Blanz and Vetter 1999), same model.

Levenberg-Marquardt on the differences between a photograph's crop and the rendered face, coarse
to fine, under the model's prior. It is the baseline a network has to beat in time, and refines
single portraits offline. As the network does, it works in the nominal crop camera and answers in
`core.types.Coefficients`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from face_recon_ros.core.crop_pose import (
    CROP_FOCAL,
    coefficients_from_crop_pose,
    crop_camera,
    crop_from_face,
)
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.illumination import GAMMA, MIN_SHADING, N_BANDS, sh_basis
from face_recon_ros.core.morphable_model import (
    FACE,
    FACIAL_SKIN,
    MorphableModel,
    VertexNormals,
)
from face_recon_ros.core.rasterizer import rasterize
from face_recon_ros.core.rigid import Rigid, rotation_from_vector, vector_from_rotation
from face_recon_ros.core.types import Coefficients
from face_recon_ros.fitting.photo_config import Fit, FitConfig, FitLevel
from face_recon_ros.fitting.photo_samples import (
    Samples,
    difference,
    interpolate_samples,
    look_up,
    sh_slope,
)

Array = NDArray[np.float32]


_MIN_ATTENTION = 0.1


@dataclass(frozen=True)
class State:
    """What is fitted; the head in the nominal crop camera."""

    identity: Array
    expression: Array
    albedo: Array
    crop_from_face: Rigid
    light: Array

    def coefficients(self) -> Coefficients:
        """One row."""
        rotation, translation = coefficients_from_crop_pose(self.crop_from_face)
        rows = (self.identity, self.expression, self.albedo, rotation, translation, self.light)
        return Coefficients(*(np.asarray(row, np.float32)[None] for row in rows))


class PhotometricFitter:
    """Fits the face model to crops."""

    def __init__(self, model: MorphableModel, config: FitConfig | None = None) -> None:
        """Prepares a model.

        Args:
            model: whole head; the coarse level is enough.
            config: how to fit.
        """
        self.model = model
        self.config = config or FitConfig()
        self._normals = VertexNormals(model.triangles, model.n_vertices)
        n = model.n_vertices
        self._shape_basis = np.concatenate(
            [model.identity_basis, model.expression_basis], axis=1
        ).reshape(n, 3, -1)
        self._flat_basis = self._shape_basis.reshape(n, -1)
        self._albedo_basis = model.albedo_basis.reshape(n, 3, -1)
        rows = np.arange(len(model.triangles))
        ones = np.ones(len(rows), np.float32)
        self._corner_of = [
            csr_matrix((ones, (rows, model.triangles[:, k])), shape=(len(rows), n))
            for k in range(3)
        ]
        self._incidence = sum(m.T for m in self._corner_of).tocsr()  # (V, F)
        skin = model.subsets[FACIAL_SKIN] & (model.skin_attention > _MIN_ATTENTION)
        self._skin = skin[model.triangles].all(axis=1)
        self._face = model.subsets[FACE][model.triangles].all(axis=1)

    def from_scratch(self, size: int) -> list[Coefficients]:
        """Mean faces at several yaws that fill a crop as a detected face does.

        Args:
            size: of the crop, pixels.
        """
        skin = self.model.mean_shape[self.model.subsets[FACIAL_SKIN]]
        camera = crop_camera(size)
        out = []
        for yaw in np.radians([0.0, -25.0, 25.0, -50.0, 50.0]):
            z = 1.6
            middle = np.zeros(2)
            for _ in range(4):  # centre it and scale it to the box
                pose = crop_from_face([0.0, yaw, 0.0], [*middle, z])
                px = camera.project(pose.apply(skin))
                low, high = px.min(axis=0), px.max(axis=0)
                middle = middle - ((low + high) / 2 - (size - 1) / 2) * z / (CROP_FOCAL * size)
                z *= float(np.sqrt(np.prod(high - low))) / (size / _BOX_MARGIN)
            zeros = Coefficients.zeros(
                1, self.model.k_identity, self.model.k_expression, self.model.k_albedo
            )
            pose = crop_from_face([0.0, yaw, 0.0], [*middle, z])
            rotation, translation = coefficients_from_crop_pose(pose)
            out.append(
                replace(
                    zeros,
                    rotation=rotation[None].astype(np.float32),
                    translation=translation[None].astype(np.float32),
                )
            )
        return out

    def fit(self, crop: NDArray[np.uint8], starts: list[Coefficients]) -> Fit:
        """Fits a crop.

        Args:
            crop: (S, S, 3) uint8 RGB, square.
            starts: one row each; all go through the coarsest level, the best goes on.

        Raises:
            DataError: no start, or no skin in view.
        """
        if not starts:
            raise DataError("a start for the fit", "none", "give the network's answer")
        image = crop.astype(np.float32) / 255.0
        history: list[tuple[float, ...]] = []
        first, *rest = self.config.levels
        states = [self._run(state_of(start), image, first) for start in starts]
        state, costs = min(states, key=lambda pair: pair[1][-1])
        history.append(costs)
        for level in rest:
            state, costs = self._run(state, image, level)
            history.append(costs)
        coefficients = state.coefficients()
        return Fit(
            coefficients,
            self.photometric_error(crop, starts[0]),
            self.photometric_error(crop, coefficients),
            tuple(history),
        )

    def photometric_error(self, crop: NDArray[np.uint8], coefficients: Coefficients) -> float:
        """Mean absolute difference between rendering and photograph over the visible skin, of 255.

        Args:
            crop: (S, S, 3) uint8 RGB.
            coefficients: one row.

        Returns:
            NaN when no skin is in view.
        """
        state = state_of(coefficients)
        samples = self.sample(state, len(crop), limit=0)
        if len(samples.corners) == 0:
            return float("nan")
        image = crop.astype(np.float32) / 255.0
        residual, inside = self.residual(state, samples, image)
        return float(255 * np.abs(residual[inside]).mean()) if inside.any() else float("nan")

    def _run(self, state: State, image: Array, level: FitLevel) -> tuple[State, tuple[float, ...]]:
        sigma = level.blur_px * len(image) / 224.0
        blurred = cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image
        damping, costs = 1e-3, []
        prior = state
        samples = self.sample(state, len(image), self.config.samples)
        slopes = self.normal_slopes(state) if level.shape else None
        for step in range(level.iterations):
            if step and step % 4 == 0:  # what is visible, and how normals turn, moves slowly
                samples = self.sample(state, len(image), self.config.samples)
                slopes = self.normal_slopes(state) if level.shape else None
                costs_here = [self._cost(state, prior, samples, blurred)]
            elif step == 0:
                costs_here = [self._cost(state, prior, samples, blurred)]
            matrix, vector = self._normal_equations(state, prior, samples, blurred, slopes)
            accepted = False
            for _ in range(6):
                delta = np.linalg.solve(
                    matrix + damping * np.diag(np.diag(matrix)) + 1e-9 * np.eye(len(matrix)),
                    vector,
                )
                moved = self.moved(state, delta, level.shape)
                cost = self._cost(moved, prior, samples, blurred)
                if cost < costs_here[-1]:
                    accepted = True
                    break
                damping *= 8
            if not accepted:
                costs.append(costs_here[-1])
                break
            gain = (costs_here[-1] - cost) / max(costs_here[-1], 1e-12)
            state, damping = moved, max(damping / 4, 1e-6)
            costs_here.append(cost)
            costs.append(cost)
            if gain < 1e-4:
                break
        return state, tuple(costs)

    def sample(self, state: State, size: int, limit: int) -> Samples:
        """Visible pixels: `limit` of the face to fit it, or with 0 all of its skin to judge it.

        The fit needs eyes and lips too, which hold it in place.
        """
        part = self._face if limit else self._skin
        vertices = self.model.vertices(state.identity, state.expression)
        q = state.crop_from_face.apply(vertices)
        px = crop_camera(size).project(q)
        fragments = rasterize(px, q[:, 2], self.model.triangles, size, size)
        seen = fragments.triangle >= 0
        seen[seen] = part[fragments.triangle[seen]]
        triangle, weights = fragments.triangle[seen], fragments.weights[seen]
        if limit and len(triangle) > limit:
            rng = np.random.default_rng(self.config.seed)
            chosen = np.sort(rng.choice(len(triangle), limit, replace=False))
            triangle, weights = triangle[chosen], weights[chosen]
        return Samples(self.model.triangles[triangle].astype(np.intp), weights)

    def _geometry(self, state: State, samples: Samples, size: int) -> tuple[Array, Array, Array]:
        """(M, 3) turned points without translation, (M, 2) pixels, (M, 3) normals; crop camera."""
        vertices = self.model.vertices(state.identity, state.expression)
        rotation = state.crop_from_face.rotation.astype(np.float32)
        turned = interpolate_samples(vertices, samples) @ rotation.T
        q = turned + state.crop_from_face.translation.astype(np.float32)
        focal = np.float32(CROP_FOCAL * size)
        px = focal * q[:, :2] / q[:, 2:] + np.float32((size - 1) / 2)
        normals = interpolate_samples(self._normals(vertices), samples) @ rotation.T
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return turned, px, normals

    def residual(
        self, state: State, samples: Samples, image: Array
    ) -> tuple[Array, NDArray[np.bool_]]:
        """(M, 3) photograph minus rendering, and (M,) whether a sample is in the picture."""
        _, px, normals = self._geometry(state, samples, len(image))
        albedo = interpolate_samples(self.model.albedo(state.albedo), samples)
        shading = np.maximum(sh_basis(normals) @ state.light, MIN_SHADING)
        inside = ((px >= 0) & (px <= len(image) - 1)).all(axis=1)
        return look_up(image, px) - albedo * shading ** (1 / GAMMA), inside

    def _cost(self, state: State, prior: State, samples: Samples, image: Array) -> float:
        residual, inside = self.residual(state, samples, image)
        scaled = (residual / self.config.pixel_sigma) ** 2
        robust = np.log1p(scaled.mean(axis=1) / _CAUCHY) * _CAUCHY * 3
        outside = np.float32(np.log1p(_OUTSIDE / _CAUCHY) * _CAUCHY * 3)
        data = np.where(inside, robust, outside).mean() * self.config.samples
        return float(self.config.effective_share * data + self._prior(state, prior)[0])

    def _prior(self, state: State, start: State) -> tuple[float, Array, Array]:
        """Cost, and its diagonal and gradient over the parameters, times one half."""
        c = self.config
        e_sigma = c.expression_sigma if self.model.expression_prior == "unit_interval" else 1.0
        turn, shift = _motion(start.crop_from_face, state.crop_from_face)
        place = np.concatenate([turn, shift])
        depth = float(start.crop_from_face.translation[2])
        reach = np.array(
            [c.turn_sigma] * 3 + [c.shift_sigma * depth] * 2 + [c.depth_sigma * depth]
        )
        offset = state.light - start.light
        mean = offset.mean(axis=1, keepdims=True)
        tint = offset - mean
        gradient_light = mean / c.light_sigma**2 / 3 + tint / c.tint_sigma**2
        diagonal_light = np.full(3 * N_BANDS, 1 / c.tint_sigma**2, np.float32)
        gradient = np.concatenate(
            [
                state.identity,
                state.expression / e_sigma**2,
                state.albedo,
                place / reach**2,
                gradient_light.ravel(),
            ]
        )
        diagonal = np.concatenate(
            [
                np.ones(len(state.identity)),
                np.full(len(state.expression), 1 / e_sigma**2),
                np.ones(len(state.albedo)),
                1 / reach**2,
                diagonal_light,
            ]
        )
        cost = (
            (state.identity**2).sum()
            + (state.expression**2).sum() / e_sigma**2
            + (state.albedo**2).sum()
            + ((place / reach) ** 2).sum()
            + (mean**2).sum() / c.light_sigma**2
            + (tint**2).sum() / c.tint_sigma**2
        )
        return float(cost), diagonal.astype(np.float32), gradient.astype(np.float32)

    def _normal_equations(
        self,
        state: State,
        prior: State,
        samples: Samples,
        image: Array,
        slopes: Array | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        residual, jacobian, inside = self.jacobian(state, samples, image, slopes)
        c = self.config
        scaled = (residual / c.pixel_sigma) ** 2
        weight = inside / (1 + scaled.mean(axis=1) / _CAUCHY)  # Cauchy, reweighted
        weight *= c.effective_share * c.samples / max(len(inside), 1) / c.pixel_sigma**2
        rows = np.sqrt(weight)[:, None, None].astype(np.float32) * jacobian
        flat = rows.reshape(-1, jacobian.shape[2])
        right = (np.sqrt(weight)[:, None].astype(np.float32) * residual).reshape(-1)
        _, diagonal, gradient = self._prior(state, prior)
        k = self._shape_basis.shape[2] + self._albedo_basis.shape[2]
        if slopes is None:  # shape rests
            diagonal, gradient = diagonal[k:], gradient[k:]
        matrix = (flat.T @ flat).astype(np.float64) + np.diag(diagonal.astype(np.float64))
        return matrix, -(flat.T @ right).astype(np.float64) - gradient

    def jacobian(
        self, state: State, samples: Samples, image: Array, slopes: Array | None
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Residuals (M, 3) and their derivatives (M, 3, P).

        Parameters in order: identity, expression, albedo, turn (3, left, radians), shift (3,
        metres), illumination (27). Without `slopes` the first three are left out.
        """
        size = len(image)
        turned, px, normals = self._geometry(state, samples, size)
        q = turned + state.crop_from_face.translation.astype(np.float32)
        focal = np.float32(CROP_FOCAL * size)
        zero = np.zeros(len(q), np.float32)
        px_by_q = (focal / q[:, 2])[:, None, None] * np.stack(
            [
                np.stack([zero + 1, zero, -q[:, 0] / q[:, 2]], 1),
                np.stack([zero, zero + 1, -q[:, 1] / q[:, 2]], 1),
            ],
            axis=1,
        )
        gradient = np.stack(
            [look_up(difference(image, axis), px) for axis in (1, 0)], axis=2
        )  # (M, 3 channels, 2)
        colour_by_q = gradient @ px_by_q  # (M, 3, 3)

        basis = sh_basis(normals)
        shading = np.maximum(basis @ state.light, MIN_SHADING)
        albedo = interpolate_samples(self.model.albedo(state.albedo), samples)
        tone = shading ** (1 / GAMMA)
        tone_by_shading = tone / shading / GAMMA
        residual = look_up(image, px) - albedo * tone
        inside = ((px >= 0) & (px <= size - 1)).all(axis=1)
        lit = (albedo * tone_by_shading)[:, :, None]  # d colour / d shading
        by_light = np.zeros((len(q), 3, N_BANDS, 3), np.float32)
        for channel in range(3):
            by_light[:, channel, :, channel] = -lit[:, channel] * basis
        shading_by_normal = np.einsum("mbx,bc->mcx", sh_slope(normals), state.light)
        colour_by_normal = -lit * shading_by_normal  # (M, 3, 3)
        by_turn = np.cross(turned[:, None, :], colour_by_q) + np.cross(
            normals[:, None, :], colour_by_normal
        )
        parts = [by_turn, colour_by_q, by_light.reshape(len(q), 3, -1)]
        if slopes is not None:
            rotation = state.crop_from_face.rotation.astype(np.float32)
            points = np.einsum("mk,mkxp->mxp", samples.weights, self._shape_basis[samples.corners])
            turns = np.einsum("mk,mkxp->mxp", samples.weights, slopes[samples.corners])
            by_shape = (colour_by_q @ rotation) @ points + (colour_by_normal @ rotation) @ turns
            paint = np.einsum("mk,mkxp->mxp", samples.weights, self._albedo_basis[samples.corners])
            parts = [by_shape, -tone[:, :, None] * paint, *parts]
        return residual, np.concatenate(parts, axis=2), inside

    def normal_slopes(self, state: State) -> Array:
        """(V, 3, K_id + K_exp) derivative of unit vertex normals, face frame."""
        vertices = self.model.vertices(state.identity, state.expression)
        corners = vertices[self.model.triangles]  # (F, 3, 3)
        # n = (b - a) x (c - a) changes by (c - b) x da + (a - c) x db + (b - a) x dc.
        edges = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        summed = (self._incidence @ faces).astype(np.float32)
        length = np.maximum(np.linalg.norm(summed, axis=1), 1e-12)[:, None, None]
        unit = (summed / length[:, 0])[:, :, None]
        by_corner = [self._corner_of[k] @ self._flat_basis for k in range(3)]
        turned = sum(
            np.cross(edges[:, k, :, None], by_corner[k].reshape(len(faces), 3, -1), axis=1)
            for k in range(3)
        )
        moved = (self._incidence @ turned.reshape(len(faces), -1)).reshape(
            self._shape_basis.shape
        ) / length
        return np.asarray(moved - unit * (moved * unit).sum(axis=1, keepdims=True), np.float32)

    def moved(self, state: State, delta: NDArray[np.float64], shape: bool) -> State:
        """A state after a step (P,), whose parameters are in the order of `jacobian`."""
        sizes = (
            [len(state.identity), len(state.expression), len(state.albedo)] if shape else [0, 0, 0]
        )
        cuts = np.cumsum([*sizes, 3, 3])
        a, e, t, turn, shift, light = np.split(delta, cuts)
        pose = Rigid(
            rotation_from_vector(turn) @ state.crop_from_face.rotation,
            state.crop_from_face.translation + shift,
        )
        moved = replace(
            state,
            crop_from_face=pose,
            light=(state.light + light.reshape(N_BANDS, 3)).astype(np.float32),
        )
        if not shape:
            return moved
        expression = state.expression + e
        if self.model.expression_prior == "unit_interval":
            expression = np.clip(expression, 0.0, 1.0)
        return replace(
            moved,
            identity=(state.identity + a).astype(np.float32),
            expression=expression.astype(np.float32),
            albedo=(state.albedo + t).astype(np.float32),
        )


_BOX_MARGIN = 1.5
_CAUCHY = 4.0  # variances at which a sample counts a half
_OUTSIDE = 9.0  # what a sample outside the crop costs, in variances: no gain in leaving


def state_of(coefficients: Coefficients) -> State:
    """The state of one row of coefficients."""
    return State(
        coefficients.identity[0],
        coefficients.expression[0],
        coefficients.albedo[0],
        crop_from_face(coefficients.rotation[0], coefficients.translation[0]),
        coefficients.illumination[0],
    )


def _motion(a: Rigid, b: Rigid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn (3,) radians, from the left, and shift (3,) metres from one pose to another."""
    return vector_from_rotation(b.rotation @ a.rotation.T), b.translation - a.translation
