"""Laws of the tracker: ids stay with their faces, whatever the detector misses."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recon_ros.core.assignment import assign
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections

FPS = 30.0


def box(x, y, side=100.0):
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


def detections(*boxes):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)
    )


def centre(track):
    return (track.box[:2] + track.box[2:]) / 2


def known(tracker, where, frames=2):
    """Detects a face in some frames and confirms it by its mesh; the last frame's track."""
    for k in range(frames):
        (track,) = tracker.update(detections(where), k / FPS)
        tracker.confirm({track.id: where})
    return track


def follow(tracker, truth, frames, missed=()):
    """Runs a tracker as the pipeline's first half does; yields its tracks."""
    for k in range(frames):
        stamp = k / FPS
        if tracker.needs_detection(stamp):
            found = detections(*truth(stamp)) if k not in missed else Detections.empty()
            yield tracker.update(found, stamp)
        else:
            yield tracker.predict(stamp)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_assignment_is_the_best_of_all(n, m, seed):
    cost = np.random.default_rng(seed).integers(0, 6, (n, m)) / 2.0
    pairs = assign(cost)
    rows, columns = {i for i, _ in pairs}, {j for _, j in pairs}
    assert len(rows) == len(columns) == len(pairs) == min(n, m)
    tall = cost if n <= m else cost.T
    best = min(
        sum(tall[i, j] for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(tall.shape[1]), tall.shape[0])
    )
    assert sum(cost[p] for p in pairs) == pytest.approx(best)


def test_constant_velocity_is_predicted_exactly():
    tracker = Tracker(TrackerConfig(detect_every=5))
    errors = [
        np.abs(tracks[0].box - box(100 + 60 * k / FPS, 200 - 30 * k / FPS)).max()
        for k, tracks in enumerate(
            follow(tracker, lambda t: [box(100 + 60 * t, 200 - 30 * t)], 90)
        )
    ]
    assert max(errors[6:]) < 0.01  # the velocity is known from the second detection on


@pytest.mark.parametrize("detect_every", [1, 3, 5])
def test_two_people_crossing_keep_their_ids(detect_every):
    def truth(t):
        return [box(100 + 150 * t, 200), box(400 - 150 * t, 300)]

    tracker = Tracker(TrackerConfig(detect_every=detect_every))
    for k, tracks in enumerate(follow(tracker, truth, 60)):
        if k == 0:
            ids = [t.id for t in tracks]
        assert [t.id for t in tracks] == ids
    assert np.abs(centre(tracks[0]) - [100 + 150 * 59 / FPS, 200]).max() < 1


def test_a_face_unseen_for_less_than_a_second_is_the_same_afterwards():
    tracker = Tracker()
    ids = [
        {t.id for t in tracks}
        for tracks in follow(tracker, lambda t: [box(300, 200)], 60, missed=range(20, 45))
    ]
    assert len(set.union(*ids)) == 1 and all(ids)


def test_a_face_unseen_for_longer_is_another():
    tracker = Tracker()
    seen = [
        {t.id for t in tracks}
        for tracks in follow(tracker, lambda t: [box(300, 200)], 120, missed=range(20, 60))
    ]
    assert not seen[58]
    assert seen[10] and seen[100] and seen[10] != seen[100]


def test_misses_count_and_confirmation_clears_them():
    tracker = Tracker(TrackerConfig(detect_every=5))
    known(tracker, box(300, 200))
    tracks = tracker.predict(2 / FPS)
    assert (tracks[0].misses, tracks[0].age) == (1, 2)
    tracker.confirm({tracks[0].id: box(302, 200)})
    assert tracker.tracks[0].misses == 0


def test_the_mesh_leads_between_detections():
    """With a closed loop the box follows even accelerating faces without any detection."""
    tracker = Tracker(TrackerConfig(detect_every=30))

    def where(t):
        return 300 + 200 * np.sin(2 * t)

    for k in range(30):
        stamp = k / FPS
        if tracker.needs_detection(stamp):
            tracks = tracker.update(detections(box(where(stamp), 200)), stamp)
        else:
            tracks = tracker.predict(stamp)
        assert abs(centre(tracks[0])[0] - where(stamp)) < 20
        tracker.confirm({tracks[0].id: box(where(stamp), 200)})
    assert k > 5


