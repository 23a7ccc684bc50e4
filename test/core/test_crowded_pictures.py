"""Fifty faces in a picture, and somebody beside their mirror image, by the shipped models."""

import cv2
import numpy as np
import pytest

from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.types import Image

data = pytest.importorskip("skimage.data", reason="its photographs are used")

WIDTH, HEIGHT = 1280, 720


@pytest.fixture(scope="module")
def pipeline():
    return FacePipeline.from_config()


def head(side: int) -> np.ndarray:
    """A square photograph of a head."""
    rgb = data.astronaut()[20:220, 120:320]
    return cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)


def picture(*heads: tuple[int, int, np.ndarray]) -> np.ndarray:
    """Heads with their left upper corners on grey."""
    rgb = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for x, y, pixels in heads:
        rgb[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return rgb


def test_of_fifty_faces_in_a_picture_the_nearest_are_shown_and_the_others_counted(pipeline):
    sides = np.random.default_rng(0).permutation(np.linspace(70, 128, 50).astype(int))
    heads = [(128 * (k % 10), 144 * (k // 10), head(side)) for k, side in enumerate(sides)]
    faces = pipeline.process(Image(picture(*heads), 1.0)).faces
    assert len(faces) == 8
    assert pipeline.finder.left_out >= 35
    cells = [tuple((face.box[:2] // [128, 144]).astype(int)) for face in faces]
    shown = [sides[10 * row + column] for column, row in cells]
    assert min(shown) > np.median(sides)


def test_somebody_and_the_mirror_image_are_two_who_keep_their_ids(pipeline):
    """At 5 Hz, of which an image is missing."""
    ids = []
    for k in (0, 1, 2, 4, 5, 6):
        x, pixels = 300 + 8 * k, head(200)
        rgb = picture((x, 200, pixels), (WIDTH - x - 200, 200, pixels[:, ::-1]))
        faces = pipeline.process(Image(rgb, 10.0 + k / 5)).faces
        ids.append([face.track.id for face in sorted(faces, key=lambda face: face.box[0])])
    assert len(set(ids[0])) == 2
    assert all(names == ids[0] for names in ids)
