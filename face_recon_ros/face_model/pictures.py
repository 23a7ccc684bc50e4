"""Pictures of a face model, drawn by the same rasterizer and shading as everything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.illumination import GAMMA, MIN_SHADING, sh_basis
from face_recon_ros.core.morphable_model import MorphableModel, VertexNormals
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.io.images import write_image

Image = NDArray[np.uint8]

_DISTANCE = 0.9  # metres from the camera to the origin of the face
_LOOK_AT = np.array([-0.02, 0.0, -0.02])  # metres, face frame: the middle of the picture
_WIDTH = 0.27  # metres across the picture at that distance
_SUPERSAMPLING = 2
_BACKGROUND = 245
# Soft daylight from the upper left; bands as in core.illumination, one for all channels.
_LIGHT = np.array([0.66, -0.16, -0.21, -0.10, 0.02, 0.04, 0.03, 0.02, 0.0])
_CAMERA_FROM_FACE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
_SEED = 11

_EXPRESSIONS: tuple[tuple[str, ...], ...] = (
    ("eyeBlinkLeft", "eyeBlinkRight"),
    ("jawOpen",),
    ("mouthSmileLeft", "mouthSmileRight"),
    ("mouthFrownLeft", "mouthFrownRight"),
    ("mouthFunnel",),
    ("mouthPucker",),
    ("cheekPuff",),
    ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    ("noseSneerLeft", "noseSneerRight", "browDownLeft", "browDownRight"),
    ("eyeLookOutLeft", "eyeLookInRight"),
    ("eyeWideLeft", "eyeWideRight"),
    ("jawOpen", "tongueOut"),
)


def portrait(
    model: MorphableModel,
    vertices: NDArray[np.float32],
    albedo: ArrayLike,
    *,
    yaw_deg: float = 0.0,
    size: int = 256,
) -> Image:
    """One head under soft light.

    Args:
        model: triangles.
        vertices: (V, 3) metres, face frame.
        albedo: (V, 3) sRGB-encoded.
        yaw_deg: how far the head is turned to its left.
        size: pixels per side.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    turn = rotation_from_vector(np.array([0.0, 0.0, np.radians(yaw_deg)]))
    camera = (vertices - _LOOK_AT) @ turn.T @ _CAMERA_FROM_FACE.T + [0.0, 0.0, _DISTANCE]
    pixels = size * _SUPERSAMPLING
    scale = pixels / _WIDTH * _DISTANCE
    points = camera[:, :2] / camera[:, 2:] * scale + (pixels - 1) / 2
    seen = rasterize(points, camera[:, 2], model.triangles, pixels, pixels)
    normals = VertexNormals(model.triangles, model.n_vertices)(camera.astype(np.float32))
    shading = np.maximum(sh_basis(normals) @ _LIGHT.astype(np.float32), MIN_SHADING)
    colour = np.clip(np.asarray(albedo) * shading[:, None] ** (1 / GAMMA), 0, 1)
    image = interpolate(seen, model.triangles, colour) * 255
    image[seen.triangle < 0] = _BACKGROUND
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(small), np.uint8)


def write_pictures(model: MorphableModel, folder: Path, size: int = 256) -> list[Path]:
    """Mean, components, people and expressions as PNG files.

    Args:
        model: fine level.
        folder: where to write `face_model_*.png`.
        size: pixels per head.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheets = {
        "mean": (_mean, 4),
        "identity": (_identity, 5),
        "people": (_people, 4),
        "albedo": (_albedo, 5),
        "expressions": (_expressions, 4),
    }
    paths = []
    for name, (draw, columns) in sheets.items():
        path = folder / f"face_model_{name}.png"
        write_image(path, _sheet(draw(model, size), columns))
        paths.append(path)
    return paths


def _sheet(images: list[Image], columns: int) -> Image:
    blank = np.full_like(images[0], _BACKGROUND)
    images = images + [blank] * (-len(images) % columns)
    rows = [np.hstack(images[i : i + columns]) for i in range(0, len(images), columns)]
    return np.vstack(rows)


def _mean(model: MorphableModel, size: int) -> list[Image]:
    grey = np.full_like(model.mean_albedo, 0.7)
    views: list[tuple[ArrayLike, float]] = [
        (model.mean_albedo, 0.0),
        (model.mean_albedo, 35.0),
        (model.mean_albedo, 85.0),
        (grey, 35.0),
    ]
    return [portrait(model, model.mean_shape, a, yaw_deg=y, size=size) for a, y in views]


def _swing(count: int, draw: Callable[[NDArray[np.float32]], Image], k: int) -> list[Image]:
    """Columns: components; rows: -2 and +2 standard deviations."""
    images = []
    for sign in (-2.0, 2.0):
        for component in range(count):
            values = np.zeros(k, np.float32)
            values[component] = sign
            images.append(draw(values))
    return images


def _identity(model: MorphableModel, size: int) -> list[Image]:
    grey = np.full_like(model.mean_albedo, 0.7)

    def draw(values: NDArray[np.float32]) -> Image:
        return portrait(model, model.neutral(values), grey, yaw_deg=25.0, size=size)

    return _swing(5, draw, model.k_identity)


def _albedo(model: MorphableModel, size: int) -> list[Image]:
    def draw(values: NDArray[np.float32]) -> Image:
        return portrait(model, model.mean_shape, model.albedo(values), size=size)

    return _swing(5, draw, model.k_albedo)


def _people(model: MorphableModel, size: int) -> list[Image]:
    rng = np.random.default_rng(_SEED)
    images = []
    for i in range(16):
        shape = model.neutral(rng.standard_normal(model.k_identity))
        albedo = model.albedo(rng.standard_normal(model.k_albedo))
        images.append(portrait(model, shape, albedo, yaw_deg=(0, 20, -20, 0)[i % 4], size=size))
    return images


def _expressions(model: MorphableModel, size: int) -> list[Image]:
    images = []
    for names in _EXPRESSIONS:
        values = np.zeros(model.k_expression, np.float32)
        for name in names:
            values[model.expression_names.index(name)] = 1.0
        shape = model.express(model.mean_shape, values)
        images.append(portrait(model, shape, model.mean_albedo, yaw_deg=-12.0, size=size))
    return images
