"""The live fit: exact points give exact answers, doubts are obeyed, nothing crashes."""

from dataclasses import replace

import numpy as np
import pytest

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.point_fit import POSE, FitPrior, FitState, PointFitter
from face_recon_ros.core.rectification import FaceFrame
from face_recon_ros.core.rigid import angle_between, rotation_from_vector

K_EXPRESSION = 52


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture(scope="module")
def vertices(model):
    return np.flatnonzero(model.subsets["facial_skin"])[::4]


def prior(independence=1.0, pose=0.2):
    return FitPrior(pose, (pose, pose, pose), 1.0, np.full(K_EXPRESSION, 0.3), independence)


@pytest.fixture(scope="module")
def fitter(model, vertices):
    return PointFitter(model, vertices, prior())


def people(n, model, seed=0, identity=1.0, expression=0.2, turn=0.4):
    random = np.random.default_rng(seed)
    rotation = np.stack(
        [
            rotation_from_vector(random.normal(0, turn, 3)) @ CAMERA_FROM_FRONTAL_FACE
            for _ in range(n)
        ]
    )
    translation = random.normal([0, 0, 0.9], [0.01, 0.01, 0.02], (n, 3))
    return FitState(
        rotation,
        translation,
        identity * random.standard_normal((n, model.k_identity)),
        expression * random.random((n, K_EXPRESSION)),
    )


def start_of(state, model):
    """What a regressor would say: the right pose nearly, nobody in particular, no expression."""
    random = np.random.default_rng(9)
    turn = [rotation_from_vector(v) for v in random.normal(0, 0.03, (len(state.rotation), 3))]
    return FitState(
        np.stack(turn) @ state.rotation,
        state.translation * [1.01, 0.99, 1.02],
        np.zeros_like(state.identity),
        np.zeros_like(state.expression),
    )


def rows_of(state, rows):
    return FitState(*(None if v is None else v[rows] for v in vars(state).values()))


def see(state, model, vertices):
    n = model.n_vertices
    identity = model.identity_basis.reshape(n, 3, -1)[vertices]
    expression = model.expression_basis.reshape(n, 3, -1)[vertices]
    shape = (
        model.mean_shape[vertices]
        + np.einsum("vxk,nk->nvx", identity, state.identity)
        + np.einsum("vxk,nk->nvx", expression, state.expression)
    )
    return FaceFrame.of(state.rotation, state.translation).project(shape), shape


def shape_error_mm(fit, model, vertices, true):
    _, ours = see(fit.state, model, vertices)
    moved = []
    for a, b in zip(ours, true, strict=True):  # up to size and place, which no picture tells
        a, b = a - a.mean(0), b - b.mean(0)
        moved.append(np.linalg.norm(a * np.sqrt((b**2).sum() / (a**2).sum()) - b, axis=1).mean())
    return 1e3 * np.array(moved)


def test_exact_points_are_met_as_exactly_as_the_prior_allows(model, vertices):
    weak = FitPrior(5.0, (5.0, 5.0, 5.0), 30.0, np.full(K_EXPRESSION, 30.0), 1.0)
    fitter = PointFitter(model, vertices, weak)
    state = people(4, model, turn=0.3)
    seen, _ = see(state, model, vertices)
    sigma = np.full(seen.shape[:2], 1e-4)
    fit = fitter.fit(start_of(state, model), seen, sigma, rounds=16)
    again, _ = see(fit.state, model, vertices)
    assert fit.converged.all()
    assert 1e3 * np.abs(again - seen).max() * state.translation[:, 2].max() < 1e-3


def test_a_wide_baseline_of_exact_points_gives_the_shape_back(model, vertices, fitter):
    """In perspective, from aside, hardly anything of a shape is hidden from exact points."""
    state = people(6, model, turn=0.35)
    seen, true = see(state, model, vertices)
    fit = fitter.fit(start_of(state, model), seen, np.full(seen.shape[:2], 1e-5), rounds=4)
    mean = PointFitter(model, vertices, prior()).fit(
        start_of(state, model), seen, np.full(seen.shape[:2], 1e3)
    )
    assert (
        shape_error_mm(fit, model, vertices, true).mean()
        < 0.35 * shape_error_mm(mean, model, vertices, true).mean()
    )


