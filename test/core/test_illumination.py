"""Laws of spherical-harmonic light."""

import numpy as np
import pytest

from face_recon_ros.core.illumination import sh_basis, shade
from face_recon_ros.core.rigid import rotation_from_vector


def _directions(n):
    v = np.random.default_rng(0).normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def test_basis_is_orthonormal_over_the_sphere():
    basis = sh_basis(_directions(400_000))
    np.testing.assert_allclose(basis.T @ basis / len(basis), np.eye(9), atol=0.02)


@pytest.mark.parametrize("band", [slice(0, 1), slice(1, 4), slice(4, 9)])
def test_bands_keep_their_power_under_rotation(band):
    n = _directions(50)
    turned = n @ rotation_from_vector([0.3, -0.8, 0.5]).T
    power = [(sh_basis(v)[:, band] ** 2).sum(axis=1) for v in (n, turned)]
    np.testing.assert_allclose(*power)


def test_white_ambient_light_shows_the_albedo():
    illumination = np.zeros((9, 3))
    illumination[0] = 1.0
    albedo = np.random.default_rng(1).uniform(size=(20, 3))
    np.testing.assert_allclose(shade(albedo, _directions(20), illumination), albedo)


def test_twice_the_light_is_gamma_brighter_and_darkness_is_finite():
    albedo, normals = np.full((5, 3), 0.3), _directions(5)
    light = np.zeros((9, 3))
    light[0] = 2.0
    np.testing.assert_allclose(shade(albedo, normals, light), 0.3 * 2 ** (1 / 2.2))
    assert np.isfinite(shade(albedo, normals, -light)).all()


def test_no_vertex_is_fine_and_single_precision_stays():
    out = shade(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((9, 3)))
    assert out.shape == (0, 3) and out.dtype == np.float32