def embedding(person):
    vector = np.random.default_rng(person).standard_normal(128)
    return vector / np.linalg.norm(vector)


def see(tracker, stamp, *people):
    """Detects people (number, x), and looks at each face that the tracker wants to see."""
    tracker.update(detections(*(box(x, 200) for _, x in people)), stamp)

    def person(track):
        return min(people, key=lambda p: abs(p[1] - centre(track)[0]))

    looks = {t.id: embedding(person(t)[0]) for t in tracker.tracks if people}
    tracker.identify({name: looks[name] for name in tracker.wants_appearance()})
    tracker.confirm({t.id: t.box for t in tracker.tracks})
    return {person(t)[1]: t.id for t in tracker.visible if people}


def test_who_comes_back_elsewhere_has_the_old_id_and_a_stranger_a_new_one():
    tracker = Tracker()
    for k in range(60):
        (first,) = see(tracker, k / FPS, (1, 300)).values()
    for k in range(60, 660):
        see(tracker, k / FPS)
    (again,) = see(tracker, 660 / FPS, (1, 500)).values()
    assert again == first
    for k in range(661, 665):
        ids = see(tracker, k / FPS, (1, 500), (2, 100))
    assert ids[500] == first and ids[100] != first


def test_no_id_survives_a_cut_by_place():
    tracker = Tracker()
    for k in range(30):
        (first,) = see(tracker, k / FPS, (1, 300)).values()
    tracker.cut()
    for k in range(30, 40):
        ids = see(tracker, k / FPS, (2, 300))
    assert ids[300] != first
    tracker.cut()
    assert see(tracker, 40 / FPS, (1, 300)) == {300: first}


def test_no_id_survives_a_long_gap_by_place_and_a_clock_set_back_forgets_all():
    tracker = Tracker()
    for k in range(30):
        (first,) = see(tracker, k / FPS, (1, 300)).values()
    assert see(tracker, 10.0, (1, 300)) == {300: first}
    (other,) = see(tracker, 0.0, (1, 300)).values()
    assert other != first


def test_without_embeddings_who_was_away_is_new():
    tracker = Tracker()
    first = known(tracker, box(300, 200), frames=10).id
    for k in range(10, 100):
        tracker.update(Detections.empty(), k / FPS)
    (track,) = tracker.update(detections(box(300, 200)), 100 / FPS)
    assert track.id != first and track in tracker.visible


def test_a_slow_camera_has_the_detector_look_as_often_as_a_usual_one():
    tracker = Tracker(TrackerConfig(detect_every=3))
    for k in range(5):
        stamp = k / 5.0
        assert tracker.needs_detection(stamp)
        (track,) = tracker.update(detections(box(300, 200)), stamp)
        tracker.confirm({track.id: box(300, 200)})


@pytest.mark.parametrize("fps", [5.0, 10.0])
def test_who_walks_past_a_slow_camera_keeps_one_id(fps):
    """1.2 m/s at 2 m: from one image to the next a face moves by more than its own side."""
    tracker, ids = Tracker(), set()
    for k in range(int(2 * fps)):
        tracks = tracker.update(detections(box(100 + 550 * k / fps, 200, 70)), k / fps)
        tracker.confirm({t.id: box(100 + 550 * k / fps, 200, 70) for t in tracks})
        ids |= {t.id for t in tracker.visible}
    assert len(ids) == 1


