"""The decoder as an ONNX graph: coefficients -> vertices, normals, colours, all faces in a batch.

It computes what `MorphableModel`, `VertexNormals` and `illumination.shade` do in numpy, on the
device that the network runs on. Inside, coordinates are planes, (N, 3, V), so that gathering along
triangles reads whole rows.

Contract of the graph, float32:
    inputs  `identity` (N, K_id), `expression` (N, K_exp), `albedo` (N, K_alb), `rotation`
            (N, 3, 3) crop_from_face, `illumination` (N, 9, 3)
    outputs `vertices` (N, V, 3) metres, face frame; `normals` (N, V, 3) unit, crop camera frame;
            `colours` (N, V, 3) sRGB-encoded in [0, 1]
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop_pose import crop_from_face
from face_recon_ros.core.decoding import MeshDecoder
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.illumination import GAMMA, MIN_SHADING, N_BANDS
from face_recon_ros.core.morphable_model import MorphableModel, VertexNormals
from face_recon_ros.core.onnx_session import PROVIDERS, OnnxSession, gpu_works
from face_recon_ros.core.onnx_writer import Graph
from face_recon_ros.core.rigid import Rigid

#: Which decoder is at work: `auto` measures where a GPU is at work, and is numpy elsewhere.
AUTO, NUMPY, GRAPH = "auto", "numpy", "graph"
_ROUNDS = 20
INPUTS = ("identity", "expression", "albedo", "rotation", "illumination")
OUTPUTS = ("vertices", "normals", "colours")
_FACES = "N"


class GraphDecoder:
    """The graph as a session: what `MeshDecoder` makes in steps, in one run on the device.

    Attributes:
        session: of ONNX Runtime.
    """

    def __init__(self, model: MorphableModel, *, provider: str = "auto", threads: int = 0) -> None:
        """Builds the graph and opens it; see `OnnxSession`."""
        content = decoder_graph(model)
        self.session = OnnxSession(
            "decoder", provider=provider, threads=threads, content=content, exact=True
        )

    def __call__(
        self,
        identity: Sequence[NDArray[np.float32]] | NDArray[np.float32],
        expression: NDArray[np.float32],
        albedo: Sequence[NDArray[np.float32]] | NDArray[np.float32],
        poses: Sequence[Rigid],
        illumination: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Decodes N faces; N may be 0.

        Args:
            identity: (N, K_id).
            expression: (N, K_exp).
            albedo: (N, K_alb).
            poses: N, crop_from_face.
            illumination: (N, 9, 3).

        Returns:
            As of `MeshDecoder`: vertices (N, V, 3) metres, face frame; normals (N, 3, V) unit,
            crop camera frame; colours (N, V, 3) sRGB-encoded in [0, 1].
        """
        rotation = [pose.rotation for pose in poses]
        values = (identity, expression, albedo, rotation, illumination)
        given = {
            name: np.asarray(value, np.float32).reshape(len(poses), *self.session.shapes[name][1:])
            for name, value in zip(INPUTS, values, strict=True)
        }
        vertices, normals, colours = self.session.run(list(OUTPUTS), given)
        return vertices, normals.transpose(0, 2, 1), colours


def choose_decoder(
    wanted: str, model: MorphableModel, *, provider: str = "auto", threads: int = 0
) -> GraphDecoder | None:
    """The graph where it is wanted, or faster than numpy on this machine; else None.

    Args:
        wanted: `auto`, `numpy`, `graph`.
        model: at its level and cut to its part.
        provider: see `OnnxSession`.
        threads: of the CPU provider; 0 takes all cores.
    """
    if wanted not in (AUTO, NUMPY, GRAPH):
        raise ConfigError(f"decoder {AUTO}, {NUMPY} or {GRAPH}", repr(wanted), "choose one")
    if wanted == NUMPY or (wanted == AUTO and not gpu_works(provider)):
        return None
    graph = GraphDecoder(model, provider=provider, threads=threads)
    if wanted == GRAPH:
        return graph
    if graph.session.provider == PROVIDERS["cpu"]:
        return None
    with_graph, in_numpy = decode_seconds(model, graph, faces=1)
    return graph if with_graph < in_numpy else None


def decode_seconds(
    model: MorphableModel, graph: GraphDecoder, faces: int, rounds: int = _ROUNDS
) -> tuple[float, float]:
    """Median seconds that some faces of known people take: by the graph, and in numpy."""
    steps = MeshDecoder(model)
    identity = np.zeros((faces, model.k_identity), np.float32)
    expression = np.zeros((faces, model.k_expression), np.float32)
    albedo = np.zeros((faces, model.k_albedo), np.float32)
    illumination = np.zeros((faces, N_BANDS, 3), np.float32)
    poses = [crop_from_face(np.zeros(3), np.array([0.0, 0.0, 1.0]))] * faces
    neutral, skin = steps.neutral(identity), steps.reflectance(albedo)
    taken = np.zeros((2, rounds))
    for k in range(rounds):
        start = time.perf_counter()
        graph(identity, expression, albedo, poses, illumination)
        between = time.perf_counter()
        vertices = steps.express(neutral, expression)
        steps.colours(steps.normals(vertices, poses), skin, illumination)
        taken[:, k] = between - start, time.perf_counter() - between
    with_graph, in_numpy = np.median(taken, axis=1)
    return float(with_graph), float(in_numpy)


