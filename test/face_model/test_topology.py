"""Laws of the connectivity: Loop's weights, symmetric triangulation, Laplacians."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recon_ros.face_model.topology import (
    cotangent_laplacian,
    graph_laplacian,
    loop_subdivision,
    triangulate,
    unique_edges,
    vertex_areas,
)


def grid(rows, columns):
    """Quads over a grid that is symmetric in y, with its mirror map."""
    x, y = np.meshgrid(np.arange(rows, dtype=float), np.linspace(-1, 1, columns), indexing="ij")
    vertices = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1)
    index = np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack(
        [index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], axis=-1
    ).reshape(-1, 4)
    return vertices, quads, index[:, ::-1].ravel()


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_mirror_quads_are_split_alike(rows, half, seed):
    vertices, quads, mirror = grid(rows, 2 * half + 1)
    noise = np.random.default_rng(seed).normal(0, 0.2, vertices.shape)
    vertices = vertices + noise + noise[mirror] * [1, -1, 1]
    triangles = triangulate(quads, vertices, mirror)
    there = {tuple(sorted(t)) for t in triangles.tolist()}
    back = {tuple(sorted(t)) for t in mirror[triangles].tolist()}
    assert there == back
    assert len(triangles) == 2 * len(quads)


@pytest.mark.parametrize("rows", [2, 5])
def test_subdivision_keeps_affine_maps_and_counts(rows):
    vertices, quads, mirror = grid(rows, 5)
    triangles = triangulate(quads, vertices, mirror)
    step = loop_subdivision(triangles, len(vertices))
    edges, _ = unique_edges(triangles)
    assert step.matrix.shape == (len(vertices) + len(edges), len(vertices))
    assert len(step.triangles) == 4 * len(triangles)
    np.testing.assert_allclose(step.matrix.sum(axis=1), 1.0)
    affine = np.random.default_rng(0).normal(size=(3, 3))
    np.testing.assert_allclose(
        step.matrix @ (vertices @ affine + 1.0), (step.matrix @ vertices) @ affine + 1.0
    )


def test_subdivision_of_a_closed_surface_tends_to_loops_limit():
    """An octahedron rounds itself and stays closed (Euler characteristic 2)."""
    vertices = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    triangles = np.array(
        [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    )
    for _ in range(4):
        step = loop_subdivision(triangles, len(vertices))
        vertices, triangles = step.matrix @ vertices, step.triangles
        edges, _ = unique_edges(triangles)
        assert len(vertices) - len(edges) + len(triangles) == 2
    radius = np.linalg.norm(vertices, axis=1)
    assert radius.max() / radius.min() < 1.3  # 1.73 for the octahedron
    corners = vertices[triangles]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((outward * corners.mean(axis=1)).sum(axis=1) > 0).all()


def test_laplacians_know_constants_and_areas():
    vertices, quads, mirror = grid(4, 5)
    triangles = triangulate(quads, vertices, mirror)
    ones = np.ones(len(vertices))
    assert np.abs(graph_laplacian(triangles, len(vertices)) @ ones).max() < 1e-12
    stiffness, area = cotangent_laplacian(vertices, triangles)
    assert np.abs(stiffness @ ones).max() < 1e-12
    assert (abs(stiffness - stiffness.T)).max() < 1e-12
    np.testing.assert_allclose(area.sum(), 3.0 * 2.0)
    np.testing.assert_allclose(vertex_areas(vertices, triangles), area)
