import numpy as np
import pytest

torch = pytest.importorskip("torch")

from face_recon_ros.core import crop_pose, illumination, rigid  # noqa: E402
from face_recon_ros.core.morphable_model import VertexNormals, load_morphable_model  # noqa: E402
from face_recon_ros.training import decoder, geometry  # noqa: E402


def random_rotations(n):
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((n, 3))
    return axes / np.linalg.norm(axes, axis=1, keepdims=True) * rng.uniform(0, 3.1, (n, 1))


def test_rotation_from_vector_agrees_with_core():
    vectors = np.concatenate([random_rotations(20), np.zeros((1, 3)), 1e-6 * np.ones((1, 3))])
    ours = geometry.rotation_from_vector(torch.tensor(vectors)).numpy()
    assert np.allclose(ours, [rigid.rotation_from_vector(v) for v in vectors], atol=1e-9)


def test_rotation_gradient_is_finite_and_right_everywhere():
    vectors = torch.tensor(np.concatenate([random_rotations(3), np.zeros((1, 3))]))
    assert torch.autograd.gradcheck(geometry.rotation_from_vector, vectors.requires_grad_())


def test_heads_answer_in_the_terms_of_core_pose():
    """The sellion lands on its pixel; the attitude is told against the viewing ray."""
    attitude = torch.tensor([[0.1, -0.4, 0.2], [0.0, 0.0, 0.0]], dtype=torch.float64)
    position = torch.tensor([[0.2, -0.1, 0.3], [-0.3, 0.4, 0.0]], dtype=torch.float64)
    rotation, translation = geometry.pose_from_heads(attitude, position, 0.9)
    camera = crop_pose.crop_camera(100)
    for i in range(2):
        in_crop = crop_pose.crop_from_face(rotation[i].numpy(), translation[i].numpy())
        pixel = camera.project(in_crop.translation)
        assert np.allclose(pixel, 49.5 + 100 * position[i, :2].numpy())
        assert in_crop.translation[2] == pytest.approx(0.9 * np.exp(float(position[i, 2])))
        towards = rigid.rotation_between([0, 0, 1], in_crop.translation)
        angle = 2 * np.arctan(np.linalg.norm(attitude[i]))
        assert rigid.angle_between(
            towards @ crop_pose.CAMERA_FROM_FRONTAL_FACE, in_crop.rotation
        ) == pytest.approx(angle, abs=1e-6)


def test_pose_heads_gradcheck():
    attitude = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    position = (0.2 * torch.randn(3, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, p: geometry.pose_from_heads(a, p, 1.0), (attitude, position)
    )


def test_projection_agrees_with_core():
    points = np.random.default_rng(1).normal(0, 0.1, (5, 3)) + np.array([0, 0, 1])
    ours = geometry.project(torch.tensor(points)).numpy() * 64 + 31.5
    assert np.allclose(ours, crop_pose.crop_camera(64).project(points))


def test_decoder_agrees_with_core(face_model_path):
    model = load_morphable_model(face_model_path, level="coarse")
    decode = decoder.FaceDecoder(model)
    rng = np.random.default_rng(2)
    a, e, t = (
        rng.standard_normal((2, k)).astype(np.float32)
        for k in (model.k_identity, model.k_expression, model.k_albedo)
    )
    shape = decode.express(decode.neutral(torch.tensor(a)), torch.tensor(e))
    albedo = decode.albedo(torch.tensor(t))
    light = rng.standard_normal((2, 9, 3)).astype(np.float32)
    light[:, 0] += 3
    normals = decode.normals(shape)
    colours = decoder.shade(albedo, normals, torch.tensor(light)).clamp(0, 1)
    for i in range(2):
        vertices = model.vertices(a[i], e[i])
        assert np.allclose(shape[i], vertices, atol=1e-6)
        assert np.allclose(albedo[i], model.albedo(t[i]), atol=1e-6)
        theirs = VertexNormals(model.triangles, model.n_vertices)(vertices)
        assert np.allclose(normals[i], theirs, atol=1e-4)
        expected = illumination.shade(model.albedo(t[i]), theirs, light[i])
        assert np.allclose(colours[i], expected, atol=1e-3)
