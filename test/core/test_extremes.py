"""Cameras beyond reason, through the whole pipeline: finite faces, or a fault that says so."""

import numpy as np
import pytest
from fixtures import DiscDetector, draw_discs
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError, FaceReconError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Image

W, H = 320, 240
PICTURE = draw_discs(W, H, (80, 100, 30, (200, 60, 60)), (230, 150, 40, (60, 200, 60)))


@pytest.fixture(scope="module")
def reconstructor(network_path, face_model_path):
    return FaceReconstructor.from_config(
        ReconstructorConfig(network=str(network_path), face_model=str(face_model_path))
    )


@st.composite
def cameras(draw):
    """K over many orders of magnitude, and any distortion of any model."""
    fx, fy = (10.0 ** draw(st.floats(-12, 12)) for _ in range(2))
    cx, cy = (draw(st.floats(-1e12, 1e12)) for _ in range(2))
    skew = draw(st.sampled_from([0.0, 1.0, 1e9]))
    model, n = draw(
        st.sampled_from(
            [("plumb_bob", 0), ("plumb_bob", 5), ("rational_polynomial", 8), ("equidistant", 4)]
        )
    )
    if draw(st.booleans()):  # only the distortion is odd
        fx = fy = 300.0
        cx, cy, skew = 160.0, 120.0, 0.0
    scale = 10.0 ** draw(st.floats(-3, 12))
    d = np.array(draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n))) * scale
    return np.array([[fx, skew, cx], [0, fy, cy], [0, 0, 1]]), d, model


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=150, deadline=None)
@given(cameras())
def test_faces_are_finite_or_there_are_none(reconstructor, camera):
    pipeline = FacePipeline(FaceFinder(DiscDetector(), Tracker()), reconstructor)
    try:
        camera = PinholeCamera(W, H, *camera)
        frames = [pipeline.process(Image(PICTURE, stamp), camera) for stamp in (1.0, 1.03)]
    except FaceReconError as fault:
        assert fault.remedy
        return
    for face in frames[0].faces + frames[1].faces:
        for values in (face.camera_from_face.rotation, face.camera_from_face.translation):
            assert np.isfinite(values).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_distortion_that_cannot_be_undone_is_told(reconstructor):
    pipeline = FacePipeline(FaceFinder(DiscDetector(), Tracker()), reconstructor)
    k = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    fisheye = PinholeCamera(W, H, k, np.array([-1e9, 1e9, -1e9, 1e9]), "equidistant")
    with pytest.raises(CameraError, match="equidistant"):
        pipeline.process(Image(PICTURE, 1.0), fisheye)
