"""Laws of the interpolating TF tree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.errors import FrameError
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.transform_buffer import TransformBuffer, interpolate

number = st.floats(-1, 1)
motions = st.tuples(*[number] * 6).map(
    lambda v: Rigid(rotation_from_vector(v[:3]), np.array(v[3:]))
)


def _assert_same(a, b):
    np.testing.assert_allclose(a.rotation, b.rotation, atol=1e-9)
    np.testing.assert_allclose(a.translation, b.translation, atol=1e-9)


@given(motions, motions, motions)
def test_lookup_composes_up_and_down_the_tree(base_from_pan, pan_from_camera, base_from_hand):
    frames = TransformBuffer()
    frames.set("base", "pan", base_from_pan, 1.0)
    frames.set("/pan", "/camera", pan_from_camera)
    frames.set("base", "hand", base_from_hand)
    expected = base_from_hand.inverse() @ base_from_pan @ pan_from_camera
    _assert_same(frames.lookup("hand", "camera", 1.0), expected)
    _assert_same(frames.lookup("camera", "hand", None), expected.inverse())
    _assert_same(frames.lookup("camera", "camera", None), Rigid.identity())


@given(motions, motions, st.floats(0, 1))
def test_between_two_stamps_a_frame_is_on_the_way(start, end, share):
    frames = TransformBuffer()
    frames.set("a", "b", end, 2.0)
    frames.set("a", "b", start, 1.0)  # out of order
    _assert_same(frames.lookup("a", "b", 1.0), start)
    _assert_same(frames.lookup("a", "b", 2.0), end)
    _assert_same(frames.lookup("a", "b", 1.0 + share), interpolate(start, end, share))
    # Going half the way twice is going the whole way.
    middle = interpolate(start, end, 0.5)
    _assert_same(interpolate(start, middle, 0.5), interpolate(start, end, 0.25))


def test_nothing_is_extrapolated():
    frames = TransformBuffer(duration_s=1.0)
    for stamp in (5.0, 5.5, 6.6):
        frames.set("a", "b", Rigid.identity(), stamp)
    with pytest.raises(FrameError, match="in the past of TF"):
        frames.lookup("a", "b", 5.0)  # forgotten: older than a second
    with pytest.raises(FrameError, match="ahead of TF"):
        frames.lookup("a", "b", 6.7)


def test_an_empty_tree_and_an_island_are_said_so():
    frames = TransformBuffer()
    with pytest.raises(FrameError, match="known frames: none"):
        frames.lookup("base", "camera", None)
    frames.set("base", "camera", Rigid.identity())
    with pytest.raises(FrameError, match="no connection"):
        frames.lookup("base", "moon", None)


def test_a_clock_that_jumps_back_starts_anew():
    frames = TransformBuffer(duration_s=1.0)
    frames.set("a", "b", Rigid.identity(), 100.0)
    frames.set("a", "b", Rigid.identity(), 3.0)
    frames.lookup("a", "b", 3.0)
    with pytest.raises(FrameError):
        frames.lookup("a", "b", 100.0)


def test_a_jump_back_within_the_history_mixes_nothing_of_before_and_after():
    """5 s back of 10 s: what was recorded at the same stamps before must not answer."""
    frames = TransformBuffer(duration_s=10.0, max_step_back_s=0.5)
    frames.set("camera", "lens", Rigid.identity())
    before, after = Rigid(np.eye(3), np.ones(3)), Rigid(np.eye(3), -np.ones(3))
    for stamp in np.arange(95.0, 105.0, 0.1):
        frames.set("base", "pan", before, float(stamp))
        frames.set("pan", "camera", before, float(stamp))
    frames.set("base", "pan", before, 104.5)  # late, no jump
    frames.lookup("base", "camera", 95.2)
    frames.set("base", "pan", after, 100.0)
    with pytest.raises(FrameError):
        frames.lookup("base", "camera", 100.0)  # of pan -> camera nothing is known since then
    frames.set("pan", "camera", after, 100.0)
    _assert_same(frames.lookup("base", "lens", 100.0), after @ after)
    for stamp in (99.0, 101.0):
        with pytest.raises(FrameError):
            frames.lookup("base", "lens", stamp)


def test_a_loop_of_frames_ends():
    frames = TransformBuffer()
    frames.set("a", "b", Rigid.identity())
    frames.set("b", "a", Rigid.identity())
    with pytest.raises(FrameError):
        frames.lookup("a", "c", None)
