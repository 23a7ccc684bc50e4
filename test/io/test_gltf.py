"""glTF and textured OBJ files, read by others: Khronos' validator and trimesh."""

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from likeness_picture import GROUND, SIDE, in_three

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.core.texture_atlas import TextureAtlas
from face_recon_ros.io.gltf import Animation, TexturedHead, glb_bytes, write_glb
from face_recon_ros.io.meshes import read_mesh
from face_recon_ros.io.textured_obj import write_textured_obj

VALIDATOR, THREE = "gltf-validator@2.0.0-dev.3.10", "three@0.180.0"
SCRIPT = """
const validator = require(process.argv[1] + '/gltf-validator'), fs = require('fs');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2]))).then(
  report => console.log(JSON.stringify(report)));
"""


@pytest.fixture(scope="module")
def node_modules():
    """The folder that holds Khronos' validator and three.js, which are fetched from npm once."""
    folder = Path(sys.prefix) / "lib" / "node_modules"
    if not all((folder / name).is_dir() for name in ("gltf-validator", "three")):
        if not (shutil.which("node") and shutil.which("npm")):
            pytest.skip("no node, no npm")
        command = ["npm", "install", "--prefix", str(folder.parent), "--no-save"]
        command += [VALIDATOR, THREE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"npm does not reach its registry: {done.stderr[-200:]}")
    return folder


@pytest.fixture(scope="module")
def head():
    model = load_morphable_model(find_model(FACE_MODEL))
    atlas = TextureAtlas(model, 256)
    texture = atlas.picture(atlas.spread(model.mean_albedo, slice(None)))
    moves = model.expression_basis.reshape(model.n_vertices, 3, -1)
    targets = {n: moves[:, :, k] for k, n in enumerate(model.expression_names)}
    return TexturedHead(
        model.mean_shape, model.triangles, atlas.uvs, model.uv_triangles, texture, targets
    )


@pytest.fixture(scope="module")
def animated(head):
    times = np.arange(5) / 30
    turns = [rotation_from_vector([0.0, 0.0, 0.1 * k]) for k in range(5)]
    weights = np.random.default_rng(0).uniform(size=(5, 52))
    return replace(head, animation=Animation(times, weights, np.array(turns), np.zeros((5, 3))))


