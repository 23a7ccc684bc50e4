"""Laws of the texture's layout and of what is gathered in it."""

from dataclasses import replace

import numpy as np
import pytest

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.texture import View
from face_recon_ros.core.texture_atlas import TextureAtlas, TextureBuilder
from face_recon_ros.core.texture_sampler import Comparison, TextureSampler

SIZE = 256
POSE = Rigid(np.eye(3), np.array([0.0, 0.0, 0.5]))


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL))


@pytest.fixture(scope="module")
def atlas(model):
    return TextureAtlas(model, SIZE)


@pytest.fixture(scope="module")
def sampler(model):
    return TextureSampler(model)


def signed_area(corners):
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def test_islands_lie_inside_beside_each_other_and_not_mirrored(model, atlas):
    assert atlas.uvs.min() >= 0 and atlas.uvs.max() <= 1
    assert len(atlas.uvs) == len(model.uvs)
    before = signed_area(model.uvs[model.uv_triangles].astype(np.float64))
    after = signed_area(atlas.uvs[model.uv_triangles].astype(np.float64))
    clear = np.abs(before) > 1e-7
    assert (np.sign(before[clear]) == np.sign(after[clear])).mean() > 0.999
    # Nothing overlaps: the triangles' areas are the area of all texels.
    assert len(atlas.texels) == pytest.approx(np.abs(after).sum() / 2 * SIZE**2, rel=0.05)


def test_the_face_stands_upright_and_is_large(model, atlas):
    place = np.full((model.n_vertices, 2), np.nan)
    place[model.triangles.ravel()] = atlas.uvs[model.uv_triangles.ravel()]
    right, left = place[model.interpupillary[0]], place[model.interpupillary[1]]
    eyes = place[model.landmarks_68[[36, 45]]]
    chin, brow = place[model.landmarks_68[8]], place[model.landmarks_68[27]]
    assert eyes[1, 0] - eyes[0, 0] > 0.12  # the subject's left to the right of the picture
    assert brow[1] - chin[1] > 0.12
    assert np.isfinite([right, left]).all()


def test_every_texel_is_a_point_of_its_triangle(model, atlas):
    np.testing.assert_allclose(atlas.weights.sum(axis=1), 1, atol=1e-5)
    assert atlas.weights.min() >= -1e-5
    points = atlas.spread(model.mean_shape, slice(None))
    apart = np.linalg.norm(points - model.mean_shape[atlas.corners[:, 0]], axis=1)
    assert apart.max() < 0.03


def test_one_square_island_fills_the_picture(face_model_path):
    """There is no other island that would need room."""
    dome = load_morphable_model(face_model_path)
    atlas = TextureAtlas(dome, 64)
    assert len(atlas.texels) > 0.9 * 64**2


def test_a_coarse_mesh_has_the_fine_ones_coordinates(model):
    coarse = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    seam = len(coarse.uvs) - coarse.n_vertices
    assert seam > 100  # the whole head has them
    coarse, fine = coarse.subset("face"), model.subset("face")

    def corners(mesh):
        pairs = np.column_stack(
            [mesh.vertex_ids[mesh.triangles].ravel(), mesh.uvs[mesh.uv_triangles].reshape(-1, 2)]
        )
        return set(map(tuple, pairs.tolist()))

    assert corners(coarse) <= corners(fine)
    areas = [np.abs(signed_area(m.uvs[m.uv_triangles].astype(np.float64))) for m in (coarse, fine)]
    assert areas[0].sum() == pytest.approx(areas[1].sum(), rel=0.02)
    assert len(np.unique(coarse.uv_triangles)) == len(coarse.uvs)
    assert len(TextureAtlas(coarse, 128).texels) > 0.3 * 128**2


def test_a_mesh_without_coordinates_has_no_texture(model):
    none = replace(
        model, uvs=np.zeros((0, 2), np.float32), uv_triangles=np.zeros((0, 3), np.int32)
    )
    with pytest.raises(ModelError, match="texture coordinates"):
        TextureAtlas(none)


