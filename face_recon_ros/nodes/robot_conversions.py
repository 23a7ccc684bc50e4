"""Messages <-> core types of what only robots have: joints, necks, depth, gaze, REP-155.

Continues `conversions`. The packages trajectory_msgs, control_msgs and hri_msgs are optional:
their messages are imported where they are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, PointStamped, TransformStamped, Vector3
from numpy.typing import ArrayLike, NDArray
from rclpy.duration import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, Header
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Classification, ObjectHypothesis

from face_recon_ros.core.attention import attention_angle
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.io.messages import rigid_from_transform_msg, seconds_from_stamp

FACE_PREFIX, GAZE_PREFIX = "face_", "gaze_"

# --- transforms ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transform:
    """One transform of a message: `parent_from_child`, metres, at a stamp in seconds."""

    parent: str
    child: str
    parent_from_child: Rigid
    stamp: float


def transforms_from_msg(msg: TFMessage) -> list[Transform]:
    """All transforms of a message whose numbers are finite."""
    out = []
    for transform in msg.transforms:
        if (read := _transform(transform)) is not None:
            out.append(read)
    return out


def _transform(msg: TransformStamped) -> Transform | None:
    t, q = msg.transform.translation, msg.transform.rotation
    numbers = np.array([t.x, t.y, t.z, q.x, q.y, q.z, q.w])
    if not np.isfinite(numbers).all() or not numbers[3:].any():
        return None
    return Transform(
        msg.header.frame_id.lstrip("/"),
        msg.child_frame_id.lstrip("/"),
        rigid_from_transform_msg(msg.transform),
        seconds_from_stamp(msg.header.stamp),
    )


@dataclass(frozen=True)
class FaceTransform:
    """A face of REP-155 in a message.

    Attributes:
        id: of face_<id>.
        camera: frame of the camera.
        stamp: seconds.
        camera_from_face: metres.
        attention_angle: between gaze and the direction to the camera, radians; the face's x axis
            stands in for a gaze that is not there.
    """

    id: str
    camera: str
    stamp: float
    camera_from_face: Rigid
    attention_angle: float


def faces_of_transforms(transforms: Sequence[Transform]) -> list[FaceTransform]:
    """The faces among the transforms of one message, with their gazes."""
    gazes = {
        (t.child.removeprefix(GAZE_PREFIX), t.stamp): t
        for t in transforms
        if t.child.startswith(GAZE_PREFIX)
    }
    faces = []
    for t in transforms:
        if not t.child.startswith(FACE_PREFIX):
            continue
        name, camera_from_face = t.child.removeprefix(FACE_PREFIX), t.parent_from_child
        gaze = gazes.get((name, t.stamp))
        if gaze is None:
            camera_from_gaze = Rigid(
                camera_from_face.rotation[:, [1, 2, 0]], camera_from_face.translation
            )
        elif gaze.parent == t.child:
            camera_from_gaze = camera_from_face @ gaze.parent_from_child
        else:
            camera_from_gaze = gaze.parent_from_child
        angle = attention_angle(camera_from_gaze)
        faces.append(FaceTransform(name, t.parent, t.stamp, camera_from_face, angle))
    return faces


def is_face_frame(frame: str) -> bool:
    """Whether a frame is a person's, not the robot's."""
    return frame.startswith((FACE_PREFIX, GAZE_PREFIX))


# --- depth ---------------------------------------------------------------------------------------


# --- joints and necks ----------------------------------------------------------------------------


def joint_positions_from_msg(msg: JointState) -> dict[str, float]:
    """Joint name -> position, radians; names without one are left out."""
    return dict(zip(msg.name, msg.position, strict=False))


def joint_state_to_msg(names: Sequence[str], positions: ArrayLike, header: Header) -> JointState:
    """Joint positions (J,) in radians."""
    return JointState(header=header, name=list(names), position=np.asarray(positions).tolist())


def point_to_msg(point: ArrayLike, header: Header) -> PointStamped:
    """A point (3,) in metres, in the header's frame."""
    x, y, z = (float(v) for v in np.asarray(point))
    return PointStamped(header=header, point=Point(x=x, y=y, z=z))


