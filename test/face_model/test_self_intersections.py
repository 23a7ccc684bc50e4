"""Triangles that run through each other are found, and only those."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from self_intersections import self_intersections

from face_recon_ros.core.rigid import rotation_from_vector

FLAT = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0]])
TWO = np.array([[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("other", "crosses"),
    [
        ([[0.5, 0.5, -1], [0.5, 0.5, 1], [3, 3, 0.1]], True),  # a side through the inside
        ([[0.5, 0.5, 0.01], [0.6, 0.5, 1], [0.5, 0.6, 1]], False),  # a tip just above
        ([[0.5, 0.5, -0.01], [0.6, 0.5, 1], [0.5, 0.6, 1]], True),  # a tip just through
        ([[0.0, 0, 0.1], [2, 0, 0.1], [0, 2, 0.1]], False),  # parallel
        ([[1.9, 1.9, -1], [1.9, 1.9, 1], [3, 3, 0]], False),  # boxes overlap, triangles do not
    ],
)
def test_two_triangles(other, crosses):
    pairs = self_intersections(np.concatenate([FLAT, other]), TWO)
    assert pairs.tolist() == ([[0, 1]] if crosses else [])


def test_neighbours_never_count():
    vertices = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [1, 1, 1], [1, 0.2, -1]])
    assert len(self_intersections(vertices, np.array([[0, 1, 2], [0, 3, 4]]))) == 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_answer_moves_with_the_mesh(seed):
    """Rotation, translation, scale, mirror image and another order change nothing."""
    rng = np.random.default_rng(seed)
    corners = rng.normal(size=(40, 1, 3)) + 0.6 * rng.normal(size=(40, 3, 3))
    vertices, triangles = corners.reshape(-1, 3), np.arange(120).reshape(40, 3)
    found = {tuple(p) for p in self_intersections(vertices, triangles).tolist()}
    assert found
    turn = rotation_from_vector(rng.normal(size=3))
    for moved in (vertices @ turn.T * 3.0 + 5.0, vertices * [1, -1, 1]):
        assert {tuple(p) for p in self_intersections(moved, triangles).tolist()} == found
    order = rng.permutation(40)
    other = order[self_intersections(vertices, triangles[order])]
    assert {tuple(sorted(p)) for p in other.tolist()} == found


def test_a_mesh_pushed_through_itself_crosses_along_a_line():
    """A sheet and its copy, tilted: they cross along the tilt's axis and nowhere else."""
    x, y = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(-1, 1, 12), indexing="ij")
    sheet = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1)
    index = np.arange(144).reshape(12, 12)
    corner = [index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]]
    a, b, c, d = (k.ravel() for k in corner)
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    tilted = sheet @ rotation_from_vector(np.array([0.0, 0.4, 0.0])).T + [0.05, 0.013, 0.0]
    both = np.concatenate([sheet, tilted])
    pairs = self_intersections(both, np.concatenate([triangles, triangles + 144]))
    assert len(pairs) >= 22
    assert (pairs[:, 0] < len(triangles)).all()
    assert (pairs[:, 1] >= len(triangles)).all()
    assert np.abs(both[triangles[pairs[:, 0]]][..., 0]).max() < 0.3
