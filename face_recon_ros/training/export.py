"""Checkpoint -> ONNX, in float32 or with int8 weights, and how far these lie apart.

int8 weights: a quarter of the file, and float32 in all that is computed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from face_recon_ros.core.crop_pose import crop_camera, crop_from_face
from face_recon_ros.core.errors import ConfigError, ModelError
from face_recon_ros.core.inference import NETWORK_FORMAT, FaceNetwork
from face_recon_ros.core.models import MANIFEST, find_model, sha256_of
from face_recon_ros.core.morphable_model import FACE, MorphableModel, load_morphable_model
from face_recon_ros.core.rigid import angle_between
from face_recon_ros.training.config import config_from_dict
from face_recon_ros.training.data import Crops
from face_recon_ros.training.network import FaceRegressor, Prediction
from face_recon_ros.training.onnx_export import to_onnx
from face_recon_ros.training.stored import load_network

FLOAT, INT8_WEIGHTS = "float32", "int8_weights"
PRECISIONS = (FLOAT, INT8_WEIGHTS)
LICENCE = "Apache-2.0"
#: int8 weights that move faces by more than this, on average, are not written.
MAX_SHIFT_MM, MAX_POSE_DEG = 0.3, 0.3
#: Crops on which that is measured.
PARITY_CROPS = 128


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
    model = to_onnx(_Tuple(network), {"image": image}, names, path)
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


def measure_parity(a: Path, b: Path, model: MorphableModel, crops: NDArray[np.uint8]) -> Parity:
    """Compares two networks on (N, S, S, 3) crops."""
    part = model.subset(FACE)
    size = crops.shape[1]
    x, y = (FaceNetwork(p, provider="cpu", threads=1).predict(crops).coefficients for p in (a, b))
    shift, pixels, angle, depth = [], [], [], []
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
    precision: str = FLOAT,
    size: int = 0,
    crops: NDArray[np.uint8] | None = None,
) -> dict[str, Any]:
    """Exports a checkpoint.

    Args:
        checkpoint: of `train`.
        out: the ONNX file to write.
        precision: `float32`, or `int8_weights` (computed in float32).
        size: input size in pixels; 0 takes the training's.
        crops: (N, S, S, 3) on which int8 weights are compared with float32; None draws training
            crops from the run's pool.

    Returns:
        What was exported: sizes, SHA-256, and but for float32 the parity with float32.

    Raises:
        ModelError: int8 weights move faces by more than `MAX_SHIFT_MM` or `MAX_POSE_DEG`.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {' or '.join(PRECISIONS)}", repr(precision), "choose one")
    network, state = load_network(checkpoint)
    config = state["config"]
    size = size or config["image_size"]
    out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"precision": precision, "size": size, "step": state["step"]}
    with tempfile.TemporaryDirectory() as folder:
        written = plain = Path(folder) / "float32.onnx"
        export_float32(network, size, plain, _metadata(state))
        if precision == INT8_WEIGHTS:
            face_model = find_model(config["face_model"])
            if crops is None:
                crops = training_crops(config, str(face_model), size, PARITY_CROPS, seed=12345)
            written = shutil.copy(plain, Path(folder) / "small.onnx")
            store_weights_in_8_bits(written)
            model = load_morphable_model(face_model, level="coarse")
            parity = measure_parity(plain, written, model, crops)
            if parity.vertex_shift_mm > MAX_SHIFT_MM or parity.pose_deg > MAX_POSE_DEG:
                raise ModelError(
                    f"{precision} within {MAX_SHIFT_MM} mm and {MAX_POSE_DEG} degrees of float32",
                    f"{parity.vertex_shift_mm:.2f} mm and {parity.pose_deg:.2f} degrees",
                    "export float32, or train longer",
                )
            report["parity"] = asdict(parity)
        out.write_bytes(written.read_bytes())
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
