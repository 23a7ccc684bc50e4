"""A scripted minute with four people who walk past each other, hide each other, and look away."""

import numpy as np
import pytest

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.person import Person, due_for_a_look
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections

RATE_HZ, DURATION_S = 30.0, 60.0
WIDTH, SPEED = 640.0, 180.0  # pixels, pixels a second
#: Of each person: face size (px; the larger, the nearer), height in the picture (px), where on the
#: common way to and fro they start (share). All meet all, head on, twice in six seconds.
PEOPLE = np.array(
    [
        [110.0, 225.0, 0.00],
        [80.0, 215.0, 0.25],
        [60.0, 205.0, 0.50],
        [95.0, 230.0, 0.75],
    ]
)


def true_boxes(time):
    """(4, 4) boxes of people who walk from side to side and turn round there."""
    size, height, start = PEOPLE.T
    way = WIDTH - size.max()
    phase = (SPEED * time / (2 * way) + start) % 1.0
    x = size.max() / 2 + way * (1.0 - np.abs(2.0 * phase - 1.0))
    y = height + 6.0 * np.sin(2 * np.pi * (1.6 * time + start))  # heads bob
    return np.column_stack([x - size / 2, y - size / 2, x + size / 2, y + size / 2])


def visible(boxes):
    """Whether each face is hidden by no nearer one."""
    nearer = PEOPLE[:, 0][None] > PEOPLE[:, 0][:, None]
    shared = np.maximum(
        0,
        np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        - np.maximum(boxes[:, None, :2], boxes[None, :, :2]),
    ).prod(axis=-1)
    hidden = (shared / (PEOPLE[:, 0] ** 2)[:, None] > 0.4) & nearer
    return ~hidden.any(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_four_people_crossing_switch_ids_at_most_once_a_minute(seed):
    rng = np.random.default_rng(seed)
    tracker = Tracker(TrackerConfig(detect_every=1))
    names: list[set[str]] = [set() for _ in PEOPLE]
    last: list[str | None] = [None] * len(PEOPLE)
    switches = hidden_frames = 0
    unseen = np.zeros(len(PEOPLE), int)
    for frame in range(int(DURATION_S * RATE_HZ)):
        time = frame / RATE_HZ
        boxes = true_boxes(time)
        seen = visible(boxes)
        hidden_frames += int((~seen).sum())
        unseen = np.where(seen, 0, unseen + 1)
        assert unseen.max() < RATE_HZ  # hidden for less than a second each time
        found = seen & (rng.random(4) > 0.03)  # the detector misses some
        noisy = boxes + PEOPLE[:, :1] * rng.normal(0, 0.02, (4, 4))
        scores = rng.uniform(0.6, 0.95, 4)
        detections = Detections(noisy[found].astype(np.float32), scores[found].astype(np.float32))
        tracks = tracker.update(detections, time)
        if not tracks:
            continue
        shared = iou(boxes, np.array([t.box for t in tracks]))
        for person in np.flatnonzero(found):
            track = tracks[int(shared[person].argmax())]
            if shared[person].max() < 0.4:
                continue
            if last[person] is not None and last[person] != track.id:
                switches += 1
            last[person] = track.id
            names[person].add(track.id)
    assert hidden_frames > 100  # they do hide each other
    assert all(names)
    assert switches <= 1


def test_in_a_crowd_colours_are_sampled_in_turn_and_of_new_people_at_once():
    people = [Person(ReconstructorConfig(), None) for _ in range(3)]
    assert due_for_a_look(people) == {0, 1, 2}
    turns = [due_for_a_look(people) for _ in range(6)]
    assert all(len(turn) == 1 for turn in turns)
    assert turns[:3] == turns[3:] and set().union(*turns) == {0, 1, 2}
    people.append(Person(ReconstructorConfig(), None))
    assert 3 in due_for_a_look(people)
    assert due_for_a_look(people[:1]) == {0} and due_for_a_look([]) == set()
