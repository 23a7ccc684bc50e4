"""Joins messages of several topics about one image, by equal stamps."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from face_recon_ros.io.messages import seconds_from_stamp

KEPT = 16
_MAX_BACK_S = 1.0  # stamps further back than this belong to another run: the clock jumped


class ExactTimeSynchronizer:
    """Collects one message per topic for each stamp; keeps the newest stamps only.

    Stamps are compared exactly: all of ours carry the stamp of their image.
    """

    def __init__(self, topics: tuple[str, ...]) -> None:
        """Waits for one message of each topic."""
        self.topics = topics
        self._parts: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()
        self._newest_s = -float("inf")

    def add(self, topic: str, msg: Any) -> dict[str, Any] | None:
        """Adds a message with a header.

        Returns:
            All messages of its stamp by topic, as soon as there is one of each, else None.
        """
        stamp = msg.header.stamp
        key = (stamp.sec, stamp.nanosec)
        seconds = seconds_from_stamp(stamp)
        if seconds < self._newest_s - _MAX_BACK_S:
            self._parts.clear()
            self._newest_s = seconds
        self._newest_s = max(self._newest_s, seconds)
        parts = self._parts.setdefault(key, {})
        parts[topic] = msg
        if all(name in parts for name in self.topics):
            # What came before belongs to images that are past.
            while next(iter(self._parts)) != key:
                self._parts.popitem(last=False)
            return self._parts.pop(key)
        while len(self._parts) > KEPT:
            self._parts.popitem(last=False)
        return None
