"""The dense-point network: a rectified face in, where the face model's points lie out.

It sees the face through the mean face (`core.rectification`), so that place and attitude are
known before it begins and each of its cells always shows the same part of the face. Each point has
a read-out of its own; a fully connected layer adds what depends on the whole face.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.rectification import CELLS, Rectifier, grid_coordinates

#: Regions of the mesh that have points, and how much denser than skin they lie there.
_DENSITY = {"face": 1.0, "brow": 1.4, "nostril": 1.4, "eyeball": 1.6, "eyelid": 2.4}
_DENSITY |= {"lip_upper": 2.2, "lip_lower": 2.2}
#: Points lie on the outermost surface, or this far below it, metres.
_BURIED_M = 0.005
#: The unit of the network's displacements, metres, and the range of its log standard deviations.
UNIT_M = 0.01
_LOG_SIGMA = (-4.0, 1.5)


class DensePoints(NamedTuple):
    """The network's answer for B faces.

    Attributes:
        displacement: (B, P, 2) metres, in the frame of `core.rectification.FaceFrame`.
        log_sigma: (B, P) natural logarithm of their standard deviation in metres.
        presence: (B, 1) logit: is it a face.
        identity: (B, K_id) as the picture alone says, without the fit.
        expression: (B, K_exp) likewise.
    """

    displacement: Tensor
    log_sigma: Tensor
    presence: Tensor
    identity: Tensor
    expression: Tensor


def choose_points(model: MorphableModel, count: int) -> NDArray[np.int32]:
    """Vertices spread over the face, denser where expression shows; alike on both sides.

    Args:
        model: coarse level, whole head.
        count: about how many.

    Returns:
        (P,) vertex indices.
    """
    mean = model.mean_shape.astype(np.float64)
    density = np.zeros(len(mean))
    for name, value in _DENSITY.items():
        if name in model.region_names:
            density[model.regions == model.region_names.index(name)] = value
    grid = Rectifier(model).points.reshape(CELLS, CELLS, 3)
    column, row = np.rint(grid_coordinates(mean)).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < CELLS) & (row < CELLS)
    surface = grid[row.clip(0, CELLS - 1), column.clip(0, CELLS - 1)]
    axis = np.array([-0.095, 0.0])
    depth = np.hypot(*(surface[:, :2] - axis).T) - np.hypot(*(mean[:, :2] - axis).T)
    lids = np.isin(
        model.regions,
        [i for i, n in enumerate(model.region_names) if n in ("eyelid", "nostril", "eyeball")],
    )
    usable = inside & (density > 0) & ((depth < _BURIED_M) | (lids & (depth < 0.012)))
    half = np.flatnonzero(usable & (mean[:, 1] >= -1e-6) & (model.symmetry >= 0))
    chosen = [int(half[np.abs(mean[half]).sum(1).argmin()])]
    away = np.full(len(half), np.inf)
    while True:
        gap = np.linalg.norm(mean[half] - mean[chosen[-1]], axis=1) * density[half]
        away = np.minimum(away, gap)
        both = set(chosen) | {int(model.symmetry[v]) for v in chosen}
        if len(both) >= count or not away.max() > 0:
            return np.array(sorted(both), np.int32)
        chosen.append(int(half[away.argmax()]))


def _conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class PointNetwork(nn.Module):
    """Rectified pictures in, dense points out."""

    sample_index: Tensor
    sample_weight: Tensor

    def __init__(
        self,
        places: NDArray[np.floating],
        sizes: tuple[int, int],
        width: int = 48,
        hidden: int = 256,
    ) -> None:
        """Builds the network.

        Args:
            places: (P, 2) column and row of each point in the grid.
            sizes: K_id and K_exp of the face model.
            width: channels at the grid's resolution; the depths below have twice and thrice.
            hidden: of the fully connected layers.
        """
        super().__init__()
        p = len(places)
        w = width
        self.stem = nn.Sequential(_conv(3, 32, 5, 2), _conv(32, w, 3, 2))
        self.fine = nn.Sequential(_conv(w + 3, w), _Residual(w))
        self.middle = nn.Sequential(_conv(w, 2 * w, 3, 2), _Residual(2 * w))
        self.coarse = nn.Sequential(_conv(2 * w, 3 * w, 3, 2), _Residual(3 * w))
        flat = 3 * w * (CELLS // 4) ** 2
        self.whole = nn.Sequential(
            nn.Linear(flat, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)
        )
        # A cell always shows the same part of the face: what is expected there is learned.
        self.place = nn.ParameterList(
            torch.zeros(channels, CELLS // shrink, CELLS // shrink)
            for channels, shrink in ((w, 1), (2 * w, 2), (3 * w, 4), (2 * w, 2), (w, 1))
        )
        self.to_middle = nn.Conv2d(3 * w, 2 * w, 1)
        self.whole_to_middle = nn.Linear(hidden, 2 * w)
        self.up_middle = _conv(2 * w, 2 * w)
        self.to_fine = nn.Conv2d(2 * w, w, 1)
        self.up_fine = _conv(w, w)
        self.local = nn.Parameter(torch.randn(p, w, 3) * 0.02)
        self.local_bias = nn.Parameter(torch.tensor([0.0, 0.0, -0.7]).repeat(p, 1))
        self.whole_points = nn.Linear(hidden, 3 * p)
        self.presence = nn.Linear(hidden, 1)
        self.sizes = sizes
        self.person = nn.Sequential(
            nn.Linear(flat, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)
        )
        self.correction = nn.Linear(hidden + sum(sizes), sum(sizes))
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)
        nn.init.normal_(self.whole_points.weight, std=0.01)
        nn.init.zeros_(self.whole_points.bias)
        index, weight = _bilinear(np.asarray(places, np.float64))
        self.register_buffer("sample_index", torch.from_numpy(index))
        self.register_buffer("sample_weight", torch.from_numpy(weight))

    def forward(self, image: Tensor, normals: Tensor, coefficients: Tensor) -> DensePoints:
        """Finds the points.

        Args:
            image: (B, RECTIFIED_PX, RECTIFIED_PX, 3) uint8 or float RGB in [0, 255].
            normals: (B, CELLS, CELLS, 3) of the mean face there.
            coefficients: (B, K_id + K_exp) the regressor's answer.
        """
        x = image.to(self.local.dtype).permute(0, 3, 1, 2) / 64 - 2
        seen = normals.permute(0, 3, 1, 2)
        place = self.place
        fine = _with_place(self.fine, torch.cat([self.stem(x), seen], 1), place[0])
        middle = _with_place(self.middle, fine, place[1])
        coarse = _with_place(self.coarse, middle, place[2])
        flat = coarse.flatten(1)
        whole = self.whole(flat)
        told = torch.cat([self.person(flat), coefficients.to(flat.dtype)], 1)
        identity, expression = (coefficients + self.correction(told)).split(self.sizes, 1)
        down = functional.interpolate(self.to_middle(coarse), scale_factor=2.0)
        middle = middle + down + self.whole_to_middle(whole)[:, :, None, None]
        middle = self.up_middle(middle + place[3])
        down = functional.interpolate(self.to_fine(middle), scale_factor=2.0)
        fine = self.up_fine(fine + down + place[4]).flatten(2).transpose(1, 2)  # (B, cells, W)
        p, w, _ = self.local.shape
        # Rows of cells are gathered: columns would take ONNX Runtime ten times as long.
        at = fine[:, self.sample_index.flatten()].view(-1, 4, p, w)
        at = (at * self.sample_weight[:, :, None]).sum(1)  # (B, P, W)
        local = torch.matmul(at.transpose(0, 1), self.local).transpose(0, 1) + self.local_bias
        out = local + self.whole_points(whole).view(-1, p, 3)
        low, high = _LOG_SIGMA
        sigma = low + (high - low) * torch.sigmoid(out[..., 2])
        return DensePoints(
            UNIT_M * out[..., :2],
            sigma + float(np.log(UNIT_M)),
            self.presence(whole),
            identity,
            expression,
        )


def _with_place(layers: nn.Sequential, x: Tensor, place: Tensor) -> Tensor:
    """A convolution, what is expected where, a residual block."""
    first, block = layers
    return block(first(x) + place)


def _bilinear(places: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(4, P) cells around each place and their weights."""
    p = np.clip(places, 0, CELLS - 1 - 1e-6)
    low = np.floor(p).astype(int)
    part = p - low
    index, weight = [], []
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        index.append((low[:, 1] + dy) * CELLS + low[:, 0] + dx)
        x, y = (part[:, 0] if dx else 1 - part[:, 0]), (part[:, 1] if dy else 1 - part[:, 1])
        weight.append(x * y)
    return np.stack(index).astype(np.int64), np.stack(weight).astype(np.float32)
