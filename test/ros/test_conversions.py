"""Messages <-> core: round trips, and the numpy-made CDR bytes against rclpy's own."""

import re
from pathlib import Path

import numpy as np
import pytest

rclpy_serialization = pytest.importorskip("rclpy.serialization", reason="needs ROS 2 (rclpy)")

from geometry_msgs.msg import Point
from sensor_msgs.msg import CameraInfo, PointCloud2
from sensor_msgs.msg import Image as ImageMsg
from shape_msgs.msg import Mesh as MeshMsg
from shape_msgs.msg import MeshTriangle
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError, DataError, ImageError
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Coefficients, Track
from face_recon_ros.io.camera_info import camera_from_msg
from face_recon_ros.io.encodings import ENCODINGS
from face_recon_ros.nodes import cdr
from face_recon_ros.nodes import conversions as c

RNG = np.random.default_rng(0)
HEADER = c.header_of(1_700_000_000.25, "camera_optical_frame")


def serialised(msg):
    return bytes(rclpy_serialization.serialize_message(msg))


def deserialised(data, kind):
    return rclpy_serialization.deserialize_message(data, kind)


def image_msg(pixels, encoding, padding=0, big_endian=False):
    """A message of (H, W, C) or (H, W) pixels with padded rows."""
    pixels = np.ascontiguousarray(pixels)
    rows = pixels.reshape(pixels.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    msg = ImageMsg(header=HEADER, height=pixels.shape[0], width=pixels.shape[1])
    msg.encoding, msg.step, msg.is_bigendian = encoding, rows.shape[1], int(big_endian)
    msg.data = c.bytes_array(rows)
    return msg


RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)


# --- stamps ---


@pytest.mark.parametrize("stamp", [0.0, 1e-9, 0.5, 12.999999999, 1_700_000_000.123456])
def test_stamp_round_trip(stamp):
    assert c.seconds_from_stamp(c.header_of(stamp, "x").stamp) == pytest.approx(stamp, abs=1e-6)


def test_stamp_carries_over_to_the_next_second():
    header = c.header_of(1.9999999999, "x")
    assert (header.stamp.sec, header.stamp.nanosec) == (2, 0)


