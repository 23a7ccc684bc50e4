"""Jitter moves a label as it moves the picture."""

import cv2
import numpy as np
import pytest

pytest.importorskip("numba")

from face_recon_ros.core import crop_pose
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.rigid import angle_between
from face_recon_ros.training.synthesis import faces as faces_module
from face_recon_ros.training.synthesis.augment import (
    Backgrounds,
    CropChange,
    Jitter,
    Mirror,
    compose_example,
    photograph_example,
)
from face_recon_ros.training.synthesis.faces import Label, SyntheticFaces, nominal_distance


@pytest.fixture(scope="module")
def model(face_model_path):
    return load_morphable_model(face_model_path, level="coarse")


def label_of(model, seed=0):
    random = np.random.default_rng(seed)
    return Label(
        random.standard_normal(model.k_identity).astype(np.float32),
        random.uniform(0, 0.5, model.k_expression).astype(np.float32),
        random.standard_normal(model.k_albedo).astype(np.float32),
        random.normal(0, 0.3, 3).astype(np.float32),
        np.array([0.05, -0.03, 1.1], np.float32),
        random.normal(0, 0.3, (9, 3)).astype(np.float32),
    )


def pixels(model, label, size):
    in_crop = crop_pose.crop_from_face(label.rotation, label.translation)
    vertices = model.vertices(label.identity, label.expression)
    return crop_pose.crop_camera(size).project(in_crop.apply(vertices))


def test_shift_and_zoom_agree_with_core_pose(model):
    """The picture is an image of the nominal camera; the crop is a crop of it."""
    label = label_of(model)
    change = CropChange(shift=(0.07, -0.04), zoom=0.6)
    moved = change.move(label, Mirror(model))
    crop = Crop((99 / 2) + 100 * np.array(change.shift), 60.0, 48)
    expected = crop_pose.crop_from_camera_pose(
        crop_pose.crop_from_face(label.rotation, label.translation),
        crop,
        crop_pose.crop_camera(100),
    )
    ours = crop_pose.crop_from_face(moved.rotation, moved.translation)
    assert np.allclose(ours.translation, expected.translation, rtol=1e-4)
    assert angle_between(ours.rotation, expected.rotation) < 1e-4


def test_affine_agrees_with_core_crop():
    change = CropChange(shift=(0.07, -0.04), zoom=0.6)
    crop = Crop((99 / 2) + 100 * np.array(change.shift), 60.0, 48)
    assert np.allclose(change.affine(100, 48), crop.crop_from_image)


@pytest.mark.parametrize(
    "change",
    [
        CropChange(),
        CropChange(roll=0.5),
        CropChange(shift=(0.02, 0.01), zoom=0.9, roll=-0.3),
    ],
)
def test_vertices_move_with_the_pixels(model, change):
    label = label_of(model)
    affine = change.affine(100, 64)
    before, after = pixels(model, label, 100), pixels(model, change.move(label, Mirror(model)), 64)
    expected = before @ affine[:, :2].T + affine[:, 2]
    assert np.abs(after - expected).max() < 0.35  # perspective over a head is all that differs


def test_roll_alone_is_exact(model):
    label = label_of(model)
    change = CropChange(roll=0.7)
    affine = change.affine(64, 64)
    expected = pixels(model, label, 64) @ affine[:, :2].T + affine[:, 2]
    assert np.allclose(pixels(model, change.move(label, Mirror(model)), 64), expected, atol=1e-3)


def test_inner_and_outer_crop_are_inverse(model):
    label, mirror = label_of(model), Mirror(model)
    there = CropChange(zoom=1 / 1.5).move(label, mirror)
    back = CropChange(zoom=1.5).move(there, mirror)
    for a, b in zip(label, back, strict=True):
        assert np.allclose(a, b, atol=1e-5)


def test_flip_twice_is_nothing(model):
    label, mirror = label_of(model), Mirror(model)
    twice = mirror(mirror(label))
    assert np.allclose(twice.rotation, label.rotation)
    assert np.allclose(twice.translation, label.translation)
    assert np.allclose(twice.illumination, label.illumination)
    assert np.allclose(twice.expression, label.expression, atol=1e-5)


