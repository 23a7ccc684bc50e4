"""Necks: read from URDF, kinematics, aiming within limits."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from necks import JOINTS, URDF, odd_neck, pan_tilt

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.nodes.neck_config import NeckConfig
from face_recon_ros.robot.neck import neck_from_urdf


def test_the_urdf_says_it_all():
    neck = pan_tilt()
    assert neck.joint_names == JOINTS
    assert neck.base_frame == "base_link"
    np.testing.assert_allclose(neck.limits.upper, [1.55, 0.68])
    np.testing.assert_allclose(neck.limits.velocity, [2.0, 2.0])  # the smaller of the two
    assert neck.limits.unknown(neck.joint_names) == ""
    base_from_camera = neck.base_from_look([0.0, 0.0])
    np.testing.assert_allclose(base_from_camera.translation, [0.05, 0, 0.40], atol=1e-12)
    np.testing.assert_allclose(base_from_camera.rotation[:, 2], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(base_from_camera.rotation[:, 1], [0, 0, -1], atol=1e-12)


def test_pan_turns_left_and_tilt_turns_down():
    """REP-103: positive about z is to the left, positive about y is down."""
    neck = pan_tilt()
    assert neck.base_from_look([0.5, 0.0]).rotation[1, 2] == pytest.approx(np.sin(0.5))
    assert neck.base_from_look([0.0, 0.5]).rotation[2, 2] == pytest.approx(-np.sin(0.5))


def test_a_chain_is_sorted_and_keeps_fixed_joints():
    neck = odd_neck()
    assert neck.joint_names == ("roll", "pitch", "yaw")
    assert neck.base_frame == "stem"
    assert neck.limits.lower[2] == -np.inf
    # yaw about the tilted stem: the head turns about the axis that roll and pitch left it
    turned = (
        neck.base_from_look([0.3, 0.2, 0.0]).rotation.T
        @ neck.base_from_look([0.3, 0.2, 0.7]).rotation
    )
    np.testing.assert_allclose(turned[:, 2], [0, 0, 1], atol=1e-12)


angles = st.floats(-0.55, 0.55)


@pytest.mark.parametrize("neck", [pan_tilt(), odd_neck()], ids=["pan_tilt", "odd"])
@settings(deadline=None)
@given(st.tuples(angles, angles, angles), st.floats(0.4, 5.0))
def test_what_a_posture_looks_at_it_aims_at(neck, angles, distance):
    positions = np.array(angles[: len(neck.joint_names)])
    base_from_look = neck.base_from_look(positions)
    point = base_from_look.apply(neck.look_axis * distance)
    assert np.linalg.norm(neck.bearing(positions, point)) < 1e-9
    aimed = neck.aim(point)
    assert (aimed >= neck.limits.lower).all() and (aimed <= neck.limits.upper).all()
    assert np.linalg.norm(neck.bearing(aimed, point)) < 1e-5


@settings(deadline=None)
@given(st.floats(-np.pi, np.pi), st.floats(-1.2, 1.2), st.floats(0.5, 4.0))
def test_out_of_reach_it_gets_as_near_as_it_can(azimuth, elevation, distance):
    neck = pan_tilt()
    assume(abs(abs(azimuth) - np.pi) > 0.05)  # straight behind, left is as good as right
    direction = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation)]
    point = np.array([0.0, 0.0, 0.38]) + distance * np.array([*direction, np.sin(elevation)])
    aimed = neck.aim(point)
    assert (aimed >= neck.limits.lower).all() and (aimed <= neck.limits.upper).all()
    reached = np.linalg.norm(neck.bearing(aimed, point))
    for change in np.vstack([np.eye(2), -np.eye(2)]) * 0.01:
        other = np.clip(aimed + change, neck.limits.lower, neck.limits.upper)
        assert reached <= np.linalg.norm(neck.bearing(other, point)) + 2e-3


def test_behind_is_not_in_front():
    neck = pan_tilt()
    point = np.array([-3.0, 0.0, 0.40])
    assert np.linalg.norm(neck.bearing([0.0, 0.0], point)) == pytest.approx(np.pi)
    assert abs(neck.aim(point)[0]) == pytest.approx(1.55)


def test_unknown_limits_are_named():
    neck = neck_from_urdf(
        '<robot name="r"><joint name="pan" type="revolute"><parent link="a"/><child link="b"/>'
        '<axis xyz="0 0 1"/></joint></robot>',
        ["pan"],
        "b",
        look_axis="x",
    )
    unknown = neck.limits.unknown(neck.joint_names)
    assert unknown == "pan lower, pan upper, pan velocity, pan acceleration"


@pytest.mark.parametrize(
    ("urdf", "joints", "look_frame", "message"),
    [
        ("{{xacro}}", JOINTS, "camera_optical_frame", "no XML"),
        (URDF, (), "camera_optical_frame", "set `joints`"),
        (URDF, (*JOINTS, "neck"), "camera_optical_frame", "the joints neck"),
        (URDF, JOINTS, "nose", "a chain that reaches nose"),
        (URDF, ("pan_joint",), "camera_optical_frame", "the revolute joint tilt_joint"),
        (URDF, ("camera_joint",), "camera_optical_frame", "a rotary joint"),
        (URDF.replace('"-1.57"', '"left"'), JOINTS, "camera_optical_frame", "lower of joint pan"),
        (URDF.replace('"-1.57"', '"1.57"'), JOINTS, "camera_optical_frame", "room between"),
        (URDF.replace('<axis xyz="0 1 0"/>', '<axis xyz="0 0 0"/>'), JOINTS,
         "camera_optical_frame", "an axis"),
    ],
)  # fmt: skip
def test_a_urdf_that_does_not_fit_says_how(urdf, joints, look_frame, message):
    with pytest.raises(ConfigError, match=message):
        neck_from_urdf(urdf, joints, look_frame, limit_margin=0.02)


def test_a_urdf_that_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n")
    for name, got in (("picture.png", "no text"), ("none.urdf", "No such file")):
        with pytest.raises(ConfigError, match=f"a URDF file at neck.urdf .*got {got}"):
            NeckConfig(urdf=str(tmp_path / name)).read_urdf()
