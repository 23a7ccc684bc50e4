"""What is drawn on skin: where it lies, and that nothing else wears it."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")

from face_recon_ros.core.crop_pose import crop_camera, crop_from_face
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.training.synthesis import faces as faces_module
from face_recon_ros.training.synthesis.complexion import Complexion, map_coordinates
from face_recon_ros.training.synthesis.expressions import Mood
from face_recon_ros.training.synthesis.faces import SyntheticFaces
from face_recon_ros.training.synthesis.people import People

SKIN = np.ones(3)
DARK = np.full(3, 0.2)


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture(scope="module")
def complexion(model):
    return Complexion(model)


def at(paint, points):
    """(N, 3) factors at (N, 3) points of the mean face's skin, metres."""
    place = np.column_stack([map_coordinates(points), np.ones(len(points))])
    return paint.look_up(place[None].astype(np.float32))[0]


def test_the_same_randomness_draws_the_same(complexion):
    first, second, other = (
        complexion.draw(DARK, Mood(smile=0.5), np.random.default_rng(seed)).factor
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32 and np.isfinite(first).all() and first.min() >= 0.05


def test_a_person_is_dressed_alike_whatever_the_mood(model, complexion):
    """Brows, stubble, hair and clothes stay; only what the mood folds may differ."""
    people, head, skin = People(model), model.mean_shape, model.mean_albedo
    mouth = map_coordinates(np.array([[0.0, 0.0, -0.06]]))[0, 1]
    for seed in range(8):
        rest, grimace = (
            people.dress(head, skin, mood, np.random.default_rng(seed))
            for mood in (Mood(), Mood(smile=0.1, raised=1.0, frown=1.0))
        )
        assert len(rest) == len(grimace)
        for one, other in zip(rest, grimace, strict=True):
            np.testing.assert_array_equal(one.colours, other.colours)
            np.testing.assert_array_equal(one.vertices, other.vertices)
        for one, other in zip(rest[0].paint, grimace[0].paint, strict=True):
            below = slice(int(mouth), None)
            np.testing.assert_allclose(one.factor[below], other.factor[below], atol=0.08)


def test_only_the_skin_of_the_face_wears_it(model, complexion):
    paint = complexion.draw(DARK, Mood(), np.random.default_rng(0))
    bare = np.isin(
        model.regions,
        [model.region_names.index(n) for n in ("eyeball", "teeth", "ear", "scalp", "tongue")],
    )
    assert (paint.look_up(paint.coordinates[bare][None]) == 1).all()
    assert (paint.look_up(np.zeros((2, 2, 3), np.float32)) == 1).all()  # pixels without a head


def test_brows_hang_from_the_line_where_annotators_put_them(model, complexion):
    """Their middle lies 2 to 6 mm below the landmarks and well above the eyes, on average."""
    column = np.zeros((80, 3))
    column[:, 1] = 0.030
    column[:, 2] = np.linspace(0.004, 0.030, 80)
    total = np.zeros(80)
    for seed in range(60):
        dark = at(complexion.draw(DARK, Mood(), np.random.default_rng(seed)), column)
        light = at(complexion.draw(SKIN, Mood(), np.random.default_rng(seed)), column)
        total += (light - dark).mean(1)  # the hair alone
    middle = (total * column[:, 2]).sum() / total.sum()
    edge = model.mean_shape[model.landmarks_68[[18, 19, 20]], 2].mean()
    assert 0.002 < edge - middle < 0.006
    assert middle - model.mean_shape[model.landmarks_68[36:42], 2].mean() > 0.010


def test_raised_brows_crease_the_forehead_and_a_frown_folds_it_between_them(model, complexion):
    middle = model.mean_shape[model.landmarks_68[[21, 22]]].mean(0)
    height = np.linspace(0.015, 0.05, 40)
    forehead = middle + np.column_stack([0 * height, 0 * height, height])

    def contrast(mood):
        """How much darker than its surroundings the darkest place is, on average."""
        runs = (
            at(complexion.draw(SKIN, mood, np.random.default_rng(s)), forehead) for s in range(60)
        )
        return np.mean([np.median(run) - run.min() for run in runs])

    assert contrast(Mood(raised=1.0)) > contrast(Mood()) + 0.03
    between = middle + np.array([[0, 0.006, 0.006]])

    def depth(mood):
        runs = [
            at(complexion.draw(SKIN, mood, np.random.default_rng(s)), between) for s in range(60)
        ]
        return 1 - np.mean(runs)

    assert depth(Mood(frown=1.0)) > depth(Mood()) + 0.03


def test_smiles_fold_cheeks(model, complexion):
    wing, corner = model.mean_shape[model.landmarks_68[[35, 54]]]
    fold = np.array([(wing + corner) / 2])
    fold[0, 1] += 0.008

    def depth(smile):
        return np.mean(
            [
                1
                - at(
                    complexion.draw(SKIN, Mood(smile=smile), np.random.default_rng(s)), fold
                ).mean()
                for s in range(80)
            ]
        )

    assert depth(1.0) > depth(0.0) + 0.03


def test_lips_that_hardly_part_show_no_white_teeth(model, monkeypatch):
    parted = np.array([0.15 * n.startswith("mouthUpperUp") for n in model.expression_names])
    monkeypatch.setattr(
        faces_module, "sample_expression", lambda *_, **__: parted.astype(np.float32)
    )
    monkeypatch.setattr(faces_module, "sample_attitude", lambda random: (0.0, 0.0, 0.0))
    monkeypatch.setattr(People, "_beard", lambda *_: None)
    faces = SyntheticFaces(model, margin=1.3, size=288)
    ratios = []
    for seed in range(24):
        rgba, label, _ = faces.sample(np.random.default_rng(seed))
        head = crop_from_face(label.rotation, label.translation).apply(
            model.vertices(label.identity, label.expression)
        )
        between = head[model.landmarks_68[[62, 66]]].mean(0)
        below = head[model.landmarks_68[57]]
        x, y = np.rint(crop_camera(288).project(between[None]))[0].astype(int)
        u, v = np.rint(crop_camera(288).project(((between + below) / 2)[None]))[0].astype(int)
        slit = rgba[y - 2 : y + 3, x - 8 : x + 9, :3].astype(float).mean(2)
        lip = rgba[v, u, :3].astype(float).mean() + 1
        ratios.append(slit.max() / lip)
    assert np.median(ratios) < 1.25


def test_bleached_brows_leave_no_hair_of_the_model_behind(model):
    people, skin, shape = People(model), model.mean_albedo.copy(), model.mean_shape
    skin[people.brow_hair] = skin[people.region["face"]].mean(0)
    brows = (np.abs(shape[:, 2] - 0.012) < 0.008) & (np.abs(shape[:, 1]) < 0.056)
    brows &= (people.region["face"] | people.region["brow"]) & (shape[:, 0] > -0.03)
    light = skin[brows].mean(1)
    assert light.min() > 0.85 * np.median(light)
