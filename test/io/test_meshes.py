"""Laws of mesh files: what is written is read, and damage is told, never crashed upon."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.types import Mesh
from face_recon_ros.io.meshes import read_mesh, write_mesh, write_obj, write_ply

WRITERS = {
    "binary.ply": write_ply,
    "ascii.ply": lambda path, mesh: write_ply(path, mesh, ascii=True),
    "mesh.obj": write_obj,
}


def random_mesh(n=7, f=9, coloured=True, seed=0):
    rng = np.random.default_rng(seed)
    return Mesh(
        rng.normal(0, 0.1, (n, 3)).astype(np.float32),
        rng.integers(0, n, (f, 3)).astype(np.int32) if n else np.zeros((0, 3), np.int32),
        (rng.integers(0, 256, (n, 3)) / 255).astype(np.float32) if coloured else None,
    )


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("coloured", [True, False])
@pytest.mark.parametrize("n, f", [(7, 9), (5, 0), (0, 0)])
def test_what_is_written_is_read(tmp_path, name, coloured, n, f):
    mesh = random_mesh(n, f, coloured)
    WRITERS[name](tmp_path / name, mesh)
    again = read_mesh(tmp_path / name)
    np.testing.assert_array_equal(again.vertices, mesh.vertices)
    np.testing.assert_array_equal(again.triangles, mesh.triangles)
    assert again.vertices.dtype == np.float32 and again.triangles.dtype == np.int32
    if coloured and (n or name != "mesh.obj"):
        np.testing.assert_allclose(again.colours, mesh.colours, atol=1e-6)
    else:
        assert again.colours is None


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_the_suffix_chooses(tmp_path, suffix):
    write_mesh(tmp_path / f"m{suffix}", random_mesh())
    np.testing.assert_array_equal(
        read_mesh(tmp_path / f"m{suffix}").vertices, random_mesh().vertices
    )


ASCII = """ply
format ascii 1.0
comment by somebody else
element vertex 4
property double x
property double y
property double z
property float nx
property uchar red
property uchar green
property uchar blue
property uchar alpha
element face 2
property uchar flags
property list uchar uint vertex_index
element edge 1
property int vertex1
property int vertex2
end_header
0 0 0 9 255 0 0 255
1 0 0 9 0 255 0 255
1 1 0 9 0 0 255 255
0 1 0 9 0 0 0 255
7 4 0 1 2 3
7 3 0 1 2
0 1
"""


def check_quads(mesh):
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    np.testing.assert_allclose(mesh.colours[0], [1, 0, 0])
    np.testing.assert_allclose(mesh.vertices[2], [1, 1, 0])


def test_other_peoples_ply(tmp_path):
    (tmp_path / "m.ply").write_text(ASCII)
    check_quads(read_mesh(tmp_path / "m.ply"))
    (tmp_path / "m.ply").write_bytes(ASCII.replace("\n", "\r\n").encode())
    check_quads(read_mesh(tmp_path / "m.ply"))


@pytest.mark.parametrize("order, name", [("<", "little"), (">", "big")])
def test_other_peoples_binary_ply(tmp_path, order, name):
    """Mixed polygons, further properties, either byte order."""
    header = ASCII[: ASCII.index("end_header")].replace("ascii", f"binary_{name}_endian")
    vertex = np.dtype([("p", order + "f8", 3), ("n", order + "f4"), ("c", "u1", 4)])
    rows = np.zeros(4, vertex)
    rows["p"] = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    rows["c"][:3, :3] = 255 * np.eye(3)
    body = rows.tobytes()
    for corners in ([0, 1, 2, 3], [0, 1, 2]):
        body += bytes([7, len(corners)]) + np.array(corners, order + "u4").tobytes()
    body += np.array([0, 1], order + "i4").tobytes()
    (tmp_path / "m.ply").write_bytes(header.encode() + b"end_header\n" + body)
    check_quads(read_mesh(tmp_path / "m.ply"))


def test_other_peoples_obj(tmp_path):
    text = """# exported