def test_nothing_seen_is_the_models_albedo(model, atlas, sampler):
    builder = TextureBuilder(atlas, sampler, model)
    n = model.n_vertices
    none = np.zeros(n, np.float32)
    nothing = Comparison(np.zeros((n, 3), np.float32), none, np.zeros((10, 3)), none)
    rgb = np.zeros((8, 8, 3), np.uint8)
    builder.add(View(rgb, np.zeros((n, 2)), nothing, model.mean_albedo, 1.0, POSE, 1.0))
    assert builder.coverage == 0.0
    picture = builder.texture(model.mean_albedo).reshape(-1, 3)[atlas.texels]
    plain = atlas.spread(model.mean_albedo, slice(None))
    assert np.abs(picture / 255 - plain).max() < 0.005


def flat_view(model, sampler, colour, px_per_mm=1.0):
    """A picture of one colour (3,), 0 to 255, of a face that the model takes for grey."""
    n = model.n_vertices
    rgb = np.tile(np.array(colour, np.uint8), (8, 8, 1))
    field = np.zeros((10, 3))
    field[0] = np.log(np.array(colour) / 255 / 0.5)
    ratio = np.repeat(field[:1], n, axis=0).astype(np.float32)
    weight = sampler.sampled.copy()
    compared = Comparison(ratio, weight, field, weight)
    half = np.full((n, 3), 0.5, np.float32)
    return View(rgb, np.full((n, 2), 3.0), compared, half, px_per_mm, POSE, px_per_mm)


@pytest.mark.parametrize(
    "colour, skin",
    [((150, 128, 120), (150, 128, 120)), ((100, 110, 160), (110, 111, 136))],
)
def test_no_skin_is_as_blue_as_light_may_be(model, atlas, sampler, colour, skin):
    builder = TextureBuilder(atlas, sampler, model)
    builder.add(flat_view(model, sampler, colour))
    picture = builder.texture(np.full((model.n_vertices, 3), 0.5, np.float32))
    shown = picture.reshape(-1, 3)[atlas.texels]
    seen = (sampler.sampled[atlas.corners] == 1).all(axis=1)
    np.testing.assert_allclose(np.median(shown[seen], axis=0), skin, atol=2)


def test_what_was_seen_is_taken_once_and_the_sharper_view_wins(model, atlas, sampler):
    """Two flat pictures: a blurred dim one from afar, a sharp bright one."""
    grey = np.full((model.n_vertices, 3), 0.5, np.float32)

    def view(value, px_per_mm):
        return flat_view(model, sampler, [value] * 3, px_per_mm)

    def shown(*views):
        builder = TextureBuilder(atlas, sampler, model)
        for v in views:
            builder.add(v)
        picture = builder.texture(grey).reshape(-1, 3)[atlas.texels]
        skin = (sampler.sampled[atlas.corners] == 1).all(axis=1)
        skin &= (model.regions[atlas.corners] == 0).all(axis=1)
        return np.median(picture[skin])

    assert shown(view(150, 1.0)) == pytest.approx(150, abs=1)
    assert shown(view(110, 0.2), view(150, 1.0)) == pytest.approx(150, abs=4)
    assert shown(view(150, 1.0), view(110, 0.2)) == pytest.approx(150, abs=4)


def test_a_view_is_wanted_if_it_is_sharper_or_from_another_side(model, atlas, sampler):
    builder = TextureBuilder(atlas, sampler, model)
    n = model.n_vertices
    none = np.zeros(n, np.float32)
    nothing = Comparison(np.zeros((n, 3), np.float32), none, np.zeros((10, 3)), none)
    rgb = np.zeros((8, 8, 3), np.uint8)
    aside = Rigid(rotation_from_vector([0.0, np.radians(10), 0.0]), POSE.translation)
    assert builder.wants(POSE, 1.0)
    builder.add(View(rgb, np.zeros((n, 2)), nothing, model.mean_albedo, 1.0, POSE, 1.0))
    assert not builder.wants(POSE, 1.05)
    assert builder.wants(POSE, 1.2) and builder.wants(aside, 0.5)
