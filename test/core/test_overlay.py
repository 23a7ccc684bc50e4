"""Laws of the overlay: the mesh is drawn where it projects, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures import DiscDetector, draw_discs

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.overlay import (
    AXIS_COLOURS,
    FACE_COLOURS,
    FaceColours,
    Overlay,
    OverlayConfig,
    draw_axes,
    draw_label,
    render_mesh,
)
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Image, Mesh

W, H = 320, 240
BARE = OverlayConfig(axes=False, labels=False)


@pytest.fixture(scope="module")
def pipeline(network_path, face_model_path):
    config = ReconstructorConfig(network=str(network_path), face_model=str(face_model_path))
    return FacePipeline(
        FaceFinder(DiscDetector(), Tracker()), FaceReconstructor.from_config(config)
    )


def reconstructed(pipeline, *discs):
    rgb = draw_discs(W, H, *discs)
    return rgb, pipeline.process_still(Image(rgb, 0.0)).faces


def overlay(pipeline, config):
    model = pipeline.reconstructor.model
    return Overlay(model.triangles, model.n_vertices, config)


CAMERA = PinholeCamera.from_fov(W, H)
FACE = (150, 120, 40, (200, 60, 60))


@pytest.mark.parametrize("side_px", [16, 128, 1024])
def test_what_changes_is_where_the_mesh_projects(pipeline, side_px):
    rgb, faces = reconstructed(pipeline, FACE)
    config = OverlayConfig(axes=False, labels=False, mesh_side_px=side_px)
    out = overlay(pipeline, config).draw(rgb, faces, CAMERA)
    rows, columns = np.nonzero((out != rgb).any(axis=2))
    pixels = CAMERA.project(faces[0].camera_from_face.apply(faces[0].mesh.vertices))
    slack = 4 if side_px < 100 else 2
    for axis, drawn in enumerate((columns, rows)):
        assert abs(drawn.min() - pixels[:, axis].min()) <= slack
        assert abs(drawn.max() - pixels[:, axis].max()) <= slack


def test_the_image_given_stays_as_it_is(pipeline):
    rgb, faces = reconstructed(pipeline, FACE)
    before = rgb.copy()
    overlay(pipeline, OverlayConfig()).draw(rgb, faces, CAMERA)
    assert (rgb == before).all()


def test_nothing_to_draw_changes_nothing(pipeline):
    rgb, faces = reconstructed(pipeline, FACE)
    invisible = OverlayConfig(opacity=0.0, axes=False, labels=False)
    assert (overlay(pipeline, invisible).draw(rgb, faces, CAMERA) == rgb).all()
    assert (overlay(pipeline, OverlayConfig()).draw(rgb, [], CAMERA) == rgb).all()


def test_full_opacity_hides_what_is_behind(pipeline):
    rgb, faces = reconstructed(pipeline, FACE)
    solid = overlay(pipeline, OverlayConfig(opacity=1.0, axes=False, labels=False))
    a = solid.draw(rgb, faces, CAMERA)[110:130, 140:160]
    b = solid.draw(255 - rgb, faces, CAMERA)[110:130, 140:160]
    assert (a == b).all() and a.std() > 0


def test_textured_shows_the_meshs_own_colours(pipeline):
    rgb, faces = reconstructed(pipeline, FACE)
    config = OverlayConfig(opacity=1.0, textured=True, axes=False, labels=False)
    shown = overlay(pipeline, config).draw(rgb, faces, CAMERA)[120, 150]
    np.testing.assert_allclose(shown, 255 * faces[0].mesh.colours.mean(axis=0), atol=12)


def test_the_nearer_face_covers_the_further(pipeline):
    rgb, faces = reconstructed(
        pipeline, (100, 120, 40, (250, 40, 40)), (240, 120, 30, (40, 40, 250))
    )
    far = next(f for f in faces if f.box[0] > 160)
    near = next(f for f in faces if f.box[0] < 160)
    assert near.camera_from_face.translation[2] < far.camera_from_face.translation[2]
    in_front = Rigid(near.camera_from_face.rotation, far.camera_from_face.translation * 0.8)
    near = replace(near, camera_from_face=in_front)
    solid = overlay(pipeline, OverlayConfig(opacity=1.0, axes=False, labels=False))
    both = solid.draw(rgb, [near, far], CAMERA)
    middle = tuple(np.rint(CAMERA.project(in_front.translation)).astype(int))[::-1]
    alone = solid.draw(rgb, [near], CAMERA)
    assert (both[middle] == alone[middle]).all()


@pytest.mark.parametrize("x, y", [(0, 0), (319, 239), (150, 235)])
def test_faces_over_the_border_and_grey_images(pipeline, x, y):
    rgb, faces = reconstructed(pipeline, (x, y, 40, (200, 60, 60)))
    out = overlay(pipeline, OverlayConfig()).draw(rgb, faces, CAMERA)
    assert out.shape == rgb.shape
    grey = overlay(pipeline, BARE).draw(rgb[..., 0], faces, CAMERA)
    assert grey.shape == rgb.shape


def test_axes_point_where_they_should():
    """A face looking straight into the camera: its y to the right, its z up, its x at us."""
    rgb = np.zeros((H + 1, W + 1, 3), np.uint8)
    camera = PinholeCamera.from_fov(W + 1, H + 1)  # its middle is a pixel: no blurred lines
    draw_axes(rgb, Rigid(CAMERA_FROM_FRONTAL_FACE, np.array([0, 0, 0.5])), camera)
    for axis, ok in (
        (1, lambda r, c: c.mean() > W / 2 + 10),
        (2, lambda r, c: r.mean() < H / 2 - 10),
    ):
        near = np.abs(rgb.astype(int) - AXIS_COLOURS[axis]).max(axis=2) < 40
        rows, columns = np.nonzero(near)
        assert len(rows) > 10 and ok(rows, columns)


def test_impossible_places_draw_nothing():
    rgb = np.zeros((H, W, 3), np.uint8)
    draw_axes(rgb, Rigid(np.eye(3), np.array([0, 0, -1.0])), CAMERA)
    draw_label(rgb, [np.nan, 0, 1, 1], "x", (255, 255, 255))
    assert not rgb.any()


def test_a_portrait_shows_the_front_and_the_side():
    ball = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    nose = Mesh(
        np.float32([[1, 0, 0], [0, 1, -1], [0, -1, -1], [0, 0, 1]]),
        np.int32([[0, 3, 2], [0, 1, 3], [0, 2, 1]]),
    )
    front, side = (render_mesh(nose, 64, yaw) for yaw in (0, 90))
    assert (front != side).any()
    empty = render_mesh(Mesh(ball, np.zeros((0, 3), np.int32)), 64)
    columns = [np.flatnonzero((picture != empty).any(axis=(0, 2))) for picture in (front, side)]
    assert abs(columns[0].mean() - 31.5) < 2  # symmetric from the front
    assert len(columns[1]) < len(columns[0])


@pytest.mark.parametrize("wrong", [{"opacity": 1.5}, {"mesh_side_px": 1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        OverlayConfig(**wrong)


def test_a_person_keeps_the_colour_whoever_else_comes_and_goes():
    random, colours, seen = np.random.default_rng(0), FaceColours(), {}
    people = [f"id{k}" for k in range(20)]
    for _ in range(200):
        present = random.permutation(people)[: random.integers(0, 9)].tolist()
        for name, colour in colours(present).items():
            assert seen.setdefault(name, colour) == colour
    assert colours([]) == {}


def test_as_many_people_as_colours_have_each_their_own():
    names = [f"id{k}" for k in range(len(FACE_COLOURS))]
    assert len(set(FaceColours()(names).values())) == len(FACE_COLOURS)


def test_another_process_gives_the_first_person_the_same_colour():
    assert FaceColours()(["abcde"]) == FaceColours()(["abcde"])
    many = FaceColours()
    for k in range(1000):
        many([f"id{k}"])
    assert len(many) <= 64
