"""Laws of what is taken for hidden: doubt beyond what is usual in the picture, at the place."""

import numpy as np
import pytest

from face_recon_ros.core.occlusion import OcclusionSense

RANDOM = np.random.default_rng(2)
POINTS = RANDOM.uniform([-0.05, -0.07, -0.1], [0.02, 0.07, 0.08], (500, 3))
VERTICES = RANDOM.uniform([-0.05, -0.07, -0.1], [0.02, 0.07, 0.08], (300, 3))
DISTANCE = np.linalg.norm(POINTS[:, 1:] - [0.0, -0.01], axis=1)
USUAL = 0.006 * np.exp(DISTANCE / 0.064)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_a_blurred_picture_hides_nothing(scale):
    """All points are in doubt alike."""
    assert OcclusionSense(POINTS, VERTICES)(scale * USUAL).min() > 0.9


def test_a_hand_hides_what_is_behind_it():
    under = POINTS[:, 2] < -0.04
    sigma = np.where(under, 3.0, 1.0) * USUAL
    seen = OcclusionSense(POINTS, VERTICES)(sigma)
    assert seen[VERTICES[:, 2] < -0.06].max() == 0.0
    assert seen[VERTICES[:, 2] > -0.02].min() > 0.9


def test_what_is_hardly_a_face_is_hardly_seen():
    sense = OcclusionSense(POINTS, VERTICES)
    assert sense(USUAL, 0.4).max() == 0.0
    assert (sense(USUAL, 0.7) < sense(USUAL, 0.99)).all()


def test_where_nothing_is_said_nothing_is_known():
    assert OcclusionSense(None, VERTICES)(None, 0.9) is None
    assert OcclusionSense(POINTS, VERTICES)(None) is None
    assert OcclusionSense(POINTS, VERTICES[:0])(USUAL).shape == (0,)
