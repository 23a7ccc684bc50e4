"""Laws of points on a surface: they move as its vertices do."""

import numpy as np
import pytest

from face_recon_ros.core.surface_points import SurfacePoints

RNG = np.random.default_rng(0)
VERTICES = RNG.normal(size=(9, 3))


def points(n=5):
    shares = RNG.dirichlet(np.ones(3), n).astype(np.float32)
    return SurfacePoints.checked(RNG.integers(0, 9, (n, 3)), shares)


def test_they_go_where_the_surface_goes():
    some, turn, shift = points(), np.linalg.qr(RNG.normal(size=(3, 3)))[0], np.array([1, 2, 3])
    np.testing.assert_allclose(
        some.of(VERTICES @ turn + shift), some.of(VERTICES) @ turn + shift, atol=1e-6
    )
    bases = np.stack([VERTICES, 2 * VERTICES], axis=2)
    np.testing.assert_allclose(some.of(bases)[..., 1], 2 * some.of(VERTICES), atol=1e-6)


def test_vertices_are_points():
    np.testing.assert_array_equal(SurfacePoints.of_vertices([3, 8]).of(VERTICES), VERTICES[[3, 8]])
    none = SurfacePoints.of_vertices([])
    assert none.of(VERTICES).shape == (0, 3) and none.known.shape == (0,)


def test_a_part_knows_the_points_whose_corners_it_has():
    some = SurfacePoints.checked([[0, 1, 2], [2, 3, 8]], [[0.5, 0.25, 0.25]] * 2)
    kept = np.array([0, 1, 2, 8])
    new = np.full(10, -1)
    new[kept] = range(4)
    part = some.renumbered(new)
    assert part.known.tolist() == [True, False]
    np.testing.assert_allclose(part.of(VERTICES[kept])[0], some.of(VERTICES)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("corners", "weights"),
    [
        ([0, 1, 2], [1, 0, 0]),
        ([[0, 1]], [[0.5, 0.5]]),
        ([[0, 1, 2]], [[0.5, 0.5, 0.5]]),
        ([[0, 1, 2]], [[np.nan, 0.5, 0.5]]),
        ([[0, 1, 2]], [[1, 0, 0], [1, 0, 0]]),
    ],
)
def test_what_is_no_point_is_refused(corners, weights):
    with pytest.raises(ValueError, match=r"weights|corners"):
        SurfacePoints.checked(corners, weights)
