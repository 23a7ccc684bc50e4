"""The overlay picture: the mesh on the face, box, name, axes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.anonymise import hide_faces
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.morphable_model import VertexNormals
from face_recon_ros.core.openings import closed
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Drawable, Float32, Mesh

Rgb = tuple[int, int, int]

#: Colours of people, distinguishable for all viewers (Okabe and Ito 2008).
FACE_COLOURS: tuple[Rgb, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
    (200, 200, 200),
)
AXIS_COLOURS: tuple[Rgb, ...] = (
    (235, 50, 50),
    (50, 200, 50),
    (70, 110, 255),
)  # x, y, z as in RViz

_REMEMBERED_PEOPLE = 64
_AXIS_M = 0.07
_TO_LIGHT = np.array([-0.35, -0.55, -0.76], np.float32)  # camera optical frame, unit length
_AMBIENT = 0.35
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


@dataclass(frozen=True)
class OverlayConfig:
    """How much to draw.

    Attributes:
        opacity: The mesh is drawn with this opacity, in [0, 1]; 0 leaves it out.
        mesh_side_px: The mesh is drawn at most this large and then enlarged; 128 costs
            about 5 ms a face.
        textured: The mesh is drawn in its own colours instead of clay.
        axes: The face frame is drawn.
        labels: Box and track id are drawn.
        anonymise: Faces become mosaics before anything is drawn on them.
    """

    opacity: float = ranged(0.65, 0.0, 1.0)
    mesh_side_px: int = ranged(128, 16, 4096)
    textured: bool = False
    axes: bool = True
    labels: bool = True
    anonymise: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.anonymise and self.textured:
            raise ConfigError(
                "textured or anonymise, not both",
                "both",
                "a person's own colours may identify them: switch one of the two off",
            )


class FaceColours:
    """A colour for each person, the same in every frame.

    The id alone says which, unless a remembered person has that colour: then another one
    is taken that is used least.
    """

    def __init__(self) -> None:
        """Starts without colours."""
        self._index: dict[str, int] = {}

    def __call__(self, ids: Iterable[str]) -> dict[str, Rgb]:
        """Colours of the people in a frame, by id."""
        present = list(ids)
        for name in present:
            index = self._index.pop(name, None)
            self._index[name] = self._choice(name) if index is None else index
        while len(self._index) > max(_REMEMBERED_PEOPLE, len(present)):
            del self._index[next(iter(self._index))]
        return {name: FACE_COLOURS[self._index[name]] for name in present}

    def __len__(self) -> int:
        """How many people have a colour."""
        return len(self._index)

    def _choice(self, name: str) -> int:
        used = list(self._index.values())
        first = zlib.crc32(name.encode())
        order = [(first + k) % len(FACE_COLOURS) for k in range(len(FACE_COLOURS))]
        return min(order, key=used.count)


class Overlay:
    """Draws faces of one mesh topology onto their images."""

    def __init__(
        self,
        triangles: NDArray[np.int32],
        n_vertices: int,
        config: OverlayConfig | None = None,
        colours: FaceColours | None = None,
    ) -> None:
        """Prepares for a topology.

        Args:
            triangles: (F, 3) of all meshes to come.
            n_vertices: V.
            config: how much to draw.
            colours: of the people; None assigns new ones.
        """
        self._colours = colours or FaceColours()
        self.config = config or OverlayConfig()
        self._triangles = triangles
        self._normals = VertexNormals(triangles, n_vertices)

    def draw(
        self, rgb: NDArray[np.uint8], faces: Sequence[Drawable], camera: PinholeCamera
    ) -> NDArray[np.uint8]:
        """The image with its faces drawn over it.

        Args:
            rgb: (H, W, 3) or (H, W) uint8; stays as it is.
            faces: any number.
            camera: that took the image.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        grey = rgb.ndim == 2
        out = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_GRAY2RGB) if grey else rgb.copy(), np.uint8)
        colours = self._colours(face.id for face in faces)
        if self.config.anonymise:
            hide_faces(out, (box for face in faces for box in face.boxes))
        far_first = sorted(faces, key=lambda f: -f.camera_from_face.translation[2])
        if self.config.opacity > 0:
            for face in far_first:
                self._draw_mesh(out, face, camera, colours[face.id])
        for face in far_first:
            if self.config.axes:
                draw_axes(out, face.camera_from_face, camera)
            if self.config.labels:
                draw_label(out, face.boxes[-1], face.id, colours[face.id])
        return out

    def _draw_mesh(
        self, out: NDArray[np.uint8], face: Drawable, camera: PinholeCamera, tint: Rgb
    ) -> None:
        points = face.camera_from_face.apply(face.mesh.vertices)
        pixels = camera.project(points)
        if not np.isfinite(pixels).all():
            return  # too near: part of it lies behind the camera
        height, width = out.shape[:2]
        x0, y0 = np.clip(np.floor(pixels.min(axis=0)), 0, [width, height]).astype(int)
        x1, y1 = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, [width, height]).astype(int)
        if x1 <= x0 or y1 <= y0:
            return
        scale = min(1.0, self.config.mesh_side_px / max(x1 - x0, y1 - y0))
        w, h = max(1, round(scale * (x1 - x0))), max(1, round(scale * (y1 - y0)))
        per_px = np.array([w / (x1 - x0), h / (y1 - y0)])
        small = (pixels - [x0, y0] + 0.5) * per_px - 0.5  # pixel centres at integers
        normals = self._normals(face.mesh.vertices)
        normals = normals @ face.camera_from_face.rotation.T.astype(np.float32)
        if self.config.textured and face.mesh.colours is not None:
            colours = 255 * face.mesh.colours
        else:
            colours = _clay(normals, tint)
        picture, covered = _picture(small, points[:, 2], self._triangles, colours, h, w)
        # Black where nothing is, and enlarged with its cover: so edges stay clean.
        layer = np.dstack([picture, 255 * covered]) * np.float32(self.config.opacity)
        rgba = cv2.resize(layer.round().astype(np.uint8), (x1 - x0, y1 - y0))
        keep = cv2.cvtColor(255 - cv2.extractChannel(rgba, 3), cv2.COLOR_GRAY2RGB)
        behind = cv2.multiply(out[y0:y1, x0:x1], keep, scale=1 / 255)
        out[y0:y1, x0:x1] = cv2.add(behind, cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB))