def test_points_that_know_nothing_change_nothing(model, vertices, fitter):
    start = start_of(people(3, model), model)
    random = np.random.default_rng(1)
    seen = random.normal(0, 0.07, (3, len(vertices), 2))
    fit = fitter.fit(start, seen, np.full((3, len(vertices)), 1e4))
    np.testing.assert_allclose(fit.state.rotation, start.rotation, atol=1e-4)
    np.testing.assert_allclose(fit.state.translation, start.translation, atol=1e-4)
    np.testing.assert_allclose(fit.state.identity, 0, atol=1e-3)
    np.testing.assert_allclose(
        fit.information[0].diagonal(), fitter.prior.precision(model.k_identity), rtol=1e-3
    )


def test_what_the_points_say_narrows_the_posterior(model, vertices, fitter):
    state = people(2, model)
    seen, _ = see(state, model, vertices)
    wide, narrow = (
        fitter.fit(start_of(state, model), seen, np.full(seen.shape[:2], s)).information
        for s in (0.01, 0.001)
    )
    for loose, tight in zip(wide, narrow, strict=True):
        before, after = np.linalg.inv(loose), np.linalg.inv(tight)
        assert (after.diagonal() <= before.diagonal() + 1e-12).all()
        identity = slice(POSE + K_EXPRESSION, None)
        assert after[identity, identity].trace() < 0.7 * before[identity, identity].trace()
        assert (before[identity, identity].diagonal() <= 1 + 1e-9).all()


def test_covariances_are_those_of_the_whole_inverse(model, vertices, fitter):
    state = people(3, model)
    seen, _ = see(state, model, vertices)
    fit = fitter.fit(start_of(state, model), seen, np.full(seen.shape[:2], 0.002))
    whole = np.linalg.inv(fit.information)
    np.testing.assert_allclose(fit.pose_covariance, whole[:, :POSE, :POSE], rtol=1e-6)
    identity = whole[:, POSE + K_EXPRESSION :, POSE + K_EXPRESSION :]
    np.testing.assert_allclose(
        fit.identity_information, np.linalg.inv(identity), rtol=1e-5, atol=1e-6
    )


def test_no_faces_are_no_fits(model, vertices, fitter):
    start = rows_of(start_of(people(1, model), model), slice(0))
    points = len(vertices)
    fit = fitter.fit(start, np.zeros((0, points, 2)), np.zeros((0, points)))
    assert len(fit.converged) == len(fit.pose_covariance) == 0


