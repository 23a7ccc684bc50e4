"""Iterative analysis by synthesis (Blanz and Vetter 1999), same model.

Levenberg-Marquardt on the differences between a photograph's crop and the rendered face, coarse
to fine, under the model's prior. It is the baseline a network has to beat in time, and refines
single portraits offline. As the network does, it works in the nominal crop camera and answers in
`core.types.Coefficients`.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop_pose import (
    CROP_FOCAL,
    coefficients_from_crop_pose,
    crop_camera,
    crop_from_face,
)
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.illumination import N_BANDS
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.rigid import vector_from_rotation
from face_recon_ros.core.types import Coefficients
from face_recon_ros.fitting.photo_config import Fit, FitConfig, FitLevel
from face_recon_ros.fitting.photo_residual import PhotometricResidual, Samples, State

Array = NDArray[np.float32]

_BOX_MARGIN = 1.5
_CAUCHY = 4.0  # variances at which a sample counts a half
_OUTSIDE = 9.0  # what a sample outside the crop costs, in variances: no gain in leaving
_SAMPLE_EVERY = 4  # steps: what is visible, and how normals turn, moves slowly
_ATTEMPTS, _MIN_GAIN = 6, 1e-4  # of a step; share of the cost below which a level ends


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
        self._residual = PhotometricResidual(model)

    def from_scratch(self, size: int) -> list[Coefficients]:
        """Mean faces at several yaws that fill a crop as a detected face does.

        Args:
            size: of the crop, pixels.
        """
        model = self.model
        skin = model.mean_shape[model.subsets[FACIAL_SKIN]]
        camera = crop_camera(size)
        mean_face = Coefficients.zeros(1, model.k_identity, model.k_expression, model.k_albedo)
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
            pose = crop_from_face([0.0, yaw, 0.0], [*middle, z])
            rotation, translation = coefficients_from_crop_pose(pose)
            out.append(
                replace(
                    mean_face,
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
        first, *rest = self.config.levels
        begun = [State.of(start) for start in starts]
        ends = [self._run(start, start, image, first) for start in begun]
        best = min(range(len(ends)), key=lambda i: ends[i][1][-1])
        start, (state, costs) = begun[best], ends[best]
        history = [costs]
        for level in rest:
            state, costs = self._run(state, start, image, level)
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
        state = State.of(coefficients)
        samples = self._residual.sample(state, len(crop), limit=0)
        if len(samples.corners) == 0:
            return float("nan")
        image = crop.astype(np.float32) / 255.0
        residual, inside = self._residual.residual(state, samples, image)
        return float(255 * np.abs(residual[inside]).mean()) if inside.any() else float("nan")

    def _run(
        self, state: State, start: State, image: Array, level: FitLevel
    ) -> tuple[State, tuple[float, ...]]:
        """Where a level ends that begins at a state, and the cost after each step."""
        sigma = level.blur_px * len(image) / 224.0
        blurred = cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image
        damping, costs = 1e-3, []
        for step in range(level.iterations):
            if step % _SAMPLE_EVERY == 0:
                samples = self._residual.sample(
                    state, len(image), self.config.samples, self.config.seed
                )
                slopes = self._residual.normal_slopes(state) if level.shape else None
                cost = self._cost(state, start, samples, blurred)
            matrix, vector = self._normal_equations(state, start, samples, blurred, slopes)
            for _ in range(_ATTEMPTS):
                damped = matrix + damping * np.diag(np.diag(matrix)) + 1e-9 * np.eye(len(matrix))
                moved = self._residual.moved(state, np.linalg.solve(damped, vector), level.shape)
                lower = self._cost(moved, start, samples, blurred)
                if lower < cost:
                    break
                damping *= 8
            else:
                costs.append(cost)
                break
            gain = (cost - lower) / max(cost, 1e-12)
            state, cost, damping = moved, lower, max(damping / 4, 1e-6)
            costs.append(cost)
            if gain < _MIN_GAIN:
                break
        return state, tuple(costs)

    def _cost(self, state: State, start: State, samples: Samples, image: Array) -> float:
        residual, inside = self._residual.residual(state, samples, image)
        scaled = (residual / self.config.pixel_sigma) ** 2
        robust = np.log1p(scaled.mean(axis=1) / _CAUCHY) * _CAUCHY * 3
        outside = np.float32(np.log1p(_OUTSIDE / _CAUCHY) * _CAUCHY * 3)
        data = np.where(inside, robust, outside).mean() * self.config.samples
        return float(self.config.effective_share * data + self._prior(state, start)[0])

    def _prior(
        self, state: State, start: State
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Cost, and one half of its (P,) second and (P,) first derivatives.

        Albedo is near the model's mean, all else near the start's.
        """
        c = self.config
        unit = self.model.expression_prior == "unit_interval"
        e_sigma = c.expression_sigma if unit else c.identity_sigma
        before, now = start.crop_from_face, state.crop_from_face
        depth = float(before.translation[2])
        light = state.light - start.light
        parts = [
            (state.identity - start.identity, c.identity_sigma),
            (state.expression - start.expression, e_sigma),
            (state.albedo, 1.0),
            (vector_from_rotation(now.rotation @ before.rotation.T), c.turn_sigma),
            ((now.translation - before.translation)[:2], c.shift_sigma * depth),
            ((now.translation - before.translation)[2:], c.depth_sigma * depth),
            (light.ravel(), c.tint_sigma),
        ]
        offset = np.concatenate([values for values, _ in parts]).astype(np.float64)
        precision = np.concatenate([np.full(len(values), sigma**-2) for values, sigma in parts])
        gradient = precision * offset
        # What all channels have in common is no tint.
        common = np.repeat(light.mean(axis=1), 3)
        gradient[-3 * N_BANDS :] += (c.light_sigma**-2 / 3 - c.tint_sigma**-2) * common
        return float(offset @ gradient), precision, gradient

    def _normal_equations(
        self,
        state: State,
        start: State,
        samples: Samples,
        image: Array,
        slopes: Array | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(P, P) matrix and (P,) right side of the step, without damping."""
        residual, jacobian, inside = self._residual.jacobian(state, samples, image, slopes)
        c = self.config
        scaled = (residual / c.pixel_sigma) ** 2
        weight = inside / (1 + scaled.mean(axis=1) / _CAUCHY)  # Cauchy, reweighted
        weight *= c.effective_share * c.samples / max(len(inside), 1) / c.pixel_sigma**2
        root = np.sqrt(weight)[:, None].astype(np.float32)
        flat = (root[:, None] * jacobian).reshape(-1, jacobian.shape[2])
        right = (root * residual).reshape(-1)
        _, precision, gradient = self._prior(state, start)
        free = slice(-jacobian.shape[2], None)  # shape may rest
        matrix = (flat.T @ flat).astype(np.float64) + np.diag(precision[free])
        return matrix, -(flat.T @ right).astype(np.float64) - gradient[free]
