"""Weights for int8: rounded so that each layer still answers as before.

Rounding every weight to the nearest level makes depthwise layers useless: their filters take
differences of large numbers, and what is lost of each weight is multiplied by what they have in
common. So each weight compensates for the errors of those rounded before it (GPTQ, Frantar et al.
2022), for the inputs that the layer really sees, and the bias takes the rest of the mean error.
"""

from __future__ import annotations

import copy
import itertools
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from face_recon_ros.training.network import FaceRegressor

#: Largest level of a weight. Dense layers have 7 bits: AVX2 without VNNI adds pairs of products
#: in 16 bits, which 8 bits would overflow; depthwise layers are computed otherwise.
DENSE_LEVELS, DEPTHWISE_LEVELS = 64, 127
_BATCH = 32
_BLOCK = 64


def fold_batch_norm(network: FaceRegressor) -> FaceRegressor:
    """A copy for inference, each BatchNorm folded into the convolution before it."""
    network = copy.deepcopy(network).eval()
    for parent in network.backbone.modules():
        children = list(parent.named_children())
        for (name, conv), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, nn.utils.fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
    return network


def convolutions(network: FaceRegressor, n_float: int = 0) -> dict[str, nn.Conv2d]:
    """The backbone's convolutions by name that int8 is meant for: all but the first stage's.

    The first stage sees the largest maps and holds the fewest weights; int8 gains no time there
    (measured) and costs most accuracy.

    Args:
        network: any.
        n_float: how many of the last ones to leave out as well.
    """
    first = {id(m) for part in network.backbone.early(1) for m in part.modules()}
    found = [
        (f"backbone.{name}", module)
        for name, module in network.backbone.named_modules()
        if isinstance(module, nn.Conv2d) and id(module) not in first
    ]
    return dict(found[: len(found) - n_float])


@torch.no_grad()
def round_weights(
    network: FaceRegressor, crops: NDArray[np.uint8], n_float: int = 0
) -> dict[str, Tensor]:
    """Rounds, in place, the weights of `convolutions`.

    Args:
        network: with BatchNorm folded.
        crops: (N, S, S, 3) uint8, like those the network will see.
        n_float: see `convolutions`.

    Returns:
        Each convolution's (C_out,) step between levels.
    """
    layers = convolutions(network, n_float)
    moments = _input_moments(network, list(layers.values()), crops)
    steps = {}
    for name, layer in layers.items():
        mean, second = moments.pop(layer)
        covariance = second - mean[:, :, None] * mean[:, None]
        size = second.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        covariance += 1e-6 * size * torch.eye(mean.shape[1])  # the sums are of float32
        n_groups, levels = layer.groups, DENSE_LEVELS if layer.groups == 1 else DEPTHWISE_LEVELS
        weight = layer.weight.double().view(n_groups, -1, mean.shape[1])
        bias = cast(Tensor, layer.bias).data
        # a step so small that the bias would not fit into 32 bits is of no use
        least = 1e-6 * bias.abs().double().view(n_groups, -1) + 1e-9
        step = torch.maximum(weight.abs().amax(2) / levels, least)
        rounded = compensated_rounding(weight, step, levels, covariance)
        bias -= torch.einsum("god,gd->go", rounded - weight, mean).flatten().to(bias.dtype)
        layer.weight.data = rounded.view_as(layer.weight).to(layer.weight.dtype)
        steps[name] = step.flatten()
    return steps


def compensated_rounding(
    weight: Tensor, step: Tensor, levels: int, covariance: Tensor, damping: float = 0.01
) -> Tensor:
    """Rounds weights one by one; those that follow compensate for the error on correlated inputs.

    Args:
        weight: (G, O, D): G groups of O outputs from D inputs.
        step: (G, O) between levels.
        levels: largest multiple of the step.
        covariance: (G, D, D) of the inputs.
        damping: added to the diagonal, in units of its mean.

    Returns:
        (G, O, D) multiples of the step.
    """
    variance = covariance.diagonal(dim1=1, dim2=2)
    order = variance.mean(0).argsort(descending=True)
    ridge = damping * variance.mean(1, keepdim=True) + 1e-12
    hessian = (covariance + torch.diag_embed(ridge.expand_as(variance)))[:, order][:, :, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rest = weight[:, :, order].clone()
    rounded, errors = torch.zeros_like(rest), torch.zeros_like(rest)
    n = rest.shape[2]
    for start in range(0, n, _BLOCK):  # what is far ahead is made up for once a block
        stop = min(start + _BLOCK, n)
        for i in range(start, stop):
            level = (rest[:, :, i] / step).round().clamp(-levels, levels)
            rounded[:, :, i] = level * step
            errors[:, :, i] = (rest[:, :, i] - rounded[:, :, i]) / factor[:, None, i, i]
            rest[:, :, i + 1 : stop] -= errors[:, :, i, None] * factor[:, None, i, i + 1 : stop]
        rest[:, :, stop:] -= errors[:, :, start:stop] @ factor[:, start:stop, stop:]
    return rounded[:, :, order.argsort()]


def _input_moments(
    network: FaceRegressor, layers: list[nn.Conv2d], crops: NDArray[np.uint8]
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Mean (G, D) and second moment (G, D, D) of what each layer multiplies its weights with."""
    sums: dict[nn.Module, tuple[Tensor | float, Tensor | float, int]] = {}

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        layer = cast(nn.Conv2d, module)
        size, pad = cast(tuple[int, int], layer.kernel_size), cast(tuple[int, int], layer.padding)
        windows = nn.functional.unfold(inputs[0], size, 1, pad, cast(tuple, layer.stride))
        x = windows.permute(1, 0, 2).reshape(layer.groups, -1, windows[:, 0].numel())
        total, squares, count = sums.get(layer, (0.0, 0.0, 0))
        sums[layer] = (
            total + x.sum(2).double(),
            squares + torch.bmm(x, x.transpose(1, 2)).double(),
            count + x.shape[2],
        )

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    for start in range(0, len(crops), _BATCH):
        network(torch.from_numpy(crops[start : start + _BATCH]))
    for hook in hooks:
        hook.remove()
    return {m: (a / n, b / n) for m, (a, b, n) in sums.items()}  # type: ignore[operator]
