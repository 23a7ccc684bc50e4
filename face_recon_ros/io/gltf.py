"""Heads as glTF 2.0 binary (GLB): mesh, texture, named morph targets, animation, in one file.

glTF is right-handed with y up and a head that looks along +z, in metres: our face frame (x out, y
to the subject's left, z up) with its axes in another order. https://registry.khronos.org/glTF/
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import VertexNormals
from face_recon_ros.core.rigid import quaternion_from_rotation
from face_recon_ros.core.types import Float32
from face_recon_ros.io.folders import written

GLTF_FROM_FACE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])

_FLOAT, _USHORT, _UINT = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LEAST_MOVE_M = 5e-5  # what an expression moves less does not stand in its morph target
_LEAST_TURN = 0.01  # of a unit normal
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Animation:
    """What a head does over time.

    Attributes:
        times: (N,) seconds from 0, rising.
        weights: (N, K) of the morph targets.
        rotations: (N, 3, 3) head turned from facing the viewer, face frame.
        translations: (N, 3) metres, face frame.
    """

    times: NDArray[np.floating]
    weights: NDArray[np.floating]
    rotations: NDArray[np.floating]
    translations: NDArray[np.floating]


@dataclass(frozen=True)
class TexturedHead:
    """A head to be written.

    Attributes:
        vertices: (V, 3) metres, face frame.
        triangles: (F, 3), counter-clockwise from outside.
        uvs: (T, 2) in [0, 1], v upwards.
        uv_triangles: (F, 3) indices into `uvs`.
        texture: (S, S, 3) uint8 RGB reflectance, sRGB-encoded.
        targets: name -> (V, 3) displacement at weight 1, metres, face frame.
        animation: or None.
        extras: what else the file should say, as JSON.
    """

    vertices: Float32
    triangles: NDArray[np.int32]
    uvs: Float32
    uv_triangles: NDArray[np.int32]
    texture: NDArray[np.uint8]
    targets: Mapping[str, Float32] = field(default_factory=dict)
    animation: Animation | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


def write_glb(path: str | Path, head: TexturedHead) -> int:
    """Writes a head; returns the size of the file in bytes.

    Args:
        path: ends in `.glb`.
        head: what to write.

    Raises:
        DataError: another suffix, or nothing can be written there.
    """
    path = Path(path)
    if path.suffix.lower() != ".glb":
        raise DataError("a file name that ends in .glb", repr(path.name), "rename it")
    content = glb_bytes(head)
    with written(path, "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return len(content)


def glb_bytes(head: TexturedHead) -> bytes:
    """The GLB file of a head."""
    # glTF has one index for position and texture: vertices on seams stand in it more than once.
    pairs = np.stack([head.triangles.ravel(), head.uv_triangles.ravel()], axis=1)
    pairs, index = np.unique(pairs, axis=0, return_inverse=True)
    vertex = pairs[:, 0].astype(np.intp)
    uvs = head.uvs[pairs[:, 1]] * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    normals_of = VertexNormals(head.triangles, len(head.vertices))
    normals = normals_of(head.vertices)

    parts = _Parts()
    attributes = {
        "POSITION": parts.floats(_turned(head.vertices)[vertex], _ARRAY_BUFFER, bounds=True),
        "NORMAL": parts.floats(_turned(normals)[vertex], _ARRAY_BUFFER),
        "TEXCOORD_0": parts.floats(uvs, _ARRAY_BUFFER),
    }
    triangles = parts.indices(np.asarray(index).ravel().reshape(-1, 3))
    targets = []
    for displacement in head.targets.values():
        turned = normals_of(head.vertices + displacement) - normals
        targets.append(
            {
                "POSITION": parts.sparse(_turned(displacement)[vertex], _LEAST_MOVE_M),
                "NORMAL": parts.sparse(_turned(turned)[vertex], _LEAST_TURN),
            }
        )
    mesh: dict[str, Any] = {
        "name": "head",
        "primitives": [{"attributes": attributes, "indices": triangles, "material": 0}],
    }
    if targets:
        mesh["primitives"][0]["targets"] = targets
        mesh["weights"] = [0.0] * len(targets)
        mesh["extras"] = {"targetNames": list(head.targets)}  # as three.js, Blender, Godot read it
    bgr = cv2.cvtColor(head.texture, cv2.COLOR_RGB2BGR)
    ok, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert ok
    content: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "face_recon_ros", **_extras(head.extras)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "head", "mesh": 0}],
        "meshes": [mesh],
        "materials": [
            {
                "name": "skin",
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.7,
                },
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"mimeType": "image/jpeg", "bufferView": parts.view(jpeg.tobytes())}],
    }
    if head.animation is not None and len(head.animation.times):
        content["animations"] = [_animation(head.animation, parts)]
    return _packed(content, parts)


def _turned(vectors: NDArray[np.floating]) -> Float32:
    """(N, 3) face frame -> glTF."""
    return np.ascontiguousarray(vectors[:, [1, 2, 0]], np.float32)


def _extras(extras: Mapping[str, Any]) -> dict[str, Any]:
    return {"extras": dict(extras)} if extras else {}


def _animation(animation: Animation, parts: _Parts) -> dict[str, Any]:
    rotation = GLTF_FROM_FACE @ animation.rotations @ GLTF_FROM_FACE.T
    times = parts.floats(np.asarray(animation.times, np.float32), bounds=True)
    outputs = {
        "translation": parts.floats(_turned(animation.translations)),
        "rotation": parts.floats(_quaternions(rotation)),
        "weights": parts.floats(np.asarray(animation.weights, np.float32).ravel()),
    }
    return {
        "name": "clip",
        "samplers": [{"input": times, "output": output} for output in outputs.values()],
        "channels": [
            {"sampler": k, "target": {"node": 0, "path": path}} for k, path in enumerate(outputs)
        ],
    }


def _quaternions(rotations: NDArray[np.floating]) -> Float32:
    """(N, 4) x y z w, each with its predecessor's sign, so that players take the short way."""
    out = np.array([quaternion_from_rotation(rotation) for rotation in rotations])
    for k in range(1, len(out)):
        if out[k] @ out[k - 1] < 0:
            out[k] = -out[k]
    return np.asarray(out, np.float32)


