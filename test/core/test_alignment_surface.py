"""Laws of alignment and of point-to-surface distance."""

import numpy as np
import pytest

from face_recon_ros.core.alignment import Similarity, align_points
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import angle_between, rotation_from_vector
from face_recon_ros.core.surface import (
    Surface,
    align_to_surface,
    facial_region,
    nearest_barycentric,
)


def random_similarity(rng, with_scale=True):
    scale = float(rng.uniform(0.5, 2)) if with_scale else 1.0
    return Similarity(scale, rotation_from_vector(rng.normal(size=3)), rng.normal(size=3))


def wavy_sheet(n=30):
    u, v = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n))
    z = 0.3 * np.cos(2 * u) * np.cos(3 * v) + 0.2 * u * v + 0.1 * u
    vertices = np.stack([u, v, z], -1).reshape(-1, 3)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel()
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_alignment_recovers_a_known_motion(seed, with_scale):
    rng = np.random.default_rng(seed)
    truth, p = random_similarity(rng, with_scale), rng.normal(size=(20, 3))
    found = align_points(p, truth.apply(p), with_scale=with_scale)
    np.testing.assert_allclose(found.apply(p), truth.apply(p), atol=1e-12)
    assert found.scale == pytest.approx(truth.scale)
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


def test_alignment_never_mirrors():
    rng = np.random.default_rng(0)
    p = rng.normal(size=(10, 3))
    assert np.linalg.det(align_points(p, p * [-1, 1, 1], with_scale=True).rotation) > 0


def test_alignment_of_planar_points_and_inverse():
    rng = np.random.default_rng(0)
    p = rng.normal(size=(8, 3)) * [1, 1, 0]
    truth = random_similarity(rng)
    found = align_points(p, truth.apply(p), with_scale=True)
    np.testing.assert_allclose(found.inverse().apply(truth.apply(p)), p, atol=1e-12)


@pytest.mark.parametrize(
    "p", [np.zeros((0, 3)), np.zeros((5, 3)), np.outer(np.arange(4), [1, 2, 3])]
)
def test_alignment_refuses_points_that_determine_nothing(p):
    with pytest.raises(DataError):
        align_points(p, p, with_scale=True)


def test_nearest_on_triangle_is_minimal_among_all_its_points():
    rng = np.random.default_rng(1)
    corners, p = rng.normal(size=(200, 3, 3)), 2 * rng.normal(size=(200, 3))
    inside = nearest_barycentric(p, corners)
    assert (inside >= 0).all()
    np.testing.assert_allclose(inside.sum(axis=1), 1)
    nearest = np.einsum("nc,ncx->nx", inside, corners)
    weights = rng.dirichlet([0.5] * 3, size=2000)
    others = np.einsum("sc,ncx->nsx", weights, corners)
    least = np.linalg.norm(others - p[:, None], axis=2).min(axis=1)
    mine = np.linalg.norm(nearest - p, axis=1)
    assert (mine <= least + 1e-12).all() and (least - mine).max() < 0.1


def test_nearest_on_degenerate_triangle():
    segment = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    np.testing.assert_allclose(nearest_barycentric([1.5, 1, 0], segment) @ segment, [1.5, 0, 0])
    assert nearest_barycentric([1.0, 1, 0], np.zeros((3, 3))).sum() == 1


def test_surface_equals_brute_force_with_triangles_of_all_sizes():
    rng = np.random.default_rng(2)
    sizes = 10.0 ** rng.uniform(-3, 0.5, size=(300, 1, 1))
    corners = rng.normal(size=(300, 1, 3)) + sizes * rng.normal(size=(300, 3, 3))
    vertices, triangles = corners.reshape(-1, 3), np.arange(900).reshape(-1, 3)
    p = 2 * rng.normal(size=(150, 3))
    inside = nearest_barycentric(p[:, None], corners)
    brute = np.linalg.norm(np.einsum("nkc,kcx->nkx", inside, corners) - p[:, None], axis=2)
    near = Surface(vertices, triangles).nearest(p)
    np.testing.assert_allclose(near.distance, brute.min(axis=1), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(near.points - p, axis=1), near.distance, atol=1e-12)


def test_surface_of_its_own_points_is_zero_and_empty_query_is_empty():
    vertices, triangles = wavy_sheet()
    surface = Surface(vertices, triangles)
    assert surface.nearest(vertices[triangles].mean(axis=1)).distance.max() < 1e-12
    assert surface.nearest(np.zeros((0, 3))).distance.shape == (0,)


@pytest.mark.parametrize("triangles", [np.zeros((0, 3), int), [[0, 1, 9]], [[-1, 0, 1]]])
def test_surface_refuses_what_is_no_mesh(triangles):
    with pytest.raises(DataError):
        Surface(np.eye(3), triangles)


@pytest.mark.parametrize("with_scale", [True, False])
def test_alignment_to_surface_recovers_a_known_motion(with_scale):
    vertices, triangles = wavy_sheet()
    rng = np.random.default_rng(3)
    truth = random_similarity(rng, with_scale)
    inner = np.abs(vertices[triangles].mean(axis=1)[:, :2]).max(axis=1) < 0.7
    scan = truth.apply(vertices[triangles[inner]].mean(axis=1))
    start = Similarity(
        truth.scale * (1.05 if with_scale else 1.0),
        rotation_from_vector([0.05, -0.04, 0.06]) @ truth.rotation,
        truth.translation + 0.03,
    )
    found, distances = align_to_surface(
        Surface(vertices, triangles), scan, start, with_scale=with_scale
    )
    assert distances.max() < 1e-4 * truth.scale
    assert found.scale == pytest.approx(truth.scale, rel=1e-3)
    assert np.degrees(angle_between(found.rotation, truth.rotation)) < 0.05


def test_facial_region_moves_with_the_face_and_wants_68_points():
    rng = np.random.default_rng(4)
    marks, p = rng.normal(size=(68, 3)), 2 * rng.normal(size=(500, 3))
    motion = random_similarity(rng)
    inside = facial_region(p, marks)
    assert 0 < inside.sum() < len(p)
    np.testing.assert_array_equal(inside, facial_region(motion.apply(p), motion.apply(marks)))
    with pytest.raises(DataError):
        facial_region(p, marks[:51])
