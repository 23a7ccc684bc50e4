"""Puts together what several topics say of one image, by equal stamps."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

KEPT = 16


class StampMatcher:
    """Collects one message per topic for each stamp; keeps the newest stamps only.

    Stamps are compared exactly: all of ours carry the stamp of their image.
    """

    def __init__(self, topics: tuple[str, ...]) -> None:
        """Waits for one message of each topic."""
        self.topics = topics
        self._parts: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()

    def add(self, topic: str, msg: Any) -> dict[str, Any] | None:
        """Adds a message with a header.

        Returns:
            All messages of its stamp by topic, as soon as there is one of each, else None.
        """
        stamp = msg.header.stamp
        key = (stamp.sec, stamp.nanosec)
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
