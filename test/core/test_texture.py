"""Laws of colours taken from images, on renderings of the shipped face model."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from face_recon_ros.core.colour_ratios import sample
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.illumination import shade
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import VertexNormals, load_morphable_model
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.core.texture import Appearance
from face_recon_ros.core.texture_sampler import TextureSampler

SIZE, FOCAL, DISTANCE = 400, 700.0, 0.5
BACKGROUND = (20, 200, 30)
HEAD = load_morphable_model(find_model(FACE_MODEL), level="coarse")
MODEL = HEAD.subset("face")
NORMALS = VertexNormals(HEAD.triangles, HEAD.n_vertices)
ALBEDO = HEAD.albedo(np.zeros(HEAD.k_albedo))
FACE = MODEL.vertex_ids
SKIN = MODEL.subsets["facial_skin"]
EYES = HEAD.mean_shape[HEAD.interpupillary]
BRIDGE = EYES.mean(axis=0)
TINT = np.array([0.7, 0.85, 1.1], np.float32)  # what this person is, over what the model says


@pytest.fixture(scope="module")
def sampler():
    return TextureSampler(MODEL)


def view(yaw_deg=0.0, brightness=0.9, colours=None):
    """A tinted person under plain light, and the model's colours under the same."""
    turn = rotation_from_vector([0.0, np.radians(yaw_deg), 0.0]) @ CAMERA_FROM_FRONTAL_FACE
    points = (HEAD.mean_shape @ turn.T + [0, 0, DISTANCE]).astype(np.float32)
    normals = NORMALS(points)
    light = np.zeros((9, 3), np.float32)
    light[0], light[2] = brightness, -0.15
    model = shade(ALBEDO, normals, light).astype(np.float32)
    person = shade(ALBEDO * TINT, normals, light)
    if colours is not None:
        person[FACE] = colours
    pixels = FOCAL * points[:, :2] / points[:, 2:] + (SIZE - 1) / 2
    facing = (normals * points).sum(axis=1) < 0
    front = HEAD.triangles[facing[HEAD.triangles].any(axis=1)]
    seen = rasterize(pixels, points[:, 2], front, SIZE, SIZE)
    drawn = (seen.triangle >= 0)[..., None]
    picture = np.where(drawn, 255 * interpolate(seen, front, person), BACKGROUND)
    rgb = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    of_face = {
        "pixels": pixels, "points": points, "normals": normals, "model": model, "person": person
    }  # fmt: skip
    return SimpleNamespace(rgb=rgb, **{name: array[FACE] for name, array in of_face.items()})


def compare(sampler, v):
    return sampler.compare(v.rgb, v.pixels, v.points, v.normals, v.model)


def coloured(sampler, *views):
    appearance = Appearance(sampler)
    for v in views:
        appearance.add(compare(sampler, v), 1.0)
    return appearance


def error(colours, v):
    """(V,) largest difference of a channel."""
    return np.abs(colours - v.person).max(axis=1)


def test_nothing_seen_is_the_models_colours(sampler):
    v = view()
    assert (Appearance(sampler).colours(v.model) == v.model).all()
    away = v.points * [1, 1, -1]  # behind the camera
    nothing = sampler.compare(v.rgb, v.pixels, away.astype(np.float32), v.normals, v.model)
    assert nothing.empty
    appearance = Appearance(sampler)
    appearance.add(nothing, 1.0)
    assert (appearance.colours(v.model) == v.model).all()
    assert appearance.coverage == 0.0
    assert sample(v.rgb, np.zeros((0, 2))).shape == (0, 3)


def test_a_persons_tint_reaches_every_vertex_without_a_seam(sampler):
    """Seen vertices take it from the image, hidden ones from the smooth field."""
    v = view(yaw_deg=30)
    appearance = coloured(sampler, v)
    assert 0.3 < appearance.coverage < 0.95
    colours = appearance.colours(v.model)
    assert np.median(error(colours, v)) < 0.01
    assert np.percentile(error(colours, v)[SKIN], 98) < 0.06
    assert np.median(error(v.model, v)) > 0.05


