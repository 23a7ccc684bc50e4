"""Publishers and subscribers between which no message passes, or that are too many."""

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from face_recon_ros.nodes.connections import misfits, too_many
from face_recon_ros.nodes.runtime import LATCHED_QOS, SENSOR_QOS

RELIABLE = QoSProfile(depth=5)


@pytest.fixture
def other(listener):
    made = rclpy.create_node("other", namespace="robot", context=listener.context)
    listener.executor.add_node(made)
    yield made
    made.destroy_node()


def test_a_reader_that_asks_for_more_than_we_send_is_named_while_it_is_there(listener, other):
    ours = listener.node
    ours.create_publisher(Image, "clouds", SENSOR_QOS)
    other.create_subscription(Image, "/clouds", print, SENSOR_QOS)
    wrong = other.create_subscription(Image, "/clouds", print, RELIABLE)
    says = lambda: "/robot/other gets nothing of /clouds: Best effort" in misfits(ours)  # noqa: E731
    assert listener.spin_until(says)
    other.destroy_subscription(wrong)
    assert listener.spin_until(lambda: misfits(ours) == "")


def test_a_publisher_that_sends_less_than_we_ask_for_is_named(listener, other):
    ours = listener.node
    ours.create_subscription(Image, "model", print, LATCHED_QOS)
    other.create_publisher(Image, "/model", RELIABLE)
    says = lambda: "nothing comes from /robot/other on /model" in misfits(ours)  # noqa: E731
    assert listener.spin_until(says)


def test_two_cameras_on_one_topic_are_named(listener, other):
    listener.node.create_publisher(Image, "/camera/image_raw", SENSOR_QOS)
    count = listener.node.count_publishers
    assert listener.spin_until(lambda: count("/camera/image_raw") == 1)
    assert too_many(listener.node, "/camera/image_raw") == ""
    other.create_publisher(Image, "/camera/image_raw", SENSOR_QOS)
    assert listener.spin_until(lambda: count("/camera/image_raw") == 2)
    said = too_many(listener.node, "/camera/image_raw")
    assert said.startswith("2 publishers") and "/listener" in said and "/robot/other" in said
