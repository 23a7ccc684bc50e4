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
from face_recon_ros.training.batched_rasterizer import barycentric, rasterize_batch
from face_recon_ros.training.decoder import FaceDecoder, shade
from face_recon_ros.training.network import Prediction
from face_recon_ros.training.rasterizer import rasterize

#: (V, 2) pixels, (V,) metres, (F, 3), height, width -> fragments with `.triangle`.
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
    decoder: FaceDecoder, answer: Prediction, size: int, rasterizer: Rasterizer | None = None
) -> FaceRendering:
    """Renders answers in their crops.

    Args:
        decoder: of the part of the mesh to draw.
        answer: B rows.
        size: S, pixels per side.
        rasterizer: of one face on the CPU; None: the fastest for where `decoder` is.
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
    pixels: Tensor,
    depth: Tensor,
    triangles: Tensor,
    size: int,
    rasterizer: Rasterizer | None = None,
) -> Tensor:
    """(B, S, S) index of the triangle each pixel sees, -1 for none; no gradient.

    Without a rasteriser: all faces at once on a GPU, one after the other on a CPU.
    """
    if rasterizer is None and pixels.is_cuda:
        return rasterize_batch(pixels, depth, triangles, size).triangle
    one = rasterizer or rasterize
    faces = triangles.cpu().numpy().astype(np.int32)
    xy = pixels.detach().float().cpu().numpy()
    z = depth.detach().float().cpu().numpy()
    found = [one(p, d, faces, size, size)[0] for p, d in zip(xy, z, strict=True)]
    return torch.from_numpy(np.stack(found).astype(np.int64)).to(pixels.device)


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
