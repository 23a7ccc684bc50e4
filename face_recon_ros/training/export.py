"""Checkpoint -> ONNX, in float32, int8, or int8 weights, with how far these lie apart.

int8: static quantisation (QDQ, weights per channel), calibrated on training crops. The first
stage, and the heads and all after the pooling, stay in float: they are cheap, and pose is worth
more than a microsecond.

int8 weights: a quarter of the file, and float32 in all that is computed.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from face_recon_ros.core.crop_pose import crop_from_face
from face_recon_ros.core.errors import ConfigError, ModelError
from face_recon_ros.core.inference import NETWORK_FORMAT, FaceNetwork
from face_recon_ros.core.models import MANIFEST, find_model, sha256_of
from face_recon_ros.core.morphable_model import FACE, MorphableModel, load_morphable_model
from face_recon_ros.core.rigid import angle_between
from face_recon_ros.training.config import config_from_dict
from face_recon_ros.training.data import Crops
from face_recon_ros.training.network import FaceRegressor, Prediction
from face_recon_ros.training.quantise import fold_batch_norm, round_weights
from face_recon_ros.training.train import load_network

PRECISIONS = ("float32", "int8", "int8_weights")
LICENCE = "Apache-2.0"
INT8_OPERATORS = ("Conv", "Add", "MaxPool", "Relu", "Clip")
#: int8 further from float32 than this, on average, is not written.
MAX_SHIFT_MM, MAX_POSE_DEG = 0.3, 0.3
#: How many of the last convolutions stay in float: as few as keep within that.
FLOAT_LAST = (0, 2, 5)
#: Crops, none of them for calibration, that int8 is compared with float32 on.
PARITY_CROPS = 128
#: Crops for the rounding of weights; the ranges of activations are calibrated on all.
ROUNDING_CROPS = 128


@dataclass(frozen=True)
class Parity:
    """How far two exports of one network lie apart, over many crops.

    Attributes:
        vertex_shift_mm: mean distance of the face's vertices in the face frame, millimetres.
        vertex_shift_px: mean distance of the projected vertices, pixels of the crop.
        pose_deg: mean angle, degrees.
        worst_pose_deg: largest angle, degrees.
        depth_percent: mean difference of the distance, per cent.
    """

    vertex_shift_mm: float
    vertex_shift_px: float
    pose_deg: float
    worst_pose_deg: float
    depth_percent: float


class _Tuple(nn.Module):
    """Plain tuples for the exporter."""

    def __init__(self, network: FaceRegressor) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network(image))


def export_float32(
    network: FaceRegressor, size: int, path: Path, metadata: dict[str, str]
) -> None:
    """Writes the ONNX file of `core.inference`'s contract, and checks it against torch.

    Raises:
        ModelError: ONNX Runtime answers otherwise than torch.
    """
    image = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    names = list(Prediction._fields)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Tuple(network).eval(),  # the exporter restores this mode, in all of it
            (image,),
            str(path),
            input_names=["image"],
            output_names=names,
            dynamic_axes={name: {0: "faces"} for name in ["image", *names]},
            opset_version=17,
            dynamo=False,
        )
    quiet.setLevel(level)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    with torch.no_grad():
        expected = network(image)
    answer = FaceNetwork(path, provider="cpu").predict(image.numpy()).coefficients
    for name in names[:-1]:
        error = np.abs(getattr(answer, name) - getattr(expected, name).numpy()).max()
        if error > 2e-3:
            raise ModelError(
                f"the same {name} from torch and {path}", f"{error:.2g} apart", "report it"
            )


def calibration_reader(feeds: Iterable[dict[str, NDArray[Any]]]) -> Any:
    """What ONNX Runtime's quantisation reads: the inputs of one run after the other, by name."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._feeds, None)

    return Reader()


