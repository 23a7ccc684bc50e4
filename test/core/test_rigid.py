"""Laws of SO(3) and SE(3)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.rigid import (
    Rigid,
    angle_between,
    nearest_rotation,
    quaternion_from_rotation,
    rotation_between,
    rotation_from_quaternion,
    rotation_from_vector,
    vector_from_rotation,
)

unit = st.floats(-1, 1)
vectors = st.tuples(unit, unit, unit).map(lambda v: np.array(v) * 1.8)  # |v| < pi


@given(vectors)
def test_log_inverts_exp(vector):
    np.testing.assert_allclose(
        vector_from_rotation(rotation_from_vector(vector)), vector, atol=1e-7
    )


@given(vectors)
def test_exp_is_a_rotation(vector):
    r = rotation_from_vector(vector)
    np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(r) == pytest.approx(1.0)


@given(vectors)
def test_a_rotation_is_its_own_nearest_whatever_it_was_scaled_by(vector):
    r = rotation_from_vector(vector)
    np.testing.assert_allclose(nearest_rotation([r, 3.0 * r]), [r, r], atol=1e-9)


def test_nearest_rotations_are_no_reflections_and_none_is_nearer():
    rng = np.random.default_rng(0)
    matrices = rng.standard_normal((20, 3, 3))
    nearest = nearest_rotation(matrices)
    np.testing.assert_allclose(np.linalg.det(nearest), 1.0)
    others = np.array([rotation_from_vector(v) for v in rng.uniform(-2, 2, (200, 3))])
    agreement = np.einsum("nab,mab->nm", matrices, others).max(axis=1)
    assert (np.einsum("nab,nab->n", matrices, nearest) >= agreement).all()


@given(vectors)
def test_quaternion_round_trip(vector):
    r = rotation_from_vector(vector)
    q = quaternion_from_rotation(r)
    assert q[3] >= 0 and np.linalg.norm(q) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation_from_quaternion(q), r, atol=1e-9)


@pytest.mark.parametrize("axis", np.eye(3))
def test_log_survives_half_turns(axis):
    vector = vector_from_rotation(rotation_from_vector(np.pi * axis))
    np.testing.assert_allclose(np.abs(vector), np.pi * axis, atol=1e-7)


def test_quaternion_is_xyzw_right_handed():
    quarter_turn_about_z = rotation_from_quaternion([0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    np.testing.assert_allclose(quarter_turn_about_z @ [1, 0, 0], [0, 1, 0], atol=1e-12)


@given(vectors, vectors)
def test_rotation_between_turns_a_into_b(a, b):
    a, b = a + 4 * np.eye(3)[2], b + 4 * np.eye(3)[2]  # never opposite
    turned = rotation_between(a, b) @ a / np.linalg.norm(a)
    np.testing.assert_allclose(turned, b / np.linalg.norm(b), atol=1e-12)


@given(vectors)
def test_angle_between_is_the_length_of_the_vector(vector):
    angle = angle_between(np.eye(3), rotation_from_vector(vector))
    assert angle == pytest.approx(np.linalg.norm(vector), abs=1e-7)


@given(vectors, vectors, vectors)
def test_rigid_is_a_group_acting_on_points(u, v, point):
    b_from_a = Rigid(rotation_from_vector(u), v)
    c_from_b = Rigid(rotation_from_vector(v), u)
    np.testing.assert_allclose(
        (c_from_b @ b_from_a).apply(point), c_from_b.apply(b_from_a.apply(point)), atol=1e-12
    )
    np.testing.assert_allclose(b_from_a.inverse().apply(b_from_a.apply(point)), point, atol=1e-12)
    np.testing.assert_array_equal(Rigid.identity().apply(point), point)


def test_apply_keeps_single_precision_and_takes_no_points():
    motion = Rigid(rotation_from_vector([0.1, 0.2, 0.3]), np.ones(3))
    assert motion.apply(np.zeros((4, 3), np.float32)).dtype == np.float32
    assert motion.apply(np.zeros((0, 3))).shape == (0, 3)
