"""Weights out of an exported dense-point network, so that a run can start where one ended."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.point_network import DensePointNetwork
from face_recon_ros.training.onnx_weights import output_moments
from face_recon_ros.training.point_fit import Fit
from face_recon_ros.training.point_network import PointNetwork

#: Fully connected layers with BatchNorm, in the order of the graph; older exports have the first.
_CONNECTED = ("whole", "person")
_REMEDY = "give an export of the same points, width and hidden layer in float32, or a checkpoint"


def export_widths(path: Path) -> dict[str, int]:
    """`width` and `hidden` of the network in an export, as `PointConfig` has them.

    Raises:
        ModelError: it holds no such network.
    """
    shapes = {
        t.name.removesuffix("_float16"): tuple(t.dims)
        for t in onnx.load(str(path)).graph.initializer
    }
    try:
        return {
            "width": shapes["network.local"][1],
            "hidden": shapes["network.presence.weight"][1],
        }
    except (KeyError, IndexError):
        raise ModelError(f"dense points in float32 at {path}", "another file", _REMEDY) from None


@torch.no_grad()
def load_export(
    path: Path, network: PointNetwork, fit: Fit, vertices: NDArray[np.integer]
) -> None:
    """Takes the weights of an export, BatchNorm folded: in evaluation the answers are the same.

    Call `renew_statistics` before training.

    Args:
        path: of the ONNX file, float32.
        network: takes its weights.
        fit: takes its priors.
        vertices: (P,) that the network finds.

    Raises:
        ModelError: the file is missing, damaged or of another network.
    """
    exported = DensePointNetwork(path, provider="cpu")
    if not np.array_equal(exported.vertices, vertices):
        raise ModelError(
            f"{len(vertices)} points at {path}", f"{len(exported.vertices)} or others", _REMEDY
        )
    graph = onnx.load(str(path)).graph
    stored = {
        t.name.removesuffix("_float16"): torch.from_numpy(numpy_helper.to_array(t).copy())
        for t in graph.initializer
    }
    state = network.state_dict()
    for name in state:
        value = stored.get(f"network.{name}")
        if value is not None and value.shape == state[name].shape:
            state[name] = value.to(state[name].dtype)
    try:
        unnamed = [
            [stored[i.removesuffix("_float16")] for i in node.input[1:]]
            for node in graph.node
            if node.op_type == "Conv" and not node.input[1].startswith("network.")
        ]
        for (conv, norm), (weight, bias) in zip(_normalised(network), unnamed, strict=True):
            if state[f"{conv}.weight"].shape != weight.shape:
                raise ValueError(f"{conv} has {tuple(weight.shape)}")
            state[f"{conv}.weight"] = weight.float()
            state[f"{norm}.weight"] = torch.ones_like(bias)
            state[f"{norm}.bias"] = bias.float()
            state[f"{norm}.running_mean"] = torch.zeros_like(bias)
            state[f"{norm}.running_var"] = torch.full_like(bias, 1 - 1e-5)
        flat = [
            v.float().T.contiguous() for k, v in stored.items() if k.startswith("onnx::MatMul")
        ]
        for name, weight in zip(_CONNECTED, flat, strict=False):
            state[f"{name}.0.weight"] = weight
        network.load_state_dict(state)
    except (KeyError, ValueError, StopIteration, RuntimeError) as fault:
        raise ModelError(f"weights of this network at {path}", str(fault), _REMEDY) from None
    prior = json.loads(exported.metadata["prior"])
    pose = [prior["rotation"]] * 3 + list(prior["translation"])
    for parameter, value in (
        (fit.log_pose, pose),
        (fit.log_expression, prior["expression"]),
        (fit.log_identity, prior["identity"]),
        (fit.log_independence, prior["independence"]),
    ):
        parameter.copy_(torch.log(torch.tensor(value)).expand_as(parameter))


def _normalised(network: PointNetwork) -> list[tuple[str, str]]:
    """Names of convolutions followed by BatchNorm, and of these, in the order of the graph."""
    convs = {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    norms = [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    pairs = [(f"{n.rsplit('.', 1)[0]}.0", n) for n in norms]
    return [pair for pair in pairs if pair[0] in convs]


@torch.no_grad()
def renew_statistics(network: PointNetwork, examples: tuple[Tensor, Tensor, Tensor]) -> None:
    """Gives BatchNorm the statistics of these examples; answers in evaluation stay the same.

    Args:
        network: from `load_export`.
        examples: image, normals and coefficients, as `PointNetwork.forward` takes them.
    """
    modules = dict(network.named_modules())
    convs, norms = zip(*_normalised(network), strict=True)
    moments = output_moments([modules[n] for n in convs], lambda: network.eval()(*examples))
    for name, (mean, variance) in zip(norms, moments, strict=True):
        norm = modules[name]
        assert isinstance(norm, nn.BatchNorm2d)
        norm.bias.add_(mean)  # its mean was 0, its variance 1
        norm.weight.copy_(torch.sqrt(variance + norm.eps))
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
