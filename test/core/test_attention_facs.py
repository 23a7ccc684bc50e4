"""Gaze, attention, and action units; on the face model that ships."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.attention import (
    FACE_FROM_STRAIGHT_GAZE,
    Attention,
    AttentionConfig,
    Gaze,
    attention_angle,
)
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.facs import ACTION_UNITS, N_ACTION_UNITS, action_units
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.rigid import Rigid, rotation_from_vector

MODEL = load_morphable_model(
    Path(__file__).parents[2] / "models" / "face_model.npz", level="coarse"
)
NAMES = MODEL.expression_names
FACING = Rigid(CAMERA_FROM_FRONTAL_FACE, np.array([0.0, 0.0, 1.0]))


def _expression(**activations):
    out = np.zeros(len(NAMES))
    for name, value in activations.items():
        out[NAMES.index(name)] = value
    return out


def _look(direction):
    left, right = {
        "left": ("eyeLookOutLeft", "eyeLookInRight"),
        "right": ("eyeLookInLeft", "eyeLookOutRight"),
        "up": ("eyeLookUpLeft", "eyeLookUpRight"),
        "down": ("eyeLookDownLeft", "eyeLookDownRight"),
    }[direction]
    return _expression(**{left: 1.0, right: 1.0})


def test_the_gaze_frame_is_an_optical_frame_on_the_face():
    """REP-155: collocated with the face, z along the gaze, x right, y down."""
    assert np.linalg.det(FACE_FROM_STRAIGHT_GAZE) == pytest.approx(1.0)
    gaze = Gaze(MODEL)(FACING, np.zeros(len(NAMES)))
    np.testing.assert_array_equal(gaze.translation, FACING.translation)
    np.testing.assert_allclose(gaze.rotation[:, 2], FACING.rotation[:, 0])  # z is face x
    np.testing.assert_allclose(gaze.rotation[:, 0], -FACING.rotation[:, 1])  # x is face -y: right
    np.testing.assert_allclose(gaze.rotation[:, 1], -FACING.rotation[:, 2])  # y is face -z: down


@pytest.mark.parametrize(
    ("direction", "face_axis"),
    [("left", [0, 1, 0]), ("right", [0, -1, 0]), ("up", [0, 0, 1]), ("down", [0, 0, -1])],
)
def test_eyes_turn_the_gaze_to_their_side(direction, face_axis):
    gaze = Gaze(MODEL)(FACING, _look(direction))
    in_face = FACING.rotation.T @ gaze.rotation[:, 2]
    angle = np.degrees(np.arccos(in_face[0]))
    assert 8.0 < angle < 30.0  # what the face model's eyeballs do at full activation
    assert in_face @ face_axis == pytest.approx(np.sin(np.radians(angle)), abs=0.03)


def test_a_model_without_eyes_looks_where_the_face_points():
    skin = MODEL.subset("facial_skin")
    gaze = Gaze(skin)(FACING, _look("left"))
    np.testing.assert_allclose(gaze.rotation[:, 2], FACING.rotation[:, 0])


small = st.floats(-0.6, 0.6)


@given(small, small, small, st.floats(0.3, 5.0))
def test_who_looks_into_the_camera_is_at_angle_zero(x, y, roll, distance):
    position = distance * np.array([x, y, 1.0])
    gaze = -position / np.linalg.norm(position)
    right = np.cross([0.0, 1.0, 0.0], gaze)
    right /= np.linalg.norm(right)
    rotation = np.column_stack([right, np.cross(gaze, right), gaze])
    camera_from_gaze = Rigid(rotation_from_vector(roll * gaze) @ rotation, position)
    assert attention_angle(camera_from_gaze) == pytest.approx(0.0, abs=1e-6)
    turned = rotation_from_vector(0.5 * right)
    away = Rigid(turned @ rotation, position)
    assert attention_angle(away) == pytest.approx(0.5)
    behind = Rigid(rotation, -position)
    assert attention_angle(behind) == pytest.approx(np.pi)


def test_attention_has_hysteresis_and_dwell():
    attention, config = Attention(), AttentionConfig(enter=0.2, leave=0.4, dwell_s=0.1)

    def update(angles, stamp):
        return attention.update(angles, stamp, config)

    def looks(angle, start, count=6):
        return [bool(update({"a": angle}, start + 0.04 * k)) for k in range(count)]

    assert looks(0.3, 0.0) == [False] * 6  # between the thresholds: as before
    assert looks(0.1, 1.0) == [False] * 3 + [True] * 3
    assert looks(0.3, 2.0) == [True] * 6
    assert looks(0.5, 3.0) == [True] * 3 + [False] * 3
    update({"a": 0.1}, 4.0)
    assert not update({"a": 0.1}, 3.0)  # the clock went back: the dwell starts anew
    assert not update({"a": 0.1}, 3.05)
    assert update({"a": 0.0}, 3.2) == {"a": 1.0}
    assert update({}, 3.3) == {}
    assert update({"a": 0.0}, 3.4) == {}  # lost faces are forgotten


def test_a_glance_is_no_attention():
    attention = Attention()
    for k in range(20):
        assert not attention.update({"a": 0.05 if k % 4 == 0 else 1.0}, 0.04 * k)


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError):
        AttentionConfig(enter=0.5, leave=0.3)


# FACS.


def test_every_mapped_unit_is_an_arkit_name():
    intensity, confidence = action_units(NAMES, np.zeros(len(NAMES)), 0.7)
    assert intensity.shape == confidence.shape == (N_ACTION_UNITS,)
    assert not intensity.any()
    assert set(np.flatnonzero(confidence)) == set(ACTION_UNITS)
    assert set(confidence) == {np.float32(0.0), np.float32(0.7)}


@pytest.mark.parametrize(
    ("activations", "expected"),
    [
        ({"browInnerUp": 0.4}, {1: 0.4}),
        ({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.6, "cheekSquintLeft": 0.5},
         {12: 0.8, 6: 0.5}),
        ({"jawOpen": 0.9, "mouthClose": 0.9}, {26: 0.9, 8: 0.9}),  # jaw down, lips shut
        ({"jawOpen": 0.9}, {26: 0.9, 25: 0.9}),
        ({"eyeBlinkLeft": 1.0}, {46: 1.0}),
        ({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, {43: 1.0, 45: 1.0}),
        ({"eyeLookOutLeft": 0.6, "eyeLookInRight": 0.6}, {61: 0.6}),
        ({"eyeLookInLeft": 0.6, "eyeLookInRight": 0.6}, {61: 0.3, 62: 0.3, 66: 0.6}),
        ({"browDownLeft": 7.0}, {4: 1.0}),
    ],
)  # fmt: skip
def test_known_expressions(activations, expected):
    intensity, _ = action_units(NAMES, _expression(**activations))
    found = {code: round(float(intensity[code]), 6) for code in np.flatnonzero(intensity)}
    assert found == expected


@given(st.lists(st.floats(-1, 2), min_size=len(NAMES), max_size=len(NAMES)))
def test_intensities_are_shares_and_grow_with_what_shows_them(activations):
    intensity, _ = action_units(NAMES, activations)
    assert (intensity >= 0).all() and (intensity <= 1).all()


def test_a_model_with_other_names_knows_nothing():
    intensity, confidence = action_units(["expression_000"], [1.0])
    assert not intensity.any() and not confidence.any()
    intensity, confidence = action_units([], [])
    assert not intensity.any() and not confidence.any()
