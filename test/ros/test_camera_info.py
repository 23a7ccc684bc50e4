"""What a node makes of CameraInfo, without DDS."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from sensor_msgs.msg import CameraInfo

from face_recon_ros.core.types import Image
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.camera_info import CameraInfoSubscriber
from face_recon_ros.nodes.parameters import CameraConfig
from face_recon_ros.nodes.status import Meter


class Node:
    """Takes subscriptions and words; `send` is its middleware."""

    def __init__(self):
        self.meter, self.said, self._receivers = Meter(), [], []
        self.resolve_topic_name = lambda topic: topic
        self.watch = self.get_topic_names_and_types = lambda *_: []
        self.count_publishers = lambda topic: 1
        self.destroy_subscription = self._receivers.remove
        self.get_logger = lambda: SimpleNamespace(warning=self.said.append)

    def create_subscription(self, kind, topic, receive, qos):
        self._receivers.append((kind, receive))
        return self._receivers[-1]

    def send(self, msg):
        for kind, receive in list(self._receivers):
            if isinstance(msg, kind):
                receive(msg)


def info(width, height, focal_px):
    msg = CameraInfo(width=width, height=height)
    msg.k = [focal_px, 0.0, width / 2, 0.0, focal_px, height / 2, 0.0, 0.0, 1.0]
    return msg


def black(width, height):
    return np.zeros((height, width, 3), np.uint8)


def test_a_camera_that_changes_its_resolution_is_followed_at_once():
    """A node that gets no images looks at one in ten seconds for their size."""
    node = Node()
    camera = CameraInfoSubscriber(node, CameraConfig())
    for width, height, focal_px in ((640, 480, 600.0), (320, 240, 300.0)):
        node.send(info(width, height, focal_px))
        for _ in range(2):  # before an image was looked at, and after
            told = camera.get()
            assert (told.width, told.height, told.matrix[0, 0]) == (width, height, focal_px)
            header = conversions.header_of(1.0, "cam")
            node.send(conversions.image_to_msg(black(width, height), header))


def test_what_is_wrong_with_camera_info_is_said_once_whatever_the_image():
    node = Node()
    camera = CameraInfoSubscriber(node, CameraConfig())
    node.send(info(480, 640, 600.0))
    for _ in range(3):
        camera.of(Image(black(640, 480), 1.0))
        assert "480 x 640" in camera._report()
    assert len(node.said) == 1 and "480 x 640" in node.said[0]
