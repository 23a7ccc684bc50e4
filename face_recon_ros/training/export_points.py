"""The dense-point network -> ONNX, weights stored as float16, its answers measured."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from face_recon_ros.core.errors import ConfigError, ModelError
from face_recon_ros.core.models import find_model, sha256_of
from face_recon_ros.core.morphable_model import MorphableModel, load_morphable_model
from face_recon_ros.core.point_network import OBSOLETE, POINTS_FORMAT, DensePointNetwork
from face_recon_ros.core.rectification import CELLS, RECTIFIED_PX, Rectifier
from face_recon_ros.face_model.build import NAME
from face_recon_ros.face_model.population import population_mean
from face_recon_ros.training.config import PointConfig, config_from_dict
from face_recon_ros.training.export import LICENCE
from face_recon_ros.training.onnx_export import to_onnx
from face_recon_ros.training.people_answers import (
    identity_answers,
    look_at_people,
    neutral_answers,
)
from face_recon_ros.training.point_calibration import calibrate, held_out, inputs_of
from face_recon_ros.training.point_examples import PointBatch
from face_recon_ros.training.point_fit import Fit
from face_recon_ros.training.point_network import PointNetwork
from face_recon_ros.training.point_quantisation import quantise_points
from face_recon_ros.training.point_weights import export_widths, load_export
from face_recon_ros.training.train_points import build_point_network, load_point_checkpoint

#: Precisions of the exported network.
FLOAT, INT8 = "float32", "int8"
#: Fields of `FitPrior` that the calibration says, not the training.
_CALIBRATED = ("pose_scale", "start_information")
#: What the metadata of an export says that is measured anew.
_MEASURED = ("prior", "identity_answers", "neutral_answers")
#: People's mean lies so far from the face model's mean to the survey's, which has seen European
#: ancestry only.
_OF_THE_WAY = 0.5
#: Smaller tensors stay in float32; they weigh nothing.
_LARGE = 1024
#: Float16 weights may move points by this, metres, log standard deviations and presence by that.
_MAX_SHIFT_M, _MAX_SHIFT = 2e-4, 0.05


class _Exported(nn.Module):
    def __init__(self, network: PointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, normals: Tensor, regressed: Tensor) -> tuple[Tensor, ...]:
        answer = self.network(image, normals, regressed)
        coefficients = torch.cat([answer.identity, answer.expression], 1)
        presence = torch.sigmoid(answer.presence)
        return answer.displacement, answer.log_sigma, presence, coefficients


class _Source(NamedTuple):
    """What is exported.

    Attributes:
        network: the averaged one.
        model: its face model, level coarse.
        config: of its run.
        prior: what is known of the fit's prior before the calibration.
        metadata: of the ONNX file, the prior and measurements left out.
        step: how far its training was.
    """

    network: PointNetwork
    model: MorphableModel
    config: PointConfig
    prior: dict[str, Any]
    metadata: dict[str, str]
    step: int


def export_points(
    source: Path,
    out: Path,
    *,
    precision: str = FLOAT,
    pool: str = "",
    calibration: int = 640,
    people: int = 1000,
    skins: str | None = None,
) -> dict[str, Any]:
    """Writes the averaged network by the contract of `core.dense_points`.

    Args:
        source: checkpoint of `train_points`, or an export in float32 that is calibrated anew.
        out: the ONNX file to write.
        precision: `float32`, or `int8`, which takes a third of the time on a CPU.
        pool: folder of renderings that the run has not seen; empty renders some.
        calibration: on how many examples the fit's covariance is made true; 0: on none, and in
            float32 only.
        people: of how many people the answers are measured; 0: of none.
        skins: folder of MakeHuman's system assets, which most of these people wear; None: the
            run's.

    Returns:
        What was exported: points, bytes, SHA-256, and the figures of the calibration.

    Raises:
        ConfigError: another precision.
        ModelError: ONNX Runtime answers otherwise than torch.
        DataError: hardly any of the people were seen.
    """
    if precision not in (FLOAT, INT8) or (precision == INT8 and not calibration):
        raise ConfigError(
            f"{FLOAT}, or {INT8} with examples to calibrate on",
            f"{precision}, {calibration} examples",
            f"export dense points with --precision {INT8} or {FLOAT}",
        )
    network, model, config, prior, metadata, step = (
        _from_export(source) if source.suffix == ".onnx" else _from_checkpoint(source)
    )
    if skins is not None:
        config = replace(config, skins=skins)
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(network.eval(), out, metadata | {"prior": json.dumps(prior)})
    figures: dict[str, Any] = {}
    if calibration:
        with tempfile.TemporaryDirectory() as folder:
            batches = held_out(model, config, pool or folder, calibration)
            figures = _calibrate(out, model, batches, precision == INT8)
        prior |= {k: figures[k] for k in _CALIBRATED}
        _finish(out, metadata | {"prior": json.dumps(prior)})
    if people:
        seen = look_at_people(out, config, people)
        population = np.array(prior.get("population", np.zeros(model.k_identity)))
        measured = {"identity_answers": identity_answers(seen, model, population)}
        if model.expression_prior == "unit_interval":
            measured["neutral_answers"] = neutral_answers(seen, model)
        _finish(
            out, metadata | {k: json.dumps(v) for k, v in (measured | {"prior": prior}).items()}
        )
        figures |= {"people": len(seen)}
    return {
        "points": len(json.loads(metadata["vertices"])),
        "step": step,
        **figures,
        "bytes": out.stat().st_size,
        "sha256": sha256_of(out),
    }


def _from_checkpoint(checkpoint: Path) -> _Source:
    state = load_point_checkpoint(checkpoint)
    config = config_from_dict(state["config"], PointConfig)
    model = load_morphable_model(find_model(config.face_model), level="coarse")
    vertices = np.array(state["vertices"])
    network = build_point_network(model, vertices, config)
    network.load_state_dict(state["average"])
    fit = Fit(model, vertices)
    fit.load_state_dict(state["fit"])
    metadata = {
        "face_recon_points_format": POINTS_FORMAT,
        "face_model": state["face_model"],
        "face_model_sha256": state["face_model_sha256"],
        "vertices": json.dumps(state["vertices"]),
        "licence": LICENCE,
        "training": json.dumps(
            {
                "regressor": Path(config.regressor).name,
                "step": state["step"],
                "minutes": round(state["elapsed_s"] / 60, 1),
                "code": state["code"],
                "seed": config.seed,
            }
        ),
    }
    prior = fit.prior() | people_of(model, state.get("mean_identity"))
    return _Source(network, model, config, prior, metadata, state["step"])


def _from_export(path: Path) -> _Source:
    exported = DensePointNetwork(path, provider="cpu")
    training = json.loads(exported.metadata.get("training", "{}"))
    told = {k: training[k] for k in ("regressor", "seed") if k in training}
    config = config_from_dict({"population": 1.0} | told | export_widths(path), PointConfig)
    model = load_morphable_model(find_model(config.face_model), level="coarse")
    exported.check_trained_for(model, find_model(config.face_model))
    network = build_point_network(model, exported.vertices, config)
    load_export(path, network, Fit(model, exported.vertices), exported.vertices)
    metadata = {k: v for k, v in exported.metadata.items() if k not in _MEASURED}
    prior = json.loads(exported.metadata["prior"])
    prior = {k: v for k, v in prior.items() if k not in OBSOLETE}
    return _Source(network, model, config, prior, metadata, training.get("step", 0))


def _finish(out: Path, metadata: dict[str, str]) -> None:
    """Stores weights in 16 bits, and what was measured."""
    model_file = onnx.load(str(out))
    store_weights_in_16_bits(model_file)
    onnx.helper.set_model_props(model_file, metadata)
    onnx.save(model_file, str(out))


def people_of(model: MorphableModel, training: Tensor | None) -> dict[str, list[float]]:
    """What a `FitPrior` says of people's mean identity; nothing where that is not known.

    Args:
        model: the run's face model, level coarse.
        training: (K_id,) mean identity of the run's people; None: the face model's.
    """
    if model.name != NAME:
        return {}
    mean = np.zeros(model.k_identity) if training is None else training.cpu().numpy()
    return {
        "population": (_OF_THE_WAY * population_mean(model)).round(4).tolist(),
        "training_mean": mean.astype(np.float64).round(4).tolist(),
    }


def _calibrate(
    out: Path, model: MorphableModel, batches: list[PointBatch], int8: bool
) -> dict[str, Any]:
    """Rounds the file to 8 bits where asked for, and measures how sure it may be."""
    figures: dict[str, Any] = {}
    if int8:
        rectifier = Rectifier(model)
        examples = [inputs_of(rectifier, b) for b in batches]
        with tempfile.TemporaryDirectory() as folder:
            exact = shutil.copy(out, Path(folder) / "exact.onnx")
            figures = quantise_points(Path(exact), out, examples)
    return figures | calibrate(DensePointNetwork(out, provider="cpu"), model, batches)


def _write(network: PointNetwork, out: Path, metadata: dict[str, str]) -> None:
    image = torch.randint(0, 256, (2, RECTIFIED_PX, RECTIFIED_PX, 3), dtype=torch.uint8)
    normals = nn.functional.normalize(torch.randn(2, CELLS, CELLS, 3), dim=3)
    start = 0.3 * torch.rand(2, sum(network.sizes))
    names = ["displacement", "log_sigma", "presence", "coefficients"]
    inputs = {"image": image, "normals": normals, "regressed": start}
    model = to_onnx(_Exported(network), inputs, names, out)
    store_weights_in_16_bits(model)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, str(out))
    with torch.no_grad():
        expected = _Exported(network)(*inputs.values())
    exported = DensePointNetwork(out, provider="cpu")
    answer = exported.predict(*(value.numpy() for value in inputs.values()))
    bounds = (_MAX_SHIFT_M, _MAX_SHIFT, _MAX_SHIFT, _MAX_SHIFT)
    for name, ours, theirs, bound in zip(names, answer, expected, bounds, strict=True):
        error = np.abs(ours - theirs.numpy().reshape(ours.shape)).max()
        if not error <= bound:
            raise ModelError(
                f"the same {name} from torch and {out}", f"{error:.2g} apart", "report it"
            )


def store_weights_in_16_bits(model: onnx.ModelProto) -> None:
    """Large float32 tensors become float16 and a cast, which ONNX Runtime does once, at load."""
    graph = model.graph
    kept, casts = [], []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _LARGE:
            kept.append(tensor)
            continue
        name = f"{tensor.name}_float16"
        kept.append(onnx.numpy_helper.from_array(values.astype(np.float16), name))
        casts.append(
            onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
