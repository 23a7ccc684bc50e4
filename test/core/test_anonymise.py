"""Laws of hidden faces: what is finer than a cell is gone, and nothing else is touched."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures import DiscDetector, draw_discs
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.anonymise import CELLS, REACH, REMEMBERED_S, LostFaces, hide_faces
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.overlay import Overlay, OverlayConfig
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Image

W, H = 320, 240
BOX = np.array([120.0, 80.0, 180.0, 140.0])
CAMERA = PinholeCamera.from_fov(W, H)


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), np.uint8)


def hidden(rgb, *boxes):
    out = rgb.copy()
    hide_faces(out, boxes)
    return out


def inside(box):
    """Which pixels are hidden for a box, to the pixel beside the border."""
    half = REACH * (box[2] - box[0]) / 2
    y, x = np.mgrid[:H, :W]
    centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return np.maximum(abs(x - centre[0]), abs(y - centre[1])) <= half - 1


def test_of_a_face_few_colours_remain():
    out = hidden(noise(), BOX)
    assert len(np.unique(out[inside(BOX)], axis=0)) <= CELLS**2


def test_what_is_finer_than_a_cell_is_gone():
    """Stripes and their negative look alike: nobody can tell which of them was there."""
    stripes = np.zeros((H, W, 3), np.uint8)
    stripes[:, ::2] = 255
    seen = inside(BOX)
    a, b = hidden(stripes, BOX)[seen], hidden(255 - stripes, BOX)[seen]
    assert (stripes[seen] != 255 - stripes[seen]).all()
    assert np.abs(a.astype(int) - b).max() <= 15  # of 255: half a pixel's width of a cell's


def test_the_rest_of_the_picture_stays():
    rgb = noise()
    changed = (hidden(rgb, BOX) != rgb).any(axis=2)
    half = REACH * 30 + 1
    rows, columns = np.nonzero(changed)
    assert abs(columns - 150).max() <= half and abs(rows - 110).max() <= half
    assert (hidden(rgb) == rgb).all()
    assert (hidden(rgb, BOX + 2000) == rgb).all()


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_no_box_is_too_odd(box, width, height):
    rgb = np.full((height, width, 3), 7, np.uint8)
    hide_faces(rgb, [box])
    assert (rgb == 7).all()  # a mosaic of one colour is that colour


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_face_that_may_be_anywhere_hides_everything(wrong):
    out = hidden(noise(), [0.0, 0.0, wrong, 10.0])
    assert len(np.unique(out.reshape(-1, 3), axis=0)) <= CELLS**2


@pytest.fixture(scope="module")
def pipeline(network_path, face_model_path):
    config = ReconstructorConfig(network=str(network_path), face_model=str(face_model_path))
    return FacePipeline(
        FaceFinder(DiscDetector(), Tracker()), FaceReconstructor.from_config(config)
    )


@pytest.fixture(scope="module")
def face(pipeline):
    rgb = draw_discs(W, H, (150, 110, 30, (200, 60, 60)))
    (found,) = pipeline.process_still(Image(rgb, 0.0)).faces
    return found


def overlay(pipeline, **config):
    model = pipeline.reconstructor.model
    return Overlay(model.triangles, model.n_vertices, OverlayConfig(**config))


def test_the_mesh_is_drawn_over_the_mosaic(pipeline, face):
    rgb = noise()
    plain = {"axes": False, "labels": False}
    shown = overlay(pipeline, anonymise=True, **plain).draw(rgb, [face], CAMERA)
    by_hand = overlay(pipeline, **plain).draw(
        hidden(rgb, face.track.box, face.box), [face], CAMERA
    )
    assert (shown == by_hand).all()
    assert (shown != hidden(rgb, face.track.box, face.box)).any()


def test_a_face_keeps_no_detail_of_its_own_in_the_overlay(pipeline, face):
    """Whoever stood there, of this colour: the same picture."""
    pictures = []
    for seed in (1, 2):
        fine = np.kron(noise(seed)[: H // 2, : W // 2] // 8 + 100, np.ones((2, 2, 1), np.uint8))
        pictures.append(fine)
    seen = inside(face.box)
    drawn = [overlay(pipeline, anonymise=True).draw(p, [face], CAMERA) for p in pictures]
    before = np.abs(pictures[0].astype(int) - pictures[1])[seen].mean()
    after = np.abs(drawn[0].astype(int) - drawn[1])[seen].mean()
    assert after < 0.2 * before
    open_ = [overlay(pipeline).draw(p, [face], CAMERA) for p in pictures]
    assert np.abs(open_[0].astype(int) - open_[1])[seen].mean() > 2 * after


def test_off_unless_asked_and_never_with_a_persons_own_colours():
    assert not OverlayConfig().anonymise
    with pytest.raises(ConfigError, match="switch one"):
        OverlayConfig(anonymise=True, textured=True)


def test_a_face_that_was_just_lost_stays_hidden(face):
    lost = LostFaces()
    assert lost.boxes([face], W, H, 10.0) == []
    (box,) = lost.boxes([], W, H, 10.0 + REMEMBERED_S / 2)
    np.testing.assert_allclose(box, face.box, rtol=1e-6)
    (small,) = lost.boxes([], W // 2, H // 2, 10.0 + REMEMBERED_S / 2)
    np.testing.assert_allclose(small, face.box / 2, rtol=1e-6)
    other = replace(face, track=replace(face.track, id="other"))
    assert len(lost.boxes([other], W, H, 10.0 + REMEMBERED_S)) == 1
    assert len(lost.boxes([face, other], W, H, 10.0 + REMEMBERED_S)) == 0
    assert lost.boxes([], W, H, 10.1 + 2 * REMEMBERED_S) == []


def test_a_clock_that_jumps_back_forgets(face):
    lost = LostFaces()
    lost.boxes([face], W, H, 100.0)
    assert lost.boxes([], W, H, 1.0) == []
