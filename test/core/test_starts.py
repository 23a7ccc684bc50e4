"""Laws of where fits start: from the track's last answer, in between from the regressor's."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from fixtures import DiscDetector, draw_discs, write_point_network

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import (
    CAMERA_FROM_FRONTAL_FACE,
    camera_from_face,
    coefficients_from_crop_pose,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import Rigid, angle_between, rotation_from_vector
from face_recon_ros.core.starts import LastAnswer, Start, choose_waiting
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Coefficients, Image

W, H, DT = 480, 400, 1 / 30
CAMERA = PinholeCamera.from_fov(W, H)
CROP = Crop(np.array([250.0, 210.0]), 150.0, 96)
RED = (230, 90, 60)
SIGHTS = {0, 3, 10, 30}  # of a face, at which all ways up are compared


def row(waited=0, *, settled=True, rotation=(0, 0, 0), translation=(0, 0, 1.0)):
    c = replace(
        Coefficients.zeros(1, 3, 2, 1),
        rotation=np.float32([rotation]),
        translation=np.float32([translation]),
    )
    return Prediction(
        c,
        np.ones(1, np.float32),
        regressed=replace(c, identity=np.full((1, 3), 0.5, np.float32)),
        waited=np.array([waited]),
        settled=np.array([settled]),
    )


def head(turned=(0, 0, 0), place=(0.02, 0.01, 0.8)):
    attitude = rotation_from_vector(turned) @ CAMERA_FROM_FRONTAL_FACE
    return Rigid(attitude, np.array(place, float))


def followed(poses, **changes):
    """The last answer of heads whose fits ended where they began."""
    last = None
    for k, pose in enumerate(poses):
        rotation, translation = coefficients_from_crop_pose(
            crop_from_camera_pose(pose, CROP, CAMERA)
        )
        found = row(**changes, rotation=rotation, translation=translation)
        last = LastAnswer.after(last, k * DT, pose, found, CROP, CAMERA)
    return last


def test_a_moving_head_is_expected_further_on_and_a_still_one_where_it_is():
    turn, move = np.array([0.0, 0.1, 0.02]), np.array([0.02, -0.01, 0.05])
    walked = [head(k * turn, (0.02, 0.01, 0.8) + k * move) for k in range(3)]
    expected = followed(walked[:2]).expected(2 * DT)
    assert angle_between(expected.rotation, walked[2].rotation) < 0.005
    np.testing.assert_allclose(expected.translation, walked[2].translation, atol=0.005)
    trembling = [head((0, 0.002, 0)), head((0, -0.002, 0))]
    expected = followed(trembling).expected(2 * DT)
    assert angle_between(expected.rotation, trembling[1].rotation) < 0.001


def test_it_starts_where_the_head_is_expected_in_the_new_crop():
    last = followed([head(), head()], waited=2)
    start = last.start(2 * DT, CROP, CAMERA)
    c = start.prediction.coefficients
    seen = camera_from_face(crop_from_face(c.rotation[0], c.translation[0]), CROP, CAMERA)
    np.testing.assert_allclose(seen.translation, head().translation, atol=1e-5)
    assert angle_between(seen.rotation, head().rotation) < 1e-5
    assert start.prediction.waited == [3]
    assert not start.fast
    np.testing.assert_array_equal(c.identity, last.prediction.regressed.identity)
    assert start.prediction.identity_confidence == last.prediction.identity_confidence


@pytest.mark.parametrize("later_s", [0.0, -DT, 1.0])
def test_it_does_not_start_from_another_time(later_s):
    assert followed([head(), head()]).start(DT + later_s, CROP, CAMERA) is None


@pytest.mark.parametrize("later_s", [0.0, -DT, 1.0])
def test_a_head_of_another_time_says_nothing_of_how_it_moves(later_s):
    before, now = followed([head()]), head((0, 0.3, 0), (0.1, 0.01, 0.8))
    last = LastAnswer.after(before, later_s, now, row(), CROP, CAMERA)
    expected = last.expected(later_s + DT)
    np.testing.assert_allclose(expected.translation, now.translation)
    np.testing.assert_allclose(expected.rotation, now.rotation)


def test_it_does_not_start_from_a_fit_that_did_not_settle_or_beside_the_crop():
    assert followed([head()], settled=False).start(DT, CROP, CAMERA) is None
    for aside in ([80.0, 0.0], [0.0, 80.0]):
        beside = replace(CROP, centre_px=CROP.centre_px + np.array(aside))
        assert followed([head()]).start(DT, beside, CAMERA) is None
    assert followed([head()]).start(DT, CROP, CAMERA) is not None


def test_a_fast_head_is_said_to_be_fast():
    assert followed([head(), head((0, 0.2, 0))]).start(2 * DT, CROP, CAMERA).fast
    assert followed([head(), head((0, 0, 0), (0.06, 0.01, 0.8))]).start(2 * DT, CROP, CAMERA).fast
    slow = followed([head(), head((0, 0.05, 0), (0.03, 0.01, 0.8))])
    assert not slow.start(2 * DT, CROP, CAMERA).fast


def test_a_still_face_starts_where_the_regressor_had_it_start():
    """The fit moved the head and opened the jaw: the next start is the regressor's once more."""
    c = row().coefficients
    began = replace(
        c,
        rotation=np.float32([[0.1, 0.0, 0.05]]),
        translation=np.float32([[0.01, 0.02, 1.1]]),
        expression=np.float32([[0.3, 0.0]]),
    )
    fitted = replace(c, expression=np.float32([[0.6, 0.1]]))
    answer = replace(row(), coefficients=fitted, regressed=began)
    pose = camera_from_face(crop_from_face(c.rotation[0], c.translation[0]), CROP, CAMERA)
    last = LastAnswer.after(None, 0.0, pose, answer, CROP, CAMERA)
    for k in range(1, 4):
        start = last.start(k * DT, CROP, CAMERA).prediction
        np.testing.assert_allclose(start.coefficients.rotation, began.rotation, atol=1e-5)
        np.testing.assert_allclose(start.coefficients.translation, began.translation, atol=1e-4)
        np.testing.assert_allclose(start.coefficients.expression, began.expression, atol=1e-6)
        carried = replace(start, coefficients=fitted, settled=np.array([True]))
        last = LastAnswer.after(last, k * DT, pose, carried, CROP, CAMERA)


