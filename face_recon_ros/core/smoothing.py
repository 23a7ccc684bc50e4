"""The One Euro filter on vectors and on rotations, by stamp.

Casiez, Roussel and Vogel 2012, "1 euro filter". Stamps come from the images, so a replay smooths
as the live run did.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.rigid import Rigid, rotation_from_vector, vector_from_rotation


@dataclass(frozen=True)
class OneEuroConfig:
    """How much to smooth.

    Attributes:
        min_cutoff_hz: This is the cutoff frequency at rest; a lower one is steadier and
            later. 0 switches the filter off.
        beta: The cutoff grows with speed by this, in Hz per unit/s; a higher value follows
            faster.
        derivative_cutoff_hz: This is the cutoff frequency of the speed estimate.
        max_gap_s: The filter restarts after a longer gap in seconds, or if stamps go
            backwards.
    """

    min_cutoff_hz: float = ranged(0.0, 0.0, 100.0)
    beta: float = ranged(1.0, 0.0, 1000.0)
    derivative_cutoff_hz: float = ranged(1.0, 0.0, 100.0)
    max_gap_s: float = ranged(1.0, 0.0, 60.0)

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def enabled(self) -> bool:
        """Whether anything is smoothed at all."""
        return self.min_cutoff_hz > 0


class OneEuroVector:
    """One Euro filter of a vector; the cutoff is each element's own."""

    def __init__(self, config: OneEuroConfig) -> None:
        """Starts without a past."""
        self._config = config
        self._stamp = 0.0
        self._value: NDArray[np.float64] | None = None
        self._speed = np.zeros(0)

    def __call__(self, value: ArrayLike, stamp: float) -> NDArray[np.float64]:
        """The smoothed value.

        Args:
            value: (...,) any unit.
            stamp: seconds.
        """
        x = np.asarray(value, np.float64)
        dt = stamp - self._stamp
        starts = self._value is None or not 0.0 <= dt <= self._config.max_gap_s
        if not self._config.enabled or starts or self._value is None:
            self._value, self._speed = x, np.zeros_like(x)
        elif dt > 0.0:
            speed = (x - self._value) / dt
            self._speed += _gain(self._config.derivative_cutoff_hz, dt) * (speed - self._speed)
            cutoff = self._config.min_cutoff_hz + self._config.beta * np.abs(self._speed)
            self._value = self._value + _gain(cutoff, dt) * (x - self._value)
        self._stamp = stamp
        return self._value


class OneEuroRotation:
    """One Euro filter on SO(3): steps along the geodesic; the cutoff grows with angular speed."""

    def __init__(self, config: OneEuroConfig) -> None:
        """Starts without a past."""
        self._config = config
        self._stamp = 0.0
        self._value: NDArray[np.float64] | None = None
        self._speed = np.zeros(3)

    def __call__(self, rotation: ArrayLike, stamp: float) -> NDArray[np.float64]:
        """The smoothed rotation.

        Args:
            rotation: (3, 3).
            stamp: seconds.
        """
        r = np.asarray(rotation, np.float64)
        dt = stamp - self._stamp
        starts = self._value is None or not 0.0 <= dt <= self._config.max_gap_s
        if not self._config.enabled or starts or self._value is None:
            self._value, self._speed = r, np.zeros(3)
        elif dt > 0.0:
            step = vector_from_rotation(r @ self._value.T)
            self._speed += _gain(self._config.derivative_cutoff_hz, dt) * (step / dt - self._speed)
            speed = float(np.linalg.norm(self._speed))
            cutoff = self._config.min_cutoff_hz + self._config.beta * speed
            self._value = rotation_from_vector(_gain(cutoff, dt) * step) @ self._value
        self._stamp = stamp
        return self._value


class OneEuroRigid:
    """One Euro filter of a rigid motion: rotation and translation each on its own."""

    def __init__(self, rotation: OneEuroConfig, translation: OneEuroConfig) -> None:
        """Starts without a past."""
        self._rotation = OneEuroRotation(rotation)
        self._translation = OneEuroVector(translation)

    def __call__(self, b_from_a: Rigid, stamp: float) -> Rigid:
        """The smoothed motion at a stamp in seconds."""
        return Rigid(
            self._rotation(b_from_a.rotation, stamp),
            self._translation(b_from_a.translation, stamp),
        )


def _gain(cutoff_hz: ArrayLike, dt: float) -> NDArray[np.float64]:
    """Share of the new value in a first-order low pass."""
    r = 2 * np.pi * np.asarray(cutoff_hz, np.float64) * dt
    return np.asarray(r / (r + 1.0))
