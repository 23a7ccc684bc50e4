"""Avatars of people who turn away, of grey images, and of one of several people."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from face_recon_ros.cli.avatar import _chosen
from face_recon_ros.core.crop import whole_crop
from face_recon_ros.core.crop_pose import crop_camera, crop_from_face
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import VertexNormals, load_morphable_model
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.types import Coefficients, Face, Mesh, Track
from face_recon_ros.fitting.avatar import LITTLE_SEEN, AvatarMaker

SIZE = 256
MODEL = load_morphable_model(find_model(FACE_MODEL))
TINT = np.array([0.95, 0.85, 0.8], np.float32)


@pytest.fixture(scope="module")
def maker():
    return AvatarMaker(MODEL, 256)


@pytest.fixture
def people(maker):
    maker.forget()
    return maker


def shown(yaw_deg, grey=False, name="ada", tint=TINT, smile=0.0):
    """A tinted person in plain light, and the face as a network would tell it."""
    c = Coefficients.zeros(1, MODEL.k_identity, MODEL.k_expression, MODEL.k_albedo)
    light = np.zeros((1, 9, 3), np.float32)
    light[:, 0] = 0.9
    turn = np.array([[0.0, np.radians(yaw_deg), 0.0]], np.float32)
    ahead = np.array([[0.0, 0.0, 0.9]], np.float32)
    expression = np.zeros((1, MODEL.k_expression), np.float32)
    for side in ("Left", "Right"):
        expression[:, MODEL.expression_names.index(f"mouthSmile{side}")] = smile
    c = replace(c, illumination=light, rotation=turn, translation=ahead, expression=expression)
    pose = crop_from_face(turn[0], ahead[0])
    points = pose.apply(MODEL.vertices(c.identity[0], expression[0])).astype(np.float32)
    camera = crop_camera(SIZE)
    front = MODEL.triangles[
        ((VertexNormals(MODEL.triangles, MODEL.n_vertices)(points) * points).sum(axis=1) < 0)[
            MODEL.triangles
        ].any(axis=1)
    ]
    drawn = rasterize(camera.project(points), points[:, 2], front, SIZE, SIZE)
    colours = MODEL.albedo(c.albedo[0]) * tint
    picture = np.where((drawn.triangle >= 0)[..., None], interpolate(drawn, front, colours), 0.4)
    if grey:
        picture = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
    rgb = np.clip(np.rint(255 * picture), 0, 255).astype(np.uint8)
    box = np.array([60, 60, 200, 200], np.float32)
    track = Track(name, box, 1.0, 0.0)
    mesh = Mesh(MODEL.mean_shape, MODEL.triangles)
    return rgb, Face(track, whole_crop(SIZE), c, pose, mesh, box, 0.0)


def skin_of(head, where=True):
    """(N, 3) the texture's colours over facial skin, or some of it, 0 to 255."""
    inside = (MODEL.subsets["facial_skin"] & where)[MODEL.triangles].all(axis=1)
    uv = head.uvs[head.uv_triangles[inside]].mean(axis=1)
    size = len(head.texture)
    column, row = (np.stack([uv[:, 0], 1 - uv[:, 1]]) * size).astype(int)
    return head.texture[row, column].astype(float)


def test_who_turns_away_has_the_models_colours(people):
    people.add(*shown(yaw_deg=150))
    assert people.coverage("ada") < LITTLE_SEEN
    plain = skin_of(people.head("ada"))
    people.forget()
    people.add(*shown(yaw_deg=0))
    assert people.coverage("ada") > 0.3
    tint = np.median(skin_of(people.head("ada")) / plain, axis=0)
    np.testing.assert_allclose(tint / tint[1], TINT / TINT[1], atol=0.05)


def test_grey_images_make_a_grey_texture(people):
    people.add(*shown(yaw_deg=0, grey=True))
    assert people.coverage("ada") > 0.3
    assert np.median(np.ptp(skin_of(people.head("ada")), axis=1)) < 5
    people.forget()
    people.add(*shown(yaw_deg=0))
    assert np.median(np.ptp(skin_of(people.head("ada")), axis=1)) > 8


@pytest.mark.parametrize("order", [1, -1])
def test_a_face_at_rest_wins_where_a_smile_moves_it(people, order):
    """Its folds are no part of the neutral head; the forehead takes from both."""
    views = [shown(0, tint=TINT * 0.8, smile=1.0), shown(5, tint=TINT)]
    for view in views[::order]:
        people.add(*view)
    both = people.head("ada")
    people.forget()
    people.add(*views[1])
    calm = people.head("ada")
    moved = np.linalg.norm(both.targets["mouthSmileLeft"], axis=1) > 0.006
    still = (MODEL.mean_shape[:, 2] > 0.025) & (np.abs(MODEL.mean_shape[:, 1]) < 0.03)
    cheek, forehead = (
        np.median(skin_of(both, where) / skin_of(calm, where)) for where in (moved, still)
    )
    assert abs(cheek - 1) < 0.04
    assert forehead < 0.95


def test_people_are_kept_apart_and_one_is_chosen(people, capsys):
    source = SimpleNamespace(name="two.mp4")
    for yaw_deg in (0, 10, 20, 30):
        people.add(*shown(yaw_deg, name="bob"))
    for yaw_deg in (0, 10, 20):
        people.add(*shown(yaw_deg, name="ada"))
    people.add(*shown(0, name="nobody"))
    assert _chosen(people, source, None) == "bob"
    told = capsys.readouterr().err
    assert told.index("bob in 4 images, first at 130, 130") < told.index("ada in 3 images")
    assert "--id" in told
    assert "nobody" not in told  # seen once: the detector's fancy
    assert _chosen(people, source, "ada") == "ada"
    with pytest.raises(DataError, match="choose one of these"):
        _chosen(people, source, "eve")
    people.forget()
    with pytest.raises(DataError, match=r"a face in two\.mp4"):
        _chosen(people, source, None)
