"""Publishers of faces, shared by the composed node and the separate ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import PoseArray, PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState, PointCloud2
from shape_msgs.msg import Mesh as MeshMsg
from std_msgs.msg import Float32MultiArray, Header
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Classification, Detection2DArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.types import COEFFICIENT_NAMES, Coefficients, Face, Track
from face_recon_ros.nodes import cdr, conversions, robot_conversions
from face_recon_ros.nodes.parameters import OutputConfig
from face_recon_ros.nodes.ros4hri import HumanOutputs
from face_recon_ros.nodes.runtime import LATCHED_QOS, RESULT_QOS, SENSOR_QOS, FaceNode
from face_recon_ros.nodes.textures import TextureOutputs

_FORGET_FACE_S = 10.0


def wanted(publishers: Sequence[Publisher]) -> bool:
    """Whether any of them has a subscriber; one that was destroyed in the meantime has none."""
    return any(_listeners(p) > 0 for p in publishers)


def _listeners(publisher: Publisher) -> int:
    try:
        return int(publisher.get_subscription_count())
    except rclpy_implementation.InvalidHandle:  # another thread has just destroyed it
        return 0


class DetectionOutputs:
    """/face/detections and /face/crops."""

    def __init__(self, node: Node) -> None:
        """Creates the publishers."""
        self.detections = node.create_publisher(Detection2DArray, "detections", RESULT_QOS)
        self.crops = node.create_publisher(ImageMsg, "crops", SENSOR_QOS)

    def wanted(self) -> bool:
        """Whether there is a subscriber."""
        return wanted([self.detections, self.crops])

    def publish(self, tracks: list[Track], crops: NDArray[np.uint8], header: Header) -> None:
        """Publishes N tracks and their (N, S, S, 3) crops, stacked vertically."""
        if wanted([self.detections]):
            self.detections.publish(conversions.tracks_to_msg(tracks, header))
        if wanted([self.crops]):
            size = crops.shape[1]
            stacked = crops.reshape(len(crops) * size, size, 3)
            self.crops.publish(conversions.image_to_msg(stacked, header))


class FaceOutputs:
    """Meshes, poses, expressions, transforms, attention, coefficients; REP-155's topics."""

    def __init__(self, node: FaceNode, reconstructor: FaceReconstructor) -> None:
        """Creates the publishers and says the topology, once."""
        self._node, self._reconstructor = node, reconstructor
        self._model = model = reconstructor.model
        self.vertices = node.create_publisher(PointCloud2, "mesh/vertices", SENSOR_QOS)
        self._topology = node.create_publisher(MeshMsg, "mesh/topology", LATCHED_QOS)
        self._topology.publish(cdr.topology_cdr(model.triangles, model.mean_shape))
        self._poses = node.create_publisher(PoseArray, "head_poses", RESULT_QOS)
        self._transforms = node.create_publisher(TFMessage, "/tf", 100)
        self._coefficients = node.create_publisher(Float32MultiArray, "coefficients", RESULT_QOS)
        self._attention = node.create_publisher(Classification, "attention", RESULT_QOS)
        self._humans = HumanOutputs(node, model) if HumanOutputs.available() else None
        self._textures = TextureOutputs(node, model)
        # Replaced as a whole, never changed: `wanted` reads it from other threads.
        self._per_face: dict[str, tuple[Publisher, Publisher, Publisher]] = {}
        self._seen: dict[str, float] = {}
        self._told = False

    def wanted(self, config: OutputConfig) -> bool:
        """Whether there is a subscriber."""
        publishers = [self.vertices, self._poses, self._attention]
        publishers += [self._transforms] if config.tf else []
        publishers += [self._coefficients] if config.coefficients else []
        publishers += [p for three in self._per_face.values() for p in three]
        publishers += self._humans.publishers if self._humans and config.humans else []
        return config.always or wanted(publishers)

    def publish(
        self,
        faces: Sequence[Face],
        crops: NDArray[np.uint8],
        camera: PinholeCamera,
        header: Header,
        config: OutputConfig,
    ) -> conversions.FaceCloud:
        """Publishes N faces of one image; N may be 0.

        Args:
            faces: N, with the state of their heads.
            crops: (N, S, S, 3) uint8 RGB of each.
            camera: that took the image.
            header: of the image.
            config: what to publish.

        Returns:
            The faces' vertices in the camera frame, for drawing.
        """
        # Before the mesh, which takes longer: who gets a mesh can place it at once.
        if config.tf and wanted([self._transforms]):
            frames = {f"face_{face.track.id}": face.camera_from_face for face in faces}
            frames |= {f"gaze_{face.track.id}": face.camera_from_gaze for face in faces}
            self._transforms.publish(conversions.transforms_to_msg(frames, header))
        cloud = conversions.FaceCloud.of(faces, self._model.n_vertices)
        if wanted([self.vertices]):
            self.vertices.publish(conversions.cloud_to_msg(cloud, header))
        if wanted([self._poses]):
            poses = [face.camera_from_face for face in faces]
            self._poses.publish(conversions.poses_to_msg(poses, header))
        if wanted([self._attention]):
            looking = {f.track.id: f.attention for f in faces if f.attention is not None}
            self._attention.publish(robot_conversions.attention_to_msg(looking, header))
        if self._humans and config.humans:
            self._humans.publish(faces, crops, camera, header)
        if config.coefficients and wanted([self._coefficients]):
            self._coefficients.publish(self._coefficients_of(faces))
        if faces and not self._told:
            self._told = True
            distance_m = np.linalg.norm(faces[0].camera_from_face.translation)
            self._node.get_logger().info(
                f"first face: {faces[0].track.id}, {distance_m:.2f} m from the camera"
            )
        for face in faces:
            self._publish_face(face, header)
        textures = [(face, self._per_face[face.id][2]) for face in faces]
        self._textures.offer([pair for pair in textures if wanted([pair[1]])], header)
        self._forget(conversions.seconds_from_stamp(header.stamp))
        return cloud

    def _coefficients_of(self, faces: Sequence[Face]) -> Float32MultiArray:
        deviations = [self._reconstructor.identity_deviation(face.track) for face in faces]
        table = np.array(deviations).reshape(len(faces), self._model.k_identity)
        return conversions.coefficients_to_msg(_all(faces, self._model), table)

    def _publish_face(self, face: Face, header: Header) -> None:
        name = face.track.id
        if name not in self._per_face:
            made = (
                self._node.create_publisher(
                    PoseWithCovarianceStamped, f"{name}/head_pose", RESULT_QOS
                ),
                self._node.create_publisher(JointState, f"{name}/expression", RESULT_QOS),
                self._node.create_publisher(ImageMsg, f"{name}/texture", LATCHED_QOS),
            )
            self._per_face = {**self._per_face, name: made}
        self._seen[name] = conversions.seconds_from_stamp(header.stamp)
        head_pose, expression, _ = self._per_face[name]
        if wanted([head_pose]):
            head_pose.publish(
                conversions.pose_with_covariance_to_msg(
                    face.camera_from_face, face.covariance, header
                )
            )
        if wanted([expression]):
            activations = face.coefficients.expression[0]
            names = self._model.expression_names
            expression.publish(conversions.expression_to_msg(names, activations, header))

    def _forget(self, now: float) -> None:
        for name, seen in list(self._seen.items()):
            if abs(now - seen) > _FORGET_FACE_S:
                gone = self._per_face[name]
                self._per_face = {n: p for n, p in self._per_face.items() if n != name}
                for publisher in gone:
                    self._node.destroy_publisher(publisher)
                self._textures.forget(name)
                del self._seen[name]


def _all(faces: Sequence[Face], model: MorphableModel) -> Coefficients:
    rows = [face.coefficients for face in faces]
    if not rows:
        return Coefficients.zeros(0, model.k_identity, model.k_expression, model.k_albedo)
    return Coefficients(
        **{
            name: np.concatenate([getattr(row, name) for row in rows])
            for name in COEFFICIENT_NAMES
        }
    )