def test_light_is_divided_out(sampler):
    """Colours from a bright frame, shown in a dark one."""
    appearance = coloured(sampler, view(brightness=0.9))
    dark = view(brightness=0.3)
    assert np.median(error(appearance.colours(dark.model), dark)) < 0.01


def test_views_add_up(sampler):
    views = [view(-35), view(35)]
    both, one = coloured(sampler, *views), coloured(sampler, views[0])
    assert both.coverage > one.coverage + 0.1


@pytest.mark.parametrize("yaw_deg", [0, 25, -25])
def test_background_never_gets_on_the_skin(sampler, yaw_deg):
    """The mesh lies five pixels beside the face: its edge sees the green ground."""
    v = view(yaw_deg)
    v.pixels = v.pixels + np.array([5.0, 0.0])
    colours = coloured(sampler, v).colours(v.model)
    green = colours[:, 1] - colours[:, [0, 2]].max(axis=1)
    straight = sample(v.rgb, v.pixels)
    assert (straight[:, 1] - straight[:, [0, 2]].max(axis=1)).max() > 0.5  # it would have
    assert green.max() < 0.15


def test_hair_on_the_forehead_is_left_out(sampler):
    v = view()
    forehead = MODEL.mean_shape[:, 2] > 0.055
    dark = v.person.copy()
    dark[forehead] = 0.08
    v = view(colours=dark)
    colours = coloured(sampler, v).colours(v.model)
    plain = view()
    assert np.median(error(colours, plain)[MODEL.mean_shape[:, 2] > 0.065]) < 0.05
    assert np.median(error(colours, plain)[~forehead]) < 0.02


def test_between_strands_nothing_is_taken(sampler):
    """What is seen there is skin or half a hair: it would look like specks."""
    v = view()
    forehead = (MODEL.mean_shape[:, 2] > 0.03) & (np.abs(MODEL.mean_shape[:, 1]) < 0.05)
    top = int(v.pixels[forehead, 1].max())
    strands = np.random.default_rng(1).uniform(0.4, 1.0, (top, SIZE, 1))
    v.rgb[:top] = v.rgb[:top] * strands
    seen = compare(sampler, v)
    above = MODEL.mean_shape[:, 2] > 0.045
    assert (seen.visible[above] > 0.9).sum() > 10
    assert seen.weight[above].sum() < 0.2 * seen.visible[above].sum()
    assert np.median(seen.weight[SKIN & (MODEL.mean_shape[:, 2] < 0)]) > 0.8


@pytest.mark.parametrize("colour", [(0.43, 0.59, 0.78), (0.02, 0.02, 0.02)])
def test_a_mask_is_not_painted_on(sampler, colour):
    v = view()
    masked = v.person.copy()
    below = MODEL.mean_shape[:, 2] < -0.03
    masked[below] = colour
    v = view(colours=masked)
    colours = coloured(sampler, v).colours(v.model)
    apart = np.abs(colours - colour).max(axis=1)[below & SKIN]
    assert np.percentile(apart, 10) > 0.15
    assert np.median(error(colours, view())[~below & SKIN]) < 0.03


def test_what_is_said_to_be_hidden_is_not_taken(sampler):
    """A hand has the colour of skin: only the points tell."""
    v = view()
    cheek = np.abs(MODEL.mean_shape[:, 1:] - [0.035, -0.04]).max(axis=1) < 0.02
    handed = v.person.copy()
    handed[cheek] *= 0.88
    v = view(colours=handed)
    shown = (~cheek).astype(np.float32)
    appearance = Appearance(sampler)
    appearance.add(sampler.compare(v.rgb, v.pixels, v.points, v.normals, v.model, shown), 1.0)
    assert np.median(error(appearance.colours(v.model), view())[cheek]) < 0.02
    assert np.median(error(coloured(sampler, v).colours(v.model), view())[cheek]) > 0.03


def test_a_beard_stays(sampler):
    v = view()
    chin = (MODEL.mean_shape[:, 2] < -0.085) & (np.abs(MODEL.mean_shape[:, 1]) < 0.02)
    chin &= MODEL.mean_shape[:, 0] > -0.02
    bearded = v.person.copy()
    bearded[chin] *= 0.55
    v = view(colours=bearded)
    inner = chin & (MODEL.mean_shape[:, 2] < -0.09) & (MODEL.mean_shape[:, 2] > -0.1)
    assert inner.sum() > 5
    assert np.median(error(coloured(sampler, v).colours(v.model), v)[inner]) < 0.06


