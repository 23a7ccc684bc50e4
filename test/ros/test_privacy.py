"""docs/privacy.md, as nodes keep it: nothing on the disk, no coefficients, hidden faces."""

import re

import numpy as np
import pytest
from ros_graph import ROOT

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float32MultiArray
from vision_msgs.msg import Detection2DArray

from face_recon_ros.core.anonymise import CELLS
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.parameters import GROUPS, leaves
from face_recon_ros.nodes.runtime import RESULT_QOS, SENSOR_QOS

DATA_MAP = (ROOT / "docs" / "privacy.md").read_text()
OVERLAY = "visualization.overlay."
#: Nothing over the mosaic, so that it can be counted.
BARE = (f"{OVERLAY}opacity:=0.0", f"{OVERLAY}axes:=false", f"{OVERLAY}labels:=false")


def test_a_node_writes_nothing_gives_no_coefficients_and_hides_faces(
    graph, listener, small_models, tmp_path, monkeypatch
):
    folders = {name: tmp_path / name for name in ("cwd", "HOME", "TMPDIR", "ROS_LOG_DIR")}
    for folder in folders.values():
        folder.mkdir()
    graph.env.update({name: str(folder) for name, folder in folders.items() if name != "cwd"})
    graph.env["PYTHONPATH"] = f"{ROOT}:{graph.env.get('PYTHONPATH', '')}"
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):  # either would keep ONNX Runtime quiet
        graph.env.pop(name, None)
    monkeypatch.chdir(folders["cwd"])
    pattern = ("camera.source:=pattern", "camera.loop:=true", f"{OVERLAY}anonymise:=true")
    node = graph.start("pipeline", *small_models, *pattern, *BARE)
    coefficients = listener.listen(Float32MultiArray, "/face/coefficients", RESULT_QOS)
    crops = listener.listen(ImageMsg, "/face/crops", SENSOR_QOS)
    meshes = listener.listen(PointCloud2, "/face/mesh/vertices", SENSOR_QOS)
    found = listener.listen(Detection2DArray, "/face/detections", RESULT_QOS)
    pictures = listener.listen(ImageMsg, "/face/mesh/image", SENSOR_QOS)

    def hidden_and_boxes():
        boxes = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in found if m.detections}
        stamps = [(p.header.stamp.sec, p.header.stamp.nanosec) for p in pictures]
        return [(p, boxes[s]) for p, s in zip(pictures, stamps, strict=True) if s in boxes]

    assert listener.spin_until(lambda: len(hidden_and_boxes()) > 3 and meshes and crops)
    for picture, boxes in hidden_and_boxes():
        (track,) = conversions.tracks_from_msg(boxes)
        x0, y0, x1, y1 = np.rint(track.box).astype(int)
        face = conversions.image_from_msg(picture).rgb[max(y0, 0) : y1, max(x0, 0) : x1]
        colours = len(np.unique(face.reshape(-1, 3), axis=0))
        # Two mosaics lie over one another: of the track's box, and of the mesh's.
        assert colours <= 4 * CELLS**2 < face.shape[0] * face.shape[1] / 20
    assert coefficients == []
    node.terminate()
    assert node.wait(timeout=20) == 0
    written = [p for name in ("cwd", "HOME", "TMPDIR") for p in folders[name].rglob("*")]
    fonts = "fontlist"  # matplotlib's, which mediapipe loads: a list of this machine's fonts
    assert [p for p in written if p.is_file() and fonts not in p.name] == []
    for log in folders["ROS_LOG_DIR"].rglob("*.log"):
        assert len(log.read_text()) < 10_000


def test_what_is_biometric_is_off_by_default():
    settings = {leaf.name: leaf.default for group in GROUPS for leaf in leaves(group)}
    assert settings["output.coefficients"] is False
    assert settings[f"{OVERLAY}anonymise"] is False  # so the page says
    for name, value in re.findall(r"^ {4}([\w.]+): (\S+)", DATA_MAP, re.M):
        assert type(settings[name])({"true": 1, "false": 0}.get(value, value)) is not None
    for name in re.findall(
        r"`((?:output|reconstructor|visualization|tracker|detector)\.[\w.]+)", DATA_MAP
    ):
        assert name in settings, name


def test_the_data_map_names_every_topic_that_is_published():
    sources = "\n".join(p.read_text() for p in (ROOT / "face_recon_ros" / "nodes").glob("*.py"))
    topics = set(re.findall(r"create_publisher\(\s*\w+, f?\"([^\"]+)\"", sources))
    about_robots = ("neck/", "~/", "/joint_states", "/robot_description")
    assert len(topics) > 10
    for topic in topics:
        if topic.startswith(about_robots):
            continue
        if topic.startswith("/humans/faces/"):
            assert "/humans/faces/<id>" in DATA_MAP
            continue
        full = topic if topic.startswith("/") else f"/face/{topic.replace('{name}', '<id>')}"
        assert f"`{full}`" in DATA_MAP, full
