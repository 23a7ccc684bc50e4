"""From foregrounds to pictures, in batches: what `synthesis.augment` does to one at a time.

Blur and low resolution are separable, so each is a matrix for rows and one for columns.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from face_recon_ros.training.torch_synthesis.drawing import Draw, look_up, pixel_grid

_GREY = (0.3, 0.59, 0.11)
#: JPEG's example tables (ITU-T T.81, annex K), which encoders scale by quality.
_LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 "
    "14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 "
    "49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99 "
)
_CHROMINANCE = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 "
    "24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 "
) + 32 * "99 "


class TorchPictures:
    """Backgrounds, occluders, colours and cameras."""

    def __init__(
        self, backgrounds: list[NDArray[np.uint8]], size: int, device: torch.device
    ) -> None:
        """Prepares what all pictures share.

        Args:
            backgrounds: pictures of one size, (H, W, 3) each.
            size: S, pixels per side; a multiple of 16.
            device: where everything is done.
        """
        self._backgrounds = torch.from_numpy(np.stack(backgrounds)).to(device)
        self._size = size
        self._grid = pixel_grid(size, device)
        self._lenses = [
            torch.from_numpy(bank.astype(np.float32)).to(device)
            for bank in (_low_resolutions(size), _blurs(size), _motions(size))
        ]

    @torch.no_grad()
    def compose(self, rgb: Tensor, alpha: Tensor, draw: Draw) -> Tensor:
        """Training pictures out of foregrounds.

        Args:
            rgb: (B, S, S, 3) in [0, 1].
            alpha: (B, S, S, 1) coverage.
            draw: source of randomness.

        Returns:
            (B, S, S, 3) whole numbers in [0, 255], float32.
        """
        soft = functional.avg_pool2d(alpha.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
        alpha = torch.where(draw.chance(0.5, 1, 1, 1), soft, alpha)
        image = self._background(draw) * (1 - alpha) + rgb * alpha
        some, few = draw.some(0.25)
        if len(some):
            mask, fill = self._occluder(few)
            image[some] += mask * (fill - image[some])
        image = self._colours(image, draw)
        return self._border(self._sensor(image, draw), draw)

    def _background(self, draw: Draw) -> Tensor:
        """(B, S, S, 3), a piece of a background each."""
        count, side, _, _ = self._backgrounds.shape
        piece = draw.uniform(0.3, 1.0, 1, 1, 1) * side
        corner = (side - piece) * draw.uniform(0, 1, 1, 1, 2)
        across = torch.where(
            draw.chance(0.5, 1, 1), self._grid[..., 0], self._size - 1 - self._grid[..., 0]
        )
        grid = torch.stack([across, self._grid[..., 1].expand_as(across)], 3)
        places = corner + (grid + 0.5) / self._size * piece - 0.5
        out = look_up(self._backgrounds[draw.index(count)], places)
        return out / 255 * draw.uniform(0.4, 1.2, 1, 1, 3)

    def _occluder(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """(B, S, S, 1) masks and (B, S, S, 3) colours of hands, ellipses and polygons."""
        size = self._size
        middle = draw.uniform(-0.1, 1.1, 1, 1, 2) * size
        to = self._grid - middle
        thick = draw.uniform(0.05, 0.09, 1, 1) * size / 2
        hand = to.norm(dim=3) - 3.4 * thick
        angle, spread = draw.uniform(0, 2 * math.pi, 1, 1), draw.uniform(0.08, 0.25, 1, 1)
        length = draw.uniform(0.2, 0.4, 1, 1) * size
        fingers = 2 + draw.index(3, 1, 1)
        for k in range(4):
            turned = angle + (k - 1.5) * spread
            along = to[..., 0] * torch.cos(turned) + to[..., 1] * torch.sin(turned)
            reached = along.clamp(min=0).minimum(length)
            off = (to.square().sum(3) - 2 * along * reached + reached.square()).clamp(min=0)
            finger = off.sqrt() - thick
            hand = torch.where(k < fingers, hand.minimum(finger), hand)
        axes = draw.uniform(0.06, 0.28, 1, 1, 2) * size
        c, s = torch.cos(angle), torch.sin(angle)
        turned_to = torch.stack(
            [c * to[..., 0] + s * to[..., 1], c * to[..., 1] - s * to[..., 0]], 3
        )
        ellipse = ((turned_to / axes).norm(dim=3) - 1) * axes.amin(3)
        sides = draw.uniform(0, 2 * math.pi, 5)
        normal = torch.stack([torch.cos(sides), torch.sin(sides)], 2)
        away = draw.uniform(0.04, 0.25, 5) * size
        polygon = (to.flatten(1, 2) @ normal.mT - away[:, None]).amax(2).view_as(hand)
        kind = draw.index(3, 1, 1)
        distance = torch.where(kind == 0, hand, torch.where(kind == 1, ellipse, polygon))
        fill = self._background(draw)
        tone = torch.tensor([0.8, 0.6, 0.5], device=draw.device) * draw.uniform(0.3, 1.2, 1, 1, 1)
        fill = torch.where(kind[..., None] == 0, tone * (1 + 0.1 * (fill - 0.5)), fill)
        return (0.5 - distance).clamp(0, 1)[..., None], fill

    def _colours(self, image: Tensor, draw: Draw) -> Tensor:
        """Exposure, white balance, shadows of roofs and branches, gamma, contrast, grey."""
        cast = torch.where(draw.chance(0.08, 1, 1, 1), 0.3, 0.06)
        image = image * torch.exp(draw.normal(0.18, 1, 1, 1) + cast * draw.normal(1.0, 1, 1, 3))
        some, few = draw.some(0.12)
        if len(some):
            image[some] *= 1 - few.uniform(0.2, 0.75, 1, 1, 1) * self._shade(few)
        gamma = torch.exp(draw.normal(0.25, 1, 1, 1))
        bent = image.clamp(0, 1) ** gamma
        image = torch.where(draw.chance(0.35, 1, 1, 1), bent, image)
        contrast = (image - 0.5) * draw.uniform(0.5, 1.4, 1, 1, 1) + 0.5
        contrast = contrast + draw.normal(0.07, 1, 1, 1)
        image = torch.where(draw.chance(0.3, 1, 1, 1), contrast, image)
        grey = (image * torch.tensor(_GREY, device=image.device)).sum(3, keepdim=True)
        amount = torch.where(draw.chance(0.6, 1, 1, 1), 1.0, draw.uniform(-0.5, 1, 1, 1, 1))
        return image + draw.chance(0.3, 1, 1, 1) * amount * (grey - image)

    def _shade(self, draw: Draw) -> Tensor:
        """(B, S, S, 1) 1 in the shadow of something straight, with soft edges."""
        size = self._size
        middle = draw.uniform(0.1, 0.9, 1, 1, 2) * size
        angle = draw.uniform(0, 2 * math.pi, 1, 1)
        to = self._grid - middle
        across = to[..., 1] * torch.cos(angle) - to[..., 0] * torch.sin(angle)
        width = torch.where(draw.chance(0.6, 1, 1), 2.0, draw.uniform(0.05, 0.4, 1, 1)) * size
        soft = size / 96 * draw.log_uniform(0.4, 5.0, 1, 1) * 2**0.5
        return (torch.erf(across / soft) - torch.erf((across - width) / soft))[..., None] / 2

    def _sensor(self, image: Tensor, draw: Draw) -> Tensor:
        """Low resolution, blur, motion, noise, JPEG; whole numbers in [0, 255]."""
        for bank, share, turned in zip(
            self._lenses, (0.2, 0.15, 0.08), (False, False, True), strict=True
        ):
            some, few = draw.some(share)
            if len(some):
                lens = bank[few.index(len(bank))]
                down, right = lens, lens
                if turned:  # to one side only
                    still = torch.eye(self._size, device=lens.device)
                    first = few.chance(0.5, 1, 1)
                    down, right = torch.where(first, lens, still), torch.where(first, still, lens)
                planes = image[some].permute(0, 3, 1, 2)
                planes = down[:, None] @ planes @ right[:, None].mT
                image[some] = planes.permute(0, 2, 3, 1)
        amount = draw.normal(0.025, 1, 1, 1).abs() * draw.chance(0.35, 1, 1, 1)
        image = image + amount * draw.normal(1.0, *image.shape[1:])
        image = (image.clamp(0, 1) * 255).round()
        some, few = draw.some(0.4)
        if len(some):
            image[some] = jpeg(image[some], few.uniform(25, 95))
        return image

    def _border(self, image: Tensor, draw: Draw) -> Tensor:
        """Some crops reach over the border of the picture, where all is black."""
        size = self._size
        width = (draw.uniform(0.02, 0.45, 1, 1) * size).floor()
        x, y = self._grid.unbind(2)
        side = draw.index(4, 1, 1)
        inward = torch.where(side == 0, y, torch.where(side == 1, size - 1 - y, x))
        inward = torch.where(side == 3, size - 1 - x, inward)
        black = (inward < width) & draw.chance(0.08, 1, 1)
        return torch.where(black[..., None], 0.0, image)


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """What JPEG of these qualities (B,) makes of (B, S, S, 3) in [0, 255]: 4:2:0, 8 x 8 DCT."""
    b, size = image.shape[:2]
    red, green, blue = image.unbind(3)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1)
    chroma = functional.avg_pool2d(chroma, 2)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100

    def coded(planes: Tensor, table: str) -> Tensor:
        steps = torch.tensor([float(v) for v in table.split()], device=image.device).view(8, 8)
        steps = (steps * scale[:, None, None]).round().clamp(1, 255)[:, None, None, :, None]
        side = planes.shape[2]
        dct = _dct(image.device)
        blocks = planes.reshape(b, -1, side // 8, 8, side // 8, 8)
        waves = torch.einsum("ui,bchiwj,vj->bchuwv", dct, blocks, dct)
        waves = (waves / steps).round() * steps
        return torch.einsum("ui,bchuwv,vj->bchiwj", dct, waves, dct).reshape(planes.shape)

    luma = coded(luma[:, None] - 128, _LUMINANCE)[:, 0] + 128
    chroma = functional.interpolate(coded(chroma, _CHROMINANCE), (size, size), mode="bilinear")
    cb, cr = chroma.unbind(1)
    red, blue = luma + 1.402 * cr, luma + 1.772 * cb
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return torch.stack([red, green, blue], 3).round().clamp(0, 255)


def _dct(device: torch.device) -> Tensor:
    """(8, 8) orthonormal DCT-II."""
    k = torch.arange(8, device=device, dtype=torch.float32)
    out = torch.cos(math.pi / 8 * k[:, None] * (k + 0.5)) / 2
    out[0] /= 2**0.5
    return out


def _low_resolutions(size: int) -> NDArray[np.float64]:
    """(N, S, S) shrunk to 0.35 to 0.9 of the size by areas, and enlarged again linearly."""
    edges, out = np.arange(size + 1.0), []
    for small in np.linspace(0.35 * size, 0.9 * size, 24).astype(int):
        cells = edges[: small + 1] * size / small
        overlap = np.minimum(cells[1:, None], edges[1:]) - np.maximum(cells[:-1, None], edges[:-1])
        down = np.maximum(overlap, 0) * small / size
        at = np.clip((edges[:-1] + 0.5) * small / size - 0.5, 0, small - 1)
        up = np.maximum(1 - np.abs(at[:, None] - np.arange(small)), 0)
        out.append(up @ down)
    return np.stack(out)


def _blurs(size: int) -> NDArray[np.float64]:
    """(N, S, S) Gaussians of 0.3 to 1.2 pixels in 64."""
    at = np.arange(size)
    out = [
        np.exp(-0.5 * np.square((at[:, None] - at) / (size / 64 * sigma)))
        for sigma in np.linspace(0.3, 1.2, 12)
    ]
    return np.stack([m / m.sum(1, keepdims=True) for m in out])


def _motions(size: int) -> NDArray[np.float64]:
    """(4, S, S) means of 3 to 6 neighbours."""
    at = np.arange(size)
    away = at[:, None] - at
    out = [(away > -length / 2) & (away <= length / 2) for length in range(3, 7)]
    return np.stack([m / m.sum(1, keepdims=True) for m in out])
