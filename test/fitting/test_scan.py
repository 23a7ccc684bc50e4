"""Fitting the model to scans made of the model: what was put in must come out."""

import numpy as np
import pytest

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.core.surface import Surface
from face_recon_ros.fitting.scan import fit_scan, fit_vertices, landmarks_by_fit


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture(scope="module")
def person(model):
    """A head somewhere: scan points (off the vertices), landmarks, true vertices. Metres."""
    rng = np.random.default_rng(4)
    vertices = model.neutral(0.9 * rng.standard_normal(model.k_identity)).astype(np.float64)
    corners = vertices[model.triangles[model.subsets["face"][model.triangles].all(axis=1)]]
    points = corners.mean(axis=1)
    rotation = rotation_from_vector(np.array([0.4, -2.0, 0.7]))
    move = lambda p: p @ rotation.T + [0.3, -1.2, 2.0]  # noqa: E731
    return move(points), move(model.landmarks.of(vertices)), move(vertices)


@pytest.mark.parametrize("free_scale", [False, True])
def test_a_head_of_the_model_is_found_again(model, person, free_scale):
    points, marks, vertices = person
    fit = fit_scan(model, points, marks, free_scale=free_scale)
    figures = fit.figures()
    assert figures["median_mm"] < 0.05
    assert figures["mean_mm"] < 0.10
    assert figures["landmark_mean_mm"] < 0.5
    assert figures["landmarks"] == 51
    assert fit.identity.shape == (model.k_identity,)
    skin = model.subsets["facial_skin"]
    assert np.linalg.norm(fit.vertices - vertices, axis=1)[skin].mean() < 1e-3
    if free_scale:
        assert fit.scan_from_face.scale == pytest.approx(1.0, abs=0.05)
    else:
        assert fit.scan_from_face.scale == 1.0


def test_the_fit_moves_with_the_scan(model, person):
    """Another frame and another place give the same face and the same distances."""
    points, marks, _ = person
    rotation = rotation_from_vector(np.array([-1.0, 0.3, 0.2]))
    one = fit_scan(model, points, marks)
    two = fit_scan(model, points @ rotation.T - 0.5, marks @ rotation.T - 0.5)
    assert one.figures()["median_mm"] == pytest.approx(two.figures()["median_mm"], abs=0.01)
    np.testing.assert_allclose(one.vertices @ rotation.T - 0.5, two.vertices, atol=5e-4)


def test_noise_is_not_fitted_and_holes_do_not_matter(model, person):
    points, marks, vertices = person
    rng = np.random.default_rng(1)
    noisy = points + rng.normal(0, 3e-4, points.shape)
    noisy = noisy[np.linalg.norm(noisy - marks[2], axis=1) > 0.02]  # a hole in one cheek
    far = vertices.mean(axis=0) + rng.normal(0, 0.15, (3000, 3))  # what else is in the room
    fit = fit_scan(model, np.concatenate([noisy, far]), marks)
    skin = model.triangles[model.subsets["facial_skin"][model.triangles].all(axis=1)]
    wrong = Surface(fit.vertices, model.triangles).nearest(vertices[skin].mean(axis=1)).distance
    assert np.median(wrong) < 2.5e-4


def test_missing_landmarks_are_left_out(model, person):
    points, marks, _ = person
    partial = marks.copy()
    partial[:17] = np.nan
    partial[60:68] = np.nan
    figures = fit_scan(model, points, partial).figures()
    assert figures["landmarks"] == 43
    assert figures["median_mm"] < 0.06


def test_what_cannot_be_fitted_is_refused(model, person):
    points, marks, _ = person
    with pytest.raises(DataError, match="--unit"):
        fit_scan(model, points * 1000, marks * 1000)
    with pytest.raises(DataError, match="1,000 vertices"):
        fit_scan(model, np.zeros((0, 3)), marks)
    with pytest.raises(DataError, match="landmarks"):
        fit_scan(model, points, marks[:51])
    with pytest.raises(DataError, match="inner landmarks"):
        fit_scan(model, points, np.full((68, 3), np.nan))
    with pytest.raises(DataError, match="frame and unit"):
        fit_scan(model, points + 5.0, marks)


def test_landmarks_are_found_on_a_head_without_any():
    """Our own mean head, elsewhere and 5 % larger, stands in for a template without landmarks."""
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    outer = model.subsets["face"] | np.isin(
        model.regions, [model.region_names.index(n) for n in ("scalp", "neck", "ear")]
    )
    triangles = model.triangles[outer[model.triangles].all(axis=1)].astype(np.int64)
    mean = model.mean_shape.astype(np.float64) * 1.05 + [0.02, 0.0, 1.5]
    found = landmarks_by_fit(mean, triangles, load_morphable_model(find_model(FACE_MODEL)))
    wrong = np.linalg.norm(mean[found] - mean[model.landmarks_68], axis=1)
    assert wrong[17:].mean() < 0.002
    assert wrong.max() < 0.01


def smooth_field(points, rng, width, amplitude):
    """(N, 3) metres: a random displacement, `width` metres wide, `amplitude` per axis (rms)."""
    waves = rng.normal(0, 1 / width, (300, 3))
    weights = rng.normal(0, np.sqrt(2 / 300), (300, 3))
    return amplitude * np.cos(points @ waves.T + rng.uniform(0, 2 * np.pi, 300)) @ weights


def test_a_head_that_the_model_cannot_say_keeps_the_prior(model):
    """Real heads differ from the model's by millimetres: coefficients must not run away."""
    rng = np.random.default_rng(2)
    vertices = model.neutral(rng.standard_normal(model.k_identity)).astype(np.float64)
    vertices += smooth_field(vertices, rng, 0.02, 0.001) + smooth_field(vertices, rng, 0.04, 0.001)
    corners = vertices[model.triangles[model.subsets["face"][model.triangles].all(axis=1)]]
    marks = model.landmarks.of(vertices)
    fit = fit_scan(model, corners.mean(axis=1), marks, free_scale=True)
    assert fit.figures()["identity_rms"] < 1.5
    assert fit.figures()["median_mm"] < 0.5
    assert fit.scan_from_face.scale == pytest.approx(1.0, abs=0.1)


def test_known_vertices_give_the_person_back(model, person):
    _, _, vertices = person
    rng = np.random.default_rng(4)
    true = 0.9 * rng.standard_normal(model.k_identity)  # as in `person`
    skin = model.subsets["facial_skin"]
    identity = fit_vertices(model, vertices, skin)
    gap = model.neutral(identity)[skin] - model.neutral(true)[skin]
    assert 1e3 * np.linalg.norm(gap, axis=1).mean() < 0.05
    off = vertices + smooth_field(vertices, rng, 0.02, 0.002)
    assert np.sqrt(np.mean(fit_vertices(model, off, skin) ** 2)) < 1.5