def test_it_starts_from_no_expression_beyond_those_that_were_found():
    """Else a jaw that the fit opened as wide as the regressor would start wider than a jaw can."""
    c = row().coefficients
    wide, half_open = (replace(c, expression=np.float32([[e, 0.0]])) for e in (1.0, 0.6))
    answer = replace(row(), coefficients=half_open, regressed=wide)
    pose = camera_from_face(crop_from_face(c.rotation[0], c.translation[0]), CROP, CAMERA)
    last = LastAnswer.after(None, 0.0, pose, answer, CROP, CAMERA)
    carried = replace(answer, coefficients=wide, waited=np.array([1]))
    last = LastAnswer.after(last, DT, pose, carried, CROP, CAMERA)
    assert last.start(2 * DT, CROP, CAMERA).prediction.coefficients.expression.max() == 1.0


@pytest.mark.parametrize("faces, every", [(0, 3), (1, 3), (8, 3), (8, 4), (3, 8), (5, 2)])
def test_faces_take_turns(faces, every):
    waited, asked = np.zeros(faces, int), []
    for _ in range(10 * every):
        waits = choose_waiting([Start(row(n + 1), False) for n in waited], every)
        waited = np.where(waits, waited + 1, 0)
        asked.append(int(np.sum(~np.array(waits, bool))))
        assert waited.max(initial=0) <= 2 * every
    assert max(asked) <= -(-faces // every)  # never all at once
    assert sum(asked) >= 8 * faces


def test_who_is_new_or_fast_does_not_wait():
    starts = [None, Start(row(1), True), Start(row(1), False)]
    assert choose_waiting(starts, 4) == [False, False, True]
    due = [Start(row(n), False) for n in (4, 9, 5)]
    assert choose_waiting(due, 4) == [True, False, True]  # who waited longest is first


class Counted:
    """A pipeline in the small world whose regressor counts the crops that it is shown."""

    def __init__(self, network_path, face_model_path, points, **settings):
        config = ReconstructorConfig(
            network=str(network_path),
            face_model=str(face_model_path),
            points=str(points),
            colours="off",
            **settings,
        )
        self.pipeline = FacePipeline(
            FaceFinder(DiscDetector(), Tracker(TrackerConfig())),
            FaceReconstructor.from_config(config),
        )
        self.calls = Counter()
        self.image = 0
        predict = self.pipeline.reconstructor.predict

        def counted(pixels):
            self.calls[self.image] += len(pixels)
            return predict(pixels)

        self.pipeline.reconstructor.predict = counted

    def play(self, images, camera=CAMERA, places=((200, 200),)):
        for _ in range(images):
            k = self.image = self.image + 1
            discs = [(x + 2 * k, y, 50, RED) for x, y in places]
            frame = self.pipeline.process(Image(draw_discs(W, H, *discs), k * DT), camera)
            assert len(frame.faces) == len(places)
        return frame

    @property
    def asked(self):
        """Images in which the regressor ran."""
        return [k for k in range(1, self.image + 1) if self.calls[k]]


@pytest.fixture
def points_path(tmp_path, face_model_path):
    return write_point_network(tmp_path / "points.onnx", face_model_path, looks=True)


def test_the_regressor_rests_on_a_track_whose_pose_is_known(
    network_path, face_model_path, points_path
):
    world = Counted(network_path, face_model_path, points_path, regressor_every=5)
    world.play(28)
    seldom = [k for k in world.asked if k - 1 not in SIGHTS]
    assert 3 <= len(seldom) <= 6
    every = Counted(network_path, face_model_path, points_path, regressor_every=1)
    every.play(12)
    assert every.asked == list(range(1, 13))
    alone = Counted(network_path, face_model_path, "off", regressor_every=5)
    alone.play(12)
    assert alone.asked == list(range(1, 13))


def test_the_face_stays_where_it_is_while_the_regressor_rests(
    network_path, face_model_path, points_path
):
    seldom = Counted(network_path, face_model_path, points_path, regressor_every=6)
    always = Counted(network_path, face_model_path, points_path, regressor_every=1)
    for _ in range(15):
        a, b = seldom.play(1).faces[0], always.play(1).faces[0]
        apart = a.camera_from_face.translation - b.camera_from_face.translation
        assert np.linalg.norm(apart) < 0.02 * b.camera_from_face.translation[2]
        np.testing.assert_allclose(a.coefficients.albedo, b.coefficients.albedo, atol=0.02)


def test_faces_share_the_regressor_between_them(network_path, face_model_path, points_path):
    world = Counted(network_path, face_model_path, points_path, regressor_every=3)
    world.play(27, places=[(100, 100), (260, 100), (100, 300)])
    usual = [world.calls[k] for k in range(15, 28)]  # which way up they are is known by then
    assert max(usual) <= 2
    assert sum(usual) >= 12


def test_which_way_up_they_are_is_checked_of_one_after_the_other(
    network_path, face_model_path, points_path
):
    world = Counted(network_path, face_model_path, points_path, regressor_every=100)
    frame = world.play(20, places=[(100, 100), (260, 100), (100, 300)])
    assert world.calls.pop(1) == 12  # all four ways of all of them at first sight
    assert max(world.calls.values()) == 4
    people = world.pipeline.reconstructor.orientations.of([f.track.id for f in frame.faces])
    assert [person.compared for person in people] == [3, 3, 3]


def test_another_camera_or_a_hole_in_time_asks_the_regressor(
    network_path, face_model_path, points_path
):
    world = Counted(network_path, face_model_path, points_path, regressor_every=100)
    world.play(14)
    narrow = PinholeCamera.from_fov(W, H, 40.0)
    world.play(2, camera=narrow)
    assert (world.calls[15], world.calls[16]) == (1, 0)
    world.image += 15  # half a second passes
    world.play(2, camera=narrow)
    assert (world.calls[32], world.calls[33]) == (1, 0)


def test_a_look_that_was_lost_is_repeated_from_the_regressors_answer_in_the_same_image(
    network_path, face_model_path, points_path
):
    world = Counted(network_path, face_model_path, points_path, regressor_every=100)
    world.play(14)
    assert world.calls[14] == 0
    stage = world.pipeline.reconstructor.points
    fit = stage.fit

    def losing(look, *known):
        found = fit(look, *known)
        return replace(found, settled=np.zeros_like(found.settled))

    stage.fit = losing
    frame = world.play(1)
    assert world.calls[15] == 1
    assert len(frame.faces) == 1
    stage.fit = fit
    world.play(2)
    assert (world.calls[16], world.calls[17]) == (1, 0)  # nothing to start from, then there is


def test_a_still_picture_is_always_regressed(network_path, face_model_path, points_path):
    world = Counted(network_path, face_model_path, points_path, regressor_every=100)
    world.play(14)
    world.calls.clear()
    rgb = draw_discs(W, H, (200, 200, 50, RED))
    for k in range(3):
        world.pipeline.process_still(Image(rgb, 100.0 + k * DT), CAMERA, refine=0)
        assert world.calls.pop(world.image) > 0
        world.pipeline.process_person(Image(rgb, 100.0 + k * DT), CAMERA, person="p", refine=0)
        assert world.calls.pop(world.image) > 0


def test_rows_of_predictions():
    a = Prediction.stacked([row(0), row(1), row(2)])
    np.testing.assert_array_equal(a.waited, [0, 1, 2])
    np.testing.assert_array_equal(a.is_carried, [False, True, True])
    b = a.with_rows(np.array([2, 0]), Prediction.stacked([row(7), row(8)]))
    np.testing.assert_array_equal(b.waited, [8, 1, 7])
    assert len(b.regressed) == 3
