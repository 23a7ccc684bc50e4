"""Lambertian shading under distant light in nine spherical-harmonic bands.

Ramamoorthi and Hanrahan 2001, "An efficient representation for irradiance environment maps";
Deng et al. 2019, equation 2. See docs/face_model_format.md for our scaling and the place of gamma.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GAMMA = 2.2
MIN_SHADING = 1e-3
N_BANDS = 9


def sh_basis(normals: NDArray[np.floating]) -> NDArray[np.floating]:
    """The nine real spherical harmonics, scaled so that the first is 1.

    Args:
        normals: (..., 3) unit vectors, crop camera frame.

    Returns:
        (..., 9), the dtype of `normals`.
    """
    x, y, z = np.moveaxis(normals, -1, 0)
    out = np.stack(sh_bands(np.ones_like(x), x, y, z), axis=-1)
    return np.asarray(out, dtype=normals.dtype)


def sh_bands(one: Any, x: Any, y: Any, z: Any) -> list[Any]:
    """The nine bands of unit normals (x, y, z): arrays or tensors of one shape, `one` all ones."""
    s3, s5, s15 = 3.0**0.5, 5.0**0.5, 15.0**0.5
    return [
        one,
        s3 * y,
        s3 * z,
        s3 * x,
        s15 * x * y,
        s15 * y * z,
        s5 / 2 * (3 * z * z - 1),
        s15 * x * z,
        s15 / 2 * (x * x - y * y),
    ]


def shade(
    albedo: NDArray[np.floating], normals: NDArray[np.floating], illumination: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Colour of lit skin.

    Args:
        albedo: (V, 3) sRGB-encoded reflectance in [0, 1].
        normals: (V, 3) unit vectors, crop camera frame.
        illumination: (9, 3) coefficients per colour channel, linear light.

    Returns:
        (V, 3) sRGB-encoded colour, in [0, 1].
    """
    shading = np.maximum(sh_basis(normals) @ illumination.astype(normals.dtype), MIN_SHADING)
    return np.asarray(np.clip(albedo * shading ** (1.0 / GAMMA), 0.0, 1.0), albedo.dtype)


def shade_all(
    albedo: NDArray[np.float32], normals: NDArray[np.float32], illumination: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`shade` for several meshes at once, channel by channel.

    Args:
        albedo: (N, 3, V) sRGB-encoded reflectance in [0, 1].
        normals: (N, 3, V) unit vectors, each in its crop camera's frame.
        illumination: (N, 9, 3), as for `shade`.

    Returns:
        (N, 3, V) sRGB-encoded colour, in [0, 1].
    """
    x, y, z = normals.transpose(1, 0, 2)
    basis: NDArray[np.float32] = np.stack(sh_bands(np.ones_like(x), x, y, z), axis=1)
    shading = illumination.transpose(0, 2, 1).astype(np.float32) @ basis
    np.maximum(shading, np.float32(MIN_SHADING), out=shading)
    np.power(shading, np.float32(1.0 / GAMMA), out=shading)
    shading *= albedo
    return np.clip(shading, 0.0, 1.0, out=shading)
