"""Depth images registered to the colour image."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image as ImageMsg

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.depth_fusion import check_registered
from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.types import Face
from face_recon_ros.io.depth import SAME_TIME_S, depth_from_msg
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.runtime import SENSOR_QOS, SILENCE_S, FaceNode

TOPIC = "/camera/depth/image_raw"
_KEPT = 10
_TELLING = 3  # images with faces, of whose depth nothing is believed, are worth a warning
_WAIT_S = 0.03  # drivers send the colour image first, aligned depth some milliseconds later


class DepthSubscriber:
    """The depth images of the last moments; /diagnostics warn where none can be used."""

    def __init__(self, node: FaceNode) -> None:
        """Subscribes."""
        self._node = node
        self._images: deque[ImageMsg] = deque(maxlen=_KEPT)
        self._came = threading.Condition()
        self._last_s = -np.inf
        self._lags: list[float] = []  # seconds, since the last report
        self._given = self._believed = 0  # images and faces since then
        node.watch(self._report)
        node.create_subscription(ImageMsg, TOPIC, self._receive, SENSOR_QOS)

    def _receive(self, msg: ImageMsg) -> None:
        with self._came:
            self._images.append(msg)
            self._last_s = time.monotonic()
            self._came.notify_all()

    def at(self, stamp: float, camera: PinholeCamera) -> NDArray[np.float64] | None:
        """The depth image that goes with a colour image; an unusable one is complained of.

        While depth images come, it waits a little for this one.

        Args:
            stamp: of the colour image, seconds.
            camera: that took it.

        Returns:
            (H, W) metres, or None without a usable one of that moment.
        """

        def lag(msg: ImageMsg) -> float:
            return conversions.seconds_from_stamp(msg.header.stamp) - stamp

        with self._came:
            wait_s = 0.0 if self._silent() else _WAIT_S
            self._came.wait_for(lambda: any(lag(m) > -SAME_TIME_S for m in self._images), wait_s)
            nearest = min(self._images, key=lambda msg: abs(lag(msg)), default=None)
        self._lags.append(np.inf if nearest is None else abs(lag(nearest)))
        if nearest is None or self._lags[-1] > SAME_TIME_S:
            return None
        try:
            depth = depth_from_msg(nearest)
            check_registered(depth, camera)
        except ImageError as fault:
            self._node.complain(fault)
            return None
        self._given += 1
        return depth

    def count(self, faces: Sequence[Face]) -> None:
        """Counts the faces of a colour image whose distance its depth image gave."""
        believed = sum(face.depth_reading is not None for face in faces)
        self._believed += believed
        self._node.meter.count("depth_readings", believed)

    def _silent(self) -> bool:
        return time.monotonic() - self._last_s > SILENCE_S

    def _report(self) -> str:
        lags, self._lags = self._lags, []
        given, self._given = self._given, 0
        believed, self._believed = self._believed, 0
        if not lags:  # no image was worked on: there is nothing to say of its depth
            return ""
        if self._silent():
            topic = self._node.resolve_topic_name(TOPIC)
            n = self._node.count_publishers(topic)
            who = f"{n} publisher{'' if n == 1 else 's'}"
            return (
                f"no depth image on {topic} ({who}): distances are those of the colour image; "
                f"remap {TOPIC} to the aligned depth of your driver"
            )
        if min(lags) > SAME_TIME_S:
            return (
                f"depth images differ from colour images by {1e3 * min(lags):.0f} ms or more, "
                f"{1e3 * SAME_TIME_S:.0f} ms are allowed: let the driver synchronise them"
            )
        if given >= _TELLING and not believed:
            return (
                "depth images say nothing of the faces' distances: they have holes there, or are "
                "not registered to the colour image; use the aligned depth of your driver"
            )
        return ""