# --- images ---


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", np.dstack([RGB, RGB[..., :1]])),
        ("bgra8", np.dstack([RGB[..., ::-1], RGB[..., :1]])),
        ("8UC4", np.dstack([RGB[..., ::-1], RGB[..., :1]])),
    ],
)
def test_colour_encodings(encoding, pixels, padding):
    image = c.image_from_msg(image_msg(pixels, encoding, padding))
    np.testing.assert_array_equal(image.rgb, RGB)
    assert image.frame == HEADER.frame_id
    assert image.stamp == 1_700_000_000.25


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey(encoding):
    image = c.image_from_msg(image_msg(RGB[..., 0], encoding, padding=3))
    np.testing.assert_array_equal(image.rgb, RGB[..., [0, 0, 0]])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_grey_16_bit_spans_the_whole_range(encoding, big_endian):
    values = np.array([[0, 257, 65535, 128 * 257]], ">u2" if big_endian else "<u2")
    image = c.image_from_msg(image_msg(values, encoding, padding=2, big_endian=big_endian))
    np.testing.assert_array_equal(image.rgb[0, :, 1], [0, 1, 255, 128])


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv")]
)
def test_yuv_of_one_grey_is_that_grey(encoding, order):
    luma, chroma = 126, 128  # video range: 255/219 * (126 - 16) = 128
    two = [chroma, luma] if order == "uyvy" else [luma, chroma]
    pixels = np.tile(np.array(two, np.uint8), (4, 6, 1))
    rgb = c.image_from_msg(image_msg(pixels, encoding)).rgb
    assert rgb.shape == (4, 6, 3)
    assert np.abs(rgb.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("encoding", ["yuv422", "yuyv"])
def test_yuv_of_odd_width_is_refused(encoding):
    with pytest.raises(ImageError, match="even sides"):
        c.image_from_msg(image_msg(np.zeros((4, 5, 2), np.uint8), encoding))


def test_yuv_red_is_red():
    u, y, v = 90, 81, 240  # BT.601 red
    pixels = np.tile(np.array([[u, y], [v, y]], np.uint8), (2, 2, 1))
    red, green, blue = c.image_from_msg(image_msg(pixels, "yuv422")).rgb.reshape(-1, 3).mean(0)
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_of_one_colour_is_that_colour(pattern):
    colour = {"r": 200, "g": 100, "b": 30}
    tile = np.array([colour[k] for k in pattern], np.uint8).reshape(2, 2)
    rgb = c.image_from_msg(image_msg(np.tile(tile, (5, 5)), f"bayer_{pattern}8")).rgb
    np.testing.assert_allclose(rgb[2:-2, 2:-2].reshape(-1, 3).mean(0), [200, 100, 30], atol=1)


def test_image_round_trip_through_the_wire():
    msg = deserialised(serialised(c.image_to_msg(RGB, HEADER)), ImageMsg)
    np.testing.assert_array_equal(c.image_from_msg(msg).rgb, RGB)
    assert msg.header == HEADER


def test_empty_image_can_be_sent_but_not_used():
    msg = c.image_to_msg(np.zeros((0, 64, 3), np.uint8), HEADER)
    with pytest.raises(ImageError, match="pixels"):
        c.image_from_msg(msg)


def test_unknown_encoding_names_the_known_ones():
    with pytest.raises(ImageError, match=r"rgb8, bgr8.*'fancy'"):
        c.image_from_msg(image_msg(RGB, "fancy"))


@pytest.mark.parametrize("spoil", [{"step": 23}, {"height": 7}, {"width": 9}, {"width": 2**31}])
def test_step_or_size_that_does_not_fit(spoil):
    msg = image_msg(RGB, "rgb8")
    for key, value in spoil.items():
        setattr(msg, key, value)
    with pytest.raises(ImageError, match="step"):
        c.image_from_msg(msg)


def test_last_row_without_its_padding():
    msg = image_msg(RGB, "rgb8", padding=4)
    msg.data = msg.data[:-4]
    np.testing.assert_array_equal(c.image_from_msg(msg).rgb, RGB)


def test_same_as_cv_bridge():
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed")
    bridge = cv_bridge.CvBridge()
    for encoding in ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422"):
        channels = ENCODINGS[encoding].channels
        msg = image_msg(RNG.integers(0, 256, (6, 8, channels), np.uint8), encoding)
        ours = c.image_from_msg(msg).rgb
        np.testing.assert_array_equal(ours, bridge.imgmsg_to_cv2(msg, "rgb8"))


# --- cameras ---


def camera_info(**changes):
    msg = CameraInfo(width=640, height=480, distortion_model="plumb_bob")
    msg.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    msg.d = [0.1, -0.2, 0.001, 0.002, 0.01]
    for key, value in changes.items():
        setattr(msg, key, value)
    return msg


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.01]),
        ("rational_polynomial", [0.1, -0.2, 0.001, 0.002, 0.01, 0.02, 0.03, 0.04]),
        ("equidistant", [0.01, 0.002, 0.001, 0.0]),
    ],
)
def test_camera_round_trip(model, d):
    camera = camera_from_msg(camera_info(distortion_model=model, d=d))
    again = camera_from_msg(c.camera_to_msg(camera, HEADER))
    np.testing.assert_array_equal(again.matrix, camera.matrix)
    np.testing.assert_array_equal(again.distortion, d)
    assert again.distortion_model == model


def test_region_of_interest_and_binning_keep_rays():
    whole = camera_from_msg(camera_info())
    msg = camera_info(binning_x=2, binning_y=2)
    msg.roi.x_offset, msg.roi.y_offset, msg.roi.width, msg.roi.height = 100, 50, 200, 160
    part = camera_from_msg(msg)
    assert (part.width, part.height) == (100, 80)
    ray = np.array([-0.1, -0.15, 1.0])
    full = whole.project(ray)
    # pixel 0 of the binned image covers pixels 100 and 101 of the whole one
    np.testing.assert_allclose(part.project(ray), (full - [100.5, 50.5]) / 2)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"k": [0.0] * 9}, "uncalibrated"),
        ({"k": [float("nan")] * 9}, "nan"),
        ({"k": [-1.0, 0, 1, 0, 5, 1, 0, 0, 1]}, "-1.0"),
        ({"width": 0}, "0 x 0"),
    ],
)
def test_impossible_cameras(changes, what):
    with pytest.raises(CameraError, match=what):
        camera_from_msg(camera_info(**changes))


