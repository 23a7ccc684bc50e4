"""Laws of the pinhole camera."""

import numpy as np
import pytest
from cameras import CAMERAS, K
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
@given(st.tuples(st.floats(-0.5, 0.5), st.floats(-0.4, 0.4)), st.floats(0.2, 10))
def test_rays_invert_projection(camera, xy, depth):
    point = np.array([*xy, 1.0]) * depth
    np.testing.assert_allclose(
        camera.rays_from_pixels(camera.project(point)) * depth, point, atol=1e-5 * depth
    )


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_region_of_interest_and_binning_move_pixels_as_they_move_images(camera):
    point = np.array([0.1, -0.05, 1.0])
    pixel = camera.project(point)
    np.testing.assert_allclose(camera.cropped(100, 50, 200, 200).project(point), pixel - [100, 50])
    binned = camera.resized(320, 240).project(point)  # pixel i covers old pixels 2i and 2i + 1
    np.testing.assert_allclose(binned, (pixel - 0.5) / 2)


def test_an_ideal_fisheye_spreads_angles_evenly():
    camera = CAMERAS["ideal fisheye"]
    for angle in (0.2, 0.5, 0.8):
        u = camera.project([np.sin(angle), 0.0, np.cos(angle)])[0]
        assert u == pytest.approx(K[0, 2] + K[0, 0] * angle)


def test_points_behind_the_camera_have_no_pixel():
    for camera in CAMERAS.values():
        assert np.isnan(camera.project([0.1, 0.1, -1.0])).all()
    assert CAMERAS["ideal"].project(np.zeros((0, 3))).shape == (0, 2)


def test_field_of_view_spans_the_longer_side():
    camera = PinholeCamera.from_fov(480, 640, 90.0)
    assert not camera.calibrated
    bottom = camera.rays_from_pixels([239.5, 639.5])
    assert np.degrees(np.arctan2(bottom[1], bottom[2])) == pytest.approx(45.0, abs=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 480, K),
        (640, 480, np.full((3, 3), np.nan)),
        (640, 480, np.zeros((3, 3))),
        (640, 480, np.eye(4)),
        (640, 480, K, np.array([np.inf, 0, 0, 0])),
        (640, 480, K, np.zeros(3)),
        (640, 480, K, np.zeros(4), "thin_prism"),
        (640, 480, K * [[1e4], [1e4], [1.0]]),
        (640, 480, K * [[1e-4], [1e-4], [1.0]]),
        (640, 480, K + 1e9 * np.eye(3)[[2, 1, 0]]),
        (640, 480, K + 1e4 * np.eye(3)[[1, 2, 0]]),
    ],
)
def test_bad_intrinsics_are_refused_with_a_remedy(arguments):
    with pytest.raises(CameraError) as caught:
        PinholeCamera(*arguments)
    assert caught.value.remedy


@pytest.mark.parametrize("fov", [0.0, 180.0, -10.0, np.nan])
def test_bad_field_of_view_is_refused(fov):
    with pytest.raises(CameraError):
        PinholeCamera.from_fov(640, 480, fov)