def parsed(content):
    """JSON and binary chunk of a GLB."""
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size = struct.unpack("<I", content[12:16])[0]
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def validate(folder, path):
    done = subprocess.run(
        ["node", "-e", SCRIPT, str(folder), str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["head", "animated", "plain"])
def test_khronos_validator_finds_nothing(kind, request, node_modules, tmp_path):
    if kind == "plain":
        head = replace(request.getfixturevalue("head"), targets={})
    else:
        head = request.getfixturevalue(kind)
    write_glb(tmp_path / "a.glb", head)
    report = validate(node_modules, tmp_path / "a.glb")
    assert report["issues"]["numErrors"] == 0, report["issues"]["messages"]
    assert report["issues"]["numWarnings"] == 0, report["issues"]["messages"]
    assert report["info"]["animationCount"] == (kind == "animated")
    assert report["info"]["hasMorphTargets"] == (kind != "plain")


def test_three_js_shows_it_smiling_and_turned(head, node_modules, tmp_path):
    """In a browser, by the names of the expressions."""
    write_glb(tmp_path / "a.glb", head)
    picture = in_three(tmp_path / "a.glb", node_modules.parent).astype(int)
    neutral, smiling, turned = (picture[:, k * SIDE : (k + 1) * SIDE] for k in range(3))
    drawn = np.abs(picture - GROUND).max(axis=-1) > 20
    assert 0.1 < drawn[:, :SIDE].mean() < 0.6
    moved = np.abs(neutral - smiling).max(axis=-1) > 20
    rows, columns = np.nonzero(moved)
    assert moved.sum() > 100
    assert np.median(rows) > 0.55 * SIDE  # the lower half of the face
    assert abs(np.median(columns) - SIDE / 2) < 0.1 * SIDE
    assert (np.abs(smiling - turned).max(axis=-1) > 20).mean() > 0.1


def test_trimesh_reads_what_was_written(head, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    write_glb(tmp_path / "a.glb", head)
    scene = trimesh.load(tmp_path / "a.glb")
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == len(head.triangles)
    # y up, looking along z, metres: a head 0.26 m tall whose nose is its foremost point.
    size = np.ptp(mesh.vertices, axis=0)
    np.testing.assert_allclose(size, np.ptp(head.vertices, axis=0)[[1, 2, 0]], atol=1e-6)
    nose = mesh.vertices[mesh.vertices[:, 2].argmax()]
    assert abs(nose[0]) < 2e-3 and abs(nose[1]) < 0.06
    np.testing.assert_allclose(
        mesh.triangles.reshape(-1, 3),
        head.vertices[head.triangles.ravel()][:, [1, 2, 0]],
        atol=1e-6,
    )
    assert mesh.visual.material.baseColorTexture.size == (256, 256)
    outward = (mesh.vertex_normals * (mesh.vertices - mesh.vertices.mean(axis=0))).sum(axis=1)
    assert (outward > 0).mean() > 0.6
    uv = mesh.visual.uv
    assert uv.min() >= 0 and uv.max() <= 1


def test_trimesh_reads_the_obj_with_its_texture(head, tmp_path):
    """Every corner of every triangle has its place on the head and in the picture."""
    trimesh = pytest.importorskip("trimesh")
    files = write_textured_obj(tmp_path / "a.obj", head)
    assert [path.name for path in files] == ["a.obj", "a.mtl", "a.png"]
    mesh = trimesh.load(tmp_path / "a.obj", process=False)
    assert len(mesh.faces) == len(head.triangles)
    corners = head.vertices[head.triangles.ravel()]
    np.testing.assert_allclose(mesh.triangles.reshape(-1, 3), corners, atol=1e-6)
    uv = mesh.visual.uv[mesh.faces.ravel()]
    np.testing.assert_allclose(uv, head.uvs[head.uv_triangles.ravel()], atol=1e-5)
    assert (np.asarray(mesh.visual.material.image) == head.texture).all()
    ours = read_mesh(tmp_path / "a.obj")
    np.testing.assert_array_equal(ours.triangles, head.triangles)
    np.testing.assert_allclose(ours.vertices, head.vertices, atol=1e-7)
    with pytest.raises(DataError, match="choose another place"):
        write_textured_obj(tmp_path / "none" / "a.obj", head)


def test_expressions_are_named_and_say_how_far(head):
    content, blob = parsed(glb_bytes(head))
    (mesh,) = content["meshes"]
    names = mesh["extras"]["targetNames"]
    assert names == list(head.targets) and len(names) == 52 and "jawOpen" in names
    targets = mesh["primitives"][0]["targets"]
    accessor = content["accessors"][targets[names.index("jawOpen")]["POSITION"]]
    sparse = accessor["sparse"]
    view = content["bufferViews"][sparse["values"]["bufferView"]]
    start = view["byteOffset"]
    moved = np.frombuffer(blob[start : start + view["byteLength"]], "<f4").reshape(-1, 3)
    assert len(moved) == sparse["count"]
    assert moved[:, 1].min() == pytest.approx(head.targets["jawOpen"][:, 2].min(), abs=1e-6)
    assert accessor["min"][1] == pytest.approx(float(moved[:, 1].min()), abs=1e-6)


def test_a_clip_is_an_animation(animated):
    content, _ = parsed(glb_bytes(animated))
    (clip,) = content["animations"]
    samplers, accessors = clip["samplers"], content["accessors"]
    count = {
        channel["target"]["path"]: accessors[samplers[channel["sampler"]]["output"]]["count"]
        for channel in clip["channels"]
    }
    assert count == {"translation": 5, "rotation": 5, "weights": 5 * 52}


def test_other_suffixes_and_bad_places_are_refused(head, tmp_path):
    with pytest.raises(DataError, match="rename"):
        write_glb(tmp_path / "a.gltf", head)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another place"):
        write_glb(tmp_path / "file" / "a.glb", head)
