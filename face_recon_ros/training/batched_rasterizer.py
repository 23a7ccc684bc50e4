"""A z-buffer for many pictures at once in plain torch: on a GPU, and on a CPU for tests.

Every triangle is spread over the pixels of its bounding box; those inside it compete for their
pixel by one scattered minimum. The key holds the depth above the triangle's number, so that the
nearest wins, and among equals the first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: A pixel on an edge belongs to both triangles; float32 must not lose it to none.
_EDGE = -1e-6
_NONE = torch.iinfo(torch.int64).max
_LARGEST_FLOAT = 0x7F7FFFFF  # the bits of the largest float32


class BatchFragments(NamedTuple):
    """What the pixels of B pictures see.

    Attributes:
        triangle: (B, S, S) int64 index of the visible triangle, -1 where there is none.
        inverse_depth: (B, S, S) 1 / metres; zero where there is none.
    """

    triangle: Tensor
    inverse_depth: Tensor


@torch.no_grad()
def rasterize_batch(
    points_px: Tensor, depth: Tensor, triangles: Tensor, size: int
) -> BatchFragments:
    """Draws triangles into B z-buffers; both sides are drawn.

    Args:
        points_px: (B, V, 2) pixels, centres at integers.
        depth: (B, V) metres along the optical axis; triangles with a corner at or behind 0, or
            one that is not finite, are left out.
        triangles: (F, 3) vertex indices, or (B, F, 3).
        size: S, pixels per side.
    """
    b, v = depth.shape
    vertices = torch.cat([points_px.float(), 1 / depth.float()[..., None]], 2).flatten(0, 1)
    first = v * torch.arange(b, device=depth.device)[:, None, None]
    corners = vertices[(triangles.expand(b, -1, -1) + first).flatten(0, 1)]  # (BF, 3, 3)
    xy, inverse = corners[..., :2], corners[..., 2]
    low = torch.ceil(xy.amin(1)).clamp(min=0)
    span = torch.floor(xy.amax(1)).clamp(max=size - 1) - low + 1
    area = _cross(xy[:, 1] - xy[:, 0], xy[:, 2] - xy[:, 0])
    drawn = (inverse > 0).all(1) & torch.isfinite(corners).all(2).all(1)
    drawn &= (span > 0).all(1) & (area.abs() > 1e-9)
    rows = torch.nonzero(drawn)[:, 0]
    low, span = low[rows].int(), span[rows].int()
    planes = _planes(corners[rows], area[rows], low)

    count = span[:, 0] * span[:, 1]
    owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
    nth = torch.arange(len(owner), device=rows.device) - (count.cumsum(0) - count)[owner]
    nth, width = nth.int(), span[:, 0][owner]
    down = torch.div(nth, width, rounding_mode="floor")
    across = nth - down * width

    # two barycentric coordinates and the inverse depth are linear over the triangle
    def at(plane: Tensor, owner: Tensor, x: Tensor, y: Tensor) -> Tensor:
        here, right, below = plane
        return torch.addcmul(torch.addcmul(here[owner], right[owner], x), below[owner], y)

    x, y = across.float(), down.float()
    one, two = (at(plane, owner, x, y) for plane in planes[:2])
    kept = torch.nonzero((one >= _EDGE) & (two >= _EDGE) & (one + two <= 1 - _EDGE))[:, 0]
    owner, x, y = owner[kept], x[kept], y[kept]
    near = at(planes[2], owner, x, y)
    x, y = low[owner, 0] + x.int(), low[owner, 1] + y.int()

    faces = triangles.shape[-2]
    row = rows[owner]
    picture = torch.div(row, faces, rounding_mode="floor")
    number = row - picture * faces
    far = (_LARGEST_FLOAT - near.view(torch.int32)).long()
    best = torch.full((b * size * size,), _NONE, device=rows.device)
    best.scatter_reduce_(0, (picture * size + y) * size + x, (far << 32) | number, "amin")
    seen = best < _NONE
    triangle = torch.where(seen, best & 0xFFFFFFFF, -1)
    bits = torch.where(seen, _LARGEST_FLOAT - (best >> 32), 0)
    shape = (b, size, size)
    return BatchFragments(triangle.view(shape), bits.int().view(torch.float32).view(shape))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _planes(corners: Tensor, area: Tensor, low: Tensor) -> list[Tensor]:
    """Value at `low` and slopes right and down, (3, R), of two barycentrics and inverse depth.

    Differences are taken from `low`, a pixel close by, so that float32 is exact enough.
    """
    to = corners[..., :2] - low[:, None]
    barycentric = []
    for k in range(3):
        a, b = to[:, (k + 1) % 3], to[:, (k + 2) % 3]
        here = torch.stack([_cross(a, b), a[:, 1] - b[:, 1], b[:, 0] - a[:, 0]])
        barycentric.append(here / area)
    near = sum(w * corners[:, k, 2] for k, w in enumerate(barycentric))
    return [*barycentric[:2], near]


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
    areas = torch.stack([_cross(j, k), _cross(k, i), _cross(i, j)], 3)
    total = areas.sum(3, keepdim=True)
    total = torch.where(total.abs() < 1e-9, torch.full_like(total, 1e-9), total)
    weights = areas / total / torch.clamp(z, min=1e-3)
    return weights / weights.sum(3, keepdim=True).clamp(min=1e-9)