def commands_to_msg(positions: ArrayLike) -> Float64MultiArray:
    """Joint positions (J,) in radians, as ros2_control's forward controllers take them."""
    return Float64MultiArray(data=np.asarray(positions, np.float64).tolist())


def trajectory_to_msg(names: Sequence[str], positions: ArrayLike, reach_s: float) -> Any:
    """A trajectory_msgs/JointTrajectory of one point, to be reached from now on in `reach_s`.

    Without velocities: joint_trajectory_controller refuses a last point that is not at rest.

    Args:
        names: J joints.
        positions: (J,) radians.
        reach_s: seconds. The stamp is zero, which says now: clocks of robots differ.
    """
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    point = JointTrajectoryPoint(
        positions=np.asarray(positions, np.float64).tolist(),
        time_from_start=Duration(seconds=reach_s).to_msg(),
    )
    return JointTrajectory(joint_names=list(names), points=[point])


def positions_from_trajectory(msg: Any, names: Sequence[str]) -> NDArray[np.float64] | None:
    """(J,) end of a JointTrajectory, radians, in the order of `names`; None if it lacks one."""
    if not msg.points:
        return None
    goal = dict(zip(msg.joint_names, msg.points[-1].positions, strict=False))
    if not set(names) <= set(goal):
        return None
    return np.array([goal[name] for name in names], np.float64)


def point_head_goal(
    target: PointStamped, frame: str, axis: ArrayLike, max_velocity: float, reach_s: float
) -> Any:
    """A goal of control_msgs/PointHead.

    Args:
        target: where to look.
        frame: that is pointed.
        axis: (3,) of it.
        max_velocity: radians/s.
        reach_s: least time to get there, seconds.
    """
    from control_msgs.action import PointHead

    x, y, z = (float(v) for v in np.asarray(axis))
    return PointHead.Goal(
        target=target,
        pointing_axis=Vector3(x=x, y=y, z=z),
        pointing_frame=frame,
        min_duration=Duration(seconds=reach_s).to_msg(),
        max_velocity=max_velocity,
    )


# --- attention -----------------------------------------------------------------------------------


def attention_to_msg(looking: Mapping[str, float], header: Header) -> Classification:
    """Who looks at the robot, most directly first: face id and how directly, in [0, 1]."""
    ranked = sorted(looking.items(), key=lambda item: (-item[1], item[0]))
    results = [ObjectHypothesis(class_id=name, score=float(score)) for name, score in ranked]
    return Classification(header=header, results=results)


# --- REP-155: hri_msgs ---------------------------------------------------------------------------


def ids_to_msg(ids: Sequence[str], header: Header) -> Any:
    """hri_msgs/IdsList."""
    from hri_msgs.msg import IdsList

    return IdsList(header=header, ids=list(ids))


def region_to_msg(box: ArrayLike, confidence: float, header: Header) -> Any:
    """hri_msgs/NormalizedRegionOfInterest2D of a box (4,) in shares of the image."""
    from hri_msgs.msg import NormalizedRegionOfInterest2D

    x0, y0, x1, y1 = (float(v) for v in np.asarray(box))
    return NormalizedRegionOfInterest2D(
        header=header, xmin=x0, ymin=y0, xmax=x1, ymax=y1, c=float(np.clip(confidence, 0.0, 1.0))
    )


def landmarks_to_msg(points: ArrayLike, width: int, height: int, header: Header) -> Any:
    """hri_msgs/FacialLandmarks of (70, 3) x, y, confidence; of an image of so many pixels."""
    from hri_msgs.msg import FacialLandmarks, NormalizedPointOfInterest2D

    landmarks = [
        NormalizedPointOfInterest2D(x=float(x), y=float(y), c=float(c))
        for x, y, c in np.asarray(points)
    ]
    return FacialLandmarks(header=header, landmarks=landmarks, height=height, width=width)


def action_units_to_msg(intensity: ArrayLike, confidence: ArrayLike, header: Header) -> Any:
    """hri_msgs/FacialActionUnits of (99,) intensities and (99,) confidences in [0, 1]."""
    from hri_msgs.msg import FacialActionUnits

    return FacialActionUnits(
        header=header,
        intensity=np.asarray(intensity, np.float32),
        confidence=np.asarray(confidence, np.float32),
    )
