"""Meshes for the package `rerun-sdk`: with a person's texture where there is one, else coloured.

What does not change is sent once, and again now and then for pages that come late.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.morphable_model import VertexNormals
from face_recon_ros.core.types import Float32

_NEAR_M = 0.15  # of a head seen at most so long ago, a mesh is its person's
_AMBIENT = 0.4
_RECENT_S, _GONE_S = 1.0, 15.0
_AGAIN_S = 10.0


class TexturedTopology(NamedTuple):
    """A mesh whose vertices have one texture coordinate each: those on seams stand in it twice.

    Attributes:
        vertex: (T,) which of the mesh's vertices each one is.
        triangles: (F, 3) of these.
        uvs: (T, 2) in [0, 1], v downwards, as rerun has it.
    """

    vertex: NDArray[np.intp]
    triangles: NDArray[np.int32]
    uvs: Float32

    @staticmethod
    def of(triangles: NDArray[np.int32], coordinates: Float32) -> TexturedTopology:
        """Of (F, 3) triangles and (F, 3, 2) coordinates of their corners, v upwards."""
        corners = np.column_stack([triangles.ravel(), coordinates.reshape(-1, 2)])
        kept, index = np.unique(corners, axis=0, return_inverse=True)
        uvs = kept[:, 1:] * [1, -1] + [0, 1]
        return TexturedTopology(
            kept[:, 0].astype(np.intp),
            index.reshape(-1, 3).astype(np.int32),
            uvs.astype(np.float32),
        )


class MeshLog:
    """Logs the meshes of images under `camera/face_<id>`.

    Attributes:
        heads: person -> stamp, seconds, and (3,) where the head was, camera frame.
        textures: person -> (S, S, 3) uint8.
    """

    def __init__(self, rerun: Any) -> None:
        """Begins without a topology.

        Args:
            rerun: the package, or a recording of it.
        """
        self._rerun = rerun
        self._triangles = np.zeros((0, 3), np.int32)
        self._coordinates: Float32 | None = None
        self._normals: VertexNormals | None = None
        self._textured: TexturedTopology | None = None
        self._sellion = 0
        self._sent: dict[str, tuple[float, NDArray[np.uint8] | None]] = {}
        self.heads: dict[str, tuple[float, NDArray[np.float64]]] = {}
        self.textures: dict[str, NDArray[np.uint8]] = {}

    def set_topology(self, triangles: NDArray[np.int32], mean: Float32) -> None:
        """Takes in triangles (F, 3) and the mean shape (V, 3), whose sellion is the origin."""
        self._triangles = triangles
        self._normals = VertexNormals(triangles, len(mean))
        self._sellion = int(np.argmin((mean**2).sum(axis=1))) if len(mean) else 0
        self._split()

    def set_coordinates(self, coordinates: Float32) -> None:
        """Takes in the texture coordinates (F, 3, 2) of the triangles' corners, v upwards."""
        self._coordinates = coordinates
        self._split()

    def _split(self) -> None:
        self._sent = dict.fromkeys(self._sent, (-np.inf, None))  # all is sent anew
        self._textured = None
        if self._coordinates is not None and len(self._coordinates) == len(self._triangles):
            self._textured = TexturedTopology.of(self._triangles, self._coordinates)

    def log(self, vertices: Float32, colours: NDArray[np.uint8], stamp: float) -> bool:
        """Logs the meshes of an image, and clears those that are gone.

        Args:
            vertices: (N, V, 3) metres, camera frame.
            colours: (N, V, 3) RGB.
            stamp: seconds, of the image.

        Returns:
            Whether there is a topology for them.
        """
        if self._normals is None:
            return False
        names = self._names(vertices, stamp)
        for name, points, rgb in zip(names, vertices, colours, strict=True):
            self._log_mesh(name, points, rgb, stamp)
        for name in self._sent.keys() - set(names):
            del self._sent[name]
            self._rerun.log(f"camera/face_{name}", self._rerun.Clear(recursive=True))
        return True

    def _names(self, vertices: Float32, stamp: float) -> list[str]:
        """Whose the N meshes are; a number where nobody's head is near."""
        for name in [n for n, (t, _) in self.heads.items() if abs(stamp - t) > _GONE_S]:
            del self.heads[name]
            self.textures.pop(name, None)
        recent = {n: at for n, (t, at) in self.heads.items() if abs(stamp - t) < _RECENT_S}
        apart = sorted(
            (float(np.linalg.norm(points[self._sellion] - at)), i, name)
            for i, points in enumerate(vertices)
            for name, at in recent.items()
        )
        names = {}
        for distance, i, name in apart:
            if distance < _NEAR_M and i not in names and name not in names.values():
                names[i] = name
        return [names.get(i, str(i)) for i in range(len(vertices))]

    def _log_mesh(
        self, name: str, points: Float32, colours: NDArray[np.uint8], stamp: float
    ) -> None:
        texture = self.textures.get(name) if self._textured else None
        sent = self._sent.get(name)
        known = sent is not None and sent[1] is texture and 0 <= stamp - sent[0] < _AGAIN_S
        if not known:
            self._sent[name] = stamp, texture
        shape: dict[str, Any] = {"vertex_positions": points}
        if texture is None or self._textured is None or self._normals is None:
            shape["vertex_colors"] = colours
            shape |= {} if known else {"triangle_indices": self._triangles}
        else:
            split = self._textured
            shape["vertex_positions"] = points[split.vertex]
            shape["vertex_colors"] = _lit(self._normals(points), points)[split.vertex]
            if not known:
                shape |= {
                    "triangle_indices": split.triangles,
                    "vertex_texcoords": split.uvs,
                    "albedo_texture_buffer": texture.tobytes(),
                    "albedo_texture_format": self._rerun.components.ImageFormat(
                        *texture.shape[1::-1], color_model="RGB", channel_datatype="U8"
                    ),
                }
        mesh = self._rerun.Mesh3D.from_fields(clear_unset=not known, **shape)
        self._rerun.log(f"camera/face_{name}", mesh)


def _lit(normals: Float32, points: Float32) -> NDArray[np.uint8]:
    """(V, 3) a texture's factors under a lamp at the camera; rerun's own shines from below.

    Args:
        normals: (V, 3), camera frame.
        points: (V, 3) metres, same frame.
    """
    length = np.maximum(np.linalg.norm(points, axis=1), 1e-9)
    facing = np.clip(-(normals * points).sum(axis=1) / length, 0, 1)
    light = _AMBIENT + (1 - _AMBIENT) * facing
    return np.repeat((255 * light).astype(np.uint8)[:, None], 3, axis=1)
