"""Meshes and markers as CDR bytes, which `Publisher.publish` takes as they are.

numpy lays them out: rclpy fills and serialises large messages much more slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from face_recon_ros.core.types import Float32

ARROW, LINE_LIST, TEXT_VIEW_FACING, TRIANGLE_LIST = 0, 5, 9, 11
ADD, DELETE, DELETEALL = 0, 2, 3


def topology_cdr(triangles: NDArray[np.int32], vertices: Float32) -> bytes:
    """shape_msgs/Mesh as CDR bytes.

    Args:
        triangles: (F, 3).
        vertices: (V, 3) of the mean shape, face frame, metres.
    """
    out = _Cdr()
    out.array(np.ascontiguousarray(triangles, "<u4"), len(triangles))
    out.array(np.ascontiguousarray(vertices, "<f8"), len(vertices))
    return out.bytes()


@dataclass(frozen=True)
class MarkerSpec:
    """One visualization_msgs/Marker. Points are in the header's frame.

    Attributes:
        namespace: with `id` its name.
        id: see `namespace`.
        type: as in Marker.
        action: as in Marker.
        position: (3,) metres.
        scale: (3,) metres.
        colour: (4,) RGBA in [0, 1].
        lifetime_s: seconds until RViz drops it; 0 is for ever.
        points: (N, 3) metres.
        colours: (N, 4) RGBA in [0, 1], or none.
        text: of TEXT_VIEW_FACING.
    """

    namespace: str
    id: int
    type: int
    action: int = ADD
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    colour: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    lifetime_s: float = 0.0
    points: NDArray[np.floating] = field(default_factory=lambda: np.zeros((0, 3)))
    colours: NDArray[np.floating] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    text: str = ""


def marker_array_cdr(markers: Sequence[MarkerSpec], header: Header) -> bytes:
    """visualization_msgs/MarkerArray as CDR bytes, as rclpy would serialise it."""
    out = _Cdr()
    out.pack("<u4", len(markers))
    for marker in markers:
        out.pack("<i4", header.stamp.sec)
        out.pack("<u4", header.stamp.nanosec)
        out.string(header.frame_id)
        out.string(marker.namespace)
        for value in (marker.id, marker.type, marker.action):
            out.pack("<i4", value)
        out.pack("<f8", *marker.position, 0.0, 0.0, 0.0, 1.0, *marker.scale)
        out.pack("<f4", *marker.colour)
        seconds, nanoseconds = divmod(round(marker.lifetime_s * 1e9), 1_000_000_000)
        out.pack("<i4", seconds)
        out.pack("<u4", nanoseconds)
        out.pack("u1", 0)  # frame_locked
        out.array(np.ascontiguousarray(marker.points, "<f8"), len(marker.points))
        out.array(np.ascontiguousarray(marker.colours, "<f4"), len(marker.colours))
        out.string("")  # texture_resource
        out.pack("<i4", 0)  # texture: CompressedImage without anything
        out.pack("<u4", 0)
        out.string("")
        out.string("")
        out.pack("<u4", 0)
        out.pack("<u4", 0)  # uv_coordinates
        out.string(marker.text)
        out.string("")  # mesh_resource
        out.string("")  # mesh_file
        out.pack("<u4", 0)
        out.pack("u1", 0)  # mesh_use_embedded_materials
    return out.bytes()


class _Cdr:
    """Writes XCDR1, little endian: numbers aligned to their size, counted after the head."""

    def __init__(self) -> None:
        self._parts: list[bytes] = [b"\x00\x01\x00\x00"]
        self._size = 0

    def _add(self, data: bytes, alignment: int) -> None:
        padding = -self._size % alignment
        self._parts += [bytes(padding), data]
        self._size += padding + len(data)

    def pack(self, dtype: str, *values: float) -> None:
        data = np.array(values, dtype)
        self._add(data.tobytes(), data.itemsize)

    def string(self, text: str) -> None:
        data = text.encode() + b"\x00"
        self.pack("<u4", len(data))
        self._add(data, 1)

    def array(self, values: NDArray[np.generic], count: int) -> None:
        """A sequence of `count` elements that hold nothing but numbers of one type."""
        self.pack("<u4", count)
        if count:
            self._add(values.tobytes(), values.itemsize)

    def bytes(self) -> bytes:
        return b"".join(self._parts)
