"""Whether the stamps of images are of a node's clock: else latencies and TF mean nothing."""

from __future__ import annotations

import time

from rclpy.clock import Clock, ROSClock

#: A stamp further ahead of the clock, or behind it, is of another clock.
AHEAD_S, BEHIND_S = 0.5, 10.0
_FRESH_S = 10.0  # of the last image, until nothing is said of its stamp any more
_DAY_S = 86400.0


class Stamps:
    """Compares the stamps of images with a clock as they arrive."""

    def __init__(self, clock: Clock) -> None:
        """Knows no image yet.

        Args:
            clock: of the node.
        """
        self._clock = clock
        self._arrived_s = -float("inf")
        self._stamp = self._lag_s = 0.0

    def arrived(self, stamp: float) -> None:
        """Notes the stamp of an image that has just come in, seconds."""
        self._arrived_s = time.monotonic()
        self._stamp, self._lag_s = stamp, self._now() - stamp

    def latency(self, stamp: float) -> dict[str, float]:
        """`latency`: seconds from a stamp to now; nothing where stamps are of another clock."""
        return {"latency": self._now() - stamp} if self._fit else {}

    @property
    def warning(self) -> str:
        """What is wrong with the clock or with the last stamp; empty when all is well."""
        simulated = isinstance(self._clock, ROSClock) and self._clock.ros_time_is_active
        if simulated and self._now() == 0.0:
            return "use_sim_time is true, but /clock says nothing: let the simulator publish it"
        if self._fit or time.monotonic() - self._arrived_s > _FRESH_S:
            return ""
        if self._stamp == 0.0:
            return "images are stamped 0: let their driver set header.stamp"
        off_s, side = abs(self._lag_s), "before" if self._lag_s > 0 else "after"
        off = f"{off_s:.1f} s" if off_s < _DAY_S else f"{off_s / _DAY_S:.1f} days"
        return (
            f"images are stamped {off} {side} this node's clock: recordings need "
            "`ros2 bag play --clock` and use_sim_time, computers need synchronised clocks"
        )

    @property
    def _fit(self) -> bool:
        return -AHEAD_S <= self._lag_s <= BEHIND_S

    def _now(self) -> float:
        return float(self._clock.now().nanoseconds) * 1e-9
