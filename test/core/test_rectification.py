"""Seen through the mean face: round trips, the same picture whatever the pose, empty cases."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, Picture, whole_crop
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, crop_camera
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.rasterizer import rasterize
from face_recon_ros.core.rectification import (
    CELLS,
    RECTIFIED_PX,
    FaceFrame,
    Rectifier,
    grid_coordinates,
    sample_grid,
)
from face_recon_ros.core.rigid import rotation_from_vector


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture(scope="module")
def rectifier(model):
    return Rectifier(model)


def frame_of(vectors, depth=0.9):
    rotation = np.stack([rotation_from_vector(v) @ CAMERA_FROM_FRONTAL_FACE for v in vectors])
    return FaceFrame.of(rotation, np.tile([0.01, -0.02, depth], (len(rotation), 1)))


def test_displacements_come_back(rectifier):
    random = np.random.default_rng(0)
    frame = frame_of(random.normal(0, 0.5, (5, 3)))
    displacement = random.normal(0, 0.01, (5, len(rectifier.points), 2))
    seen = frame.seen(displacement, rectifier.points)
    np.testing.assert_allclose(frame.displacement(seen, rectifier.points), displacement, atol=1e-9)


def test_roll_does_not_change_how_a_displacement_is_told(rectifier):
    """Raised brows are up, however the head is rolled."""
    raised = rectifier.points + np.array([0, 0, 0.005])
    told = []
    for roll in (0.0, 0.6, -1.2, 3.0):
        frame = frame_of([[0, 0, roll]])
        told.append(frame.displacement(frame.project(raised), rectifier.points)[0])
    for other in told[1:]:
        np.testing.assert_allclose(other, told[0], atol=4e-4)
    assert np.median(told[0][:, 1]) == pytest.approx(-0.005, abs=5e-4)  # down is positive


def test_the_grid_lies_on_the_face_from_ear_to_ear(rectifier):
    points = rectifier.points.reshape(CELLS, CELLS, 3)
    middle = points[:, CELLS // 2 - 1 : CELLS // 2 + 1].mean(1)
    assert (np.abs(middle[:, 1]) < 0.004).all()
    assert (np.diff(middle[:, 2]) < 0).all()
    nose = middle[:, 0].argmax()
    assert 0.005 < middle[nose, 0] < 0.04
    assert -0.06 < middle[nose, 2] < -0.02
    np.testing.assert_allclose(np.linalg.norm(rectifier.normals, axis=1), 1, atol=1e-5)
    # what the grid says of its own cells
    inner = np.s_[6:18, 6:18]
    cells = grid_coordinates(points[inner].reshape(-1, 3)).reshape(12, 12, 2)
    row, column = np.mgrid[6:18, 6:18]
    np.testing.assert_allclose(cells, np.stack([column, row], -1), atol=0.35)


def picture(model, frame, size):
    """The mean face, painted by a pattern that is fixed to its surface."""
    pattern = (
        127
        + 60 * np.sin(model.mean_shape * [0, 220, 260])
        + 60 * np.sin(model.mean_shape[:, [2, 0, 1]] * 150)
    )
    nominal = crop_camera(size)
    placed = frame.place(model.mean_shape)[0]
    fragments = rasterize(nominal.project(placed), placed[:, 2], model.triangles, size, size)
    colours = pattern[model.triangles[np.maximum(fragments.triangle, 0)]]
    rgb = (colours * fragments.weights[..., None]).sum(2)
    return np.clip(rgb, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "turn", [[0, 0, 0], [0, 0.35, 0], [0.2, 0, 0], [0, 0, 0.9], [0.1, -0.3, 2.5]]
)
def test_a_pattern_on_the_face_looks_the_same_from_everywhere(model, rectifier, turn):
    frontal, turned = frame_of([[0, 0, 0]]), frame_of([turn])
    size = 256
    camera = NormalisedCamera.of(whole_crop(size))
    a, b = (
        rectifier.sample(Picture(picture(model, f, size)), camera, f, 0).astype(float)
        for f in (frontal, turned)
    )
    seen = [rectifier.seen_normals(f)[0, :, :, 2] < -0.55 for f in (frontal, turned)]
    both = cv2.resize((seen[0] & seen[1]).astype(np.uint8), (RECTIFIED_PX, RECTIFIED_PX)) > 0
    both[: RECTIFIED_PX // 4] = False  # the crown may stick out of the picture
    assert both.mean() > 0.15
    assert np.abs(a - b)[both].mean() < 18  # of another place on the face: twice as much
    assert np.abs(a - np.roll(b, 12, 0))[both].mean() > 30


def test_coarse_grids_see_no_aliases():
    """Stripes finer than the grid come out grey."""
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    px = np.stack(np.meshgrid(np.linspace(20, 380, 48), np.linspace(20, 380, 48)), -1)
    out = sample_grid(stripes, px.astype(np.float32)).astype(float)
    assert np.abs(out - 127).mean() < 20


def test_outside_of_the_picture_is_black(rectifier):
    rgb = np.full((100, 100, 3), 200, np.uint8)
    away = NormalisedCamera.of(Crop(np.array([-500.0, -500.0]), 80.0, 96))
    assert not rectifier.sample(Picture(rgb), away, frame_of([[0, 0, 0]]), 0).any()


def test_nobody(rectifier):
    frame = FaceFrame.of(np.zeros((0, 3, 3)), np.zeros((0, 3)))
    assert frame.project(rectifier.points).shape == (0, CELLS**2, 2)
    assert rectifier.seen_normals(frame).shape == (0, CELLS, CELLS, 3)


def test_a_mesh_without_a_face_is_refused(model):
    with pytest.raises(ModelError, match="front of a head"):
        Rectifier(replace(model, mean_shape=model.mean_shape - np.float32([0.5, 0, 0])))


@pytest.mark.filterwarnings("error")
def test_a_lens_that_folds_over_is_no_fault(rectifier):
    """Its distortion, far beside the image."""
    matrix = np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
    lens = PinholeCamera(640, 480, matrix, np.array([5.0, -30.0, 0.1, 0.1, 50.0]))
    camera = NormalisedCamera.of(Crop(np.array([-900.0, -700.0]), 100.0, 96), lens)
    for frame in (frame_of([[0, 0, 0]]), frame_of([[0, 0, 0]], depth=-0.5)):
        shown = rectifier.sample(Picture(np.full((480, 640, 3), 200, np.uint8)), camera, frame, 0)
        assert shown.shape == (RECTIFIED_PX, RECTIFIED_PX, 3)
