"""What follows from a reconstructed face: how sure its pose is, where it looks, whether at us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.attention import Attention, AttentionConfig, Gaze, attention_angle
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.depth_fusion import DepthConfig, check_registered, fuse_range, read_range
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.pose_uncertainty import PoseNoise, pose_covariance
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.types import Face


@dataclass(frozen=True)
class HeadStateConfig:
    """How the state of a head is estimated.

    Attributes:
        attention: This decides who is on /face/attention.
        pose_noise: This is part of the covariance of head poses.
        depth_checks: This decides whether a depth image is believed.
    """

    attention: AttentionConfig = field(default_factory=AttentionConfig)
    pose_noise: PoseNoise = field(default_factory=PoseNoise)
    depth_checks: DepthConfig = field(default_factory=DepthConfig)


class HeadStateEstimator:
    """Adds pose covariance, depth, gaze and attention to reconstructed faces."""

    def __init__(self, model: MorphableModel, config: HeadStateConfig | None = None) -> None:
        """Prepares for meshes of a face model; `config` says how."""
        self.config = config or HeadStateConfig()
        self._skin = np.flatnonzero(model.subsets[FACIAL_SKIN])
        self._normals = VertexNormals(model.triangles, model.n_vertices)
        self._gaze, self._attention = Gaze(model), Attention()

    def tune(self, config: HeadStateConfig) -> None:
        """Estimates from the next image on by other settings."""
        self.config = config

    def __call__(
        self,
        faces: Sequence[Face],
        camera: PinholeCamera,
        stamp: float,
        depth: NDArray[np.float64] | None = None,
    ) -> list[Face]:
        """The faces of the next image of a video.

        Args:
            faces: N.
            camera: that took the image.
            stamp: of the image, seconds.
            depth: (H, W) metres along the optical axis, registered to the image; 0 or NaN is a
                hole. None where there is none.

        Returns:
            The faces with covariance, gaze and attention, and with distances that the depth image
            corrected.

        Raises:
            ImageError: the depth image is of another size than the camera's images.
        """
        seen = self.still(faces, camera, depth)
        angles = {
            f.track.id: attention_angle(f.camera_from_gaze)
            for f in seen
            if f.camera_from_gaze is not None
        }
        looking = self._attention.update(angles, stamp, self.config.attention)
        attention = [looking.get(face.track.id) for face in seen]
        return [
            face if face.attention == level else replace(face, attention=level)
            for face, level in zip(seen, attention, strict=True)
        ]

    def still(
        self,
        faces: Sequence[Face],
        camera: PinholeCamera,
        depth: NDArray[np.float64] | None = None,
    ) -> list[Face]:
        """The faces of a picture that stands for itself: without attention, which takes time.

        Args:
            faces: as reconstructed.
            camera: that took the picture.
            depth: (H, W) metres, registered to the picture; 0 or NaN is a hole.
        """
        if depth is not None:
            check_registered(depth, camera)
        return [self._located(face, camera, depth) for face in faces]

    def _located(
        self, face: Face, camera: PinholeCamera, depth: NDArray[np.float64] | None
    ) -> Face:
        pose, reading = face.camera_from_face, None
        covariance = pose_covariance(
            pose,
            camera,
            self.config.pose_noise,
            measured=face.picture_covariance,
            presence=1.0 if face.presence is None else face.presence,
        )
        if depth is not None:
            checks, vertices = self.config.depth_checks, face.mesh.vertices
            points, normals = vertices[self._skin], self._normals(vertices)[self._skin]
            reading = read_range(depth, camera, pose, points, normals, checks)
            fused, covariance = fuse_range(pose, covariance, reading, checks)
            if fused is pose:  # refused
                reading = None
            pose, face = fused, _moved(face, fused)
        return replace(
            face,
            covariance=covariance,
            depth_reading=reading,
            camera_from_gaze=self._gaze(pose, face.coefficients.expression[0]),
        )


def _moved(face: Face, camera_from_face: Rigid) -> Face:
    """The face at another distance, with a mesh of the same size in the image.

    A head nearer than it seemed is as much smaller.
    """
    before = float(np.linalg.norm(face.camera_from_face.translation))
    factor = np.float32(np.linalg.norm(camera_from_face.translation) / max(before, 1e-6))
    mesh = replace(face.mesh, vertices=factor * face.mesh.vertices)
    return replace(face, camera_from_face=camera_from_face, mesh=mesh)
