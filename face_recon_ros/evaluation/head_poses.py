"""Metric head pose of rendered people, 0.4 to 4 m away, all over the image, by several cameras."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, face_box_from_points
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, crop_from_camera_pose
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.rigid import (
    Rigid,
    angle_between,
    rotation_between,
    rotation_from_vector,
    vector_from_rotation,
)
from face_recon_ros.evaluation.chain import new_tracks, reconstruct
from face_recon_ros.evaluation.datasets import Skipped
from face_recon_ros.evaluation.stills import HERE, Execution, run_stills
from face_recon_ros.evaluation.synthetic import ModelScenes
from face_recon_ros.io.jobs import PerProcess

Array = NDArray[np.float64]

CAMERAS = {
    "webcam": PinholeCamera.from_fov(640, 480, 60.0),
    "off centre": PinholeCamera.from_fov(1280, 720, 70.0).cropped(300, 100, 800, 600),
    "barrel": PinholeCamera(
        640,
        480,
        np.array([[520.0, 0.0, 331.0], [0.0, 515.0, 228.0], [0.0, 0.0, 1.0]]),
        np.array([-0.25, 0.07, 1e-3, -2e-3, 0.0]),
    ),
    "fisheye": PinholeCamera(
        640,
        480,
        np.array([[300.0, 0.0, 320.0], [0.0, 300.0, 240.0], [0.0, 0.0, 1.0]]),
        np.array([0.1, -0.02, 0.01, 0.0]),
        "equidistant",
    ),
}
DISTANCES_M = (0.4, 0.7, 1.5, 4.0)
_MAX_TURN = np.radians([25.0, 45.0, 25.0])
_BOX_SHIFT = 0.03  # of the box's side: standard deviation of its middle

PROTOCOL = {
    "people": "the face model's, identity 0.8 and albedo 0.6 standard deviations, neutral",
    "places": f"{len(CAMERAS)} cameras, {', '.join(f'{d:g}' for d in DISTANCES_M)} m away, all "
    "over the image, turned up to 25, 45 and 25 degrees about the three axes",
    "distance": "at known head size: as the size the answer saw in the face is to the true one",
    "rotation_z": "root mean square of the error over the standard deviation that the pose's "
    "covariance promises: 1 where it is true, above 1 where it claims too much",
    "statistics": "medians of the others",
}


@dataclass(frozen=True)
class PoseError:
    """Of one head.

    Attributes:
        distance_m: true, from camera to sellion.
        turn_deg: of the head away from the camera.
        rotation_deg: what the chain gets wrong.
        distance_share: of the distance, head size known.
        z: root mean square of the error of rotation over the standard deviation that its
            covariance promises; NaN without covariance.
    """

    distance_m: float
    turn_deg: float
    rotation_deg: float
    distance_share: float
    z: float


def heads(camera: PinholeCamera, distance: float, count: int, seed: int = 0) -> Iterator[Rigid]:
    """Heads all over an image, turned to all sides: camera_from_face.

    Args:
        camera: of the image.
        distance: metres.
        count: of heads.
        seed: of places and turns.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        pixel = rng.uniform(0.12, 0.88, 2) * [camera.width, camera.height]
        ray = camera.rays_from_pixels(pixel)
        ray /= np.linalg.norm(ray)
        turn = rotation_from_vector(rng.uniform(-1, 1, 3) * _MAX_TURN)
        attitude = rotation_between([0.0, 0.0, 1.0], ray) @ turn @ CAMERA_FROM_FRONTAL_FACE
        yield Rigid(attitude, ray * distance)


def pose_errors(found: Rigid, true: Rigid) -> tuple[float, float]:
    """Rotation in degrees, distance as a share."""
    ratio = np.linalg.norm(found.translation) / np.linalg.norm(true.translation)
    return float(np.degrees(angle_between(found.rotation, true.rotation))), float(abs(ratio - 1.0))


@dataclass(frozen=True)
class Head:
    """A head before a camera.

    Attributes:
        camera: name in `CAMERAS`.
        distance_m: from camera to sellion.
        camera_from_face: the head.
        identity: (K_id,).
        albedo: (K_alb,).
        shift: (2,) of the detector's box, in sides.
    """

    camera: str
    distance_m: float
    camera_from_face: Rigid
    identity: Array
    albedo: Array
    shift: Array


def draw_heads(whole: MorphableModel, count: int) -> Iterator[Head]:
    """`count` heads per camera and distance, the same each time."""
    rng, done = np.random.default_rng(0), 0
    for name, camera in CAMERAS.items():
        for distance in DISTANCES_M:
            for face in heads(camera, distance, count, seed=done):
                identity = 0.8 * rng.standard_normal(whole.k_identity)
                albedo = 0.6 * rng.standard_normal(whole.k_albedo)
                shift = rng.normal(0, _BOX_SHIFT, 2)
                yield Head(name, distance, face, identity, albedo, shift)
                done += 1


