"""Laws of association: size tells people apart who cross; what is not clear waits for a look."""

import numpy as np
import pytest

from face_recon_ros.core import association
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections

RATE_HZ = 10.0
CONFIG = TrackerConfig()


def box(x, side, y=200.0):
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


def detections(*boxes):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)
    )


def cost_of(predicted, *found):
    return association.costs(np.array([predicted]), detections(*found), CONFIG, [0.7])[0]


def test_costs_of_nobody():
    cost = association.costs(np.zeros((0, 4)), detections(), CONFIG, np.zeros(0))
    assert cost.shape == (0, 0) and association.unclear(cost, []) == set()


def test_the_same_box_costs_nothing():
    assert cost_of(box(100, 50), box(100, 50)) == pytest.approx([0.0])


def test_a_face_that_moved_costs_less_than_one_of_another_size():
    moved, other = cost_of(box(100, 50), box(115, 50), box(105, 80))
    assert moved < other


def test_a_match_at_any_cost_is_none():
    """At both limits, of distance and of size, it is rather a new face."""
    assert cost_of(box(100, 50), box(130, 80))[0] == association.FORBIDDEN


def test_two_alike_between_two_tracks_are_unclear_and_two_apart_are_not():
    def unclear(*places):
        tracks = np.array([box(100, 50), box(130, 50)])
        cost = association.costs(tracks, detections(*places), CONFIG, [0.7, 0.7])
        return association.unclear(cost, [(i, i) for i in range(len(places))])

    assert unclear(box(114, 50), box(116, 50)) == {0, 1}
    assert unclear(box(100, 50), box(130, 50)) == set()
    assert unclear(box(115, 50)) == {0}  # the other one is not found, or this one is not


def test_who_is_covered_by_someone_nearer_keeps_the_id_and_so_does_the_other():
    tracker = Tracker()
    ids = [set(), set()]
    for k in range(30):
        places = box(300, 40), box(100 + 15 * k, 70)
        covered = abs(places[1][0] + 35 - 300) < 45
        found = detections(places[1]) if covered else detections(*places)
        tracks = tracker.update(found, k / RATE_HZ)
        near = {t.id for t in tracks if t.box[2] - t.box[0] > 55}
        # The mesh of one that is covered is on the face before it.
        meshes = {t.id: places[1] if covered or t.id in near else places[0] for t in tracks}
        tracker.confirm(meshes, dict.fromkeys(meshes, 1.0))
        for track in tracker.visible:
            ids[int(track.box[2] - track.box[0] > 55)].add(track.id)
        assert len(tracker.visible) == 1 if covered else 2
    assert [len(names) for names in ids] == [1, 1] and ids[0] != ids[1]


def test_a_walker_the_detector_misses_is_found_again_farther_on():
    """Someone sets off with 2 m/s^2 and is out of sight for three intervals."""
    tracker = Tracker()
    for k in range(12):
        place = box(100 + 4 * k * k, 60)
        found = detections() if k in (8, 9) else detections(place)
        tracks = tracker.update(found, k / RATE_HZ)
        assert len(tracks) == 1
        tracker.confirm({} if k in (8, 9) else {tracks[0].id: place})


def test_a_face_of_one_detection_that_the_network_sees_outlives_a_miss():
    tracker = Tracker()
    (track,) = tracker.update(detections(box(300, 60)), 0.0)
    tracker.confirm({track.id: box(300, 60)}, {track.id: 0.99})
    (again,) = tracker.update(detections(), 0.1)
    assert again.id == track.id


def test_a_new_face_beside_a_nearer_one_is_looked_at_and_a_known_one_waits():
    """Else a face that stands half behind another gets a new id, unseen."""
    tracker = Tracker()
    near, far = box(100, 70), box(145, 50)
    (first,) = tracker.update(detections(near), 0.0)
    tracker.identify({first.id: np.eye(8)[0]})
    *_, second = tracker.update(detections(near, far), 0.1)
    assert second.id in tracker.wants_appearance()
    tracker.identify({second.id: np.eye(8)[1]})  # nobody is missing: this id stands
    for k in range(2, 30):
        tracker.update(detections(near, far), k / RATE_HZ)
    assert second.id not in tracker.wants_appearance()
