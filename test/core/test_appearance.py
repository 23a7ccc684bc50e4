"""Embeddings see a face upright, whatever the picture; and only faces that say who they are."""

import cv2
import numpy as np
import pytest
from fixtures import DiscDetector, Later, draw_discs

from face_recon_ros.core.appearance import (
    TEMPLATE_112,
    AppearanceStage,
    FaceEmbedder,
    FacePoints,
    aligned,
    is_telling,
    turn_of,
    unlike_the_others,
)
from face_recon_ros.core.background import Background, Inline
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import coefficients_from_crop_pose, crop_camera, crop_from_face
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.models import FACE_MODEL, NETWORK, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.scene_cut import SceneCut
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Coefficients, Image, Track
from face_recon_ros.evaluation.synthetic import facing


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse").subset("face")


def row(model, yaw=0.0, seed=0):
    """Coefficients of a face turned by `yaw` radians, one crop focal away."""
    rng = np.random.default_rng(seed)
    rotation, translation = coefficients_from_crop_pose(facing([0.0, 0.0, 1.0], yaw=yaw))
    c = Coefficients.zeros(1, model.k_identity, model.k_expression, model.k_albedo)
    return Coefficients(
        rng.standard_normal(c.identity.shape).astype(np.float32),
        rng.uniform(0, 0.3, c.expression.shape).astype(np.float32),
        c.albedo,
        rotation[None].astype(np.float32),
        translation[None].astype(np.float32),
        c.illumination,
    )


def test_points_are_those_of_the_whole_mesh(model):
    coefficients, crop = row(model, 0.3), Crop(np.array([200.0, 150.0]), 80.0, 112)
    vertices = model.vertices(coefficients.identity[0], coefficients.expression[0])
    marks = vertices[model.landmarks_68]
    five = [marks[36:42].mean(0), marks[42:48].mean(0), marks[30], marks[48], marks[54]]
    pose = crop_from_face(coefficients.rotation[0], coefficients.translation[0])
    expected = crop.to_image(crop_camera(crop.size).project(pose.apply(np.array(five))))
    np.testing.assert_allclose(FacePoints(model)(coefficients, crop), expected, atol=0.01)


@pytest.mark.parametrize("yaw_deg", [0, 20, 60, 120])
def test_turn_is_the_angle_to_the_camera(model, yaw_deg):
    assert np.degrees(turn_of(row(model, np.radians(yaw_deg)))) == pytest.approx(yaw_deg, abs=0.1)


def test_small_turned_and_cut_faces_do_not_tell(model):
    frontal, aside = row(model), row(model, np.radians(70))
    far, near = (Crop(np.array([200.0, 150.0]), side, 112) for side in (12.0, 120.0))
    points = FacePoints(model)
    size = (640, 480)
    assert is_telling(frontal, points(frontal, near), size)
    assert not is_telling(frontal, points(frontal, far), size)
    assert not is_telling(aside, points(aside, near), size)
    for centre in ([5.0, 150.0], [635.0, 150.0], [200.0, 475.0]):
        at_the_border = Crop(np.array(centre), 120.0, 112)
        assert not is_telling(frontal, points(frontal, at_the_border), size)


def test_a_turned_face_may_be_as_small_as_a_frontal_one(model):
    points = FacePoints(model)

    def smallest(yaw):
        face = row(model, yaw)
        crops = (Crop(np.array([200.0, 150.0]), side, 112) for side in np.arange(10.0, 80.0))
        return next(c.side_px for c in crops if is_telling(face, points(face, c), (640, 480)))

    assert smallest(np.radians(50)) == pytest.approx(smallest(0.0), rel=0.15)


@pytest.mark.parametrize("scale, turn", [(1.0, 0.0), (0.5, 0.4), (6.0, -0.3)])
def test_alignment_undoes_scale_and_roll(scale, turn):
    rng = np.random.default_rng(1)
    upright = cv2.resize(rng.integers(0, 255, (14, 14, 3), np.uint8), (112, 112))
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    size = int(200 * max(scale, 1))
    linear = np.array([[c, -s], [s, c]])
    affine = np.column_stack([linear, size / 2 - linear @ np.full(2, 55.5)])
    picture = cv2.warpAffine(upright, affine, (size, size), flags=cv2.INTER_LINEAR)
    points = TEMPLATE_112 @ linear.T + affine[:, 2]
    again = aligned(picture, points, 112)
    inner = np.s_[20:92, 20:92]
    assert np.abs(again[inner].astype(int) - upright[inner]).mean() < 6


def test_the_shipped_network_embeds_with_unit_length():
    embedder = FaceEmbedder(threads=1)
    rgb = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    assert embedder(rgb, []).shape[0] == 0
    embedding = embedder(rgb, [TEMPLATE_112 + 40.0, TEMPLATE_112 + 20.0])
    assert embedding.shape == (2, 128)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-4)


def test_another_network_is_refused():
    with pytest.raises(ModelError, match="embedding"):
        FaceEmbedder(find_model(NETWORK))


