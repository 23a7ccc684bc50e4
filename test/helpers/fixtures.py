"""A world small enough to reason about: a face is a bright disc on black.

The face model is a dome of 81 control vertices. The network finds the disc of its crop by centroid
and area, so that its mesh covers the disc; who it is lies in the disc's colour. The detector finds
discs by connected components. All of them speak the real file formats and interfaces.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from face_recon_ros.core.crop import face_box_from_points
from face_recon_ros.core.crop_pose import CROP_FOCAL, crop_camera, crop_from_face
from face_recon_ros.core.morphable_model import MorphableModel, load_morphable_model
from face_recon_ros.core.rectification import CELLS, RECTIFIED_PX, Rectifier
from face_recon_ros.core.types import Detections

FACE_MODEL_NAME = "dome"
CROP_SIZE = 64
CROP_MARGIN = 1.5
K_IDENTITY, K_ALBEDO = 8, 4
_ARKIT = """
browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight
eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight
eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight
mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel
mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker
mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft
mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight
noseSneerLeft noseSneerRight tongueOut
"""
ARKIT_NAMES = tuple(_ARKIT.split())

_N = 9  # control vertices along each side of the dome


def write_face_model(path: Path) -> Path:
    """Writes a face model file (docs/face_model_format.md) with two levels of detail."""
    fine = np.stack(np.meshgrid(*[np.arange(2 * _N - 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    is_control = (fine % 2 == 0).all(axis=1)
    order = np.concatenate([np.flatnonzero(is_control), np.flatnonzero(~is_control)])
    fine = fine[order]  # control vertices first
    index = {tuple(rc): i for i, rc in enumerate(fine)}
    n_control, n_fine = _N * _N, len(fine)

    indptr, indices, weights = [0], [], []
    for r, c in fine:
        parents = sorted(
            {index[r - a, c - b] for a in {-(r % 2), r % 2} for b in {-(c % 2), c % 2}}
        )
        indices += parents
        weights += [1 / len(parents)] * len(parents)
        indptr.append(len(indices))

    def triangles(step: int) -> np.ndarray:
        out = []
        for r in range(0, 2 * _N - 2, step):
            for c in range(0, 2 * _N - 2, step):
                a, b = index[r, c], index[r, c + step]
                d, e = index[r + step, c], index[r + step, c + step]
                out += [(a, b, d), (b, e, d)]
        return np.array(out, np.int32)

    up, left = 1 - fine[:, 0] / (_N - 1), 1 - fine[:, 1] / (_N - 1)  # in [-1, 1], control spacing
    control = np.column_stack([-0.05 * (up**2 + left**2), 0.07 * left, 0.09 * up])[:n_control]
    subdivide = np.zeros((n_fine, n_control))
    for i in range(n_fine):
        subdivide[i, indices[indptr[i] : indptr[i + 1]]] = weights[indptr[i] : indptr[i + 1]]
    mean = subdivide @ control

    rng = np.random.default_rng(1)
    identity = 0.001 * rng.standard_normal((n_control, 3, K_IDENTITY))
    identity[..., 0] = 0.05 * control  # the first coefficient is the size
    expression = 0.0005 * rng.standard_normal((n_control, 3, len(ARKIT_NAMES)))
    lower = np.clip(-up[:n_control], 0, 1)
    expression[:, 2, ARKIT_NAMES.index("jawOpen")] = -0.02 * lower
    mirror = np.array([index[r, 2 * _N - 2 - c] for r, c in fine], np.int32)
    inside = np.maximum(abs(up), abs(left)) <= 0.75  # as wide at both levels
    uvs = np.column_stack([(1 - left) / 2, (1 + up) / 2])
    np.savez(
        path,
        format_version=np.int32(1),
        name=FACE_MODEL_NAME,
        licence="CC0-1.0",
        attribution="nobody",
        source="test/helpers/fixtures.py",
        units="metre",
        axes="x out of face, y to subject's left, z up, origin sellion",
        mean_shape=mean.astype(np.float32),
        identity_basis=identity.astype(np.float16),
        expression_basis=expression.astype(np.float16),
        expression_names=np.array(ARKIT_NAMES),
        expression_prior="unit_interval",
        mean_albedo=np.tile(np.float16([0.8, 0.6, 0.5]), (n_fine, 1)),
        albedo_basis=(0.02 * rng.standard_normal((n_control, 3, K_ALBEDO))).astype(np.float16),
        subdivision_indptr=np.array(indptr, np.int32),
        subdivision_indices=np.array(indices, np.int32),
        subdivision_data=np.array(weights, np.float32),
        triangles=triangles(1),
        coarse_triangles=triangles(2),
        uvs=uvs.astype(np.float16),
        uv_triangles=triangles(1),
        region_names=np.array(["face"]),
        regions=np.zeros(n_fine, np.uint8),
        subset_names=np.array(["face", "facial_skin"]),
        subsets=np.stack([np.ones(n_fine, bool), inside]),
        skin_attention=inside.astype(np.float16),
        symmetry=mirror,
        landmarks_68=np.arange(68, dtype=np.int32),
        sellion=np.int32(index[_N - 1, _N - 1]),
        interpupillary=np.int32([index[_N - 3, _N - 5], index[_N - 3, _N + 3]]),
    )
    return path


def write_network(path: Path, face_model: Path, *, size: int = CROP_SIZE) -> Path:
    """Writes an ONNX network that sees discs, for a face model file of `write_face_model`."""
    model = load_morphable_model(face_model)
    skin = model.mean_shape[model.subsets["facial_skin"]]
    camera = crop_camera(size)
    box = face_box_from_points(camera.project(crop_from_face([0, 0, 0], [0, 0, 1]).apply(skin)))
    focal_px, middle = CROP_FOCAL * size, (size - 1) / 2

    nodes, constants = [], []

    def const(name: str, value: object) -> str:
        array = np.asarray(value)
        dtype = np.float32 if array.dtype.kind == "f" else np.int64
        constants.append(numpy_helper.from_array(array.astype(dtype), name))
        return name

    def op(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    zero, axes = const("zero", 0.0), const("axes", [1, 2])
    rgb = op("Cast", ["image"], "rgb", to=TensorProto.FLOAT)
    scaled = op("Div", [rgb, const("white", 255.0)], "scaled")
    grey = op("ReduceMax", [scaled], "grey", axes=[3], keepdims=0)
    bright = op("Greater", [grey, const("threshold", 0.25)], "bright")
    disc = op("Cast", [bright], "disc", to=TensorProto.FLOAT)
    area = op("ReduceSum", [disc, axes], "area_0", keepdims=0)
    area = op("Max", [area, const("one_px", 1.0)], "area")
    grid = np.arange(size, dtype=np.float32) - middle

    def centroid(name: str, weights: np.ndarray) -> str:
        moment = op("Mul", [disc, const(f"grid_{name}", weights)], f"moment_{name}")
        total = op("ReduceSum", [moment, axes], f"total_{name}", keepdims=0)
        return op("Div", [total, area], f"centre_{name}")

    x_px = centroid("x", np.tile(grid, (size, 1)))
    y_px = centroid("y", np.tile(grid[:, None], (1, size)))
    root = op("Sqrt", [area], "root")
    # The mean face's box is nearly side_1 / (z + depth) pixels, a disc's 2 sqrt(area / pi).
    depth = 0.05
    side_1 = float(box[2] - box[0]) * (1 + depth)
    z_1 = op("Div", [const("side_1", side_1 * np.sqrt(np.pi / 4)), root], "z_1")
    z = op("Sub", [z_1, const("depth", depth)], "z")
    metres_per_px = op("Div", [z, const("focal", focal_px)], "metres_per_px")
    column = const("column", [-1, 1])
    parts = [
        op("Reshape", [part, column], f"{part}_column")
        for part in (
            op("Mul", [x_px, metres_per_px], "x"),
            op("Mul", [y_px, metres_per_px], "y"),
            z,
        )
    ]
    op("Concat", parts, "translation", axis=1)

    masked = op("Mul", [scaled, op("Unsqueeze", [disc, const("last", [3])], "mask")], "masked")
    colour_sum = op("ReduceSum", [masked, axes], "colour_sum", keepdims=0)
    colour = op("Div", [colour_sum, op("Reshape", [area, column], "area_column")], "colour")

    def linear(name: str, matrix: np.ndarray, bias: np.ndarray) -> str:
        product = op("MatMul", [colour, const(f"{name}_matrix", matrix)], f"{name}_product")
        return op("Add", [product, const(f"{name}_bias", bias)], f"{name}_linear")

    to_identity = np.zeros((3, K_IDENTITY))
    to_identity[0, 1] = to_identity[1, 2] = 1.0  # red and green tell who it is
    op("Identity", [linear("identity", to_identity, np.zeros(K_IDENTITY))], "identity")
    to_expression = np.zeros((3, len(ARKIT_NAMES)))
    to_expression[2, ARKIT_NAMES.index("jawOpen")] = 1.0  # blue opens the jaw
    op(
        "Max",
        [linear("expression", to_expression, np.zeros(len(ARKIT_NAMES))), zero],
        "expression",
    )
    op("Identity", [linear("albedo", np.zeros((3, K_ALBEDO)), np.zeros(K_ALBEDO))], "albedo")
    op("Identity", [linear("rotation", np.zeros((3, 3)), np.zeros(3))], "rotation")
    white = np.zeros((9, 3))
    white[0] = 1.0
    light = linear("light", np.zeros((3, 27)), white.ravel())
    op("Reshape", [light, const("sh", [-1, 9, 3])], "illumination")
    fill = op("Div", [area, const("pixels", float(size * size))], "fill")
    op("Reshape", [op("Min", [fill, const("one", 1.0)], "fill_1"), column], "identity_confidence")

    sizes = {
        "identity": [K_IDENTITY],
        "expression": [len(ARKIT_NAMES)],
        "albedo": [K_ALBEDO],
        "rotation": [3],
        "translation": [3],
        "illumination": [9, 3],
        "identity_confidence": [1],
    }
    graph = helper.make_graph(
        nodes,
        "disc",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", size, size, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
            for name, shape in sizes.items()
        ],
        constants,
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    meta = {
        "face_recon_format": "1",
        "face_model": FACE_MODEL_NAME,
        "crop_margin": str(CROP_MARGIN),
        "licence": "CC0-1.0",
    }
    helper.set_model_props(network, meta)
    onnx.checker.check_model(network)
    onnx.save(network, path)
    return path


def write_point_network(
    path: Path,
    face_model: Path,
    *,
    raised_m: float = 0.0,
    sigma_m: float = 0.001,
    independence: float = 0.05,
    step: int = 3,
    corrected: float | None = None,
    looks: bool = False,
) -> Path:
    """Writes a dense-point network that finds all points where the mean face has them.

    Args:
        path: where to.
        face_model: file of `write_face_model`, or any other.
        raised_m: metres by which the points lie higher than the mean's, in the upright picture.
        sigma_m: how sure it is of each, metres.
        independence: of its prior.
        step: every how many of the skin's vertices are points.
        corrected: what it adds to the regressor's coefficients; None: it does not look at them.
        looks: all points lie as far aside as the disc does in what it sees.

    Returns:
        `path`. Its presence is the brightness of what it sees, 1 from a quarter of white.
    """
    model = load_morphable_model(face_model, level="coarse")
    vertices = np.flatnonzero(model.subsets["facial_skin"])[::step]
    p = len(vertices)
    displacement = np.zeros((1, p, 2), np.float32)
    displacement[..., 1] = -raised_m
    constants = {
        "points": displacement,
        "sigmas": np.full((1, p), np.log(sigma_m), np.float32),
        "white": np.float32([255.0]),
        "axes": np.int64([1, 2, 3]),
        "zero": np.float32([0.0]),
        "one": np.float32([1.0]),
        "four": np.float32([4.0]),
        "axis": np.int64([1, 2]),
        "column": np.int64([-1, 1]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["rgb"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["rgb", "white"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "axes"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "column"], ["nothing_2"]),
        helper.make_node("Unsqueeze", ["nothing_2", "column_axis"], ["nothing_3"]),
        helper.make_node("ReduceSum", ["normals", "axes"], ["looks"], keepdims=0),
        helper.make_node("Mul", ["looks", "zero"], ["unseen"]),
        helper.make_node("Reshape", ["unseen", "column"], ["unseen_2"]),
        helper.make_node("Add", ["sigmas", "nothing_2"], ["sigma_1"]),
        helper.make_node("Add", ["sigma_1", "unseen_2"], ["log_sigma"]),
        helper.make_node("Add", ["points", "aside" if looks else "nothing_3"], ["displacement"]),
        helper.make_node("ReduceMean", ["scaled"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "four"], ["fourfold"]),
        helper.make_node("Min", ["fourfold", "one"], ["bright"]),
        helper.make_node("Reshape", ["bright", "column"], ["presence"]),
    ]
    if looks:
        constants |= _disc_in_the_grid(model)
        nodes[1:1] = [
            helper.make_node("ReduceMax", ["rgb"], ["grey"], axes=[3], keepdims=1),
            helper.make_node("Greater", ["grey", "dark"], ["is_disc"]),
            helper.make_node("Cast", ["is_disc"], ["disc"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["disc", "rows"], ["area"], keepdims=0),
            helper.make_node("Mul", ["disc", "places"], ["moments"]),
            helper.make_node("ReduceSum", ["moments", "rows"], ["moment"], keepdims=0),
            helper.make_node("Max", ["area", "one"], ["area_1"]),
            helper.make_node("Div", ["moment", "area_1"], ["centre"]),
            helper.make_node("Sub", ["centre", "middle"], ["off"]),
            helper.make_node("Mul", ["off", "metres"], ["off_m"]),
            helper.make_node("Unsqueeze", ["off_m", "first"], ["aside"]),
        ]
    constants["column_axis"] = np.int64([2])
    del constants["axis"]
    side, cells = RECTIFIED_PX, CELLS
    inputs = {"image": [side, side, 3], "normals": [cells, cells, 3]}
    outputs = {"displacement": [p, 2], "log_sigma": [p], "presence": [1]}
    if corrected is not None:
        constants["corrected"] = np.float32([corrected])
        nodes.append(helper.make_node("Add", ["regressed", "corrected"], ["coefficients"]))
        sizes = [model.k_identity + model.k_expression]
        inputs["regressed"], outputs["coefficients"] = sizes, sizes
    kinds = {"image": TensorProto.UINT8}
    values = [
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), ["n", *shape])
            for name, shape in sizes.items()
        ]
        for sizes in (inputs, outputs)
    ]
    graph = helper.make_graph(
        nodes,
        "points",
        *values,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    prior = {
        "rotation": 0.05,
        "translation": [0.01, 0.01, 0.03],
        "identity": 1.0,
        "expression": [0.2] * model.k_expression,
        "independence": independence,
    }
    helper.set_model_props(
        network,
        {
            "face_recon_points_format": "1",
            "face_model": model.name,
            "vertices": json.dumps(vertices.tolist()),
            "prior": json.dumps(prior),
        },
    )
    onnx.checker.check_model(network)
    onnx.save(network, path)
    return path


def _disc_in_the_grid(model: MorphableModel) -> dict[str, np.ndarray]:
    """Where the disc of the mean face's size is seen in a rectified picture, and how it moves."""
    grid = Rectifier(model).points.reshape(CELLS, CELLS, 3)
    y, z = (cv2.resize(grid[..., k], (RECTIFIED_PX, RECTIFIED_PX)) for k in (1, 2))
    skin = model.mean_shape[model.subsets["facial_skin"]]
    middle, radius = (skin.min(0) + skin.max(0)) / 2, np.ptp(skin[:, 1:]) / 4
    places = np.stack(np.meshgrid(*[np.arange(RECTIFIED_PX)] * 2), -1).astype(np.float32)

    def seen(right_m: float, down_m: float) -> np.ndarray:
        inside = np.hypot(y - middle[1] - right_m, z - middle[2] + down_m) < radius
        return places[inside].mean(0)

    step = 0.005
    moved = [seen(step, 0.0)[0] - seen(0.0, 0.0)[0], seen(0.0, step)[1] - seen(0.0, 0.0)[1]]
    return {
        "places": places[None],
        "middle": seen(0.0, 0.0).astype(np.float32)[None],
        "metres": np.float32([[step / px for px in moved]]),
        "rows": np.int64([1, 2]),
        "dark": np.float32([64.0]),
        "first": np.int64([1]),
    }


