"""Laws of turned crops: the pixels are turned, the head is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import (
    camera_from_face,
    coefficients_from_crop_pose,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.orientation import (
    Orientation,
    Orientations,
    look_in_quarters,
    quarters_to_compare,
    turned_crop,
    turned_pixels,
)
from face_recon_ros.core.rigid import rotation_from_vector

S = 480
CAMERA = PinholeCamera(
    S, S, np.array([[500.0, 0, (S - 1) / 2], [0, 500.0, (S - 1) / 2], [0, 0, 1]])
)
ANGLES = st.floats(-np.pi, np.pi)


@given(ANGLES, st.floats(5, 400), st.lists(st.floats(-500, 500), min_size=2, max_size=2))
def test_pixels_go_there_and_back(angle, side, point):
    crop = Crop(np.array([200.0, 100.0]), side, 96, angle)
    np.testing.assert_allclose(crop.to_image(crop.to_crop(point)), point, atol=1e-6)
    affine = crop.crop_from_image
    np.testing.assert_allclose(
        affine[:, :2] @ point + affine[:, 2], crop.to_crop(point), atol=1e-6
    )


@pytest.mark.parametrize("side", [60.0, 90.0, 300.0])
@pytest.mark.parametrize("quarter", range(4))
def test_a_quarter_turn_of_the_crop_is_one_of_its_pixels(side, quarter):
    image = np.random.default_rng(0).integers(0, 256, (S, S, 3), np.uint8)
    crop = Crop(np.array([240.0, 200.0]), side, 48)
    turned = turned_crop(crop, quarter).extract(image).astype(int)
    expected = turned_pixels(crop.extract(image), quarter).astype(int)
    assert np.abs(turned - expected).max() <= (2 if side <= 96 else 30)
    assert np.abs(turned - expected).mean() < 3


@given(ANGLES, st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.floats(0.3, 3.0))
def test_crop_pose_and_camera_pose_are_inverse_at_any_angle(angle, x, y, z):
    crop = Crop(CAMERA.project([x * z, y * z, z]), 100.0, 96, angle)
    true = crop_from_face(np.array([0.2, -0.1, 0.3]), np.array([x * z, y * z, z]))
    there = crop_from_camera_pose(true, crop, CAMERA)
    back = camera_from_face(there, crop, CAMERA)
    np.testing.assert_allclose(back.rotation, true.rotation, atol=1e-9)
    np.testing.assert_allclose(back.translation, true.translation, atol=1e-9)


@given(ANGLES, st.floats(-0.15, 0.15), st.floats(-0.15, 0.15))
def test_a_camera_rolled_by_an_angle_sees_the_head_rolled_by_as_much(angle, x, y):
    """The network's answer for the turned crop is the same; the head is turned about the axis."""
    pose = crop_from_face(np.array([0.1, 0.2, 0.0]), np.array([0.0, 0.01, 1.0]))
    centre = CAMERA.project([x, y, 1.0])
    upright = camera_from_face(pose, Crop(centre, 90.0, 96), CAMERA)
    roll = rotation_from_vector([0.0, 0.0, angle])
    middle = np.array([(S - 1) / 2] * 2)
    rolled_centre = roll[:2, :2] @ (centre - middle) + middle
    rolled = camera_from_face(pose, Crop(rolled_centre, 90.0, 96, angle), CAMERA)
    np.testing.assert_allclose(rolled.rotation, roll @ upright.rotation, atol=1e-9)
    np.testing.assert_allclose(rolled.translation, roll @ upright.translation, atol=1e-9)


def rolled_in_crop(degrees):
    pose = crop_from_face(np.zeros(3), np.array([0.0, 0.0, 1.0]))
    turned = rotation_from_vector([0.0, 0.0, np.radians(degrees)]) @ pose.rotation
    return coefficients_from_crop_pose(type(pose)(turned, pose.translation))[0]


