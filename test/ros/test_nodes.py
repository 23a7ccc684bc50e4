"""The nodes as processes on real DDS, heard by processes of their own."""

import ast
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2
from sensor_msgs.msg import Image as ImageMsg
from shape_msgs.msg import Mesh as MeshMsg
from visualization_msgs.msg import MarkerArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ConfigError, DataError
from face_recon_ros.core.types import Image
from face_recon_ros.evaluation.record import BagWriter
from face_recon_ros.io.bag_topics import choose_image_topic
from face_recon_ros.io.bags import open_bag
from face_recon_ros.io.images import read_image
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.runtime import LATCHED_QOS, MARKER_QOS, SENSOR_QOS

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, str(ROOT / "scripts" / "demo.py")]


@pytest.mark.parametrize("composed", ["true", "false"])
def test_demo(composed, head_video, small_models, tmp_path, ros_environment):
    """Frames with a face reach the subscriber process."""
    mark = str(tmp_path)  # on every command line: the processes can be told from others
    frames = 240  # discovery between processes takes a while
    options = ["--frames", str(frames), "--out", mark]
    for parameter in [*small_models, "camera.loop:=true"]:
        options += ["--param", parameter]
    result = subprocess.run(
        [*DEMO, "--source", str(head_video), "--composed", composed, *options],
        env=ros_environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["composed"] == (composed == "true")
    assert summary["frames_in"] == frames
    received, with_face = summary["mesh_messages_received"], summary["frames_with_face"]
    # The recorder is another process and sensor data is best effort: on busy machines 194 of 230
    # meshes arrived from the composed node, 183 of 229 from separate ones; on quiet ones all do.
    least = 0.5 * with_face
    assert 0 < least <= received <= with_face
    assert summary["frames_with_face"] <= summary["frames_processed"] <= frames
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"] < 5000
    assert summary["model"] == "disc.onnx"
    assert summary["providers"] == ["CPUExecutionProvider"]
    assert summary["peak_rss_mb"] > 10
    assert (tmp_path / "mesh.ply").read_bytes().startswith(b"ply\n")
    assert cv2.imread(str(tmp_path / "preview.png")).shape == (480, 640, 3)
    video = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
    assert video.read()[0]
    left = subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True).stdout
    assert left == ""