@pytest.mark.parametrize("seed", range(3))
def test_dropped_images_lose_nobody(seed):
    """Every other image of two people who walk is lost, now and then several in a row."""
    tracker, kept = Tracker(), np.random.default_rng(seed).random(300) < 0.5
    ids: list[set[str]] = [set(), set()]
    for k in np.flatnonzero(kept):
        places = box(150 + 0.8 * k, 200), box(600 - 0.8 * k, 420)
        if tracker.needs_detection(k / FPS):
            tracks = tracker.update(detections(*places), k / FPS)
        else:
            tracks = tracker.predict(k / FPS)
        tracker.confirm({t.id: places[int(centre(t)[1] > 310)] for t in tracks})
        for track in tracker.visible:
            ids[int(centre(track)[1] > 310)].add(track.id)
    assert [len(i) for i in ids] == [1, 1]


def test_the_published_score_is_presence_also_in_images_without_a_reconstruction():
    tracker = Tracker(TrackerConfig(detect_every=1))
    track = known(tracker, box(300, 200))
    for k in range(2, 8):
        tracker.update(detections(box(300, 200)), k / FPS)
        tracker.confirm({track.id: box(300, 200)}, {track.id: 0.75})
    (track,) = tracker.update(detections(box(300, 200)), 8 / FPS)
    assert track.score == pytest.approx(0.75, abs=1e-6)


def test_a_face_missed_while_it_turns_away_is_hidden_at_once():
    for turn, shown in ((0.2, True), (1.4, False)):
        tracker = Tracker()
        for k in range(6):
            (track,) = tracker.update(detections(box(300, 200)), k / FPS)
            tracker.confirm({track.id: box(300, 200)}, turns={track.id: turn})
            assert tracker.visible
        tracker.update(Detections.empty(), 6 / FPS)
        assert bool(tracker.visible) == shown and tracker.tracks


def test_a_mesh_at_the_back_of_a_head_does_not_show():
    tracker = Tracker(TrackerConfig(detect_every=30))
    track = known(tracker, box(300, 200), frames=3)
    for k, turn in enumerate((1.0, 2.0, 0.2), 3):  # bent round, it looks at the camera again
        tracker.predict(k / FPS)
        tracker.confirm({track.id: box(300, 200)}, turns={track.id: turn})
        assert bool(tracker.visible) == (k == 3)
    tracker.update(detections(box(300, 200)), 6 / FPS)
    tracker.confirm({track.id: box(300, 200)}, turns={track.id: 0.2})
    assert tracker.visible


def test_a_face_found_beside_its_lagging_track_takes_over_the_id():
    tracker = Tracker()
    for k in range(30):
        (first,) = see(tracker, k / FPS, (1, 300)).values()
    assert see(tracker, 30 / FPS, (1, 460)) == {460: first}  # a leap: the old track lives on
    assert [t.id for t in tracker.tracks] == [first]


def test_who_walks_out_of_the_picture_is_gone_at_once():
    tracker = Tracker(TrackerConfig(detect_every=30))
    tracker.set_image_size(640, 480)
    track = known(tracker, box(600, 200), frames=3)
    for k in range(3, 12):
        x = 595 + 10 * (k - 2)
        tracker.predict(k / FPS)
        tracker.confirm({track.id: box(x, 200)})
        assert bool(tracker.visible) == (x < 640)


def test_a_low_presence_hides_a_face_and_calls_the_detector():
    tracker = Tracker(TrackerConfig(detect_every=30))
    track = known(tracker, box(300, 200))
    for k in range(2, 6):
        tracker.predict(k / FPS)
        tracker.confirm({track.id: box(300, 200)}, {track.id: 0.05})
    assert tracker.tracks and not tracker.visible
    assert tracker.needs_detection(6 / FPS)
    assert tracker.tracks[0].score < 0.5


def test_a_face_without_presence_ends_soon_after_the_detector_misses_it():
    tracker = Tracker()
    track = known(tracker, box(300, 200), frames=10)
    for k in range(10, 22):
        tracker.update(Detections.empty(), k / FPS)
        tracker.confirm({track.id: box(300, 200)}, {track.id: 0.05})
    assert not tracker.tracks


def test_a_present_face_that_the_detector_misses_stays_visible():
    tracker = Tracker()
    track = known(tracker, box(300, 200), frames=10)
    for k in range(10, 30):
        tracker.update(Detections.empty(), k / FPS)
        tracker.confirm({track.id: box(300, 200)}, {track.id: 0.9})
        assert [t.id for t in tracker.visible] == [track.id]