def evaluate_head_poses(
    scorer: HeadScorer, count: int = 3, execution: Execution = HERE
) -> dict[str, Any]:
    """Measures pose on rendered heads.

    Args:
        scorer: of each head.
        count: heads per camera and distance.
        execution: where heads are worked on.

    Returns:
        protocol, count, rotation_deg, distance_share, by distance and turn.
    """
    drawn = {f"head {k}": head for k, head in enumerate(draw_heads(scorer.whole, count))}
    scores = run_stills(drawn, scorer, Skipped(), execution, what="heads", wanted="head")
    errors = [PoseError(**score) for score in scores.values() if score]
    parts = {
        "all": errors,
        **{f"{d:g} m": [e for e in errors if e.distance_m == d] for d in DISTANCES_M},
        "turned up to 25 degrees": [e for e in errors if e.turn_deg < 25],
        "turned more": [e for e in errors if e.turn_deg >= 25],
    }
    return {"protocol": PROTOCOL, **{name: _medians(part) for name, part in parts.items()}}


def _medians(errors: list[PoseError]) -> dict[str, float]:
    def median(values: list[float]) -> float:
        return float(np.median(values)) if values else float("nan")

    return {
        "count": len(errors),
        "rotation_deg": median([e.rotation_deg for e in errors]),
        "distance_share": median([e.distance_share for e in errors]),
        "rotation_z": float(np.sqrt(np.mean([e.z**2 for e in errors]))) if errors else np.nan,
    }


@dataclass(frozen=True)
class HeadScorer:
    """Scores the pose of one head, for `run_stills`.

    Attributes:
        reconstructor: what is measured.
        whole: the face model, whole head, coarse or fine.
    """

    reconstructor: PerProcess[FaceReconstructor]
    whole: MorphableModel

    @functools.cached_property
    def _scenes(self) -> ModelScenes:
        return ModelScenes(self.whole)

    def __call__(self, head: Head) -> dict[str, float]:
        """The fields of `PoseError`; nothing where there is no answer."""
        reconstructor, face = self.reconstructor.value, head.camera_from_face
        camera, whole = CAMERAS[head.camera], self.whole
        skin = whole.neutral(head.identity)[whole.subsets[FACIAL_SKIN]]
        box = face_box_from_points(camera.project(face.apply(skin)))
        box = box + np.tile(head.shift * (box[2] - box[0]), 2)
        self._scenes.camera = camera
        scene = self._scenes.scene("head", face, identity=head.identity, albedo=head.albedo)
        found, crop, z = _answer(reconstructor, scene.render(), box, camera, head.identity, face)
        if found is None:
            return {}
        nominal = crop_from_camera_pose(face, crop, camera)
        turn = angle_between(
            rotation_between(nominal.translation, [0.0, 0.0, 1.0]) @ nominal.rotation,
            CAMERA_FROM_FRONTAL_FACE,
        )
        turn_deg = float(np.degrees(turn))
        return asdict(PoseError(head.distance_m, turn_deg, *pose_errors(found, face), z))


def _answer(
    reconstructor: FaceReconstructor,
    picture: NDArray[np.uint8],
    box: Array,
    camera: PinholeCamera,
    identity: NDArray[np.floating],
    true: Rigid,
) -> tuple[Rigid | None, Crop, float]:
    """camera_from_face as answered, for a head of the true size; the crop; `PoseError.z`."""
    tracks = new_tracks([box])
    faces = reconstruct(reconstructor, picture, tracks, camera)
    if not faces:
        return None, reconstructor.crops(tracks)[0], np.nan
    seen = faces[0].coefficients.identity[0]
    scale = _size(reconstructor.model, identity) / _size(reconstructor.model, seen)
    pose, covariance, z = faces[0].camera_from_face, faces[0].picture_covariance, np.nan
    if covariance is not None:
        error = vector_from_rotation(pose.rotation @ true.rotation.T)
        z = float(np.sqrt(error @ np.linalg.solve(covariance[3:, 3:], error) / 3))
    return Rigid(pose.rotation, pose.translation * scale), faces[0].crop, z


def _size(model: MorphableModel, identity: NDArray[np.floating]) -> float:
    skin = model.neutral(identity)[np.flatnonzero(model.subsets[FACIAL_SKIN])]
    return float(np.linalg.norm(np.ptp(skin, axis=0)))
