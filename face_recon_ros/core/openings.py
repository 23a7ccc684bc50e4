"""What shows between open lips: parts of the face model end there, one would see through them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.types import Float32, Mesh

_DEEP_M = np.array([0.015, 0.0, 0.0], np.float32)  # of the cone behind an opening, face frame
_WHITE = 0.93
_SHADE = 0.85  # of a tooth behind a lip
_TOOTH, _DARK = 1.4, 0.2  # over the brightness of the face: teeth, a mouth without light in it
_TINT = 0.3  # of the face's hue
_GRIN, _SHOUT = 0.3, 0.6  # height over width: up to one teeth are seen, from the other none


class Openings:
    """Closes a mesh's inner openings; its outer edge stays.

    Attributes:
        rims: the vertices of each, in order, so that a triangle (rim[k], rim[k + 1], middle)
            shows its front where the mesh does.
    """

    def __init__(self, triangles: NDArray[np.int32], vertices: Float32) -> None:
        """Finds them.

        Args:
            triangles: (F, 3).
            vertices: (V, 3) of some shape of the mesh, metres.
        """
        loops = _loops(triangles)
        loops.sort(key=lambda rim: float(np.ptp(vertices[rim], axis=0).max()))
        self.rims = loops[:-1]

    def insides(self, vertices: Float32) -> tuple[Float32, NDArray[np.int32]]:
        """What lies behind the openings.

        Args:
            vertices: (V, 3) metres, face frame.

        Returns:
            (W, 3) further vertices, and (K, 3) triangles of them, numbered from V on.
        """
        points, triangles, first = [], [], len(vertices)
        for rim in self.rims:
            edge = vertices[rim]
            points += [edge, edge.mean(axis=0, keepdims=True) - _DEEP_M]
            here = first + np.arange(len(rim))
            middle = np.full(len(rim), first + len(rim))
            triangles.append(np.stack([here, np.roll(here, -1), middle], axis=1))
            first += len(rim) + 1
        if not points:
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
        return np.concatenate(points), np.concatenate(triangles).astype(np.int32)


def closed(mesh: Mesh) -> Mesh:
    """The mesh with an inside behind its inner openings: teeth in a grin, dark in a wide mouth."""
    openings = Openings(mesh.triangles, mesh.vertices)
    points, triangles = openings.insides(mesh.vertices)
    colours = mesh.colours
    if colours is not None:
        skin = np.percentile(colours, 75, axis=0) if len(colours) else np.zeros(3, np.float32)
        level = float(skin.mean()) ** (1 - _TINT) * skin**_TINT
        inside = [np.zeros((0, 3), np.float32)]
        for rim in openings.rims:
            width, height = np.ptp(mesh.vertices[rim], axis=0)[1:]
            open_share = height / max(float(width), 1e-9)
            wide = np.clip((open_share - _GRIN) / (_SHOUT - _GRIN), 0, 1)
            colour = level * (_TOOTH + wide * (_DARK - _TOOTH))
            inside += [np.tile(_SHADE * colour, (len(rim), 1)), colour[None]]
        colours = np.concatenate([colours, np.clip(np.concatenate(inside), 0, _WHITE)])
    return Mesh(
        np.concatenate([mesh.vertices, points]),
        np.concatenate([mesh.triangles, triangles]),
        None if colours is None else np.asarray(colours, np.float32),
    )


def _loops(triangles: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Vertices along each closed edge of a surface, against the sense of its triangles."""
    sides = np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    many = int(sides.max(initial=0)) + 1
    a, b = sides.T.astype(np.int64)
    alone = ~np.isin(b * many + a, a * many + b)  # sides without a triangle on the other hand
    after = dict(zip(b[alone].tolist(), a[alone].tolist(), strict=True))
    loops = []
    while after:
        start, at = next(iter(after.items()))
        del after[start]
        loop = [start]
        while at != start and at in after:
            loop.append(at)
            at = after.pop(at)
        loops.append(np.array(loop, np.intp))
    return loops