def test_one_blurred_frame_does_not_hide_a_face():
    tracker = Tracker()
    track = known(tracker, box(300, 200), frames=3)
    tracker.predict(3 / FPS)
    tracker.confirm({track.id: box(300, 200)}, {track.id: 0.95})
    tracker.predict(4 / FPS)
    tracker.confirm({track.id: box(300, 200)}, {track.id: 0.2})
    assert tracker.visible


@pytest.mark.parametrize("wrong", [box(800, 200), box(300, 200, 400), box(np.nan, 0)])
def test_an_implausible_mesh_calls_the_detector(wrong):
    tracker = Tracker(TrackerConfig(detect_every=30))
    track = known(tracker, box(300, 200))
    tracker.predict(2 / FPS)
    assert not tracker.needs_detection(3 / FPS)
    tracker.confirm({track.id: wrong})
    assert tracker.needs_detection(3 / FPS)
    np.testing.assert_allclose(tracker.tracks[0].box, box(300, 200), atol=1e-3)


def test_a_mesh_the_detector_contradicts_does_not_lead():
    """A network that shrinks every face must not shrink the track: the detector runs instead."""
    tracker = Tracker(TrackerConfig(detect_every=5))
    for k in range(30):
        stamp = k / FPS
        assert k < 2 or tracker.needs_detection(stamp)
        (track,) = tracker.update(detections(box(300, 200)), stamp)
        np.testing.assert_allclose(track.box, box(300, 200), atol=1e-3)
        x0, y0, x1, _ = track.box
        tracker.confirm({track.id: box((x0 + x1) / 2, y0 + 50, 0.6 * (x1 - x0))})


@pytest.mark.parametrize("shift, rests", [(5, True), (22, False)])
def test_the_detector_rests_only_while_mesh_and_detection_agree(shift, rests):
    tracker = Tracker(TrackerConfig(detect_every=30))
    for k in range(3):
        (track,) = tracker.update(detections(box(300, 200)), k / FPS)
        tracker.confirm({track.id: box(300 + shift, 200)})
    assert tracker.needs_detection(3 / FPS) != rests
    assert abs(centre(tracker.update(detections(box(300, 200)), 3 / FPS)[0])[0] - 300) < shift


def test_a_mesh_that_slid_off_comes_back_to_the_detection():
    tracker = Tracker(TrackerConfig(detect_every=2))
    track = known(tracker, box(300, 200))
    tracker.predict(2 / FPS)
    tracker.confirm({track.id: box(340, 200)})
    tracks = tracker.update(detections(box(300, 200)), 3 / FPS)
    assert tracks[0].id == track.id
    np.testing.assert_allclose(centre(tracks[0]), [300, 200], atol=1)


def test_a_phantom_dies_though_the_mesh_confirms_it():
    """The network answers for anything; only detections keep a track alive."""
    tracker = Tracker()
    track = known(tracker, box(300, 200), 5)
    for k in range(5, 45):
        assert tracker.tracks or k > 30
        stamp = k / FPS
        if tracker.needs_detection(stamp):
            tracker.update(Detections.empty(), stamp)
        else:
            tracker.predict(stamp)
        tracker.confirm({track.id: box(300, 200)})
    assert tracker.tracks == []


def _visible(tracker, frames, fps, is_there, mesh=None):
    """Per frame, the ids of the tracks and of those visible; `mesh` confirms whatever happens."""
    for k in range(frames):
        stamp = k / fps
        if tracker.needs_detection(stamp):
            found = detections(box(300, 200)) if is_there(stamp) else Detections.empty()
            tracks = tracker.update(found, stamp)
        else:
            tracks = tracker.predict(stamp)
        yield stamp, [t.id for t in tracks], [t.id for t in tracker.visible]
        if mesh is not None:
            tracker.confirm({t.id: mesh for t in tracks})


