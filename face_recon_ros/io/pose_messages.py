"""What pose and transform messages say, read from any object that has their fields.

As `camera_messages`: rclpy's and those of the rosbags package; nothing of ROS is imported here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from face_recon_ros.core.rigid import Rigid, rotation_from_quaternion


def rigid_from_pose_msg(msg: Any) -> Rigid:
    """`frame_from_body` of a geometry_msgs/Pose, metres."""
    return _rigid(msg.position, msg.orientation)


def rigid_from_transform_msg(msg: Any) -> Rigid:
    """`parent_from_child` of a geometry_msgs/Transform, metres."""
    return _rigid(msg.translation, msg.rotation)


def _rigid(position: Any, quaternion: Any) -> Rigid:
    xyzw = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w], np.float64)
    return Rigid(
        rotation_from_quaternion(xyzw), np.array([position.x, position.y, position.z], np.float64)
    )
