"""Motion of joints within their limits of position, speed and acceleration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.robot.neck import Neck

Array = NDArray[np.float64]


@dataclass(frozen=True)
class JointReading:
    """Where the neck is: (J,) radians in the order of `Neck.joint_names`, at stamp seconds."""

    stamp: float
    positions: Array


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