@pytest.mark.parametrize(
    ("confidences", "quarter"),
    [
        ([0.25, 0.20, 0.23, 0.20], 0),
        ([0.23, 0.20, 0.26, 0.20], 2),
        ([0.23, 0.20, 0.25, 0.20], 0),  # ResNet50 says so of upright faces
        ([0.20, 0.19, 0.21, 0.26], 3),
        ([0.250, 0.20, 0.252, 0.20], 0),  # too little to turn an upright face
        ([1.0, 1.0, 1.0, 1.0], 0),  # a network that does not say
        ([np.nan, 0.2, 0.3, 0.2], 2),
    ],
)
def test_the_turn_counts_that_the_network_is_clearly_surest_of(confidences, quarter):
    orientation = Orientation()
    assert orientation.is_due
    orientation.compare(np.array(confidences))
    assert orientation.quarter == quarter


def test_what_is_no_face_says_nothing():
    """Of the back of a head one quarter is as good as another: it stays upright."""
    orientation = Orientation()
    orientation.compare(np.array([0.22, 0.25, 0.23, 0.2]), np.array([0.01, 0.2, 0.1, 0.0]))
    assert orientation.quarter == 0
    orientation.compare(np.array([0.23, 0.2, 0.25, 0.2]), np.array([0.6, 0.1, 1.0, 0.1]))
    assert orientation.quarter == 2


def test_presence_and_confidence_count_together():
    """Presence is sure of many a face that is upside down, confidence of some that are lying."""
    orientation = Orientation()
    orientation.compare(np.array([0.25, 0.2, 0.235, 0.2]), np.array([0.96, 0.1, 1.0, 0.1]))
    assert orientation.quarter == 0
    orientation.compare(np.full(4, 1.0), np.array([0.96, 0.1, 1.0, 0.1]))
    assert orientation.quarter == 2  # presence counts by its square


def test_comparisons_count_together_until_a_head_rolls_on():
    orientation = Orientation(seen=10)
    orientation.compare(np.array([0.2, 0.2, 0.5, 0.2]))
    orientation.compare(np.array([0.3, 0.2, 0.2, 0.2]))
    assert orientation.quarter == 2
    orientation.compare(np.array([0.2]), quarters=[1])  # the next has begun
    orientation.follow(rolled_in_crop(70))
    assert orientation.missing() == [2, 0, 1, 3]
    orientation.compare(np.array([0.2, 0.3, 0.2, 0.2]))
    assert orientation.quarter == 1


def follow(orientation, rotation, count):
    """How often it was compared in `count` images of a head that is turned like that."""
    compared = 0
    for _ in range(count):
        if orientation.is_due:
            orientation.compare(np.ones(4))
            compared += 1
        orientation.follow(rotation)
    return compared


def test_who_rolls_on_is_compared_anew_and_not_at_every_nod():
    orientation = Orientation()
    left, right, far = map(rolled_in_crop, (50, -50, 70))
    assert follow(orientation, left, 20) + follow(orientation, right, 20) == 4
    assert not orientation.is_due
    assert orientation.seen == 40
    assert follow(orientation, far, 1) == 0
    assert orientation.is_due
    assert follow(orientation, far, 40) <= 20  # no quarter fits: it is not asked in every image


def test_who_has_to_wait_stays_due():
    orientation = Orientation()
    for _ in range(5):
        orientation.follow(rolled_in_crop(0))
    assert orientation.is_due
    orientation.compare(np.ones(4))
    orientation.compare(np.ones(4))
    assert not orientation.is_due


