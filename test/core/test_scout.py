"""Laws of the detector that looks beside the pipeline: nothing waits for it, nothing is queued."""

import numpy as np
import pytest
from fixtures import DiscDetector, Later, draw_discs

from face_recon_ros.core.background import Background
from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.scout import moved_on
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections, Image

W, H, DT = 320, 240, 1 / 30
RED = (230, 90, 60)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def found(*rows):
    return Detections(boxes(*rows), np.full(len(rows), 0.9, np.float32))


def test_detections_move_and_grow_as_their_tracks_did():
    then = {"a": boxes([10, 10, 30, 30])[0], "gone": boxes([100, 100, 120, 120])[0]}
    now = {"a": boxes([20, 12, 60, 52])[0], "new": boxes([200, 100, 220, 120])[0]}
    moved, doubt = moved_on(found([12, 10, 32, 30], [100, 100, 120, 120]), then, now)
    np.testing.assert_allclose(moved.boxes[0], [22, 12, 62, 52], atol=0.5)
    np.testing.assert_array_equal(moved.boxes[1], [100, 100, 120, 120])
    assert not doubt
    assert len(moved_on(found(), then, now)[0]) == 0
    assert moved_on(found([1, 2, 3, 4]), {}, now)[0].boxes.tolist() == [[1, 2, 3, 4]]


def test_beside_a_track_a_late_detection_says_nothing():
    then = {"a": boxes([10, 10, 30, 30])[0]}
    moved, doubt = moved_on(found([25, 10, 45, 30], [11, 10, 31, 30]), then, then)
    assert len(moved) == 1 and doubt
    moved, doubt = moved_on(found([12, 10, 32, 30], [11, 10, 31, 30]), then, then)
    assert moved.boxes[0, 0] == pytest.approx(11) and doubt  # one face, one detection


class World:
    """Discs that walk, a finder, and an executor that answers `late` images later."""

    def __init__(self, late=1, detector=None):
        self.executor = Later()
        self.detector = detector or DiscDetector()
        self.tracker = Tracker(TrackerConfig())
        self.finder = FaceFinder(self.detector, self.tracker, scout=Background(self.executor))
        self.late, self.k, self.most = late, 0, 0

    def step(self, speed=4.0, k=None):
        self.k = self.k + 1 if k is None else k
        if self.k % self.late == 0:
            self.executor.run()
        disc = (60 + speed * self.k, 100, 25, RED)
        rgb = draw_discs(W, H, disc)
        tracks, detections = self.finder.find(Image(rgb, self.k * DT))
        self.most = max(self.most, len(self.executor.waiting))
        return tracks, detections, disc[0]


@pytest.mark.parametrize("late", [1, 2, 3])
def test_a_walker_is_followed_by_detections_that_come_late(late):
    world, joined = World(late), 0
    for k in range(40):
        tracks, detections, x = world.step()
        (track,) = tracks
        joined += detections is not None
        if k > 8:
            assert abs((track.box[0] + track.box[2]) / 2 - x) < 8
    assert len({track.id for track in tracks}) == 1
    assert joined >= 8
    assert world.most == 1  # one image at a time


def test_the_first_face_does_not_wait():
    tracks, detections, _ = World().step()
    assert len(tracks) == len(detections) == 1


def test_no_image_waits_for_a_slow_detector():
    world = World(late=1000)
    world.step()
    calls = world.detector.calls
    for _ in range(6):
        tracks, detections, _ = world.step()
        assert detections is None
        assert len(tracks) == 1
    assert world.detector.calls == calls
    assert world.most == 1


def test_what_comes_too_late_or_from_before_a_cut_is_not_believed():
    world = World(late=1000)
    for _ in range(4):
        world.step()
    assert world.executor.waiting
    world.executor.run()
    _, detections, _ = world.step(k=world.k + 12)
    assert detections is None
    world = World(late=1000)
    for _ in range(4):
        world.step()
    world.executor.run()
    world.finder._scene_cut = lambda rgb: True
    _, detections, _ = world.step()
    assert len(world.tracker.tracks) == 1  # found anew in this image
    assert detections.boxes[0, 0] > 53


def test_a_fault_of_the_detector_is_told_and_the_next_image_goes_on():
    class Broken(DiscDetector):
        def detect(self, rgb):
            if self.calls:
                self.calls = 0
                raise ImageError("a good day", "a bad one", "try again")
            return super().detect(rgb)

    world = World(detector=Broken())
    faults = 0
    for _ in range(9):
        try:
            world.step()
        except ImageError:
            faults += 1
    assert faults >= 1
    assert len(world.tracker.tracks) == 1


def test_who_appears_beside_a_track_is_looked_at_in_an_image_of_its_own():
    world = World()
    for _ in range(8):
        world.step(speed=0.0)
    disc = (60, 100, 25, RED)
    for k in range(9, 16):
        world.executor.run()
        rgb = draw_discs(W, H, disc, (100, 135, 20, RED))
        tracks, _ = world.finder.find(Image(rgb, k * DT))
    assert len(tracks) == 2


def test_faces_that_touch_are_told_apart_by_detections_of_the_same_image():
    class Walkers:
        def __init__(self):
            self.calls, self.boxes = 0, []

        def detect(self, rgb):
            self.calls += 1
            return found(*self.boxes)

    detector, executor, own = Walkers(), Later(), []
    tracker = Tracker(TrackerConfig(detect_every=1))
    finder = FaceFinder(detector, tracker, scout=Background(executor))
    rgb = np.zeros((H, W, 3), np.uint8)
    for k in range(24):
        executor.run()
        x, before = max(50, 120 - 5 * k), detector.calls
        detector.boxes = [[20, 20, 60, 60], [x, 20, x + 40, 60]]
        finder.find(Image(rgb, k * DT))
        own.append(detector.calls > before)
    assert own[0] and not any(own[1:10])
    assert tracker.touching().all() and all(own[-6:])