@pytest.mark.parametrize("fps", [15.0, 30.0])
@pytest.mark.parametrize("mesh", [box(300, 200), None])
def test_who_leaves_is_visible_no_longer_though_the_mesh_confirms_it(fps, mesh):
    """The detector looks every five frames; from its first miss on it is doubt."""
    config = TrackerConfig()
    latest = 2.0 + config.detect_every / fps + config.max_tentative_s
    waiting, frames = 0, int(4 * fps)
    for stamp, ids, visible in _visible(Tracker(config), frames, fps, lambda t: t < 2.0, mesh):
        if stamp < 2.0:
            assert len(visible) == 1
        if stamp > latest:
            assert not visible
        waiting += len(ids) - len(visible)
    assert waiting > 0.4 * fps  # the id lives on


@pytest.mark.parametrize("fps", [4.0, 10.0, 15.0, 30.0])
@pytest.mark.parametrize("detect_every", [1, 5, 15])
@pytest.mark.parametrize("mesh", [box(300, 200), box(340, 200), None])
def test_who_is_detected_is_visible_in_every_frame(fps, detect_every, mesh):
    """Also between detections, whether or not the mesh leads there."""
    tracker = Tracker(TrackerConfig(detect_every=detect_every))
    for _, ids, visible in _visible(tracker, 90, fps, lambda t: True, mesh):
        assert visible == ids and len(ids) == 1


def test_a_face_the_detector_misses_shortly_is_visible_all_the_time():
    tracker = Tracker()
    missed = lambda t: not 1.0 <= t % 1.5 < 1.2  # noqa: E731
    for _, _, visible in _visible(tracker, 180, FPS, missed, box(300, 200)):
        assert len(visible) == 1


def test_who_comes_back_in_time_is_visible_under_the_same_id():
    seen = [
        (stamp, visible)
        for stamp, _, visible in _visible(Tracker(), 120, FPS, lambda t: not 1.0 <= t < 1.8)
    ]
    assert any(not visible for stamp, visible in seen if 1.4 < stamp < 1.8)
    assert all(visible == seen[0][1] for stamp, visible in seen if stamp < 1.0 or stamp > 1.9)


def test_a_detection_nobody_repeats_is_gone_at_once():
    tracker = Tracker()
    tracker.update(detections(box(300, 200)), 0.0)
    tracker.predict(1 / FPS)
    assert tracker.update(Detections.empty(), 2 / FPS) == []


def test_an_undetected_mesh_that_wanders_off_ends():
    """Long before its patience does: the network follows nothing in particular."""
    tracker = Tracker()
    track = known(tracker, box(300, 200), 6)
    for k in range(6, 20):
        tracker.update(Detections.empty(), k / FPS)
        tracker.confirm({track.id: box(300 + 20 * (k - 5), 200)})
        if not tracker.tracks:
            break
    assert 8 <= k <= 12


@pytest.mark.parametrize("jump", [-1.0, 10.0])
def test_a_jump_of_the_clock_starts_over(jump):
    tracker = Tracker()
    (before,) = tracker.update(detections(box(300, 200)), 100.0)
    assert tracker.needs_detection(100.0 + jump)
    (after,) = tracker.update(detections(box(300, 200)), 100.0 + jump)
    assert after.id != before.id and after.age == 0


def test_ids_are_short_repeatable_and_never_used_again():
    def ids(seed):
        tracker = Tracker(TrackerConfig(seed=seed))
        out = []
        for k in range(200):
            out += [t.id for t in tracker.update(detections(box(300, 200)), 10.0 * k)]
        return out

    first = ids(0)
    assert first == ids(0) != ids(1)
    assert len(set(first)) == 200
    assert all(len(i) == 5 and i.isalpha() and i.islower() for i in first)