def draw_axes(rgb: NDArray[np.uint8], camera_from_face: Rigid, camera: PinholeCamera) -> None:
    """Draws the face frame into (H, W, 3) `rgb`: x red, y green, z blue."""
    ends = np.concatenate([np.zeros((1, 3)), _AXIS_M * np.eye(3)])
    points = camera_from_face.apply(ends)
    pixels = camera.project(points)
    if not np.isfinite(pixels).all() or np.abs(pixels).max() > 1e5:
        return
    fixed = np.rint(pixels * (1 << _SHIFT)).astype(int).tolist()
    thick = _thickness(rgb)
    for axis in np.argsort(-points[1:, 2]):  # the nearest last
        cv2.arrowedLine(
            rgb, fixed[0], fixed[axis + 1], AXIS_COLOURS[axis], thick, cv2.LINE_AA, _SHIFT, 0.15
        )


def draw_label(rgb: NDArray[np.uint8], box: ArrayLike, text: str, colour: Rgb) -> None:
    """Draws the corners of a box (4,) and a name above it, in place."""
    b = np.asarray(box, np.float64)
    if not np.isfinite(b).all() or np.abs(b).max() > 1e5:
        return
    x0, y0, x1, y1 = np.rint(b).astype(int).tolist()
    thick, arm = _thickness(rgb), max(2, (x1 - x0) // 6)
    for x, sx in ((x0, 1), (x1, -1)):
        for y, sy in ((y0, 1), (y1, -1)):
            cv2.line(rgb, (x, y), (x + sx * arm, y), colour, thick, cv2.LINE_AA)
            cv2.line(rgb, (x, y), (x, y + sy * arm), colour, thick, cv2.LINE_AA)
    size = 0.5 * max(1.0, max(rgb.shape[:2]) / 1000)
    (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x = int(np.clip(x0, 0, max(0, rgb.shape[1] - w - 8)))
    y = max(y0 - 4, h + below + 4)
    cv2.rectangle(rgb, (x, y - h - below - 2), (x + w + 8, y), colour, -1)
    at = (x + 4, y - below)
    cv2.putText(rgb, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (20, 20, 20), 1, cv2.LINE_AA)


def render_mesh(
    mesh: Mesh, size: int, yaw_deg: float = 0.0, *, textured: bool = True
) -> NDArray[np.uint8]:
    """A portrait of a mesh on light ground, to see the shape from another side.

    Args:
        mesh: vertices in the face frame.
        size: pixels per side.
        yaw_deg: how far the head is turned to its own left, degrees.
        textured: the mesh's colours if it has any; else clay.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    turn = rotation_from_vector([0.0, np.radians(yaw_deg), 0.0]).astype(np.float32)
    camera_from_face = (turn @ CAMERA_FROM_FRONTAL_FACE).astype(np.float32)
    middle = mesh.vertices.mean(axis=0)
    reach = 1.1 * np.abs(mesh.vertices - middle).max(initial=1e-6)
    if not textured or mesh.colours is None:
        normals = VertexNormals(mesh.triangles, len(mesh.vertices))(mesh.vertices)
        clay = _clay(normals @ camera_from_face.T, (200, 200, 205)) / np.float32(255)
        mesh = Mesh(mesh.vertices, mesh.triangles, clay)
    solid = closed(mesh)
    points = (solid.vertices - middle) @ camera_from_face.T
    pixels = (points[:, :2] / reach + 1) * (size / 2) - 0.5  # orthographic
    depth = points[:, 2] + 2 * reach
    colours = np.float32(255) * np.asarray(solid.colours, np.float32)
    picture, covered = _picture(pixels, depth, solid.triangles, colours, size, size)
    ground = np.linspace(250, 215, size, dtype=np.float32)[:, None, None]
    return np.asarray((picture + (1 - covered[..., None]) * ground).round(), np.uint8)


def _clay(normals: Float32, tint: Rgb) -> Float32:
    """(V, 3) colours 0 to 255 of tinted clay under one lamp; normals in the camera frame."""
    diffuse = np.clip(normals @ _TO_LIGHT, 0, 1)
    halfway = _TO_LIGHT + np.array([0, 0, -1], np.float32)
    halfway /= np.linalg.norm(halfway)
    shine = 0.25 * np.clip(normals @ halfway, 0, 1) ** 24
    light = _AMBIENT + (1 - _AMBIENT) * diffuse
    base = 0.75 * 235 + 0.25 * np.array(tint, np.float32)
    return np.asarray(np.clip(light[:, None] * base + 255 * shine[:, None], 0, 255), np.float32)


def _picture(
    pixels: NDArray[np.floating],
    depth: NDArray[np.floating],
    triangles: NDArray[np.int32],
    colours: Float32,
    height: int,
    width: int,
) -> tuple[Float32, Float32]:
    """(H, W, 3) colours, black where nothing is, and (H, W) cover in {0, 1}; front sides only."""
    a, b, c = (pixels[triangles[:, k]] for k in range(3))
    turned = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) < (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    front = triangles[turned]  # y points down: what was counter-clockwise turns the other way
    seen = rasterize(pixels, depth, front, height, width)
    return interpolate(seen, front, colours), (seen.triangle >= 0).astype(np.float32)


def _thickness(rgb: NDArray[np.uint8]) -> int:
    longer_px: int = max(rgb.shape[:2])
    return max(1, round(longer_px / 400))
