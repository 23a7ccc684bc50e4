"""A person's identity does not change from frame to frame: identity and albedo averaged per track.

Deng et al. 2019, section 4: the mean of the coefficients, weighted by the network's confidence in
each picture. Nothing decays with time; what lies far from the mean so far counts less (Geman and
McClure 1987), so that a frame behind a hand or a wrong match does little harm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.ranges import check_ranges, ranged


@dataclass(frozen=True)
class AggregationConfig:
    """How a person's pictures are put together.

    Attributes:
        enabled: Frames are averaged; if false, each frame stands for itself.
        outlier_scale: A frame at this RMS distance from the mean, in standard deviations
            of the face model, counts a quarter.
        min_change: The mean that is handed out changes only if it is off by more than this
            (RMS, standard deviations), so that decoded shapes can be kept.
    """

    enabled: bool = True
    outlier_scale: float = ranged(0.7, 0.01, 1e6)
    min_change: float = ranged(0.01, 0.0, 10.0)

    def __post_init__(self) -> None:
        check_ranges(self)


class Aggregate:
    """Robust weighted mean of one track's coefficient vectors."""

    def __init__(self, config: AggregationConfig) -> None:
        """Starts with nothing seen."""
        self._config = config
        self._weight = 0.0
        self._mean: NDArray[np.float32] | None = None
        self._handed_out: NDArray[np.float32] | None = None

    def __call__(self, vector: ArrayLike, confidence: float = 1.0) -> NDArray[np.float32]:
        """Adds one frame.

        Args:
            vector: (K,) coefficients, standard normal.
            confidence: of the network in this frame, in (0, 1].

        Returns:
            (K,) the mean so far: the very same array as before while it has not moved noticeably.
        """
        x = np.asarray(vector, np.float32)
        if self._mean is None or self._handed_out is None or not self._config.enabled:
            self._mean, self._weight, self._handed_out = x, confidence, x
            return x
        weight = confidence
        # A mean of few frames is no judge of outliers: its own error widens the scale.
        spread = self._config.outlier_scale * (1.0 + 1.0 / max(self._weight, 1e-6))
        weight /= (1.0 + (_rms(x - self._mean) / spread) ** 2) ** 2
        self._weight += weight
        self._mean = self._mean + np.float32(weight / self._weight) * (x - self._mean)
        if _rms(self._mean - self._handed_out) > self._config.min_change:
            self._handed_out = self._mean
        return self._handed_out


def _rms(vector: NDArray[np.float32]) -> float:
    return math.sqrt(float(vector @ vector) / vector.size) if vector.size else 0.0
