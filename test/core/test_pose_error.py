"""Metric head pose, 0.4 to 4 m away, all over the image, by several cameras."""

import functools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import crop_from_face_box, face_box_from_points
from face_recon_ros.core.crop_pose import (
    CAMERA_FROM_FRONTAL_FACE,
    camera_from_face,
    coefficients_from_crop_pose,
    crop_camera,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.models import FACE_MODEL, NETWORK, REFERENCE_NETWORK, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.evaluation.chain import new_tracks, reconstruct
from face_recon_ros.evaluation.head_poses import (
    CAMERAS,
    DISTANCES_M,
    HeadScorer,
    evaluate_head_poses,
    heads,
    pose_errors,
)
from face_recon_ros.evaluation.metrics import shape_distance_mm
from face_recon_ros.evaluation.synthetic import ModelScenes
from face_recon_ros.io.jobs import PerProcess

MODEL = load_morphable_model(find_model(FACE_MODEL), level="coarse")
SKIN = MODEL.mean_shape[MODEL.subsets["facial_skin"]].astype(np.float64)
MARGIN, SIZE = 1.5, 128


def crop_of(face, camera):
    return crop_from_face_box(face_box_from_points(camera.project(face.apply(SKIN))), MARGIN, SIZE)


def best_explanation(face, crop, camera):
    """The pose in the nominal crop camera that explains the crop best (perspective n points)."""
    seen = crop.to_crop(camera.project(face.apply(SKIN)))
    lens = crop_camera(crop.size).matrix
    _, rotation, translation = cv2.solvePnP(SKIN, seen, lens, None, flags=cv2.SOLVEPNP_SQPNP)
    rotation, translation = cv2.solvePnPRefineLM(SKIN, seen, lens, None, rotation, translation)
    return Rigid(cv2.Rodrigues(rotation)[0], translation.ravel())


@pytest.mark.parametrize("distance", DISTANCES_M)
@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_who_explains_the_crop_in_the_nominal_camera_knows_the_true_pose(camera, distance):
    """The chain's own error, whatever the network: closed form against full perspective."""
    found = np.array(
        [
            pose_errors(camera_from_face(best_explanation(face, crop, camera), crop, camera), face)
            for face in heads(camera, distance, 20)
            for crop in [crop_of(face, camera)]
        ]
    )
    rotation_deg, distance_share = found.mean(axis=0)
    assert rotation_deg < 3.0
    assert distance_share < 0.04
    assert found[:, 1].max() < 0.08


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_errors_of_the_network_stay_what_they_are(camera):
    """2 degrees and 4 % in the crop are 2 degrees and 4 % before the camera."""
    rng = np.random.default_rng(1)
    for distance in DISTANCES_M:
        for face in heads(camera, distance, 5):
            crop = crop_of(face, camera)
            rotation, translation = coefficients_from_crop_pose(
                crop_from_camera_pose(face, crop, camera)
            )
            axis = rng.normal(size=3)
            off = rotation_from_vector(np.radians(2.0) * axis / np.linalg.norm(axis))
            answer = crop_from_face(rotation, translation * 1.04)
            answer = Rigid(off @ answer.rotation, answer.translation)
            rotation_deg, distance_share = pose_errors(
                camera_from_face(answer, crop, camera), face
            )
            assert rotation_deg == pytest.approx(2.0, abs=1e-3)
            assert distance_share == pytest.approx(0.04, abs=1e-4)


@pytest.mark.parametrize("network", [NETWORK, REFERENCE_NETWORK])
def test_the_shipped_networks_on_rendered_heads(network):
    config = ReconstructorConfig(network=network, threads=1, colours="off")
    reconstructor = PerProcess(functools.partial(FaceReconstructor.from_config, config))
    try:
        assert reconstructor.value
    except ModelError as fault:
        pytest.skip(f"no network for the shipped face model: {fault}")
    found = evaluate_head_poses(HeadScorer(reconstructor, MODEL), count=1)
    # A chain that turns or scales wrongly would be far off. How good the network is:
    # `face-recon evaluate shape` measures, this does not judge.
    assert found["all"]["rotation_deg"] < 15.0
    assert found["all"]["distance_share"] < 0.08


def test_a_near_face_is_no_other_person():
    """The same head 0.35 and 3 m away, as large in the picture: only the perspective differs."""
    config = ReconstructorConfig(threads=1, colours="off", level="coarse", part="head")
    try:
        reconstructor = FaceReconstructor.from_config(config)
    except ModelError as fault:
        pytest.skip(f"no network for the shipped face model: {fault}")
    if reconstructor.points is None:
        pytest.skip("no dense points for the shipped face model")
    skin = np.flatnonzero(MODEL.subsets["facial_skin"])
    scenes, random, apart = ModelScenes(MODEL), np.random.default_rng(2), {True: [], False: []}
    for _ in range(6):
        identity, albedo = random.standard_normal((2, max(MODEL.k_identity, MODEL.k_albedo)))
        identity, albedo = 0.8 * identity[: MODEL.k_identity], 0.6 * albedo[: MODEL.k_albedo]
        yaw = random.uniform(-0.3, 0.3)
        shapes = {True: [], False: []}
        for distance in (0.35, 3.0):
            focal = 320 * distance / 0.35
            camera = PinholeCamera(300, 300, [[focal, 0, 149.5], [0, focal, 149.5], [0, 0, 1]])
            turned = CAMERA_FROM_FRONTAL_FACE @ rotation_from_vector([0.0, 0.0, yaw])
            pose = Rigid(turned, np.array([0.0, 0.0, distance]))
            scenes.camera = camera
            rgb = scenes.scene("head", pose, identity=identity, albedo=albedo).render()
            head = MODEL.neutral(identity)[skin]
            box = face_box_from_points(camera.project(pose.apply(head)))
            for known in (True, False):
                told = replace(camera, calibrated=known, whole=known)
                (face,) = reconstruct(reconstructor, rgb, new_tracks([box]), told)
                answer = MODEL.neutral(face.coefficients.identity[0])[skin]
                shapes[known].append(answer.astype(np.float64))
        for known, pair in shapes.items():
            apart[known].append(shape_distance_mm(*pair))
    assert np.mean(apart[True]) < 0.8 * np.mean(apart[False]), apart
