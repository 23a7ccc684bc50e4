"""Clocks, frames and errors of head trajectories: put in, and found again."""

import numpy as np
import pytest

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import Rigid, angle_between, rotation_from_vector
from face_recon_ros.evaluation.trajectory import (
    Trajectory,
    align_trajectories,
    aligned_truth,
    covariance_calibration,
    estimate_time_offset,
    pose_errors,
)

FRONTAL = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])


def head(t):
    """camera_from_face of a person who looks around, at time t."""
    turn = rotation_from_vector(
        [0.3 * np.sin(1.3 * t), 0.6 * np.sin(0.9 * t + 1), 0.2 * np.sin(2.1 * t)]
    )
    return Rigid(turn @ FRONTAL, np.array([0.1 * np.sin(t), 0.05 * np.cos(0.7 * t), 0.8]))


def trajectory(stamps, motion=head):
    return Trajectory.of(stamps, [motion(t) for t in stamps])


def random_rigid(rng):
    return Rigid(rotation_from_vector(rng.normal(size=3)), rng.normal(size=3))


STAMPS = np.arange(0, 8, 1 / 30)


def test_interpolation_hits_samples_and_refuses_holes_and_ends():
    path = trajectory(STAMPS)
    same, inside = path.at(STAMPS)
    assert inside.all()
    np.testing.assert_allclose(same.rotations, path.rotations, atol=1e-12)
    between, inside = path.at([-1.0, 1.01, 9.0])
    assert inside.tolist() == [False, True, False]
    assert np.degrees(angle_between(between.rotations[0], head(1.01).rotation)) < 0.05
    hole = path.chosen((STAMPS < 2) | (STAMPS > 3))
    assert hole.at([2.5])[1].tolist() == [False]
    nothing = trajectory([])
    assert len(nothing.at([1.0])[0]) == 0 and len(path.at([])[0]) == 0


def test_unsorted_and_duplicate_stamps_are_put_in_order():
    path = Trajectory.of([2.0, 1.0, 2.0], [head(0), head(1), head(2)])
    assert path.stamps.tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(path.rotations[1], head(2).rotation)


@pytest.mark.parametrize("seed", range(4))
def test_hand_eye_finds_both_frames(seed):
    rng = np.random.default_rng(seed)
    face_from_marker, camera_from_world = random_rigid(rng), random_rigid(rng)
    truth = trajectory(STAMPS, lambda t: camera_from_world.inverse() @ head(t) @ face_from_marker)
    found = align_trajectories(trajectory(STAMPS), truth)
    for mine, true in [
        (found.face_from_marker, face_from_marker),
        (found.camera_from_world, camera_from_world),
    ]:
        np.testing.assert_allclose(mine.rotation, true.rotation, atol=1e-6)
        np.testing.assert_allclose(mine.translation, true.translation, atol=1e-6)
    assert found.excitation_deg > 5
    errors = pose_errors(trajectory(STAMPS), aligned_truth(truth, found))
    assert errors["rotation_deg"]["p99"] < 1e-4 and errors["translation_mm"]["p99"] < 1e-3


def test_ground_truth_in_the_camera_frame_needs_the_marker_only():
    rng = np.random.default_rng(0)
    face_from_marker = random_rigid(rng)
    found = align_trajectories(
        trajectory(STAMPS),
        trajectory(STAMPS, lambda t: head(t) @ face_from_marker),
        same_camera=True,
    )
    np.testing.assert_allclose(
        found.face_from_marker.rotation, face_from_marker.rotation, atol=1e-9
    )
    np.testing.assert_allclose(
        found.face_from_marker.translation, face_from_marker.translation, atol=1e-9
    )
    np.testing.assert_array_equal(found.camera_from_world.rotation, np.eye(3))


def test_a_turn_about_one_axis_is_reported_as_too_little():
    path = trajectory(
        STAMPS, lambda t: Rigid(rotation_from_vector([0, np.sin(t), 0]) @ FRONTAL, np.zeros(3))
    )
    assert align_trajectories(path, path).excitation_deg < 0.1


def test_too_few_pairs():
    with pytest.raises(DataError):
        align_trajectories(trajectory([0.0]), trajectory([0.0]))