def test_flip_mirrors_the_pixels_of_a_symmetric_expression(model):
    """Mirrored face, mirrored pixels (mean identity: the dome's basis is lopsided)."""
    label = label_of(model)._replace(
        identity=np.zeros(model.k_identity, np.float32),
        expression=np.zeros(model.k_expression, np.float32),
    )
    flipped = pixels(model, CropChange(flip=True).move(label, Mirror(model)), 64)
    expected = pixels(model, label, 64)[model.symmetry] * [-1, 1] + [63, 0]
    assert np.allclose(flipped, expected, atol=1e-3)


def test_light_turns_with_the_picture(model):
    """A lamp on the right is a lamp below after a quarter turn clockwise."""
    from face_recon_ros.training.synthesis.lighting import directional_light

    lamp = np.array([0.6, 0.3, -np.sqrt(1 - 0.45)])
    light = np.tile(directional_light(lamp)[:, None], 3)
    label = label_of(model)._replace(illumination=light.astype(np.float32))
    turned = CropChange(roll=np.pi / 2).move(label, Mirror(model)).illumination
    expected = directional_light(np.array([-lamp[1], lamp[0], lamp[2]]))
    assert np.allclose(turned[:, 0], expected, atol=1e-6)


def test_renderings_lie_where_their_labels_say(model, monkeypatch):
    """Of people a metre away: nearer ones the nominal camera explains to some pixels only."""
    monkeypatch.setattr(faces_module, "sample_distance", lambda random: 1.0)
    faces = SyntheticFaces(model, margin=1.5, size=96)
    for seed in range(3):
        rendering = faces.sample(np.random.default_rng(seed))
        again = faces.sample(np.random.default_rng(seed))
        assert np.array_equal(rendering.rgba, again.rgba)
        near = cv2.dilate(rendering.rgba[..., 3], np.ones((7, 7), np.uint8))
        column, row = np.clip(np.rint(pixels(model, rendering.label, 96)), 0, 95).astype(int).T
        assert (near[row, column] > 0).mean() > 0.98
        inner = model.subsets["facial_skin"]
        assert (rendering.rgba[row[inner], column[inner], 3] > 0).mean() > 0.8


def test_examples_are_what_the_network_takes(model):
    random = np.random.default_rng(0)
    faces, mirror, backgrounds = (
        SyntheticFaces(model, margin=1.5, size=96),
        Mirror(model),
        Backgrounds(0, count=4),
    )
    rendering = faces.sample(random)
    for _ in range(20):
        change = Jitter().draw(random, 1 / 1.5)
        example = compose_example(
            rendering.rgba, rendering.label, change, 32, mirror, backgrounds, random
        )
        assert example.image.shape == (32, 32, 3) and example.image.dtype == np.uint8
        assert all(np.isfinite(v).all() for v in example.label)
    photograph = random.integers(0, 256, (96, 96, 3), np.uint8)
    weak = photograph_example(
        photograph, rendering.label, CropChange(), 96, mirror, backgrounds, random, strong=False
    )
    assert np.abs(weak.image.astype(int) - photograph).max() <= 1


def test_mean_face_fills_the_crop_at_the_nominal_distance(model):
    distance = nominal_distance(model, 1.5)
    label = Label(
        *(np.zeros(k, np.float32) for k in (model.k_identity, model.k_expression, model.k_albedo)),
        np.zeros(3, np.float32),
        np.array([0, 0, distance], np.float32),
        np.zeros((9, 3), np.float32),
    )
    p = pixels(model, label, 100)[model.subsets["facial_skin"]]
    side = np.sqrt(np.prod(np.ptp(p, axis=0)))
    assert side * 1.5 == pytest.approx(100, rel=0.06)


def test_held_out_people_keep_their_face_from_view_to_view_and_come_back(model):
    faces = SyntheticFaces(model, margin=1.5, size=48)
    first, other = (faces.held_out(number, 2) for number in range(2))
    again = faces.held_out(0, 1)
    np.testing.assert_array_equal(first[0].rgba, again[0].rgba)
    np.testing.assert_array_equal(first[0].label.identity, first[1].label.identity)
    assert not np.array_equal(first[0].label.expression, first[1].label.expression)
    drawn = faces.sample(np.random.default_rng((0, 0))).label.identity  # as a pool's first
    for stranger in (other[0].label.identity, drawn):
        assert np.abs(stranger - first[0].label.identity).max() > 0.5
