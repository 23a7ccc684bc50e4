"""The face model in torch: coefficients -> vertices, normals, colours; differentiable."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from face_recon_ros.core.illumination import GAMMA, MIN_SHADING, sh_bands
from face_recon_ros.core.morphable_model import MorphableModel


class FaceDecoder(nn.Module):
    """Batched counterpart of `core.morphable_model`: same results, any part of the mesh."""

    mean_shape: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    mean_albedo: Tensor
    albedo_basis: Tensor
    triangles: Tensor
    skin_attention: Tensor
    symmetry: Tensor

    def __init__(self, model: MorphableModel) -> None:
        """Takes the arrays of `model`."""
        super().__init__()
        for name in (
            "mean_shape",
            "identity_basis",
            "expression_basis",
            "mean_albedo",
            "albedo_basis",
            "skin_attention",
        ):
            value = torch.from_numpy(np.ascontiguousarray(getattr(model, name), np.float32))
            self.register_buffer(name, value, persistent=False)
        for name in ("triangles", "symmetry"):
            value = torch.from_numpy(np.ascontiguousarray(getattr(model, name), np.int64))
            self.register_buffer(name, value, persistent=False)

    def neutral(self, identity: Tensor) -> Tensor:
        """(B, K_id) -> (B, V, 3) metres, face frame."""
        return self.mean_shape + (identity @ self.identity_basis.T).view(len(identity), -1, 3)

    def express(self, neutral: Tensor, expression: Tensor) -> Tensor:
        """(B, V, 3), (B, K_exp) -> (B, V, 3) metres, face frame."""
        return neutral + (expression @ self.expression_basis.T).view_as(neutral)

    def albedo(self, albedo: Tensor) -> Tensor:
        """(B, K_alb) -> (B, V, 3) sRGB-encoded reflectance in [0, 1]."""
        offset = (albedo @ self.albedo_basis.T).view(len(albedo), -1, 3)
        return torch.clamp(self.mean_albedo + offset, 0.0, 1.0)

    def normals(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) -> (B, V, 3) area-weighted unit normals, same frame."""
        i, j, k = self.triangles.T
        a, b, c = vertices[:, i], vertices[:, j], vertices[:, k]
        faces = torch.linalg.cross(b - a, c - a)
        out = torch.zeros_like(vertices)
        for corner in (i, j, k):
            out = out.index_add(1, corner, faces)
        return nn.functional.normalize(out, dim=2, eps=1e-20)


def sh_basis(normals: Tensor) -> Tensor:
    """(..., 3) unit normals, crop camera frame -> (..., 9), as `core.illumination.sh_basis`."""
    x, y, z = normals.unbind(-1)
    return torch.stack(sh_bands(torch.ones_like(x), x, y, z), -1)


def shade(albedo: Tensor, normals: Tensor, illumination: Tensor) -> Tensor:
    """Colour of lit skin, not clipped above 1.

    Args:
        albedo: (B, V, 3) sRGB-encoded.
        normals: (B, V, 3) crop camera frame.
        illumination: (B, 9, 3) linear light.

    Returns:
        (B, V, 3) sRGB-encoded.
    """
    shading = torch.clamp(sh_basis(normals) @ illumination, min=MIN_SHADING)
    return albedo * shading ** (1.0 / GAMMA)
