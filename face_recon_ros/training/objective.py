"""What the regression network is trained for: all losses of a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from face_recon_ros.core.morphable_model import FACE, FACIAL_SKIN, MorphableModel
from face_recon_ros.training import geometry, losses
from face_recon_ros.training.config import TrainConfig
from face_recon_ros.training.data import Batch
from face_recon_ros.training.decoder import FaceDecoder, shade
from face_recon_ros.training.embedding import aligned_faces, load_embedding
from face_recon_ros.training.network import Prediction
from face_recon_ros.training.renderer import photograph_attention, render_face


class Objective(nn.Module):
    """All losses of a batch."""

    def __init__(self, config: TrainConfig, model: MorphableModel) -> None:
        """Prepares what `config` weighs above zero.

        Args:
            config: weights, and the embedding network's file.
            model: face model, coarse, whole head.
        """
        super().__init__()
        self._weights = config.weights
        self._skin = FaceDecoder(model.subset(FACIAL_SKIN))
        part = model.subset(FACE)
        self.face = FaceDecoder(part)
        self._symmetry = torch.from_numpy(part.symmetry.astype(np.int64))
        self._eyes = torch.from_numpy(part.interpupillary.astype(np.int64))
        self._embedding: nn.Module | None = None
        if config.weights.perception > 0:
            self._embedding = load_embedding(config.embedding)

    def forward(self, answer: Prediction, batch: Batch) -> dict[str, Tensor]:
        """Losses by the names of `LossWeights`, unweighted."""
        out = self.against_labels(answer, batch)
        photographs = torch.nonzero(batch.synthetic < 0.5)[:, 0]
        if len(photographs) and self._renders():
            rows = Prediction(*(v[photographs] for v in answer))
            out |= self.against_photographs(
                rows, batch.image[photographs].float() / 255, batch.person[photographs]
            )
        return out

    def total(self, values: dict[str, Tensor]) -> Tensor:
        """Weighted sum."""
        return torch.stack([getattr(self._weights, k) * v for k, v in values.items()]).sum()

    def _renders(self) -> bool:
        w = self._weights
        return max(w.photometric, w.perception, w.same_person) > 0

    def against_labels(self, answer: Prediction, batch: Batch) -> dict[str, Tensor]:
        """Renderings against what they were rendered from, photographs against a teacher."""
        synthetic, photograph = batch.synthetic, 1 - batch.synthetic
        coloured = synthetic * batch.colour_known
        skin = self._skin
        neutral, true_neutral = skin.neutral(answer.identity), skin.neutral(batch.identity)
        shape = skin.express(neutral, answer.expression)
        true_shape = skin.express(true_neutral, batch.expression)
        points = geometry.crop_from_face_points(shape, answer.rotation, answer.translation)
        true_points = geometry.crop_from_face_points(true_shape, batch.rotation, batch.translation)
        normals = skin.normals(true_points)
        colours = shade(skin.albedo(answer.albedo), normals, answer.illumination)
        true_colours = shade(skin.albedo(batch.albedo), normals, batch.illumination)
        error_mm = 1e3 * (neutral - true_neutral).norm(dim=2).mean(1)
        out = {
            "reprojection": losses.reprojection(points, true_points, synthetic),
            "neutral_mm": losses.vertex_distance_mm(neutral, true_neutral, synthetic),
            "shape_mm": losses.shape_distance_mm(neutral, true_neutral, synthetic),
            "expression_mm": losses.vertex_distance_mm(
                shape - neutral, true_shape - true_neutral, synthetic
            ),
            "identity": losses.coefficients(answer.identity, batch.identity, synthetic),
            "expression": losses.coefficients(answer.expression, batch.expression, synthetic),
            "albedo": losses.coefficients(answer.albedo, batch.albedo, coloured),
            "rotation": losses.rotation_geodesic(
                geometry.rotation_from_vector(answer.rotation),
                geometry.rotation_from_vector(batch.rotation),
                synthetic,
            ),
            "log_distance": losses.log_distance(answer.translation, batch.translation, synthetic),
            "colour": losses.vertex_colour(colours, true_colours, coloured),
            "illumination": losses.coefficients(answer.illumination, batch.illumination, coloured),
            "confidence": losses.confidence(answer.identity_confidence, error_mm, synthetic),
        }
        if bool((photograph > 0).any()):
            out["equivariance"] = losses.reprojection(points, true_points, photograph)
            out["equivariance_mm"] = losses.vertex_distance_mm(neutral, true_neutral, photograph)
            out["equivariance_expression"] = losses.coefficients(
                answer.expression, batch.expression, photograph
            )
        return out

    def against_photographs(
        self, answer: Prediction, photograph: Tensor, person: Tensor
    ) -> dict[str, Tensor]:
        """Photographs against renderings of the answer, and against what faces are like.

        Args:
            answer: B rows.
            photograph: (B, S, S, 3) in [0, 1].
            person: (B,) who it is; below 0 unknown.
        """
        rendering = render_face(self.face, answer, photograph.shape[1])
        colour = rendering.colour
        grey = (photograph.amax(3) - photograph.amin(3)).mean((1, 2)) < 3 / 255
        luminance = colour @ colour.new_tensor([0.299, 0.587, 0.114])
        colour = torch.where(
            grey[:, None, None, None], luminance[..., None].expand_as(colour), colour
        )
        attention = photograph_attention(photograph, rendering)
        albedo = self.face.albedo(answer.albedo)
        out = {
            "photometric": losses.photometric(colour, photograph, attention),
            "identity_prior": losses.normal_prior(answer.identity),
            "expression_prior": losses.activation_prior(answer.expression),
            "albedo_prior": losses.normal_prior(answer.albedo),
            "albedo_symmetry": losses.albedo_symmetry(albedo, self._symmetry),
            "albedo_variance": losses.albedo_variance(albedo, self.face.skin_attention),
            "white_light": losses.white_light(answer.illumination),
            "same_person": losses.same_person(answer.identity, person),
        }
        if self._embedding is not None:
            covered = rendering.coverage[..., None]
            pasted = photograph * (1 - covered) + colour * covered
            faces = [
                self._embedding(aligned_faces(images, self.face, self._eyes, answer))
                for images in (pasted, photograph)
            ]
            out["perception"] = losses.perception(faces[0], faces[1].detach())
        return out
