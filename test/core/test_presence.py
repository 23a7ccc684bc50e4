"""Whether a crop shows a face, by the shipped networks on the shipped portrait."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from face_recon_ros.core.pipeline import FaceFinder, FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor, ReconstructorConfig
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections, Image
from face_recon_ros.io.portrait import PORTRAIT

SKIN, CLOTH = (200, 150, 120), (30, 60, 140)


@pytest.fixture(scope="module")
def presence_at():
    """Picture, box -> presence, whatever a detector would say."""
    reconstructor = FaceReconstructor.from_config(ReconstructorConfig(colours="off"))

    def presence(rgb, box):
        found = Detections(np.array([box], np.float32), np.ones(1, np.float32))
        finder = FaceFinder(SimpleNamespace(detect=lambda _: found), Tracker())
        (face,) = (
            FacePipeline(finder, reconstructor).process_still(Image(rgb, 0.0), refine=0).faces
        )
        return face.presence

    return presence


@pytest.fixture(scope="module")
def portrait():
    """The picture and its face box."""
    rgb = cv2.cvtColor(cv2.imread(str(PORTRAIT)), cv2.COLOR_BGR2RGB)
    (face,) = FacePipeline.from_config().process_still(Image(rgb, 0.0)).faces
    return rgb, np.asarray(face.box)


@pytest.mark.parametrize("colour", [SKIN, CLOTH])
@pytest.mark.parametrize(
    "part", [(0.0, 0.5, 1.0, 1.05), (0.0, 0.2, 1.0, 0.45), (0.0, 0.0, 0.5, 1.05)]
)
def test_a_covered_half_lowers_presence_and_does_not_flip_it(presence_at, portrait, part, colour):
    rgb, box = portrait[0].copy(), portrait[1]
    x0, y0, x1, y1 = (np.tile(box[:2], 2) + np.array(part) * (box[2] - box[0])).astype(int)
    rgb[y0:y1, x0:x1] = colour
    minimum = TrackerConfig().min_presence
    assert minimum + 0.2 < presence_at(rgb, box) < presence_at(portrait[0], box)


def test_what_is_no_face_has_no_presence(presence_at, portrait):
    rgb, box = portrait
    side = box[2] - box[0]
    covered = rgb.copy()
    x0, y0, x1, y1 = (box + 0.25 * side * np.array([-1, -1, 1, 1])).astype(int)
    covered[y0:y1, x0:x1] = SKIN
    noise = np.random.default_rng(0).integers(0, 256, rgb.shape, np.uint8)
    chest = box + np.array([0.0, 1.1, 0.0, 1.1]) * side
    for picture, where in [(covered, box), (noise, box), (rgb, chest)]:
        assert presence_at(picture, where) < TrackerConfig().min_presence / 2