class Later(Executor):
    """Runs what it is given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, fn, args))
        return future

    def run(self) -> None:
        for future, fn, args in self.waiting:
            try:
                future.set_result(fn(*args))
            except Exception as fault:
                future.set_exception(fault)
        self.waiting.clear()


class DiscDetector:
    """Finds bright discs; `calls` counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, rgb: np.ndarray) -> Detections:
        """See `core.detection.Detector`."""
        self.calls += 1
        bright = (rgb if rgb.ndim == 2 else rgb.max(axis=2)) > 64
        n, _, stats, centres = cv2.connectedComponentsWithStats(bright.astype(np.uint8))
        if n == 1:
            return Detections.empty()
        half = np.sqrt(stats[1:, cv2.CC_STAT_AREA, None] / np.pi)
        boxes = np.concatenate([centres[1:] - half, centres[1:] + half], axis=1)
        return Detections(boxes.astype(np.float32), np.full(n - 1, 0.9, np.float32))


def draw_discs(
    width: int, height: int, *discs: tuple[float, float, float, tuple[int, int, int]]
) -> np.ndarray:
    """(height, width, 3) uint8 picture of discs: centre x, y, radius, RGB."""
    image = np.zeros((height, width, 3))
    ys, xs = np.mgrid[:height, :width]
    for x, y, radius, colour in discs:
        coverage = np.clip(radius + 0.5 - np.hypot(xs - x, ys - y), 0, 1)[..., None]
        image += coverage * (np.array(colour) - image)
    return image.round().astype(np.uint8)