def quantise(
    network: FaceRegressor,
    int8: Path,
    crops: NDArray[np.uint8],
    metadata: dict[str, str],
    n_float: int = 0,
) -> None:
    """Static int8 quantisation (QDQ) of the convolutions behind the backbone's first stage.

    Args:
        network: what to quantise.
        int8: where to write.
        crops: (N, S, S, 3) uint8, like those the network will see.
        metadata: of the file.
        n_float: how many of the last convolutions stay in float.
    """
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = np.array_split(crops, max(1, len(crops) // 16))
    folded = fold_batch_norm(network)
    steps = round_weights(folded, crops[:ROUNDING_CROPS], n_float)
    zero = np.int8(0)
    levels = {
        f"network.{name}.weight": [
            {"axis": 0, "scale": np.float32(s), "zero_point": zero} for s in step.numpy()
        ]
        for name, step in steps.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        rounded, prepared = (str(Path(folder) / f"{n}.onnx") for n in ("rounded", "prepared"))
        export_float32(folded, crops.shape[1], Path(rounded), metadata)
        quant_pre_process(rounded, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            str(int8),
            calibration_reader({"image": batch} for batch in batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(INT8_OPERATORS),
            nodes_to_quantize=nodes_for_int8(onnx.load(prepared).graph, set(levels)),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": False, "TensorQuantOverrides": levels},
        )
    model = onnx.load(str(int8))
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(int8))


def store_weights_in_8_bits(path: Path) -> None:
    """Rewrites a float32 export: convolutions' weights as levels and a step per output channel.

    ONNX Runtime multiplies them out once, when it opens the file.
    """
    model = onnx.load(str(path))
    graph = model.graph
    wanted = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    kept, multiplied = [], []
    for tensor in graph.initializer:
        if tensor.name not in wanted:
            kept.append(tensor)
            continue
        name, weight = tensor.name, onnx.numpy_helper.to_array(tensor)
        step = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
        step = np.maximum(step, np.finfo(np.float32).tiny)
        levels = np.rint(weight / step).astype(np.int8)
        kept += [
            onnx.numpy_helper.from_array(levels, f"{name}_levels"),
            onnx.numpy_helper.from_array(step.astype(np.float32), f"{name}_step"),
        ]
        multiplied += [
            onnx.helper.make_node(
                "Cast", [f"{name}_levels"], [f"{name}_cast"], to=onnx.TensorProto.FLOAT
            ),
            onnx.helper.make_node("Mul", [f"{name}_cast", f"{name}_step"], [name]),
        ]
    nodes = [*multiplied, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def nodes_for_int8(graph: onnx.GraphProto, weights: set[str]) -> list[str]:
    """Names of the convolutions with these weights and of what follows them up to the pooling.

    Pose is computed with sums as well: 8 bits there put faces behind the camera.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, onnx.NodeProto] = {}
    ahead = [node for name in weights for node in readers.get(name, [])]
    while ahead:
        node = ahead.pop()
        if node.op_type == "Conv" and not weights & set(node.input):
            continue
        if node.name not in found and node.op_type in INT8_OPERATORS:
            found[node.name] = node
            ahead += [reader for name in node.output for reader in readers.get(name, [])]
    return list(found)


def measure_parity(a: Path, b: Path, model: MorphableModel, crops: NDArray[np.uint8]) -> Parity:
    """Compares two networks on (N, S, S, 3) crops."""
    part = model.subset(FACE)
    size = crops.shape[1]
    x, y = (FaceNetwork(p, provider="cpu", threads=1).predict(crops).coefficients for p in (a, b))
    shift, pixels, angle, depth = [], [], [], []
    from face_recon_ros.core.crop_pose import crop_camera

    camera = crop_camera(size)
    for i in range(len(crops)):
        vertices = [part.vertices(c.identity[i], c.expression[i]) for c in (x, y)]
        poses = [crop_from_face(c.rotation[i], c.translation[i]) for c in (x, y)]
        shift.append(np.linalg.norm(vertices[0] - vertices[1], axis=1).mean() * 1e3)
        px = [camera.project(p.apply(v)) for p, v in zip(poses, vertices, strict=True)]
        pixels.append(np.linalg.norm(px[0] - px[1], axis=1).mean())
        angle.append(np.degrees(angle_between(poses[0].rotation, poses[1].rotation)))
        depth.append(100 * abs(poses[0].translation[2] / poses[1].translation[2] - 1))
    return Parity(
        *(float(np.mean(v)) for v in (shift, pixels, angle)),
        float(np.max(angle)),
        float(np.mean(depth)),
    )


def training_crops(
    checkpoint_config: dict[str, Any], face_model: str, size: int, count: int, seed: int
) -> NDArray[np.uint8]:
    """(count, S, S, 3) crops as the training made them."""
    values = {**checkpoint_config, "image_size": size}
    stream = iter(Crops(config_from_dict(values), face_model, seed))
    batches, n = [], 0
    while n < count:
        batches.append(next(stream).image.numpy())
        n += len(batches[-1])
    return np.concatenate(batches)[:count]


def _metadata(state: dict[str, Any]) -> dict[str, str]:
    """What the ONNX file says of the network, from its checkpoint."""
    config = state["config"]
    return {
        "face_recon_format": NETWORK_FORMAT,
        "face_model": state["face_model"],
        "face_model_sha256": state["face_model_sha256"],
        "crop_margin": str(config["crop_margin"]),
        "licence": LICENCE,
        "training": json.dumps(
            {
                "backbone": config["backbone"],
                "step": state["step"],
                "minutes": round(state["elapsed_s"] / 60, 1),
                "code": state["code"],
                "seed": config["seed"],
                "photographs": Path(config["photographs"]).name or "none",
            }
        ),
    }


def export(
    checkpoint: Path,
    out: Path,
    *,
    precision: str = "int8",
    size: int = 0,
    crops: NDArray[np.uint8] | None = None,
    calibration: int = 256,
) -> dict[str, Any]:
    """Exports a checkpoint.

    Args:
        checkpoint: of `train`.
        out: the ONNX file to write.
        precision: `float32`, `int8`, or `int8_weights` (computed in float32).
        size: input size in pixels; 0 takes the training's.
        crops: (N, S, S, 3) for calibration and parity; None draws training crops from the run's
            pool.
        calibration: how many to draw.

    Returns:
        What was exported: sizes, SHA-256, and but for float32 the parity with float32.

    Raises:
        ModelError: int8 moves faces by more than `MAX_SHIFT_MM` or `MAX_POSE_DEG`.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {' or '.join(PRECISIONS)}", repr(precision), "choose one")
    network, state = load_network(checkpoint)
    config = state["config"]
    size = size or config["image_size"]
    metadata = _metadata(state)
    out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"precision": precision, "size": size, "step": state["step"]}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "float32.onnx"
        export_float32(network, size, plain, metadata)
        if precision == "float32":
            out.write_bytes(plain.read_bytes())
        else:
            if crops is None:
                face_model = str(find_model(config["face_model"]))
                crops = training_crops(
                    config, face_model, size, calibration + PARITY_CROPS, seed=12345
                )
            small = Path(folder) / "small.onnx"
            model = load_morphable_model(find_model(config["face_model"]), level="coarse")
            for n_float in FLOAT_LAST if precision == "int8" else (None,):
                if n_float is None:
                    small.write_bytes(plain.read_bytes())
                    store_weights_in_8_bits(small)
                else:
                    quantise(network, small, crops[:-PARITY_CROPS], metadata, n_float)
                    report["last_layers_in_float"] = n_float
                parity = measure_parity(plain, small, model, crops[-PARITY_CROPS:])
                if parity.vertex_shift_mm <= MAX_SHIFT_MM and parity.pose_deg <= MAX_POSE_DEG:
                    break
            else:
                raise ModelError(
                    f"{precision} within {MAX_SHIFT_MM} mm and {MAX_POSE_DEG} degrees of float32",
                    f"{parity.vertex_shift_mm:.2f} mm and {parity.pose_deg:.2f} degrees",
                    "export float32 or int8_weights, or train longer",
                )
            report["parity"] = asdict(parity)
            out.write_bytes(small.read_bytes())
    report["bytes"] = out.stat().st_size
    report["sha256"] = sha256_of(out)
    return report


def enter_manifest(path: Path, origin: str) -> None:
    """Writes the network's SHA-256 into the manifest beside it.

    Raises:
        ModelError: there is no manifest.
    """
    manifest = path.parent / MANIFEST
    if not manifest.is_file():
        raise ModelError(f"a manifest at {manifest}", "none", "export into models/")
    content = json.loads(manifest.read_text())
    files = [entry for entry in content["files"] if entry["name"] != path.name]
    files.append(
        {"name": path.name, "sha256": sha256_of(path), "licence": LICENCE, "origin": origin}
    )
    content["files"] = sorted(files, key=lambda entry: entry["name"])
    beside = manifest.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=2) + "\n")
    beside.replace(manifest)