def test_a_guessed_camera_is_sent_as_uncalibrated():
    msg = c.camera_to_msg(PinholeCamera.from_fov(64, 48), HEADER)
    assert not np.any(msg.k)
    with pytest.raises(CameraError, match="uncalibrated"):
        camera_from_msg(msg)


# --- detections ---


def test_tracks_round_trip():
    tracks = [
        Track("abcde", np.array([10, 20, 110, 140], np.float32), 0.9, 1_700_000_000.25),
        Track("fghij", np.array([-10, 0, 5, 7], np.float32), 0.5, 1_700_000_000.25),
    ]
    again = c.tracks_from_msg(
        deserialised(serialised(c.tracks_to_msg(tracks, HEADER)), c.Detection2DArray)
    )
    for a, b in zip(again, tracks, strict=True):
        assert (a.id, a.score, a.stamp) == (b.id, pytest.approx(b.score), b.stamp)
        np.testing.assert_allclose(a.box, b.box)


def test_no_tracks():
    assert c.tracks_from_msg(c.tracks_to_msg([], HEADER)) == []


def test_a_box_that_is_none():
    msg = c.tracks_to_msg([Track("abcde", np.zeros(4, np.float32), 0.9, 0.0)], HEADER)
    with pytest.raises(ImageError, match="box"):
        c.tracks_from_msg(msg)


# --- meshes ---


@pytest.mark.parametrize("n", [0, 1, 3])
def test_cloud_round_trip(n):
    cloud = c.FaceCloud(
        RNG.normal(size=(n, 50, 3)).astype(np.float32),
        RNG.integers(0, 256, (n, 50, 3), np.uint8),
    )
    msg = deserialised(serialised(c.cloud_to_msg(cloud, HEADER)), PointCloud2)
    assert (msg.height, msg.width) == (n, 50)
    again = c.cloud_from_msg(msg)
    np.testing.assert_array_equal(again.vertices, cloud.vertices)
    np.testing.assert_array_equal(again.colours, cloud.colours)


def test_the_documented_reader_of_meshes_reads_them(capsys):
    page = (Path(__file__).parents[2] / "docs/ros.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    reader = {}
    exec(example.partition("rclpy.init()")[0], reader)
    vertices = np.full((2, 3, 3), 1.5, np.float32)
    cloud = c.FaceCloud(vertices, np.zeros((2, 3, 3), np.uint8))
    reader["receive"](c.cloud_to_msg(cloud, HEADER))
    assert capsys.readouterr().out == "0 [1.5 1.5 1.5]\n1 [1.5 1.5 1.5]\n"


def test_a_cloud_of_another_layout():
    msg = c.cloud_to_msg(
        c.FaceCloud(np.zeros((1, 2, 3), np.float32), np.zeros((1, 2, 3), np.uint8)), HEADER
    )
    msg.fields = msg.fields[:3]
    with pytest.raises(ImageError, match="cloud"):
        c.cloud_from_msg(msg)


@pytest.mark.parametrize("n", [0, 1, 40])
def test_topology_bytes_are_rclpys(n):
    triangles = RNG.integers(0, n + 2, (n, 3)).astype(np.int32)
    vertices = RNG.normal(size=(n + 2, 3)).astype(np.float32)
    data = cdr.topology_cdr(triangles, vertices)
    msg = MeshMsg(
        triangles=[MeshTriangle(vertex_indices=t.astype(np.uint32)) for t in triangles],
        vertices=[Point(x=float(x), y=float(y), z=float(z)) for x, y, z in vertices],
    )
    assert len(data) == len(serialised(msg))  # the bytes themselves differ in their padding
    assert deserialised(data, MeshMsg) == msg
    again, points = c.topology_from_msg(deserialised(data, MeshMsg))
    np.testing.assert_array_equal(again, triangles)
    np.testing.assert_array_equal(points, vertices)


def test_triangles_of_vertices_that_are_not_there():
    data = cdr.topology_cdr(
        np.int32([[0, 1, 2], [0, 2, 2_000_000_000]]), np.zeros((3, 3), np.float32)
    )
    with pytest.raises(DataError, match="corner 2000000000"):
        c.topology_from_msg(deserialised(data, MeshMsg))


# --- markers ---


def marker_msg(spec):
    """The same marker through rclpy's own classes."""
    marker = Marker(header=HEADER, ns=spec.namespace, id=spec.id, type=spec.type)
    marker.action, marker.text = spec.action, spec.text
    p, s = marker.pose.position, marker.scale
    p.x, p.y, p.z = spec.position
    s.x, s.y, s.z = spec.scale
    r, g, b, a = spec.colour
    marker.color = ColorRGBA(r=r, g=g, b=b, a=a)
    marker.lifetime.sec = int(spec.lifetime_s)
    marker.lifetime.nanosec = round((spec.lifetime_s % 1) * 1e9)
    marker.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in spec.points]
    marker.colors = [
        ColorRGBA(r=float(r), g=float(g), b=float(b), a=float(a)) for r, g, b, a in spec.colours
    ]
    return marker


