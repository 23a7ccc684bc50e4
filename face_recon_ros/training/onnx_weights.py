"""Weights out of an exported network, so that a run can start where the last one ended.

An export holds no BatchNorm: it is folded into the convolutions. It comes back with the statistics
of some synthetic crops, which change nothing of what the network answers.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from face_recon_ros.core.errors import ModelError
from face_recon_ros.training.network import CoefficientSizes, FaceRegressor

_EXPECTED = "a network exported by `face-recon export`"
_REMEDY = "give such a file, or a checkpoint"


def state_from_onnx(path: Path, crops: NDArray[np.uint8]) -> dict[str, Any]:
    """Reads an export as the part of a checkpoint that `init` and `teacher` take.

    Args:
        path: export of `face-recon export`; 8-bit weights come with their rounding.
        crops: (N, S, S, 3) uint8 RGB, for BatchNorm's statistics.

    Returns:
        `face_model` (a name), `nominal_distance_m`, `sizes`, `config` (its `backbone` alone) and
        `average` (the state dictionary of a `FaceRegressor`), as in a checkpoint.

    Raises:
        ModelError: the file is missing, damaged or no such export.
    """
    if not path.is_file():
        raise ModelError(_EXPECTED, f"no file at {path}", _REMEDY)
    try:
        model = onnx.load(str(path))
        meta = {entry.key: entry.value for entry in model.metadata_props}
        weights = {t.name: _tensor(t) for t in model.graph.initializer}
        backbone = json.loads(meta["training"])["backbone"]
        for node in model.graph.node:
            if node.input and node.input[0] in weights:
                stored = [weights[name] for name in node.input if name in weights]
                if node.op_type == "Identity":  # tensors that are equal are stored once
                    weights[node.output[0]] = stored[0]
                elif node.op_type == "Cast":  # 8-bit levels
                    weights[node.output[0]] = stored[0].float()
                elif node.op_type == "Mul" and len(stored) == 2:  # times their steps
                    weights[node.output[0]] = stored[0] * stored[1]
        heads = {
            node.input[1].removeprefix("network.heads.").removesuffix(".weight"): node.input[1:]
            for node in model.graph.node
            if node.op_type == "Gemm"
        }
        k = [len(weights[heads[name][0]]) for name in ("identity", "expression", "albedo")]
        sizes = CoefficientSizes(*k)
        folded = fold_batch_norm(FaceRegressor(backbone, sizes, 1.0))
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        layers = [m for m in folded.backbone.modules() if isinstance(m, nn.Conv2d)]
        for node, layer in zip(convolutions, layers, strict=True):
            layer.weight.data, layer.bias.data = (
                weights[name].view(own.shape)
                for name, own in zip(node.input[1:], (layer.weight, layer.bias), strict=True)
            )
        for name, head in folded.heads.items():
            head.weight.data, head.bias.data = (weights[tensor] for tensor in heads[name])
        network = unfold_batch_norm(FaceRegressor(backbone, sizes, 1.0), folded, crops)
        distance_m = _nominal_distance(model.graph, weights)
    except Exception as fault:  # a damaged file makes onnx raise whatever its parser does
        raise ModelError(
            f"{_EXPECTED} at {path}", f"{type(fault).__name__}: {fault}", _REMEDY
        ) from None
    return {
        "face_model": meta.get("face_model", ""),
        "nominal_distance_m": distance_m,
        "sizes": asdict(sizes),
        "config": {"backbone": backbone},
        "average": network.state_dict(),
    }


def _nominal_distance(graph: onnx.GraphProto, weights: dict[str, Tensor]) -> float:
    """Metres: what the exponential of the distance head is multiplied by."""
    constants = dict(weights)
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = _tensor(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    powers = {node.output[0] for node in graph.node if node.op_type == "Exp"}
    for node in graph.node:
        if node.op_type == "Mul" and powers & set(node.input):
            factors = [constants[name] for name in node.input if name in constants]
            return float(factors[0]) if factors else 1.0  # a factor of one may be optimised away
    raise ValueError("it has no distance head")


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(tensor).copy())


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


@torch.no_grad()
def output_moments(
    layers: Sequence[nn.Module], run: Callable[[], object]
) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance of each channel, (C,), of what convolutions answer while `run` runs."""
    outputs: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def measure(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs[module] = (output.mean((0, 2, 3)), output.var((0, 2, 3)))

    hooks = [layer.register_forward_hook(measure) for layer in layers]
    run()
    for hook in hooks:
        hook.remove()
    return [outputs[layer] for layer in layers]


@torch.no_grad()
def unfold_batch_norm(
    network: FaceRegressor, folded: FaceRegressor, crops: NDArray[np.uint8]
) -> FaceRegressor:
    """The inverse of `fold_batch_norm`, for the statistics of these crops.

    Args:
        network: takes the weights; in evaluation it then answers as `folded` does.
        folded: of the same backbone, BatchNorm folded.
        crops: (N, S, S, 3) uint8 RGB.

    Returns:
        `network`.
    """
    layers = [m for m in folded.backbone.modules() if isinstance(m, nn.Conv2d)]
    outputs = output_moments(layers, lambda: folded.eval()(torch.from_numpy(crops)))
    ours = [m for m in network.backbone.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    for conv, norm, layer, moments in zip(ours[::2], ours[1::2], layers, outputs, strict=True):
        mean, variance = moments
        conv.weight.copy_(layer.weight)
        norm.running_mean.copy_(mean - layer.bias)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
    network.heads.load_state_dict(folded.heads.state_dict())
    return network
