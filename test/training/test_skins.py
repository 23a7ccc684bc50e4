"""Photographic skin: colours come from the texture, details from between the vertices."""

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")

from face_recon_ros.core.errors import DataError, SourceError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.training.synthesis.faces import SyntheticFaces
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


def test_people_who_turn_away_show_no_face(coarse):
    faces = SyntheticFaces(coarse, margin=1.5, size=32, turned_away=1.0)
    for seed in range(6):
        rotation = faces.sample(np.random.default_rng(seed)).label.rotation
        assert np.linalg.norm(rotation) > np.radians(60)