def test_of_fifty_faces_the_nearest_are_followed():
    random = np.random.default_rng(0)
    sides = random.permutation(50) + 20.0
    boxes = [box(150 * (k % 10), 150 * (k // 10), side) for k, side in enumerate(sides)]
    scores = random.uniform(0.5, 1.0, 50).astype(np.float32)
    tracker = Tracker(TrackerConfig(max_faces=8))
    tracks = tracker.update(Detections(np.array(boxes, np.float32), scores), 0.0)
    assert sorted(t.box[2] - t.box[0] for t in tracks) == pytest.approx(sorted(sides)[-8:])


def test_no_more_than_max_faces_and_no_face_twice():
    tracker = Tracker(TrackerConfig(max_faces=2))
    found = detections(box(100, 100), box(105, 100), box(300, 100), box(500, 100))
    assert len(tracker.update(found, 0.0)) == 2
    assert len({t.id for t in tracker.update(found, 0.1)}) == 2


def test_who_comes_back_while_others_fill_the_places_is_not_one_too_many():
    tracker = Tracker(TrackerConfig(max_faces=2, detect_every=1))
    first, second, third = box(100, 200), box(300, 200), box(500, 200)
    for k in range(2):
        tracker.update(detections(first, second), k / FPS)
    for k in range(2, 20):  # a face seen but twice is given up soon, and remembered for a while
        tracker.update(detections(second, third), k / FPS)
    assert len(tracker.update(detections(first, second, third), 20 / FPS)) == 2


def test_slow_cameras_do_not_lose_faces():
    """At 1 Hz each frame is further from the last than a second."""
    tracker = Tracker(TrackerConfig(detect_every=5))
    ids = set()
    for k in range(10):
        assert tracker.needs_detection(float(k))
        ids |= {t.id for t in tracker.update(detections(box(300, 200)), float(k))}
    assert len(ids) == 1


def test_nothing_stays_nothing():
    tracker = Tracker()
    assert tracker.update(Detections.empty(), 0.0) == []
    assert tracker.needs_detection(0.1)
    assert tracker.predict(0.1) == []
    tracker.confirm({"nobody": box(0, 0)})
    assert tracker.tracks == []


@pytest.mark.parametrize(
    "wrong", [{"detect_every": 0}, {"max_faces": 0}, {"max_gap_s": 0.0}, {"max_tentative_s": -1.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        TrackerConfig(**wrong)


def test_a_face_that_was_not_looked_for_is_not_missed():
    """The detector looks at the left half only, for two seconds, and finds the person there."""
    tracker = Tracker(TrackerConfig(detect_every=1))
    left, right = box(100, 200), box(500, 200)
    half = np.array([[-np.inf, -np.inf, 300, np.inf, 0]], np.float32)
    ids = {t.id for k in range(5) for t in tracker.update(detections(left, right), k / FPS)}
    for k in range(5, 65):
        found = detections(left)
        tracks = tracker.update(Detections(found.boxes, found.scores, half), k / FPS)
        tracker.confirm({t.id: t.box for t in tracks})
        assert {t.id for t in tracker.visible} == ids
    for k in range(65, 75):
        tracker.update(detections(left), k / FPS)
    assert len(tracker.visible) == 1  # now it looked there as well


def test_a_view_shows_what_lies_in_it_and_is_large_enough():
    views = np.array([[-np.inf, 0, 100, 100, 20], [80, 0, 200, 100, 0]], np.float32)
    found = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), views)
    boxes = [box(30, 50, 25), box(30, 50, 15), box(90, 50, 15), box(90, 50, 25), box(9, 50, 40)]
    assert found.looked_at(boxes).tolist() == [True, False, True, False, True]
    assert found.looked_at(np.zeros((0, 4))).tolist() == []
    assert Detections.empty().looked_at(boxes).all()


def test_a_face_held_back_stays_so_while_the_detector_misses_it():
    """Someone is lost: the new face may be theirs, and is not shown before a look at it."""
    tracker = Tracker()
    for k in range(30):
        see(tracker, k / FPS, (1, 300))
    for k in range(30, 75):
        tracker.update(Detections.empty(), k / FPS)
    for k in range(75, 81):
        found = Detections.empty() if k == 78 else detections(box(500, 200))
        (track,) = tracker.update(found, k / FPS)
        tracker.confirm({track.id: box(500, 200)}, {track.id: 1.0})
        assert tracker.visible == []
