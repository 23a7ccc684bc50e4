"""Laws of the face model."""

import numpy as np
import pytest

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.morphable_model import VertexNormals, load_morphable_model

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", params=["fine", "coarse"])
def model(face_model_path, request):
    return load_morphable_model(face_model_path, level=request.param)


def _random(k):
    return RNG.normal(size=k).astype(np.float32)


def test_zero_coefficients_are_the_mean(model):
    zero = np.zeros(model.k_identity), np.zeros(model.k_expression)
    np.testing.assert_array_equal(model.vertices(*zero), model.mean_shape)
    np.testing.assert_array_equal(model.albedo(np.zeros(model.k_albedo)), model.mean_albedo)


def test_shape_is_linear(model):
    a, b, e = _random(model.k_identity), _random(model.k_identity), _random(model.k_expression)
    np.testing.assert_allclose(
        model.vertices(a + b, e) - model.vertices(b, e),
        model.neutral(a) - model.mean_shape,
        atol=1e-6,
    )
    np.testing.assert_array_equal(model.express(model.neutral(a), e), model.vertices(a, e))


def test_coarse_vertices_lie_on_the_fine_surface(face_model_path):
    fine, coarse = (load_morphable_model(face_model_path, level=s) for s in ("fine", "coarse"))
    a, e = _random(fine.k_identity), _random(fine.k_expression)
    n = coarse.n_vertices
    np.testing.assert_allclose(fine.vertices(a, e)[:n], coarse.vertices(a, e), atol=1e-7)
    np.testing.assert_array_equal(fine.landmarks_68, coarse.landmarks_68)


def test_albedo_stays_a_reflectance(model):
    albedo = model.albedo(100 * _random(model.k_albedo))
    assert albedo.min() >= 0 and albedo.max() <= 1


def test_a_subset_is_the_same_surface_cut_out(model):
    part = model.subset("facial_skin")
    a, e = _random(model.k_identity), _random(model.k_expression)
    np.testing.assert_allclose(
        part.vertices(a, e), model.vertices(a, e)[part.vertex_ids], atol=1e-7
    )
    t = _random(model.k_albedo)
    np.testing.assert_allclose(part.albedo(t), model.albedo(t)[part.vertex_ids], atol=1e-6)
    assert 0 < part.n_vertices < model.n_vertices
    assert part.triangles.min() >= 0 and part.triangles.max() < part.n_vertices
    np.testing.assert_array_equal(part.vertex_ids[part.sellion], model.sellion)
    known = part.landmarks_68 >= 0
    np.testing.assert_array_equal(
        part.vertex_ids[part.landmarks_68[known]], model.landmarks_68[known]
    )
    assert model.subset("head") is model


def test_symmetry_is_an_involution_that_mirrors_the_mean(model):
    np.testing.assert_array_equal(model.symmetry[model.symmetry], np.arange(model.n_vertices))
    mirrored = model.mean_shape[model.symmetry] * [1, -1, 1]
    np.testing.assert_allclose(mirrored, model.mean_shape, atol=1e-5)


def test_an_unknown_part_names_those_there_are(model):
    with pytest.raises(ModelError, match="facial_skin"):
        model.subset("nose")


def _damaged(face_model_path, tmp_path, **changes):
    data = dict(np.load(face_model_path))
    for key, value in changes.items():
        if value is None:
            del data[key]
        else:
            data[key] = value(data[key]) if callable(value) else value
    path = tmp_path / "damaged.npz"
    np.savez(path, **data)
    return path


def _with_nan(array):
    array = array.copy()
    array.flat[7] = np.nan
    return array


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"triangles": None}, "triangles"),
        ({"format_version": np.int32(2)}, "version 1"),
        ({"identity_basis": _with_nan}, "identity_basis"),
        ({"mean_shape": _with_nan}, "mean_shape"),
        ({"mean_albedo": lambda a: a[:-1]}, "mean_albedo"),
        ({"triangles": lambda t: t + 10_000}, "outside"),
        ({"subdivision_indices": lambda i: i + 10_000}, "consistent"),
        ({"name": lambda _: np.array(["pickled", None], object)}, "plain"),
    ],
)
def test_damaged_files_are_refused(face_model_path, tmp_path, changes, complaint):
    with pytest.raises(ModelError, match=complaint):
        load_morphable_model(_damaged(face_model_path, tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04cut"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="face-recon model") as fault:
        load_morphable_model(path)
    assert "pickle" not in fault.value.got  # numpy's advice is to load it unsafely
    with pytest.raises(ModelError, match="no such file"):
        load_morphable_model(tmp_path / "absent.npz")


def test_an_unknown_level_is_refused(face_model_path):
    with pytest.raises(ModelError):
        load_morphable_model(face_model_path, level="finest")


def test_normals_of_a_sphere_point_outwards():
    n = 40
    theta, phi = np.meshgrid(np.linspace(0.2, 2.9, n), np.linspace(0, 6, n), indexing="ij")
    v = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1
    ).reshape(-1, 3)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = (x.ravel() for x in (i[:-1, :-1], i[1:, :-1], i[:-1, 1:], i[1:, 1:]))
    triangles = np.concatenate([np.c_[a, b, c], np.c_[b, d, c]]).astype(np.int32)
    normals = VertexNormals(triangles, len(v))(v.astype(np.float32))
    inner = i[1:-1, 1:-1].ravel()
    assert (normals[inner] * v[inner]).sum(axis=1).min() > 0.99


def test_normals_agree_with_the_plain_sum_over_triangles(model):
    v = model.vertices(_random(model.k_identity), _random(model.k_expression))
    expected = np.zeros_like(v)
    for i, j, k in model.triangles:
        expected[[i, j, k]] += np.cross(v[j] - v[i], v[k] - v[i])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    normals = VertexNormals(model.triangles, model.n_vertices)(v)
    np.testing.assert_allclose(normals, expected, atol=1e-4)


def test_normals_of_nothing_and_of_loose_vertices():
    none = np.zeros((0, 3), np.int32)
    assert VertexNormals(none, 0)(np.zeros((0, 3), np.float32)).shape == (0, 3)
    np.testing.assert_array_equal(VertexNormals(none, 2)(np.ones((2, 3), np.float32)), 0)
