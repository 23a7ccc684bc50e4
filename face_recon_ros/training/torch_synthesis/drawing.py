"""Random numbers and pictures in batches, on any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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


def look_up(pictures: Tensor, places: Tensor, *, black: bool = False) -> Tensor:
    """Bilinear samples of pictures, one for each row of the batch.

    Args:
        pictures: (B, H, W, C) of any type.
        places: (B, H', W', 2) column and row.
        black: outside a picture is nothing; else its border goes on.

    Returns:
        (B, H', W', C) float32.
    """
    height, width = pictures.shape[1:3]
    size = torch.tensor([width, height], device=places.device)
    out = functional.grid_sample(
        pictures.permute(0, 3, 1, 2).float(),
        (2 * places + 1) / size - 1,
        padding_mode="zeros" if black else "border",
        align_corners=False,
    )
    return out.permute(0, 2, 3, 1)
