"""Settings of gaze control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.ranges import check_ranges, ranged

Array = NDArray[np.float64]

POLICIES = ("nearest", "most_central", "looking_at_me", "id")


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
    switch_margin: float = ranged(0.2, 0.0, 1.0)
    dwell_s: float = ranged(1.0, 0.0, 3600.0)
    stale_s: float = ranged(0.6, 0.01, 60.0)
    actuation_delay_s: float = ranged(0.07, 0.0, 2.0)
    max_prediction_s: float = ranged(0.4, 0.0, 5.0)
    head_acceleration: float = ranged(1.0, 0.01, 100.0)
    bearing_noise: float = ranged(0.006, 0.0001, 1.0)
    gain: float = ranged(8.0, 0.01, 100.0)
    dead_band: float = ranged(0.015, 0.0, 1.0)
    period_s: float = ranged(1 / 30, 0.002, 1.0)
    max_gap_s: float = ranged(0.5, 0.01, 60.0)
    joint_timeout_s: float = ranged(0.5, 0.01, 60.0)
    max_following_error: float = ranged(0.7, 0.01, 6.2832)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(
                f"a policy of {', '.join(POLICIES)}", repr(self.policy), "choose one"
            )
        if self.policy == "id" and not self.target_id:
            raise ConfigError("a target_id under the policy id", "none", "set target_id")
        check_ranges(self)
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
