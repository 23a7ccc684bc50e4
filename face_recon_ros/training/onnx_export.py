"""torch -> ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn


def to_onnx(
    network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path
) -> onnx.ModelProto:
    """Exports a network for any number of faces, and reads the file back.

    Args:
        network: returns a tuple.
        inputs: its arguments by name, faces first; examples.
        outputs: names of what it returns, faces first.
        path: of the file.
    """
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),  # the exporter restores this mode, in all of it
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "faces"} for name in [*inputs, *outputs]},
            opset_version=17,
            dynamo=False,
        )
    quiet.setLevel(level)
    return onnx.load(str(path))
