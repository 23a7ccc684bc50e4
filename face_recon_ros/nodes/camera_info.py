"""Which camera took the images on the topic."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.core.types import Image
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.messages import image_from_msg
from face_recon_ros.nodes.connections import too_many
from face_recon_ros.nodes.image_subscriber import choose_topic, image_topic
from face_recon_ros.nodes.parameters import CameraConfig
from face_recon_ros.nodes.runtime import (
    CAMERA_INFO_TOPIC,
    FAULT_LOG_PERIOD_S,
    NEWEST_QOS,
    SENSOR_QOS,
    SILENCE_S,
    FaceNode,
)

_LOOK_AGAIN_S = 2.0
_LOOK_AGAIN_CALIBRATED_S = 10.0


class CameraInfoSubscriber:
    """The camera of the images on the topic: of a file, from CameraInfo, else assumed.

    It reports in /diagnostics: `camera_info` (missing, uncalibrated, calibrated, late), its age,
    `camera_info_changes`, `camera_notes`; what is wrong with CameraInfo is a warning while it
    lasts.
    """

    def __init__(self, node: FaceNode, config: CameraConfig) -> None:
        """Subscribes."""
        self._node, self._config = node, config
        self._resolver = CameraResolver(
            config.calibration,
            config.fov_deg,
            rectified=config.rectified,
            image_topic=image_topic(node),
        )
        self._size: tuple[int, int] | None = None
        self._told_size: tuple[int, int] | None = None
        self._images: Subscription | None = None
        self._looked_s = self._received_s = self._said_s = -np.inf
        self._said = ""
        self._calibrated = False
        node.watch(self._report)
        node.create_subscription(CameraInfo, CAMERA_INFO_TOPIC, self._receive_info, SENSOR_QOS)

    def of(self, image: Image) -> PinholeCamera:
        """The camera of an image.

        Raises:
            CameraError: the calibration file is of another aspect ratio.
        """
        camera = self._resolver(image)
        self._calibrated = camera.calibrated
        return camera

    def get(self) -> PinholeCamera | None:
        """The camera, for nodes that get no images; None while nothing is known of it.

        Images cost much to receive, so one is looked at now and then for their size: every two
        seconds without calibration, every ten with it.
        """
        now, told = time.monotonic(), self._resolver.reading().camera
        pause_s = _LOOK_AGAIN_S if told is None else _LOOK_AGAIN_CALIBRATED_S
        if self._images is None and now - self._looked_s >= pause_s:
            self._looked_s = now
            topic, kind = choose_topic(self._node, self._config.transport)
            self._images = self._node.create_subscription(
                kind, topic, self._receive_image, NEWEST_QOS
            )
        camera = told if self._size is None else self._resolver.camera(*self._size)
        self._calibrated = camera is not None and camera.calibrated
        return camera

    def _report(self) -> str:
        meter, age_s = self._node.meter, time.monotonic() - self._received_s
        late = age_s - meter.input_age_s() > SILENCE_S  # images come, and it does not
        known = self._calibrated or self._resolver.reading().camera is not None
        state = "calibrated" if known else "uncalibrated"
        state = "missing" if age_s == np.inf else "late" if late else state
        meter.fact("camera_info", state)
        if age_s < np.inf:
            meter.fact("camera_info_age_s", f"{age_s:.2f}")
        meter.fact("camera_notes", "; ".join(self._resolver.notes))
        warnings = list(self._resolver.warnings)
        self._say("; ".join(warnings))
        if several := too_many(self._node, self._node.resolve_topic_name(CAMERA_INFO_TOPIC)):
            warnings.append(several)
        if state == "late":
            warnings.append(f"no CameraInfo for {age_s:.0f} s, the last one counts")
        return "; ".join(warnings)

    def _say(self, warnings: str) -> None:
        """Has the console say what is wrong with CameraInfo, once, when it begins."""
        now = time.monotonic()
        if warnings != self._said and now - self._said_s > FAULT_LOG_PERIOD_S:
            self._said, self._said_s = warnings, now
            if warnings:
                self._node.get_logger().warning(warnings)

    def _receive_info(self, msg: CameraInfo) -> None:
        first = self._received_s == -np.inf
        self._received_s = time.monotonic()
        if not self._resolver.update(msg):
            return
        self._node.meter.count("camera_info_changes", not first)
        told_size = int(msg.width), int(msg.height)
        if told_size != self._told_size:  # so did the images, perhaps
            self._told_size, self._size, self._looked_s = told_size, None, -np.inf

    def _receive_image(self, msg: Any) -> None:
        if self._images is None:
            return
        try:
            height, width = image_from_msg(msg).rgb.shape[:2]
        except FaceReconError:
            return
        self._size = width, height
        self._node.destroy_subscription(self._images)
        self._images = None
