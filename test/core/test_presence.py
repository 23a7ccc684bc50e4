"""Whether a crop shows a face, by the shipped networks on the shipped portrait."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.pipeline import FacePipeline, PipelineConfig
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
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


def test_a_poster_is_a_face_that_takes_nobodys_id_and_no_id_outlives_a_cut_by_place(portrait):
    """On the poster is the person who walks by: they look the same, so that only place counts."""
    (x0, y0, x1, y1), side = portrait[1], portrait[1][2] - portrait[1][0]
    around = np.array([y0 - 0.5 * side, y1 + 0.3 * side, x0 - 0.4 * side, x1 + 0.4 * side])
    top, bottom, left, right = around.clip(0).astype(int)
    head = cv2.resize(
        portrait[0][top:bottom, left:right], (180, 180), interpolation=cv2.INTER_AREA
    )
    wall = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    walls = [wall, 255 - wall]
    pipeline = FacePipeline.from_config(
        PipelineConfig(reconstructor=ReconstructorConfig(colours="off"))
    )

    def ids_at(k, wall, *places):
        rgb = cv2.resize(walls[wall], (640, 360), interpolation=cv2.INTER_NEAREST)
        for x in places:
            rgb[100:280, x : x + 180] = head
        faces = pipeline.process(Image(rgb, k / 10)).faces
        assert len(faces) <= len(places)
        return {int(face.box[0] > 320): face.track.id for face in faces}

    seen = [ids_at(k, 0, 60, 350 + 5 * k) for k in range(10)]
    poster, person = ({ids[side] for ids in seen if side in ids} for side in (0, 1))
    assert len(poster) == len(person) == 1 and poster != person
    assert len(seen[-1]) == 2
    after = [ids_at(k, 1, 60) for k in range(10, 16)]
    assert after[-1] and not {*after[-1].values()} & (poster | person)
