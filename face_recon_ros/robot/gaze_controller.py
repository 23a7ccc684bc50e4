"""Gaze control: choice of the person, prediction, motion of the neck.

A pure function of what was seen, where the joints are, and the time:

- Heads are tracked in a frame that does not move with the neck, so the neck's own motion and the
  camera's delay do not feed back: what was seen is placed with the neck as it was at capture time.
- A constant-velocity Kalman filter per person carries the newest head over the measured latency
  (now minus the image stamp, plus what the neck itself needs).
- A target is kept: another one must be better by a margin, for a while.
- The command is a trajectory of its own, limited in position, speed and acceleration in every
  step; whatever goes wrong, it brakes along the same limits and stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.rigid import Rigid
from face_recon_ros.robot.head_tracks import Head, SeenHead, see
from face_recon_ros.robot.look_at_config import LookAtConfig
from face_recon_ros.robot.motion import JointReading, approach, move
from face_recon_ros.robot.neck import Neck

Array = NDArray[np.float64]


#: What a neck can be doing.
FOLLOWING = "following"
NO_TARGET = "no target"
LOST_TARGET = "target lost"
NO_LIMITS = "joint limits unknown"
NO_JOINTS = "no recent joint states"
NOT_OBEYING = "the neck does not follow its commands"
CLOCK_JUMP = "the clock jumped"


@dataclass(frozen=True)
class LookAtState:
    """All the controller remembers between steps.

    Attributes:
        heads: by id.
        target: id looked at, or None.
        target_since: when it was chosen, seconds.
        rival: id that is better, or None.
        rival_since: since when.
        positions: (J,) commanded, radians; None before the first joint state.
        velocities: (J,) commanded, radians/s.
        moving: whether the neck is on its way, as opposed to resting in the dead band.
        rest_since: since when the commanded velocities are zero, seconds; inf while they are not.
        blind: joint states stayed away, and where the neck is was not taken up since.
        time: of the last step.
    """

    heads: Mapping[str, Head] = field(default_factory=lambda: MappingProxyType({}))
    target: str | None = None
    target_since: float = -np.inf
    rival: str | None = None
    rival_since: float = 0.0
    positions: Array | None = None
    velocities: Array = field(default_factory=lambda: np.zeros(0))
    moving: bool = False
    rest_since: float = -np.inf
    blind: bool = False
    time: float | None = None


@dataclass(frozen=True)
class Command:
    """A command to the neck.

    Attributes:
        positions: (J,) radians to be at; None: say nothing.
        velocities: (J,) radians/s then.
        target: id of the person looked at, or None.
        point: (3,) where they will be, fixed frame, metres; None without a target.
        status: what the neck is doing, one of the constants of this module.
        contested: ids that two sources publish at once; they are not looked at.
    """

    positions: Array | None
    velocities: Array
    target: str | None
    point: Array | None
    status: str
    contested: tuple[str, ...] = ()


_STILL = 0.08  # radians/s
_ATTENTION_FLOOR = 0.3  # radians: differences far below it are no reason to switch


def step(
    config: LookAtConfig,
    neck: Neck,
    state: LookAtState,
    seen: Sequence[SeenHead],
    joints: JointReading | None,
    time: float,
    base_from_fixed: Rigid | None = None,
) -> tuple[LookAtState, Command]:
    """One step of the controller, to be taken about every `period_s`.

    Args:
        config: how.
        neck: of which robot.
        state: from the step before; `LookAtState()` at first.
        seen: heads that came in since the step before.
        joints: the newest joint state, or None.
        time: now, seconds, of the clock that stamps images and joint states.
        base_from_fixed: where the fixed frame is in the neck's base frame, now.

    Returns:
        The state for the next step, and the command to the neck.
    """
    base_from_fixed = base_from_fixed or Rigid.identity()
    elapsed = config.period_s if state.time is None else time - state.time
    jumped = not 0.0 <= elapsed <= config.max_gap_s
    if jumped:  # stamps of before and after cannot be compared
        state = replace(state, heads=MappingProxyType({}), target=None, rival=None)
        elapsed = config.period_s
    heads = see(config, state.heads, seen, time, base_from_fixed)
    costs = _costs(config, neck, heads.values(), base_from_fixed)
    state = _choose(config, replace(state, time=time, heads=heads), costs, time)
    fault = _fault(config, neck, state, joints, time, jumped)
    state = _take_up(config, state, joints, fault)
    fault = fault or (NO_JOINTS if state.blind else "")
    point, rested = None, not state.velocities.any()
    if fault or state.target not in costs:
        status = fault or (LOST_TARGET if state.target else NO_TARGET)
        state = _brake(neck, state, elapsed)
    else:
        status = FOLLOWING
        head = heads[str(state.target)]
        state, point = _follow(config, neck, state, head, time, elapsed, base_from_fixed)
    moves, since = state.velocities.any(), time if jumped else min(state.rest_since, time)
    state = replace(state, rest_since=np.inf if moves else since)
    silent = rested and status in (NO_LIMITS, NO_JOINTS)
    return state, Command(
        positions=None if silent else state.positions,
        velocities=state.velocities,
        target=state.target,
        point=point,
        status=status,
        contested=tuple(sorted(head.id for head in state.heads.values() if head.contested)),
    )


# Where people are.


# Whom to look at.


def _costs(
    config: LookAtConfig, neck: Neck, heads: Iterable[Head], base_from_fixed: Rigid
) -> dict[str, float]:
    """Of each person who may be looked at; smaller is better."""
    costs = {}
    for head in heads:
        point = base_from_fixed.apply(head.position)
        cost = {
            "id": 1.0 if head.id == config.target_id else np.inf,
            "looking_at_me": head.attention_angle + _ATTENTION_FLOOR,
            "nearest": float(np.linalg.norm(point)),
            "most_central": float(np.linalg.norm(neck.bearing(neck.rest, point))),
        }[config.policy]
        if np.isfinite(cost) and not head.contested:
            costs[head.id] = cost
    return costs


def _choose(
    config: LookAtConfig, state: LookAtState, costs: Mapping[str, float], time: float
) -> LookAtState:
    """Keeps the target, unless it is gone or another was better for long enough."""
    best = min(costs, key=lambda k: (costs[k], k), default=None)
    if best is None:  # a lost target stays named until another one replaces it
        return replace(state, rival=None)
    if state.target is None or state.target not in costs:
        return replace(state, target=best, target_since=time, rival=None)
    if costs[best] >= costs[state.target] * (1.0 - config.switch_margin):
        return replace(state, rival=None)
    if state.rival != best:
        return replace(state, rival=best, rival_since=time)
    if time - max(state.rival_since, state.target_since) < config.dwell_s:
        return state
    return replace(state, target=best, target_since=time, rival=None)


# How the neck moves.


def _fault(
    config: LookAtConfig,
    neck: Neck,
    state: LookAtState,
    joints: JointReading | None,
    time: float,
    jumped: bool,
) -> str:
    """Why the neck must not move; empty when it may."""
    if jumped:
        return CLOCK_JUMP
    if neck.limits.unknown(neck.joint_names):
        return NO_LIMITS
    if joints is None or not np.isfinite(joints.positions).all():
        return NO_JOINTS
    if not -config.max_gap_s <= time - joints.stamp <= config.joint_timeout_s:
        return NO_JOINTS
    if state.positions is not None:
        error = float(np.abs(joints.positions - state.positions).max())
        if error > config.max_following_error:
            return NOT_OBEYING
    return ""


def _take_up(
    config: LookAtConfig, state: LookAtState, joints: JointReading | None, fault: str
) -> LookAtState:
    """Starts from where the neck is; and again, at rest, where it may have gone its own way.

    While no joint states come, the neck may be turned by other means: to go on with the old
    command would be a leap. So would be a reading from before the neck had come to rest: it brakes
    first, and waits for one from after that.
    """
    if fault == NO_JOINTS and state.positions is not None:
        state = replace(state, blind=True)
    first = state.positions is None and not fault
    rests = joints is not None and joints.stamp >= state.rest_since + config.actuation_delay_s
    astray = rests and (fault == NOT_OBEYING or (state.blind and not fault))
    if joints is None or not (first or astray):
        return state
    at = np.asarray(joints.positions, np.float64)
    return replace(state, positions=at, velocities=np.zeros(len(at)), moving=False, blind=False)


def _brake(neck: Neck, state: LookAtState, elapsed: float) -> LookAtState:
    if state.positions is None:
        return replace(state, moving=False)
    still = np.zeros(len(state.positions))
    positions, velocities = move(neck, state.positions, state.velocities, still, elapsed)
    return replace(state, positions=positions, velocities=velocities, moving=False)


def _follow(
    config: LookAtConfig,
    neck: Neck,
    state: LookAtState,
    target: Head,
    time: float,
    elapsed: float,
    base_from_fixed: Rigid,
) -> tuple[LookAtState, Array]:
    assert state.positions is not None
    then = time + config.actuation_delay_s
    point = target.predicted(then, config.max_prediction_s)
    wanted = neck.aim(base_from_fixed.apply(point))
    later = point + target.velocity * config.period_s
    drift = (neck.aim(base_from_fixed.apply(later)) - wanted) / config.period_s
    error = wanted - state.positions
    far = float(np.abs(error).max())
    if state.moving:  # a head that moves is never reached: the neck does not rest behind it
        moving = far > 0.3 * config.dead_band or bool(np.abs(drift).max() > _STILL)
    else:
        moving = far > config.dead_band
    still = np.zeros(len(error))
    velocities = approach(neck, error, drift, config.gain, elapsed) if moving else still
    positions, velocities = move(neck, state.positions, state.velocities, velocities, elapsed)
    return replace(state, positions=positions, velocities=velocities, moving=moving), point
