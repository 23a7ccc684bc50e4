"""Light on synthetic faces: sources and shadows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.illumination import sh_basis
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.training.rasterizer import rasterize, vertex_normals


def sample_light(
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Ambient light, a sun or lamp, and sometimes a second one.

    Returns:
        (9, 3) illumination in the crop camera frame, (3,) unit vector to the strongest light,
        (3,) its colour.
    """
    exposure = np.exp(random.normal(-0.1, 0.35))
    share = random.uniform(0.1, 0.9)
    warm = random.normal(0, 0.12)

    def tint() -> NDArray[np.float64]:
        return np.exp(np.array([warm, 0, -warm]) + random.normal(0, 0.04, 3))

    sky = np.zeros((9, 3))
    sky[0] = exposure * (1 - share) * tint()
    gradient = random.normal(0, 0.15, (3, 1)) + np.array([[-0.12], [0.0], [0.0]])  # brighter above
    sky[1:4] = gradient * sky[0]

    def lamp() -> NDArray[np.float64]:
        v = random.standard_normal(3) * [1.0, 0.8, 0.8] + [0, -0.5, -0.7]  # above and in front
        return np.asarray(v / np.linalg.norm(v))

    sun = lamp()
    sun_colour = exposure * share * 2.0 * tint()
    out = sky + directional_light(sun)[:, None] * sun_colour
    if random.random() < 0.4:
        out += directional_light(lamp())[:, None] * (exposure * random.uniform(0, 0.8) * tint())
    return out, sun, sun_colour


def directional_light(towards_light: NDArray[np.floating]) -> NDArray[np.float64]:
    """(9,) SH coefficients of a unit distant light (Ramamoorthi and Hanrahan 2001)."""
    band = np.array([1 / 4] + [1 / 6] * 3 + [1 / 16] * 5)  # a_l / (2 l + 1) of max(0, cos)
    return band * sh_basis(np.asarray(towards_light, np.float64))


def lit(
    vertices: NDArray[np.float32], triangles: NDArray[np.int32], towards_light: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Which vertices a distant light reaches, by a shadow map.

    Args:
        vertices: (V, 3) metres.
        triangles: (F, 3).
        towards_light: (3,) unit vector.

    Returns:
        (V,) 0 or 1.
    """
    resolution, bias = 128, 0.006
    helper = np.array([1.0, 0, 0]) if abs(towards_light[0]) < 0.8 else np.array([0, 1.0, 0])
    across = np.cross(towards_light, helper)
    across /= np.linalg.norm(across)
    frame = np.stack([across, np.cross(towards_light, across), -towards_light]).astype(np.float32)
    p = vertices @ frame.T
    low, high = p.min(0), p.max(0)
    px = (p[:, :2] - low[:2]) / (high[:2] - low[:2]).max() * (resolution - 1)
    depth = p[:, 2] - low[2] + 1.0
    nearest = rasterize(px, depth, triangles, resolution, resolution).depth
    column, row = np.rint(px).astype(int).T
    return (depth <= nearest[row, column] + bias).astype(np.float32)


def ambient_occlusion(model: MorphableModel, directions: int = 96) -> NDArray[np.float32]:
    """Share of the sky above it that each vertex of the mean head sees, (V,) in [0, 1]."""
    i = np.arange(directions) + 0.5
    z = 1 - 2 * i / directions
    azimuth = np.pi * (1 + 5**0.5) * i
    rays = np.stack(
        [np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z], 1
    )
    normals = vertex_normals(model.mean_shape, model.triangles)
    seen = np.zeros(model.n_vertices)
    total = np.full(model.n_vertices, 1e-9)
    for ray in rays.astype(np.float32):
        facing = np.maximum(normals @ ray, 0)
        seen += facing * lit(model.mean_shape, model.triangles, ray)
        total += facing
    return np.clip(seen / total, 0, 1).astype(np.float32)
