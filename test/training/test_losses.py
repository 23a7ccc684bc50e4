"""Each loss: zero where it should be, right gradient, and blind to what it should not see."""

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from face_recon_ros.evaluation.metrics import shape_distance_mm  # noqa: E402
from face_recon_ros.training import losses  # noqa: E402
from face_recon_ros.training.geometry import rotation_from_vector  # noqa: E402

B, N, K = 3, 5, 4


def rand(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def other(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


WEIGHTS = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
IN_FRONT = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
CASES = {
    "reprojection": lambda x: losses.reprojection(
        x.view(B, N, 3) + IN_FRONT, other(B, N, 3) + IN_FRONT, WEIGHTS
    ),
    "vertex_distance_mm": lambda x: losses.vertex_distance_mm(
        x.view(B, N, 3), other(B, N, 3), WEIGHTS
    ),
    "shape_distance_mm": lambda x: losses.shape_distance_mm(
        x.view(B, N, 3), other(B, N, 3), WEIGHTS
    ),
    "coefficients": lambda x: losses.coefficients(x.view(B, 15), other(B, 15), WEIGHTS),
    "rotation_geodesic": lambda x: losses.rotation_geodesic(
        rotation_from_vector(x.view(-1, 3)), rotation_from_vector(other(15, 3)), rand(15)
    ),
    "log_distance": lambda x: losses.log_distance(x.view(-1, 3), other(15, 3)),
    "vertex_colour": lambda x: losses.vertex_colour(x.view(B, N, 3), other(B, N, 3), WEIGHTS),
    "confidence": lambda x: losses.confidence(x.view(-1, 1), 5 * other(45)),
    "features": lambda x: losses.features([x.view(B, 3, 1, 5)], [other(B, 3, 2, 5)]),
    "photometric": lambda x: losses.photometric(
        x.view(1, 3, 5, 3), other(1, 3, 5, 3), rand(1, 3, 5)
    ),
    "perception": lambda x: losses.perception(x.view(B, 15), other(B, 15)),
    "normal_prior": lambda x: losses.normal_prior(x.view(B, 15)),
    "activation_prior": lambda x: losses.activation_prior(x.view(B, 15)),
    "albedo_symmetry": lambda x: losses.albedo_symmetry(
        x.view(B, N, 3), torch.tensor([1, 0, 2, -1, -1])
    ),
    "albedo_variance": lambda x: losses.albedo_variance(x.view(B, N, 3), other(N)),
    "white_light": lambda x: losses.white_light(x.view(B, N, 3)),
    "same_person": lambda x: losses.same_person(x.view(9, 5), torch.arange(9) // 2),
}


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    x = rand(45).requires_grad_()
    assert torch.autograd.gradcheck(CASES[name], x, atol=1e-6)


def test_shape_distance_is_blind_to_place_and_size():
    shape, true = rand(B, N, 3), other(B, N, 3)
    moved = 1.7 * shape + other(B, 1, 3)
    value = losses.shape_distance_mm(shape, true)
    assert value > 1 and torch.isclose(losses.shape_distance_mm(moved, true), value)
    assert losses.shape_distance_mm(moved, shape) < 1e-2


def test_losses_vanish_at_the_truth():
    points = rand(B, N, 3) + IN_FRONT
    assert losses.reprojection(points, points) < 1e-5
    assert losses.vertex_distance_mm(points, points) < 1e-2
    assert losses.rotation_geodesic(*(rotation_from_vector(rand(B, 3)),) * 2) < 1e-5
    assert losses.log_distance(rand(B, 3), rand(B, 3)) < 2e-3
    assert losses.perception(rand(B, K), 3 * rand(B, K)) < 1e-9  # length does not matter
    assert losses.white_light(rand(B, 9, 1).expand(B, 9, 3)) < 1e-12
    assert losses.albedo_variance(torch.ones(B, N, 3), torch.ones(N)) == 0


def test_features_are_sampled_where_the_hints_are():
    torch.manual_seed(0)
    teacher = [torch.randn(4, 3, 2, 2)]
    finer = [functional.interpolate(teacher[0], (4, 4), mode="bilinear", align_corners=False)]
    for maps in (teacher, finer):
        whitened = functional.batch_norm(maps[0], None, None, training=True, eps=1e-3)
        assert float(losses.features([whitened], teacher)) < 1e-10
        assert float(losses.features([whitened + 1], teacher)) == pytest.approx(1, rel=1e-4)


def test_weighted_out_samples_do_not_count():
    a, b = rand(2, N, 3), rand(2, N, 3)
    b[1] += 100
    keep_first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert losses.vertex_distance_mm(a, b, keep_first) < 1e-2
    nobody = torch.zeros(2, dtype=torch.float64)
    assert losses.vertex_distance_mm(a, b, nobody) == 0


def test_geodesic_is_the_angle():
    a = rotation_from_vector(torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64))
    b = rotation_from_vector(torch.tensor([[0.0, 0.7, 0.0]], dtype=torch.float64))
    assert float(losses.rotation_geodesic(a, b)) == pytest.approx(0.7, abs=1e-5)


def test_photometric_is_robust_and_looks_only_where_it_should():
    photograph, rendering = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3)
    attention = torch.ones(1, 4, 4)
    rendering[0, 0, 0] = 1.0
    once = float(losses.photometric(rendering, photograph, attention))
    rendering[0, 0, 0] = 2.0
    assert float(losses.photometric(rendering, photograph, attention)) == pytest.approx(
        2 * once, rel=1e-4
    )
    attention[0, 0, 0] = 0
    assert float(losses.photometric(rendering, photograph, attention)) < 1e-5
    assert float(losses.photometric(rendering, photograph, 0 * attention)) == 0


def test_confidence_target_falls_with_the_error():
    value = torch.tensor([[1.0], [torch.e**-1]])
    assert losses.confidence(value, torch.tensor([0.0, 3.0])) < 1e-9
    assert losses.confidence(value, torch.tensor([3.0, 0.0])) > 0.1


def test_same_person_knows_who_is_who():
    identity = torch.tensor([[1.0, 0.0], [1.0, 0.0], [5.0, 5.0], [9.0, 9.0]])
    assert losses.same_person(identity, torch.tensor([0, 0, -1, -1])) == 0
    assert losses.same_person(identity, torch.tensor([0, 1, 2, 3])) == 0
    assert losses.same_person(identity, torch.tensor([0, 1, 0, 1])) > 1


def test_the_evaluation_measures_shape_as_the_loss_does():
    ours, true = torch.randn(2, 1, 30, 3)
    loss = losses.shape_distance_mm(ours, true).item()
    assert shape_distance_mm(ours[0].numpy(), true[0].numpy()) == pytest.approx(loss, rel=1e-4)
