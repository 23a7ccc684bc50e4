"""Laws of the rasterizer: it covers what geometry says, once, nearest first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.rasterizer import SUBPIXELS, interpolate, rasterize

H, W = 24, 32
coordinate = st.one_of(st.floats(-20, 50), st.integers(-5, 35).map(float))
triangle = st.tuples(*[st.tuples(coordinate, coordinate)] * 3)


def covered(points, triangles=((0, 1, 2),)):
    points = np.asarray(points, float)
    return rasterize(points, np.ones(len(points)), triangles, H, W).triangle >= 0


def grid(rng, snap):
    """A triangulated rectangle: corners, triangles. Its corners may lie on pixel centres."""
    n = 6
    rows, columns = np.mgrid[:n, :n]
    points = np.stack([columns * 4.0 + 5, rows * 4.0 + 1], -1)
    inner = (rows % (n - 1) > 0) & (columns % (n - 1) > 0)
    points[inner] += rng.uniform(-0.9, 0.9, (inner.sum(), 2))
    points = (np.round(points * snap) / snap).reshape(-1, 2)
    a = (rows[:-1, :-1] * n + columns[:-1, :-1]).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + 1, a + n]), np.stack([a + 1, a + n + 1, a + n])], 1
    )
    return points, triangles.T


@given(triangle)
@settings(max_examples=200, deadline=None)
def test_coverage_is_point_in_triangle(corners):
    """Strictly inside is drawn, strictly outside is not; corners as they are snapped."""
    (ax, ay), (bx, by), (cx, cy) = np.rint(np.array(corners) * SUBPIXELS).astype(int).tolist()
    drawn = covered(corners)
    for y in range(H):
        for x in range(W):
            px, py = x * SUBPIXELS, y * SUBPIXELS
            edges = [
                (bx - ax) * (py - ay) - (by - ay) * (px - ax),
                (cx - bx) * (py - by) - (cy - by) * (px - bx),
                (ax - cx) * (py - cy) - (ay - cy) * (px - cx),
            ]
            if min(edges) > 0 or max(edges) < 0:
                assert drawn[y, x]
            elif min(edges) < 0 < max(edges):
                assert not drawn[y, x]


@pytest.mark.parametrize("snap", [1, 2, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_shared_edges_have_neither_cracks_nor_double_coverage(seed, snap):
    """Even where edges run through pixel centres, and whichever way triangles are wound."""
    rng = np.random.default_rng(seed)
    points, triangles = grid(rng, snap)
    triangles = np.array([t[::-1] if rng.random() < 0.5 else t for t in triangles])
    times = sum(covered(points, [t]).astype(int) for t in triangles)
    assert times.max() == 1
    assert times[2:21, 6:25].min() == 1
    assert (covered(points, triangles) == (times > 0)).all()


def test_the_picture_does_not_depend_on_the_order_of_triangles():
    rng = np.random.default_rng(3)
    points, depth = rng.uniform(-5, 35, (60, 2)), rng.uniform(0.5, 2, 60)
    triangles = rng.integers(0, 60, (80, 3))
    shuffle = rng.permutation(80)
    a = rasterize(points, depth, triangles, H, W)
    b = rasterize(points, depth, triangles[shuffle], H, W)
    assert (a.depth == b.depth).all()
    seen = a.triangle >= 0
    assert seen.mean() > 0.5
    assert (shuffle[b.triangle[seen]] == a.triangle[seen]).mean() > 0.99  # but for equal depths


def test_nearest_wins():
    square = np.array([[2.0, 2], [20, 2], [2, 20]])
    points = np.concatenate([square, square, square])
    depth = np.repeat([2.0, 1.0, 3.0], 3)
    seen = rasterize(points, depth, np.arange(9).reshape(3, 3), H, W)
    assert set(np.unique(seen.triangle)) == {-1, 1}
    assert seen.depth[5, 5] == pytest.approx(1.0)
    assert np.isinf(seen.depth[0, 0])


def test_interpolated_points_project_onto_their_pixels():
    """Perspective-correct weights: the point a pixel sees lies on that pixel's ray."""
    rng = np.random.default_rng(0)
    camera = PinholeCamera.from_fov(W, H, 70)
    points = np.column_stack([rng.uniform(-1, 1, (40, 2)), rng.uniform(0.5, 3, 40)])
    triangles = rng.integers(0, 40, (30, 3))
    seen = rasterize(camera.project(points), points[:, 2], triangles, H, W)
    rows, columns = np.nonzero(seen.triangle >= 0)
    assert len(rows) > 200
    at = interpolate(seen, triangles, points)[rows, columns]
    np.testing.assert_allclose(camera.project(at), np.column_stack([columns, rows]), atol=0.02)
    np.testing.assert_allclose(at[:, 2], seen.depth[rows, columns], rtol=1e-5)
    np.testing.assert_allclose(seen.weights[rows, columns].sum(axis=1), 1, atol=1e-6)
    assert (interpolate(seen, triangles, points)[seen.triangle < 0] == 0).all()


def test_what_cannot_be_drawn_is_left_out():
    points = [[np.nan, 2], [20, 2], [2, 20], [4, 4], [1e30, 4], [4, 9], [1, 1], [9, 1], [1, 9]]
    depth = [1, 1, 1, 1, 1, 1, 1, -1, 1]
    triangles = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [3, 3, 3]]
    assert (rasterize(points, depth, triangles, H, W).triangle == -1).all()


@pytest.mark.parametrize("size", [(H, W), (1, 1)])
def test_nothing_to_draw(size):
    seen = rasterize(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3)), *size)
    assert seen.triangle.shape == size and (seen.triangle == -1).all()
    assert interpolate(seen, np.zeros((0, 3), int), np.zeros((0, 4))).shape == (*size, 4)
