"""What is logged of meshes, told by a stand-in for the package rerun-sdk."""

from types import SimpleNamespace

import numpy as np
import pytest

from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.nodes.mesh_log import MeshLog, TexturedTopology

HEAD = load_morphable_model(find_model(FACE_MODEL), level="coarse")
MODEL = HEAD.subset("face")
COORDINATES = MODEL.uvs[MODEL.uv_triangles]
TEXTURE = np.zeros((4, 4, 3), np.uint8)
AHEAD = np.array([0.0, 0.0, 0.6])


class Recording:
    """Remembers what was logged: (path, what), of meshes the fields."""

    Mesh3D = SimpleNamespace(from_fields=lambda **fields: fields)
    components = SimpleNamespace(ImageFormat=lambda *size, **_: size)

    def __init__(self):
        self.logged = []

    def Clear(self, recursive):  # noqa: N802, as rerun names it
        return "gone"

    def log(self, path, what):
        self.logged.append((path, what))


@pytest.fixture
def recording():
    return Recording()


@pytest.fixture
def meshes(recording):
    made = MeshLog(recording)
    made.set_topology(MODEL.triangles, MODEL.mean_shape)
    return made


def show(meshes, stamp, *places):
    """Logs a mesh at each place; returns the fields of each."""
    before = len(meshes._rerun.logged)
    vertices = np.array([MODEL.mean_shape + place for place in places], np.float32)
    vertices = vertices.reshape(-1, MODEL.n_vertices, 3)
    colours = np.zeros(vertices.shape, np.uint8)
    assert meshes.log(vertices, colours, stamp)
    return meshes._rerun.logged[before:]


def test_corners_keep_their_place_and_their_texture():
    """Of the whole head, which has seams: the first vertices alone would not do."""
    coordinates = HEAD.uvs[HEAD.uv_triangles]
    split = TexturedTopology.of(HEAD.triangles, coordinates)
    assert len(split.vertex) > HEAD.n_vertices
    np.testing.assert_array_equal(split.vertex[split.triangles], HEAD.triangles)
    np.testing.assert_allclose(split.uvs[split.triangles] * [1, -1] + [0, 1], coordinates)
    empty = TexturedTopology.of(np.zeros((0, 3), np.int32), np.zeros((0, 3, 2), np.float32))
    assert len(empty.vertex) == len(empty.triangles) == 0


def test_nothing_without_a_topology(recording):
    assert not MeshLog(recording).log(np.zeros((1, 5, 3), np.float32), None, 0.0)
    assert recording.logged == []


def test_colours_where_there_is_no_texture(meshes):
    ((path, first),) = show(meshes, 0.0, AHEAD)
    assert path == "camera/face_0" and first["clear_unset"]
    assert len(first["triangle_indices"]) == len(MODEL.triangles)
    ((_, second),) = show(meshes, 0.1, AHEAD)
    assert set(second) == {"clear_unset", "vertex_positions", "vertex_colors"}
    assert not second["clear_unset"]
    assert show(meshes, 0.2) == [("camera/face_0", "gone")]


def test_a_texture_is_sent_when_it_changes_and_now_and_then(meshes):
    """Not with each image: it is ten times as large as the mesh."""
    meshes.set_coordinates(COORDINATES)
    meshes.heads["ada"] = 0.0, AHEAD
    meshes.textures["ada"] = TEXTURE
    sent = []
    for k in range(120):  # 12 s at 10 Hz
        meshes.heads["ada"] = 0.1 * k, AHEAD
        if k == 50:
            meshes.textures["ada"] = TEXTURE + 1
        ((path, fields),) = show(meshes, 0.1 * k, AHEAD)
        assert path == "camera/face_ada"
        assert len(fields["vertex_positions"]) == len(fields["vertex_colors"])
        assert np.ptp(fields["vertex_colors"]) > 50  # light, not the colours, which are black
        if buffer := fields.get("albedo_texture_buffer"):
            assert fields["albedo_texture_format"] == (4, 4)
            assert len(fields["vertex_texcoords"]) == len(fields["vertex_positions"])
            sent.append((k, buffer[0]))
    assert sent == [(0, 0), (50, 1)]
    meshes.heads["ada"] = 15.0, AHEAD
    ((_, fields),) = show(meshes, 15.0, AHEAD)  # for pages that come late
    assert fields["clear_unset"] and "albedo_texture_buffer" in fields


def test_what_was_shown_before_its_texture_is_cleared(meshes):
    show(meshes, 0.0, AHEAD)
    meshes.set_coordinates(COORDINATES)
    meshes.heads["ada"] = 0.1, AHEAD
    logged = show(meshes, 0.1, AHEAD)
    assert [path for path, _ in logged] == ["camera/face_ada", "camera/face_0"]
    assert logged[0][1]["clear_unset"] and logged[1][1] == "gone"


def test_textures_go_with_people_not_with_rows(meshes):
    meshes.set_coordinates(COORDINATES)
    aside = np.array([0.3, 0.0, 0.6])
    meshes.textures.update(ada=TEXTURE, bob=TEXTURE + 9)
    meshes.heads.update(ada=(0.0, AHEAD), bob=(0.0, aside))
    for places, names in (((AHEAD, aside), "ada bob"), ((aside, AHEAD), "bob ada")):
        logged = show(meshes, 0.1, *places)
        assert [path.removeprefix("camera/face_") for path, _ in logged] == names.split()
    show(meshes, 0.2, AHEAD + 1.0)  # nobody that is known
    assert meshes._rerun.logged[-3][0] == "camera/face_0"
    show(meshes, 30.0)
    assert meshes._rerun.logged[-1] == ("camera/face_0", "gone")
    assert not meshes.heads and not meshes.textures  # of the past