def test_demo_wants_a_folder(tmp_path):
    taken = tmp_path / "file"
    taken.write_text("mine")
    result = subprocess.run(
        [*DEMO, "--out", str(taken)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert result.stderr.startswith("demo failed: expected a folder for --out")
    assert len(result.stderr.splitlines()) == 1
    assert taken.read_text() == "mine"


def image_msg(rgb, stamp):
    return conversions.image_to_msg(rgb, conversions.header_of(stamp, "some_camera"))


def spoilt(rgb):
    """Image messages that no node may stumble over."""
    unknown = image_msg(rgb, 1.0)
    unknown.encoding = "fancy"
    short = image_msg(rgb, 1.1)
    short.data = short.data[:100]
    step = image_msg(rgb, 1.2)
    step.step = 7
    empty = image_msg(rgb[:0], 1.3)
    huge = image_msg(rgb[:4, :4], 1.4)
    huge.width = huge.height = 2**31
    return [unknown, short, step, empty, huge]


def spoilt_cameras():
    no_numbers = CameraInfo(width=640, height=480)
    no_numbers.k = [float("nan")] * 9
    other_size = CameraInfo(width=64, height=48)
    other_size.k = [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
    return [no_numbers, CameraInfo(), other_size]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A frame with a head in it."""
    from face_recon_ros.core.pattern import TurningHead

    return TurningHead(640, 480).render(0.0)


@pytest.mark.parametrize("separate", [False, True], ids=["composed", "separate"])
def test_nodes_survive_what_is_malformed(separate, graph, listener, small_models, picture):
    modules = ("detector", "reconstruction") if separate else ("pipeline",)
    nodes = [graph.start(module, *small_models) for module in modules]
    clouds = listener.listen(PointCloud2, "/face/mesh/vertices", SENSOR_QOS)
    images = listener.node.create_publisher(ImageMsg, "/camera/image_raw", SENSOR_QOS)
    cameras = listener.node.create_publisher(CameraInfo, "/camera/camera_info", SENSOR_QOS)
    assert listener.spin_until(lambda: images.get_subscription_count() and len(nodes))

    sent = [0]

    def send_spoilt():
        message = spoilt(picture)[sent[0] % 5]
        cameras.publish(spoilt_cameras()[sent[0] % 3])
        images.publish(message)
        sent[0] += 1

    listener.spin_until(lambda: sent[0] >= 20, each=send_spoilt)
    assert all(node.poll() is None for node in nodes)
    assert not any(cloud.height for cloud in clouds)

    good = CameraInfo(width=640, height=480)
    good.k = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]
    stamp = [10.0]

    def send_good():
        stamp[0] += 0.05
        good.header = conversions.header_of(stamp[0], "some_camera")
        cameras.publish(good)
        images.publish(image_msg(picture, stamp[0]))

    assert listener.spin_until(lambda: any(c.height for c in clouds), each=send_good)
    cloud = next(c for c in clouds if c.height)
    assert cloud.header.frame_id == "some_camera"
    assert conversions.seconds_from_stamp(cloud.header.stamp) > 10.0
    assert np.isfinite(conversions.cloud_from_msg(cloud).vertices).all()
    assert all(node.poll() is None for node in nodes)


def camera_info(width, height, focal_px):
    info = CameraInfo(width=width, height=height)
    info.k = [focal_px, 0.0, width / 2, 0.0, focal_px, height / 2, 0.0, 0.0, float(focal_px > 0)]
    return info


@pytest.mark.parametrize("separate", [False, True], ids=["composed", "separate"])
def test_without_calibration_the_images_tell_their_size(
    separate, graph, listener, small_models, picture
):
    from diagnostic_msgs.msg import DiagnosticArray

    modules = ("detector", "reconstruction") if separate else ("pipeline",)
    nodes = [graph.start(module, *small_models) for module in modules]
    clouds = listener.listen(PointCloud2, "/face/mesh/vertices", SENSOR_QOS)
    health = listener.listen(DiagnosticArray, "/diagnostics", 10)
    images = listener.node.create_publisher(ImageMsg, "/camera/image_raw", SENSOR_QOS)
    cameras = listener.node.create_publisher(CameraInfo, "/camera/camera_info", SENSOR_QOS)
    stamp = [time.time()]

    def show(rgb, info):
        stamp[0] = time.time()  # only images of the node's clock have a latency
        cameras.publish(info)
        images.publish(image_msg(rgb, stamp[0]))

    def values(key):
        return [v.value for m in health for s in m.status for v in s.values if v.key == key]

    uncalibrated = camera_info(64, 48, 0.0)  # and it does not even know its size
    for scale in (1.0, 0.75):
        rgb = cv2.resize(picture, None, fx=scale, fy=scale)
        since = stamp[0]
        seen = lambda: any(c.height and c.header.stamp.sec > since + 3 for c in clouds)  # noqa: B023, E731
        assert listener.spin_until(seen, each=lambda: show(rgb, uncalibrated))  # noqa: B023
    assert not any(values("faults"))
    told = lambda: values("dropped") and values("latency_ms")  # noqa: E731
    assert listener.spin_until(told, each=lambda: show(rgb, uncalibrated))

    def notes():
        return [v for v in values("camera_notes") if "800 x 600" in v]

    calibrated = camera_info(800, 600, 700.0)  # of the same view at another size
    assert listener.spin_until(notes, each=lambda: show(picture, calibrated))
    clouds.clear()
    assert listener.spin_until(lambda: clouds, each=lambda: show(picture, calibrated))
    other = camera_info(800, 800, 700.0)  # of another view: assumed again, and said
    message = lambda: [s.message for m in health for s in m.status if "800 x 800" in s.message]  # noqa: E731
    assert listener.spin_until(message, each=lambda: show(picture, other))

    def told_last():
        status = next(s for m in health[::-1] for s in m.status if s.name.endswith(modules[-1]))
        return status.message, {v.key for v in status.values}

    assert "camera_notes" not in told_last()[1]  # that one was of the CameraInfo before
    forgotten = lambda: "800 x 800" not in told_last()[0]  # noqa: E731
    assert listener.spin_until(forgotten, each=lambda: show(picture, calibrated))
    nodes[-1].terminate()
    output, _ = nodes[-1].communicate(timeout=30)
    assert "800 x 800" in output


def test_topology_waits_for_late_listeners_and_markers_deserialise(
    graph, listener, small_models, face_model_path
):
    from face_recon_ros.core.morphable_model import FACE, load_morphable_model

    graph.start("pipeline", *small_models, "camera.source:=pattern", "camera.loop:=true")
    markers = listener.listen(MarkerArray, "/face/mesh/markers", MARKER_QOS)
    assert listener.spin_until(lambda: len(markers) > 2 and len(markers[-1].markers) > 1)
    late = listener.listen(MeshMsg, "/face/mesh/topology", LATCHED_QOS)
    assert listener.spin_until(lambda: late, 20)
    triangles, vertices = conversions.topology_from_msg(late[0])
    model = load_morphable_model(face_model_path, level="coarse").subset(FACE)
    np.testing.assert_array_equal(triangles, model.triangles)
    np.testing.assert_allclose(vertices, model.mean_shape)
    mesh = next(m for m in markers[-1].markers if m.ns.startswith("face_") and m.id == 0)
    assert len(mesh.points) == len(mesh.colors) == 3 * len(triangles)


def test_nothing_is_computed_while_nobody_listens(graph, listener, small_models):
    from diagnostic_msgs.msg import DiagnosticArray

    graph.start("pipeline", *small_models, "camera.source:=pattern", "camera.loop:=true")
    health = listener.listen(DiagnosticArray, "/diagnostics", 10)
    told = lambda: {v.key: v.value for m in health[-1:] for v in m.status[0].values}  # noqa: E731
    assert listener.spin_until(lambda: int(told().get("frames_in", 0)) > 20)
    values = told()
    assert int(values.get("processed", 0)) == 0
    clouds = listener.listen(PointCloud2, "/face/mesh/vertices", SENSOR_QOS)
    assert listener.spin_until(lambda: len(clouds) > 3)


@pytest.mark.parametrize(
    ("module", "parameters", "says"),
    [
        ("pipeline", ["camera.source:=nowhere.mp4"], "nowhere.mp4"),
        ("pipeline", ["camera.source:=/dev/video99"], "/dev/video99"),
        ("pipeline", ["detector.min_scor:=0.5"], "did you mean 'detector.min_score'"),
        ("pipeline", ["detector.min_score:=high"], "detector.min_score"),
        ("pipeline", ["detector.min_score:=7.0"], "0.01 to 1.0"),
        ("pipeline", ["detector.backend:=magic"], "yunet, short_range, full_range"),
        ("reconstruction", ["reconstructor.network:=/no/net.onnx"], "/no/net.onnx"),
        ("reconstruction", ["reconstructor.face_model:=/no/face.npz"], "/no/face.npz"),
        ("reconstruction", ["reconstructor.provider:=abacus"], "abacus"),
        ("camera", [], "camera.source"),
        ("camera", ["camera.source:=pattern", "camera.calibration:=/no/ost.yaml"], "/no/ost.yaml"),
        ("pipeline", ["camera.source:=pattern", "camera.fov_deg:=wide"], "60.0"),
    ],
)
def test_wrong_settings_end_it_with_one_line(module, parameters, says, graph):
    node = graph.start(module, *parameters)
    output, _ = node.communicate(timeout=60)
    assert node.returncode == 1
    lines = [line for line in output.splitlines() if "expected" in line]
    assert len(lines) == 1, output
    assert says in lines[0]
    assert "Traceback" not in output


def test_parameters_change_together_or_not_at_all(graph, listener, small_models):
    graph.start("pipeline", *small_models, "camera.source:=pattern", "camera.loop:=true")
    client = listener.node.create_client(
        SetParametersAtomically, "/face/pipeline/set_parameters_atomically"
    )
    assert listener.spin_until(client.service_is_ready)

    def set_parameters(**values):
        request = SetParametersAtomically.Request()
        for name, value in values.items():
            wanted = ParameterValue(type=3, double_value=value)
            name = name.replace("__", ".")
            request.parameters.append(Parameter(name=name, value=wanted))
        for _ in range(5):  # a service can be ready before its answers find the way back
            future = client.call_async(request)
            if listener.spin_until(future.done, 5):
                return future.result().result
        raise AssertionError("no answer")

    rate, opacity = "visualization__overlay_rate_hz", "visualization__overlay__opacity"
    assert set_parameters(**{rate: 5.0, opacity: 0.5}).successful
    refused = set_parameters(**{rate: 7.0, opacity: 3.0})
    assert not refused.successful
    assert "overlay.opacity" in refused.reason
    read_only = set_parameters(tracker__max_gap_s=0.9)
    assert not read_only.successful
    assert "read-only" in read_only.reason


def write_bag(path, picture, encodings, spoil=lambda index, data: data):
    """One image a second, each with its encoding."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="needs rosbags")
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kind = store.types["sensor_msgs/msg/Image"]
    header = store.types["std_msgs/msg/Header"]
    stamp = store.types["builtin_interfaces/msg/Time"]
    with rosbag2.Writer(path, version=9) as writer:
        connection = writer.add_connection("/cam/image", kind.__msgtype__, typestore=store)
        for index, encoding in enumerate(encodings):
            message = kind(
                header=header(stamp=stamp(sec=index, nanosec=500_000_000), frame_id="cam"),
                height=480,
                width=640,
                encoding=encoding,
                is_bigendian=0,
                step=1920,
                data=(picture + index).astype(np.uint8).ravel(),
            )
            data = spoil(index, bytes(store.serialize_cdr(message, kind.__msgtype__)))
            writer.write(connection, int((index + 0.5) * 1e9), data)


def test_bag_is_a_source(tmp_path, picture):
    path = tmp_path / "bag"
    write_bag(path, picture, ["rgb8"] * 3)
    from face_recon_ros.io.bag_source import BagSource
    from face_recon_ros.io.bags import is_bag

    assert is_bag(str(path))
    source = BagSource(str(path), "unused")
    images = list(source)
    assert source.length == 3
    assert source.fps == pytest.approx(1.0)
    assert [i.stamp for i in images] == [0.5, 1.5, 2.5]
    assert images[0].frame == "cam"
    np.testing.assert_array_equal(images[2].rgb, (picture + 2).astype(np.uint8))


def test_what_is_bad_in_a_bag_is_left_out(tmp_path, picture):
    path = tmp_path / "bag"
    cut = lambda index, data: data[:40] if index == 2 else data  # noqa: E731
    write_bag(path, picture, ["rgb8", "fancy", "rgb8", "rgb8"], cut)
    from face_recon_ros.io.bag_source import BagSource

    faults = []
    source = BagSource(str(path), "", complain=faults.append)
    assert [i.stamp for i in source] == [0.5, 3.5]
    assert len(faults) == 1 and "fancy" in str(faults[0])
    assert any("cannot be decoded" in warning for warning in source.warnings)


def test_a_bag_of_nothing_that_can_be_read_is_an_error(tmp_path, picture):
    path = tmp_path / "bag"
    write_bag(path, picture, ["fancy"] * 2)
    from face_recon_ros.io.bag_source import BagSource

    with pytest.raises(DataError, match="fancy"):
        list(BagSource(str(path), "", loop=True))
    (path / "metadata.yaml").unlink()
    lone = next(path.glob("*.db3"))
    with pytest.raises(DataError, match="fancy"):
        BagSource(str(lone), "")


def write_cameras_bag(path, picture, focals_px=(500.0, 510.0)):
    """Depth, a seldom camera, our own overlay, and one of 640 x 480 that changes its focal length.

    Returns:
        The topic with the most colour images.
    """
    pytest.importorskip("rosbags", reason="needs rosbags")
    with BagWriter(path) as bag:
        for k in range(6):
            image = Image(picture, 0.5 + k, "cam")
            for topic in ("/a/depth/image_raw", "/face/overlay"):
                bag.image(image, topic)
                bag.image(replace(image, stamp=image.stamp + 0.1), topic)
            if k == 0:
                bag.image(replace(image, frame="seldom"), "/b/image_raw")
                bag.camera(pinhole(900.0), image.stamp, "seldom", "/b/camera_info")
            bag.compressed(image, "/c/image_raw/compressed")
            bag.image(image, "/c/image_raw")
            if k in (1, 3) and focals_px:
                bag.camera(pinhole(focals_px[k // 2]), image.stamp + 0.1, "cam", "/c/camera_info")
    return "/c/image_raw"


def pinhole(focal_px, width=640, height=480):
    matrix = np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
    return PinholeCamera(width, height, matrix)


def test_of_a_bags_topics_that_with_most_colour_images_is_played(tmp_path, picture):
    best = write_cameras_bag(tmp_path / "bag", picture)
    from face_recon_ros.io.bag_source import BagSource

    source = BagSource(str(tmp_path / "bag"), "")
    assert source.topic == best == choose_image_topic(open_bag(tmp_path / "bag"))
    assert source.length == len(list(source)) == 6
    asked = BagSource(str(tmp_path / "bag"), "", topic="/b/image_raw")
    assert [image.frame for image in asked] == ["seldom"]
    assert asked.camera_info.k[0] == 900.0
    with pytest.raises(DataError, match="/c/image_raw "):
        BagSource(str(tmp_path / "bag"), "", topic="/d/image_raw")


def test_a_bag_knows_its_camera(tmp_path, picture):
    """The latest CameraInfo before each image; for those before it, the first."""
    write_cameras_bag(tmp_path / "bag", picture)
    from face_recon_ros.io.bag_source import BagSource

    source = BagSource(str(tmp_path / "bag"), "")
    focals_px = [source.camera_info.k[0] for _ in source]
    assert focals_px == [500.0, 500.0, 500.0, 500.0, 510.0, 510.0]


def stand_in(complain):
    """As much of a node as a source needs."""
    meter = SimpleNamespace(fact=lambda *_: None)
    logger = SimpleNamespace(info=lambda *_: None, warning=lambda *_: None)
    return SimpleNamespace(
        complain=complain,
        meter=meter,
        live=SimpleNamespace(stopping=threading.Event()),
        watch=lambda look: None,
        get_logger=lambda: logger,
    )


@pytest.mark.parametrize(
    ("focals_px", "calibration", "expected_px"),
    [((500.0, 510.0), None, 510.0), ((500.0, 510.0), 777.0, 777.0), ((), None, None)],
)
def test_images_of_a_bag_come_with_its_camera(
    tmp_path, picture, focals_px, calibration, expected_px
):
    """Unless a calibration was given; without either the camera is a guess and says so."""
    write_cameras_bag(tmp_path / "bag", picture, focals_px)
    from face_recon_ros.nodes.camera import CameraStream
    from face_recon_ros.nodes.parameters import CameraConfig

    path = ""
    if calibration:
        k = pinhole(calibration).matrix.ravel().tolist()
        path = str(tmp_path / "camera.yaml")
        content = {"image_width": 640, "image_height": 480, "camera_matrix": {"data": k}}
        content["distortion_coefficients"] = {"data": [0.0] * 5}
        Path(path).write_text(yaml.safe_dump(content))
    node = stand_in(pytest.fail)
    config = CameraConfig(str(tmp_path / "bag"), calibration=path)
    stream = CameraStream(node, config, lambda *_: None)
    cameras = [stream.camera_of(image) for image in stream.source]
    assert cameras[-1].calibrated == (expected_px is not None)
    if expected_px:
        assert cameras[-1].matrix[0, 0] == expected_px
        small = stream.camera_of(Image(np.zeros((240, 320, 3), np.uint8), 1.0))
        assert small.matrix[0, 0] == pytest.approx(expected_px / 2, rel=0.01)


def test_a_bags_camera_of_another_shape_is_warned_of(tmp_path, picture):
    write_cameras_bag(tmp_path / "bag", picture)
    from face_recon_ros.nodes.camera import CameraStream
    from face_recon_ros.nodes.parameters import CameraConfig

    looks = []
    node = stand_in(pytest.fail)
    node.watch = looks.append
    stream = CameraStream(node, CameraConfig(str(tmp_path / "bag")), lambda *_: None)
    assert not stream.camera_of(Image(np.zeros((360, 640, 3), np.uint8), 1.0)).calibrated
    assert any("640 x 480" in look() and "640 x 360" in look() for look in looks)


def test_bags_without_rosbags_say_what_to_install(tmp_path, monkeypatch):
    from face_recon_ros.io.bag_source import BagSource

    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    with pytest.raises(ConfigError, match="pip install rosbags"):
        BagSource(str(tmp_path), "")


def test_camera_node_leaves_the_topic_to_another_driver(graph):
    node = graph.start("camera", "camera.source:=topic")
    output, _ = node.communicate(timeout=60)
    assert node.returncode == 0
    assert "another driver" in output


def test_picture_is_a_source_of_the_camera_node(graph, listener, tmp_path, picture):
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), picture[..., ::-1])
    graph.start("camera", f"camera.source:={path}", "camera.loop:=true")
    images = listener.listen(ImageMsg, "/camera/image_raw", SENSOR_QOS)
    assert listener.spin_until(lambda: images)
    np.testing.assert_array_equal(conversions.image_from_msg(images[0]).rgb, read_image(path))


@pytest.fixture
def web(head_video):
    """Address of a web server that sends files whole: `python -m http.server`."""
    handler = partial(SimpleHTTPRequestHandler, directory=head_video.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_video_on_a_web_server_is_a_source_of_the_camera_node(graph, listener, web, head_video):
    source = [f"camera.source:={web}/{head_video.name}", "camera.exit_at_end:=true"]
    images = listener.listen(ImageMsg, "/camera/image_raw", SENSOR_QOS)
    infos = listener.listen(CameraInfo, "/camera/camera_info", SENSOR_QOS)
    node = graph.start("camera", *source, "camera.wait_for_subscriber_s:=60.0")
    assert listener.spin_until(lambda: node.poll() is not None)
    assert node.returncode == 0, node.stdout.read()
    assert 30 < len(images) <= 60  # best effort
    assert {(m.width, m.height) for m in (*images, *infos)} == {(640, 480)}
    stamps = [conversions.seconds_from_stamp(m.header.stamp) for m in images]
    assert stamps == sorted(set(stamps))  # a file is played once, at its own rate
    assert stamps[-1] - stamps[0] > 0.9 * (len(images) - 1) / 30


def test_a_file_that_a_web_server_lacks_ends_the_camera_node_with_one_line(graph, web):
    node = graph.start("camera", f"camera.source:={web}/nothing.mp4")
    output, _ = node.communicate(timeout=60)
    assert node.returncode == 1
    assert "404" in output and output.count("expected") == 1 and "Traceback" not in output


def test_our_nodes_use_no_name_of_rclpys_node():
    """A private attribute of rclpy.Node that is overwritten breaks it far from here."""
    import rclpy
    from rclpy.context import Context
    from rclpy.lifecycle import LifecycleNode

    context = Context()
    rclpy.init(context=context)
    plain = LifecycleNode("plain", context=context)
    taken = set(vars(plain)) | set(dir(type(plain)))
    plain.destroy_node()
    rclpy.shutdown(context=context)
    steps = ("configure", "activate", "deactivate", "cleanup", "shutdown", "error")
    meant = {"__init__", "destroy_node", *(f"on_{step}" for step in steps)}
    for path in sorted((ROOT / "face_recon_ros" / "nodes").glob("*.py")):
        for kind in ast.walk(ast.parse(path.read_text())):
            bases = [getattr(b, "id", "") for b in getattr(kind, "bases", [])]
            if not isinstance(kind, ast.ClassDef) or not {
                "Node",
                "LifecycleNode",
                "FaceNode",
            } & set(bases):
                continue
            methods = {n.name for n in kind.body if isinstance(n, ast.FunctionDef)}
            attributes = {
                n.attr
                for n in ast.walk(kind)
                if isinstance(n, ast.Attribute)
                and isinstance(n.ctx, ast.Store)
                and getattr(n.value, "id", "") == "self"
            }
            assert not ((methods | attributes) - meant) & taken, f"{path.name}: {kind.name}"


def shows_meshes(listener):
    """Waits until the viewer's diagnostics count more than three meshes."""
    from diagnostic_msgs.msg import DiagnosticArray

    health = listener.listen(DiagnosticArray, "/diagnostics", 10)

    def shown():
        statuses = [s for m in health for s in m.status if s.name == "face_recon: viewer"]
        return any(v.key == "meshes" and int(v.value) > 3 for s in statuses for v in s.values)

    return listener.spin_until(shown)


def test_viewer_records_meshes(graph, listener, small_models, tmp_path):
    pytest.importorskip("rerun", reason="needs rerun-sdk (requirements/view.txt)")
    path = tmp_path / "view.rrd"
    viewer = graph.start("viewer", arguments=("--save", str(path)))
    graph.start("pipeline", *small_models, "camera.source:=pattern", "camera.loop:=true")
    assert shows_meshes(listener)
    viewer.send_signal(signal.SIGTERM)
    assert viewer.wait(timeout=20) == 0
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize(("given", "coefficients"), [("true", 0), ("auto", 5)])
def test_rectified_images_by_parameter(given, coefficients, graph, listener, tmp_path, picture):
    """The topic's name does not say that its images are rectified: only the user knows."""
    pytest.importorskip("rosbags", reason="needs rosbags")
    bent = replace(pinhole(500.0), distortion=np.array([0.1, -0.05, 0.001, 0.001, 0.01]))
    with BagWriter(tmp_path / "bag") as bag:
        for k in range(20):
            bag.image(Image(picture, 1.0 + k / 10, "cam"), "/cam/image")
            bag.camera(bent, 1.0 + k / 10, "cam", "/cam/camera_info")
    source = [f"camera.source:={tmp_path / 'bag'}", "camera.loop:=true"]
    graph.start("camera", *source, f"camera.rectified:={given}")
    infos = listener.listen(CameraInfo, "/camera/camera_info", SENSOR_QOS)
    assert listener.spin_until(lambda: infos)
    assert len(infos[-1].d) == coefficients and infos[-1].k[0] == 500.0


def compressed_msg(rgb, stamp):
    header = conversions.header_of(stamp, "some_camera")
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr)[1].tobytes()[:-2]  # as cheap cameras send them
    return CompressedImage(header=header, format="jpeg", data=data)


@pytest.mark.parametrize("separate", [False, True], ids=["composed", "separate"])
def test_a_camera_that_publishes_only_compressed_images_is_found(
    separate, graph, listener, small_models, picture
):
    """It may start long after those who wait for its images."""
    modules = ("detector", "reconstruction", "visualization") if separate else ("pipeline",)
    for module in modules:
        graph.start(module, *small_models)
    clouds = listener.listen(PointCloud2, "/face/mesh/vertices", SENSOR_QOS)
    overlays = listener.listen(ImageMsg, "/face/mesh/image", SENSOR_QOS)
    waiting = lambda: listener.node.count_subscribers("/camera/image_raw")  # noqa: E731
    assert listener.spin_until(lambda: waiting() == (2 if separate else 1))
    topic = "/camera/image_raw/compressed"
    images = listener.node.create_publisher(CompressedImage, topic, SENSOR_QOS)
    stamp = [1.0]

    def show():
        stamp[0] += 0.05
        images.publish(compressed_msg(picture, stamp[0]))

    assert listener.spin_until(lambda: overlays and any(c.height for c in clouds), each=show)


def test_who_waits_for_images_says_for_which_and_names_others(
    graph, listener, small_models, picture
):
    from diagnostic_msgs.msg import DiagnosticArray

    node = graph.start("pipeline", *small_models, "output.always:=true")
    health = listener.listen(DiagnosticArray, "/diagnostics", 10)
    others = listener.node.create_publisher(ImageMsg, "/usb_cam/image_raw", SENSOR_QOS)
    messages = lambda: [s.message for m in health for s in m.status]  # noqa: E731
    waits = lambda: sum("no image on /camera/image_raw" in m for m in messages()) > 2  # noqa: E731
    # The console says it at the next look for images, which may come after a first diagnosis.
    assert listener.spin_until(waits, each=lambda: others.publish(image_msg(picture, 1.0)))
    node.terminate()
    output, _ = node.communicate(timeout=30)
    assert "no image on /camera/image_raw (Image, 0 publishers)" in output
    assert "/usb_cam/image_raw (Image)" in output


def test_processing_is_switched_off_and_on(graph, listener, small_models):
    from diagnostic_msgs.msg import DiagnosticArray
    from std_srvs.srv import SetBool

    graph.start("pipeline", *small_models, "camera.source:=pattern", "camera.loop:=true")
    clouds = listener.listen(PointCloud2, "/face/mesh/vertices", SENSOR_QOS)
    health = listener.listen(DiagnosticArray, "/diagnostics", 10)
    assert listener.spin_until(lambda: len(clouds) > 2)
    client = listener.node.create_client(SetBool, "/face/enable")
    assert listener.spin_until(client.service_is_ready)
    for switched_on in (False, True):
        answer = client.call_async(SetBool.Request(data=switched_on))
        assert listener.spin_until(answer.done)
        assert answer.result().success

        def told():
            return [v.value for m in health[-1:] for v in m.status[0].values if v.key == "enabled"]

        assert listener.spin_until(lambda: told() == [str(switched_on).lower()])  # noqa: B023
        clouds.clear()
        if switched_on:
            assert listener.spin_until(lambda: len(clouds) > 2)
        else:
            listener.spin_until(lambda: False, 2.0)
            assert len(clouds) <= 1  # one may have been on its way
            states = [v.value for m in health[-1:] for v in m.status[0].values if v.key == "state"]
            assert states == ["active"]
