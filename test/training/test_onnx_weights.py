"""A network that was exported comes back, to be trained on."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

from face_recon_ros.core.errors import ModelError  # noqa: E402
from face_recon_ros.core.inference import FaceNetwork  # noqa: E402
from face_recon_ros.core.models import FACE_MODEL, NETWORK, REFERENCE_NETWORK, find_model  # noqa: E402
from face_recon_ros.core.morphable_model import load_morphable_model  # noqa: E402
from face_recon_ros.training import train  # noqa: E402
from face_recon_ros.training.config import TrainConfig  # noqa: E402
from face_recon_ros.training.data import synthetic_crops  # noqa: E402
from face_recon_ros.training.export import export_float32, measure_parity, quantise  # noqa: E402
from face_recon_ros.training.network import CoefficientSizes, FaceRegressor  # noqa: E402
from face_recon_ros.training.onnx_weights import state_from_onnx  # noqa: E402
from face_recon_ros.training.quantise import fold_batch_norm, round_weights  # noqa: E402
from face_recon_ros.training.train import build_network, load_teacher  # noqa: E402

CROPS = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)


def trained(backbone):
    """A network whose BatchNorm has seen something."""
    torch.manual_seed(1)
    network = FaceRegressor(backbone, CoefficientSizes(8, 52, 4), 1.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    with torch.no_grad():
        for _ in range(3):
            network(torch.from_numpy(CROPS))
    return network.eval()


@pytest.mark.parametrize("backbone", ["tiny", "efficientnet_lite0"])
def test_what_was_exported_comes_back(backbone, tmp_path):
    network = trained(backbone)
    path = tmp_path / "net.onnx"
    meta = {
        "face_recon_format": "1",
        "face_model": "ours",
        "crop_margin": "1.3",
        "training": json.dumps({"backbone": backbone}),
    }
    export_float32(network, 64, path, meta)
    state = state_from_onnx(path, CROPS)
    assert state["face_model"] == "ours" and state["config"]["backbone"] == backbone
    assert CoefficientSizes(**state["sizes"]) == network.sizes
    again = FaceRegressor(backbone, network.sizes, 1.0)
    again.load_state_dict(state["average"])
    image = torch.from_numpy(CROPS)
    with torch.no_grad():
        expected, evaluated = network(image), again.eval()(image)
        # the statistics are those of these very crops: training starts where evaluation stands
        trained_on = again.train()(image)
    for name in expected._fields:
        assert torch.allclose(getattr(evaluated, name), getattr(expected, name), atol=1e-4), name
        assert torch.allclose(getattr(trained_on, name), getattr(expected, name), atol=5e-3), name


def test_int8_comes_back_with_its_rounding(tmp_path):
    """Every layer in its place, though the file has them in another order."""
    network, path = trained("tiny"), tmp_path / "net.onnx"
    meta = {
        "face_recon_format": "1",
        "crop_margin": "1.3",
        "training": json.dumps({"backbone": "tiny"}),
    }
    quantise(network, path, CROPS, meta)
    again = FaceRegressor("tiny", network.sizes, 1.0)
    again.load_state_dict(state_from_onnx(path, CROPS)["average"])
    exact, rounded = fold_batch_norm(network), fold_batch_norm(again.eval())
    steps = round_weights(fold_batch_norm(network), CROPS)
    for name, weight in exact.backbone.state_dict().items():
        error = (rounded.backbone.state_dict()[name] - weight).abs()
        assert float(error.max()) < 0.1 * float(weight.abs().max()), name
    assert len(steps) > 5  # of the layers there are
    with torch.no_grad():
        answer = again(torch.from_numpy(CROPS))
    expected = FaceNetwork(path, provider="cpu").predict(CROPS).coefficients
    # what is left is the rounding of activations
    assert np.abs(answer.rotation.numpy() - expected.rotation).mean() < 0.02


def test_a_run_starts_from_the_network_that_ships_or_learns_from_it(monkeypatch):
    monkeypatch.setattr(train, "STATISTICS_CROPS", 8)  # what is answered does not depend on them
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    path = find_model(NETWORK)
    config = TrainConfig(init=str(path), backbone="efficientnet_lite0", image_size=96)
    learner = TrainConfig(teacher=str(path), teacher_size=96)
    crops = synthetic_crops(model, config.crop_margin, 96, 4, seed=5)
    with torch.no_grad():
        starter = build_network(config, model).eval()
        answers = [net(torch.from_numpy(crops)) for net in (starter, load_teacher(learner, model))]
    expected = FaceNetwork(path, provider="cpu").predict(crops).coefficients
    for name in ("identity", "expression", "albedo", "rotation", "translation", "illumination"):
        for answer in answers:
            ours = getattr(answer, name).numpy()
            np.testing.assert_allclose(ours, getattr(expected, name), atol=1e-3, err_msg=name)


def test_the_networks_that_ship_see_the_same_faces():
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    crops = synthetic_crops(model, 1.3, 96, 32, seed=5)
    parity = measure_parity(find_model(NETWORK), find_model(REFERENCE_NETWORK), model, crops)
    assert parity.vertex_shift_px < 3 and parity.pose_deg < 6


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no file"):
        state_from_onnx(tmp_path / "none.onnx", CROPS)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x07 not a graph")
    with pytest.raises(ModelError, match="face-recon export"):
        state_from_onnx(damaged, CROPS)
