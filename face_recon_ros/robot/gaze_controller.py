"""A robot that looks at people: whom, where they will be, and how the neck gets there.

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

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.robot.neck import Neck

Array = NDArray[np.float64]

POLICIES = ("nearest", "most_central", "looking_at_me", "id")

#: What a neck can be doing.
FOLLOWING = "following"
NO_TARGET = "no target"
LOST_TARGET = "target lost"
NO_LIMITS = "joint limits unknown"
NO_JOINTS = "no recent joint states"
NOT_OBEYING = "the neck does not follow its commands"
CLOCK_JUMP = "the clock jumped"


@dataclass(frozen=True)
class LookAtConfig:
    """How to look at people.

    Attributes:
        policy: The robot looks at the `nearest` or `most_central` person (closest to the
            neck's resting direction), at one who is `looking_at_me`, or at one `id`.
        target_id: The robot looks at this person under the policy `id`.
        switch_margin: Another person must be better by this share to be looked at instead.
        dwell_s: Another person must be better for this time in seconds, and each person is
            looked at for at least as long.
        stale_s: A head that was not seen for this time in seconds is not looked at any
            more.
        actuation_delay_s: This is the time in seconds from command to motion of the neck:
            transport, servo lag, and half a period for the hold between commands.
        max_prediction_s: Motion is predicted for at most this time in seconds.
        head_acceleration: Unforeseen accelerations of heads have this standard deviation,
            in m/s^2.
        bearing_noise: Measured directions have this standard deviation, in radians.
        gain: A remaining error is reduced at this rate, in 1/s.
        dead_band: Smaller errors, in radians, do not set a resting neck in motion.
        period_s: This is the nominal time between steps, in seconds.
        max_gap_s: A longer time between steps in seconds, or a step back, is a jump of the
            clock.
        joint_timeout_s: The neck stops if joint states are older than this time in
            seconds.
        max_following_error: A joint that is farther from its command than this, in
            radians, is a fault.
    """

    policy: str = "nearest"
    target_id: str = ""
    switch_margin: float = 0.2
    dwell_s: float = 1.0
    stale_s: float = 0.6
    actuation_delay_s: float = 0.07
    max_prediction_s: float = 0.4
    head_acceleration: float = 1.0
    bearing_noise: float = 0.006
    gain: float = 8.0
    dead_band: float = 0.015
    period_s: float = 1 / 30
    max_gap_s: float = 0.5
    joint_timeout_s: float = 0.5
    max_following_error: float = 0.7

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(
                f"a policy of {', '.join(POLICIES)}", repr(self.policy), "choose one"
            )
        if self.policy == "id" and not self.target_id:
            raise ConfigError("a target_id under the policy id", "none", "set target_id")
        positive = ("stale_s", "head_acceleration", "bearing_noise", "gain", "period_s")
        for name in (*positive, "max_gap_s", "joint_timeout_s", "max_following_error"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"{name} above zero",
                    f"{getattr(self, name)}",
                    "docs/parameters.md has ranges and defaults",
                )
        for name in ("switch_margin", "dwell_s", "actuation_delay_s", "dead_band"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"{name} of at least 0",
                    f"{getattr(self, name)}",
                    "docs/parameters.md has ranges and defaults",
                )
        if self.max_prediction_s < self.actuation_delay_s:
            raise ConfigError(
                f"max_prediction_s of at least actuation_delay_s ({self.actuation_delay_s})",
                f"{self.max_prediction_s}",
                "0.4 is good",
            )


@dataclass(frozen=True)
class SeenHead:
    """One head in one image.

    Attributes:
        id: whose.
        stamp: seconds, of the image.
        position: (3,) sellion in the fixed frame, metres, placed with the robot's posture at
            `stamp`.
        attention_angle: between gaze and the direction to the robot, radians; NaN when unknown.
    """

    id: str
    stamp: float
    position: Array
    attention_angle: float = np.nan


@dataclass(frozen=True)
class JointReading:
    """Where the neck is: (J,) radians in the order of `Neck.joint_names`, at stamp seconds."""

    stamp: float
    positions: Array


@dataclass(frozen=True)
class Head:
    """What is known of one person's head. Fixed frame, metres, seconds.

    Attributes:
        id: whose.
        stamp: of the last image that showed it.
        position: (3,) then.
        velocity: (3,) then, m/s.
        covariance: (2, 2) of position and velocity, the same on every axis.
        attention_angle: of the last image, radians.
        contradictions: leaky count of sightings that cannot be the same head.
    """

    id: str
    stamp: float
    position: Array
    velocity: Array
    covariance: Array
    attention_angle: float
    contradictions: float = 0.0

    @property
    def contested(self) -> bool:
        """Whether this id seems to be published by two sources at once."""
        return self.contradictions > _CONTESTED

    def predicted(self, time: float, horizon_s: float) -> Array:
        """(3,) position at a time, no further ahead than the horizon."""
        return np.asarray(self.position + self.velocity * min(time - self.stamp, horizon_s))


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
    """What to tell the neck.

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


_CONTESTED = 3.0
_CONTRADICTION_DECAY_S = 1.0
_GATE_SIGMAS = 6.0
_GATE_BEARING = 0.12  # radians: no head jumps that far between two images
_GATE_RANGE = 0.4  # share of the distance
_INITIAL_SPEED = 0.3  # m/s, standard deviation of a new head's
_MIN_RANGE_M = 0.3
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
        The state for the next step, and what to tell the neck.
    """
    base_from_fixed = base_from_fixed or Rigid.identity()
    elapsed = config.period_s if state.time is None else time - state.time
    jumped = not 0.0 <= elapsed <= config.max_gap_s
    if jumped:  # stamps of before and after cannot be compared
        state = replace(state, heads=MappingProxyType({}), target=None, rival=None)
        elapsed = config.period_s
    heads = _see(config, state.heads, seen, time, base_from_fixed)
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


def _stale(config: LookAtConfig, head: Head, time: float) -> bool:
    return not -config.max_gap_s <= time - head.stamp <= config.stale_s


# Where people are.


def _see(
    config: LookAtConfig,
    heads: Mapping[str, Head],
    seen: Sequence[SeenHead],
    time: float,
    base_from_fixed: Rigid,
) -> Mapping[str, Head]:
    """Takes in new sightings; forgets heads that stayed away."""
    known = dict(heads)
    origin = base_from_fixed.inverse().translation
    for sighting in sorted(seen, key=lambda s: s.stamp):
        ray = sighting.position - origin
        if not np.isfinite(ray).all():
            continue
        before = known.get(sighting.id)
        known[sighting.id] = (
            _first_seen(config, sighting, ray)
            if before is None
            else _corrected(config, before, sighting, ray)
        )
    kept = {k: head for k, head in known.items() if not _stale(config, head, time)}
    return MappingProxyType(kept)


def _first_seen(
    config: LookAtConfig, seen: SeenHead, ray: Array, contradictions: float = 0.0
) -> Head:
    noise = config.bearing_noise * _distance(ray)
    return Head(
        seen.id,
        seen.stamp,
        seen.position,
        np.zeros(3),
        np.diag([noise**2, _INITIAL_SPEED**2]),
        seen.attention_angle,
        contradictions,
    )


def _corrected(config: LookAtConfig, head: Head, seen: SeenHead, ray: Array) -> Head:
    """One step of a constant-velocity Kalman filter; a jump starts it anew at rest."""
    distance = _distance(ray)
    dt = seen.stamp - head.stamp
    if dt <= 0.0:
        moved = float(np.linalg.norm(seen.position - head.position)) / distance
        if moved <= _GATE_BEARING:
            return head  # the same news again, or late news
        return replace(head, contradictions=head.contradictions + 1.0)
    transition = np.array([[1.0, dt], [0.0, 1.0]])
    unforeseen = config.head_acceleration**2 * np.array(
        [[dt**4 / 4, dt**3 / 2], [dt**3 / 2, dt**2]]
    )
    covariance = transition @ head.covariance @ transition.T + unforeseen
    spread = covariance[0, 0] + (config.bearing_noise * distance) ** 2
    innovation = seen.position - head.position - head.velocity * dt
    calmed = head.contradictions * float(np.exp(-dt / _CONTRADICTION_DECAY_S))
    along = float(innovation @ ray) / distance  # known far less well than the direction
    across = float(np.linalg.norm(innovation - along * ray / distance))
    gate = max(_GATE_SIGMAS * np.sqrt(spread), _GATE_BEARING * distance)
    if across > gate or abs(along) > _GATE_RANGE * distance:
        return _first_seen(config, seen, ray, calmed + 1.0)
    gain = covariance[:, 0] / spread
    return replace(
        head,
        stamp=seen.stamp,
        position=head.position + head.velocity * dt + gain[0] * innovation,
        velocity=head.velocity + gain[1] * innovation,
        covariance=covariance - np.outer(gain, covariance[0]),
        attention_angle=seen.attention_angle,
        contradictions=calmed,
    )


def _distance(ray: Array) -> float:
    return max(float(np.linalg.norm(ray)), _MIN_RANGE_M)


# Whom to look at.


def _costs(
    config: LookAtConfig, neck: Neck, heads: Iterable[Head], base_from_fixed: Rigid
) -> dict[str, float]:
    """Of everybody who may be looked at; smaller is better."""
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
    if best is None:  # a lost target stays named until somebody takes its place
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

    While joint states stay away anybody may turn the neck: to go on with the old command would be
    a leap. So would be a reading from before the neck had come to rest: it brakes first, and waits
    for one from after that.
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


def approach(neck: Neck, error: Array, drift: Array, gain: float, elapsed: float) -> Array:
    """The velocity that takes out an error: braking parabola far off, exponential close by.

    Args:
        neck: whose acceleration limits.
        error: (J,) where to be minus where it is, radians.
        drift: (J,) how where to be moves, radians/s.
        gain: of the exponential, 1/s.
        elapsed: until the next step, seconds.

    Returns:
        (J,) radians/s; `move` keeps the limits.
    """
    deceleration = 0.7 * neck.limits.acceleration  # the rest is for what the target does meanwhile
    far = np.abs(error)
    half = 0.5 * elapsed
    parabola = deceleration * (np.sqrt(half**2 + 2.0 * far / deceleration) - half)
    return np.asarray(drift + np.sign(error) * np.minimum(gain * far, parabola))


def move(
    neck: Neck, positions: Array, velocities: Array, wanted: Array, elapsed: float
) -> tuple[Array, Array]:
    """Moves on, as near to the wanted velocities as the limits allow.

    Within its velocity and acceleration limits a joint can always still stop before its position
    limits. One that starts outside of them comes back and goes no further than braking takes.

    Args:
        neck: whose limits.
        positions: (J,) radians.
        velocities: (J,) radians/s.
        wanted: (J,) radians/s.
        elapsed: seconds.

    Returns:
        (J,) new positions, (J,) new velocities.
    """
    if elapsed <= 0.0:
        return positions, velocities
    limits = neck.limits
    acceleration = np.nan_to_num(limits.acceleration, nan=np.inf)
    change = acceleration * elapsed
    top = np.nan_to_num(limits.velocity, nan=np.inf)
    upper = np.nan_to_num(limits.upper, nan=np.inf, posinf=np.inf)
    lower = np.nan_to_num(limits.lower, nan=-np.inf, neginf=-np.inf)
    new = np.clip(wanted, -top, top)
    new = np.minimum(new, _fastest_towards(upper - positions, velocities, acceleration, elapsed))
    new = np.maximum(new, -_fastest_towards(positions - lower, -velocities, acceleration, elapsed))
    new = np.clip(new, velocities - change, velocities + change)
    return np.asarray(positions + 0.5 * (velocities + new) * elapsed), np.asarray(new)


def _fastest_towards(room: Array, velocity: Array, acceleration: Array, elapsed: float) -> Array:
    """(J,) largest velocity at the end of a step from which one can still stop within the room.

    Solves (v + v') / 2 dt + v'^2 / 2a = room for v' > 0, and without the braking term below.
    """
    left = room - 0.5 * velocity * elapsed
    half = 0.5 * elapsed * acceleration
    with np.errstate(invalid="ignore"):
        braking = np.sqrt(half**2 + 2.0 * acceleration * np.maximum(left, 0.0)) - half
    braking = np.where(np.isinf(room) | np.isinf(acceleration), np.inf, braking)
    return np.asarray(np.where(left > 0.0, braking, 2.0 * left / elapsed))
