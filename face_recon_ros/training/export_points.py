"""Checkpoint of the dense-point network -> ONNX, weights stored as float16."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from face_recon_ros.core.dense_points import POINTS_FORMAT, DensePointNetwork
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.identity_posterior import marginal_information
from face_recon_ros.core.models import find_model, sha256_of
from face_recon_ros.core.morphable_model import (
    FACIAL_SKIN,
    MorphableModel,
    load_morphable_model,
)
from face_recon_ros.core.point_fit import POSE, FitState
from face_recon_ros.core.rectification import CELLS, RECTIFIED_PX, FaceFrame, Rectifier
from face_recon_ros.core.rigid import vector_from_rotation
from face_recon_ros.training.config import PointConfig, config_from_dict
from face_recon_ros.training.data import open_render_cache, open_skins
from face_recon_ros.training.export import LICENCE
from face_recon_ros.training.point_examples import PointBatch, PointExamples
from face_recon_ros.training.point_fit import Fit
from face_recon_ros.training.point_network import PointNetwork
from face_recon_ros.training.synthesis.faces import SyntheticFaces
from face_recon_ros.training.synthesis.render_cache import fill_render_cache
from face_recon_ros.training.train_points import build_point_network, load_point_checkpoint

#: Smaller tensors stay in float32; they weigh nothing.
_LARGE = 1024
#: Median of a squared standard normal.
_MEDIAN_CHI2 = 0.4549
#: Float16 weights may move points by this, metres, log standard deviations and presence by that.
_MAX_SHIFT_M, _MAX_SHIFT = 2e-4, 0.05


class _Exported(nn.Module):
    def __init__(self, network: PointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, normals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        answer = self.network(image, normals)
        return answer.displacement, answer.log_sigma, torch.sigmoid(answer.presence)


def export_points(
    checkpoint: Path, out: Path, *, pool: str = "", calibration: int = 320
) -> dict[str, Any]:
    """Writes the averaged network by the contract of `core.dense_points`.

    Args:
        checkpoint: of `train_points`.
        out: the ONNX file to write.
        pool: folder of renderings that the run has not seen; empty renders some.
        calibration: on how many examples the pose's covariance is made true; 0: on none.

    Returns:
        What was exported: points, bytes, SHA-256, and the figures of the calibration.

    Raises:
        ModelError: ONNX Runtime answers otherwise than torch.
    """
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
        "prior": json.dumps(fit.prior()),
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
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(network.eval(), out, metadata)
    figures: dict[str, Any] = {}
    if calibration:
        with tempfile.TemporaryDirectory() as folder:
            figures = calibrate(out, model, config, pool or folder, calibration)
        prior = fit.prior() | {k: figures[k] for k in ("pose_scale", "identity_scale")}
        model_file = onnx.load(str(out))
        onnx.helper.set_model_props(model_file, metadata | {"prior": json.dumps(prior)})
        onnx.save(model_file, str(out))
    return {
        "points": len(vertices),
        "step": state["step"],
        **figures,
        "bytes": out.stat().st_size,
        "sha256": sha256_of(out),
    }


def calibrate(
    path: Path, model: MorphableModel, config: PointConfig, pool: str, count: int
) -> dict[str, Any]:
    """How much wider or narrower the fit's covariance must be to be true.

    Args:
        path: of the exported network.
        model: coarse level, whole head.
        config: of the run.
        pool: folder of renderings, filled if it is not.
        count: examples.

    Returns:
        `pose_scale`: factors of the standard deviations of rotation, of translation across the
        line of sight, and of depth at known head size; `identity_scale`, of the information
        about identity; `rotation_deg` and `depth_percent`, the median errors of the pose.
    """
    slots = max(1, count // 2)
    settings = dataclasses.replace(config, pool=pool, pool_slots=slots, seed=config.seed + 77777)
    sizes = (model.k_identity, model.k_expression, model.k_albedo)
    cache = open_render_cache(settings, sizes)
    if len(cache) < slots:
        skins = open_skins(config.skins, model, str(find_model(config.face_model)))
        faces = SyntheticFaces(
            model, margin=config.crop_margin, size=config.pool_size, skins=skins
        )
        fill_render_cache(cache, faces, settings.seed)
    examples = PointExamples(
        cache, model, str(find_model(config.regressor)), settings.seed, no_face=0.0, worsen=0.0
    )
    network, rectifier = DensePointNetwork(path, provider="cpu"), Rectifier(model)
    fitter = network.fitter(model)
    skin = model.subset(FACIAL_SKIN)
    scores: list[NDArray[np.float64]] = []
    errors: list[tuple[float, float]] = []
    known = np.eye(model.k_identity) / network.prior.identity**2
    people: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for batch in examples:
        b = PointBatch(*(v.numpy()[batch.present.numpy() > 0.5] for v in batch))
        frame = FaceFrame.of(b.start_rotation, b.start_translation)
        displacement, log_sigma, _ = network.predict(b.image, rectifier.seen_normals(frame))
        start = FitState(
            b.start_rotation, b.start_translation, b.start_identity, b.start_expression
        )
        fit = fitter.fit(start, frame.seen(displacement, fitter.mean), np.exp(log_sigma))
        deviation = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2)[:, :POSE])
        for i in np.flatnonzero(fit.converged):
            turn = vector_from_rotation(b.rotation[i] @ fit.state.rotation[i].T)
            ours, truth = fit.state.translation[i], b.translation[i]
            size = np.log(
                _size(skin.neutral(b.identity[i])) / _size(skin.neutral(fit.state.identity[i]))
            )
            across = truth[:2] / truth[2] - ours[:2] / ours[2]
            depth = np.log(truth[2] / ours[2]) - size
            error = np.concatenate([turn, across, [depth]])
            claimed = marginal_information(fit.information[i], model.k_identity) - known
            people.append((b.identity[i] - fit.state.identity[i], claimed))
            scores.append(np.square(error / deviation[i]))
            errors.append((float(np.degrees(np.linalg.norm(turn))), 100 * abs(float(depth))))
        if len(scores) >= count:
            break
    z = np.array(scores)
    groups = (z[:, :3], z[:, 3:5], z[:, 5:])
    rotation, depth = np.median(errors, axis=0)
    return {
        "pose_scale": [float(np.sqrt(np.median(g) / _MEDIAN_CHI2)) for g in groups],
        "identity_scale": identity_scale(people, known),
        "rotation_deg": float(rotation),
        "depth_percent": float(depth),
    }


def identity_scale(
    people: list[tuple[NDArray[np.float64], NDArray[np.float64]]], prior: NDArray[np.float64]
) -> float:
    """What a fit's information about identity is to be multiplied with so that its errors fit it.

    Args:
        people: error (K_id,) and information beyond the prior (K_id, K_id) of each fit.
        prior: (K_id, K_id) information about anybody.

    Returns:
        The factor, at most 1, for which squared errors in the better known half of all directions
        have the mean that information promises.
    """
    along, claimed = [], []
    for error, information in people:
        values, directions = np.linalg.eigh(information)
        half = len(values) // 2
        along.append(np.square(directions[:, half:].T @ error))
        claimed.append(np.maximum(values[half:], 0.0))
    squared, known = np.array(along), np.array(claimed)
    anybody = float(prior.diagonal().mean())
    low, high = 1e-3, 1.0
    for _ in range(40):  # the mean of the squared scores rises with the factor
        middle = np.sqrt(low * high)
        too_sure = (squared * (anybody + middle * known)).mean() > 1.0
        low, high = (low, middle) if too_sure else (middle, high)
    return float(np.sqrt(low * high))


def _size(vertices: NDArray[np.floating]) -> float:
    """Root mean square distance of (V, 3) vertices from their middle."""
    return float(np.sqrt(np.square(vertices - vertices.mean(0)).sum(1).mean()))


def _write(network: PointNetwork, out: Path, metadata: dict[str, str]) -> None:
    image = torch.randint(0, 256, (2, RECTIFIED_PX, RECTIFIED_PX, 3), dtype=torch.uint8)
    normals = nn.functional.normalize(torch.randn(2, CELLS, CELLS, 3), dim=3)
    names = ["displacement", "log_sigma", "presence"]
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Exported(network).eval(),
            (image, normals),
            str(out),
            input_names=["image", "normals"],
            output_names=names,
            dynamic_axes={name: {0: "faces"} for name in ["image", "normals", *names]},
            opset_version=17,
            dynamo=False,
        )
    quiet.setLevel(level)
    model = onnx.load(str(out))
    store_weights_in_16_bits(model)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, str(out))
    with torch.no_grad():
        expected = _Exported(network)(image, normals)
    answer = DensePointNetwork(out, provider="cpu").predict(image.numpy(), normals.numpy())
    bounds = (_MAX_SHIFT_M, _MAX_SHIFT, _MAX_SHIFT)
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
