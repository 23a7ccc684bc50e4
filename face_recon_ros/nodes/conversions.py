"""Messages <-> core types. Quaternions occur only in modules of conversions.

rclpy has no zero copy and slow field setters, so bulk data goes through `array.array`, which is
fast in every distribution, or is laid out as CDR bytes (`nodes/cdr.py`).
"""

from __future__ import annotations

import array
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseArray,
    PoseWithCovarianceStamped,
    Quaternion,
    TransformStamped,
    Vector3,
)
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, JointState, PointCloud2, PointField
from sensor_msgs.msg import Image as ImageMsg
from shape_msgs.msg import Mesh as MeshMsg
from std_msgs.msg import Float32MultiArray, Header, MultiArrayDimension
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError, ImageError
from face_recon_ros.core.rigid import Rigid, quaternion_from_rotation
from face_recon_ros.core.types import COEFFICIENT_NAMES, Coefficients, Face, Float32, Track
from face_recon_ros.io.messages import image_from_msg as image_from_msg
from face_recon_ros.io.messages import rigid_from_pose_msg as rigid_from_pose_msg
from face_recon_ros.io.messages import seconds_from_stamp

FACE_CLASS = "face"
_MAX_PX = 1e6  # of a box: beyond, float32 has no subpixels left

# --- headers and stamps --------------------------------------------------------------------------


def header_of(stamp: float, frame: str) -> Header:
    """A header.

    Args:
        stamp: seconds. The same number always gives the same message stamp.
        frame: frame id.
    """
    header = Header(frame_id=frame)
    seconds = math.floor(max(stamp, 0.0))
    nanoseconds = round((max(stamp, 0.0) - seconds) * 1e9)  # before the sum loses digits
    carry, header.stamp.nanosec = divmod(nanoseconds, 1_000_000_000)
    header.stamp.sec = seconds + carry
    return header


# --- images --------------------------------------------------------------------------------------


def image_to_msg(rgb: NDArray[np.uint8], header: Header) -> ImageMsg:
    """(H, W, 3) uint8 RGB as an rgb8 message; H may be 0."""
    msg = ImageMsg(header=header, height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8")
    msg.is_bigendian = int(sys.byteorder == "big")
    msg.step = rgb.shape[1] * 3
    msg.data = bytes_array(rgb)
    return msg


def bytes_array(values: NDArray[np.generic]) -> array.array[int]:
    """The bytes of an array as array.array('B'), the one form every rclpy takes fast."""
    out = array.array("B")
    out.frombytes(memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8)))
    return out


# --- cameras -------------------------------------------------------------------------------------


def camera_to_msg(camera: PinholeCamera, header: Header) -> CameraInfo:
    """A camera as CameraInfo; one without calibration as K of zeros, which is how ROS says so."""
    msg = CameraInfo(header=header, width=camera.width, height=camera.height)
    msg.distortion_model = camera.distortion_model
    if camera.calibrated:
        k = camera.matrix
        msg.d = camera.distortion.tolist()
        msg.k = k.ravel()
        msg.r = np.eye(3).ravel()
        msg.p = np.column_stack([k, np.zeros(3)]).ravel()
    return msg


# --- detections ----------------------------------------------------------------------------------


def tracks_to_msg(tracks: Iterable[Track], header: Header) -> Detection2DArray:
    """Tracks of one image."""
    msg = Detection2DArray(header=header)
    for track in tracks:
        x0, y0, x1, y1 = (float(v) for v in track.box)
        detection = Detection2D(header=header, id=track.id)
        detection.bbox.center.position.x = (x0 + x1) / 2
        detection.bbox.center.position.y = (y0 + y1) / 2
        detection.bbox.size_x, detection.bbox.size_y = x1 - x0, y1 - y0
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = FACE_CLASS, float(track.score)
        detection.results.append(result)
        msg.detections.append(detection)
    return msg


