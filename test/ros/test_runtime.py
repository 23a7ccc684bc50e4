"""Threads of a node's activations, and what they leave to be told."""

import threading
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.lifecycle import TransitionCallbackReturn

from face_recon_ros.nodes.camera import CameraNode
from face_recon_ros.nodes.runtime import FaceNode

PATIENCE_S = 60.0


class SlowNode(FaceNode):
    """Its worker is at an image until the test lets it go on."""

    def __init__(self):
        super().__init__("slow", ())
        self.began, self.go_on = threading.Semaphore(0), threading.Event()
        self.at_work, self.most = 0, 0

    def begin(self):
        self.live.slot = self.start_worker("slow", self._work)
        self.live.slot.put("image")

    def _work(self, item):
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        self.began.release()
        self.go_on.wait(PATIENCE_S)
        self.at_work -= 1


def test_no_two_threads_have_the_models_when_a_node_is_activated_again_at_once(graph):
    rclpy.init()
    try:
        node, done = SlowNode(), TransitionCallbackReturn.SUCCESS
        assert node.trigger_configure() == done and node.trigger_activate() == done
        assert node.began.acquire(timeout=PATIENCE_S)
        assert node.trigger_deactivate() == done  # it does not wait for a slow image
        assert node.at_work == 1
        threading.Timer(0.3, node.go_on.set).start()
        assert node.trigger_activate() == done
        assert node.began.acquire(timeout=PATIENCE_S)
        assert node.most == 1
        node.close()
    finally:
        rclpy.shutdown()


def test_diagnostics_say_that_a_source_has_ended_until_it_is_played_again(graph):
    given = ["camera.source:=pattern", "camera.max_frames:=1"]
    rclpy.init(args=["--ros-args", *(flag for p in given for flag in ("-p", p))])
    try:
        node = CameraNode()
        assert node.start()
        until = time.monotonic() + PATIENCE_S
        while "source_ended" not in node.meter.facts and time.monotonic() < until:
            time.sleep(0.01)
        assert "source_ended" in node.meter.facts
        node.trigger_deactivate()
        assert "source_ended" not in node.meter.facts
        node.close()
    finally:
        rclpy.shutdown()
