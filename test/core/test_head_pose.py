"""Laws of pose uncertainty and of depth fusion."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, camera_from_face
from face_recon_ros.core.depth_fusion import DepthConfig, RangeReading, fuse_range, read_range
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.pose_uncertainty import PoseNoise, covariance_in_camera, pose_covariance
from face_recon_ros.core.rigid import Rigid, rotation_from_vector, vector_from_rotation

CAMERA = replace(PinholeCamera.from_fov(640, 480), calibrated=True)
GUESSED = PinholeCamera.from_fov(640, 480)

#: Tangents to a millionth of a pixel: products of smaller ones have no digits left in a float64.
directions = st.tuples(
    *(st.floats(-most, most).map(lambda tangent: round(tangent, 9)) for most in (0.5, 0.4))
)
distances = st.floats(0.3, 6.0)


def _face(direction, distance, turn=(0.0, 0.0, 0.0)):
    ray = np.array([*direction, 1.0])
    attitude = rotation_from_vector(turn) @ CAMERA_FROM_FRONTAL_FACE
    return Rigid(attitude, distance * ray / np.linalg.norm(ray))


def _along_and_across(face, covariance):
    ray = face.translation / np.linalg.norm(face.translation)
    across = np.cross(ray, [0, 1, 0]) / np.linalg.norm(np.cross(ray, [0, 1, 0]))
    return tuple(np.sqrt(v @ covariance[:3, :3] @ v) for v in (ray, across))


@pytest.mark.parametrize("camera", [CAMERA, GUESSED], ids=["calibrated", "guessed"])
@settings(deadline=None)
@given(direction=directions, distance=distances)
def test_it_is_a_covariance(camera, direction, distance):
    covariance = pose_covariance(_face(direction, distance), camera)
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


@settings(deadline=None)
@given(directions, distances, st.floats(1.05, 3.0))
def test_it_grows_with_distance(direction, distance, factor):
    near = pose_covariance(_face(direction, distance), CAMERA)
    far = pose_covariance(_face(direction, distance * factor), CAMERA)
    assert (np.linalg.eigvalsh(far - near) > -1e-12).all()
    assert np.trace(far) > np.trace(near)


@settings(deadline=None)
@given(directions, distances)
def test_it_grows_without_calibration_and_with_coarser_images(direction, distance):
    face = _face(direction, distance)
    known = pose_covariance(face, CAMERA)
    guessed = pose_covariance(face, GUESSED)
    assert (np.linalg.eigvalsh(guessed - known) > -1e-9).all()
    assert _along_and_across(face, guessed)[0] > 0.25 * distance
    small = pose_covariance(face, CAMERA.resized(320, 240))
    assert (np.linalg.eigvalsh(small - known) > -1e-12).all()


@settings(deadline=None)
@given(directions, distances)
def test_distance_is_known_like_head_sizes_and_direction_far_better(direction, distance):
    face = _face(direction, distance)
    along, across = _along_and_across(face, pose_covariance(face, CAMERA))
    assert 0.055 * distance <= along
    if distance < 2.0:
        assert along <= 0.07 * distance
    assert across < 0.2 * along


def test_the_effect_of_the_focal_length_is_what_a_wrong_focal_length_does():
    """Seen from a camera with another focal length, the same pixels mean another pose."""
    face, step = _face((0.4, -0.3), 1.5), 1e-6
    longer = replace(CAMERA, matrix=CAMERA.matrix * [1 + step, 1 + step, 1])
    pixel = CAMERA.project(face.translation)
    ray = longer.rays_from_pixels(pixel)
    ray = ray / np.linalg.norm(ray)
    only_focal = PoseNoise(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    covariance = pose_covariance(face, GUESSED, only_focal)
    effect = covariance[:, 2] / np.sqrt(covariance[2, 2])
    old = face.translation / 1.5
    np.testing.assert_allclose(1.5 * (ray - old) / step, effect[:3] - 1.5 * old, atol=1e-3)
    turned = np.cross(old, ray) / step
    np.testing.assert_allclose(turned, effect[3:], atol=1e-3)


@pytest.mark.parametrize(
    ("what", "along", "across", "turn"),
    [
        ("scale", 2.0, 0.0, 0.0),
        ("position", 0.0, 0.15, 0.0),
        ("attitude", 0.0, 0.0, 1.0),
        # a face side of 0.15 m looks smaller by a pixel; is a pixel aside; turns by two of a side
        ("image_px", 2.0**2 / 0.15, 2.0, 2 * 2.0 / 0.15),
    ],
)
def test_each_noise_of_the_image_is_in_the_pose_what_it_says(what, along, across, turn):
    """Of a face two metres away."""
    none = dict.fromkeys(("head_size", "focal", "scale", "position", "image_px", "attitude"), 0.0)
    face, sigma = _face((0.3, -0.2), 2.0), 0.01
    covariance = pose_covariance(face, CAMERA, PoseNoise(**none | {what: sigma}))
    sigma /= CAMERA.focal_px if what == "image_px" else 1.0
    beside = np.array([1.0, 0.0, -0.3]) / np.hypot(1.0, 0.3)
    for direction, deviation in ((face.translation / 2.0, along), (beside, across)):
        variance = direction @ covariance[:3, :3] @ direction
        assert variance == pytest.approx((sigma * deviation) ** 2, abs=1e-15)
    np.testing.assert_allclose(covariance[3:, 3:], (sigma * turn) ** 2 * np.eye(3), atol=1e-15)


def test_noise_below_zero_is_refused():
    with pytest.raises(ConfigError):
        PoseNoise(head_size=-0.1)


# Depth.

rng = np.random.default_rng(0)
_angles = rng.uniform(-1, 1, (800, 2)) * [1.1, 1.1]
NORMALS = np.stack(
    [
        np.cos(_angles[:, 0]) * np.cos(_angles[:, 1]),
        np.sin(_angles[:, 0]) * np.cos(_angles[:, 1]),
        np.sin(_angles[:, 1]),
    ],
    axis=1,
)
SKIN = 0.09 * NORMALS - [0.09, 0.0, 0.03]  # a ball, sellion near its front


def _depth_of(face, factor=1.0, noise=0.0):
    """Depth image of the ball at another distance by the factor, of another size by the factor."""
    centre = face.apply(np.array([-0.09, 0.0, -0.03])) * factor
    radius = 0.09 * factor
    rows, columns = np.mgrid[0:480, 0:640]
    rays = CAMERA.rays_from_pixels(np.stack([columns, rows], -1).astype(float))
    a, b = (rays**2).sum(-1), rays @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 4.0)
    return depth + noise * np.random.default_rng(1).normal(size=depth.shape)


@pytest.mark.parametrize("turn", [(0, 0, 0), (0, 0.7, 0), (0.3, -0.5, 0.2)])
@pytest.mark.parametrize("factor", [0.9, 1.0, 1.12])
def test_depth_tells_the_true_distance_of_a_head_of_another_size(factor, turn):
    face = _face((0.2, 0.1), 1.0, turn)
    reading = read_range(_depth_of(face, factor, 0.005), CAMERA, face, SKIN, NORMALS)
    assert reading.distance == pytest.approx(factor, rel=0.01)
    assert 0.005 < reading.sigma < 0.03
    covariance = pose_covariance(face, CAMERA)
    fused, smaller = fuse_range(face, covariance, reading)
    error = abs(np.linalg.norm(fused.translation) - factor)
    assert error <= 0.2 * abs(1.0 - factor) + 0.01
    assert (np.linalg.eigvalsh(covariance - smaller) > -1e-12).all()
    assert _along_and_across(face, smaller)[0] < reading.sigma
    # The direction stays.
    np.testing.assert_allclose(fused.translation / np.linalg.norm(fused.translation),
                               face.translation, atol=1e-6)  # fmt: skip


def test_fusing_is_a_product_of_gaussians():
    face = _face((0.0, 0.0), 2.0)
    covariance = pose_covariance(face, CAMERA)
    prior = covariance[2, 2]
    fused, posterior = fuse_range(face, covariance, RangeReading(2.1, 0.05, 1.0))
    weight = prior / (prior + 0.05**2)
    assert fused.translation[2] == pytest.approx(2.0 + weight * 0.1)
    assert 1 / posterior[2, 2] == pytest.approx(1 / prior + 1 / 0.05**2)
    # In which order two readings come does not matter.
    a, b = RangeReading(2.05, 0.05, 1.0), RangeReading(1.97, 0.03, 1.0)
    ab = fuse_range(*fuse_range(face, covariance, a), b)
    ba = fuse_range(*fuse_range(face, covariance, b), a)
    np.testing.assert_allclose(ab[0].translation, ba[0].translation, atol=1e-9)
    np.testing.assert_allclose(ab[1], ba[1], atol=1e-9)


def test_without_calibration_depth_also_mends_the_direction():
    """A face that is nearer than the guessed focal length says lies further out, too."""
    face = _face((0.5, 0.0), 2.0)
    fused, _ = fuse_range(face, pose_covariance(face, GUESSED), RangeReading(1.6, 0.02, 1.0))
    before, after = (np.arctan2(p.translation[0], p.translation[2]) for p in (face, fused))
    assert after > before + 0.02
    turned = vector_from_rotation(fused.rotation @ face.rotation.T)
    assert turned[1] == pytest.approx(after - before, rel=0.3)


def test_no_reading_changes_nothing():
    face = _face((0.1, 0.1), 1.0)
    covariance = pose_covariance(face, CAMERA)
    for reading in (None, RangeReading(0.4, 0.01, 1.0), RangeReading(3.0, 0.01, 1.0)):
        fused, same = fuse_range(face, covariance, reading)
        assert fused is face
        np.testing.assert_array_equal(same, covariance)


@pytest.mark.parametrize("hole", [0.0, np.nan])
def test_holes_are_refused_or_ignored(hole):
    face = _face((0.0, 0.0), 1.0)
    depth = _depth_of(face)
    full = read_range(depth, CAMERA, face, SKIN, NORMALS)
    depth[:, ::2] = hole
    half = read_range(depth, CAMERA, face, SKIN, NORMALS)
    assert half.distance == pytest.approx(full.distance, rel=0.005)
    assert half.share == pytest.approx(0.5, abs=0.1)
    depth[:] = hole
    assert read_range(depth, CAMERA, face, SKIN, NORMALS) is None


def test_a_hand_before_part_of_the_face_is_ignored_and_before_all_of_it_refused():
    face = _face((0.0, 0.0), 1.0)
    depth = _depth_of(face)
    true = read_range(depth, CAMERA, face, SKIN, NORMALS)
    depth[:, :290] = 0.7  # a third of the face
    assert read_range(depth, CAMERA, face, SKIN, NORMALS).distance == pytest.approx(
        true.distance, rel=0.02
    )
    depth[:] = 0.5
    reading = read_range(depth, CAMERA, face, SKIN, NORMALS)
    assert reading is None or fuse_range(face, pose_covariance(face, CAMERA), reading)[0] is face


def test_a_torn_surface_is_refused():
    face = _face((0.0, 0.0), 1.0)
    noisy = _depth_of(face, noise=0.1)
    assert read_range(noisy, CAMERA, face, SKIN, NORMALS) is None


def test_a_face_outside_the_depth_image_and_no_skin_at_all():
    outside = Rigid(CAMERA_FROM_FRONTAL_FACE, np.array([5.0, 0.0, 1.0]))
    assert read_range(np.ones((480, 640)), CAMERA, outside, SKIN, NORMALS) is None
    face = _face((0.0, 0.0), 1.0)
    nothing = np.zeros((0, 3))
    assert read_range(np.ones((480, 640)), CAMERA, face, nothing, nothing) is None
    few = DepthConfig(min_points=10**5)
    assert read_range(_depth_of(face), CAMERA, face, SKIN, NORMALS, few) is None


@pytest.mark.parametrize("crop_turn", [[0, 0, 0], [0.2, -0.3, 0.5]])
def test_a_covariance_told_in_the_crop_is_that_of_the_pose_in_the_camera(crop_turn):
    """Poses scattered in the nominal crop camera scatter in the real one as told."""
    camera = PinholeCamera.from_fov(1280, 720)
    crop = Crop(np.array([900.0, 200.0]), 150.0, 96)
    rotation = rotation_from_vector(crop_turn) @ CAMERA_FROM_FRONTAL_FACE
    crop_pose = Rigid(rotation, np.array([0.015, -0.03, 1.35]))
    random = np.random.default_rng(0)
    root = random.normal(0, 1, (6, 6)) * np.array([0.01, 0.01, 0.01, 0.002, 0.002, 0.008])[:, None]
    told = root @ root.T
    middle = camera_from_face(crop_pose, crop, camera)
    offsets = []
    for noise in random.standard_normal((2000, 6)) @ root.T:
        moved = Rigid(
            rotation_from_vector(noise[:3]) @ crop_pose.rotation,
            crop_pose.translation + noise[3:] * crop_pose.translation[2],
        )
        pose = camera_from_face(moved, crop, camera)
        turn = vector_from_rotation(pose.rotation @ middle.rotation.T)
        offsets.append(np.concatenate([pose.translation - middle.translation, turn]))
    expected = covariance_in_camera(told, crop_pose, middle)
    measured = np.cov(np.array(offsets).T)
    deviation = np.sqrt(expected.diagonal())
    np.testing.assert_allclose(np.sqrt(measured.diagonal()), deviation, rtol=0.15)
    scale = np.outer(deviation, deviation)
    np.testing.assert_allclose(measured / scale, expected / scale, atol=0.15)


def test_what_the_picture_says_takes_the_place_of_the_table():
    camera = PinholeCamera.from_fov(640, 480)
    pose = Rigid(CAMERA_FROM_FRONTAL_FACE, np.array([0.0, 0.0, 1.0]))
    calm = PoseNoise(head_size=0.0, focal=0.0)
    measured = np.diag([1e-6, 1e-6, 1e-4, 1e-3, 1e-3, 1e-3])
    np.testing.assert_allclose(pose_covariance(pose, camera, calm, measured), measured)
    with_size = pose_covariance(pose, camera, PoseNoise(focal=0.0), measured)
    assert np.sqrt(with_size[2, 2]) == pytest.approx(np.hypot(0.01, 0.055), rel=1e-3)


@pytest.mark.parametrize("measured", [None, np.diag([1e-6, 1e-6, 1e-4, 1e-3, 1e-3, 1e-3])])
@settings(deadline=None)
@given(direction=directions, distance=distances, presence=st.floats(0.1, 0.99))
def test_the_less_a_face_is_one_the_less_sure_is_its_pose(measured, direction, distance, presence):
    face, calm = _face(direction, distance), PoseNoise(head_size=0.0)
    sure = pose_covariance(face, CAMERA, calm, measured)
    told = pose_covariance(face, CAMERA, calm, measured, presence)
    np.testing.assert_allclose(np.linalg.inv(told), presence * np.linalg.inv(sure), rtol=1e-6)
    assert np.isfinite(pose_covariance(face, CAMERA, calm, measured, 0.0)).all()