def tracks_from_msg(msg: Detection2DArray) -> list[Track]:
    """Inverse of `tracks_to_msg`; ages are not carried, scores are held to [0, 1].

    Raises:
        ImageError: a box that is none, or lies further out than any image.
    """
    stamp = seconds_from_stamp(msg.header.stamp)
    tracks = []
    for index, detection in enumerate(msg.detections):
        centre = detection.bbox.center.position
        half_x, half_y = detection.bbox.size_x / 2, detection.bbox.size_y / 2
        ends = [centre.x - half_x, centre.y - half_y, centre.x + half_x, centre.y + half_y]
        with np.errstate(over="ignore"):
            box = np.array(ends, np.float64).astype(np.float32)
        if not (np.abs(box) < _MAX_PX).all() or not (box[:2] < box[2:]).all():
            raise ImageError("finite boxes of a size", f"{box.tolist()}", "check the detector")
        scores = [r.hypothesis.score for r in detection.results if r.hypothesis.score > 0]
        score = min(max(scores, default=0.0), 1.0)  # NaN is no score
        tracks.append(Track(detection.id or f"nr{index}", box, float(score), stamp))
    return tracks


# --- meshes --------------------------------------------------------------------------------------

_POINT = np.dtype([("xyz", "<f4", 3), ("bgra", "u1", 4)])


@dataclass(frozen=True)
class FaceCloud:
    """The vertices of all faces of an image.

    Attributes:
        vertices: (N, V, 3) float32 metres, camera optical frame.
        colours: (N, V, 3) uint8 RGB.
    """

    vertices: Float32
    colours: NDArray[np.uint8]

    @staticmethod
    def of(faces: Sequence[Face], n_vertices: int) -> FaceCloud:
        """The cloud of N faces, each with V = n_vertices; N may be 0."""
        vertices = np.zeros((len(faces), n_vertices, 3), np.float32)
        colours = np.full((len(faces), n_vertices, 3), 200, np.uint8)
        for i, face in enumerate(faces):
            vertices[i] = face.camera_from_face.apply(face.mesh.vertices)
            if face.mesh.colours is not None:
                colours[i] = np.clip(face.mesh.colours * 255.0 + 0.5, 0, 255)
        return FaceCloud(vertices, colours)


def cloud_to_msg(cloud: FaceCloud, header: Header) -> PointCloud2:
    """An organised cloud: a row per face, a column per vertex; fields x, y, z, rgb."""
    n, v = cloud.vertices.shape[:2]
    points = np.zeros((n, v), _POINT)
    points["xyz"] = cloud.vertices
    points["bgra"][..., :3] = cloud.colours[..., ::-1]
    msg = PointCloud2(header=header, height=n, width=v, is_dense=True)
    msg.fields = [
        PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        for name, offset in (("x", 0), ("y", 4), ("z", 8), ("rgb", 12))
    ]
    msg.point_step, msg.row_step = _POINT.itemsize, _POINT.itemsize * v
    msg.data = bytes_array(points)
    return msg


def cloud_from_msg(msg: PointCloud2) -> FaceCloud:
    """Inverse of `cloud_to_msg`.

    Raises:
        ImageError: a cloud of another layout.
    """
    layout = [(f.name, f.offset) for f in msg.fields]
    size = msg.height * msg.width * _POINT.itemsize
    if layout != [("x", 0), ("y", 4), ("z", 8), ("rgb", 12)] or len(msg.data) != size:
        raise ImageError(
            "a cloud x y z rgb of 16 bytes a point",
            f"{layout}, {len(msg.data)} bytes",
            "subscribe to /face/mesh/vertices",
        )
    points = np.frombuffer(msg.data, _POINT).reshape(msg.height, msg.width)
    return FaceCloud(
        np.ascontiguousarray(points["xyz"]),
        np.ascontiguousarray(points["bgra"][..., 2::-1]),
    )


def topology_from_msg(msg: MeshMsg) -> tuple[NDArray[np.int32], Float32]:
    """(F, 3) triangles and (V, 3) vertices of a shape_msgs/Mesh.

    Raises:
        DataError: triangles with corners that are no vertices.
    """
    corners = np.array([t.vertex_indices for t in msg.triangles], np.int64).reshape(-1, 3)
    vertices = np.array([(p.x, p.y, p.z) for p in msg.vertices], np.float64).reshape(-1, 3)
    if corners.max(initial=-1) >= len(vertices):
        raise DataError(
            f"triangles of {len(vertices)} vertices",
            f"corner {corners.max()}",
            "let the reconstruction node alone publish on /face/mesh/topology",
        )
    return corners.astype(np.int32), vertices.astype(np.float32)


