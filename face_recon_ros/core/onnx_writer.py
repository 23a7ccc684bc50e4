"""A writer of ONNX graphs, so that no onnx package is needed at run time.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx), in protobuf's wire format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IR_VERSION = 8
OPSET = 17
_FLOAT, _INT64 = 1, 7
_ELEMENT = {np.dtype(np.float32): _FLOAT, np.dtype(np.int64): _INT64}
_ATTRIBUTE_INT, _ATTRIBUTE_INTS = 2, 7
_VARINT, _BYTES = 0, 2


@dataclass
class Graph:
    """A graph that grows node by node; values are known by their names.

    Attributes:
        inputs: name -> shape of float32, a name where a size is free.
        outputs: the same.
        metadata: of the file.
    """

    inputs: Mapping[str, Sequence[int | str]]
    outputs: Mapping[str, Sequence[int | str]]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []

    def constant(self, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """A new constant; its name."""
        name = f"constant_{len(self._tensors)}"
        array = np.ascontiguousarray(value).reshape(value.shape)
        sizes: tuple[int, ...] = array.shape
        body = b"".join(_integer(1, size) for size in sizes)
        body += _integer(2, _ELEMENT[array.dtype]) + _text(8, name) + _bytes(9, array.tobytes())
        self._tensors.append(body)
        return name

    def node(
        self, operator: str, *inputs: str, output: str = "", **attributes: int | Sequence[int]
    ) -> str:
        """A new node with one output; the output's name.

        Args:
            operator: of ONNX' default domain.
            inputs: names.
            output: its name; empty for an internal one.
            attributes: integers, or lists of them.
        """
        name = output or f"value_{len(self._nodes)}"
        body = b"".join(_text(1, i) for i in inputs) + _text(2, name) + _text(4, operator)
        for key, value in attributes.items():
            if isinstance(value, int):
                told = _integer(3, value) + _integer(20, _ATTRIBUTE_INT)
            else:
                told = b"".join(_integer(8, v) for v in value) + _integer(20, _ATTRIBUTE_INTS)
            body += _bytes(5, _text(1, key) + told)
        self._nodes.append(body)
        return name

    def serialised(self) -> bytes:
        """The file's content."""
        graph = b"".join(_bytes(1, node) for node in self._nodes) + _text(2, "graph")
        graph += b"".join(_bytes(5, tensor) for tensor in self._tensors)
        graph += b"".join(_bytes(11, _value(*item)) for item in self.inputs.items())
        graph += b"".join(_bytes(12, _value(*item)) for item in self.outputs.items())
        model = _integer(1, IR_VERSION) + _text(2, "face_recon_ros") + _bytes(7, graph)
        model += _bytes(8, _text(1, "") + _integer(2, OPSET))
        for key, text in self.metadata.items():
            model += _bytes(14, _text(1, key) + _text(2, text))
        return model


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = b""
    for size in shape:
        sizes += _bytes(1, _integer(1, size) if isinstance(size, int) else _text(2, size))
    return _text(1, name) + _bytes(2, _bytes(1, _integer(1, _FLOAT) + _bytes(2, sizes)))


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers: two's complement, as protobuf has them
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())