def glasses_on(v):
    """Draws a dark frame on a view: two rims and a bridge."""
    eyes = [v.pixels[np.linalg.norm(MODEL.mean_shape - at, axis=1).argmin()] for at in EYES]
    radius = round(0.019 * FOCAL / DISTANCE)
    for x, y in eyes:
        cv2.circle(v.rgb, (round(x), round(y) + 4), radius, (30, 25, 25), 3, cv2.LINE_AA)
    (x0, y), (x1, _) = eyes
    inner = [(round(x + side * radius), round(y) + 4) for x, side in ((x0, 1), (x1, -1))]
    cv2.line(v.rgb, *inner, (30, 25, 25), 3, cv2.LINE_AA)
    return v


def test_frames_of_glasses_are_left_out(sampler):
    plain, framed = view(), glasses_on(view())
    assert compare(sampler, plain).glasses == 0.0
    assert compare(sampler, framed).glasses > 0.9
    drawn = (np.abs(sample(framed.rgb, framed.pixels) - sample(plain.rgb, plain.pixels))).max(1)
    skin = SKIN & (drawn > 0.2) & (np.linalg.norm(MODEL.mean_shape - BRIDGE, axis=1) < 0.06)
    assert skin.sum() > 30
    trusting = TextureSampler(MODEL)
    trusting._bridge = lambda *_: 0.0
    left, without = (
        (error(coloured(s, framed).colours(framed.model), plain)[skin] > 0.08).sum()
        for s in (sampler, trusting)
    )
    assert without > 5  # near eyes and brows it may be dark
    assert left < 0.03 * skin.sum() and left < without / 2


def test_brows_and_shadows_are_no_glasses(sampler):
    v = view()
    dark = v.person.copy()
    dark[np.isin(MODEL.regions, [MODEL.region_names.index("brow")])] *= 0.3
    dark *= (1 - 0.3 * np.clip(MODEL.mean_shape[:, 1:2] / 0.03, 0, 1)).astype(np.float32)
    assert compare(sampler, view(colours=dark)).glasses == 0.0


def test_grey_images_give_grey_faces(sampler):
    v = view()
    v.rgb = np.repeat(v.rgb.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    appearance = coloured(sampler, v)
    colours = appearance.colours(v.model)
    seen = compare(sampler, v).weight > 0.9
    assert 0.3 < seen.mean() < 0.95
    assert np.ptp(colours, axis=1).max() < 1e-6  # nor where nothing was seen
    appearance.add(compare(sampler, view()), 1.0)
    assert np.ptp(appearance.colours(v.model), axis=1).max() > 0.1  # hues, once there are some


def test_what_lies_behind_the_nose_is_not_seen(sampler):
    v = view(yaw_deg=50)
    seen = compare(sampler, v).weight > 0.3
    cheek = np.abs(MODEL.mean_shape - [-0.012, 0.022, -0.035]).max(axis=1) < 0.008
    cheek |= np.abs(MODEL.mean_shape - [-0.012, -0.022, -0.035]).max(axis=1) < 0.008
    far = cheek & (v.points[:, 2] > DISTANCE)
    assert far.sum() > 5 and seen.any()
    assert seen[far].mean() < 0.2


def test_what_agrees_in_few_views_only_is_not_believed(sampler):
    """Hair that looks like skin in one frame of four."""
    v = view()
    forehead = np.flatnonzero(np.abs(MODEL.mean_shape - [-0.005, 0.0, 0.045]).max(axis=1) < 0.012)
    dark = v.person.copy()
    dark[forehead] *= 0.3
    hair = view(colours=dark)
    shadow = v.person.copy()
    shadow[forehead] *= 0.88
    colours = coloured(sampler, hair, view(colours=shadow), hair, hair).colours(v.model)
    assert np.median(error(colours, v)[forehead]) < 0.04
