"""Random numbers and pictures in batches, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


class Draw:
    """Random tensors of one generator.

    Attributes:
        device: where they are.
        batch: B, the first size of what is drawn.
    """

    def __init__(self, device: torch.device, batch: int, seed: int) -> None:
        """Starts the generator."""
        self.device, self.batch = device, batch
        self._generator = torch.Generator(device).manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape) between two numbers."""
        out = torch.rand(self.batch, *shape, device=self.device, generator=self._generator)
        return low + (high - low) * out

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape) whose logarithm is uniform."""
        return low * (high / low) ** self.uniform(0, 1, *shape)

    def normal(self, deviation: float, *shape: int) -> Tensor:
        """(B, *shape) of mean 0."""
        out = torch.randn(self.batch, *shape, device=self.device, generator=self._generator)
        return deviation * out

    def chance(self, share: float, *shape: int) -> Tensor:
        """(B, *shape) bool, true with this probability."""
        return self.uniform(0, 1, *shape) < share

    def index(self, count: int, *shape: int) -> Tensor:
        """(B, *shape) int64 in [0, count)."""
        return (self.uniform(0, 1, *shape) * count).long().clamp(max=count - 1)

    def some(self, share: float) -> tuple[Tensor, Draw]:
        """Rows of the batch that an effect is for, as many each time, and what draws for them.

        Returns:
            (round(share B),) int64 indices, and a `Draw` of that many.
        """
        count = round(share * self.batch)
        order = torch.rand(self.batch, device=self.device, generator=self._generator).argsort()
        some = Draw.__new__(Draw)
        some.device, some.batch, some._generator = self.device, count, self._generator
        return order[:count], some


def pixel_grid(size: int, device: torch.device) -> Tensor:
    """(S, S, 2) column and row of every pixel."""
    axis = torch.arange(size, device=device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2)


def look_up(pictures: Tensor, index: Tensor, places: Tensor, *, black: bool = False) -> Tensor:
    """Bilinear samples of pictures out of a bank.

    Args:
        pictures: (N, H, W, C) of any type.
        index: (B,) which of them each row is taken from.
        places: (B, H', W', 2) column and row.
        black: outside a picture is nothing; else its border goes on.

    Returns:
        (B, H', W', C) float32.
    """
    n, height, width, channels = pictures.shape
    flat = pictures.reshape(n * height * width, channels)
    low = torch.floor(places)
    part = places - low
    column, row = low.long().unbind(3)
    first = index.view(-1, 1, 1) * height
    out = torch.zeros((), device=places.device)
    for down in (0, 1):
        for right in (0, 1):
            weight = part[..., 0] if right else 1 - part[..., 0]
            weight = weight * (part[..., 1] if down else 1 - part[..., 1])
            x, y = column + right, row + down
            if black:
                weight = weight * ((x >= 0) & (y >= 0) & (x < width) & (y < height))
            at = (first + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
            out = out + flat[at].float() * weight[..., None]
    return out
