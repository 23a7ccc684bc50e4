"""Photographic skin: colours come from the texture, details from between the vertices."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")

from face_recon_ros.core.errors import DataError, SourceError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.types import Image
from face_recon_ros.training.synthesis.faces import SyntheticFaces
from face_recon_ros.training.synthesis.portraits import Portraits
from face_recon_ros.training.synthesis.skins import Skins, atlas_coordinates


@pytest.fixture(scope="module")
def coarse():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture(scope="module")
def fine():
    return load_morphable_model(find_model(FACE_MODEL), level="fine")


def write_texture(folder, colour):
    picture = np.full((1460, 778, 3), colour[::-1], np.uint8)
    assert cv2.imwrite(str(folder / "plain.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])


def test_a_plain_texture_is_the_colour_of_the_skin_and_has_no_detail(tmp_path, coarse, fine):
    write_texture(tmp_path, (180, 120, 60))
    skins = Skins(tmp_path, coarse, fine)
    mean, paint = [], None
    for seed in range(40):
        skin, paint = skins.draw(coarse.mean_albedo, np.random.default_rng(seed))
        mean.append(skin[coarse.regions == coarse.region_names.index("face")].mean(0))
    np.testing.assert_allclose(np.median(mean, 0), np.array([180, 120, 60]) / 255, rtol=0.1)
    np.testing.assert_allclose(paint.factor, 1.0, atol=0.02)
    teeth = coarse.regions == coarse.region_names.index("teeth")
    np.testing.assert_array_equal(skin[teeth], coarse.mean_albedo[teeth])


def test_each_vertex_has_the_colour_of_its_place(tmp_path, coarse, fine):
    """A texture that is red on one side of the face and blue on the other: they do not mix."""
    picture = np.full((1460, 778, 3), (40, 40, 200), np.uint8)
    picture[730:] = (200, 40, 40)  # the head lies on its side in the atlas
    assert cv2.imwrite(str(tmp_path / "halves.png"), picture)
    (tmp_path / "halves.png").rename(tmp_path / "halves.jpg")
    colours, _ = Skins(tmp_path, coarse, fine).of(0)
    face = coarse.regions == coarse.region_names.index("face")
    assert colours.shape == (coarse.n_vertices, 3)
    red = colours[:, 0] > colours[:, 2]
    sides = [red[face & (sign * coarse.mean_shape[:, 1] > 0.01)] for sign in (-1, 1)]
    assert {bool(side.mean() > 0.5) for side in sides} == {True, False}
    assert all(abs(side.mean() - 0.5) > 0.48 for side in sides)


def test_only_vertices_with_one_place_in_the_atlas_wear_details(tmp_path, coarse, fine):
    write_texture(tmp_path, (180, 120, 60))
    paint = Skins(tmp_path, coarse, fine).draw(coarse.mean_albedo, np.random.default_rng(0))[1]
    _, seam = atlas_coordinates(fine)
    worn = paint.coordinates[:, 2] > 0
    assert worn.sum() > 1000
    assert not (worn & seam[: coarse.n_vertices]).any()


@pytest.mark.parametrize("files", [[], ["young_special_suit.jpg"]])
def test_a_folder_without_usable_textures_is_refused(tmp_path, coarse, fine, files):
    for name in files:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="skin textures"):
        Skins(tmp_path, coarse, fine)


def test_a_damaged_texture_is_named(tmp_path, coarse, fine):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"broken\.jpg"):
        Skins(tmp_path, coarse, fine)


def test_people_with_skins_render_and_keep_their_labels(tmp_path, coarse, fine):
    write_texture(tmp_path, (180, 120, 60))
    with_skin = SyntheticFaces(coarse, margin=1.5, size=48, skins=Skins(tmp_path, coarse, fine))
    plain = SyntheticFaces(coarse, margin=1.5, size=48)
    differ = 0
    for seed in range(6):
        a, b = (f.sample(np.random.default_rng(seed)) for f in (with_skin, plain))
        np.testing.assert_array_equal(a.label.identity, b.label.identity)
        differ += not np.array_equal(a.rgba, b.rgba)
    assert differ >= 3


def write_portrait(folder, coarse, **changed):
    write_texture(folder, (180, 120, 60))
    rng = np.random.default_rng(1)
    known = {
        "identity": rng.standard_normal(coarse.k_identity).astype(np.float32),
        "expression": np.full(coarse.k_expression, 0.5, np.float32),
    }
    np.savez(folder / "plain.npz", **{**known, **changed})
    return known


def test_photographed_people_keep_their_faces_by_chance_and_their_skin(tmp_path, coarse, fine):
    known = write_portrait(tmp_path, coarse)
    portraits = Portraits(tmp_path, coarse, fine)
    drawn = [portraits.draw(np.random.default_rng(seed)) for seed in range(60)]
    alike = [p.identity @ known["identity"] for p in drawn if p.identity is not None]
    assert 20 < len(alike) < 50 and np.mean(alike) > 0.5 * known["identity"] @ known["identity"]
    assert 20 < sum(p.expression is not None for p in drawn) < 50
    face = coarse.regions == coarse.region_names.index("face")
    colour = np.median([p.colours[face].mean(0) for p in drawn], 0)
    np.testing.assert_allclose(colour, np.array([180, 120, 60]) / 255, rtol=0.1)
    other = np.zeros(coarse.k_expression, np.float32)
    for portrait in drawn:
        mixed = portrait.mixed(other, np.random.default_rng(0))
        assert 0 <= mixed.min() <= mixed.max() <= 1
        assert (mixed.max() == 0) == (portrait.expression is None)


@pytest.mark.parametrize("wrong", [None, {"identity": np.zeros(3)}])
def test_a_portrait_without_its_coefficients_is_refused(tmp_path, coarse, fine, wrong):
    write_portrait(tmp_path, coarse, **(wrong or {}))
    if wrong is None:
        (tmp_path / "plain.npz").unlink()
    with pytest.raises(DataError, match=r"plain\.npz"):
        Portraits(tmp_path, coarse, fine)


def test_half_of_all_people_look_like_portraits_and_held_out_ones_never_do(tmp_path, coarse, fine):
    known = write_portrait(tmp_path, coarse)
    portraits = Portraits(tmp_path, coarse, fine)
    some = SyntheticFaces(coarse, margin=1.5, size=48, portraits=portraits)
    labels = [some.sample(np.random.default_rng(seed)).label for seed in range(40)]
    norm = float(np.linalg.norm(known["identity"]))
    alike = [x.identity @ known["identity"] / norm > 0.5 * norm for x in labels]
    assert 5 < sum(alike) < 25  # of half the people three in five
    plain = SyntheticFaces(coarse, margin=1.5, size=48)
    for a, b in zip(some.held_out(3, 2), plain.held_out(3, 2), strict=True):
        np.testing.assert_array_equal(a.rgba, b.rgba)


def test_people_who_turn_away_show_no_face(coarse):
    faces = SyntheticFaces(coarse, margin=1.5, size=32, turned_away=1.0)
    for seed in range(6):
        rotation = faces.sample(np.random.default_rng(seed)).label.rotation
        assert np.linalg.norm(rotation) > np.radians(60)


def test_a_photographs_skin_shows_on_the_head_what_the_photograph_shows(tmp_path, coarse, fine):
    """The atlas, read as any skin is, has the photograph's colours where it sees the face."""
    data = pytest.importorskip("skimage.data", reason="its photographs are used")
    rgb = data.astronaut()[:300, 60:360]
    path = Path(__file__).resolve().parents[2] / "scripts" / "portrait_skins.py"
    spec = importlib.util.spec_from_file_location("portrait_skins", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    pipeline = FacePipeline.from_config()
    face = max(pipeline.process_still(Image(rgb, 0.0)).faces, key=lambda f: f.track.score)
    maker = script.SkinMaker(fine)
    atlas = cv2.resize(maker(rgb, face), None, fx=2, fy=2)
    assert cv2.imwrite(str(tmp_path / "her.jpg"), atlas[..., ::-1])
    colours, _ = Skins(tmp_path, coarse, fine).of(0)
    pixels, seen = (values[: coarse.n_vertices] for values in maker._seen(rgb, face))
    there = seen > 0.9
    assert there.sum() > 400
    x, y = np.rint(pixels[there]).astype(int).T
    shown = cv2.GaussianBlur(rgb, (0, 0), 1.0)[y, x] / 255
    assert np.corrcoef(colours[there].ravel(), shown.ravel())[0, 1] > 0.8
    unseen = (seen == 0) & (coarse.regions == coarse.region_names.index("ear"))
    hue = colours[unseen].mean(0) / colours[unseen].mean()
    np.testing.assert_allclose(hue, colours[there].mean(0) / colours[there].mean(), atol=0.25)
