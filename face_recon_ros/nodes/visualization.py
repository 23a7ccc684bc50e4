"""Visualization node: meshes -> RViz markers and an overlay picture, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PoseArray
from numpy.typing import NDArray
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, PointCloud2
from sensor_msgs.msg import Image as ImageMsg
from shape_msgs.msg import Mesh as MeshMsg
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray
from visualization_msgs.msg import MarkerArray

from face_recon_ros.core.anonymise import LostFaces, hide_faces
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError, FaceReconError
from face_recon_ros.core.overlay import FaceColours, Overlay, Rgb
from face_recon_ros.core.types import DrawnFace, Mesh
from face_recon_ros.io.messages import ImageStream
from face_recon_ros.nodes import cdr, conversions
from face_recon_ros.nodes.camera_info import CameraInfoSubscriber
from face_recon_ros.nodes.cdr import MarkerSpec
from face_recon_ros.nodes.conversions import FaceCloud
from face_recon_ros.nodes.image_subscriber import choose_topic
from face_recon_ros.nodes.outputs import wanted
from face_recon_ros.nodes.parameters import VisualizationConfig
from face_recon_ros.nodes.runtime import (
    LATCHED_QOS,
    MARKER_QOS,
    RESULT_QOS,
    SENSOR_QOS,
    FaceNode,
    run,
)
from face_recon_ros.nodes.synchronizer import ExactTimeSynchronizer

_AXIS_M = 0.1
_LABEL_AT = np.array([0.0, 0.0, 0.14])  # above the head, face frame, metres
_LIFETIME_S = 0.5
_HURRIED = 0.5  # of the rates, while there is no time for all faces
_AXES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)


@dataclass(frozen=True)
class Scene:
    """What there is to draw of one image.

    Attributes:
        header: stamp and camera frame.
        faces: N.
        cloud: their vertices in the camera frame.
        camera: that took the image.
        rgb: (H, W, 3) uint8 the image, None where it is not available.
    """

    header: Header
    faces: Sequence[DrawnFace]
    cloud: FaceCloud
    camera: PinholeCamera
    rgb: NDArray[np.uint8] | None


class Visualizer:
    """Publishes markers and overlay of scenes to subscribers, each at its own rate."""

    def __init__(self, node: FaceNode) -> None:
        """Creates the publishers."""
        self._node = node
        self._markers = node.create_publisher(MarkerArray, "mesh/markers", MARKER_QOS)
        self._overlay = node.create_publisher(ImageMsg, "mesh/image", SENSOR_QOS)
        self._last: dict[str, float] = {}
        self._artist: Overlay | None = None
        self._colours = FaceColours()
        self._lost = LostFaces()

    def wanted(self) -> bool:
        """Whether there is a subscriber."""
        return wanted([self._markers, self._overlay])

    def wants_image(self) -> bool:
        """Whether the overlay has a subscriber."""
        return wanted([self._overlay])

    def due(self, stamp: float, config: VisualizationConfig, *, hurried: bool = False) -> bool:
        """Whether a scene of this stamp (seconds) would be published at all.

        `hurried`: there was no time for all faces; what is only looked at is then drawn half as
        often.
        """
        share = _HURRIED if hurried else 1.0
        return any(self._is_due(what, stamp, config, share) for what in ("markers", "overlay"))

    def publish(self, scene: Scene, config: VisualizationConfig) -> None:
        """Publishes what is due."""
        stamp = conversions.seconds_from_stamp(scene.header.stamp)
        if self._is_due("markers", stamp, config):
            self._last["markers"] = stamp
            specs = markers(scene, self._colours)
            self._markers.publish(cdr.marker_array_cdr(specs, scene.header))
            self._node.meter.count("markers")
        if scene.rgb is not None and self._is_due("overlay", stamp, config):
            self._last["overlay"] = stamp
            picture = self._draw(scene, scene.rgb, config)
            self._overlay.publish(conversions.image_to_msg(picture, scene.header))
            self._node.meter.count("overlays")

    def _draw(
        self, scene: Scene, rgb: NDArray[np.uint8], config: VisualizationConfig
    ) -> NDArray[np.uint8]:
        """The image, shrunk to the configured size, with the faces drawn over it."""
        height, width = rgb.shape[:2]
        shrink = min(1.0, config.overlay_max_side_px / max(height, width))
        camera, faces = scene.camera, scene.faces
        if shrink < 1.0:
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
            camera = camera.resized(*size)
            faces = [replace(face, boxes=face.boxes * shrink) for face in faces]
        if config.overlay.anonymise:
            rgb = rgb.copy()
            stamp = conversions.seconds_from_stamp(scene.header.stamp)
            hide_faces(rgb, self._lost.boxes(faces, rgb.shape[1], rgb.shape[0], stamp))
        if not faces:
            return rgb
        if self._artist is None or self._artist.config != config.overlay:
            mesh = faces[0].mesh
            self._artist = Overlay(
                mesh.triangles, len(mesh.vertices), config.overlay, self._colours
            )
        return self._artist.draw(rgb, faces, camera)

    def _is_due(
        self, what: str, stamp: float, config: VisualizationConfig, share: float = 1.0
    ) -> bool:
        publisher = self._markers if what == "markers" else self._overlay
        rate = config.marker_rate_hz if what == "markers" else config.overlay_rate_hz
        gap = stamp - self._last.get(what, -np.inf)
        # Five milliseconds of slack: 10 Hz out of 30 Hz is every third image, not every fourth.
        return wanted([publisher]) and (gap < 0 or gap >= 1.0 / (share * rate) - 5e-3)


def markers(scene: Scene, colours_of: FaceColours) -> list[MarkerSpec]:
    """Mesh, axes and label of every face; clears what was there before.

    Each person has a namespace, `face_<id>`, so that RViz can show and hide people.
    """
    people = colours_of(face.id for face in scene.faces)
    out = [MarkerSpec("", 0, 0, action=cdr.DELETEALL)]
    for i, face in enumerate(scene.faces):
        pose, corners = face.camera_from_face, face.mesh.triangles.ravel()
        colours = np.ones((len(corners), 4), np.float32)
        colours[:, :3] = (scene.cloud.colours[i].astype(np.float32) / 255.0)[corners]
        tips = pose.apply(_AXES * _AXIS_M)
        origin = np.broadcast_to(pose.translation, tips.shape)
        top = pose.apply(_LABEL_AT)
        out += [
            MarkerSpec(
                f"face_{face.id}",
                0,
                cdr.TRIANGLE_LIST,
                points=scene.cloud.vertices[i][corners],
                colours=colours,
                lifetime_s=_LIFETIME_S,
            ),
            MarkerSpec(
                f"face_{face.id}",
                1,
                cdr.LINE_LIST,
                scale=(0.004, 0.0, 0.0),
                points=np.stack([origin, tips], axis=1).reshape(-1, 3),
                colours=np.repeat(np.column_stack([_AXES, np.ones(3)]), 2, axis=0),
                lifetime_s=_LIFETIME_S,
            ),
            MarkerSpec(
                f"face_{face.id}",
                2,
                cdr.TEXT_VIEW_FACING,
                position=(float(top[0]), float(top[1]), float(top[2])),
                scale=(0.0, 0.0, 0.03),
                colour=_rgba(people[face.id]),
                lifetime_s=_LIFETIME_S,
                text=f"{face.id}  {np.linalg.norm(pose.translation):.2f} m",
            ),
        ]
    return out


def _rgba(rgb: Rgb) -> tuple[float, float, float, float]:
    r, g, b = rgb
    return r / 255.0, g / 255.0, b / 255.0, 1.0


class VisualizationNode(FaceNode):
    """Draws what the reconstruction node publishes."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("visualization", ("camera", "visualization"))

    def begin(self) -> None:
        """Subscribes while there are subscribers."""
        self.live.visualizer = Visualizer(self)
        self.live.camera = CameraInfoSubscriber(self, self.config("camera"))
        self.live.triangles: NDArray[np.int32] | None = None
        self.live.stream = ImageStream()
        self.live.slot = self.start_worker("visualization", self._work)
        self.live.matcher = ExactTimeSynchronizer(())
        self.create_subscription(MeshMsg, "mesh/topology", self._receive_topology, LATCHED_QOS)
        self.listen_while(
            # Where the images are is seen only when their camera publishes.
            lambda: self.live.visualizer.wants_image() and self._image_topic(),
            partial(self._listen, with_image=True),
        )
        self.listen_while(
            lambda: self.live.visualizer.wanted() and not self.live.visualizer.wants_image(),
            partial(self._listen, with_image=False),
        )

    def _listen(self, with_image: bool) -> list[Subscription]:
        """Subscribes to what is drawn; to images only where they are needed."""
        sources = [
            ("mesh/vertices", PointCloud2, SENSOR_QOS),
            ("head_poses", PoseArray, RESULT_QOS),
            ("detections", Detection2DArray, RESULT_QOS),
        ]
        if with_image:
            sources.append((*self._image_topic(), SENSOR_QOS))
        self.live.matcher = ExactTimeSynchronizer(tuple(name for name, _, _ in sources))
        return [
            self.create_subscription(kind, topic, partial(self._receive, topic), qos)
            for topic, kind, qos in sources
        ]

    def _image_topic(self) -> tuple[str, type]:
        return choose_topic(self, self.config("camera").transport)

    def _receive_topology(self, msg: MeshMsg) -> None:
        try:
            self.live.triangles = conversions.topology_from_msg(msg)[0]
        except FaceReconError as fault:
            self.complain(fault)

    def _receive(self, topic: str, msg: PointCloud2) -> None:
        if topic == "mesh/vertices":
            self.arrived(conversions.seconds_from_stamp(msg.header.stamp))
        if (parts := self.live.matcher.add(topic, msg)) is None or self.live.triangles is None:
            return
        stamp = conversions.seconds_from_stamp(msg.header.stamp)
        camera = self.live.camera.get()
        if camera and self.live.visualizer.due(stamp, self.config("visualization")):
            self.live.slot.put((parts, self.live.triangles, camera))

    def _work(self, item: tuple[dict, NDArray[np.int32], PinholeCamera]) -> None:
        scene = scene_from_msgs(*item, self.live.stream)
        self.live.visualizer.publish(scene, self.config("visualization"))
        self.meter.count("processed")


