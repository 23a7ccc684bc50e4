"""Depth images registered to the colour image."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image as ImageMsg

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.depth_fusion import check_registered
from face_recon_ros.core.errors import ImageError
from face_recon_ros.io.depth import SAME_TIME_S, depth_from_msg
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.runtime import SENSOR_QOS, FaceNode

TOPIC = "/camera/depth/image_raw"
_KEPT = 10


class DepthSubscriber:
    """The depth images of the last moments."""

    def __init__(self, node: FaceNode) -> None:
        """Subscribes."""
        self._node = node
        self._images: deque[ImageMsg] = deque(maxlen=_KEPT)
        node.create_subscription(ImageMsg, TOPIC, self._receive, SENSOR_QOS)

    def _receive(self, msg: ImageMsg) -> None:
        self._images.append(msg)

    def at(self, stamp: float, camera: PinholeCamera) -> NDArray[np.float64] | None:
        """The depth image that goes with a colour image; an unusable one is complained of.

        Args:
            stamp: of the colour image, seconds.
            camera: that took it.

        Returns:
            (H, W) metres, or None without a usable one of that moment.
        """

        def lag(msg: ImageMsg) -> float:
            return abs(conversions.seconds_from_stamp(msg.header.stamp) - stamp)

        nearest = min(list(self._images), key=lag, default=None)
        if nearest is None or lag(nearest) > SAME_TIME_S:
            return None
        try:
            depth = depth_from_msg(nearest)
            check_registered(depth, camera)
        except ImageError as fault:
            self._node.complain(fault)
            return None
        return depth
