"""The camera of a fit: the same picture in another projection, and back again."""

from dataclasses import replace

import numpy as np
import pytest

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, Picture, whole_crop
from face_recon_ros.core.crop_pose import (
    CAMERA_FROM_FRONTAL_FACE,
    crop_camera,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import FACIAL_SKIN, load_morphable_model
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.rectification import RECTIFIED_PX, FaceFrame, Rectifier
from face_recon_ros.core.rigid import Rigid, rotation_from_vector

W, H, F = 640, 480, 500.0
MATRIX = np.array([[F, 0, 310.0], [0, 1.02 * F, 250.0], [0, 0, 1]])
CAMERAS = {
    "pinhole": PinholeCamera(W, H, MATRIX),
    "plumb_bob": PinholeCamera(W, H, MATRIX, np.array([-0.2, 0.05, 1e-3, -1e-3, 0.0])),
    "fisheye": PinholeCamera(W, H, MATRIX, np.array([0.02, -0.01, 0, 0]), "equidistant"),
}
PLACES = [(320, 240, 0.0), (80, 60, 0.0), (560, 400, 1.2), (300, 250, np.pi)]


def crop_at(x, y, angle, side=160.0):
    return Crop(np.array([x, y], float), side, 96, angle)


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("place", PLACES)
def test_poses_come_back(name, place):
    camera = NormalisedCamera.of(crop_at(*place), CAMERAS[name])
    nominal = crop_from_face([0.2, -0.3, 0.1], [0.02, -0.03, 1.4])
    there = camera.from_crop_pose(nominal)
    again = camera.to_crop_pose(there)
    np.testing.assert_allclose(again.rotation, nominal.rotation, atol=1e-6)
    np.testing.assert_allclose(again.translation, nominal.translation, atol=1e-5)


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("place", PLACES)
def test_points_are_seen_where_the_real_camera_shows_them(name, place, model):
    """All of a face, not only its middle, at any distance: the perspective is the picture's."""
    real, crop = CAMERAS[name], crop_at(*place)
    camera = NormalisedCamera.of(crop, real)
    head = model.mean_shape[model.subsets[FACIAL_SKIN]]
    for distance in (0.35, 2.0):
        ray = real.rays_from_pixels(crop.centre_px + 5.0)
        turned = rotation_from_vector([0.1, 0.4, 0.0]) @ CAMERA_FROM_FRONTAL_FACE
        pose = Rigid(turned, ray / np.linalg.norm(ray) * distance)
        in_crop = crop_from_camera_pose(pose, crop, real)
        seen = camera.project(camera.from_crop_pose(in_crop).apply(head))
        px = crop.to_image(seen * crop.size + (crop.size - 1) / 2)
        np.testing.assert_allclose(px, real.project(pose.apply(head)), atol=1e-3)


@pytest.mark.parametrize("place", PLACES)
def test_the_middle_of_the_crop_is_straight_ahead_and_the_crop_upright(place):
    crop = crop_at(*place)
    camera = NormalisedCamera.of(crop, CAMERAS["pinhole"])
    np.testing.assert_allclose(camera.project([0.0, 0.0, 2.0]), 0, atol=1e-12)
    down, right = camera.project([0.0, 0.01, 2.0]), camera.project([0.01, 0.0, 2.0])
    assert down[1] > 10 * abs(down[0])
    assert right[0] > 10 * abs(right[1])


@pytest.mark.parametrize("camera", [None, PinholeCamera.from_fov(W, H, whole=False)])
def test_of_a_picture_cut_out_of_another_it_is_the_nominal_camera(camera):
    crop = crop_at(100, 100, 0.5)
    nominal = NormalisedCamera.of(crop, camera)
    pose = crop_from_face([0.2, -0.3, 0.1], [0.02, -0.03, 1.4])
    assert nominal.from_crop_pose(pose) is pose is nominal.to_crop_pose(pose)
    points = np.random.default_rng(0).normal([0, 0, 1.5], 0.05, (20, 3))
    expected = (crop_camera(96).project(points) - 47.5) / 96
    np.testing.assert_allclose(nominal.project(points), expected, atol=1e-12)


def test_a_guess_of_a_whole_picture_is_believed():
    crop, guess = crop_at(100, 100, 0.5), PinholeCamera.from_fov(W, H)
    assert not guess.calibrated
    assert NormalisedCamera.of(crop, guess).camera is guess
    assert NormalisedCamera.of(crop, replace(guess, whole=False)).camera is None
    assert NormalisedCamera.of(crop, PinholeCamera(W, H, MATRIX, whole=False)).camera is not None


@pytest.mark.parametrize("name", CAMERAS)
def test_the_focal_length_is_that_of_the_middle(name):
    camera = NormalisedCamera.of(crop_at(200, 300, 0.3), CAMERAS[name])
    step = 1e-4
    right, down = camera.project([step, 0, 1]), camera.project([0, step, 1])
    area = abs(right[0] * down[1] - right[1] * down[0]) / step**2
    assert camera.focal == pytest.approx(np.sqrt(area), rel=1e-3)


def test_points_that_the_camera_cannot_see_have_no_place():
    camera = NormalisedCamera.of(crop_at(320, 240, 0.0), CAMERAS["pinhole"])
    assert np.isnan(camera.project([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0]])).all()


def shown(model, camera, pose):
    """The mean face, painted by height and breadth, before a real camera."""
    k = 2 * np.pi / 0.03
    paint = 128 + 100 * np.sin(k * model.mean_shape[:, [1, 2, 2]])
    placed = pose.apply(model.mean_shape)
    px = camera.project(placed)
    fragments = rasterize(px, placed[:, 2], model.triangles, camera.width, camera.height)
    return interpolate(fragments, model.triangles, paint.astype(np.float32)).astype(np.uint8)


def test_a_rectified_face_looks_the_same_near_and_far(model):
    """The nominal camera takes the perspective of a near face for its shape."""
    rectifier, apart = Rectifier(model), {}
    for known in (True, False):
        pictures = []
        for distance in (0.35, 1.5):
            size = 400
            focal = size * distance / 0.4
            matrix = np.array([[focal, 0, 199.5], [0, focal, 199.5], [0, 0, 1]])
            real = PinholeCamera(size, size, matrix)
            pose = Rigid(CAMERA_FROM_FRONTAL_FACE, np.array([0.0, 0.0, distance]))
            crop = whole_crop(size)
            told = replace(real, calibrated=known, whole=known)
            camera = NormalisedCamera.of(crop, told)
            there = camera.from_crop_pose(crop_from_camera_pose(pose, crop, real))
            frame = FaceFrame.of(there.rotation[None], there.translation[None])
            picture = Picture(shown(model, real, pose))
            pictures.append(rectifier.sample(picture, camera, frame, 0).astype(float))
        middle = slice(RECTIFIED_PX // 4, 3 * RECTIFIED_PX // 4)
        near, far = (p[middle, middle] for p in pictures)
        apart[known] = np.abs(near - far).mean()
    assert apart[True] < 0.3 * apart[False]
