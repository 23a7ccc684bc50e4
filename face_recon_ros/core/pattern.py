"""A test pattern with known truth: the face model, turning and talking."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.illumination import shade
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import MorphableModel, VertexNormals, load_morphable_model
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.rigid import Rigid, rotation_from_vector

PERIOD_S = 6.0
DISTANCE_M = 0.5

_YAW, _PITCH, _ROLL = 0.5, 0.2, 0.12  # amplitudes, radians


class TurningHead:
    """Renders the head at any time; the motion repeats after `PERIOD_S`."""

    def __init__(
        self, width: int, height: int, model: MorphableModel | None = None, seed: int = 7
    ) -> None:
        """Prepares the head.

        Args:
            width: of the pictures, pixels.
            height: pixels.
            model: the face to show; None takes the shipped one, coarse.
            seed: whose head it is.
        """
        self.camera = PinholeCamera.from_fov(width, height)
        self.model = model or load_morphable_model(find_model(FACE_MODEL), level="coarse")
        self._normals = VertexNormals(self.model.triangles, self.model.n_vertices)
        rng = np.random.default_rng(seed)
        self.identity = 0.7 * rng.standard_normal(self.model.k_identity).astype(np.float32)
        self._neutral = self.model.neutral(self.identity)
        self._albedo = self.model.albedo(np.zeros(self.model.k_albedo, np.float32))
        self._light = np.zeros((9, 3), np.float32)
        self._light[:4] = np.array([0.8, -0.15, -0.25, -0.1], np.float32)[:, None]
        x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
        grey = 0.35 - 0.12 * y + 0.06 * np.sin(9 * x + 2 * y)
        self._background = (grey[..., None] * [0.95, 1.0, 1.1]).astype(np.float32)

    def camera_from_face(self, time_s: float) -> Rigid:
        """Where the head is, camera optical frame."""
        phase = 2 * np.pi * time_s / PERIOD_S
        turn = rotation_from_vector([0.0, _YAW * np.sin(phase), 0.0])
        nod = rotation_from_vector([_PITCH * np.sin(2 * phase), 0.0, _ROLL * np.sin(phase)])
        position = np.array([0.05 * np.sin(phase), -0.02, DISTANCE_M + 0.04 * np.cos(phase)])
        return Rigid(turn @ nod @ CAMERA_FROM_FRONTAL_FACE, position)

    def expression(self, time_s: float) -> NDArray[np.float32]:
        """(K_exp,) jaw and lids, moving; zero for models without those names."""
        phase = 2 * np.pi * time_s / PERIOD_S
        jaw = 0.25 * (1 - np.cos(4 * phase)) / 2
        blink = float(np.clip(8 * (np.cos(phase - 2.0) - 0.9), 0, 1))
        moving = {"jawOpen": jaw, "eyeBlinkLeft": blink, "eyeBlinkRight": blink}
        return np.array(
            [moving.get(name, 0.0) for name in self.model.expression_names], np.float32
        )

    def render(self, time_s: float) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB picture at a time in seconds."""
        pose = self.camera_from_face(time_s)
        vertices = self.model.express(self._neutral, self.expression(time_s))
        points = pose.apply(vertices)
        normals = self._normals(vertices) @ pose.rotation.T.astype(np.float32)
        colours = shade(self._albedo, normals, self._light)
        triangles = self.model.triangles
        # A closed surface: what faces away is hidden anyway.
        facing = (normals[triangles] * points[triangles]).sum(axis=2).min(axis=1) < 0
        triangles = triangles[facing]
        camera = self.camera
        fragments = rasterize(
            camera.project(points), points[:, 2], triangles, camera.height, camera.width
        )
        drawn = (fragments.triangle >= 0)[..., None]
        picture = np.where(drawn, interpolate(fragments, triangles, colours), self._background)
        return np.asarray((255 * np.clip(picture, 0, 1)).round(), np.uint8)
