"""Depth images registered to the colour image: they correct how far away heads are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image as ImageMsg

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.head_pose import fuse_range, pose_covariance, read_range
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.types import Face
from face_recon_ros.nodes import conversions, robot_conversions
from face_recon_ros.nodes.parameters import OutputConfig
from face_recon_ros.nodes.runtime import SENSOR_QOS, FaceNode

TOPIC = "/camera/depth/image_raw"
_KEPT = 10
_SAME_TIME_S = 0.02  # depth and colour images of one exposure


class DepthFusion:
    """Faces with the distances that a depth camera saw."""

    def __init__(self, node: FaceNode, model: MorphableModel) -> None:
        """Subscribes.

        Args:
            node: that listens.
            model: of the meshes.
        """
        self._node = node
        self._images: deque[ImageMsg] = deque(maxlen=_KEPT)
        self._skin = np.flatnonzero(model.subsets[FACIAL_SKIN])
        self._normals = VertexNormals(model.triangles, model.n_vertices)
        node.create_subscription(ImageMsg, TOPIC, self._receive, SENSOR_QOS)

    def __call__(
        self, faces: Sequence[Face], camera: PinholeCamera, stamp: float, config: OutputConfig
    ) -> list[tuple[Face, NDArray[np.float64]]]:
        """Faces of one image, corrected where its depth image is there, with pose covariances.

        A head nearer than it seemed is as much smaller: its mesh stays where it is in the image.

        Args:
            faces: N.
            camera: that took the image.
            stamp: of the image, seconds.
            config: how sure poses are, and when depth is believed.
        """
        depth = self._depth_at(stamp, camera) if faces else None
        out = []
        for face in faces:
            pose = face.camera_from_face
            covariance = pose_covariance(pose, camera, config.pose_noise)
            if depth is not None:
                vertices = face.mesh.vertices
                points, normals = vertices[self._skin], self._normals(vertices)[self._skin]
                reading = read_range(depth, camera, pose, points, normals, config.depth_checks)
                self._node.meter.count("depth_readings", reading is not None)
                pose, covariance = fuse_range(pose, covariance, reading, config.depth_checks)
            out.append((_moved(face, pose), covariance))
        return out

    def _receive(self, msg: ImageMsg) -> None:
        self._images.append(msg)

    def _depth_at(self, stamp: float, camera: PinholeCamera) -> NDArray[np.float64] | None:
        def lag(msg: ImageMsg) -> float:
            return abs(conversions.seconds_from_stamp(msg.header.stamp) - stamp)

        nearest = min(list(self._images), key=lag, default=None)
        if nearest is None or lag(nearest) > _SAME_TIME_S:
            return None
        try:
            depth = robot_conversions.depth_from_msg(nearest)
            if depth.shape != (camera.height, camera.width):
                raise ImageError(
                    f"a depth image of {camera.width} x {camera.height}, as the colour image",
                    f"{depth.shape[1]} x {depth.shape[0]}",
                    f"remap {TOPIC} to the registered (aligned) depth topic of your camera",
                )
        except ImageError as fault:
            self._node.complain(fault)
            return None
        return depth


def _moved(face: Face, camera_from_face: Rigid) -> Face:
    """The face at another distance, with a mesh of the same size in the image."""
    before = float(np.linalg.norm(face.camera_from_face.translation))
    factor = np.float32(np.linalg.norm(camera_from_face.translation) / max(before, 1e-6))
    mesh = replace(face.mesh, vertices=factor * face.mesh.vertices)
    return replace(face, camera_from_face=camera_from_face, mesh=mesh)
