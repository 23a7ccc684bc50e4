"""What a CameraInfo says of an image, and which camera counts; `input_tables` has more of it."""

import input_tables as t
import numpy as np
import pytest

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.camera_info import doubts, read_camera_info

NO_K = [np.nan] * 9


def intrinsics(camera):
    m = camera.matrix
    return [m[0, 0], m[1, 1], m[0, 2], m[1, 2]]


@pytest.mark.parametrize(
    ("fields", "k", "warning"),
    [
        ({"width": 128, "binning": (2, 1)}, (30.0, 61.0, 15.25, 22.0), ""),
        # a region of interest: at the border, outside below, without width
        (
            {"width": 128, "height": 96, "roi": (64, 48, 64, 48)},
            (60.0, 61.0, -33.0, -26.0),
            "",
        ),
        ({"roi": (0, 10, 64, 48)}, (60.0, 61.0, 31.0, 22.0), "region of interest"),
        ({"roi": (5, 5, 0, 10)}, (60.0, 61.0, 31.0, 22.0), "region of interest"),
        # the image is: the region without the binning, the binned whole, the whole, or the
        # region at another size
        (
            {"width": 200, "height": 150, "roi": (10, 20, 64, 48), "binning": (2, 2)},
            (60.0, 61.0, 21.0, 2.0),
            "binning left out",
        ),
        (
            {"width": 128, "roi": (0, 0, 20, 20), "binning": (2, 1)},
            (30.0, 61.0, 15.25, 22.0),
            "region of interest",
        ),
        (
            {"width": 128, "height": 96, "roi": (0, 0, 20, 20)},
            (30.0, 30.5, 15.25, 10.75),
            "region of interest left out",
        ),
        (
            {"width": 300, "height": 150, "roi": (10, 20, 128, 96)},
            (30.0, 30.5, 10.25, 0.75),
            "scaled",
        ),
        # improbable intrinsics, without a size, too
        ({"k": (60, 0, 200, 0, 60, 22, 0, 0, 1)}, (60.0, 60.0, 200.0, 22.0), "principal point"),
        ({"k": (60, 0, 31, 0, 200, 22, 0, 0, 1)}, (60.0, 200.0, 31.0, 22.0), "aspect ratio"),
        ({"k": (8, 0, 31, 0, 8, 22, 0, 0, 1)}, (8.0, 8.0, 31.0, 22.0), "focal length"),
        (
            {"k": (60, 0, 62, 0, 60, 44, 0, 0, 1), "width": 0, "height": 0},
            (60.0, 60.0, 62.0, 44.0),
            "hardly of this one",
        ),
    ],
)
def test_the_camera_of_an_image(fields, k, warning):
    reading = read_camera_info(t.info_message(**{"k": t.K, **fields}), t.W, t.H)
    assert (reading.camera.width, reading.camera.height) == (t.W, t.H)
    np.testing.assert_allclose(intrinsics(reading.camera), k)
    said = "; ".join(reading.warnings)
    assert bool(said) == bool(warning) and warning in said, said


def test_pixels_that_are_skewed_stay_so_and_a_short_rational_lens_is_padded():
    k = (60.0, 2.0, *t.K[2:])
    info = t.info_message(k, t.BENT[:4], "rational_polynomial")
    reading = read_camera_info(info, t.W, t.H)
    np.testing.assert_array_equal(reading.camera.matrix.ravel(), k)
    np.testing.assert_array_equal(reading.camera.distortion, [*t.BENT[:4], 0, 0, 0, 0])
    assert reading.warnings == ()


@pytest.mark.parametrize(
    ("rectified", "topic", "focal_px"),
    [
        ("auto", "/image_raw", 60.0),
        ("auto", "/image_rect", 50.0),
        ("true", "/image_raw", 50.0),
        ("false", "/image_rect", 60.0),
    ],
)
def test_whether_images_are_rectified_is_set_or_told_by_their_topic(rectified, topic, focal_px):
    resolver = CameraResolver(rectified=rectified, image_topic=topic)
    assert resolver.update(t.info_message(t.K, p=t.P))
    assert resolver.camera(t.W, t.H).matrix[0, 0] == focal_px
    assert not resolver.update(t.info_message(t.K, p=t.P))
    assert resolver.update(t.info_message(t.K, p=[2.0 * v for v in t.P]))


def test_a_faulty_message_leaves_the_last_camera_and_a_camera_without_calibration_does_not():
    resolver = CameraResolver(fov_deg=90.0)
    resolver.update(t.info_message(t.K))
    known = resolver.camera(t.W, t.H)
    assert resolver.source == "CameraInfo"
    resolver.update(t.info_message(NO_K))
    assert resolver.camera(t.W, t.H) is known
    assert "last usable" in resolver.warnings[-1]
    resolver.update(t.info_message([0.0] * 9))
    assumed = resolver.camera(t.W, t.H)
    assert assumed.matrix[0, 0] == PinholeCamera.from_fov(t.W, t.H, 90.0).matrix[0, 0]
    assert resolver.source == "CameraInfo; without it, field of view assumed to be 90 degrees"
    resolver.forget()
    resolver.update(t.info_message(NO_K))
    assert not resolver.camera(t.W, t.H).calibrated


def test_a_calibration_goes_before_camera_info_at_any_resolution(tmp_path):
    path = tmp_path / "ost.yaml"
    path.write_text(
        "image_width: 128\nimage_height: 96\ndistortion_model: unheard_of\n"
        f"camera_matrix: {{data: {list(t.K)}}}\n"
        "distortion_coefficients: {data: [0.1, 0, 0, 0, 0]}\n"
    )
    resolver = CameraResolver(path)
    resolver.update(t.info_message(t.K, width=2 * t.W, height=2 * t.H))
    camera = resolver.camera(t.W, t.H)
    np.testing.assert_allclose(intrinsics(camera), (30.0, 30.5, 15.25, 10.75))
    assert resolver.source == "calibration ost.yaml" and resolver.notes == ()
    (warning,) = resolver.warnings
    assert "unheard_of" in warning and resolver.problems == [warning]


@pytest.mark.parametrize("field_deg", [120, 180, 200, 220])
@pytest.mark.parametrize("d", [(0.0,) * 4, (0.02, -0.01, 0.004, -0.001)])
def test_a_fisheye_is_no_odd_lens(field_deg, d):
    """Its circle fills a square picture; no pinhole has such rays."""
    focal = 400 / np.radians(field_deg / 2)
    matrix = np.array([[focal, 0, 399.5], [0, focal, 399.5], [0, 0, 1]])
    assert doubts(PinholeCamera(800, 800, matrix, np.array(d), "equidistant")) == []


def test_an_odd_fisheye_is_doubted():
    matrix = np.array([[300, 0, 399.5], [0, 300, 399.5], [0, 0, 1.0]])
    (said,) = doubts(PinholeCamera(800, 800, matrix, np.full(4, 5.0), "equidistant"))
    assert "hardly any lens" in said
