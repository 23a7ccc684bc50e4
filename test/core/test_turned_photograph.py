"""A photograph turned by any angle, by the shipped models: the head turns with it."""

import itertools

import cv2
import numpy as np
import pytest

from face_recon_ros.core.detection import DetectorConfig
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.pipeline import FacePipeline, PipelineConfig
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.refresh import Refresher
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.types import Image

data = pytest.importorskip("skimage.data", reason="its photographs are used")


@pytest.fixture(scope="module")
def pipeline():
    return FacePipeline.from_config()


def turned(rgb: np.ndarray, degrees: float) -> np.ndarray:
    """A square photograph turned clockwise about its middle, with grey where nothing is known."""
    centre = ((rgb.shape[1] - 1) / 2, (rgb.shape[0] - 1) / 2)
    affine = cv2.getRotationMatrix2D(centre, -degrees, 1.0)
    return cv2.warpAffine(rgb, affine, rgb.shape[1::-1], borderValue=(128, 128, 128))


def roll_deg(face) -> float:
    """Of the head in the image, clockwise."""
    up = face.camera_from_face.rotation[:2, 2]
    return float(np.degrees(np.arctan2(up[0], -up[1])))


@pytest.mark.parametrize("degrees", [0, 90, 135, 180, 225, 270])
def test_a_turned_photograph_has_a_turned_head(pipeline, degrees):
    photograph = data.astronaut()[:400, 20:420]
    faces = pipeline.process_still(Image(turned(photograph, degrees), 0.0), doubting=True).faces
    face = max(faces, key=lambda f: f.track.score)
    upright = pipeline.process_still(Image(photograph, 0.0)).faces[0]
    apart = (roll_deg(face) - roll_deg(upright) - degrees + 180) % 360 - 180
    assert abs(apart) < 20
    distance, before = (np.linalg.norm(f.camera_from_face.translation) for f in (face, upright))
    assert distance == pytest.approx(before, rel=0.15)


def test_a_video_of_a_hanging_head_is_followed_the_right_way_up(pipeline):
    rgb = turned(data.astronaut()[:400, 20:420], 180)
    for k in range(5):
        frame = pipeline.process(Image(rgb, 10.0 + k / 30))
        assert abs(roll_deg(frame.faces[0])) > 150


@pytest.mark.parametrize("lap_s, first", [(0.0, 1), (0.1, 3)])
def test_within_a_budget_too_it_is_the_right_way_up_from_the_first_sight_on(lap_s, first):
    """Where every image is late, a new face waits for two of them."""
    laps = itertools.count()
    pipeline = FacePipeline(
        FaceFinder.from_config(DetectorConfig(), TrackerConfig()),
        FaceReconstructor.from_config(ReconstructorConfig()),
        refresher=Refresher(1.0),
        timer=lambda: next(laps) * lap_s,
    )
    rgb = turned(data.astronaut()[:400, 20:420], 180)
    shown = []
    for k in range(16):  # the second and third comparison are spread over images
        shown.append(pipeline.process(Image(rgb, 10.0 + k / 30)).faces)
    assert all(abs(roll_deg(face)) > 150 for faces in shown for face in faces)
    assert all(len(faces) == 1 for faces in shown[first:])


def test_a_rocket_has_no_face():
    for config in (DetectorConfig(), DetectorConfig(tiles=3, min_score=0.7)):
        pipeline = FacePipeline.from_config(PipelineConfig(config))
        assert not pipeline.process_still(Image(data.rocket(), 0.0), doubting=True).faces