class MeanEmbedder:
    """Says how bright a picture is."""

    size = 112

    def embed(self, pictures):
        return pictures.reshape(len(pictures), -1, 3).mean(axis=1)


def test_one_face_is_looked_at_beside_the_images_the_most_urgent_that_can_be_known(model):
    executor = Later()
    stage = AppearanceStage(MeanEmbedder(), model, executor)
    tracks = [Track(name, np.zeros(4, np.float32), 1.0, 0.5) for name in ("aside", "a", "b")]
    crops = [Crop(np.array([x, 150.0]), 80.0, 112) for x in (100.0, 200.0, 550.0)]
    rows = (row(model, np.radians(70)), row(model), row(model))
    prediction = Prediction.stacked([Prediction(c, np.ones(1, np.float32)) for c in rows])
    image = Image(np.zeros((480, 640, 3), np.uint8), 0.5)
    image.rgb[:, 300:] = 200
    stage.look(image, [], tracks, crops, prediction)
    stage.look(image, ["gone"], tracks, crops, prediction)
    assert not executor.waiting and stage.take() is None
    stage.look(image, ["gone", "aside", "b", "a"], tracks, crops, prediction)
    stage.look(image, ["a"], tracks, crops, prediction)
    assert len(executor.waiting) == 1 and stage.take() is None  # no image waits
    image.rgb[:] = 0  # the next image
    executor.run()
    look = stage.take()
    assert look.stamp == 0.5 and [*look.value] == ["b"]
    np.testing.assert_allclose(look.value["b"], 200.0)
    assert stage.take() is None


class ColourLooks(AppearanceStage):
    """Knows discs by their colours."""

    def __init__(self, executor=None):
        self._background, self._executor = Background(executor or Inline()), executor

    def look(self, image, wanted, tracks, crops, prediction):
        for track in (t for name in wanted for t in tracks if t.id == name):
            x, y = ((track.box[:2] + track.box[2:]) / 2).astype(int)
            self._name = track.id
            self._background.send(image.stamp, lambda seen: seen[None], image.rgb[y, x] - 128.0)
            return


@pytest.mark.parametrize("late", [0, 1, 3])
def test_who_comes_back_has_the_old_id_as_soon_as_a_look_has_said_so(
    network_path, face_model_path, late
):
    """And never two faces have one id."""
    config = ReconstructorConfig(
        network=str(network_path), face_model=str(face_model_path), points="off"
    )
    executor = Later() if late else Inline()
    pipeline = FacePipeline(
        FaceFinder(DiscDetector(), Tracker(TrackerConfig(detect_every=1))),
        FaceReconstructor.from_config(config),
        appearance=ColourLooks(executor),
    )
    red, yellow = (230, 90, 60), (250, 220, 40)
    ids = []
    for k in range(60):
        if late and k % late == 0:
            executor.run()
        discs = [(100, 100, 24, yellow)]
        if not 15 <= k < 45:
            discs += [(300 if k < 15 else 500, 200, 26, red)]
        frame = pipeline.process(Image(draw_discs(640, 480, *discs), k / 10))
        assert len({face.track.id for face in frame.faces}) == len(frame.faces)
        ids.append(
            {round(float(face.box[0] + face.box[2]) / 2): face.track.id for face in frame.faces}
        )
    assert ids[14] == ids[5] and len(ids[14]) == 2
    (there,) = {name for x, name in ids[14].items() if x > 200}
    back = [k for k in range(45, 60) if len(ids[k]) == 2]
    assert back[0] - 45 <= 2 * late
    assert all(name == there for k in back for x, name in ids[k].items() if x > 200)


def test_a_cut_is_seen_and_light_motion_and_noise_are_none():
    rng = np.random.default_rng(0)
    room = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (640, 360))
    street = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (640, 360))
    cut = SceneCut()
    assert not cut(room)
    assert not cut(room // 2)  # a lamp goes out
    assert not cut(np.roll(room // 2, 20, axis=1))  # the camera turns
    assert cut(street)
    assert not cut(street)
    cut.reset()
    assert not cut(room)


@pytest.mark.parametrize("shape", [(1, 1, 3), (480, 640), (3, 2000, 3)])
def test_a_cut_test_takes_any_picture(shape):
    cut = SceneCut()
    assert not cut(np.zeros(shape, np.uint8))
    assert not cut(np.zeros(shape, np.uint8))


def test_looks_at_another_person_are_told_from_most():
    random = np.random.default_rng(0)
    ann, bob = np.linalg.qr(random.standard_normal((64, 2)))[0].T
    looks = [ann + random.normal(0, 0.05, 64) for _ in range(5)]
    looks.insert(2, bob + random.normal(0, 0.05, 64))
    unit = np.array([look / np.linalg.norm(look) for look in looks])
    assert unlike_the_others(unit, 0.2).tolist() == [2]
    assert unlike_the_others(np.delete(unit, 2, 0), 0.2).tolist() == []
    assert unlike_the_others(unit[[0, 2]], 0.2).tolist() == [0, 1]  # two pictures, two people
    for few in ([], unit[:1]):
        assert unlike_the_others(few, 0.2).tolist() == []
