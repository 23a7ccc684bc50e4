"""Lambertian shading under distant light in nine spherical-harmonic bands.

Ramamoorthi and Hanrahan 2001, "An efficient representation for irradiance environment maps";
Deng et al. 2019, equation 2. See docs/face_model_format.md for our scaling and the place of gamma.
"""

from __future__ import annotations

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
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    s3, s5, s15 = np.sqrt(3.0), np.sqrt(5.0), np.sqrt(15.0)
    out = np.stack(
        [
            np.ones_like(x),
            s3 * y,
            s3 * z,
            s3 * x,
            s15 * x * y,
            s15 * y * z,
            s5 / 2 * (3 * z * z - 1),
            s15 * x * z,
            s15 / 2 * (x * x - y * y),
        ],
        axis=-1,
    )
    return np.asarray(out, dtype=normals.dtype)


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
