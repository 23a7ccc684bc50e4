"""All losses of the dense-point network, and the geometry that they share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from face_recon_ros.core.crop_pose import CROP_FOCAL
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.rectification import CELLS, Rectifier
from face_recon_ros.training import losses
from face_recon_ros.training.config import PointLossWeights
from face_recon_ros.training.decoder import FaceDecoder
from face_recon_ros.training.point_examples import PointBatch
from face_recon_ros.training.point_fit import Fit
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
        seen = project(true, batch.rotation, batch.translation)
        mean, upright, unit = self._frame(batch)
        wanted = (seen - mean) @ upright.transpose(1, 2) / unit
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
        mean, upright, unit = self._frame(batch)
        rotation, translation, identity, expression = self.fit(
            (
                batch.start_rotation,
                batch.start_translation,
                answer.identity,
                answer.expression.clamp(0, 1),
            ),
            mean + answer.displacement @ upright * unit,
            answer.log_sigma,
        )
        skin = self.skin
        neutral, true_neutral = skin.neutral(identity), skin.neutral(batch.identity)
        shape = skin.express(neutral, expression)
        true_shape = skin.express(true_neutral, batch.expression)
        seen = project(shape, rotation, translation)
        true_seen = project(true_shape, batch.rotation, batch.translation)
        mean_shape = skin.mean_shape.expand_as(neutral)
        start = skin.neutral(batch.start_identity)
        return {
            "shape_mm": losses.shape_distance_mm(neutral, true_neutral),
            "identity": losses.coefficients(identity, batch.identity),
            "expression": losses.coefficients(expression, batch.expression),
            "expression_mm": losses.vertex_distance_mm(shape - neutral, true_shape - true_neutral),
            "reprojection": torch.sqrt((seen - true_seen).square().sum(2) + 1e-12).mean(),
            "rotation": losses.rotation_geodesic(rotation, batch.rotation),
            "log_distance": losses.log_distance(translation, batch.translation),
            # what stands beside them
            "shape_mm_of_mean": losses.shape_distance_mm(mean_shape, true_neutral),
            "shape_mm_of_start": losses.shape_distance_mm(start, true_neutral),
            "rotation_of_start": losses.rotation_geodesic(batch.start_rotation, batch.rotation),
        }

    def _frame(self, batch: PointBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Of the starts: mean face's points, what turns them upright, crop sides per metre."""
        unit = CROP_FOCAL / batch.start_translation[:, 2]
        points = self.fit.mean.expand(len(unit), -1, 3)
        mean = project(points, batch.start_rotation, batch.start_translation)
        return mean, upright_of(batch.start_rotation), unit[:, None, None]


def upright_of(rotation: Tensor) -> Tensor:
    """(B, 2, 2) as `FaceFrame.upright`."""
    up = rotation[:, :2, 2]
    up = up / up.norm(dim=1, keepdim=True).clamp(min=1e-6)
    sine, cosine = up[:, 0], -up[:, 1]
    return torch.stack([cosine, sine, -sine, cosine], 1).view(-1, 2, 2)


def project(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """(B, P, 3) face frame -> (B, P, 2) crop sides from the middle."""
    x = points @ rotation.transpose(1, 2) + translation[:, None]
    return CROP_FOCAL * x[..., :2] / x[..., 2:].clamp(min=1e-3)
