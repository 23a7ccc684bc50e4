"""Checkpoint -> ONNX, in float32 and int8, with how far the two lie apart.

int8: static quantisation (QDQ, weights per channel), calibrated on training crops. The heads and
all after the
pooling stay in float: they are cheap, and pose is worth more than a microsecond.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from face_recon_ros.core.errors import ConfigError, ModelError
from face_recon_ros.core.inference import NETWORK_FORMAT, FaceNetwork
from face_recon_ros.core.models import MANIFEST, find_model, sha256_of
from face_recon_ros.core.morphable_model import FACE, MorphableModel, load_morphable_model
from face_recon_ros.core.pose import crop_from_face
from face_recon_ros.core.rigid import angle_between
from face_recon_ros.training.config import config_from_dict
from face_recon_ros.training.data import Crops
from face_recon_ros.training.network import FaceRegressor, Prediction
from face_recon_ros.training.train import load_network

PRECISIONS = ("float32", "int8")
LICENCE = "Apache-2.0"


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


def quantise(float32: Path, int8: Path, crops: NDArray[np.uint8]) -> None:
    """Static int8 quantisation of the convolutions.

    Args:
        float32: ONNX file.
        int8: where to write.
        crops: (N, S, S, 3) uint8, like those the network will see.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(np.array_split(crops, max(1, len(crops) // 16)))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(str(float32), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            str(int8),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # AVX2 without VNNI saturates 16-bit sums otherwise
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "MaxPool", "Relu", "Clip"],
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": False},
        )
    original = onnx.load(str(float32))
    model = onnx.load(str(int8))
    onnx.helper.set_model_props(model, {p.key: p.value for p in original.metadata_props})
    onnx.save(model, str(int8))


def measure_parity(a: Path, b: Path, model: MorphableModel, crops: NDArray[np.uint8]) -> Parity:
    """Compares two networks on (N, S, S, 3) crops."""
    part = model.subset(FACE)
    size = crops.shape[1]
    x, y = (FaceNetwork(p, provider="cpu", threads=1).predict(crops).coefficients for p in (a, b))
    shift, pixels, angle, depth = [], [], [], []
    from face_recon_ros.core.pose import crop_camera

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
        precision: `float32` or `int8`.
        size: input size in pixels; 0 takes the training's.
        crops: (N, S, S, 3) for calibration and parity; None draws training crops from the run's
            pool.
        calibration: how many to draw.

    Returns:
        What was exported: sizes, SHA-256, and for int8 the parity with float32.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {' or '.join(PRECISIONS)}", repr(precision), "choose one")
    network, state = load_network(checkpoint)
    config = state["config"]
    size = size or config["image_size"]
    metadata = {
        "face_recon_format": NETWORK_FORMAT,
        "face_model": state["face_model"],
        "crop_margin": str(config["crop_margin"]),
        "licence": LICENCE,
        "training": json.dumps(
            {
                "backbone": config["backbone"],
                "step": state["step"],
                "minutes": round(state["elapsed_s"] / 60, 1),
                "code": state["code"],
                "seed": config["seed"],
                "face_model_sha256": state["face_model_sha256"],
                "photographs": Path(config["photographs"]).name or "none",
            }
        ),
    }
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
                crops = training_crops(config, face_model, size, calibration + 64, seed=12345)
            small = Path(folder) / "int8.onnx"
            quantise(plain, small, crops[:-64])
            model = load_morphable_model(find_model(config["face_model"]), level="coarse")
            report["parity"] = asdict(measure_parity(plain, small, model, crops[-64:]))
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
