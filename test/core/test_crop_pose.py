"""Laws of the way from crop to camera."""

import numpy as np
import pytest
from cameras import CAMERAS
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import (
    CAMERA_FROM_FRONTAL_FACE,
    camera_from_face,
    coefficients_from_crop_pose,
    crop_camera,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.rigid import Rigid, angle_between, rotation_from_vector

small = st.floats(-0.8, 0.8)
vectors = st.tuples(small, small, small).map(np.array)


def _face(vector, xy, depth):
    attitude = rotation_from_vector(vector) @ CAMERA_FROM_FRONTAL_FACE
    return Rigid(attitude, np.array([*xy, 1.0]) * depth)


def _crop_around(face, camera):
    pixel = camera.project(face.translation)
    side = camera.focal_px * 0.25 / face.translation[2]
    return Crop(pixel + 0.1 * side, side, 128)


def test_a_frontal_face_looks_at_the_camera():
    out, left, up = CAMERA_FROM_FRONTAL_FACE.T
    np.testing.assert_array_equal(out, [0, 0, -1])  # towards the camera
    np.testing.assert_array_equal(left, [1, 0, 0])  # subject's left is image right
    np.testing.assert_array_equal(up, [0, -1, 0])
    assert np.linalg.det(CAMERA_FROM_FRONTAL_FACE) == pytest.approx(1.0)


@given(vectors, vectors)
def test_coefficients_round_trip(rotation, offset):
    translation = offset + np.array([0, 0, 1.2])
    r, t = coefficients_from_crop_pose(crop_from_face(rotation, translation))
    np.testing.assert_allclose(r, rotation, atol=1e-9)
    np.testing.assert_allclose(t, translation)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
@settings(deadline=None)
@given(vectors, st.tuples(st.floats(-0.4, 0.4), st.floats(-0.3, 0.3)), st.floats(0.4, 4))
def test_crop_pose_inverts_camera_pose(camera, vector, xy, depth):
    face = _face(vector, xy, depth)
    crop = _crop_around(face, camera)
    back = camera_from_face(crop_from_camera_pose(face, crop, camera), crop, camera)
    np.testing.assert_allclose(back.rotation, face.rotation, atol=1e-5)
    np.testing.assert_allclose(back.translation, face.translation, atol=1e-4 * depth)


def test_the_sellion_keeps_its_pixel_and_the_face_its_size():
    camera = CAMERAS["plumb_bob"]
    face = _face(np.array([0.2, 0.3, -0.1]), (0.3, -0.2), 1.0)
    crop = _crop_around(face, camera)
    nominal = crop_from_camera_pose(face, crop, camera)
    lens = crop_camera(crop.size)
    np.testing.assert_allclose(
        lens.project(nominal.translation),
        crop.to_crop(camera.project(face.translation)),
        atol=1e-6,
    )
    # What a crop shows of a small ball of points has the same extent in both cameras.
    ball = np.random.default_rng(0).normal(size=(500, 3)) * 0.01
    real = crop.to_crop(camera.project(face.apply(ball)))
    seen = lens.project(nominal.apply(ball))
    area = [np.sqrt(np.linalg.det(np.cov(points.T))) for points in (real, seen)]
    assert area[0] == pytest.approx(area[1], rel=0.03)


def test_a_face_turned_to_the_camera_is_frontal_wherever_it_is():
    """Attitude is relative to the viewing ray: same picture, same answer."""
    camera = CAMERAS["ideal"]
    nominal = crop_from_face(np.zeros(3), [0.0, 0.0, 1.0])
    for centre in ([331.0, 226.0], [40.0, 60.0], [600.0, 400.0]):
        face = camera_from_face(nominal, Crop(np.array(centre), 120.0, 128), camera)
        towards_camera = -face.translation / np.linalg.norm(face.translation)
        np.testing.assert_allclose(face.rotation[:, 0], towards_camera, atol=1e-9)


def test_twice_the_crop_is_half_the_distance():
    camera = CAMERAS["ideal"]
    nominal = crop_from_face(np.array([0.1, 0.2, 0.0]), [0.0, 0.0, 1.1])
    near = camera_from_face(nominal, Crop(np.array([300.0, 200.0]), 200.0, 128), camera)
    far = camera_from_face(nominal, Crop(np.array([300.0, 200.0]), 100.0, 128), camera)
    np.testing.assert_allclose(2 * near.translation, far.translation)
    assert angle_between(near.rotation, far.rotation) == pytest.approx(0.0, abs=1e-7)
