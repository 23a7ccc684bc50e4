"""The differentiable renderer, skin attention per photograph, and the embedding network."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

from face_recon_ros.core.errors import ModelError  # noqa: E402
from face_recon_ros.core.morphable_model import load_morphable_model  # noqa: E402
from face_recon_ros.core.rasterizer import rasterize as core_rasterize  # noqa: E402
from face_recon_ros.training import losses, renderer  # noqa: E402
from face_recon_ros.training.decoder import FaceDecoder  # noqa: E402
from face_recon_ros.training.embedding import aligned_faces, load_embedding  # noqa: E402
from face_recon_ros.training.network import Prediction  # noqa: E402

SIZE = 40


@pytest.fixture(scope="module")
def decoder(face_model_path):
    return FaceDecoder(load_morphable_model(face_model_path, level="coarse"))


def answer(decoder, n=1, depth=1.4):
    light = torch.zeros(n, 9, 3)
    light[:, 0], light[:, 3] = 0.8, 0.2  # from a side, so that geometry shows
    return Prediction(
        torch.zeros(n, decoder.identity_basis.shape[1]),
        torch.zeros(n, decoder.expression_basis.shape[1]),
        torch.zeros(n, decoder.albedo_basis.shape[1]),
        torch.zeros(n, 3),
        torch.tensor([[0.01, -0.02, depth]]).repeat(n, 1),
        light,
        torch.ones(n, 1),
    )


def test_barycentric_gradcheck():
    pixels = torch.tensor([[[0.3, 0.2], [7.1, 1.3], [2.2, 6.9]]], dtype=torch.float64)
    depth = torch.tensor([[1.0, 1.3, 0.8]], dtype=torch.float64)
    corners = torch.tensor([0, 1, 2]).expand(1, 5, 5, 3)
    assert torch.autograd.gradcheck(
        lambda p, z: renderer.barycentric(p, z, corners, 5),
        (pixels.requires_grad_(), depth.requires_grad_()),
    )


def test_any_rasteriser_gives_the_same_picture(decoder):
    """core's is plain numpy: a second implementation behind the same interface."""
    ours = renderer.render_face(decoder, answer(decoder), SIZE)
    theirs = renderer.render_face(decoder, answer(decoder), SIZE, core_rasterize)
    assert float((ours.colour - theirs.colour).abs().mean()) < 0.005
    assert 0.1 < float(ours.coverage.mean()) < 0.95
    assert float(ours.colour[ours.coverage == 0].abs().sum()) == 0


def test_photometric_descent_finds_place_and_colour(decoder):
    """Nothing but pixels: what was changed comes back."""
    truth = answer(decoder)
    target = renderer.render_face(decoder, truth, SIZE).colour
    far = truth.albedo + 1.5
    moved = truth.translation + torch.tensor([[0.006, 0.004, 0.0]])
    guess = [far.clone().requires_grad_(), moved.clone().requires_grad_()]
    optimiser = torch.optim.Adam(
        [{"params": guess[:1], "lr": 0.05}, {"params": guess[1:], "lr": 5e-4}]
    )
    history = []
    for _ in range(80):
        rendering = renderer.render_face(
            decoder, truth._replace(albedo=guess[0], translation=guess[1]), SIZE
        )
        loss = losses.photometric(rendering.colour, target, rendering.attention)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.2 * history[0]

    def colours(albedo):
        light = truth._replace(albedo=albedo, translation=truth.translation)
        return renderer.render_face(decoder, light, SIZE).colour

    with torch.no_grad():
        wrong = [float((colours(a) - target).abs().mean()) for a in (guess[0], far)]
        apart = [float((t - truth.translation).norm()) for t in (guess[1], moved)]
    assert wrong[0] < 0.5 * wrong[1]
    assert apart[0] < 0.5 * apart[1]


def test_attention_leaves_out_what_is_not_like_the_skin(decoder):
    rendering = renderer.render_face(decoder, answer(decoder), SIZE)
    photograph = rendering.colour.clone()
    clean = renderer.photograph_attention(photograph, rendering)
    assert torch.allclose(clean, rendering.attention, atol=0.15)
    photograph[:, 18:24, 18:24] = torch.tensor([0.05, 0.1, 0.9])  # a microphone
    occluded = renderer.photograph_attention(photograph, rendering)
    assert float(occluded[:, 18:24, 18:24].max()) < 0.05 < float(clean[:, 18:24, 18:24].min())
    assert float(occluded[:, 28:32].mean()) > 0.5 * float(clean[:, 28:32].mean())


