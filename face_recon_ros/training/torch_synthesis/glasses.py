"""Glasses on rendered heads: pixels' rays meet the planes of lenses and temples."""

from __future__ import annotations

import torch
from torch import Tensor

from face_recon_ros.training.torch_synthesis.drawing import Draw, pixel_grid
from face_recon_ros.training.torch_synthesis.view import View

#: Where temples end, over the ears: metres behind the sellion and aside.
_EAR_X, _EAR_Y = -0.095, 0.078
#: A frame this far behind a surface is still seen, metres.
_BIAS_M = 0.008


def draw_glasses(
    rgb: Tensor,
    alpha: Tensor,
    inverse_depth: Tensor,
    eyes: Tensor,
    front: Tensor,
    view: View,
    px_per_side: float,
    draw: Draw,
) -> tuple[Tensor, Tensor]:
    """Puts glasses on all.

    Args:
        rgb: (B, S, S, 3).
        alpha: (B, S, S, 1).
        inverse_depth: (B, S, S) of what the pixels see.
        eyes: (B, 2, 3) middles of the right and the left eyeball, face frame.
        front: (B,) x of their foremost points.
        view: of the heads.
        px_per_side: pixels in a crop's side.
        draw: source of randomness.

    Returns:
        The same with glasses: rgb, alpha.
    """
    b, size = inverse_depth.shape[:2]
    seen = (pixel_grid(size, rgb.device) - (size - 1) / 2) / px_per_side
    rays = view.rays(seen.view(1, -1, 2).expand(b, -1, -1))
    direction = rays @ view.rotation  # face frame; depth grows by 1 along it
    eye = -(view.translation[:, None] @ view.rotation)
    x = (front + draw.uniform(0.012, 0.02))[:, None]
    near = inverse_depth.flatten(1)

    def meet(axis: int, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Where rays meet a plane: (B, S S, 3) metres, and whether it is visible there."""
        slope = direction[..., axis]
        far = (offset - eye[..., axis]) / torch.where(slope.abs() < 1e-6, 1e-6, slope)
        return eye + far[..., None] * direction, (far > 0) & ((far - _BIAS_M) * near <= 1)

    half_w, half_h = draw.uniform(0.021, 0.031, 1), draw.uniform(0.014, 0.026, 1)
    power, drop = draw.uniform(2, 5, 1), draw.uniform(-0.008, 0.004, 1)
    depth = view.translation[:, 2:]
    pixel = depth / (view.focal[:, None] * px_per_side)  # metres
    width = (draw.uniform(0.4, 2.6, 1) * size / 288).clamp(min=0.5) * pixel  # half of it
    points, visible = meet(0, x)
    _, y, z = points.unbind(2)
    lens, rim = torch.zeros_like(near), torch.zeros_like(near)
    for centre in eyes.unbind(1):
        dy, dz = (y - centre[:, 1:2]) / half_w, (z - centre[:, 2:] - drop) / half_h
        radius = (dy.abs() ** power + dz.abs() ** power + 1e-9) ** (1 / power)
        off = (radius - 1).abs() * torch.minimum(half_w, half_h)
        lens = torch.maximum(lens, (radius < 1).float())
        rim = torch.maximum(rim, _within(off, width, pixel))
    inner = eyes[..., 1].abs().amin(1, keepdim=True) - half_w
    bridge = _within((z - eyes[..., 2].mean(1, keepdim=True) - drop).abs(), width, pixel)
    rim = torch.maximum(rim, bridge * (y.abs() < inner)) * visible
    lens = lens * visible * alpha.flatten(1)
    for side, centre in zip((-1, 1), eyes.unbind(1), strict=True):
        hinge = (centre[:, 1:2].abs() + half_w).clamp(max=_EAR_Y)
        points, visible = meet(1, side * (hinge + _EAR_Y) / 2)
        height = centre[:, 2:] + 0.004
        arm = _within((points[..., 2] - height).abs(), width, pixel)
        arm = arm * (points[..., 0] < x) * (points[..., 0] > _EAR_X) * visible
        rim = torch.maximum(rim, arm)

    dark = draw.chance(0.3, 1, 1)
    tint = torch.where(dark, draw.uniform(0.75, 1, 1, 1), draw.uniform(0, 0.2, 1, 1))
    glass = torch.where(dark, draw.uniform(0, 0.25, 1, 3), draw.uniform(0, 1, 1, 3))
    shine = (pixel_grid(size, rgb.device)[..., 0].flatten() / size + draw.uniform(0, 1, 1)) % 1
    shine = shine.square() * draw.uniform(0.1, 0.7, 1) * draw.chance(0.25, 1)
    frame = draw.uniform(0, 1, 1, 3) * torch.tensor([0.15, 0.4, 1.0], device=rgb.device)[
        draw.index(3)
    ].view(-1, 1, 1)
    out = rgb.flatten(1, 2)
    out = out + (lens[..., None] * tint) * (glass - out) + (lens * shine)[..., None]
    out = out + rim[..., None] * (frame - out)
    covered = torch.maximum(alpha.flatten(1), rim)
    return out.view_as(rgb), covered.view_as(alpha)


def _within(distance: Tensor, half: Tensor, pixel: Tensor) -> Tensor:
    """How much of a pixel lies within `half` of a line, all in metres."""
    return ((half - distance) / pixel + 0.5).clamp(0, 1)
