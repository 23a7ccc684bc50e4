"""Laws of the One Euro filters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.rigid import Rigid, angle_between, rotation_from_vector
from face_recon_ros.core.smoothing import (
    OneEuroConfig,
    OneEuroRigid,
    OneEuroRotation,
    OneEuroVector,
)

ON = OneEuroConfig(min_cutoff_hz=1.0, beta=0.0)
vector = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array)


@given(st.lists(vector, min_size=1, max_size=20))
def test_off_is_the_identity(values):
    f, g = OneEuroVector(OneEuroConfig()), OneEuroRotation(OneEuroConfig())
    for k, value in enumerate(values):
        assert (f(value, k / 30) == value).all()
        rotation = rotation_from_vector(value)
        assert (g(rotation, k / 30) == rotation).all()


@given(vector)
def test_what_stands_still_stays(value):
    f, g = OneEuroVector(ON), OneEuroRotation(ON)
    rotation = rotation_from_vector(value)
    for k in range(5):
        np.testing.assert_allclose(f(value, k / 30), value, atol=1e-12)
        np.testing.assert_allclose(g(rotation, k / 30), rotation, atol=1e-9)


def test_a_step_is_answered_as_a_first_order_low_pass():
    """With beta 0: after t seconds 1 - product(1 - gain), of the cutoff's time constant."""
    f = OneEuroVector(ON)
    f([0.0], 0.0)
    dt = 0.001
    for k in range(1, 160):
        value = f([1.0], k * dt)
    assert value[0] == pytest.approx(1 - np.exp(-0.159 * 2 * np.pi), abs=0.01)


def test_rotations_about_one_axis_are_smoothed_as_their_angle():
    """On a geodesic SO(3) is a line, so both filters must agree, beta and all."""
    config = OneEuroConfig(min_cutoff_hz=1.0, beta=0.5)
    f, g = OneEuroVector(config), OneEuroRotation(config)
    axis = np.array([0.6, 0.0, 0.8])
    for k, angle in enumerate(np.random.default_rng(0).uniform(-1, 1, 50)):
        smooth = g(rotation_from_vector(angle * axis), k / 30)
        expected = rotation_from_vector(f([angle], k / 30)[0] * axis)
        assert angle_between(smooth, expected) < 1e-9


@given(vector, st.lists(vector, min_size=2, max_size=10))
def test_smoothing_does_not_depend_on_the_frame_of_reference(turn, rotations):
    """left . filter(R_k) = filter(left . R_k)."""
    config = OneEuroConfig(min_cutoff_hz=1.0, beta=0.3)
    left = rotation_from_vector(turn)
    f, g = OneEuroRotation(config), OneEuroRotation(config)
    for k, v in enumerate(rotations):
        rotation = rotation_from_vector(0.5 * v)
        np.testing.assert_allclose(
            g(left @ rotation, k / 30), left @ f(rotation, k / 30), atol=1e-7
        )


def test_noise_is_reduced_and_speed_opens_the_filter():
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal(300)
    still = [OneEuroVector(OneEuroConfig(1.0, 0.0))]
    smooth = np.array([still[0]([n], k / 30)[0] for k, n in enumerate(noise)])
    assert smooth[30:].std() < 0.5 * noise.std()

    def lag(beta):
        f = OneEuroVector(OneEuroConfig(1.0, beta))
        return max(k / 30 - f([k / 30], k / 30)[0] for k in range(60))

    assert lag(5.0) < 0.3 * lag(0.0)


@pytest.mark.parametrize("stamp", [-1.0, 0.0, 50.0])
def test_jumps_start_anew_and_equal_stamps_change_nothing(stamp):
    f = OneEuroVector(ON)
    f([0.0], 0.0)
    assert f([1.0], stamp)[0] == (0.0 if stamp == 0.0 else 1.0)


def test_rigid_motions_are_smoothed_part_by_part():
    f = OneEuroRigid(ON, OneEuroConfig())
    f(Rigid.identity(), 0.0)
    out = f(Rigid(rotation_from_vector([0, 0, 1.0]), np.array([1.0, 2, 3])), 0.1)
    assert (out.translation == [1, 2, 3]).all()
    assert 0 < angle_between(out.rotation, np.eye(3)) < 1


@pytest.mark.parametrize("wrong", [{"min_cutoff_hz": -1.0}, {"beta": np.nan}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        OneEuroConfig(**wrong)
