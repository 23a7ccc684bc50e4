"""Whatever a message holds: it is read, or refused with a FaceReconError. Nothing else happens.

A node takes such a refusal as the fault of one image; any other exception would end it.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

rclpy_serialization = pytest.importorskip("rclpy.serialization", reason="needs ROS 2 (rclpy)")

import cv2
from geometry_msgs.msg import Pose, PoseArray
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2, PointField
from sensor_msgs.msg import Image as ImageMsg
from shape_msgs.msg import Mesh as MeshMsg
from shape_msgs.msg import MeshTriangle
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import MarkerArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError, FaceReconError
from face_recon_ros.core.overlay import FaceColours, Overlay
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Coefficients, Track
from face_recon_ros.io import encodings
from face_recon_ros.io.camera_info import camera_from_msg
from face_recon_ros.io.depth import depth_from_msg
from face_recon_ros.io.messages import image_from_msg
from face_recon_ros.nodes import cdr
from face_recon_ros.nodes import conversions as c
from face_recon_ros.nodes.visualization import Scene, markers, scene_from_msgs

#: numpy may warn of an overflow or a NaN on the way; what counts is what comes out.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
ANY = settings(max_examples=100, deadline=None)
#: Any number a message can hold: NaN, infinite, denormal, huge.
NUMBERS = st.floats(width=64)
EXTREME = st.one_of(NUMBERS, st.sampled_from([0.0, 1e-300, 1e300, -1e300, np.inf, np.nan]))
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([2**16, 2**31, 2**32 - 1]))
STAMPS = st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
ENCODINGS = st.one_of(
    st.sampled_from(sorted(encodings.ENCODINGS)), st.sampled_from(["32FC1", ""]), st.text()
)


def stamped(msg, stamp):
    msg.header.stamp.sec, msg.header.stamp.nanosec = stamp
    return msg


def read_or_refused(read, *arguments):
    """What was read, or None where it was refused; any other exception fails the test."""
    try:
        return read(*arguments)
    except FaceReconError as fault:
        assert fault.expected and fault.got and fault.remedy
        return None


def bytes_of(size):
    return st.binary(min_size=size, max_size=size)


# --- images ---


@st.composite
def any_image(draw):
    msg = ImageMsg(encoding=draw(ENCODINGS), height=draw(SIZES), width=draw(SIZES))
    msg.is_bigendian = draw(st.integers(0, 255))
    near = min(msg.width, 64) * draw(st.integers(1, 4))
    msg.step = draw(st.one_of(SIZES, st.just(near)))
    fits = min(msg.step * msg.height, 4096)
    msg.data = draw(st.one_of(st.binary(max_size=200), bytes_of(fits)))
    return stamped(msg, draw(STAMPS))


@ANY
@given(any_image())
def test_any_image(msg):
    image = read_or_refused(c.image_from_msg, msg)
    if image is not None:
        assert image.rgb.shape[1:] == (msg.width, 3) and image.rgb.shape[0] <= msg.height
        assert image.rgb.dtype == np.uint8 and image.rgb.flags.c_contiguous


@st.composite
def sound_image(draw):
    """A well-formed message of any known encoding, with its padding."""
    encoding = draw(st.sampled_from(sorted(encodings.ENCODINGS)))
    layout = encodings.ENCODINGS[encoding]
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    width += width % 2 if layout.subsampled else 0
    height += height % 2 if layout.subsampled else 0
    msg = ImageMsg(encoding=encoding, height=height, width=width)
    row = width * layout.channels * layout.depth_bytes
    msg.step = row + draw(st.integers(0, 5))
    missing = draw(st.integers(0, msg.step - row))
    msg.data = draw(bytes_of(round(msg.step * height * layout.planes) - missing))
    return msg


@ANY
@given(sound_image())
def test_no_sound_image_is_refused(msg):
    assert c.image_from_msg(msg).rgb.shape == (msg.height, msg.width, 3)


@ANY
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_images_round_trip(rgb):
    msg = c.image_to_msg(rgb, c.header_of(1.5, "x"))
    np.testing.assert_array_equal(c.image_from_msg(msg).rgb, rgb)
    msg.encoding = "bgr8"
    np.testing.assert_array_equal(c.image_from_msg(msg).rgb, rgb[..., ::-1])


JPEG = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()


@ANY
@given(st.one_of(st.binary(max_size=100), st.integers(0, len(JPEG)).map(lambda n: JPEG[:n])))
def test_any_compressed_image(data):
    image = read_or_refused(image_from_msg, CompressedImage(format="jpeg", data=data))
    assert image is None or image.rgb.shape[2] == 3


@ANY
@given(any_image())
def test_any_depth_image(msg):
    depth = read_or_refused(depth_from_msg, msg)
    assert depth is None or depth.shape == (msg.height, msg.width)


# --- cameras ---


@st.composite
def any_camera_info(draw, numbers=EXTREME):
    msg = CameraInfo(width=draw(SIZES), height=draw(SIZES))
    msg.distortion_model = draw(
        st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "fancy"])
    )
    msg.d = draw(st.sampled_from([0, 4, 5, 8, 12, 14, 3]).flatmap(lambda n: listed(numbers, n)))
    msg.k = draw(listed(numbers, 9))
    if draw(st.booleans()):  # as K mostly looks
        msg.k[0], msg.k[4], msg.k[8] = draw(st.floats(1e-3, 1e9)), draw(st.floats(1e-3, 1e9)), 1.0
    for name in ("x_offset", "y_offset", "width", "height"):
        setattr(msg.roi, name, draw(st.one_of(st.just(0), SIZES)))
    msg.binning_x, msg.binning_y = draw(SIZES), draw(SIZES)
    return msg


def listed(numbers, n):
    return st.lists(numbers, min_size=n, max_size=n)


@ANY
@given(any_camera_info(), listed(EXTREME, 3))
def test_any_camera(msg, point):
    camera = read_or_refused(camera_from_msg, msg)
    if camera is not None:
        assert camera.width > 0 and camera.height > 0 and np.isfinite(camera.matrix).all()
        assert camera.project(point).shape == (2,)
        assert camera.rays_from_pixels(point[:2]).shape == (3,)


@ANY
@given(st.integers(1, 2**31), st.floats(0.01, 100), st.floats(0.01, 100), st.floats(-100, 100))
def test_cameras_round_trip(side, fx, fy, offset):
    k = side * np.array([[fx, 0, offset], [0, fy, offset], [0, 0, 1 / side]])
    camera = PinholeCamera(side, (side + 1) // 2, k)
    again = camera_from_msg(c.camera_to_msg(camera, c.header_of(0.0, "x")))
    np.testing.assert_array_equal(again.matrix, k)
    assert (again.width, again.height) == (camera.width, camera.height)


# --- detections ---


@st.composite
def any_detections(draw, numbers=EXTREME, size=None):
    msg = Detection2DArray()
    for _ in range(draw(st.integers(0, 4) if size is None else size)):
        detection = Detection2D(id=draw(st.text(max_size=5)))
        centre = detection.bbox.center.position
        centre.x, centre.y = draw(numbers), draw(numbers)
        detection.bbox.size_x, detection.bbox.size_y = draw(numbers), draw(numbers)
        for _ in range(draw(st.integers(0, 2))):
            result = ObjectHypothesisWithPose()
            result.hypothesis.score = draw(numbers)
            detection.results.append(result)
        msg.detections.append(detection)
    return stamped(msg, draw(STAMPS))


@ANY
@given(any_detections())
def test_any_detections(msg):
    tracks = read_or_refused(c.tracks_from_msg, msg)
    for track in tracks or []:
        assert track.id and np.isfinite(track.box).all()
        assert track.box[0] < track.box[2] and track.box[1] < track.box[3]
        assert 0.0 <= track.score <= 1.0


BOXES = st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 2, *[st.floats(1, 1e4, width=32)] * 2)


@ANY
@given(st.lists(st.tuples(st.text(min_size=1, max_size=8), BOXES, st.floats(0, 1)), max_size=4))
def test_tracks_round_trip(rows):
    tracks = [
        Track(name, np.array([x, y, x + w, y + h], np.float32), score, 7.25)
        for name, (x, y, w, h), score in rows
    ]
    again = c.tracks_from_msg(c.tracks_to_msg(tracks, c.header_of(7.25, "x")))
    for a, b in zip(again, tracks, strict=True):
        assert (a.id, a.score, a.stamp) == (b.id, b.score, b.stamp)
        np.testing.assert_allclose(a.box, b.box, atol=1e-2)


# --- meshes, poses, scenes ---

_FIELDS = [("x", 0), ("y", 4), ("z", 8), ("rgb", 12)]


@st.composite
def any_cloud(draw):
    msg = PointCloud2(height=draw(SIZES), width=draw(SIZES))
    fields = draw(st.one_of(st.just(_FIELDS), st.lists(st.sampled_from(_FIELDS), max_size=5)))
    msg.fields = [PointField(name=n, offset=o, datatype=7, count=1) for n, o in fields]
    fits = min(16 * msg.height * msg.width, 16 * 400)
    msg.data = draw(st.one_of(st.binary(max_size=64), st.just(bytes(fits))))
    return msg


@ANY
@given(any_cloud())
def test_any_cloud(msg):
    cloud = read_or_refused(c.cloud_from_msg, msg)
    assert cloud is None or cloud.vertices.shape == (msg.height, msg.width, 3)


@ANY
@given(st.lists(listed(st.integers(0, 2**32 - 1), 3), max_size=4), st.integers(0, 5))
@example([[0, 1, 2]], 3)
def test_any_topology(triangles, n):
    msg = MeshMsg(triangles=[MeshTriangle(vertex_indices=t) for t in triangles])
    msg.vertices = [c.Point(x=float(k)) for k in range(n)]
    read = read_or_refused(c.topology_from_msg, msg)
    assert (read is not None) == all(corner < n for t in triangles for corner in t)
    if read is not None:
        np.testing.assert_array_equal(read[0], np.reshape(triangles, (-1, 3)))


@st.composite
def any_scene(draw):
    """Messages of one image that may contradict one another, and a camera."""
    n, v = draw(st.integers(0, 2)), draw(st.integers(1, 5))
    number = draw(st.sampled_from([st.floats(-2, 2, width=32), st.floats(width=32)]))
    cloud = c.FaceCloud(
        draw(hnp.arrays(np.float32, (n, v, 3), elements=number)), np.zeros((n, v, 3), np.uint8)
    )
    header = c.header_of(3.0, "camera")
    poses = PoseArray(poses=[Pose() for _ in range(draw(st.sampled_from([n, n, n, 1])))])
    for pose in poses.poses:
        p, q = pose.position, pose.orientation
        p.x, p.y, p.z = draw(listed(EXTREME, 3))
        q.x, q.y, q.z, q.w = draw(st.one_of(st.just([0.0, 0.0, 0.0, 1.0]), listed(EXTREME, 4)))
    sane = draw(st.booleans())
    size = st.sampled_from([n, n, n, 1])
    tracks = draw(any_detections(st.floats(1, 100) if sane else EXTREME, size=size))
    parts = {
        "mesh/vertices": c.cloud_to_msg(cloud, header),
        "head_poses": poses,
        "detections": tracks,
    }
    corner = st.integers(0, draw(st.sampled_from([v - 1, v - 1, v])))
    triangles = draw(hnp.arrays(np.int32, (draw(st.integers(1, 4)), 3), elements=corner))
    return parts, triangles


CAMERAS = st.sampled_from([PinholeCamera.from_fov(32, 24), PinholeCamera.from_fov(32, 24, 179.0)])


@settings(ANY, suppress_health_check=[HealthCheck.too_slow])
@given(any_scene(), CAMERAS)
def test_any_scene_is_drawn_or_refused(messages, camera):
    parts, triangles = messages
    scene = read_or_refused(scene_from_msgs, parts, triangles, camera)
    if scene is None:
        return
    assert len(scene.faces) == len(parts["head_poses"].poses) == parts["mesh/vertices"].height
    assert cdr.marker_array_cdr(markers(scene, FaceColours()), scene.header)
    if scene.faces:
        artist = Overlay(triangles, scene.cloud.vertices.shape[1])
        picture = artist.draw(np.zeros((24, 32, 3), np.uint8), scene.faces, camera)
        assert picture.shape == (24, 32, 3)


def test_messages_that_contradict_one_another_are_refused():
    track = Track("abcde", np.float32([1, 1, 9, 9]), 1.0, 3.0)
    header, still = c.header_of(3.0, "camera"), Rigid(np.eye(3), np.array([0, 0, 1.0]))
    cloud = c.FaceCloud(np.ones((1, 3, 3), np.float32), np.zeros((1, 3, 3), np.uint8))
    parts = {
        "mesh/vertices": c.cloud_to_msg(cloud, header),
        "head_poses": c.poses_to_msg([still], header),
        "detections": c.tracks_to_msg([track], header),
    }
    camera, triangles = PinholeCamera.from_fov(32, 24), np.int32([[0, 1, 2]])
    assert isinstance(scene_from_msgs(parts, triangles, camera), Scene)
    with pytest.raises(DataError, match="4 vertices"):
        scene_from_msgs(parts, triangles + 1, camera)
    with pytest.raises(DataError, match="0 poses"):
        scene_from_msgs({**parts, "head_poses": PoseArray()}, triangles, camera)
    lost = Rigid(np.eye(3), np.array([0, np.nan, 1.0]))
    with pytest.raises(DataError, match="finite"):
        scene_from_msgs({**parts, "head_poses": c.poses_to_msg([lost], header)}, triangles, camera)


@ANY
@given(listed(st.floats(-10, 10), 3), listed(st.floats(-1e6, 1e6), 3))
def test_poses_round_trip(vector, translation):
    motion = Rigid(rotation_from_vector(vector), np.array(translation))
    again = c.rigid_from_pose_msg(c.pose_to_msg(motion))
    np.testing.assert_allclose(again.rotation, motion.rotation, atol=1e-9)
    np.testing.assert_array_equal(again.translation, motion.translation)


# --- what goes out ---


@ANY
@given(st.floats(0, 2**31 - 2))
def test_stamps_round_trip(stamp):
    header = c.header_of(stamp, "x")
    assert header.stamp.nanosec < 1_000_000_000
    assert c.seconds_from_stamp(header.stamp) == pytest.approx(stamp, abs=1e-6)


@ANY
@given(st.text(), st.text(), st.integers(0, 7), st.floats(0, 1e6), STAMPS)
def test_markers_can_be_read_by_rclpy(name, text, n, lifetime, stamp):
    spec = cdr.MarkerSpec(
        name.replace("\0", ""), n, cdr.TRIANGLE_LIST, lifetime_s=lifetime,
        points=np.arange(9 * n).reshape(-1, 3), text=text.replace("\0", ""),
    )  # fmt: skip
    header = c.header_of(0.0, text.replace("\0", ""))
    header.stamp.sec, header.stamp.nanosec = stamp
    data = cdr.marker_array_cdr([spec, spec], header)
    for marker in rclpy_serialization.deserialize_message(data, MarkerArray).markers:
        assert (marker.ns, marker.text, marker.id) == (spec.namespace, spec.text, n)
        assert marker.header == header
        assert [p.z for p in marker.points] == spec.points[:, 2].tolist()
        told = marker.lifetime.sec + marker.lifetime.nanosec * 1e-9
        assert told == pytest.approx(lifetime, abs=1e-6)


@ANY
@given(st.integers(0, 4), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_coefficients_say_their_layout(n, k_identity, k_expression, k_albedo):
    coefficients = Coefficients.zeros(n, k_identity, k_expression, k_albedo)
    msg = c.coefficients_to_msg(coefficients, np.zeros((n, k_identity)))
    rows, columns = (dim.size for dim in msg.layout.dim)
    assert (rows, columns) == (n, 2 * k_identity + k_expression + k_albedo + 3 + 3 + 27)
    assert len(msg.data) == rows * columns
