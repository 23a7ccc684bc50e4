"""What the nodes publish of faces, in this process: other threads ask while faces come and go."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.context import Context
from std_msgs.msg import Float32MultiArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.head_state import HeadStateEstimator
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.types import Track
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.outputs import FaceOutputs, wanted
from face_recon_ros.nodes.parameters import OutputConfig, VisualizationConfig
from face_recon_ros.nodes.recorder import MeshRecorder
from face_recon_ros.nodes.visualization import Visualizer
from face_recon_ros.nodes.worker import LatestValue

CAMERA = PinholeCamera.from_fov(640, 480)
SETTINGS = OutputConfig()  # with REP-155's topics where hri_msgs is installed


@pytest.fixture
def node():
    context = Context()
    rclpy.init(context=context)
    made = rclpy.create_node("outputs", context=context)
    made.config = lambda group: SETTINGS
    made.start_worker = lambda name, work: LatestValue()
    yield made
    made.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def reconstructor(network_path, face_model_path):
    config = ReconstructorConfig(network=str(network_path), face_model=str(face_model_path))
    return FaceReconstructor.from_config(config)


def one_face(reconstructor):
    track = Track("aaaaa", np.array([200, 150, 400, 350], np.float32), 0.9, 0.0)
    crops = reconstructor.crops([track])
    size = reconstructor.network.size
    prediction = reconstructor.predict(np.zeros((1, size, size, 3), np.uint8))
    faces = reconstructor.decode([track], crops, prediction, CAMERA)
    return HeadStateEstimator(reconstructor.model)(faces, CAMERA, 0.0)[0]


def test_pictures_are_drawn_half_as_often_while_there_is_no_time_for_all_faces():
    listened_to = SimpleNamespace(get_subscription_count=lambda: 1)
    artist = Visualizer(SimpleNamespace(create_publisher=lambda *_: listened_to))
    config = VisualizationConfig(marker_rate_hz=10.0, overlay_rate_hz=10.0)
    for hurried, gap in ((False, 3), (True, 6)):
        drawn, artist._last = [], {}
        for k in range(30):
            if artist.due(k / 30, config, hurried=hurried):
                drawn.append(k)
                artist._last = dict.fromkeys(("markers", "overlay"), k / 30)
        assert drawn == list(range(0, 30, gap))


def test_nobody_listens_to_what_is_destroyed(node):
    publisher = node.create_publisher(Float32MultiArray, "gone", 1)
    node.destroy_publisher(publisher)
    assert not wanted([publisher])


def test_other_threads_may_ask_while_faces_come_and_go(node, reconstructor):
    outputs = FaceOutputs(node, reconstructor)
    face = one_face(reconstructor)
    size = reconstructor.network.size
    crops = np.zeros((1, size, size, 3), np.uint8)
    done, bugs, asked = threading.Event(), [], [0]

    def ask():
        try:
            while not done.is_set():
                outputs.wanted(SETTINGS)
                asked[0] += 1
        except BaseException as bug:
            bugs.append(bug)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for i in range(60):  # each image is of somebody else, long after the one before
            somebody = replace(face, track=replace(face.track, id=f"p{i:04d}"))
            header = conversions.header_of(20.0 * i, "camera")
            outputs.publish([somebody], crops, CAMERA, header, SETTINGS)
    finally:
        done.set()
        for thread in threads:
            thread.join(timeout=10)
    assert not bugs
    assert asked[0] > 60
    topics = {p.topic_name for p in node.publishers}
    assert "/p0059/head_pose" in topics
    assert "/p0000/head_pose" not in topics


def test_memory_of_those_who_look_on_is_not_the_demos():
    health = {name: {"peak_rss_mb": "100"} for name in ("detector", "reconstruction", "viewer")}
    recorder = SimpleNamespace(_health=health, _arrivals=[], _latencies=[])
    assert MeshRecorder.summary(recorder)["peak_rss_mb"] == 200.0
