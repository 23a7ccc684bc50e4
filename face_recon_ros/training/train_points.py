"""Trains the dense-point network: one visible loop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from face_recon_ros.core.crop_pose import CROP_FOCAL
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.rectification import Rectifier
from face_recon_ros.training import losses
from face_recon_ros.training.decoder import FaceDecoder
from face_recon_ros.training.point_examples import PointBatch
from face_recon_ros.training.point_network import DensePoints, Fit


class PointObjective(nn.Module):
    """All losses of the dense-point network."""

    def __init__(self, model: MorphableModel, vertices: np.ndarray) -> None:
        super().__init__()
        self.fit = Fit(model, vertices)
        self.skin = FaceDecoder(model.subset(FACIAL_SKIN))
        self.register_buffer("grid_normals", torch.from_numpy(Rectifier(model).normals))

    def normals(self, rotation: Tensor) -> Tensor:
        """(B, CELLS, CELLS, 3) as `Rectifier.seen_normals`."""
        n = self.grid_normals @ rotation.transpose(1, 2)
        upright = upright_of(rotation)
        side = int(len(self.grid_normals) ** 0.5)
        xy = n[..., :2] @ upright.transpose(1, 2)
        return torch.cat([xy, n[..., 2:]], 2).view(len(n), side, side, 3)

    def forward(
        self, answer: DensePoints, batch: PointBatch, *, fit: bool = True
    ) -> dict[str, Tensor]:
        """Losses by name, unweighted; those that go through the fit only if it is asked for."""
        face = batch.present > 0.5
        out = {
            "presence": functional.binary_cross_entropy_with_logits(
                answer.presence[:, 0], batch.present
            )
        }
        rows = [v[face] for v in batch]
        b = PointBatch(*rows)
        displacement, log_sigma = answer.displacement[face], answer.log_sigma[face]
        upright, unit = upright_of(b.start_rotation), CROP_FOCAL / b.start_translation[:, 2]
        mean = project(
            self.fit.mean.expand(len(unit), -1, 3), b.start_rotation, b.start_translation
        )
        c = torch.cat([b.identity, b.expression], 1)
        true = self.fit.mean + (c @ self.fit.basis.flatten(0, 1).T).view(len(c), -1, 3)
        seen = project(true, b.rotation, b.translation)
        wanted = (seen - mean) @ upright.transpose(1, 2) / unit[:, None, None]
        error = displacement - wanted
        squared = error.square().sum(2)
        sigma = log_sigma
        out["nll"] = (
            squared.clamp(max=0.05**2) * torch.exp(-2 * sigma) / 2 + 2 * sigma
        ).mean() + 10.0
        out["points_mm"] = 1e3 * torch.sqrt(squared + 1e-10).mean()
        if not fit:
            return out
        some = slice(0, max(1, (len(unit) + 1) // 2)) if self.training else slice(None)
        found = (mean + displacement @ upright * unit[:, None, None])[some]
        b, sigma = PointBatch(*(v[some] for v in b)), sigma[some]
        r, t, identity, expression = self.fit(
            (b.start_rotation, b.start_translation, b.start_identity, b.start_expression),
            found,
            sigma,
        )
        skin = self.skin
        neutral, true_neutral = skin.neutral(identity), skin.neutral(b.identity)
        shape, true_shape = (
            skin.express(neutral, expression),
            skin.express(true_neutral, b.expression),
        )
        out["shape_mm"] = losses.shape_distance_mm(neutral, true_neutral)
        out["mean_mm"] = losses.shape_distance_mm(skin.mean_shape.expand_as(neutral), true_neutral)
        out["start_mm"] = losses.shape_distance_mm(skin.neutral(b.start_identity), true_neutral)
        out["identity"] = losses.coefficients(identity, b.identity)
        out["expression"] = losses.coefficients(expression, b.expression)
        out["expression_start"] = losses.coefficients(b.start_expression, b.expression)
        out["expression_mm"] = losses.vertex_distance_mm(
            shape - neutral, true_shape - true_neutral
        )
        two = project(shape, r, t) - project(true_shape, b.rotation, b.translation)
        out["reprojection"] = torch.sqrt(two.square().sum(2) + 1e-12).mean()
        out["rotation"] = losses.rotation_geodesic(r, b.rotation)
        out["log_distance"] = losses.log_distance(t, b.translation)
        out["rotation_start"] = losses.rotation_geodesic(b.start_rotation, b.rotation)
        return out


WEIGHTS = {
    "nll": 1.0,
    "points_mm": 0.5,
    "presence": 0.5,
    "shape_mm": 1.0,
    "identity": 0.2,
    "expression": 5.0,
    "expression_mm": 0.3,
    "reprojection": 40.0,
    "rotation": 4.0,
    "log_distance": 3.0,
}


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
