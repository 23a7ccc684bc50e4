"""REP-155 (ROS4HRI): /humans/faces/... where hri_msgs is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.facs import action_units
from face_recon_ros.core.humans import landmarks, normalised_box, upright
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.types import Face
from face_recon_ros.nodes import conversions, robot_conversions
from face_recon_ros.nodes.runtime import RESULT_QOS

try:
    from hri_msgs.msg import (
        FacialActionUnits,
        FacialLandmarks,
        IdsList,
        NormalizedRegionOfInterest2D,
    )
except ImportError:
    IdsList = None

#: REP-155's default width and height of cropped faces, pixels.
CROP_SIZE_PX = 128


@dataclass(frozen=True)
class _Topics:
    """Publishers of one face."""

    roi: Publisher
    cropped: Publisher
    aligned: Publisher
    landmarks: Publisher
    facs: Publisher

    @property
    def all(self) -> list[Publisher]:
        return [self.roi, self.cropped, self.aligned, self.landmarks, self.facs]


class HumanOutputs:
    """Topics of REP-155. A face's topics exist for as long as it is tracked."""

    @staticmethod
    def available() -> bool:
        """Whether hri_msgs is installed."""
        return IdsList is not None

    def __init__(self, node: Node, model: MorphableModel) -> None:
        """Creates /humans/faces/tracked.

        Args:
            node: that publishes.
            model: of the meshes.
        """
        self._node, self._model = node, model
        self._tracked = node.create_publisher(IdsList, "/humans/faces/tracked", RESULT_QOS)
        # Replaced as a whole, never changed: `publishers` is read from other threads.
        self._faces: dict[str, _Topics] = {}

    @property
    def publishers(self) -> list[Publisher]:
        """All there are now."""
        return [self._tracked, *(p for topics in self._faces.values() for p in topics.all)]

    def publish(
        self,
        faces: Sequence[Face],
        crops: NDArray[np.uint8],
        camera: PinholeCamera,
        header: Header,
    ) -> None:
        """Publishes the faces of one image; there may be none.

        Args:
            faces: N.
            crops: (N, S, S, 3) uint8 RGB of each.
            camera: that took the image.
            header: of the image.
        """
        ids = [face.track.id for face in faces]
        before = self._faces
        self._faces = {
            name: before[name] if name in before else self._create(name) for name in ids
        }
        for name in set(before) - set(ids):
            for publisher in before[name].all:
                self._node.destroy_publisher(publisher)
        for face, crop in zip(faces, crops, strict=True):
            self._publish_face(self._faces[face.track.id], face, crop, camera, header)
        self._tracked.publish(robot_conversions.ids_to_msg(ids, header))

    def _create(self, name: str) -> _Topics:
        def publisher(kind: type, topic: str) -> Publisher:
            return self._node.create_publisher(kind, f"/humans/faces/{name}/{topic}", RESULT_QOS)

        return _Topics(
            publisher(NormalizedRegionOfInterest2D, "roi"),
            publisher(ImageMsg, "cropped"),
            publisher(ImageMsg, "aligned"),
            publisher(FacialLandmarks, "landmarks"),
            publisher(FacialActionUnits, "facs"),
        )

    def _publish_face(
        self,
        topics: _Topics,
        face: Face,
        crop: NDArray[np.uint8],
        camera: PinholeCamera,
        header: Header,
    ) -> None:
        score = face.track.score
        if topics.roi.get_subscription_count():
            box = normalised_box(face.track.box, camera.width, camera.height)
            topics.roi.publish(robot_conversions.region_to_msg(box, score, header))
        if topics.landmarks.get_subscription_count():
            points = landmarks(face, self._model, camera)
            msg = robot_conversions.landmarks_to_msg(points, camera.width, camera.height, header)
            topics.landmarks.publish(msg)
        if topics.facs.get_subscription_count():
            names, activations = self._model.expression_names, face.coefficients.expression[0]
            units = action_units(names, activations, float(np.clip(score, 0.0, 1.0)))
            topics.facs.publish(robot_conversions.action_units_to_msg(*units, header))
        if topics.cropped.get_subscription_count():
            topics.cropped.publish(conversions.image_to_msg(_sized(crop), header))
        if topics.aligned.get_subscription_count():
            turned = upright(crop, face, self._model, camera)
            topics.aligned.publish(conversions.image_to_msg(_sized(turned), header))


def _sized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (CROP_SIZE_PX, CROP_SIZE_PX)
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
