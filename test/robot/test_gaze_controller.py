"""The gaze controller: laws of motion and choice, faults, and the closed loop's figures."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from necks import odd_neck, pan_tilt

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.robot import gaze_controller
from face_recon_ros.robot.closed_loop_simulation import Scene, around, follow, step_figures
from face_recon_ros.robot.gaze_controller import LookAtState, step
from face_recon_ros.robot.head_tracks import SeenHead
from face_recon_ros.robot.look_at_config import LookAtConfig
from face_recon_ros.robot.motion import JointReading, move
from face_recon_ros.robot.neck_simulator import NeckSimulator, NeckSimulatorConfig

NECK = pan_tilt()
DT = 1 / 30


def _run(heads_at, duration_s=2.0, config=None, neck=NECK, state=None, start=10.0):
    """Steps the controller with ideal joints; returns the last state and all commands."""
    config, state = config or LookAtConfig(), state or LookAtState()
    positions, commands = neck.rest, []
    for k in range(round(duration_s / DT)):
        time = start + k * DT
        joints = JointReading(time, positions)
        state, command = step(config, neck, state, heads_at(time), joints, time)
        commands.append(command)
        if command.positions is not None:
            positions = command.positions
    return state, commands


def _head(id_, angle, time, distance=1.5, attention=0.0):
    return SeenHead(id_, time, around(angle, distance), attention)


# No limit is ever exceeded.

speeds = st.floats(-5, 5)


@settings(deadline=None, max_examples=300)
@given(
    st.tuples(st.floats(-1.55, 1.55), st.floats(-0.68, 0.68)),
    st.lists(st.tuples(speeds, speeds, st.floats(1e-4, 0.3)), min_size=1, max_size=40),
)
def test_no_wish_exceeds_a_limit(start, wishes):
    limits = NECK.limits
    positions, velocities = np.array(start), np.zeros(2)
    for *wanted, elapsed in wishes:
        before = velocities
        positions, velocities = move(NECK, positions, velocities, np.array(wanted), elapsed)
        assert (np.abs(velocities - before) <= limits.acceleration * elapsed + 1e-9).all()
        assert (np.abs(velocities) <= limits.velocity + 1e-9).all()
        assert (positions >= limits.lower - 1e-9).all()
        assert (positions <= limits.upper + 1e-9).all()


sightings = st.tuples(
    st.sampled_from(["a", "b"]),
    st.floats(-4, 4),
    st.floats(-4, 4),
    st.floats(-2, 2),
    st.floats(-0.2, 0.4),
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(sightings, max_size=2),
            st.one_of(st.just(DT), st.floats(0.001, 0.4), st.sampled_from([-5.0, 0.0, 60.0])),
            st.booleans(),
        ),
        min_size=5,
        max_size=40,
    )
)
def test_whatever_is_seen_no_limit_is_exceeded(events):
    """Heads anywhere, stamps old and ahead, clocks that jump, joint states that stay away."""
    config, state, time = LookAtConfig(dwell_s=0.1), LookAtState(), 100.0
    limits, positions, velocities = NECK.limits, NECK.rest, np.zeros(2)
    joints = None
    for seen, elapsed, has_joints in events:
        time += elapsed
        heads = [SeenHead(i, time - age, np.array([x, y, z])) for i, x, y, z, age in seen]
        joints = JointReading(time, positions) if has_joints else joints
        stepped = state.time is not None
        state, command = step(config, NECK, state, heads, joints, time)
        if command.positions is None:
            continue
        regular = stepped and 0 <= elapsed <= config.max_gap_s
        passed = elapsed if regular else config.period_s
        change = limits.acceleration * passed
        assert (np.abs(command.velocities - velocities) <= change + 1e-9).all()
        assert (np.abs(command.velocities) <= limits.velocity + 1e-9).all()
        assert (np.abs(command.positions - positions) <= limits.velocity * passed + 1e-9).all()
        assert (command.positions >= limits.lower - 1e-9).all()
        assert (command.positions <= limits.upper + 1e-9).all()
        positions, velocities = command.positions, command.velocities


def test_a_joint_beyond_its_limit_comes_back():
    positions, velocities = np.array([1.7, 0.0]), np.zeros(2)
    path = []
    for _ in range(60):
        positions, velocities = move(NECK, positions, velocities, np.array([2.0, 0.0]), DT)
        path.append(positions[0])
    assert max(path) <= 1.7
    assert path[-1] == pytest.approx(1.55, abs=1e-6)


# The closed loop's figures: 30 Hz, 100 ms latency, noise, a servo with delay and lag.


def _jump(time):
    return around(0.0 if time < 1.0 else np.radians(30))


def _walk(time):
    return around(np.radians(np.clip(-50 + 30 * (time - 1.0), -50, 50)))


@pytest.mark.parametrize("seed", range(3))
def test_a_step_of_30_degrees_settles_fast_without_overshoot(seed):
    scene, servo = Scene(seed=seed), NeckSimulatorConfig(seed=seed)
    following = follow(NECK, _jump, 3.0, scene=scene, servo=servo)
    settled_s, overshoot = step_figures(following, 1.0, np.radians(1.5))
    assert settled_s <= 1.2
    assert np.degrees(overshoot) <= 2.0
    assert following.limits_hit == 0


@pytest.mark.parametrize("seed", range(3))
def test_30_degrees_a_second_are_followed_within_3(seed):
    scene, servo = Scene(seed=seed), NeckSimulatorConfig(seed=seed)
    following = follow(NECK, _walk, 4.2, scene=scene, servo=servo)
    under_way = following.times > 2.0  # a second after the head sets off
    assert np.degrees(following.errors[under_way].max()) <= 3.0
    assert following.limits_hit == 0


def test_without_the_pose_at_capture_time_it_overshoots():
    """What this controller is about: the same loop fails with the newest pose instead."""
    following = follow(NECK, _jump, 3.0, scene=Scene(capture_time=False))
    assert np.degrees(step_figures(following, 1.0, np.radians(1.5))[1]) > 5.0


def test_a_resting_head_leaves_the_neck_at_rest():
    following = follow(NECK, lambda _: around(0.3), 5.0)
    settled = following.command_times > 2.0
    assert np.ptp(following.commands[settled], axis=0).max() < 1e-3
    assert np.degrees(following.errors[following.times > 2.0].max()) < 2.0


# Whom.


def test_the_nearest_is_chosen_at_once_and_kept_for_a_small_difference():
    state, commands = _run(lambda t: [_head("far", 0.5, t, 2.0), _head("near", -0.5, t, 1.5)])
    assert commands[0].target == "near"
    assert commands[0].status == gaze_controller.FOLLOWING
    _, commands = _run(
        lambda t: [_head("far", 0.5, t, 1.4), _head("near", -0.5, t, 1.5)], state=state, start=12.0
    )
    assert {c.target for c in commands} == {"near"}


def test_a_clearly_better_target_wins_after_the_dwell_time():
    state, _ = _run(lambda t: [_head("old", 0.5, t, 1.5)], 0.1)
    heads = lambda t: [_head("old", 0.5, t, 1.5), _head("new", -0.5, t, 0.8)]  # noqa: E731
    _, commands = _run(heads, 2.0, LookAtConfig(dwell_s=0.5), state=state, start=10.1)
    switched = [c.target for c in commands].index("new") * DT
    assert 0.45 <= switched <= 0.65


def test_two_equal_targets_do_not_make_it_restless():
    random = np.random.default_rng(0)

    def heads(time):
        a, b = 1.5 + 0.1 * random.normal(size=2)
        return [_head("a", 0.4, time, a), _head("b", -0.4, time, b)]

    _, commands = _run(heads, 10.0)
    targets = [c.target for c in commands]
    assert sum(a != b for a, b in pairwise(targets)) == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LookAtConfig("nearest"), "close"),
        (LookAtConfig("most_central"), "central"),
        (LookAtConfig("looking_at_me"), "attentive"),
        (LookAtConfig("id", target_id="wanted"), "wanted"),
        (LookAtConfig("id", target_id="absent"), None),
    ],
)
def test_each_policy_has_its_favourite(config, expected):
    def heads(time):
        return [
            _head("close", 0.8, time, 0.9, attention=1.0),
            _head("central", 0.02, time, 2.0, attention=np.nan),
            _head("attentive", -0.5, time, 1.5, attention=0.05),
            _head("wanted", 0.4, time, 3.0, attention=2.0),
        ]

    _, commands = _run(heads, 0.5, config)
    assert {c.target for c in commands} == {expected}


# What can go wrong. Always: it says so, brakes within the limits, stands.


def _on_the_way():
    """A controller in mid-motion towards a head 1 radian to the left."""
    state, commands = _run(lambda t: [_head("a", 1.0, t)], 0.3)
    assert commands[-1].velocities[0] > 0.5
    return state


def _stops(commands):
    at_rest = [not c.velocities.any() for c in commands]
    first = at_rest.index(True)
    assert all(at_rest[first:])
    assert first * DT <= 2.0 / 8.0 + 0.6 + 3 * DT  # braking from top speed, and stale_s
    held = [c.positions for c in commands[first:] if c.positions is not None]
    assert np.ptp(held, axis=0).max() < 1e-9 if held else True
    return commands[-1].status


def test_nobody():
    _, commands = _run(lambda _: [])
    assert _stops(commands) == gaze_controller.NO_TARGET
    assert commands[0].target is None and commands[0].point is None


def test_a_target_lost_in_mid_motion():
    _, commands = _run(lambda _: [], state=_on_the_way(), start=10.3)
    assert _stops(commands) == gaze_controller.LOST_TARGET


def test_sightings_from_the_past_or_far_ahead_are_nobody():
    for shift in (-30.0, 30.0):
        _, commands = _run(lambda t, s=shift: [_head("a", 0.5, t + s)])
        assert _stops(commands) == gaze_controller.NO_TARGET


@pytest.mark.parametrize("start", [-1000.0, 1000.0])
def test_a_clock_that_jumps(start):
    state = _on_the_way()
    state, commands = _run(lambda _: [], 1.0, state=state, start=start)
    assert commands[0].status == gaze_controller.CLOCK_JUMP
    assert commands[0].positions is not None
    assert _stops(commands) == gaze_controller.NO_TARGET
    _, commands = _run(lambda t: [_head("a", 0.5, t)], 0.2, state=state, start=start + 1.0)
    assert commands[-1].status == gaze_controller.FOLLOWING


def test_joint_states_that_stop_coming():
    config, state = LookAtConfig(), _on_the_way()
    commands = []
    for k in range(60):
        time = 10.3 + k * DT
        joints = JointReading(10.3, state.positions)
        state, command = step(config, NECK, state, [_head("a", 1.0, time)], joints, time)
        commands.append(command)
    assert commands[-1].status == gaze_controller.NO_JOINTS
    assert not commands[-1].velocities.any()


@pytest.mark.parametrize("outage_s", [0.55, 3.0])
def test_a_neck_turned_by_hand_while_joint_states_stayed_away_does_not_leap(outage_s):
    """From the measured posture on, every command is within reach of the one before."""
    config, state, end = LookAtConfig(), _on_the_way(), 10.3 + outage_s
    at, turned = state.positions, np.array([-0.4, 0.1])  # less than max_following_error
    outage, time, back = JointReading(10.3, at), 10.3, None
    for _ in range(round((outage_s + 3.0) / DT)):
        time += DT
        hand = state.positions + turned if back is None else at
        joints = outage if time < end else JointReading(time, hand)
        state, command = step(config, NECK, state, [_head("a", 0.7, time)], joints, time)
        if time < end or (back is None and command.status == gaze_controller.NO_JOINTS):
            continue
        assert command.status == gaze_controller.FOLLOWING
        if back is None:  # the first command of the new start: from where the neck is
            back, at = time, hand
        reach = NECK.limits.velocity * DT + 1e-9
        assert (np.abs(command.positions - at) <= reach).all()
        at = command.positions
    assert back is not None and abs(at[0] - 0.7) < 0.05


def test_readings_from_before_it_stopped_do_not_pull_it_back():
    """After an outage the first readings are late: they show a neck that was still on its way."""
    config, state, waited = LookAtConfig(), _on_the_way(), False
    start = time = state.time
    at, path = state.positions, {start: state.positions}
    while time < 14.0:
        time += DT
        stamp = start if time < 11.0 else max(t for t in path if t <= time - 0.4)
        joints = JointReading(stamp, path[stamp])
        state, command = step(config, NECK, state, [_head("a", 1.0, time)], joints, time)
        told = at if command.positions is None else command.positions
        assert (np.abs(told - at) <= NECK.limits.velocity * DT + 1e-9).all()
        waited |= command.status == gaze_controller.NO_JOINTS and time > 11.0
        at = path[time] = told
    assert waited and command.status == gaze_controller.FOLLOWING
    assert at[0] == pytest.approx(1.0, abs=0.05)


def test_without_joint_states_it_says_nothing():
    state, command = step(LookAtConfig(), NECK, LookAtState(), [_head("a", 1.0, 5.0)], None, 5.0)
    assert command.status == gaze_controller.NO_JOINTS and command.positions is None
    bad = JointReading(5.1, np.array([np.nan, 0.0]))
    _, command = step(LookAtConfig(), NECK, state, [_head("a", 1.0, 5.1)], bad, 5.1)
    assert command.status == gaze_controller.NO_JOINTS and command.positions is None


def test_without_limits_it_does_not_move():
    unlimited = replace(NECK, limits=replace(NECK.limits, velocity=np.array([2.0, np.nan])))
    _, commands = _run(lambda t: [_head("a", 1.0, t)], neck=unlimited)
    assert {c.status for c in commands} == {gaze_controller.NO_LIMITS}
    assert all(c.positions is None for c in commands)


def test_a_neck_that_does_not_obey():
    config, state = LookAtConfig(), LookAtState()
    stuck, statuses = np.zeros(2), set()
    for k in range(90):
        time = 10.0 + k * DT
        joints = JointReading(time, stuck)
        state, command = step(config, NECK, state, [_head("a", 1.3, time)], joints, time)
        statuses.add(command.status)
        assert np.abs(command.positions - stuck).max() < config.max_following_error + 0.4
    assert gaze_controller.NOT_OBEYING in statuses


def test_two_publishers_of_one_id():
    config, state = LookAtConfig(), LookAtState()
    commands = []
    for k in range(90):  # 60 Hz together, a metre apart, each with its own stamps
        time = 10.0 + k * DT
        heads = [_head("a", 0.5, time - 0.02), _head("a", -0.5, time)]
        joints = JointReading(time, state.positions if state.positions is not None else [0, 0])
        state, command = step(config, NECK, state, heads, joints, time)
        commands.append(command)
    assert commands[-1].contested == ("a",)
    assert commands[-1].status == gaze_controller.LOST_TARGET
    assert not commands[-1].velocities.any()
    # The impostor leaves: a few seconds later the other is looked at again.
    _, commands = _run(lambda t: [_head("a", 0.5, t)], 4.0, state=state, start=13.0)
    assert commands[-1].contested == () and commands[-1].status == gaze_controller.FOLLOWING


def test_two_publishers_with_equal_stamps():
    def heads(time):
        return [_head("a", 0.5, time), _head("a", -0.5, time)]

    _, commands = _run(heads)
    assert commands[-1].contested == ("a",)


@pytest.mark.parametrize(
    "wrong",
    [{"policy": "prettiest"}, {"policy": "id"}, {"stale_s": 0.0}, {"dwell_s": -1.0},
     {"gain": np.nan}, {"max_prediction_s": 0.01}],
)  # fmt: skip
def test_a_config_that_cannot_be_says_so(wrong):
    with pytest.raises(ConfigError):
        LookAtConfig(**wrong)


# The simulated neck.


def test_the_simulated_neck_obeys_late_and_stops_at_its_limits():
    neck = odd_neck()
    simulator = NeckSimulator(neck, NeckSimulatorConfig(delay_s=0.1, encoder_noise=0.0))
    simulator.advance(0.0)
    simulator.command([0.3, 0.0, 0.0], 0.0)
    np.testing.assert_array_equal(simulator.advance(0.098), np.zeros(3))
    np.testing.assert_allclose(simulator.advance(1.5), [0.3, 0, 0], atol=1e-3)
    simulator.command([0.9, 0.0, 0.0], 1.5)
    assert simulator.advance(3.0)[0] == pytest.approx(0.6)
    assert simulator.limits_hit > 0
    simulator.command([np.nan, 0.0, 0.0], 3.0)
    assert np.isfinite(simulator.advance(3.5)).all()
    simulator.advance(1.0)  # the clock jumped back
    assert np.isfinite(simulator.read(1.1).positions).all()


def test_a_neck_that_plans_itself_gets_there_within_its_limits_and_stops_when_told():
    ideal = NeckSimulatorConfig(delay_s=0.0, bandwidth=500.0, encoder_noise=0.0)
    simulator = NeckSimulator(NECK, ideal)
    simulator.advance(0.0)
    simulator.go_to([0.6, -0.2], 0.0)
    path = np.array([simulator.advance(k / 100) for k in range(100)])
    speed = np.diff(path, axis=0) * 100
    assert (np.abs(speed) <= NECK.limits.velocity + 1e-6).all()
    change = np.abs(np.diff(speed, axis=0)) * 100
    assert change.max() <= 1.3 * NECK.limits.acceleration.max()  # the servo's own ripple
    assert path[:, 0].max() <= 0.6 + 1e-3  # it does not overshoot
    np.testing.assert_allclose(path[-1], [0.6, -0.2], atol=2e-3)
    simulator.go_to([-0.6, 0.2], 1.0)
    simulator.advance(1.2)
    simulator.stop(1.2)
    held = simulator.advance(2.0)
    assert -0.5 < held[0] < 0.6  # neither went on nor back
    np.testing.assert_allclose(simulator.advance(3.0), held, atol=1e-3)


def test_a_clock_that_jumps_far_ahead_is_not_lived_through():
    simulator = NeckSimulator(NECK)
    simulator.advance(0.0)
    simulator.command([1.0, 0.0], 0.0)
    np.testing.assert_array_equal(simulator.advance(1.7e9), NECK.rest)  # at once, or never
    simulator.command([1.0, 0.0], 1.7e9)
    assert simulator.advance(1.7e9 + 2.0)[0] == pytest.approx(1.0, abs=1e-3)
