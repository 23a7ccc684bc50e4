"""The camera that a face is fitted in: turned to look through the middle of the face's crop.

Zhang, Sugano and Bulling 2018 ("Revisiting data normalization for appearance-based gaze
estimation", ETRA): a real camera, turned in place until it looks at the face, sees the same
picture in another projection. Here a face has its true perspective: a near face shows a large
nose and hides its ears, and that is not taken for the person's shape. A guessed focal length is
good enough for that. Of a picture that was cut out of another one nobody knows how near the face
is; the regressor's nominal crop camera stands in for its camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import (
    CROP_FOCAL,
    OPTICAL_AXIS,
    camera_from_face,
    crop_from_camera_pose,
    px_per_radian,
    roll_about_axis,
)
from face_recon_ros.core.rigid import Rigid, rotation_between

Array = NDArray[np.float64]

_NOMINAL = np.diag([CROP_FOCAL, CROP_FOCAL, 1.0])


@dataclass(frozen=True)
class NormalisedCamera:
    """A pinhole camera of focal length 1 that looks through the middle of a crop.

    It stands upright in the crop. `of` makes one.

    Attributes:
        crop: in its image.
        camera: that took the image; None: the nominal crop camera.
        camera_from_normalised: (3, 3) rotation.
        matrix: (3, 3) of points to where they are seen, as `project`; None with distortion.
    """

    crop: Crop
    camera: PinholeCamera | None
    camera_from_normalised: Array
    matrix: Array | None

    @staticmethod
    def of(crop: Crop, camera: PinholeCamera | None = None) -> NormalisedCamera:
        """The camera of one crop.

        Args:
            crop: in its image.
            camera: that took the image. Where it does not show perspective, the nominal crop
                camera is used, as without any.
        """
        if camera is None or not camera.shows_perspective:
            return NormalisedCamera(crop, None, np.eye(3), _NOMINAL)
        ray = camera.rays_from_pixels(crop.centre_px)
        turned = rotation_between(OPTICAL_AXIS, ray) @ roll_about_axis(crop.angle)
        if not camera.is_ideal:
            return NormalisedCamera(crop, camera, turned, None)
        in_sides = crop.image_from_crop_rotation.T / crop.side_px
        seen = camera.matrix @ turned
        seen[:2] = in_sides @ (seen[:2] - np.outer(crop.centre_px, seen[2]))
        return NormalisedCamera(crop, camera, turned, seen)

    @property
    def focal(self) -> float:
        """Of the picture's middle, crop sides."""
        if self.camera is None:
            return CROP_FOCAL
        ahead = self.camera_from_normalised[:, 2]
        return px_per_radian(self.camera, ahead) / self.crop.side_px

    def from_crop_pose(self, crop_from_face: Rigid) -> Rigid:
        """A face in the nominal crop camera, metres -> the same face in this camera.

        Raises:
            CameraError: there the camera's distortion has no inverse.
        """
        if self.camera is None:
            return crop_from_face
        return self.from_camera_pose(camera_from_face(crop_from_face, self.crop, self.camera))

    def from_camera_pose(self, camera_from_face: Rigid) -> Rigid:
        """A face before the real camera, metres -> the same face in this camera."""
        turn, pose = self.camera_from_normalised.T, camera_from_face
        return Rigid(turn @ pose.rotation, turn @ pose.translation)

    def to_crop_pose(self, normalised_from_face: Rigid) -> Rigid:
        """Inverse of `from_crop_pose`."""
        if self.camera is None:
            return normalised_from_face
        turn, pose = self.camera_from_normalised, normalised_from_face
        in_camera = Rigid(turn @ pose.rotation, turn @ pose.translation)
        return crop_from_camera_pose(in_camera, self.crop, self.camera)

    def project(self, points: ArrayLike) -> Array:
        """Where points are seen in the crop.

        Args:
            points: (..., 3) in this camera, metres.

        Returns:
            (..., 2) crop sides from the middle of the crop; NaN where the camera does not see.
        """
        p = np.asarray(points, np.float64)
        if self.matrix is not None:
            seen = p @ self.matrix.T
            z = np.where(seen[..., 2:] > 0, seen[..., 2:], np.nan)
            return np.asarray(seen[..., :2] / z)
        assert self.camera is not None
        px = self.camera.project(p @ self.camera_from_normalised.T)
        return np.asarray(
            (px - self.crop.centre_px) @ self.crop.image_from_crop_rotation / self.crop.side_px
        )