mtllib a.mtl
o head
v 0 0 0 1 0 0
v 1 0 0 0 1 0
v 1 1 0 0 0 1
v 0 1 0 0 0 0
vt 0 0
vn 0 0 1
usemtl skin
f 1/1/1 2/1/1 3//1 4 # a quad
f -4 -3 -2
"""
    (tmp_path / "m.obj").write_text(text)
    check_quads(read_mesh(tmp_path / "m.obj"))


@pytest.mark.parametrize(
    "name, text",
    [
        ("m.ply", ""),
        ("m.ply", "ply\n"),
        ("m.ply", ASCII.replace("ascii", "utf8")),
        ("m.ply", ASCII.replace("double x", "quadruple x")),
        ("m.ply", ASCII.replace("double x", "double a")),
        ("m.ply", ASCII.replace("vertex 4", "vertex -4")),
        ("m.ply", ASCII.replace("vertex 4", "vertex 1000000000000")),
        ("m.ply", ASCII.replace("vertex 4", "vertex four")),
        ("m.ply", ASCII.replace("3 0 1 2\n", "3 0 1 7\n")),
        ("m.ply", ASCII.replace("3 0 1 2\n", "5 0 1 2\n")),
        ("m.ply", ASCII.replace("3 0 1 2\n", "2 0 1\n")),
        ("m.ply", ASCII.replace("1 1 0 9", "nan 1 0 9")),
        ("m.ply", ASCII.replace("1 1 0 9", "one 1 0 9")),
        ("m.ply", ASCII.replace("element vertex", "property x\nelement vertex")),
        ("m.obj", "v 1 2\n"),
        ("m.obj", "v 1 2 3\nf 1 1 2\n"),
        ("m.obj", "v 1 2 3\nf 0 1 1\n"),
        ("m.obj", "v 1 2 3\nf 1 1\n"),
        ("m.obj", "v 1 2 x\n"),
        ("m.stl", "solid"),
    ],
)
def test_damage_is_told_in_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as fault:
        read_mesh(tmp_path / name)
    assert "\n" not in str(fault.value)


def test_missing_files_and_unknown_formats(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_mesh(tmp_path / "none.ply")
    with pytest.raises(DataError, match="one of these formats"):
        write_mesh(tmp_path / "m.stl", random_mesh())


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_crashes_the_reader(tmp_path_factory, name, data):
    """Any byte changed, dropped or cut: a mesh or a DataError, nothing else."""
    path = tmp_path_factory.mktemp("mesh") / name
    WRITERS[name](path, random_mesh())
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["change", "drop", "cut"])):
        case "change":
            content[at] = data.draw(st.integers(0, 255))
        case "drop":
            del content[at]
        case "cut":
            del content[at:]
    path.write_bytes(bytes(content))
    try:
        mesh = read_mesh(path)
    except DataError:
        return
    assert np.isfinite(mesh.vertices).all()
    assert mesh.triangles.size == 0 or mesh.triangles.max() < len(mesh.vertices)


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_trimesh_reads_what_was_written(suffix, tmp_path):
    """Vertices, triangles and colours, by a reader that is not ours."""
    trimesh = pytest.importorskip("trimesh")
    rng = np.random.default_rng(5)
    vertices = rng.normal(size=(12, 3)).astype(np.float32)
    triangles = np.arange(12, dtype=np.int32).reshape(4, 3)
    colours = rng.uniform(size=(12, 3)).astype(np.float32)
    write_mesh(tmp_path / f"a{suffix}", Mesh(vertices, triangles, colours))
    read = trimesh.load(tmp_path / f"a{suffix}", process=False, maintain_order=True)
    np.testing.assert_allclose(read.vertices, vertices, atol=1e-6)
    np.testing.assert_array_equal(read.faces, triangles)
    shown = np.asarray(read.visual.vertex_colors)[:, :3] / 255
    np.testing.assert_allclose(shown, colours, atol=0.005)
