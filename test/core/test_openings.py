"""Nothing is seen through a mesh's mouth."""

from dataclasses import replace

import numpy as np

from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.openings import Openings, closed
from face_recon_ros.core.types import Mesh

FACE = load_morphable_model(find_model(FACE_MODEL), level="coarse").subset("face")


def opened(width):
    """The face with its jaw open so far."""
    expression = np.zeros(FACE.k_expression, np.float32)
    expression[FACE.expression_names.index("jawOpen")] = width
    vertices = FACE.vertices(np.zeros(FACE.k_identity), expression)
    return Mesh(vertices, FACE.triangles, np.full_like(vertices, 0.5))


def one_sided(triangles):
    """Sides that one triangle has alone."""
    sides = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, count = np.unique(sides, axis=0, return_counts=True)
    return edges[count == 1]


def test_every_inner_opening_has_an_inside_that_faces_outwards():
    mesh = opened(1.0)
    solid = closed(mesh)
    rims = Openings(mesh.triangles, mesh.vertices).rims
    lips = max(rims, key=len)
    assert 0.02 < np.ptp(mesh.vertices[lips, 1]) < 0.06
    added = solid.triangles[len(mesh.triangles) :]
    assert len(added) == sum(map(len, rims))
    a, b, c = solid.vertices[added.T]
    area = np.cross(b - a, c - a)
    of_mouth = np.abs(a - mesh.vertices[lips].mean(axis=0)).max(axis=1) < 0.04
    assert area[of_mouth, 0].sum() > 1e-4  # x points out of the face
    outer = len(one_sided(mesh.triangles)) - sum(map(len, rims))
    assert outer > 50


def test_a_grin_shows_teeth_and_a_shout_does_not():
    def middle(mesh):
        solid = closed(mesh)
        mouth = np.array([-0.015, 0.0, -0.075])
        inside = slice(len(mesh.vertices), None)
        nearest = np.linalg.norm(solid.vertices[inside] - mouth, axis=1).argmin()
        return solid.colours[inside][nearest].mean()

    assert middle(opened(0.1)) > 0.6 > 0.25 > middle(opened(1.0))


def test_nothing_to_close():
    empty = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    assert len(closed(empty).triangles) == 0
    one = Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32))
    assert len(closed(one).triangles) == 1
    assert closed(replace(opened(0.5), colours=None)).colours is None
