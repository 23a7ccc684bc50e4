"""The decoder as a graph computes what the decoder in numpy computes."""

import numpy as np
import onnxruntime as ort
import pytest

from face_recon_ros.core import decoder_graph as module
from face_recon_ros.core.decoder_graph import (
    INPUTS,
    OUTPUTS,
    GraphDecoder,
    choose_decoder,
    decode_seconds,
    decoder_graph,
)
from face_recon_ros.core.decoding import MeshDecoder
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.illumination import shade
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import VertexNormals, load_morphable_model
from face_recon_ros.core.onnx_file import external_tensors
from face_recon_ros.core.onnx_writer import Graph
from face_recon_ros.core.rigid import Rigid, rotation_from_vector

MM = 1e-3


@pytest.fixture(scope="module")
def shipped():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse").subset("face")


def session(content):
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"])


def coefficients(model, n, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        "identity": 1.5 * rng.standard_normal((n, model.k_identity)),
        "expression": rng.random((n, model.k_expression)),
        "albedo": rng.standard_normal((n, model.k_albedo)),
        "rotation": [rotation_from_vector(v) for v in 2 * rng.standard_normal((n, 3))],
        "illumination": 0.4 * rng.standard_normal((n, 9, 3)) + np.eye(9)[:, :1] * 0.9,
    }
    shapes = {"rotation": (n, 3, 3), "illumination": (n, 9, 3)}
    return {
        key: np.asarray(value, np.float32).reshape(shapes.get(key, (n, -1)))
        for key, value in values.items()
    }


def in_numpy(model, given):
    normals_of = VertexNormals(model.triangles, model.n_vertices)
    for k in range(len(given["identity"])):
        vertices = model.vertices(given["identity"][k], given["expression"][k])
        normals = normals_of(vertices) @ given["rotation"][k].T
        colours = shade(model.albedo(given["albedo"][k]), normals, given["illumination"][k])
        yield vertices, normals, colours


def check(model, n, seed=0):
    given = coefficients(model, n, seed)
    got = session(decoder_graph(model)).run(list(OUTPUTS), given)
    assert [a.shape for a in got] == [(n, model.n_vertices, 3)] * 3
    for k, (vertices, normals, colours) in enumerate(in_numpy(model, given)):
        assert np.abs(got[0][k] - vertices).max() < 0.01 * MM
        assert np.abs(got[1][k] - normals).max() < 1e-3
        assert np.abs(got[2][k] - colours).max() < 1 / 255


@pytest.mark.parametrize("n", [1, 3])
def test_the_graph_agrees_with_numpy_to_a_hundredth_of_a_millimetre(shipped, n):
    check(shipped, n)


def test_a_head_to_which_not_all_vertices_have_triangles(face_model_path):
    check(load_morphable_model(face_model_path, level="coarse"), 2, seed=1)


def test_no_face_no_rows(shipped):
    given = {name: value[:0] for name, value in coefficients(shipped, 1).items()}
    for rows in session(decoder_graph(shipped)).run(list(OUTPUTS), given):
        assert rows.shape == (0, shipped.n_vertices, 3)


def test_faces_do_not_see_each_other(shipped):
    """The laws of a batch: any order, any company, the same face."""
    run = session(decoder_graph(shipped)).run
    given = coefficients(shipped, 4, seed=2)
    together = run(list(OUTPUTS), given)
    backwards = run(list(OUTPUTS), {name: value[::-1].copy() for name, value in given.items()})
    alone = [run(list(OUTPUTS), {n: v[k : k + 1] for n, v in given.items()}) for k in range(4)]
    for i in range(len(OUTPUTS)):
        np.testing.assert_allclose(backwards[i][::-1], together[i], atol=1e-5)
        np.testing.assert_allclose(np.concatenate([a[i] for a in alone]), together[i], atol=1e-5)


def test_the_graph_is_a_whole_onnx_file(shipped):
    onnx = pytest.importorskip("onnx", reason="needs onnx (pip extra train)")
    content = decoder_graph(shipped)
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == list(INPUTS)
    assert [o.name for o in model.graph.output] == list(OUTPUTS)
    assert {p.key: p.value for p in model.metadata_props} == {"face_model": shipped.name}
    assert external_tensors(content) == []


def test_the_writer_writes_what_onnx_runtime_reads():
    graph = Graph({"x": ("N", 2)}, {"y": ("N", 2)}, {"key": "value ä"})
    weight = graph.constant(np.array([[1, 2], [3, 4]], np.float32))
    flipped = graph.node("Gather", weight, graph.constant(np.array([-1, 0])), axis=0)
    graph.node("MatMul", "x", flipped, output="y")
    opened = session(graph.serialised())
    assert opened.get_modelmeta().custom_metadata_map == {"key": "value ä"}
    (y,) = opened.run(["y"], {"x": np.array([[1, 10]], np.float32)})
    assert y.tolist() == [[13, 24]]


@pytest.mark.parametrize("n", [0, 2])
def test_the_decoder_by_graph_answers_as_the_one_in_steps(shipped, n):
    given = {name: value[:n] for name, value in coefficients(shipped, 2, seed=3).items()}
    poses = [Rigid(r.astype(np.float64), np.zeros(3)) for r in given["rotation"]]
    steps = MeshDecoder(shipped)
    vertices = steps.express(steps.neutral(given["identity"]), given["expression"])
    normals = steps.normals(vertices, poses)
    colours = steps.colours(normals, steps.reflectance(given["albedo"]), given["illumination"])
    got = GraphDecoder(shipped, provider="cpu", threads=1)(
        given["identity"], given["expression"], given["albedo"], poses, given["illumination"]
    )
    for ours, theirs, tolerance in zip(
        got, (vertices, normals, colours), (1e-5, 1e-3, 4e-3), strict=True
    ):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=tolerance)


def test_the_decoder_is_chosen_by_measurement_on_a_gpu_only(shipped, monkeypatch):
    assert choose_decoder("auto", shipped) is None
    assert choose_decoder("numpy", shipped) is None
    graph = choose_decoder("graph", shipped, threads=1)
    assert isinstance(graph, GraphDecoder)
    assert all(seconds > 0 for seconds in decode_seconds(shipped, graph, 2, rounds=1))
    with pytest.raises(ConfigError, match="numpy"):
        choose_decoder("cupy", shipped)

    class OnGpu(GraphDecoder):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.session.provider = "CUDAExecutionProvider"

    monkeypatch.setattr(module, "gpu_works", lambda provider: True)
    monkeypatch.setattr(module, "GraphDecoder", OnGpu)
    for seconds, chosen in (((1.0, 2.0), True), ((2.0, 1.0), False)):
        monkeypatch.setattr(module, "decode_seconds", lambda *_, faces, s=seconds: s)
        assert (choose_decoder("auto", shipped) is not None) == chosen
