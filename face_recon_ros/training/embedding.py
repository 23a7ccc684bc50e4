"""Deep face features for the perception loss: a frozen ONNX or TorchScript network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from face_recon_ros.core.errors import ModelError
from face_recon_ros.training import geometry
from face_recon_ros.training.decoder import FaceDecoder
from face_recon_ros.training.network import Prediction

#: Where recognition networks expect the eyes in their input (ArcFace's template, 112 pixels), in
#: sides.
_EYE_DISTANCE, _EYE_HEIGHT = 0.315, 0.46


class OnnxNetwork(nn.Module):
    """Runs a plain convolutional ONNX graph in torch, so that gradients pass through it."""

    def __init__(self, path: str | Path) -> None:
        """Reads the graph.

        Raises:
            ModelError: it holds an operator that is not covered here.
        """
        super().__init__()
        graph = onnx.load(str(path)).graph
        self._nodes = []
        self._constants: dict[str, str] = {}
        for tensor in graph.initializer:
            self._keep(tensor.name, numpy_helper.to_array(tensor))
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], numpy_helper.to_array(attributes["value"]))
                continue
            if not hasattr(self, f"_op_{node.op_type.lower()}"):
                raise ModelError(
                    "an embedding network of convolutions, activations and sums",
                    f"the operator {node.op_type} in {path}",
                    "convert it to TorchScript",
                )
            self._nodes.append(
                (node.op_type.lower(), list(node.input), node.output[0], attributes)
            )
        self._input = next(i.name for i in graph.input if i.name not in self._constants)
        self._output = graph.output[0].name

    def _keep(self, name: str, value: np.ndarray) -> None:
        key = f"constant_{len(self._constants)}"
        self.register_buffer(key, torch.from_numpy(np.array(value)), persistent=False)
        self._constants[name] = key

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) as the network wants it -> its first output."""
        values = {self._input: image}

        def get(name: str) -> Tensor | None:
            if not name:
                return None
            return values[name] if name in values else getattr(self, self._constants[name])

        for kind, inputs, output, attributes in self._nodes:
            values[output] = getattr(self, f"_op_{kind}")([get(n) for n in inputs], attributes)
        return values[self._output]

    @staticmethod
    def _op_conv(x: list[Tensor], a: dict) -> Tensor:
        top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
        image = (
            x[0]
            if top == bottom and left == right
            else functional.pad(x[0], (left, right, top, bottom))
        )
        padding = (top, left) if image is x[0] else (0, 0)
        bias = x[2] if len(x) > 2 else None
        strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
        group = a.get("group", 1)
        if x[1].shape[2:] == (1, 1) and list(strides) == [1, 1] and group == 1:
            # the same; torch has a slow way of its own for 1 x 1 of few images on one thread
            pixels = functional.linear(image.permute(0, 2, 3, 1), x[1].flatten(1), bias)
            return pixels.permute(0, 3, 1, 2)
        return functional.conv2d(image, x[1], bias, strides, padding, dilations, group)

    @staticmethod
    def _op_clip(x: list[Tensor], a: dict) -> Tensor:
        low = x[1] if len(x) > 1 and x[1] is not None else a.get("min", -np.inf)
        high = x[2] if len(x) > 2 and x[2] is not None else a.get("max", np.inf)
        return functional.hardtanh(x[0], float(low), float(high))  # whose gradient costs less

    @staticmethod
    def _op_relu(x: list[Tensor], a: dict) -> Tensor:
        return functional.relu(x[0])

    @staticmethod
    def _op_prelu(x: list[Tensor], a: dict) -> Tensor:
        return functional.prelu(x[0], x[1].flatten())

    @staticmethod
    def _op_add(x: list[Tensor], a: dict) -> Tensor:
        return x[0] + x[1]

    @staticmethod
    def _op_reshape(x: list[Tensor], a: dict) -> Tensor:
        return x[0].flatten(1)  # the last layer of an embedding

    @staticmethod
    def _op_flatten(x: list[Tensor], a: dict) -> Tensor:
        return x[0].flatten(1)


def load_embedding(path: str | Path) -> nn.Module:
    """A frozen face recognition network: `.onnx`, or TorchScript.

    Raises:
        ModelError: it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"an embedding network at {path}", "no such file", "check the path")
    if path.suffix == ".onnx":
        network: nn.Module = OnnxNetwork(path)
    else:
        try:
            network = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as fault:
            raise ModelError(
                f"a TorchScript network at {path}", str(fault).splitlines()[0], "export it again"
            ) from None
    return network.eval().requires_grad_(False)


def aligned_faces(
    images: Tensor, decoder: FaceDecoder, eyes: Tensor, answer: Prediction, size: int = 112
) -> Tensor:
    """Cuts faces as recognition networks want them, upright by the answer's own eyes.

    Args:
        images: (B, S, S, 3) in [0, 1].
        decoder: whose vertices `eyes` are.
        eyes: (2,) vertex indices, subject's right and left eye.
        answer: B rows; no gradient flows through the alignment.
        size: pixels per side.

    Returns:
        (B, 3, size, size), normalised to [-1, 1].
    """
    with torch.no_grad():
        shape = decoder.express(decoder.neutral(answer.identity), answer.expression)
        points = geometry.crop_from_face_points(
            shape[:, eyes], answer.rotation, answer.translation
        )
        right, left = geometry.project(points).unbind(1)  # crop sides from the middle
        across = left - right
        # a turned head's eyes come closer: never zoom in further than a frontal face of this
        # distance would
        least = 0.055 * geometry.CROP_FOCAL / answer.translation[:, 2:]
        length = torch.maximum(across.norm(dim=1, keepdim=True), least)
        unit = across / across.norm(dim=1, keepdim=True).clamp(min=1e-6)
        side = length / _EYE_DISTANCE
        down = torch.stack([-unit[:, 1], unit[:, 0]], 1)
        middle = (right + left) / 2 + down * side * (0.5 - _EYE_HEIGHT)
        # affine_grid: output in [-1, 1] -> input in [-1, 1]; a crop side is 2 there
        theta = torch.stack([unit * side, down * side, 2 * middle], 2)
    grid = functional.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    chw = images.permute(0, 3, 1, 2)
    faces = functional.grid_sample(chw, grid, align_corners=False, padding_mode="border") * 2 - 1
    return faces.contiguous(memory_format=torch.channels_last)  # a tenth faster on CPUs