def write_embedding(path, operator="Relu"):
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((6, 3, 3, 3)).astype(np.float32), "w")
    bias = numpy_helper.from_array(rng.standard_normal(6).astype(np.float32), "b")
    depthwise = numpy_helper.from_array(rng.standard_normal((6, 1, 3, 3)).astype(np.float32), "d")
    pointwise = numpy_helper.from_array(rng.standard_normal((6, 6, 1, 1)).astype(np.float32), "p")
    shape = numpy_helper.from_array(np.array([-1, 6 * 4 * 4]), "s")
    low, high = (numpy_helper.from_array(np.float32(v), n) for v, n in ((0, "lo"), (6, "hi")))
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a", "lo", "hi"], ["c"]),
        helper.make_node("Conv", ["c", "d"], ["e"], pads=[1, 1, 1, 1], group=6),
        helper.make_node("Conv", ["e", "p", "b"], ["h"]),
        helper.make_node(operator, ["h"], ["f"]),
        helper.make_node("Add", ["f", "c"], ["g"]),
        helper.make_node("Reshape", ["g", "s"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "embedding",
        [value("x", TensorProto.FLOAT, [None, 3, 8, 8])],
        [value("y", TensorProto.FLOAT, [None, 96])],
        [weight, bias, depthwise, pointwise, shape, low, high],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_onnx_embedding_runs_in_torch_with_gradients(tmp_path):
    path = write_embedding(tmp_path / "e.onnx")
    image = torch.randn(2, 3, 8, 8, requires_grad=True)
    ours = load_embedding(path)(image)
    theirs = ort.InferenceSession(str(path)).run(None, {"x": image.detach().numpy()})[0]
    assert np.allclose(ours.detach(), theirs, atol=1e-4)
    ours.square().sum().backward()
    assert float(image.grad.abs().sum()) > 0
    with pytest.raises(ModelError, match="Softmax"):
        load_embedding(write_embedding(tmp_path / "bad.onnx", "Softmax"))
    with pytest.raises(ModelError, match="no such file"):
        load_embedding(tmp_path / "none.onnx")


def test_aligned_faces_put_the_eyes_where_recognition_wants_them(decoder, face_model_path):
    """A bright dot on each eye lands level and apart, whatever the roll."""
    from face_recon_ros.training import geometry

    model = load_morphable_model(face_model_path, level="coarse")
    eyes = torch.from_numpy(model.interpupillary.astype(np.int64))
    for roll in (0.0, 0.6):
        turned = answer(decoder)._replace(rotation=torch.tensor([[0.0, 0.0, roll]]))
        points = geometry.crop_from_face_points(
            decoder.mean_shape[None, eyes], turned.rotation, turned.translation
        )
        pixels = geometry.project(points)[0] * 160 + 79.5
        images = torch.zeros(1, 160, 160, 3)
        for channel, (x, y) in enumerate(pixels.round().int().tolist()):
            images[0, y - 1 : y + 2, x - 1 : x + 2, channel] = 1.0
        faces = aligned_faces(images, decoder, eyes, turned)[0]
        spots = [np.unravel_index(int(faces[c].argmax()), (112, 112)) for c in range(2)]
        (right_y, right_x), (left_y, left_x) = spots
        assert abs(right_y - left_y) <= 3 and abs((right_y + left_y) / 2 - 0.46 * 112) <= 3
        assert right_x < 56 < left_x and abs(left_x - right_x - 0.315 * 112) <= 4


def test_perception_loss_reaches_shape_colour_and_pose(tmp_path, face_model_path):
    """Through the embedding network and the renderer; the photograph's side gets no gradient."""
    from face_recon_ros.training.config import config_from_dict
    from face_recon_ros.training.objective import Objective

    embedding = write_embedding(tmp_path / "e.onnx")
    model = load_morphable_model(face_model_path, level="coarse")
    settings = {"embedding": str(embedding), "weights": {"perception": 1.0}}
    objective = Objective(config_from_dict(settings), model)
    truth = answer(objective.face, 2)
    photograph = renderer.render_face(
        objective.face, truth._replace(albedo=truth.albedo + 0.7), SIZE
    ).colour
    leaves = [v.clone().requires_grad_() for v in truth]
    nobody = torch.tensor([-1, -1])

    def perception():
        return objective.against_photographs(Prediction(*leaves), photograph, nobody)["perception"]

    before = perception()
    before.backward()
    for name, leaf in zip(Prediction._fields[:6], leaves, strict=False):
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all(), name
        assert float(leaf.grad.abs().sum()) > 0, name
    with torch.no_grad():  # a small step against the gradient of the colours makes it less
        albedo = leaves[2]
        albedo -= 0.05 * albedo.grad / albedo.grad.norm()
        assert float(perception()) < float(before)
