"""Depth images: their messages, and which of a bag belongs to an image."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ImageError
from face_recon_ros.io.bags import Bag
from face_recon_ros.io.messages import seconds_from_stamp

#: Depth and colour images of one exposure differ by less than this, seconds.
SAME_TIME_S = 0.02
IMAGE = "sensor_msgs/msg/Image"


def depth_from_msg(msg: Any) -> NDArray[np.float64]:
    """A depth image (REP-118) as (H, W) metres; 0 and NaN are holes.

    Raises:
        ImageError: neither 16UC1 (millimetres) nor 32FC1 (metres), or cut off.
    """
    kinds = {"16UC1": (np.uint16, 1e-3), "mono16": (np.uint16, 1e-3), "32FC1": (np.float32, 1.0)}
    if msg.encoding not in kinds:
        raise ImageError(
            "a depth image in 16UC1 or 32FC1", repr(msg.encoding), "use the camera's depth topic"
        )
    kind, metres = kinds[msg.encoding]
    width_bytes = msg.width * np.dtype(kind).itemsize
    if msg.step < width_bytes or len(msg.data) < msg.step * msg.height or not msg.height:
        raise ImageError(
            f"{msg.height} rows of {width_bytes} bytes",
            f"{len(msg.data)} bytes in steps of {msg.step}",
            "check the depth camera's driver",
        )
    rows = np.frombuffer(msg.data, np.uint8)[: msg.step * msg.height].reshape(msg.height, msg.step)
    order = ">" if msg.is_bigendian else "<"
    values = np.ascontiguousarray(rows[:, :width_bytes]).view(np.dtype(kind).newbyteorder(order))
    return np.asarray(values, np.float64) * metres


class BagDepth:
    """The depth images of a bag's topic, registered to the colour image.

    Attributes:
        problems: what was wrong with some of them.
    """

    def __init__(self, bag: Bag, topic: str) -> None:
        """Looks for the topic.

        Raises:
            DataError: the bag has no such topic of images.
        """
        bag.require(topic, IMAGE)
        self.problems: list[str] = []
        self._messages: Iterator[Any] = (msg for _, msg in bag.messages(topic))
        self._near: deque[tuple[float, Any]] = deque()
        self._done = False

    def at(self, stamp: float) -> NDArray[np.float64] | None:
        """The depth image of a moment, (H, W) metres; None without one.

        Args:
            stamp: seconds; must not decrease from call to call.
        """
        while not self._done and not (self._near and self._near[-1][0] > stamp + SAME_TIME_S):
            msg = next(self._messages, None)
            if msg is None:
                self._done = True
            else:
                self._near.append((seconds_from_stamp(msg.header.stamp), msg))
        while self._near and self._near[0][0] < stamp - SAME_TIME_S:
            self._near.popleft()
        if not self._near:
            return None
        when, msg = min(self._near, key=lambda entry: abs(entry[0] - stamp))
        if abs(when - stamp) > SAME_TIME_S:
            return None
        try:
            return depth_from_msg(msg)
        except ImageError as fault:
            if str(fault) not in self.problems:
                self.problems.append(str(fault))
            return None
