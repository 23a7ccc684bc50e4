"""What a node tells in /diagnostics, without a node."""

from types import SimpleNamespace

import pytest

from face_recon_ros.nodes.reconstruction import report_presence
from face_recon_ros.nodes.status import Meter


def faces(*presence):
    return [SimpleNamespace(presence=p) for p in presence]


@pytest.mark.parametrize("nobody", [[], faces(None, None)], ids=["no face", "no such output"])
def test_without_presence_none_is_told(nobody):
    meter = Meter()
    report_presence(meter, nobody)
    assert "presence" not in meter.values("processed")


def test_presence_is_that_of_the_faces_since_the_last_message():
    meter = Meter()
    report_presence(meter, faces(0.9, 0.7, None))
    report_presence(meter, faces(0.96))
    assert meter.values("processed")["presence"] == "min 0.70 p50 0.90"
    assert "presence" not in meter.values("processed")
    report_presence(meter, faces(0.55))
    assert meter.values("processed")["presence"] == "min 0.55 p50 0.55"


def test_a_fact_that_is_no_longer_true_is_not_told():
    meter = Meter()
    meter.fact("model", "m.onnx")
    before = meter.facts
    meter.fact("camera_notes", "scaled")
    meter.fact("person", "abcde")
    meter.fact("camera_notes", "")
    told = meter.values("processed")
    assert told["person"] == "abcde" and "camera_notes" not in told
    meter.forget(but=before)
    told = meter.values("processed")
    assert told["model"] == "m.onnx" and "person" not in told


@pytest.mark.parametrize(("namespace", "name"), [("/face", ""), ("/r1/face", "r1/"), ("/r", "r/")])
def test_nodes_of_several_robots_have_statuses_of_their_own(namespace, name, graph):
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from face_recon_ros.nodes.manager import ManagerNode

    rclpy.init(args=["--ros-args", "-r", f"__ns:={namespace}"])
    try:
        node, told = ManagerNode(), []
        node._diagnostics = SimpleNamespace(publish=told.append)
        node.report_health()
        assert told[-1].status[0].name == f"face_recon: {name}lifecycle_manager"
        node.destroy_node()
    finally:
        rclpy.shutdown()