def scene_from_msgs(
    parts: Mapping[str, Any],
    triangles: NDArray[np.int32],
    camera: PinholeCamera,
    stream: ImageStream | None = None,
) -> Scene:
    """What the messages of one image say there is to draw.

    Args:
        parts: topic -> message; with or without the image.
        triangles: (F, 3) of the topology.
        camera: that took the image.
        stream: that the image belongs to.

    Raises:
        ImageError: a message that cannot be read.
        DataError: messages that contradict one another, or are not finite.
    """
    cloud = conversions.cloud_from_msg(parts["mesh/vertices"])
    tracks = conversions.tracks_from_msg(parts["detections"])
    poses = [conversions.rigid_from_pose_msg(p) for p in parts["head_poses"].poses]
    corners = int(triangles.max(initial=-1)) + 1
    if not len(tracks) == len(poses) == len(cloud.vertices) or corners > cloud.vertices.shape[1]:
        raise DataError(
            f"as many meshes, poses and detections, and meshes of at least {corners} vertices",
            f"{len(cloud.vertices)} meshes of {cloud.vertices.shape[1]} vertices, {len(poses)} "
            f"poses, {len(tracks)} detections",
            "let one reconstruction node alone publish on these topics",
        )
    numbers = [cloud.vertices, *(p.rotation for p in poses), *(p.translation for p in poses)]
    if not all(np.isfinite(values).all() for values in numbers):
        raise DataError("finite meshes and poses", "others", "check the reconstruction node")
    faces = [
        DrawnFace(
            track.id,
            np.stack([track.box, track.box]),
            pose,
            Mesh(pose.inverse().apply(vertices), triangles, colours.astype(np.float32) / 255.0),
        )
        for track, pose, vertices, colours in zip(
            tracks, poses, cloud.vertices, cloud.colours, strict=True
        )
    ]
    image = next((m for m in parts.values() if isinstance(m, ImageMsg | CompressedImage)), None)
    rgb = (stream or ImageStream()).read(image).rgb if image is not None else None
    if rgb is not None and rgb.shape[:2] != (camera.height, camera.width):
        rgb = None  # of before the camera changed its size
    return Scene(parts["mesh/vertices"].header, faces, cloud, camera, rgb)


def main() -> None:
    """Entry point."""
    run(VisualizationNode)


if __name__ == "__main__":
    main()
