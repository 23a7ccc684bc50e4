"""Laws of the crop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.crop import Crop, crop_from_face_box, face_box_from_points
from face_recon_ros.core.errors import ImageError

coordinate = st.floats(-50, 700)


@given(coordinate, coordinate, st.floats(5, 900), st.sampled_from([32, 128, 224]))
def test_to_image_inverts_to_crop(x, y, side, size):
    crop = Crop(np.array([x, y]), side, size)
    point = np.array([[12.0, 34.0], [500.0, -3.0]])
    np.testing.assert_allclose(crop.to_image(crop.to_crop(point)), point, atol=1e-6)


@given(coordinate, coordinate, st.floats(5, 900))
def test_affine_is_to_crop(x, y, side):
    crop = Crop(np.array([x, y]), side, 128)
    point = np.array([40.0, 60.0])
    affine = crop.crop_from_image
    np.testing.assert_allclose(affine[:, :2] @ point + affine[:, 2], crop.to_crop(point))


@pytest.mark.parametrize("side", [60.0, 128.0, 200.0, 300.0, 500.0, 1000.0])
def test_extract_puts_things_where_to_crop_says(side):
    """A soft blob's centre of mass survives, whatever the shrinking."""
    height, width, size = 800, 900, 128
    centre = np.array([431.3, 377.8])
    sigma = side / 20
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    image = np.repeat(np.uint8(255 * blob)[..., None], 3, axis=2)
    crop = Crop(centre + np.array([side / 9, -side / 7]), side, size)
    out = crop.extract(image)[..., 0].astype(float)
    yy, xx = np.mgrid[:size, :size]
    mass = np.array([(xx * out).sum(), (yy * out).sum()]) / out.sum()
    np.testing.assert_allclose(mass, crop.to_crop(centre), atol=0.15)


def test_shrinking_does_not_alias():
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    out = Crop(np.array([500.0, 500.0]), 900.0, 100).extract(stripes)
    assert out[5:-5, 5:-5].std() < 255 / 9  # nine columns average to 4/9 or 5/9; aliasing: 127


def test_outside_is_black_and_any_place_is_allowed():
    white = np.full((50, 60, 3), 255, np.uint8)
    out = Crop(np.array([0.0, 0.0]), 40.0, 20).extract(white)
    assert out[0, 0].max() == 0 and out[-1, -1].min() == 255
    for centre in ([-500.0, -500.0], [1000.0, 20.0]):
        for side in (10.0, 400.0):
            assert Crop(np.array(centre), side, 20).extract(white).shape == (20, 20, 3)


def test_grey_images_and_one_pixel_images_are_images():
    assert Crop(np.zeros(2), 10.0, 8).extract(np.zeros((5, 5), np.uint8)).shape == (8, 8)
    assert Crop(np.zeros(2), 90.0, 8).extract(np.zeros((1, 1, 3), np.uint8)).shape == (8, 8, 3)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (5,)])
def test_images_without_pixels_are_refused(shape):
    with pytest.raises(ImageError):
        Crop(np.zeros(2), 10.0, 8).extract(np.zeros(shape, np.uint8))


def test_box_to_crop():
    crop = crop_from_face_box([10, 20, 50, 60], margin=1.5, size=64)
    np.testing.assert_allclose(crop.centre_px, [30, 40])
    assert crop.side_px == pytest.approx(60)


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [5, 5, 1, 9], [0, 0, np.nan, 5]])
def test_bad_boxes_are_refused(box):
    with pytest.raises(ImageError):
        crop_from_face_box(box, 1.5, 64)


def test_face_box_is_a_square_of_the_same_area_and_centre():
    box = face_box_from_points([[0, 0], [40, 10], [20, 90]])
    np.testing.assert_allclose(box, [20 - 30, 45 - 30, 20 + 30, 45 + 30])
