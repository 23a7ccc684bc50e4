"""Differentiable rendering of the face over a photograph.

Visibility comes from a z-buffer and is not differentiated; given which triangle a pixel sees,
its barycentric
coordinates (the warp) and its colour (albedo, normals, light) are, as in Deng et al. 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face_recon_ros.training import geometry
from face_recon_ros.training.decoder import FaceDecoder, shade
from face_recon_ros.training.network import Prediction
from face_recon_ros.training.rasterizer import rasterize

#: (V, 2) pixels, (V,) metres, (F, 3), height, width -> fragments with `.triangle`; a GPU
#: rasteriser fits here too.
Rasterizer = Callable[
    [NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], int, int], tuple
]


class FaceRendering(NamedTuple):
    """What the answer looks like.

    Attributes:
        colour: (B, S, S, 3) in [0, 1]; zero where there is no face.
        coverage: (B, S, S) 1 where there is face.
        attention: (B, S, S) the template's skin attention; zero where there is no face.
    """

    colour: Tensor
    coverage: Tensor
    attention: Tensor


def render_face(
    decoder: FaceDecoder, answer: Prediction, size: int, rasterizer: Rasterizer = rasterize
) -> FaceRendering:
    """Renders answers in their crops.

    Args:
        decoder: of the part of the mesh to draw.
        answer: B rows.
        size: S, pixels per side.
        rasterizer: visibility.
    """
    shape = decoder.express(decoder.neutral(answer.identity), answer.expression)
    points = geometry.crop_from_face_points(shape, answer.rotation, answer.translation)
    colours = shade(decoder.albedo(answer.albedo), decoder.normals(points), answer.illumination)
    pixels = geometry.project(points) * size + (size - 1) / 2
    triangle = visible_triangles(pixels, points[..., 2], decoder.triangles, size, rasterizer)
    covered = triangle >= 0
    corners = decoder.triangles[triangle.clamp(min=0)]  # (B, S, S, 3)
    weights = barycentric(pixels, points[..., 2], corners, size)
    values = torch.cat([colours, decoder.skin_attention.expand(len(shape), -1)[..., None]], 2)
    batch = torch.arange(len(shape), device=shape.device)[:, None, None, None]
    image = (values[batch, corners] * weights[..., None]).sum(3) * covered[..., None]
    return FaceRendering(
        torch.clamp(image[..., :3], 0.0, 1.0), covered.to(image.dtype), image[..., 3].detach()
    )


def visible_triangles(
    pixels: Tensor, depth: Tensor, triangles: Tensor, size: int, rasterizer: Rasterizer
) -> Tensor:
    """(B, S, S) index of the triangle each pixel sees, -1 for none; no gradient."""
    faces = triangles.cpu().numpy().astype(np.int32)
    xy = pixels.detach().float().cpu().numpy()
    z = depth.detach().float().cpu().numpy()
    found = [rasterizer(p, d, faces, size, size)[0] for p, d in zip(xy, z, strict=True)]
    return torch.from_numpy(np.stack(found).astype(np.int64)).to(pixels.device)


def barycentric(pixels: Tensor, depth: Tensor, corners: Tensor, size: int) -> Tensor:
    """Perspective-correct barycentric coordinates of every pixel in its triangle, differentiable.

    Args:
        pixels: (B, V, 2).
        depth: (B, V) metres.
        corners: (B, S, S, 3) vertex indices.
        size: S.

    Returns:
        (B, S, S, 3).
    """
    batch = torch.arange(len(pixels), device=pixels.device)[:, None, None, None]
    p, z = pixels[batch, corners], depth[batch, corners]
    axis = torch.arange(size, dtype=pixels.dtype, device=pixels.device)
    here = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    to = p - here[:, :, None]  # from the pixel to the corners
    i, j, k = to.unbind(3)

    def cross(a: Tensor, b: Tensor) -> Tensor:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]

    areas = torch.stack([cross(j, k), cross(k, i), cross(i, j)], 3)
    total = areas.sum(3, keepdim=True)
    total = torch.where(total.abs() < 1e-9, torch.full_like(total, 1e-9), total)
    weights = areas / total / torch.clamp(z, min=1e-3)
    return weights / weights.sum(3, keepdim=True).clamp(min=1e-9)


@torch.no_grad()
def photograph_attention(photograph: Tensor, rendering: FaceRendering) -> Tensor:
    """Skin attention of each photograph: the template's, less where pixels are not like its skin.

    Deng et al. 2019 trained a skin classifier; here every photograph is its own reference: the
    median colour of
    what should surely be skin, and the spread around it. Hands of the same colour pass, hair,
    glasses, masks
    and microphones do not.

    Args:
        photograph: (B, S, S, 3) in [0, 1].
        rendering: of the answer for it.

    Returns:
        (B, S, S) in [0, 1].
    """
    out = rendering.attention.clone()
    for weight, picture in zip(out, photograph, strict=True):
        sure = weight > 0.7
        if int(sure.sum()) < 16:
            continue
        difference = torch.log(picture + 0.05)
        difference = difference - difference[sure].median(0).values
        light = difference.mean(-1)
        tone = (difference - light[..., None]).norm(dim=-1)
        light_spread = light[sure].abs().median() * 1.48 + 0.15
        tone_spread = tone[sure].median() * 1.48 + 0.04
        distance = (light / light_spread).square() + (tone / tone_spread).square()
        weight *= torch.exp(-0.5 * torch.clamp(distance - 4.0, min=0.0))
    return out
