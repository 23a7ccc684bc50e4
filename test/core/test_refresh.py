"""Laws of the budget: who is reconstructed when there is no time for all, where the rest go."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fixtures import DiscDetector, draw_discs

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.refresh import Refresher, moved_with
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Face, Image, Track

FPS = 30.0
CAMERA = PinholeCamera.from_fov(640, 480)


def box(x, y, side):
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


def people(sides):
    return [Track(f"id{i}", box(50 * i, 100, side), 0.9, 0.0) for i, side in enumerate(sides)]


def play(refresher, sides, frames, cost_s=0.01, rest_s=0.002, attended=(), fps=5.0, **now):
    """Which indices are reconstructed, image by image; new ones cost `NEW` times as much."""
    seen = set()
    for k in range(frames):
        tracks = [replace(t, stamp=k / fps) for t in people(sides)]
        chosen = refresher.choose(tracks, k / fps, attended, **now)
        faces = [SimpleNamespace(track=tracks[i], stamp=k / fps) for i in chosen]
        refresher.remember(faces, np.zeros((len(faces), 2, 2, 3), np.uint8))
        again = "compared" in now and seen >= set(range(len(sides)))
        portions = len(chosen) + (NEW - 1) * len(set(chosen) - seen) + LOOK * again
        seen |= set(chosen)
        refresher.took(cost_s * (portions + BASE) if chosen else 0.0, rest_s)
        yield chosen


BASE, NEW, LOOK = 2.0, 6, 1  # faces' worth of work that each image and each new face costs
SIDES = [20, 100, 30, 60, 40, 80, 25, 50]


@pytest.mark.parametrize("budget_s, room", [(0.13, 8), (0.063, 4), (0.043, 2), (0.001, 1)])
def test_the_budget_is_kept_and_nobody_waits_for_ever(budget_s, room):
    chosen = list(play(Refresher(budget_s), SIDES, 60))
    assert set().union(*chosen[:8]) == set(range(8))
    assert all(len(c) == room for c in chosen[8:])
    last = np.zeros(8, int)
    for k, indices in enumerate(chosen):
        last[indices] = k
        assert (k - last).max() <= 12
    if 1 < room < 8:
        assert all(1 in c for c in chosen[8:])  # the nearest, in each image


def test_a_crowd_that_enters_is_met_by_and_by():
    """Each new face costs six known ones: one is met before anything is measured."""
    chosen = list(play(Refresher(0.1), SIDES, 8))
    assert chosen[0] == [1]
    news, seen = [], set()
    for indices in chosen:
        news.append(len(set(indices) - seen))
        seen |= set(indices)
    assert max(news) == 1 and sum(news) == 8


def test_what_the_image_has_cost_already_leaves_less_room():
    assert all(len(c) == 4 for c in list(play(Refresher(0.065), SIDES, 20))[10:])
    assert all(len(c) == 3 for c in list(play(Refresher(0.065), SIDES, 20, spent_s=0.011))[10:])
    again = list(play(Refresher(0.095), SIDES, 20, compared="id0"))[10:]
    assert all(len(c) == 6 and 0 in c for c in again)  # who is compared has to be seen
    assert all(len(c) == 7 for c in list(play(Refresher(0.095), SIDES, 20))[10:])
    refresher = Refresher(0.065)
    rooms = []
    for chosen in play(refresher, SIDES, 20):
        refresher.also_took(0.011)
        rooms.append(len(chosen))
    assert rooms[-1] == 3


def test_dropped_images_do_not_make_more_room():
    """Of 30 images a second two in three are lost: the budget is still of a thirtieth."""
    refresher = Refresher()
    list(play(refresher, SIDES, 20, cost_s=0.005, fps=FPS))
    rooms = []
    for k in (1, 2, 5, 8, 9, 12, 15, 16, 19, 22, 23, 26, 29, 30):
        rooms.append(len(refresher.choose(people(SIDES), (20 + k) / FPS)))
        refresher.took(0.005 * (rooms[-1] + BASE), 0.002)
    assert max(rooms) <= 3


def test_without_a_budget_the_time_between_images_is_it():
    chosen = list(play(Refresher(), SIDES, 50, cost_s=0.005, fps=FPS))
    assert all(len(c) == 2 for c in chosen[30:])  # 0.8 / 30 s less 2 ms, 5 ms each


def test_who_looks_here_is_reconstructed_in_each_image():
    chosen = list(play(Refresher(0.043), SIDES, 30, attended={"id6"}))
    assert all(6 in c for c in chosen[10:])


def test_a_new_face_comes_first():
    refresher = Refresher(0.043)
    list(play(refresher, SIDES, 10))
    tracks = [*people(SIDES), Track("new", box(300, 300, 10), 0.9, 1.0)]
    assert 8 in refresher.choose(tracks, 2.0)


@pytest.mark.parametrize("cost_s, most_late_s", [(0.005, 0.02), (0.012, 0.3), (0.05, 10.0)])
def test_a_late_image_catches_up_and_nobody_waits_for_ever(cost_s, most_late_s):
    """From the second on, a known face takes longer than there is between two images, too."""
    refresher, finished_s, seen, waited, rested = Refresher(), 0.0, set(), 0, 0
    for k, chosen in enumerate(play(refresher, SIDES, 60, cost_s=cost_s, fps=FPS)):
        late_s = max(0.0, finished_s - k / FPS)
        new = set(chosen) - seen
        work = len(chosen) + BASE + (NEW - 1) * len(new) if chosen else 0
        finished_s = k / FPS + late_s + cost_s * work + 0.002
        assert late_s < most_late_s
        rested = 0 if chosen else rested + 1
        assert rested <= 2 and (chosen or late_s > 0)
        if len(seen) < len(SIDES):
            waited = 0 if new else waited + 1
            assert waited <= 2 and (not new or not seen or late_s < 1e-9 or cost_s > 0.01)
        seen |= new
    assert len(seen) == len(SIDES) and (late_s < 0.01 or cost_s > 0.03)


def test_one_person_is_reconstructed_in_each_image_however_late_it_is():
    assert all(len(c) == 1 for c in play(Refresher(), [50], 20, cost_s=0.05, fps=FPS))


def test_nobody_is_no_fault_and_forgotten_people_take_no_memory():
    refresher = Refresher(0.001)
    list(play(refresher, SIDES, 5))
    assert refresher.choose([], 1.0) == [] and not refresher._known
    assert refresher.carried([], CAMERA) == []


def face_at(translation, where):
    pose = Rigid(rotation_from_vector([0.2, 0.1, 0.0]), np.array(translation))
    track = Track("id", where, 0.9, 0.0)
    crop = Crop(np.array([320.0, 240.0]), 120.0, 64)
    return Face(track, crop, None, pose, None, where, 0.0)


def test_a_face_whose_track_stays_stays():
    face = face_at([0.05, -0.02, 1.0], box(330, 230, 80))
    moved = moved_with(face, replace(face.track, stamp=0.1), CAMERA)
    np.testing.assert_allclose(
        moved.camera_from_face.translation, face.camera_from_face.translation, atol=1e-9
    )
    np.testing.assert_allclose(
        moved.camera_from_face.rotation, face.camera_from_face.rotation, atol=1e-9
    )
    assert moved.stamp == 0.1 and moved.crop.side_px == pytest.approx(face.crop.side_px)


def test_a_face_goes_with_its_track_and_comes_nearer_as_that_grows():
    face = face_at([0.05, -0.02, 1.0], box(330, 230, 80))
    moved = moved_with(face, replace(face.track, box=box(430, 250, 160)), CAMERA)
    assert moved.camera_from_face.translation[2] == pytest.approx(0.5)
    here, there = (CAMERA.project(f.camera_from_face.translation) for f in (face, moved))
    np.testing.assert_allclose(there - [430, 250], 2 * (here - [330, 230]), atol=1e-6)


def test_budgets_below_nothing_are_refused():
    with pytest.raises(ConfigError):
        ReconstructorConfig(budget_ms=-5.0)
    assert Refresher.within(0.0) is None
    assert Refresher.within(-1.0).budget_s is None
    assert Refresher.within(20.0).budget_s == pytest.approx(0.02)


class Clock:
    """Each lap takes a millisecond, however fast this machine is."""

    now = 0.0

    def __call__(self):
        self.now += 1e-3
        return self.now


def test_the_pipeline_shows_everybody_though_it_has_not_the_time(network_path, face_model_path):
    """Six people walk; there is time for about two of them in each image."""
    config = ReconstructorConfig(
        network=str(network_path), face_model=str(face_model_path), points="off"
    )
    pipeline = FacePipeline(
        FaceFinder(DiscDetector(), Tracker(TrackerConfig(detect_every=3))),
        FaceReconstructor.from_config(config),
        timer=Clock(),
        refresher=Refresher(0.0045),
    )
    counts = []
    for k in range(30):
        where = [(80 + 95 * i + k, 120 + 25 * i, 24 + i) for i in range(6)]
        picture = draw_discs(640, 480, *((x, y, r, (230, 90, 60)) for x, y, r in where))
        frame = pipeline.process(Image(picture, k / FPS), CAMERA)
        assert len(frame.crops) == len(frame.faces)
        counts.append(frame.carried)
        if k > 5:
            assert len(frame.faces) == 6
        for face in frame.faces:
            middle = (face.box[:2] + face.box[2:]) / 2
            assert min(np.hypot(middle[0] - x, middle[1] - y) for x, y, _ in where) < 6
            assert face.stamp == k / FPS
    assert 0 < max(counts) < 6
