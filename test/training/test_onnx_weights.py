"""A network that was exported comes back, to be trained on."""

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

import onnx  # noqa: E402

from face_recon_ros.core.errors import ConfigError, ModelError  # noqa: E402
from face_recon_ros.core.inference import FaceNetwork  # noqa: E402
from face_recon_ros.core.models import FACE_MODEL, NETWORK, REFERENCE_NETWORK, find_model  # noqa: E402
from face_recon_ros.core.morphable_model import load_morphable_model  # noqa: E402
from face_recon_ros.training import export as exports  # noqa: E402
from face_recon_ros.training import stored  # noqa: E402
from face_recon_ros.training.config import TrainConfig  # noqa: E402
from face_recon_ros.training.data import synthetic_crops  # noqa: E402
from face_recon_ros.training.export import export_float32, measure_parity, store_weights_in_8_bits  # noqa: E402
from face_recon_ros.training.network import CoefficientSizes, FaceRegressor  # noqa: E402
from face_recon_ros.training.onnx_weights import fold_batch_norm, state_from_onnx  # noqa: E402
from face_recon_ros.training.stored import build_network, load_teacher  # noqa: E402

CROPS = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


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


META = {
    "face_recon_format": "1",
    "face_model": "ours",
    "crop_margin": "1.3",
    "training": json.dumps({"backbone": "tiny"}),
}


def network_of(path):
    """What `init` would start from."""
    state = state_from_onnx(path, CROPS)
    network = FaceRegressor(state["config"]["backbone"], CoefficientSizes(**state["sizes"]), 1.0)
    network.load_state_dict(state["average"])
    return network.eval()


@pytest.mark.parametrize("backbone", ["tiny", "efficientnet_lite0"])
def test_what_was_exported_comes_back(backbone, tmp_path):
    network = trained(backbone)
    path = tmp_path / "net.onnx"
    export_float32(network, 64, path, META | {"training": json.dumps({"backbone": backbone})})
    state = state_from_onnx(path, CROPS)
    assert state["face_model"] == "ours" and state["config"]["backbone"] == backbone
    assert CoefficientSizes(**state["sizes"]) == network.sizes
    again = network_of(path)
    image = torch.from_numpy(CROPS)
    with torch.no_grad():
        expected, evaluated = network(image), again(image)
        # the statistics are those of these very crops: training starts where evaluation stands
        trained_on = again.train()(image)
    for name in expected._fields:
        assert torch.allclose(getattr(evaluated, name), getattr(expected, name), atol=1e-4), name
        assert torch.allclose(getattr(trained_on, name), getattr(expected, name), atol=5e-3), name


def test_folding_changes_nothing():
    network = trained("tiny")
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    image = torch.from_numpy(CROPS)
    for ours, theirs in zip(folded(image), network(image), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)


def test_8_bit_weights_are_within_half_a_step_and_come_back(tmp_path):
    path, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    export_float32(trained("tiny"), 64, path, META)
    small.write_bytes(path.read_bytes())
    store_weights_in_8_bits(small)
    graph = onnx.load(str(small)).graph
    levels = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert len(levels) == sum(n.op_type == "Conv" for n in graph.node) > 5
    exact, rounded = (fold_batch_norm(network_of(p)) for p in (path, small))
    for name, layer in exact.backbone.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            error = (rounded.backbone.get_submodule(name).weight - layer.weight).abs().detach()
            step = layer.weight.abs().amax((1, 2, 3), keepdim=True) / 127
            assert bool((error <= 0.5 * step + 1e-5 * layer.weight.abs().max()).all()), name
            assert float(error.max()) > 0, name
    answers = [FaceNetwork(p, provider="cpu").predict(CROPS).coefficients for p in (path, small)]
    for name in ("identity", "expression", "albedo", "rotation", "translation"):
        ours, theirs = (getattr(answer, name) for answer in answers)
        assert np.abs(ours - theirs).max() < 0.05, name


def test_8_bit_weights_too_far_from_float32_are_refused(tmp_path, monkeypatch):
    state = {
        "config": {**vars(TrainConfig()), "backbone": "tiny", "image_size": 32},
        "face_model": "dome",
        "face_model_sha256": "",
        "code": "",
        "step": 0,
        "elapsed_s": 0.0,
    }
    far = exports.Parity(0.01, 0.1, 0.31, 1.0, 0.1)
    monkeypatch.setattr(exports, "load_network", lambda path: (trained("tiny"), state))
    monkeypatch.setattr(exports, "measure_parity", lambda *_: far)
    out = tmp_path / "net.onnx"
    with pytest.raises(ModelError, match="float32"):
        exports.export(tmp_path / "c.pt", out, precision="int8_weights", crops=CROPS)
    assert not out.exists()
    for wrong in ("int8", "int4"):
        with pytest.raises(ConfigError, match="precision float32 or int8_weights"):
            exports.export(tmp_path / "c.pt", out, precision=wrong)


def test_a_run_starts_from_the_network_that_ships_or_learns_from_it(monkeypatch):
    monkeypatch.setattr(stored, "STATISTICS_CROPS", 8)  # what is answered does not depend on them
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