class _Parts:
    """The binary chunk, and what lies where in it."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        self.blob += b"\0" * (-len(self.blob) % 4)
        entry: dict[str, Any] = {
            "buffer": 0, "byteOffset": len(self.blob), "byteLength": len(content)
        }  # fmt: skip
        if target is not None:
            entry["target"] = target
        self.blob += content
        self.views.append(entry)
        return len(self.views) - 1

    def floats(self, values: ArrayLike, target: int | None = None, bounds: bool = False) -> int:
        """An accessor of (N,) or (N, K) floats."""
        array = np.ascontiguousarray(values, "<f4")
        entry: dict[str, Any] = {
            "bufferView": self.view(array.tobytes(), target), **_shape(array, _FLOAT)
        }  # fmt: skip
        if bounds:
            entry.update(_bounds(array))
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def indices(self, triangles: NDArray[np.integer]) -> int:
        """An accessor of the corners of (F, 3) triangles."""
        flat = np.ascontiguousarray(triangles.ravel(), "<u4")
        view = self.view(flat.tobytes(), _ELEMENT_ARRAY_BUFFER)
        self.accessors.append(
            {"bufferView": view, "componentType": _UINT, "count": len(flat), "type": "SCALAR"}
        )
        return len(self.accessors) - 1

    def sparse(self, values: Float32, least: float) -> int:
        """An accessor of (N, 3) floats, most of them zero; so is what is shorter than `least`."""
        array = np.ascontiguousarray(values, "<f4")
        there = np.flatnonzero(np.linalg.norm(array, axis=1) > least)
        kept = np.zeros_like(array)
        kept[there] = array[there]
        entry: dict[str, Any] = {**_shape(array, _FLOAT), **_bounds(kept)}
        if len(there):
            short = len(array) < 1 << 16
            places = there.astype("<u2" if short else "<u4")
            entry["sparse"] = {
                "count": len(there),
                "indices": {
                    "bufferView": self.view(places.tobytes()),
                    "componentType": _USHORT if short else _UINT,
                },
                "values": {"bufferView": self.view(array[there].tobytes())},
            }
        self.accessors.append(entry)
        return len(self.accessors) - 1


def _shape(array: NDArray[np.floating], component: int) -> dict[str, Any]:
    kinds = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
    columns = array.shape[1] if array.ndim == 2 else 1
    return {"componentType": component, "count": len(array), "type": kinds[columns]}


def _bounds(array: NDArray[np.floating]) -> dict[str, Sequence[float]]:
    rows = array.reshape(len(array), -1)
    return {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}


def _packed(content: dict[str, Any], parts: _Parts) -> bytes:
    """Header, JSON chunk, binary chunk (glTF 2.0, section 4.4)."""
    parts.blob += b"\0" * (-len(parts.blob) % 4)
    content |= {
        "buffers": [{"byteLength": len(parts.blob)}],
        "bufferViews": parts.views,
        "accessors": parts.accessors,
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(parts.blob)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, length),
            struct.pack("<I4s", len(text), b"JSON"), text,
            struct.pack("<I4s", len(parts.blob), b"BIN\0"), bytes(parts.blob),
        ]
    )  # fmt: skip