def test_a_head_seen_from_above_has_no_roll():
    orientation = Orientation()
    pitched = coefficients_from_crop_pose(
        crop_from_face(np.array([np.radians(100.0), 0.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    )[0]
    assert follow(orientation, pitched, 40) == 4  # and is not compared anew


class Answers:
    """A network's answers, by the first pixel of what it was shown; it counts its looks."""

    def __init__(self, seen):
        self.seen = np.atleast_1d(seen)
        self.identity_confidence = self.seen.astype(float)

    def rows(self, chosen):
        return Answers(self.seen[chosen])


def looks_of(people, *, hurried, images=12, carried=None):
    """In each image, how many pictures the network sees, and its answers, of faces whose upper
    left pixel tells the quarter: 1, 3, 2, 9 are how sure it is of the four."""
    crop = np.zeros((2, 2, 3), np.uint8)
    crop[0, 0], crop[0, 1], crop[1, 1], crop[1, 0] = 1, 3, 2, 9
    pixels, counts, rows = np.stack([crop] * len(people)), [], []
    for _ in range(images):
        turns = quarters_to_compare(people, video=True, hurried=hurried)
        known = [
            carried if p.seen and p.quarter not in t else None
            for p, t in zip(people, turns, strict=True)
        ]

        def answer(views):
            counts.append(len(views))
            return Answers(views[:, 0, 0, 0])

        rows.append(look_in_quarters(pixels, people, turns, known, answer, None))
        for person in people:
            person.follow(rolled_in_crop(0))
    return counts, rows


def test_in_a_hurry_later_comparisons_are_spread_and_find_the_same():
    at_once, spread = Orientation(), Orientation()
    counts, rows = looks_of([at_once], hurried=False, images=40, carried=Answers(0))
    assert counts[0] == counts[3] == 4 and rows[0][0].seen == [9]
    counts, rows = looks_of([spread], hurried=True, images=40, carried=Answers(0))
    assert counts[:6] == [4, 0, 0, 2, 1, 1] and rows[0][0].seen == [9]
    assert spread.quarter == at_once.quarter != 0
    assert spread.compared == at_once.compared == 4


def test_what_was_carried_does_not_outlast_a_turn():
    """The third quarter decides for the second, which this image did not show."""
    person = Orientation(seen=3, compared=1, _sure={0: 1.0, 1: 9.0, 2: 1.0})
    crop = np.zeros((1, 2, 2, 3), np.uint8)
    turns = quarters_to_compare([person], video=True, hurried=True)
    assert turns == [[3]]
    (row,) = look_in_quarters(
        crop, [person], turns, [Answers(0)], lambda v: Answers(v[:, 0, 0, 0]), None
    )
    assert person.quarter == 1 and row is None


def test_a_crowd_in_a_hurry_costs_one_or_two_looks_more_an_image():
    people = [Orientation(seen=3, compared=1) for _ in range(8)]
    counts, _ = looks_of(people, hurried=True, images=40, carried=Answers(0))
    assert max(counts) == 2
    assert all(p.compared >= 2 and p.quarter == people[0].quarter != 0 for p in people)


def test_new_faces_are_compared_at_once_and_one_of_the_others():
    new, others = [Orientation(), Orientation()], [Orientation(seen=3, compared=1)] * 2
    for hurried in (False, True):
        turns = quarters_to_compare([*new, *others], video=True, hurried=hurried)
        assert turns == [[0, 1, 2, 3]] * 2 + [[]] * 2
    assert all(quarters_to_compare([*new, *others], video=False, hurried=False))


def test_who_was_seen_last_is_remembered():
    people = Orientations(2)
    a, b = people.of("ab")
    assert people.of("a") == [a]
    people.of("c")
    assert people.of("a") == [a]
    assert people.of("b") != [b]
    crowd = people.of("abcdef")
    assert people.of("abcdef") == crowd


def test_a_comparison_under_way_is_ended_first_and_new_faces_are_not_compared_again():
    people = Orientations(9)
    a, b, _ = people.of(["a", "b", "new"])
    a.seen, a.compared = b.seen, b.compared = 3, 1
    assert people.due_again(["new", "gone"]) is None
    assert people.due_again(["new", "gone", "a"]) == "a"
    b.compare(np.ones(1), quarters=[0])
    assert people.due_again(["a", "b"]) == "b"


def test_nobody_is_compared():
    assert quarters_to_compare([], video=True, hurried=True) == []
    assert look_in_quarters(np.zeros((0, 2, 2, 3), np.uint8), [], [], [], Answers, None) == []
