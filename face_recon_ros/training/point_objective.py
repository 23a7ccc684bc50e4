"""All losses of the dense-point network, and the geometry that they share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.rectification import CELLS, Rectifier
from face_recon_ros.training import losses
from face_recon_ros.training.config import PointLossWeights
from face_recon_ros.training.decoder import FaceDecoder
from face_recon_ros.training.point_examples import PointBatch
from face_recon_ros.training.point_fit import Fit, State
from face_recon_ros.training.point_network import DensePoints

#: Displacements wrong by more than this count as if it were this, metres.
_OUTLIER_M = 0.05
#: Makes the negative log-likelihood of millimetres a small number.
_NLL_OFFSET = 10.0


class PointObjective(nn.Module):
    """All losses of a batch."""

    grid_normals: Tensor

    def __init__(self, model: MorphableModel, vertices: NDArray[np.integer]) -> None:
        """Prepares fit and decoder.

        Args:
            model: coarse level, whole head.
            vertices: (P,) that the network finds.
        """
        super().__init__()
        self.fit = Fit(model, vertices)
        self.skin = FaceDecoder(model.subset(FACIAL_SKIN))
        self.register_buffer("grid_normals", torch.from_numpy(Rectifier(model).normals))

    def normals(self, rotation: Tensor) -> Tensor:
        """(B, 3, 3) crop_from_face -> (B, CELLS, CELLS, 3) as `Rectifier.seen_normals`."""
        n = self.grid_normals @ rotation.transpose(1, 2)
        xy = n[..., :2] @ upright_of(rotation).transpose(1, 2)
        return torch.cat([xy, n[..., 2:]], 2).view(len(n), CELLS, CELLS, 3)

    def forward(
        self, answer: DensePoints, batch: PointBatch, *, fit: bool = True
    ) -> dict[str, Tensor]:
        """Losses by name, unweighted; those that go through the fit only if it is asked for."""
        presence = functional.binary_cross_entropy_with_logits(
            answer.presence[:, 0], batch.present
        )
        face = batch.present > 0.5
        batch = PointBatch(*(v[face] for v in batch))
        answer = DensePoints(*(v[face] for v in answer))
        out = {"presence": presence} | self._against_points(answer, batch)
        out |= self._against_coefficients(answer, batch)
        if fit:
            # Half of a batch says enough of the fit; it costs a quarter of the network's step.
            some = slice(0, (len(batch.image) + 1) // 2) if self.training else slice(None)
            out |= self._against_truth(
                DensePoints(*(v[some] for v in answer)), PointBatch(*(v[some] for v in batch))
            )
        return out

    def total(self, values: dict[str, Tensor], weights: PointLossWeights) -> Tensor:
        """Weighted sum; figures without a weight are only reported."""
        known = [getattr(weights, k) * v for k, v in values.items() if hasattr(weights, k)]
        return torch.stack(known).sum()

    def _against_points(self, answer: DensePoints, batch: PointBatch) -> dict[str, Tensor]:
        """Points against where the renderings have them: Gaussian negative log-likelihood."""
        c = torch.cat([batch.identity, batch.expression], 1)
        true = self.fit.mean + (c @ self.fit.basis.flatten(0, 1).T).view(len(c), -1, 3)
        seen = project(placed(true, batch.rotation, batch.translation))
        mean, upright, depth = self._frame(batch)
        wanted = (seen - mean) @ upright.transpose(1, 2) * depth
        squared = (answer.displacement - wanted).square().sum(2)
        bounded = squared.clamp(max=_OUTLIER_M**2)
        nll = bounded * torch.exp(-2 * answer.log_sigma) / 2 + 2 * answer.log_sigma
        return {
            "nll": nll.mean() + _NLL_OFFSET,
            "points_mm": 1e3 * torch.sqrt(squared + 1e-10).mean(),
        }

    def _against_coefficients(self, answer: DensePoints, batch: PointBatch) -> dict[str, Tensor]:
        """What the picture says of the person without the fit."""
        skin = self.skin
        mine, true = skin.neutral(answer.identity), skin.neutral(batch.identity)
        return {
            "direct_shape_mm": losses.shape_distance_mm(mine, true),
            "direct_identity": losses.coefficients(answer.identity, batch.identity),
            "direct_expression": losses.coefficients(answer.expression, batch.expression),
        }

    def _against_truth(self, answer: DensePoints, batch: PointBatch) -> dict[str, Tensor]:
        """What the fit makes of the points, against the people who were rendered."""
        mean, upright, depth = self._frame(batch)
        start = State(
            batch.start_rotation,
            batch.start_translation,
            answer.identity,
            answer.expression.clamp(0, 1),
            batch.reach,
        )
        places = mean + answer.displacement @ upright / depth
        fitted = self.fit(start, places, answer.log_sigma)
        skin = self.skin
        neutral, true_neutral = skin.neutral(fitted.identity), skin.neutral(batch.identity)
        shape = skin.express(neutral, fitted.expression)
        true_shape = skin.express(true_neutral, batch.expression)
        seen = project(placed(shape, fitted.rotation, fitted.translation))
        true_seen = project(placed(true_shape, batch.rotation, batch.translation))
        away = (seen - true_seen) * batch.start_translation[:, None, 2:]
        mean_shape = skin.mean_shape.expand_as(neutral)
        begun = skin.neutral(batch.start_identity)
        return {
            "shape_mm": losses.shape_distance_mm(neutral, true_neutral),
            "identity": losses.coefficients(fitted.identity, batch.identity),
            "expression": losses.coefficients(fitted.expression, batch.expression),
            "expression_mm": losses.vertex_distance_mm(shape - neutral, true_shape - true_neutral),
            "reprojection": torch.sqrt(away.square().sum(2) + 1e-12).mean(),
            "rotation": losses.rotation_geodesic(fitted.rotation, batch.rotation),
            "log_distance": losses.log_distance(fitted.translation, batch.translation),
            # what stands beside them
            "shape_mm_of_mean": losses.shape_distance_mm(mean_shape, true_neutral),
            "shape_mm_of_start": losses.shape_distance_mm(begun, true_neutral),
            "rotation_of_start": losses.rotation_geodesic(batch.start_rotation, batch.rotation),
        }

    def _frame(self, batch: PointBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Of the starts: mean face's points, what turns them upright, depth in metres."""
        rotation, translation = batch.start_rotation, batch.start_translation
        mean = project(placed(self.fit.mean, rotation, translation))
        depth = translation[:, 2].clamp(min=1e-3)
        return mean, upright_of(rotation), depth[:, None, None]


def upright_of(rotation: Tensor) -> Tensor:
    """(B, 2, 2) as `FaceFrame.upright`."""
    up = rotation[:, :2, 2]
    up = up / up.norm(dim=1, keepdim=True).clamp(min=1e-6)
    sine, cosine = up[:, 0], -up[:, 1]
    return torch.stack([cosine, sine, -sine, cosine], 1).view(-1, 2, 2)


def placed(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """(P, 3) or (B, P, 3) face frame -> (B, P, 3) camera frame, metres."""
    return points @ rotation.transpose(1, 2) + translation[:, None]


def project(points: Tensor) -> Tensor:
    """(B, P, 3) in a camera of focal length 1 -> (B, P, 2) x / z, y / z."""
    return points[..., :2] / points[..., 2:].clamp(min=1e-3)
