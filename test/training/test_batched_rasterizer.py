"""The z-buffer in torch is the z-buffer in numba, picture by picture, on every device there is."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

from face_recon_ros.core.morphable_model import load_morphable_model  # noqa: E402
from face_recon_ros.training import renderer  # noqa: E402
from face_recon_ros.training.batched_rasterizer import barycentric, rasterize_batch  # noqa: E402
from face_recon_ros.training.decoder import FaceDecoder  # noqa: E402
from face_recon_ros.training.network import Prediction  # noqa: E402
from face_recon_ros.training.rasterizer import interpolate, rasterize  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIZE = 96


@pytest.fixture(scope="module")
def heads():
    """Three heads before a camera, one of them partly outside the picture."""
    model = load_morphable_model("models/face_model.npz", level="coarse")
    random = np.random.default_rng(0)
    points, depths = [], []
    for k in range(3):
        head = model.vertices(
            random.standard_normal(model.k_identity).astype(np.float32),
            random.uniform(0, 0.4, model.k_expression).astype(np.float32),
        )
        turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
        x = (head - head.mean(0)) @ turn.T + [0.04 * k, 0, 1]
        points.append(x[:, :2] / x[:, 2:] * 3.5 * SIZE + SIZE / 2)
        depths.append(x[:, 2])
    return np.float32(points), np.float32(depths), model.triangles


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_it_sees_what_the_cpu_sees(heads, device, own):
    """One list of triangles for all, or one for each picture."""
    points, depth, triangles = heads
    order = [np.roll(triangles, k, 0) if own else triangles for k in range(3)]
    px, z = torch.from_numpy(points).to(device), torch.from_numpy(depth).to(device)
    faces = torch.from_numpy(np.stack(order).astype(np.int64)).to(device)
    faces = faces if own else faces[0]
    ours = rasterize_batch(px, z, faces, SIZE)
    covered = ours.triangle.clamp(min=0)
    corners = torch.stack([f[c] for f, c in zip(faces.expand(3, -1, -1), covered, strict=True)])
    weights = barycentric(px, z, corners, SIZE).cpu().numpy()
    for k in range(3):
        theirs = rasterize(points[k], depth[k], order[k], SIZE, SIZE)
        triangle = ours.triangle[k].cpu().numpy()
        assert (theirs.triangle >= 0).mean() > 0.1
        same = triangle == theirs.triangle
        assert same.mean() >= 0.999
        same &= triangle >= 0
        np.testing.assert_allclose(weights[k][same], theirs.weights[same], atol=1e-4)
        near = ours.inverse_depth[k].cpu().numpy()
        np.testing.assert_allclose(near[same], 1 / theirs.depth[same], rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_what_cannot_be_seen_is_left_out(device):
    """Behind the camera, not finite, without area, outside; and nothing at all."""
    points = [[1, 1], [6, 1], [1, 6], [90, 90], [95, 90], [90, 95], [float("nan"), 2]]
    depth = [1.0, 1, 1, 1, 1, 1, 1, -1.0]
    px = torch.tensor([[*points, [6, 6]]], device=device)
    z = torch.tensor([depth], device=device)
    faces = torch.tensor([[0, 1, 7], [0, 1, 6], [0, 1, 1], [3, 4, 5], [0, 0, 0]], device=device)
    assert (rasterize_batch(px, z, faces, 8).triangle == -1).all()
    with_one = torch.cat([faces, faces.new_tensor([[0, 1, 2]])])
    assert set(rasterize_batch(px, z, with_one, 8).triangle.unique().tolist()) == {-1, 5}
    assert rasterize_batch(px[:0], z[:0], faces, 8).triangle.shape == (0, 8, 8)


def test_the_first_of_equals_wins():
    px, z = torch.tensor([[[0.0, 0], [7, 0], [0, 7]]]), torch.ones(1, 3)
    faces = torch.tensor([[0, 1, 2], [1, 2, 0], [0, 1, 2]])
    assert rasterize_batch(px, z, faces, 8).triangle.max() == 0


def test_gradients_are_those_of_the_cpus_visibility(face_model_path):
    """The differentiable renderer on top of either z-buffer: same picture, same gradients."""
    decoder = FaceDecoder(load_morphable_model(face_model_path, level="coarse"))
    light = torch.zeros(2, 9, 3)
    light[:, 0], light[:, 3] = 0.8, 0.2
    sizes = (decoder.identity_basis, decoder.expression_basis, decoder.albedo_basis)
    random = torch.Generator().manual_seed(1)
    values = [0.3 * torch.randn(2, basis.shape[1], generator=random) for basis in sizes]
    values[1] = values[1].abs()
    pose = [torch.tensor([[0.1, -0.2, 0.05], [0.0, 0.3, 0.0]]), torch.tensor([[0.01, 0, 1.4]] * 2)]

    def in_torch(points, depth, triangles, height, width):
        px, z = torch.from_numpy(points)[None], torch.from_numpy(depth)[None]
        found = rasterize_batch(px, z, torch.from_numpy(triangles).long(), height)
        return (found.triangle[0].numpy(),)

    gradients = []
    for rasterizer in (None, in_torch):
        leaves = [v.clone().requires_grad_() for v in (*values, *pose, light)]
        answer = Prediction(*leaves, torch.ones(2, 1))
        renderer.render_face(decoder, answer, 40, rasterizer).colour.square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*gradients, strict=True):
        assert float(theirs.abs().sum()) > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_values_that_are_not_of_all_vertices_are_refused():
    """Compiled loops would read whatever lies behind the array."""
    triangle = np.array([[0, 1, 2]], np.int32)
    points = np.array([[1, 1], [8, 1], [1, 8]], np.float32)
    fragments = rasterize(points, np.ones(3, np.float32), triangle, 10, 10)
    with pytest.raises(IndexError, match="values of 1"):
        interpolate(fragments, triangle, np.ones((1, 3), np.float32))
    with pytest.raises(IndexError, match="values of 2"):
        rasterize(points[:2], np.ones(2, np.float32), triangle, 10, 10)
    none = np.zeros((0, 3), np.int32)
    assert (rasterize(points[:0], points[:0, 0], none, 4, 4).triangle == -1).all()