def decoder_graph(model: MorphableModel) -> bytes:
    """The decoder of one face model.

    Args:
        model: at its level, cut to its part.

    Returns:
        The content of an ONNX file. It holds the bases, so it is about as large as `model`.
    """
    v = model.n_vertices
    graph = Graph(
        inputs={
            "identity": (_FACES, model.k_identity),
            "expression": (_FACES, model.k_expression),
            "albedo": (_FACES, model.k_albedo),
            "rotation": (_FACES, 3, 3),
            "illumination": (_FACES, N_BANDS, 3),
        },
        outputs=dict.fromkeys(OUTPUTS, (_FACES, v, 3)),
        metadata={"face_model": model.name},
    )
    shape_basis = np.concatenate([model.identity_basis, model.expression_basis], axis=1)
    shape = graph.node("Concat", "identity", "expression", axis=1)
    vertices = _linear(graph, shape, shape_basis, model.mean_shape)
    _rows(graph, vertices, "vertices")
    outward = _normals(graph, vertices, model)
    normals = graph.node("MatMul", "rotation", outward)
    _rows(graph, normals, "normals")
    reflectance = _clip(
        graph, _linear(graph, "albedo", model.albedo_basis, model.mean_albedo), 0.0, 1.0
    )
    light = graph.node(
        "MatMul",
        graph.node("Transpose", "illumination", perm=[0, 2, 1]),
        _harmonics(graph, normals),
    )
    lit = graph.node(
        "Pow", graph.node("Max", light, _scalar(graph, MIN_SHADING)), _scalar(graph, 1 / GAMMA)
    )
    colours = _clip(graph, graph.node("Mul", reflectance, lit), 0.0, 1.0)
    _rows(graph, colours, "colours")
    return graph.serialised()


def _linear(
    graph: Graph, coefficients: str, basis: NDArray[np.float32], mean: NDArray[np.float32]
) -> str:
    """(N, 3, V) mean (V, 3) and basis (V * 3, K) weighted by coefficients (N, K)."""
    v = len(mean)
    planes = basis.reshape(v, 3, -1).transpose(1, 0, 2).reshape(3 * v, -1)
    moved = graph.node("MatMul", coefficients, graph.constant(np.ascontiguousarray(planes.T)))
    placed = graph.node("Add", moved, graph.constant(mean.T.reshape(1, -1)))
    return graph.node("Reshape", placed, graph.constant(np.array([-1, 3, v])))


def _normals(graph: Graph, vertices: str, model: MorphableModel) -> str:
    """(N, 3, V) unit normals of planes (N, 3, V), weighted by area."""
    corners = [
        graph.node("Gather", vertices, graph.constant(k.astype(np.int64)), axis=2)
        for k in model.triangles.T
    ]
    a, b = (_planes(graph, graph.node("Sub", corner, corners[0])) for corner in corners[1:])
    cross = [
        graph.node("Sub", graph.node("Mul", a[i], b[j]), graph.node("Mul", a[j], b[i]))
        for i, j in ((1, 2), (2, 0), (0, 1))
    ]
    faces = graph.node("Concat", *cross, axis=1)
    # A column of zeros, for vertices with fewer triangles than others.
    padded = graph.node("Pad", faces, graph.constant(np.array([0, 0, 0, 0, 0, 1])))
    incidence = VertexNormals(model.triangles, model.n_vertices).incidence
    around = graph.node("Gather", padded, graph.constant(incidence.T.astype(np.int64)), axis=2)
    total = graph.node("ReduceSum", around, graph.constant(np.array([3])), keepdims=0)
    length = graph.node("ReduceL2", total, axes=[1], keepdims=1)
    return graph.node("Div", total, graph.node("Max", length, _scalar(graph, 1e-20)))


def _harmonics(graph: Graph, normals: str) -> str:
    """(N, 9, V) of `illumination.sh_basis`, of normals (N, 3, V)."""
    x, y, z = _planes(graph, normals)
    s3, s5, s15 = np.sqrt(3.0), np.sqrt(5.0), np.sqrt(15.0)

    def times(factor: float, value: str) -> str:
        return graph.node("Mul", value, _scalar(graph, factor))

    def product(p: str, q: str) -> str:
        return graph.node("Mul", p, q)

    one = _scalar(graph, 1.0)
    bands = [
        graph.node("Add", times(0.0, x), one),
        times(s3, y),
        times(s3, z),
        times(s3, x),
        times(s15, product(x, y)),
        times(s15, product(y, z)),
        times(s5 / 2, graph.node("Sub", times(3.0, product(z, z)), one)),
        times(s15, product(x, z)),
        times(s15 / 2, graph.node("Sub", product(x, x), product(y, y))),
    ]
    return graph.node("Concat", *bands, axis=1)


def _planes(graph: Graph, value: str) -> list[str]:
    """The three planes (N, 1, M) of (N, 3, M)."""
    return [
        graph.node("Gather", value, graph.constant(np.array([axis])), axis=1) for axis in range(3)
    ]


def _rows(graph: Graph, planes: str, output: str) -> None:
    graph.node("Transpose", planes, output=output, perm=[0, 2, 1])


def _clip(graph: Graph, value: str, low: float, high: float) -> str:
    return graph.node("Clip", value, _scalar(graph, low), _scalar(graph, high))


def _scalar(graph: Graph, value: float) -> str:
    return graph.constant(np.array(value, np.float32))
