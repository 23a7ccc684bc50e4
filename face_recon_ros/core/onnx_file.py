"""What an ONNX file refers to, read without the onnx package.

An ONNX file may say of a tensor that its values lie in another file ("external data"): they would
escape the file's SHA-256, and name any path. Such files are refused; this finds out.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Message of onnx.proto -> its fields that hold messages in which tensors can be.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 100  # messages within messages; protobuf itself allows no more


def external_tensors(content: bytes) -> list[str]:
    """Names of the tensors whose values lie outside the file.

    Args:
        content: of the ONNX file.

    Raises:
        ValueError: it is no protobuf message.
    """
    return list(_external(memoryview(content), "model", 0))


def _external(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("messages too deep within one another")
    name, outside = "", False
    for field, value in _fields(message):
        if kind == "tensor":
            outside |= field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)
            if field == _NAME and isinstance(value, memoryview):
                name = bytes(value).decode("utf-8", "replace")
        elif field in _FIELDS[kind] and isinstance(value, memoryview):
            yield from _external(value, _FIELDS[kind][field], depth + 1)
    if outside:
        yield name


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            number, at = _varint(message, at)
            yield field, number
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
        if wire == _BYTES:
            size, at = _varint(message, at)
        if size < 0 or at + size > len(message):
            raise ValueError("no protobuf message, or one that was cut off")
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number that does not end")
