"""Truth for the evaluation's tests: the shipped face model before a known camera."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from face_recon_ros.core.crop import Crop, crop_from_face_box, face_box_from_points
from face_recon_ros.core.crop_pose import crop_from_camera_pose
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, load_morphable_model
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Coefficients, Detections
from face_recon_ros.evaluation.chain import Estimate
from face_recon_ros.evaluation.synthetic import ModelScenes, Scene


@pytest.fixture(scope="session")
def model() -> MorphableModel:
    """The shipped face model, coarse."""
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture(scope="session")
def scenes(model: MorphableModel) -> ModelScenes:
    """Small pictures of it."""
    return ModelScenes(model, size_px=200)


class Oracle:
    """An `Estimator` that knows the truth of its scenes, and errs as told.

    It recognises a picture by its pixels, so that it can be scored by the real benchmarks.
    """

    def __init__(self, model: MorphableModel, turn_deg: float = 0.0) -> None:
        self.model = model
        self.turn = rotation_from_vector([0.0, 0.0, np.radians(turn_deg)])  # about the face's up
        self.known: dict[bytes, tuple[Scene, dict[str, np.ndarray]]] = {}
        self.blind: set[bytes] = set()

    def learn(self, rgb: np.ndarray, scene: Scene, **coefficients: np.ndarray) -> None:
        """Remembers what a picture shows."""
        self.known[rgb.tobytes()] = (scene, coefficients)

    def detect(self, rgb: np.ndarray) -> Detections:
        if rgb.tobytes() not in self.known or rgb.tobytes() in self.blind:
            return Detections.empty()
        scene, _ = self.known[rgb.tobytes()]
        skin = scene.mesh.vertices[self.model.subsets[FACIAL_SKIN]]
        box = face_box_from_points(scene.camera.project(scene.camera_from_face.apply(skin)))
        return Detections(box[None].astype(np.float32), np.ones(1, np.float32))

    def estimate(self, views):
        scene, known = self.known[views[-1].rgb.tobytes()]
        m = self.model
        zeros = Coefficients.zeros(1, m.k_identity, m.k_expression, m.k_albedo)
        rows = {k: np.asarray(v, np.float32)[None] for k, v in known.items()}
        coefficients = Coefficients(**{**vars(zeros), **rows})
        true = scene.camera_from_face
        pose = Rigid(true.rotation @ self.turn, true.translation)
        crop = Crop(np.zeros(2), 100.0, 100)
        return Estimate(coefficients, crop, pose, pose, scene.camera)


class CropOracle(Oracle):
    """Answers like a network: for the face in its crop, whatever the camera."""

    def estimate(self, views):
        e = super().estimate(views)
        crop = crop_from_face_box(self.detect(views[-1].rgb).boxes[0], 1.3, 100)
        nominal = crop_from_camera_pose(e.camera_from_face, crop, e.camera)
        return dataclasses.replace(e, crop=crop, crop_from_face=nominal)


@pytest.fixture
def crop_oracle(model: MorphableModel) -> CropOracle:
    """Knows nothing yet."""
    return CropOracle(model)


@pytest.fixture
def oracle(model: MorphableModel) -> Oracle:
    """Knows nothing yet."""
    return Oracle(model)