@pytest.mark.parametrize("offset", [-0.4, -0.0333, 0.0, 0.12, 0.777])
def test_time_offset_in_unknown_frames_at_other_rates_with_noise(offset):
    rng = np.random.default_rng(1)
    estimated = Trajectory.of(
        STAMPS,
        [
            Rigid(m.rotation @ rotation_from_vector(rng.normal(0, 0.005, 3)), m.translation)
            for m in (head(t) for t in STAMPS)
        ],
    )
    x, y = random_rigid(rng), random_rigid(rng)
    truth_stamps = np.arange(-1, 9, 0.01)
    truth = trajectory(truth_stamps, lambda t: y @ head(t) @ x).delayed(-offset)
    found, contrast = estimate_time_offset(estimated, truth)
    assert found == pytest.approx(offset, abs=0.004)
    assert contrast > 2


def test_a_still_head_gives_no_contrast_and_no_overlap_gives_no_offset():
    rng = np.random.default_rng(2)

    def still(_):
        return Rigid(FRONTAL @ rotation_from_vector(rng.normal(0, 0.005, 3)), np.zeros(3))

    assert estimate_time_offset(trajectory(STAMPS, still), trajectory(STAMPS, still))[1] < 1.5
    assert estimate_time_offset(trajectory([]), trajectory(STAMPS)) == (0.0, 1.0)
    assert estimate_time_offset(trajectory(STAMPS), trajectory(STAMPS + 100)) == (0.0, 1.0)


@pytest.mark.parametrize("error_deg", [0.5, 3.0, 20.0])
def test_a_known_error_put_into_ground_truth_is_measured(error_deg):
    """Constant error, no alignment allowed: measured to far better than 0.05 degrees."""
    rng = np.random.default_rng(3)
    axis = rng.normal(size=3)
    turn = rotation_from_vector(np.radians(error_deg) * axis / np.linalg.norm(axis))
    wrong = trajectory(STAMPS, lambda t: Rigid(head(t).rotation @ turn, head(t).translation))
    errors = pose_errors(trajectory(STAMPS), wrong)
    assert errors["rotation_deg"]["mean"] == pytest.approx(error_deg, abs=0.001)
    assert errors["translation_mm"]["mean"] == 0


def test_a_known_error_survives_hand_eye_alignment():
    """Frame-wise error of random direction cannot be explained by two constant frames."""
    rng = np.random.default_rng(4)
    x, y = random_rigid(rng), random_rigid(rng)
    wrong = []
    for t in STAMPS:
        axis = rng.normal(size=3)
        turn = rotation_from_vector(np.radians(3) * axis / np.linalg.norm(axis))
        wrong.append(y @ Rigid(head(t).rotation @ turn, head(t).translation) @ x)
    truth = Trajectory.of(STAMPS, wrong)
    estimated = trajectory(STAMPS)
    errors = pose_errors(estimated, aligned_truth(truth, align_trajectories(estimated, truth)))
    assert errors["rotation_deg"]["rmse"] == pytest.approx(3.0, abs=0.05)


def test_errors_of_nothing():
    errors = pose_errors(trajectory([]), trajectory([]))
    assert errors["count"] == 0 and np.isnan(errors["rotation_deg"]["mean"])


@pytest.mark.parametrize("claimed", [1.0, 0.25, 4.0])
def test_poses_as_uncertain_as_they_say_are_calibrated(claimed):
    rng = np.random.default_rng(0)
    stamps = np.arange(3000) / 30
    true = trajectory(stamps)
    root = np.diag([0.01, 0.02, 0.05, 0.02, 0.03, 0.04]) @ (np.eye(6) + 0.2 * np.ones((6, 6)))
    errors = rng.normal(size=(len(stamps), 6)) @ root.T
    seen = Trajectory.of(
        stamps,
        [
            Rigid(rotation_from_vector(e[3:]) @ true[i].rotation, true[i].translation + e[:3])
            for i, e in enumerate(errors)
        ],
    )
    covariances = np.broadcast_to(claimed * root @ root.T, (len(stamps), 6, 6))
    told = covariance_calibration(seen, true, covariances)
    assert told["count"] == len(stamps)
    for block in ("position", "rotation"):
        assert told[block]["normalised_rms"] == pytest.approx(claimed**-0.5, rel=0.03)
        if claimed == 1.0:
            assert told[block]["within_68"] == pytest.approx(0.683, abs=0.03)
            assert told[block]["within_95"] == pytest.approx(0.95, abs=0.015)


def test_no_pose_has_no_calibration():
    nothing = Trajectory.of([], [])
    told = covariance_calibration(nothing, nothing, np.zeros((0, 6, 6)))
    assert told["count"] == 0 and np.isnan(told["position"]["normalised_rms"])
