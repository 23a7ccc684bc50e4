"""Laws of the metrics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import angle_between, rotation_from_vector
from face_recon_ros.evaluation import metrics

CONVENTIONS = [metrics.AFLW2000, metrics.BIWI]


def random_landmarks(seed=0):
    return np.random.default_rng(seed).uniform(0, 200, (68, 2))


# Landmarks


def test_nme_of_a_known_shift():
    true = random_landmarks()
    eye = metrics.interocular_distance(true)
    assert metrics.normalised_mean_error(np.add(true, (3, 4)), true, eye) == pytest.approx(5 / eye)
    assert metrics.normalised_mean_error(true, true, eye) == 0.0


@given(st.floats(0.1, 10), st.floats(-np.pi, np.pi), st.integers(0, 100))
def test_nme_knows_no_image_size_place_or_roll(scale, angle, seed):
    true, predicted = random_landmarks(seed), random_landmarks(seed + 1)
    turn = rotation_from_vector([0, 0, angle])[:2, :2]

    def nme(motion):
        t, p = motion(true), motion(predicted)
        return metrics.normalised_mean_error(p, t, metrics.interocular_distance(t))

    assert nme(lambda x: scale * x @ turn.T + 7) == pytest.approx(nme(lambda x: x))


def test_bounding_box_normalisation():
    true = random_landmarks()
    true[0], true[1] = (-100, -200), (300, 700)
    assert metrics.bounding_box_size(true) == pytest.approx(600)


def test_nme_counts_what_it_is_told_to():
    true = random_landmarks()
    predicted = true.copy()
    predicted[metrics.CONTOUR] += 1000
    assert metrics.normalised_mean_error(predicted, true, 1.0, metrics.INNER) == 0
    visible = np.ones(68, bool)
    visible[metrics.CONTOUR] = False
    assert metrics.normalised_mean_error(predicted, true, 1.0, visible=visible) == 0
    nothing = metrics.normalised_mean_error(predicted, true, 1.0, visible=np.zeros(68, bool))
    assert np.isnan(nothing)
    assert np.isnan(metrics.normalised_mean_error(predicted, true, 0.0))


def test_error_curve():
    assert metrics.error_curve([0, 0], 0.08) == (1, 0)
    area, failures = metrics.error_curve([0.04, 0.04, np.inf, np.nan], 0.08)
    assert (area, failures) == (pytest.approx(0.25), 0.5)
    assert np.isnan(metrics.error_curve([], 0.08)).all()
    errors = np.random.default_rng(0).uniform(0, 0.1, 50)
    grid = np.linspace(0, 0.08, 20001)
    numeric = np.mean([(errors <= x).mean() for x in grid])
    assert metrics.error_curve(errors, 0.08)[0] == pytest.approx(numeric, abs=1e-4)


# Rotations


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(st.floats(-3.1, 3.1), st.floats(-1.55, 1.55), st.floats(-3.1, 3.1))
def test_euler_round_trip(convention, pitch, yaw, roll):
    rotation = convention.rotation(pitch, yaw, roll)
    np.testing.assert_allclose(convention.angles(rotation), [pitch, yaw, roll], atol=1e-9)


@pytest.mark.parametrize("order", ["pyr", "pry", "ypr", "yrp", "rpy", "ryp"])
@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_every_order_of_angles_rebuilds_the_rotation(order, vector):
    c = metrics.EulerConvention("any", order, (1, -1, 1), np.eye(3), np.eye(3))
    rotation = rotation_from_vector(vector)
    np.testing.assert_allclose(c.rotation(*c.angles(rotation)), rotation, atol=1e-7)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("yaw", [np.pi / 2, -np.pi / 2])
def test_gimbal_lock_still_rebuilds_the_rotation(convention, yaw):
    rotation = convention.rotation(0.3, yaw, 0.2)
    rebuilt = convention.rotation(*convention.angles(rotation))
    np.testing.assert_allclose(rebuilt, rotation, atol=1e-9)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_what_the_signs_mean_in_the_picture(convention):
    """Both data sets, in our optical frame (x right, y down): zero is frontal, and so on."""
    np.testing.assert_allclose(convention.rotation(0, 0, 0), CAMERA_FROM_FRONTAL_FACE, atol=1e-12)
    out, left, _ = np.eye(3)
    assert (convention.rotation(0, 0.5, 0) @ out)[0] < 0  # yaw: nose to the image's left
    assert (convention.rotation(0.5, 0, 0) @ out)[1] < 0  # pitch: nose up
    assert (convention.rotation(0, 0, 0.5) @ left)[1] > 0  # roll: subject's left side down


def test_aflw2000_equals_the_matrices_3ddfa_writes_down():
    pitch, yaw, roll = 0.3, -0.7, 0.4
    c, s = np.cos(pitch), np.sin(pitch)
    x = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    c, s = np.cos(yaw), np.sin(yaw)
    y = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    c, s = np.cos(roll), np.sin(roll)
    z = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    flip, face = np.diag([1, -1, -1]), np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_allclose(
        metrics.AFLW2000.rotation(pitch, yaw, roll), flip @ x @ y @ z @ face, atol=1e-12
    )


def test_biwi_equals_the_angles_hopenet_reads():
    rotation = metrics.BIWI.rotation(0.3, -0.7, 0.4)
    camera_from_head = rotation @ CAMERA_FROM_FRONTAL_FACE.T
    t = camera_from_head.T
    roll = -np.arctan2(t[1, 0], t[0, 0])
    yaw = -np.arctan2(-t[2, 0], np.hypot(t[2, 1], t[2, 2]))
    pitch = np.arctan2(t[2, 1], t[2, 2])
    np.testing.assert_allclose([pitch, yaw, roll], [0.3, -0.7, 0.4], atol=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_any_triple_is_recovered_near_itself(convention):
    """Whichever of the twins (p, y, r) and (p + pi, pi - y, r + pi) it is."""
    rng = np.random.default_rng(3)
    for angles in rng.uniform(-np.pi, np.pi, (50, 3)):
        rotation = convention.rotation(*angles)
        near = convention.angles_near(rotation, angles + rng.normal(0, 0.01, 3))
        np.testing.assert_allclose(near, angles, atol=1e-6)
        np.testing.assert_allclose(convention.rotation(*near), rotation, atol=1e-9)
    over = np.radians([2.0, 92.0, -3.0])
    seen = convention.rotation(*np.radians([2.0, 88.0, -3.0]))
    errors = metrics.euler_errors(seen, convention.rotation(*over), convention, true_angles=over)
    np.testing.assert_allclose(np.degrees(errors), [0, 4, 0], atol=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("axis", range(3))
def test_a_known_angle_error_is_measured(convention, axis):
    angles = np.array([0.2, 0.3, -0.1])
    other = angles + 0.05 * np.eye(3)[axis]
    errors = metrics.euler_errors(
        convention.rotation(*other), convention.rotation(*angles), convention
    )
    np.testing.assert_allclose(errors, 0.05 * np.eye(3)[axis], atol=1e-9)
    a = convention.rotation(3.1, 0, 0)
    b = convention.rotation(-3.1, 0, 0)
    assert metrics.euler_errors(a, b, convention)[0] == pytest.approx(2 * np.pi - 6.2)


# Sets of numbers


def test_auc_counts_ties_half_and_equals_the_definition():
    rng = np.random.default_rng(0)
    same, different = rng.integers(2, 9, 40), rng.integers(0, 7, 55)
    pairs = same[:, None] - different[None]
    expected = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    assert metrics.roc_auc(same, different) == pytest.approx(expected)
    assert metrics.roc_auc([1.0] * 5, [1.0] * 3) == 0.5
    assert metrics.roc_auc([2], [1]) == 1 and metrics.roc_auc([1], [2]) == 0
    assert np.isnan(metrics.roc_auc([], [1]))


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [
        interval.low <= 5.0 <= interval.high
        for interval in (
            metrics.bootstrap(rng.normal(5, 1, 60), samples=300, seed=i) for i in range(200)
        )
    ]
    assert 0.88 <= np.mean(hits) <= 0.99


def test_bootstrap_is_deterministic_ordered_and_has_an_empty_form():
    x = np.random.default_rng(1).exponential(size=101)
    a, b = metrics.bootstrap(x), metrics.bootstrap(x)
    assert a == b and a.low < a.value < a.high and a.value == x.mean()
    assert np.isnan(metrics.bootstrap([]).value)
    assert metrics.bootstrap([2.0]) == metrics.Interval(2.0, 2.0, 2.0)
    constant = metrics.bootstrap(np.ones(9))
    assert (constant.low, constant.value, constant.high) == (1, 1, 1)


def test_percentiles():
    assert metrics.percentiles(range(101)) == {"p50": 50, "p95": 95, "p99": 99}
    assert np.isnan(metrics.percentiles([])["p50"])


# Over time


def uneven_stamps(n, seed=0):
    return np.cumsum(np.random.default_rng(seed).uniform(0.02, 0.06, n))


def test_noise_is_measured_on_a_moving_signal_at_uneven_rate():
    stamps = uneven_stamps(4000)
    motion = np.stack([3 * stamps, -stamps + 1], 1)
    noise = np.random.default_rng(1).normal(0, 0.02, motion.shape)
    assert metrics.noise_of_series(motion, stamps) == pytest.approx(0, abs=1e-12)
    assert metrics.noise_of_series(motion + noise, stamps) == pytest.approx(0.02, rel=0.03)


def test_noise_of_rotations_is_measured_on_a_turning_head():
    stamps = uneven_stamps(1500)
    rng = np.random.default_rng(1)
    turn = [rotation_from_vector([0, t, 0.2 * t]) for t in stamps]
    noisy = [r @ rotation_from_vector(rng.normal(0, 0.01, 3)) for r in turn]
    assert metrics.noise_of_rotations(turn, stamps) == pytest.approx(0, abs=1e-9)
    assert metrics.noise_of_rotations(noisy, stamps) == pytest.approx(0.01, rel=0.05)


def test_drift_is_the_slope():
    stamps = uneven_stamps(100)
    values = np.stack([3 * stamps, 4 * stamps], 1) + 7
    assert metrics.drift_of_series(values, stamps) == pytest.approx(5)
    assert metrics.drift_of_series(np.ones((100, 3)), stamps) == pytest.approx(0, abs=1e-12)


def test_short_series_and_bad_stamps():
    assert np.isnan(metrics.noise_of_series(np.zeros((2, 3)), [0, 1]))
    assert np.isnan(metrics.noise_of_series(np.zeros((0, 3)), []))
    assert np.isnan(metrics.noise_of_rotations(np.zeros((0, 3, 3)), []))
    assert np.isnan(metrics.drift_of_series(np.zeros((1, 3)), [0]))
    with pytest.raises(DataError):
        metrics.noise_of_series(np.zeros((3, 1)), [0, 1, 1])


def test_geodesic_error_is_what_was_put_in():
    rng = np.random.default_rng(2)
    truth = rotation_from_vector(rng.normal(size=3))
    axis = rng.normal(size=3)
    injected = truth @ rotation_from_vector(np.radians(3) * axis / np.linalg.norm(axis))
    assert np.degrees(angle_between(truth, injected)) == pytest.approx(3.0, abs=1e-6)
