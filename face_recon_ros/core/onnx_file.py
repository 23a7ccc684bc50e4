"""What an ONNX file says of itself and refers to, read without the onnx package.

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
_GRAPH, _METADATA, _INPUT = 7, 14, 11  # of a model, a model, a graph
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


def network_signature(content: bytes) -> tuple[dict[str, str], tuple[int, ...]]:
    """Metadata of an ONNX file, and the shape of its first input; -1 for a free dimension.

    Raises:
        ValueError: it is no protobuf message.
    """
    metadata: dict[str, str] = {}
    shape: tuple[int, ...] = ()
    for field, value in _fields(memoryview(content)):
        if not isinstance(value, memoryview):
            continue
        if field == _METADATA:
            entry = {number: text for number, text in _fields(value) if not isinstance(text, int)}
            key, text = (bytes(entry.get(n, memoryview(b""))).decode() for n in (1, 2))
            metadata[key] = text
        elif field == _GRAPH:
            shape = _first_shape(value)
    return metadata, shape


def _first_shape(graph: memoryview) -> tuple[int, ...]:
    first = next(_messages(graph, _INPUT), memoryview(b""))
    dimensions = [first]
    for field in (2, 1, 2, 1):  # ValueInfo.type, Type.tensor_type, Tensor.shape, Shape.dim
        dimensions = [inner for message in dimensions for inner in _messages(message, field)]
    sizes = (dict(_fields(dimension)).get(1, -1) for dimension in dimensions)
    return tuple(size if isinstance(size, int) else -1 for size in sizes)


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for field, value in _fields(message):
        if field == wanted and isinstance(value, memoryview):
            yield value


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