@pytest.mark.parametrize(
    "specs",
    [
        [],
        [cdr.MarkerSpec("", 0, cdr.TEXT_VIEW_FACING)],
        [
            cdr.MarkerSpec(
                "mesh",
                i,
                cdr.TRIANGLE_LIST,
                position=(1.0, 2.0, 3.0),
                scale=(0.5, 0.25, 2.0),
                colour=(1.0, 0.5, 0.25, 0.125),
                lifetime_s=1.5,
                points=RNG.normal(size=(3 * i, 3)),
                colours=RNG.random((3 * i, 4), np.float32),
                text="x" * i,
            )
            for i in range(6)
        ],
    ],
    ids=["none", "bare", "several"],
)
def test_marker_bytes_are_rclpys(specs):
    data = cdr.marker_array_cdr(specs, HEADER)
    expected = MarkerArray(markers=[marker_msg(spec) for spec in specs])
    assert deserialised(data, MarkerArray) == expected
    assert len(data) == len(serialised(expected))


# --- poses and numbers ---


def test_pose_round_trip():
    for _ in range(20):
        motion = Rigid(rotation_from_vector(RNG.normal(size=3)), RNG.normal(size=3))
        again = c.rigid_from_pose_msg(c.pose_to_msg(motion))
        np.testing.assert_allclose(again.rotation, motion.rotation, atol=1e-12)
        np.testing.assert_allclose(again.translation, motion.translation)


def test_transforms_name_their_frames():
    motion = Rigid(rotation_from_vector([0, 0, 0.5]), np.array([1.0, 2.0, 3.0]))
    msg = c.transforms_to_msg({"face_abcde": motion}, HEADER)
    (transform,) = msg.transforms
    assert transform.header == HEADER
    assert transform.child_frame_id == "face_abcde"
    assert transform.transform.translation.y == 2.0
    assert transform.transform.rotation.z == pytest.approx(np.sin(0.25))
    assert c.transforms_to_msg({}, HEADER).transforms == []


def test_coefficients_are_labelled():
    n, sizes = 2, (80, 52, 80)
    coefficients = Coefficients.zeros(n, *sizes)
    msg = c.coefficients_to_msg(coefficients, np.full((n, 80), 0.5))
    assert [d.size for d in msg.layout.dim] == [2, 80 + 52 + 80 + 3 + 3 + 27 + 80]
    label = "identity[80] expression[52] albedo[80] rotation[3] translation[3] illumination[27]"
    assert msg.layout.dim[1].label == label + " identity_deviation[80]"
    values = np.array(msg.data).reshape(n, -1)
    np.testing.assert_array_equal(values[:, 215:218], coefficients.translation)
    assert (values[:, -80:] == 0.5).all()
    nobody = c.coefficients_to_msg(Coefficients.zeros(0, *sizes), np.zeros((0, 80)))
    assert len(nobody.data) == 0


def test_expression_carries_names():
    msg = c.expression_to_msg(["jawOpen", "eyeBlinkLeft"], np.array([0.5, 1.0]), Header())
    assert list(msg.name) == ["jawOpen", "eyeBlinkLeft"]
    assert list(msg.position) == [0.5, 1.0]