# --- poses ---------------------------------------------------------------------------------------


def pose_to_msg(frame_from_body: Rigid) -> Pose:
    """A rigid motion as a pose of the body in the frame."""
    return Pose(
        position=Point(**_xyz(frame_from_body.translation)),
        orientation=_quaternion(frame_from_body),
    )


def poses_to_msg(poses: Iterable[Rigid], header: Header) -> PoseArray:
    """camera_from_face of all faces."""
    return PoseArray(header=header, poses=[pose_to_msg(p) for p in poses])


def pose_with_covariance_to_msg(
    camera_from_face: Rigid, covariance: NDArray[np.floating], header: Header
) -> PoseWithCovarianceStamped:
    """A pose and its (6, 6) covariance: x, y, z in metres, rotation about x, y, z in radians."""
    msg = PoseWithCovarianceStamped(header=header)
    msg.pose.pose = pose_to_msg(camera_from_face)
    msg.pose.covariance = np.asarray(covariance, np.float64).ravel()
    return msg


def transforms_to_msg(camera_from_children: Mapping[str, Rigid], header: Header) -> TFMessage:
    """Transforms from the header's frame to each child frame."""
    msg = TFMessage()
    for child, motion in camera_from_children.items():
        transform = TransformStamped(header=header, child_frame_id=child)
        transform.transform.translation = Vector3(**_xyz(motion.translation))
        transform.transform.rotation = _quaternion(motion)
        msg.transforms.append(transform)
    return msg


def _xyz(vector: NDArray[np.floating]) -> dict[str, float]:
    return dict(zip("xyz", map(float, vector), strict=True))


def _quaternion(motion: Rigid) -> Quaternion:
    values = map(float, quaternion_from_rotation(motion.rotation))
    return Quaternion(**dict(zip("xyzw", values, strict=True)))


# --- numbers -------------------------------------------------------------------------------------


def expression_to_msg(
    names: Sequence[str], activations: NDArray[np.floating], header: Header
) -> JointState:
    """(K_exp,) activations by name, as an animatronic face or an avatar takes them.

    Not all channels can be trusted; docs/expressions.md says which, from measurements.
    """
    return JointState(header=header, name=list(names), position=activations.tolist())


def coefficients_to_msg(rows: Coefficients, deviation: NDArray) -> Float32MultiArray:
    """N rows of all coefficients; the second dimension's label says what lies where.

    Labels: `face`, and `identity[80] expression[52] ... identity_deviation[80]` in the order of
    the columns; the last are `deviation` (N, K_id), standard deviations of the identity.
    """
    n = len(rows)
    named = {name: getattr(rows, name) for name in COEFFICIENT_NAMES}
    named["identity_deviation"] = deviation
    parts = {name: a.reshape(n, math.prod(a.shape[1:])) for name, a in named.items()}
    values = np.concatenate(list(parts.values()), axis=1).astype(np.float32)
    label = " ".join(f"{name}[{part.shape[1]}]" for name, part in parts.items())
    msg = Float32MultiArray()
    columns = values.shape[1]
    msg.layout.dim = [
        MultiArrayDimension(label="face", size=n, stride=n * columns),
        MultiArrayDimension(label=label, size=columns, stride=columns),
    ]
    msg.data = array.array("f", values.tobytes())
    return msg


# --- diagnostics ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Health:
    """How one node is.

    Attributes:
        name: of the status.
        hardware_id: model or device.
        message: in a few words.
        values: key -> value.
        warn: whether something deserves attention.
    """

    name: str
    hardware_id: str
    message: str
    values: Mapping[str, object]
    warn: bool = False


def health_to_msg(health: Health, header: Header) -> DiagnosticArray:
    """One node's health as DiagnosticArray."""
    status = DiagnosticStatus(
        level=DiagnosticStatus.WARN if health.warn else DiagnosticStatus.OK,
        name=health.name,
        message=health.message,
        hardware_id=health.hardware_id,
        values=[KeyValue(key=k, value=str(v)) for k, v in health.values.items()],
    )
    return DiagnosticArray(header=header, status=[status])
