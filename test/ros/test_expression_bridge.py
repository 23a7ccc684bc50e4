"""The expression bridge: a real node, and python-osc's server as the tool that listens."""

import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
osc = pytest.importorskip("pythonosc.osc_server", reason="needs python-osc")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from pythonosc.dispatcher import Dispatcher
from ros_graph import Graph
from sensor_msgs.msg import JointState

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.io.expression_stream import ExpressionStream, StreamConfig, UdpSink
from face_recon_ros.io.expressions_out import ARKIT_NAMES, Performance
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.runtime import RESULT_QOS


class Tool:
    """An animation tool: the values it was told, by name, once for each moment."""

    def __init__(self, port=0):
        self.moments, self._now = [], {}
        dispatcher = Dispatcher()
        dispatcher.map(
            "/VMC/Ext/Blend/Val", lambda _, name, value: self._now.update({name: value})
        )
        dispatcher.map("/VMC/Ext/Blend/Apply", lambda _: self._end())
        self.server = osc.OSCUDPServer(("127.0.0.1", port), dispatcher)
        self.server.timeout = 0.0
        self.port = self.server.server_address[1]

    def _end(self):
        self.moments.append(self._now)
        self._now = {}

    def look(self):
        for _ in range(50):
            self.server.handle_request()


class Person:
    """Publishes expressions and poses of a person, as the pipeline does."""

    def __init__(self, node, name, distance_m):
        self.pose = Rigid(CAMERA_FROM_FRONTAL_FACE, np.array([0.0, 0.0, distance_m]))
        self._expression = node.create_publisher(
            JointState, f"/face/{name}/expression", RESULT_QOS
        )
        self._pose = node.create_publisher(
            PoseWithCovarianceStamped, f"/face/{name}/head_pose", RESULT_QOS
        )

    @property
    def heard(self):
        return min(p.get_subscription_count() for p in (self._expression, self._pose)) > 0

    def show(self, values, stamp):
        header = conversions.header_of(stamp, "camera_optical_frame")
        self._pose.publish(conversions.pose_with_covariance_to_msg(self.pose, np.eye(6), header))
        self._expression.publish(conversions.expression_to_msg(ARKIT_NAMES, values, header))


def test_a_tool_gets_the_topics_values_and_may_go_and_come_back(graph: Graph, listener):
    """Two people, of whom one is asked for; every value compared with the topic's."""
    tool = Tool()
    parameters = (f"expression_bridge.port:={tool.port}", "expression_bridge.id:=ada")
    bridge = graph.start("expression_bridge", *parameters)
    health = listener.listen(DiagnosticArray, "/diagnostics", 10)
    ada, bob = Person(listener.node, "ada", 0.8), Person(listener.node, "bob", 0.5)
    assert listener.spin_until(lambda: ada.heard and bob.heard)
    random, shown = np.random.default_rng(5), [time.time(), None]

    def show():
        shown[0] += 1 / 30
        shown[1] = random.uniform(size=52)
        bob.show(np.zeros(52), shown[0])
        ada.show(shown[1], shown[0])

    def told_after(values):
        return lambda: (tool.look(), any(close(m, values) for m in tool.moments))[1]

    def close(moment, values):
        return set(moment) == set(ARKIT_NAMES) and np.allclose(
            [moment[name] for name in ARKIT_NAMES], values, rtol=0, atol=1e-3
        )

    for _ in range(5):
        show()
        assert listener.spin_until(told_after(shown[1])), tool.moments
    assert len(tool.moments) == 5  # nothing of the other person, nothing twice

    def told(key):
        """What the node said last of itself."""
        mine = [s for m in health for s in m.status if s.name == "face_recon: expression_bridge"]
        said = [v.value for s in mine for v in s.values if v.key == key]
        return said[-1] if said else ""

    tool.server.server_close()  # the tool ends; the node goes on, and says so
    assert listener.spin_until(lambda: int(told("packets_lost") or 0) > 0, each=show)
    assert bridge.poll() is None
    tool = Tool(tool.port)  # the same tool, back
    assert listener.spin_until(lambda: (tool.look(), len(tool.moments) > 2)[1], each=show)
    assert listener.spin_until(lambda: "p50" in told("bridge_ms"))
    tool.server.server_close()


def performance(distance_m, stamp):
    return Performance(
        stamp, dict.fromkeys(ARKIT_NAMES, 0.0), np.eye(3), np.array([distance_m, 0, 0])
    )


def test_the_nearest_is_shown_as_long_as_they_are_seen():
    shown = []
    sink = SimpleNamespace(add=shown.append, close=lambda: None)
    stream = ExpressionStream(StreamConfig(), [sink])
    for k in range(10):
        assert stream.offer("near", performance(0.5, 0.1 * k))
        assert not stream.offer("far", performance(2.0, 0.1 * k))
    assert not stream.offer("far", performance(0.2, 1.0))  # nearer now: still the other's turn
    assert stream.offer("far", performance(2.0, 2.5))
    assert stream.person == "far" and stream.count == len(shown) == 11
    assert (
        ExpressionStream(StreamConfig(id="far"), []).offer("near", performance(0.5, 0.0)) is False
    )


def test_everybody_has_a_face_at_rest_of_their_own():
    stream = ExpressionStream(StreamConfig(calibrate_s=0.5), [])
    assert not stream.calibrated
    for k in range(8):
        stream.offer("a", performance(1.0, 0.1 * k))
    assert stream.calibrated
    stream.offer("b", performance(1.0, 5.0))
    assert stream.person == "b" and not stream.calibrated


@pytest.mark.parametrize(
    "wrong", [{"to": "osc"}, {"port": 70000}, {"port": -1}, {"calibrate_s": -1.0}]
)
def test_wrong_settings_are_told(wrong):
    with pytest.raises(ConfigError):
        StreamConfig(**wrong)


def test_a_port_that_another_program_reads_is_no_fault():
    """Receivers own the port; a sender needs no port of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.settimeout(20)
        port = taken.getsockname()[1]
        sinks = [UdpSink(StreamConfig(port=port)), UdpSink(StreamConfig("livelink", port=port))]
        for sink in sinks:
            sink.add(performance(1.0, 0.0))
        received = [taken.recv(2000) for _ in range(3)]
        assert received[0].startswith(b"#bundle\0") and received[-1][0] == 6
        for sink in sinks:
            assert sink.lost == 0
            sink.close()
