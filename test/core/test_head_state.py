"""What follows from a reconstructed face, as stages of the pipeline."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures import DiscDetector, draw_discs

from face_recon_ros.core.attention import AttentionConfig
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.head_state import HeadStateConfig
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Image

W, H, FPS = 640, 480, 30.0
RED, GREEN = (230, 90, 60), (90, 230, 60)
CAMERA = replace(PinholeCamera.from_fov(W, H), calibrated=True)
PICTURE = draw_discs(W, H, (250, 240, 50, RED))


@pytest.fixture
def pipeline(network_path, face_model_path):
    config = ReconstructorConfig(network=str(network_path), face_model=str(face_model_path))
    finder = FaceFinder(DiscDetector(), Tracker())
    return FacePipeline(finder, FaceReconstructor.from_config(config))


def depth_of(face, factor):
    """A wall that lies `factor` times as far as the mesh does on average."""
    return np.full((H, W), factor * face.camera_from_face.apply(face.mesh.vertices)[:, 2].mean())


def test_every_face_says_how_sure_it_is_and_where_it_looks(pipeline):
    near = draw_discs(W, H, (250, 240, 100, RED))
    spreads = {}
    for name, picture in (("far", PICTURE), ("near", near)):
        (face,) = pipeline.process_still(Image(picture, 0.0), CAMERA).faces
        assert face.covariance.shape == (6, 6)
        assert (np.linalg.eigvalsh(face.covariance) > 0).all()
        assert face.depth_reading is None
        gaze = face.camera_from_gaze.rotation[:, 2]  # the dome has no eyeballs
        np.testing.assert_allclose(gaze, face.camera_from_face.rotation[:, 0], atol=1e-6)
        spreads[name] = np.trace(face.covariance)
    assert spreads["near"] < spreads["far"]


def test_a_doubtful_face_has_a_wide_covariance(pipeline):
    (face,) = pipeline.process_still(Image(PICTURE, 0.0), CAMERA).faces
    sure, doubtful = (
        pipeline.head_state.still([replace(face, presence=presence)], CAMERA)[0].covariance
        for presence in (1.0, 0.5)
    )
    assert (np.linalg.eigvalsh(doubtful - sure) > 0).all()


def test_nobody_is_an_empty_frame(pipeline):
    depth = np.zeros((H, W))
    frame = pipeline.process(Image(np.zeros((H, W, 3), np.uint8), 0.0), CAMERA, depth)
    size = pipeline.reconstructor.network.size
    assert frame.faces == []
    assert frame.crops.shape == (0, size, size, 3)


def test_depth_moves_a_face_but_not_its_mesh_in_the_image(pipeline):
    before = pipeline.process(Image(PICTURE, 0.0), CAMERA).faces[0]
    depth = depth_of(before, 1.1)
    (moved,) = pipeline.head_state([before], CAMERA, 0.0, depth)
    ratio = np.linalg.norm(moved.camera_from_face.translation) / np.linalg.norm(
        before.camera_from_face.translation
    )
    assert 1.02 < ratio < 1.2
    assert moved.depth_reading is not None
    assert np.trace(moved.covariance) < np.trace(before.covariance)
    pixels, pixels_before = (
        CAMERA.project(f.camera_from_face.apply(f.mesh.vertices)) for f in (moved, before)
    )
    np.testing.assert_allclose(pixels, pixels_before, atol=0.02)
    assert moved.mesh.vertices.dtype == np.float32
    assert pipeline.process(Image(PICTURE, 0.0), CAMERA, depth).faces[0].depth_reading is not None


def test_holes_change_nothing(pipeline):
    before = pipeline.process(Image(PICTURE, 0.0), CAMERA).faces[0]
    for hole in (0.0, np.nan):
        (face,) = pipeline.head_state([before], CAMERA, 0.0, np.full((H, W), hole))
        np.testing.assert_array_equal(face.mesh.vertices, before.mesh.vertices)
        np.testing.assert_array_equal(face.covariance, before.covariance)
        assert face.depth_reading is None


def test_a_depth_that_cannot_be_this_head_is_no_reading(pipeline):
    before = pipeline.process(Image(PICTURE, 0.0), CAMERA).faces[0]
    (face,) = pipeline.head_state([before], CAMERA, 0.0, depth_of(before, 3.0))
    assert face.camera_from_face is before.camera_from_face
    assert face.depth_reading is None


def test_depth_that_comes_later_is_asked_for_once_there_are_faces(pipeline):
    asked, nobody = [], np.zeros((H, W, 3), np.uint8)
    pipeline.process(Image(nobody, 0.0), CAMERA, lambda: asked.append(True))
    assert not asked
    (face,) = pipeline.process(Image(PICTURE, 0.1), CAMERA, lambda: asked.append(True)).faces
    assert asked and face.depth_reading is None
    depth = depth_of(face, 1.1)
    (face,) = pipeline.process(Image(PICTURE, 0.2), CAMERA, lambda: depth).faces
    assert face.depth_reading is not None


def test_a_depth_image_of_another_size_is_refused(pipeline):
    with pytest.raises(ImageError, match="registered"):
        pipeline.process(Image(PICTURE, 0.0), CAMERA, np.ones((H // 2, W // 2)))


@pytest.mark.parametrize("dwell_s", [0.0, 0.2])
def test_attention_takes_its_time(pipeline, dwell_s):
    """The disc's face always points at the camera."""
    pipeline.head_state.tune(HeadStateConfig(AttentionConfig(dwell_s=dwell_s)))
    seen = [
        pipeline.process(Image(PICTURE, k / FPS), CAMERA).faces[0].attention for k in range(10)
    ]
    first = next(k for k, attention in enumerate(seen) if attention is not None)
    assert first / FPS == pytest.approx(dwell_s, abs=1.5 / FPS)
    assert all(0.9 < attention <= 1.0 for attention in seen[first:])
    assert pipeline.process_still(Image(PICTURE, 1.0), CAMERA).faces[0].attention is None


def test_the_frame_carries_the_pixels_that_the_network_saw(pipeline):
    asked = []
    predict = pipeline.reconstructor.predict
    pipeline.reconstructor.predict = lambda pixels: asked.append(pixels) or predict(pixels)
    picture = draw_discs(W, H, (150, 120, 40, RED), (480, 300, 60, GREEN))
    frame = pipeline.process(Image(picture, 0.0), CAMERA)
    assert len(frame.faces) == len(frame.crops) == 2
    for face, crop in zip(frame.faces, frame.crops, strict=True):
        np.testing.assert_array_equal(crop, face.crop.extract(picture))
        assert any(np.array_equal(crop, seen) for seen in asked[0])  # which are turned as well
