"""Laws of the decoder: a batch gives what each face gives alone, by the plain formulas."""

import numpy as np
import pytest

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, crop_from_face_box, face_box_from_points
from face_recon_ros.core.crop_pose import (
    CAMERA_FROM_FRONTAL_FACE,
    crop_camera,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.decoding import MeshDecoder
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.illumination import shade
from face_recon_ros.core.morphable_model import VertexNormals, load_morphable_model
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.rigid import Rigid


@pytest.fixture
def model(face_model_path):
    return load_morphable_model(face_model_path, level="coarse")


@pytest.fixture
def people(model):
    """Five faces: identity, expression, albedo, pose in the crop, crop, light."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.normal(0, 1, shape).astype(np.float32)

    poses = [crop_from_face(0.3 * normal(3), [0.02, -0.01, 1.0 + 0.1 * k]) for k in range(5)]
    crops = [Crop(100.0 * normal(2), 50.0 + 30 * k, 96, 0.4 * k) for k in range(5)]
    expression = random.uniform(0, 1, (5, model.k_expression)).astype(np.float32)
    light = 0.2 * normal(5, 9, 3)
    light[:, 0] += 1.0
    return normal(5, model.k_identity), expression, normal(5, model.k_albedo), poses, crops, light


def test_a_batch_is_what_the_plain_formulas_say_of_each(model, people):
    identity, expression, albedo, poses, crops, light = people
    decoder, normals = MeshDecoder(model), VertexNormals(model.triangles, model.n_vertices)
    vertices = decoder.express(decoder.neutral(identity), expression)
    reflectance = decoder.reflectance(albedo)
    boxes = decoder.boxes(vertices, poses, [NormalisedCamera.of(crop) for crop in crops])
    colours = decoder.colours(decoder.normals(vertices, poses), reflectance, light)
    for i, (pose, crop) in enumerate(zip(poses, crops, strict=True)):
        shape = model.vertices(identity[i], expression[i])
        np.testing.assert_allclose(vertices[i], shape, atol=1e-6)
        pixels = crop_camera(crop.size).project(pose.apply(shape[decoder.skin]))
        box = face_box_from_points(pixels)
        middle, side = crop.to_image((box[:2] + box[2:]) / 2), (box[2] - box[0]) / crop.scale
        expected = np.concatenate([middle - side / 2, middle + side / 2])
        np.testing.assert_allclose(boxes[i], expected, atol=1e-3 * side)
        lit = shade(model.albedo(albedo[i]), normals(shape) @ pose.rotation.T, light[i])
        np.testing.assert_allclose(colours[i], lit, atol=1e-4)
        assert colours.flags.c_contiguous and vertices.flags.c_contiguous


def test_a_box_is_where_a_real_camera_shows_the_mesh(model, people):
    """Near the middle of the crop its scale is that of the whole crop."""
    identity, expression, *_ = people
    decoder = MeshDecoder(model)
    vertices = decoder.express(decoder.neutral(identity), expression)
    matrix = np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
    camera = PinholeCamera(640, 480, matrix)
    pose = Rigid(CAMERA_FROM_FRONTAL_FACE, np.array([0.05, -0.03, 0.5]))
    for i, shape in enumerate(vertices):
        px = camera.project(pose.apply(shape[decoder.skin]))
        expected = face_box_from_points(px)
        crop = crop_from_face_box(expected, 1.3, 96)
        seen = NormalisedCamera.of(crop, camera)
        there = seen.from_crop_pose(crop_from_camera_pose(pose, crop, camera))
        (box,) = decoder.boxes(vertices[i : i + 1], [there], [seen])
        np.testing.assert_allclose(box, expected, atol=0.02 * crop.side_px)


def test_no_face_is_no_fault(model):
    decoder = MeshDecoder(model)
    none = np.zeros((0, model.k_identity), np.float32)
    vertices = decoder.express(
        decoder.neutral(none), np.zeros((0, model.k_expression), np.float32)
    )
    assert vertices.shape == (0, model.n_vertices, 3)
    reflectance = decoder.reflectance(np.zeros((0, model.k_albedo), np.float32))
    assert reflectance.shape == (0, 3, model.n_vertices)
    assert decoder.boxes(vertices, [], []).shape == (0, 4)
    light = np.zeros((0, 9, 3), np.float32)
    normals = decoder.normals(vertices, [])
    assert decoder.colours(normals, reflectance, light).shape == vertices.shape


def test_a_part_without_skin_is_refused(model):
    bare = model.subset("facial_skin")
    object.__setattr__(bare, "subsets", {"facial_skin": np.zeros(bare.n_vertices, bool)})
    with pytest.raises(ModelError, match="facial skin"):
        MeshDecoder(bare)