def test_independence_counts_points_as_fewer(model, vertices):
    state = people(1, model)
    seen, _ = see(state, model, vertices)
    sigma = np.full(seen.shape[:2], 0.002)
    start = start_of(state, model)
    few = PointFitter(model, vertices, prior(0.25)).fit(start, seen, sigma, steps=1)
    wide = PointFitter(model, vertices, prior(1.0)).fit(start, seen, 2 * sigma, steps=1)
    np.testing.assert_allclose(few.information, wide.information, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(few.state.identity, wide.state.identity, atol=1e-4)


def test_what_is_known_of_a_person_is_kept(model, vertices, fitter):
    """A sharp prior on identity, as of a track, is not moved by one picture."""
    state = people(2, model)
    other = people(2, model, seed=5)
    seen, _ = see(other, model, vertices)
    start = FitState(other.rotation, other.translation, state.identity, other.expression)
    known = np.broadcast_to(1e8 * np.eye(model.k_identity), (2, *[model.k_identity] * 2))
    fit = fitter.fit(start, seen, np.full(seen.shape[:2], 0.002), known)
    np.testing.assert_allclose(fit.state.identity, state.identity, atol=0.02)


def test_pose_and_expression_follow_an_identity_that_is_known_otherwise(model, vertices, fitter):
    """As if the fit had known it from the beginning; to be told what it found changes nothing."""
    truth = people(3, model, identity=0.5)
    start, (seen, _) = start_of(truth, model), see(truth, model, vertices)
    sigma = np.full(seen.shape[:2], 0.002)
    fit = fitter.fit(start, seen, sigma, rounds=4)
    same = fitter.given(fit, fit.state.identity)
    for name in ("rotation", "translation", "identity", "expression"):
        np.testing.assert_allclose(getattr(same.state, name), getattr(fit.state, name), atol=1e-9)
    identity = fit.state.identity + np.random.default_rng(1).normal(0, 0.1, truth.identity.shape)
    told = fitter.given(fit, identity).state
    sure = np.repeat(1e8 * np.eye(identity.shape[1])[None], 3, 0)
    known = FitState(start.rotation, start.translation, identity, start.expression)
    whole = fitter.fit(known, seen, sigma, sure, rounds=4).state
    np.testing.assert_allclose(told.identity, identity, atol=1e-9)
    for k in range(3):
        followed = angle_between(told.rotation[k], whole.rotation[k])
        assert followed < 0.2 * angle_between(fit.state.rotation[k], whole.rotation[k])
    assert np.abs(told.expression - whole.expression).mean() < 0.01  # but for their range


def test_one_face_among_others_is_fitted_as_alone(model, vertices, fitter):
    state = people(5, model)
    seen, _ = see(state, model, vertices)
    sigma, start = np.full(seen.shape[:2], 0.003), start_of(state, model)
    all_at_once = fitter.fit(start, seen, sigma)
    alone = fitter.fit(rows_of(start, slice(2, 3)), seen[2:3], sigma[2:3])
    np.testing.assert_allclose(all_at_once.state.identity[2], alone.state.identity[0], atol=1e-4)


def test_a_few_wild_points_do_not_carry_the_rest_away(model, vertices, fitter):
    state = people(3, model, identity=0.5)
    seen, _ = see(state, model, vertices)
    wild = seen.copy()
    wild[:, ::20] += 0.3  # an occluder: five per cent of the points, a third of the crop away
    start, sigma = start_of(state, model), np.full(seen.shape[:2], 0.003)
    fit = fitter.fit(start, wild, sigma, rounds=3)
    turned = [
        np.degrees(angle_between(a, b))
        for a, b in zip(fit.state.rotation, state.rotation, strict=True)
    ]
    assert max(turned) < 4


@pytest.mark.parametrize("damage", [np.nan, np.inf, 1e9])
def test_a_fit_that_diverges_stays_at_its_start(model, vertices, fitter, damage):
    state = people(2, model)
    seen, _ = see(state, model, vertices)
    seen[0] = damage
    start = start_of(state, model)
    with np.errstate(all="ignore"):
        fit = fitter.fit(start, seen, np.full(seen.shape[:2], 0.003))
    assert fit.converged.tolist() == [False, True]
    np.testing.assert_array_equal(fit.state.rotation[0], start.rotation[0])
    assert np.isfinite(fit.state.identity).all()


def test_expressions_stay_in_their_range(model, vertices, fitter):
    state = people(2, model, expression=1.0)
    seen, _ = see(state, model, vertices)
    fit = fitter.fit(start_of(state, model), 1.3 * seen, np.full(seen.shape[:2], 1e-4))
    assert (fit.state.expression >= 0).all()
    assert (fit.state.expression <= 1).all()


def test_a_shift_is_a_shift_near_and_far(model, vertices):
    """Across the line of sight the prior is in metres: `reach` is the same at any depth."""
    near = people(2, model, turn=0.2)
    sigma, moved = np.full((2, len(vertices)), 0.02), []
    for farther in (1.0, 3.0):
        state = replace(near, translation=near.translation * farther, reach=np.full(2, 0.9))
        seen, _ = see(state, model, vertices)
        seen = seen + np.array([0.004, 0.0]) / state.translation[:, None, 2:]
        fit = PointFitter(model, vertices, prior(0.01, pose=0.01)).fit(state, seen, sigma)
        moved.append((fit.state.translation - state.translation)[:, 0])
    assert (moved[0] > 0.001).all()
    np.testing.assert_allclose(moved[1], moved[0], rtol=0.15)
    seen, _ = see(near, model, vertices)
    without, same = (
        PointFitter(model, vertices, prior()).fit(start, seen, sigma).state.translation
        for start in (near, replace(near, reach=near.translation[:, 2]))
    )
    np.testing.assert_array_equal(without, same)


def test_nobody(model, vertices, fitter):
    empty = FitState(
        np.zeros((0, 3, 3)),
        np.zeros((0, 3)),
        np.zeros((0, model.k_identity)),
        np.zeros((0, K_EXPRESSION)),
    )
    fit = fitter.fit(empty, np.zeros((0, len(vertices), 2)), np.zeros((0, len(vertices))))
    assert len(fit.converged) == 0
