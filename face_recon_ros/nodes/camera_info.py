"""Which camera took the images on the topic."""

from __future__ import annotations

import time

import numpy as np
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.runtime import (
    CAMERA_INFO_TOPIC,
    IMAGE_TOPIC,
    NEWEST_QOS,
    SENSOR_QOS,
    SILENCE_S,
    FaceNode,
)

_LOOK_AGAIN_S = 2.0


class CameraInfoSubscriber:
    """The camera of the images on the topic: from CameraInfo, else guessed from their size.

    It tells in /diagnostics: `camera_info` (missing, uncalibrated, calibrated, late), its age, and
    `camera_info_changes`.

    Attributes:
        calibrated: from CameraInfo; None while there is none, or one without calibration.
    """

    def __init__(self, node: FaceNode, fov_deg: float) -> None:
        """Subscribes."""
        self._node, self._fov_deg = node, fov_deg
        self.calibrated: PinholeCamera | None = None
        self._guess: PinholeCamera | None = None
        self._images: Subscription | None = None
        self._looked_s = self._received_s = -np.inf
        self._last: tuple[object, ...] = ()
        node.watch(self._tell)
        node.create_subscription(CameraInfo, CAMERA_INFO_TOPIC, self._receive_info, SENSOR_QOS)

    def get(self) -> PinholeCamera | None:
        """The camera, for nodes that get no images; None while nothing is known of it.

        Without calibration it is guessed from an image. They cost much to receive, so one is
        looked at every two seconds, in case their size changes.
        """
        if self.calibrated is not None:
            return self.calibrated
        now = time.monotonic()
        if self._images is None and now - self._looked_s >= _LOOK_AGAIN_S:
            self._looked_s = now
            self._images = self._node.create_subscription(
                ImageMsg, IMAGE_TOPIC, self._receive_image, NEWEST_QOS
            )
        return self._guess

    def _tell(self) -> str:
        meter, age_s = self._node.meter, time.monotonic() - self._received_s
        late = age_s - meter.input_age_s() > SILENCE_S  # images come, and it does not
        state = "calibrated" if self.calibrated else "uncalibrated"
        state = "missing" if age_s == np.inf else "late" if late else state
        meter.fact("camera_info", state)
        if age_s < np.inf:
            meter.fact("camera_info_age_s", f"{age_s:.2f}")
        return f"no CameraInfo for {age_s:.0f} s, the last one counts" if state == "late" else ""

    def _receive_info(self, msg: CameraInfo) -> None:
        self._received_s = time.monotonic()
        told = (msg.width, msg.height, msg.distortion_model, bytes(msg.k), bytes(msg.d))
        told += (str(msg.roi), msg.binning_x, msg.binning_y)
        if told == self._last:
            return
        self._node.meter.count("camera_info_changes", bool(self._last))
        self._last = told
        if msg.k[0] == 0.0:  # sensor_msgs/CameraInfo: that says "uncalibrated"
            self.calibrated = None
            return
        try:
            self.calibrated = conversions.camera_from_msg(msg)
        except CameraError as fault:
            self._node.complain(fault)

    def _receive_image(self, msg: ImageMsg) -> None:
        if not (msg.width and msg.height) or self._images is None:
            return
        self._guess = PinholeCamera.from_fov(msg.width, msg.height, self._fov_deg)
        self._node.destroy_subscription(self._images)
        self._images = None
