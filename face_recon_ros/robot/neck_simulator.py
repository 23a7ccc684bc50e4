"""A simulated neck: transport delay, servo lag, limits, encoder noise."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.robot.motion import JointReading, approach, move
from face_recon_ros.robot.neck import Neck

Array = NDArray[np.float64]

_STEP_S = 0.002
_LONG_S = 10.0  # a longer time between two steps is a jump of the clock
_GAIN = 10.0  # of the neck's own planner, 1/s


@dataclass(frozen=True)
class NeckSimulatorConfig:
    """How good a neck it is.

    Attributes:
        delay_s: A command takes effect this time in seconds after it arrives.
        bandwidth: The critically damped servo has this bandwidth, in radians/s; it lags a
            ramp by 2 / bandwidth s.
        encoder_noise: Read positions have this standard deviation, in radians.
        seed: This is the seed of the noise.
    """

    delay_s: float = ranged(0.02, 0.0, 5.0)
    bandwidth: float = ranged(60.0, 0.1, 1000.0)
    encoder_noise: float = ranged(0.0005, 0.0, 1.0)
    seed: int = ranged(0, 0, 2**31)

    def __post_init__(self) -> None:
        check_ranges(self)


class NeckSimulator:
    """Joints behind a delay. Time is an argument.

    It takes joint positions at every moment, as servos do, or a goal, to which it plans a
    trajectory within its limits, as a robot's head controller does.
    """

    def __init__(self, neck: Neck, config: NeckSimulatorConfig | None = None) -> None:
        """Starts at rest."""
        self._neck = neck
        self._config = config or NeckSimulatorConfig()
        self._random = np.random.default_rng(self._config.seed)
        self._time: float | None = None
        self._pending: deque[tuple[float, Array | None, bool]] = deque()
        self._goal, self._goal_velocities = neck.rest, np.zeros(len(neck.joint_names))
        self._destination: Array | None = None  # of its own plan
        self._planning = False
        self._velocities = np.zeros(len(neck.joint_names))
        self.positions = neck.rest
        self.limits_hit = 0

    def command(self, positions: ArrayLike, time: float) -> None:
        """Takes joint positions (J,) in radians at a time in seconds."""
        self._order(np.asarray(positions, np.float64), time, planned=False)

    def go_to(self, positions: ArrayLike, time: float) -> None:
        """Plans a way to joint positions (J,) in radians, from a time in seconds on."""
        self._order(np.asarray(positions, np.float64), time, planned=True)

    def stop(self, time: float) -> None:
        """Brakes, from a time in seconds on."""
        self._pending.append((time + self._config.delay_s, None, True))

    def advance(self, time: float) -> Array:
        """Lets time pass up to `time` in seconds; the true joint positions (J,) then, radians."""
        if self._time is None or not 0.0 <= time - self._time <= _LONG_S:
            self._time = time
            self._pending.clear()
        steps = round((time - self._time) / _STEP_S)
        for _ in range(steps):
            self._time += _STEP_S
            while self._pending and self._pending[0][0] <= self._time:
                self._obey(*self._pending.popleft()[1:])
            if self._planning:
                self._plan()
            self._servo()
        return self.positions

    def read(self, time: float) -> JointReading:
        """What the encoders say at a time in seconds."""
        noise = self._random.normal(0.0, self._config.encoder_noise, len(self.positions))
        return JointReading(time, self.advance(time) + noise)

    def _order(self, goal: Array, time: float, planned: bool) -> None:
        if goal.shape == self._goal.shape and np.isfinite(goal).all():
            self._pending.append((time + self._config.delay_s, goal, planned))

    def _obey(self, goal: Array | None, planned: bool) -> None:
        self._destination = goal
        if not planned and goal is not None:
            self._goal, self._goal_velocities = goal, np.zeros(len(goal))
        self._planning = planned

    def _plan(self) -> None:
        still = np.zeros(len(self._goal))
        wanted = still
        if self._destination is not None:
            wanted = approach(self._neck, self._destination - self._goal, still, _GAIN, _STEP_S)
        self._goal, self._goal_velocities = move(
            self._neck, self._goal, self._goal_velocities, wanted, _STEP_S
        )

    def _servo(self) -> None:
        limits, w = self._neck.limits, self._config.bandwidth
        strength = np.nan_to_num(limits.acceleration, nan=np.inf) * 4.0
        top = np.nan_to_num(limits.velocity, nan=np.inf) * 1.5
        pull = w**2 * (self._goal - self.positions) - 2.0 * w * self._velocities
        pull = np.clip(pull, -strength, strength)
        self._velocities = np.clip(self._velocities + pull * _STEP_S, -top, top)
        wanted = self.positions + self._velocities * _STEP_S
        lower = np.nan_to_num(limits.lower, nan=-np.inf, neginf=-np.inf)
        upper = np.nan_to_num(limits.upper, nan=np.inf, posinf=np.inf)
        self.positions = np.clip(wanted, lower, upper)
        stopped = np.abs(wanted - self.positions) > 1e-3 * np.pi / 180
        self._velocities[stopped] = 0.0
        self.limits_hit += int(stopped.any())
