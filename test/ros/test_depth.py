"""The depth image of a colour image, and what diagnostics say while there is none."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from sensor_msgs.msg import Image as ImageMsg

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.nodes import conversions, depth

CAMERA = PinholeCamera.from_fov(8, 6)


def depth_msg(stamp, metres=1.0, width=8):
    raw = np.full((6, width), metres, np.float32)
    msg = ImageMsg(header=conversions.header_of(stamp, "camera"), height=6, width=width)
    msg.encoding, msg.step, msg.data = "32FC1", 4 * width, conversions.bytes_array(raw)
    return msg


class Subscriber(depth.DepthSubscriber):
    """One that the test gives messages to.

    Attributes:
        give: takes a message as DDS would deliver it.
        report: what it says in /diagnostics.
    """

    def __init__(self, publishers=1):
        self.complaints, self.counted = [], []
        super().__init__(
            SimpleNamespace(
                create_subscription=lambda kind, topic, give, qos: setattr(self, "give", give),
                watch=lambda report: setattr(self, "report", report),
                resolve_topic_name=lambda topic: f"/r1{topic}",
                count_publishers=lambda topic: publishers,
                complain=self.complaints.append,
                meter=SimpleNamespace(count=lambda name, n: self.counted.append((name, n))),
            )
        )


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """On a busy machine, too, what is waited for comes in time."""
    monkeypatch.setattr(depth, "_WAIT_S", 60.0)


@pytest.mark.parametrize("off_s", [-0.01, 0.0, 0.01])
def test_depth_that_comes_after_its_colour_image_is_waited_for(off_s):
    subscriber, found = Subscriber(), []
    subscriber.give(depth_msg(1.0 - 1 / 30, 2.0))
    asking = threading.Thread(target=lambda: found.append(subscriber.at(1.0, CAMERA)))
    asking.start()
    asking.join(0.1)
    assert asking.is_alive()
    subscriber.give(depth_msg(1.0 + off_s, 3.0))
    asking.join()
    np.testing.assert_array_equal(found[0], np.full((6, 8), 3.0))
    assert subscriber.report() == ""


def test_nothing_is_waited_for_while_no_depth_comes_or_a_later_one_is_there():
    subscriber = Subscriber(publishers=0)
    assert subscriber.report() == ""  # nobody asked
    assert subscriber.at(1.0, CAMERA) is None
    said = subscriber.report()
    assert said.startswith("no depth image on /r1/camera/depth/image_raw (0 publishers)")
    assert "remap" in said
    subscriber.give(depth_msg(1.045))
    assert subscriber.at(1.0, CAMERA) is None
    assert "by 45 ms or more, 20 ms are allowed" in subscriber.report()
    assert subscriber.report() == ""


def test_another_resolution_is_complained_of():
    subscriber = Subscriber()
    subscriber.give(depth_msg(1.0, width=4))
    assert subscriber.at(1.0, CAMERA) is None
    assert "registered" in str(subscriber.complaints[0])


def test_depth_that_no_face_believes_is_a_warning():
    subscriber = Subscriber()

    def show(images, *readings):
        for k in range(images):
            subscriber.give(depth_msg(1.0 + k, np.nan))
            assert subscriber.at(1.0 + k, CAMERA) is not None
            subscriber.count([SimpleNamespace(depth_reading=reading) for reading in readings])
        return subscriber.report()

    assert "holes" in show(5, None, None)
    assert show(5, None, object()) == ""  # one of two people is seen
    assert show(1, None) == ""  # one image says little
    assert "registered" in show(3, None)
    assert sum(n for name, n in subscriber.counted if name == "depth_readings") == 5
