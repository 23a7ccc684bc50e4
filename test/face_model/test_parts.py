"""The named parts of the shipped face model end on closed loops; nothing hangs loose."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from face_recon_ros.core.models import FACE_MODEL, models_dir
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.face_model.parts import covered
from face_recon_ros.face_model.topology import unique_edges

#: part -> how many pieces, how many openings. Eyeballs are pieces of their own, open behind; teeth
#: are two, open at the gums; the tongue is closed. Openings of skin: edge, mouth, lids, nostrils.
PARTS = {"face": (3, 6), "facial_skin": (1, 6), "head": (6, 5)}


@pytest.fixture(scope="module", params=("coarse", "fine"))
def model(request):
    return load_morphable_model(models_dir() / FACE_MODEL, level=request.param)


def border(triangles):
    """(B, 2) edges of one triangle only."""
    edges, edge_of_side = unique_edges(triangles)
    return edges[np.bincount(edge_of_side, minlength=len(edges)) == 1]


def n_pieces(edges):
    ends = np.unique(edges)
    graph = sp.coo_matrix((np.ones(len(edges)), np.searchsorted(ends, edges).T), 2 * [len(ends)])
    return connected_components(graph, directed=False)[0]


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_whole_and_ends_on_closed_loops(model, name):
    part = model.subset(name)
    assert (np.bincount(part.triangles.ravel(), minlength=part.n_vertices) > 0).all()
    edges, edge_of_side = unique_edges(part.triangles)
    assert np.bincount(edge_of_side).max() <= 2  # a surface
    pieces, openings = PARTS[name]
    assert n_pieces(edges) == pieces
    rim = border(part.triangles)
    assert (np.bincount(rim.ravel())[np.unique(rim)] == 2).all()  # loops, which touch nowhere
    assert n_pieces(rim) == openings


@pytest.mark.parametrize("name", ("face", "facial_skin"))
def test_the_edge_of_the_face_is_smooth(model, name):
    """From vertex to vertex it turns by less than 45 degrees, a staircase by 90."""
    part = model.subset(name)
    rim = border(part.triangles)
    outer = np.unique(rim[part.mean_shape[rim][:, :, 2].max(axis=1) > 0.09])
    at = int(outer[0])
    loop, before = [at], -1
    while True:
        ends = rim[(rim == at).any(axis=1)]
        onward = [int(v) for v in ends[ends != at] if v != before]
        before, at = at, onward[0]
        if at == loop[0]:
            break
        loop.append(at)
    points = part.mean_shape[loop]
    assert np.ptp(points[:, 2]) > 0.2  # forehead to chin
    step = np.roll(points, -1, axis=0) - points
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    turn = np.degrees(np.arccos(np.clip((step * np.roll(step, 1, axis=0)).sum(axis=1), -1, 1)))
    assert turn.max() < 45
    assert (part.symmetry >= 0).all()


def test_ears_are_in_a_part_wholly_or_not_at_all(model):
    ear = model.regions == model.region_names.index("ear")
    assert ear.sum() > 100
    for name, members in model.subsets.items():
        assert members[ear].all() or not members[ear].any(), name


def test_a_vertex_without_a_triangle_is_in_no_part():
    triangles = np.array([[0, 1, 2], [1, 2, 3]])
    assert covered(triangles, np.array([1, 1, 1, 0, 1], bool)).tolist() == [1, 1, 1, 0, 0]
    assert not covered(triangles, np.zeros(5, bool)).any()
