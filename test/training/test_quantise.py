"""int8: rounding that makes up for itself, what is quantised, and what is refused."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

import onnx  # noqa: E402

from face_recon_ros.core.errors import ConfigError, ModelError  # noqa: E402
from face_recon_ros.core.inference import FaceNetwork  # noqa: E402
from face_recon_ros.training import export as exports  # noqa: E402
from face_recon_ros.training import quantise  # noqa: E402
from face_recon_ros.training.network import CoefficientSizes, FaceRegressor  # noqa: E402
from face_recon_ros.training.onnx_weights import state_from_onnx  # noqa: E402

SIZES = CoefficientSizes(8, 52, 4)
CROPS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


def network(backbone, seed=0):
    torch.manual_seed(seed)
    net = FaceRegressor(backbone, SIZES, 1.0)
    net.train()
    with torch.no_grad():
        for _ in range(3):  # BatchNorm statistics
            net(torch.from_numpy(CROPS))
    return net.eval().requires_grad_(False)


def test_rounding_stays_on_its_levels_and_beats_the_nearest():
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(2, 9, 9, generator=generator, dtype=torch.float64) + 3  # much in common
    inputs = mixing @ torch.randn(2, 9, 500, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 5, 9, generator=generator, dtype=torch.float64)
    step = weight.abs().amax(2) / 7
    covariance = inputs @ inputs.transpose(1, 2) / 500
    rounded = quantise.compensated_rounding(weight, step, 7, covariance)
    multiples = rounded / step[:, :, None]
    assert torch.allclose(multiples, multiples.round(), atol=1e-9)
    assert float(multiples.abs().max()) <= 7 + 1e-9
    nearest = (weight / step[:, :, None]).round() * step[:, :, None]
    error = [((w - weight) @ inputs).square().mean() for w in (rounded, nearest)]
    assert error[0] < 0.5 * error[1]
    # uncorrelated inputs cannot make up for anything
    plain = quantise.compensated_rounding(weight, step, 7, torch.eye(9).double().repeat(2, 1, 1))
    assert torch.allclose(plain, nearest)


def test_folding_changes_nothing_and_rounding_keeps_the_mean():
    net = network("tiny")
    before = copy.deepcopy(net.state_dict())
    folded = quantise.fold_batch_norm(net)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    image = torch.from_numpy(CROPS)
    for ours, theirs in zip(folded(image), net(image), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)
    layers = quantise.convolutions(folded)
    layer = next(iter(layers.values()))
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    folded(image)
    steps = quantise.round_weights(folded, CROPS)
    folded(image)
    shift = (seen[-1] - seen[0]).mean((0, 2, 3)).abs()
    assert float(shift.max()) < 1e-3 * float(seen[0].abs().max())
    for name, conv in layers.items():
        levels = conv.weight.flatten(1).double() / steps[name][:, None]
        assert torch.allclose(levels, levels.round(), atol=1e-2), name
        assert float(levels.abs().max()) < 128


def test_pose_first_stage_and_last_layers_stay_in_float(tmp_path):
    """The sums that make the pose are none of the network's layers."""
    net = network("efficientnet_lite0")
    path = tmp_path / "net.onnx"
    exports.quantise(net, path, CROPS, {"face_recon_format": "1", "crop_margin": "1.3"}, 2)
    graph = onnx.load(str(path)).graph
    scales = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
    by_weight = {n.input[1]: n for n in graph.node if n.op_type == "Conv"}
    assert len(by_weight) == 49
    float_weights = {i.name for i in graph.initializer} & set(by_weight)
    early = [m for part in net.backbone.early(1) for m in part.modules()]
    assert sum(isinstance(m, torch.nn.Conv2d) for m in early) == 9
    assert len(float_weights) == 9 + 2
    gemm = [n for n in graph.node if n.op_type == "Gemm"]
    after = {name for n in gemm for name in n.output}
    for node in graph.node:  # everything behind the heads
        if after & set(node.input):
            assert node.op_type != "QuantizeLinear"
            after |= set(node.output)
    assert any(n.op_type == "Add" and after & set(n.output) for n in graph.node)
    assert scales


def test_8_bit_weights_are_within_half_a_step_and_come_back(tmp_path):
    net = network("tiny")
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # some begin at zero
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    path, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    metadata = {
        "face_recon_format": "1",
        "crop_margin": "1.3",
        "training": '{"backbone": "tiny"}',
    }
    exports.export_float32(net, 32, path, metadata)
    small.write_bytes(path.read_bytes())
    exports.store_weights_in_8_bits(small)
    graph = onnx.load(str(small)).graph
    levels = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert len(levels) == sum(n.op_type == "Conv" for n in graph.node) > 5
    exact, rounded = (
        quantise.fold_batch_norm(state_network(state_from_onnx(p, CROPS))) for p in (path, small)
    )
    for name, layer in exact.backbone.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            error = (rounded.backbone.get_submodule(name).weight - layer.weight).abs().detach()
            step = layer.weight.abs().amax((1, 2, 3), keepdim=True) / 127
            assert bool((error <= 0.5 * step + 1e-5 * layer.weight.abs().max()).all()), name
            assert float(error.max()) > 0, name
    answers = [FaceNetwork(p, provider="cpu").predict(CROPS).coefficients for p in (path, small)]
    for name in ("identity", "expression", "albedo", "rotation", "translation"):
        ours, theirs = (getattr(answer, name) for answer in answers)
        assert np.abs(ours - theirs).max() < 0.02, name


def state_network(state):
    sizes = CoefficientSizes(**state["sizes"])
    net = FaceRegressor(state["config"]["backbone"], sizes, 1.0)
    net.load_state_dict(state["average"])
    return net.eval()


def test_int8_too_far_from_float32_is_refused(tmp_path, monkeypatch):
    net = network("tiny")
    monkeypatch.setattr(exports, "load_network", lambda path: (net, STATE))
    monkeypatch.setattr(exports, "find_model", lambda name: name)
    monkeypatch.setattr(exports, "load_morphable_model", lambda path, level: None)
    far = exports.Parity(0.01, 0.1, 0.31, 1.0, 0.1)
    monkeypatch.setattr(exports, "measure_parity", lambda *a: far)
    out = tmp_path / "net.onnx"
    with pytest.raises(ModelError, match="float32"):
        exports.export(tmp_path / "c.pt", out, precision="int8", crops=np.repeat(CROPS, 20, 0))
    assert not out.exists()
    with pytest.raises(ConfigError, match="precision"):
        exports.export(tmp_path / "c.pt", out, precision="int4")


STATE = {
    "config": {
        "backbone": "tiny",
        "image_size": 32,
        "crop_margin": 1.5,
        "seed": 0,
        "photographs": "",
        "face_model": "dome",
    },
    "face_model": "dome",
    "face_model_sha256": "",
    "code": "",
    "step": 0,
    "elapsed_s": 0.0,
}
