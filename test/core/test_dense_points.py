"""The second network and the stage around it, in the small world."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from fixtures import DiscDetector, draw_discs, write_point_network

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, Picture
from face_recon_ros.core.dense_points import DensePointStage, corrected
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.mirror import expression_mirror, identity_mirror, mirrored_points
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.person import Person, identity_priors
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.point_fit import FitPrior
from face_recon_ros.core.point_network import DensePointNetwork
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Coefficients, Image

W, H = 640, 480
CAMERA = PinholeCamera.from_fov(W, H)
RED = (230, 90, 60)
GREY = Picture(np.full((200, 200, 3), 128, np.uint8))
NOMINAL = NormalisedCamera.of(Crop(np.full(2, 100.0), 150.0, 64))


@pytest.fixture(scope="module")
def shipped():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture
def points_path(tmp_path, face_model_path):
    return write_point_network(tmp_path / "points.onnx", face_model_path)


def edited(path, **metadata):
    """The network with other metadata; None takes an entry out."""
    model = onnx.load(path)
    meta = {e.key: e.value for e in model.metadata_props} | metadata
    onnx.helper.set_model_props(model, {k: v for k, v in meta.items() if v is not None})
    out = path.with_name("edited.onnx")
    onnx.save(model, out)
    return out


def prediction_of(n, model, depth=1.0):
    c = Coefficients.zeros(n, model.k_identity, model.k_expression, model.k_albedo)
    c = replace(c, translation=c.translation * np.float32(depth))
    return Prediction(c, np.ones(n, np.float32))


def stage_of(path, face_model):
    network = DensePointNetwork(path, threads=1)
    return DensePointStage(network, load_morphable_model(face_model, level="coarse"))


def make_pipeline(network_path, face_model_path, points, **settings):
    config = ReconstructorConfig(
        network=str(network_path),
        face_model=str(face_model_path),
        points=str(points),
        **settings,
    )
    finder = FaceFinder(DiscDetector(), Tracker(TrackerConfig()))
    return FacePipeline(finder, FaceReconstructor.from_config(config))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_any_number_of_faces(points_path, face_model_path, n):
    stage = stage_of(points_path, face_model_path)
    model = load_morphable_model(face_model_path, level="coarse")
    found = stage.fit(stage.look([GREY] * n, [NOMINAL] * n, prediction_of(n, model)))
    assert found.presence.shape == (n,)
    assert found.seen.shape == (n, len(stage.network.vertices), 2)
    assert found.fit.converged.tolist() == [True] * n


def test_points_of_the_mean_face_give_the_mean_face(points_path, face_model_path):
    stage = stage_of(points_path, face_model_path)
    model = load_morphable_model(face_model_path, level="coarse")
    found = stage.fit(stage.look([GREY], [NOMINAL], prediction_of(1, model)))
    np.testing.assert_allclose(found.fit.state.identity, 0, atol=0.02)
    np.testing.assert_allclose(found.fit.state.translation, [[0, 0, 1]], atol=1e-3)


def test_a_network_that_corrects_coefficients_is_where_the_fit_starts(tmp_path, face_model_path):
    """Points without weight leave identity and expression as the network has them."""
    path = write_point_network(
        tmp_path / "corrects.onnx", face_model_path, corrected=0.25, independence=1e-9
    )
    stage = stage_of(path, face_model_path)
    model = load_morphable_model(face_model_path, level="coarse")
    found = stage.fit(stage.look([GREY], [NOMINAL], prediction_of(1, model)))
    np.testing.assert_allclose(found.fit.state.identity, 0.25, atol=1e-4)
    np.testing.assert_allclose(found.fit.state.expression, 0.25, atol=1e-4)
    known, sure = np.full((1, model.k_identity), -0.5), 1e9 * np.eye(model.k_identity)[None]
    found = stage.fit(stage.look([GREY], [NOMINAL], prediction_of(1, model)), known, sure)
    np.testing.assert_allclose(found.fit.state.identity, -0.5, atol=1e-4)


def test_points_that_lie_higher_lift_the_face(tmp_path, face_model_path):
    raised = write_point_network(
        tmp_path / "raised.onnx", face_model_path, raised_m=0.01, independence=1.0
    )
    model = load_morphable_model(face_model_path, level="coarse")
    stage = stage_of(raised, face_model_path)
    found = stage.fit(stage.look([GREY], [NOMINAL], prediction_of(1, model)))
    assert found.fit.state.translation[0, 1] == pytest.approx(-0.01, abs=0.003)


def test_with_the_mirror_a_face_and_its_mirror_image_answer_alike(shipped):
    """Both ways, the network has no left and right of its own; one way, it has."""
    stage = DensePointStage(DensePointNetwork(find_model("face_points.onnx"), threads=1), shipped)
    random = np.random.default_rng(3)
    rough = random.integers(0, 256, (9, 9, 3)).astype(np.uint8)
    rgb = np.kron(rough, np.ones((23, 23, 1), np.uint8))  # 207 pixels, another on each side
    cameras = [NormalisedCamera.of(Crop(np.full(2, 103.0), 160.0, 96))]
    here = prediction_of(1, shipped, depth=0.8)
    c = here.coefficients
    c = replace(
        c,
        rotation=np.array([[0.1, 0.3, -0.1]], np.float32),
        identity=random.normal(0, 0.3, c.identity.shape).astype(np.float32),
        expression=random.uniform(0, 0.5, c.expression.shape).astype(np.float32),
    )
    there = replace(
        c,
        rotation=c.rotation * np.array([1, -1, -1], np.float32),
        translation=c.translation * np.array([-1, 1, 1], np.float32),
        identity=c.identity @ identity_mirror(shipped).T,
        expression=c.expression @ expression_mirror(shipped).T,
    )
    pair = mirrored_points(shipped, stage.network.vertices)
    apart = []
    for mirrored in (False, True):
        looks = [
            stage.look(
                [Picture(shown)], cameras, replace(here, coefficients=row), mirrored=mirrored
            )
            for shown, row in ((rgb, c), (np.ascontiguousarray(rgb[:, ::-1]), there))
        ]
        ours, theirs = (look.answer.displacement[0] for look in looks)
        apart.append(np.abs(ours - theirs[pair] * [-1, 1]).mean())
    assert apart[1] < 0.1 * apart[0]
    reflected = looks[0].identity @ identity_mirror(shipped).T
    np.testing.assert_allclose(reflected, looks[1].identity, atol=0.05)


def test_a_face_model_without_mirror_vertices_is_seen_once(points_path, face_model_path):
    network = DensePointNetwork(points_path, threads=1)
    model = load_morphable_model(face_model_path, level="coarse")
    alone = replace(model, symmetry=np.full_like(model.symmetry, -1))
    stage, row = DensePointStage(network, alone), prediction_of(1, model)
    once, asked = (stage.look([GREY], [NOMINAL], row, mirrored=m) for m in (False, True))
    np.testing.assert_array_equal(once.answer.displacement, asked.answer.displacement)


def test_only_rows_that_were_looked_at_change(points_path, face_model_path):
    stage = stage_of(points_path, face_model_path)
    model = load_morphable_model(face_model_path, level="coarse")
    three = prediction_of(3, model)
    row = Prediction(three.coefficients[1], three.identity_confidence[1:2])
    found = stage.fit(stage.look([GREY], [NOMINAL], row))
    out = corrected(three, np.array([1]), found)
    for i in (0, 2):
        np.testing.assert_array_equal(out.coefficients.identity[i], three.coefficients.identity[i])
        assert out.presence[i] == 0
    assert out.presence[1] > 0.9


def test_the_pipeline_asks_both_networks(network_path, face_model_path, points_path):
    image = Image(draw_discs(W, H, (300, 200, 60, RED)), 0.0)
    with_points = make_pipeline(network_path, face_model_path, points_path).process(image, CAMERA)
    without = make_pipeline(network_path, face_model_path, "off").process(image, CAMERA)
    assert len(with_points.faces) == len(without.faces) == 1
    # red and green tell the first network who it is; the points say: the mean face
    here, there = (
        np.abs(f.faces[0].coefficients.identity[0, 1:3]).sum() for f in (with_points, without)
    )
    assert here < there
    assert "fit" in with_points.timings


def test_identity_settles_over_a_track(network_path, face_model_path, points_path):
    pipeline = make_pipeline(network_path, face_model_path, points_path)
    identity = []
    for k in range(12):
        rgb = draw_discs(W, H, (200 + 5 * k, 200, 60, RED))
        identity.append(
            pipeline.process(Image(rgb, k / 30), CAMERA).faces[0].coefficients.identity
        )
    steps = np.abs(np.diff(np.concatenate(identity), axis=0)).max(1)
    assert steps[-1] <= steps.max()
    assert steps[-1] < 0.02


def test_crops_alone_will_do(network_path, face_model_path, points_path):
    """Separate nodes have the crops, not the image."""
    pipeline = make_pipeline(network_path, face_model_path, points_path)
    image = Image(draw_discs(W, H, (300, 200, 60, RED)), 0.0)
    tracks, _ = pipeline.finder.find(image)
    r = pipeline.reconstructor
    crops = r.crops(tracks)
    pixels = r.extract(image.rgb, crops)
    answer = r.predict(pixels)
    alone = [Picture(p, is_crop=True) for p in pixels]
    for camera in (None, replace(CAMERA, calibrated=True)):
        a, b = (
            r.fit(pictures, tracks, crops, answer, camera).coefficients
            for pictures in ([Picture(image.rgb)] * len(crops), alone)
        )
        np.testing.assert_allclose(a.translation, b.translation, rtol=0.02, atol=1e-3)


def test_auto_takes_what_ships_for_the_face_model_and_nothing_for_another(
    network_path, face_model_path
):
    assert make_pipeline(network_path, face_model_path, "auto").reconstructor.points is None


def test_a_network_for_another_face_model_is_refused(tmp_path, network_path, face_model_path):
    other = write_point_network(tmp_path / "other.onnx", find_model(FACE_MODEL), step=40)
    with pytest.raises(ModelError, match=r"reconstructor\.points"):
        make_pipeline(network_path, face_model_path, other)


def test_vertices_that_the_model_lacks_are_refused(network_path, face_model_path, points_path):
    path = edited(points_path, vertices=json.dumps([10**6] * 9))
    with pytest.raises(ModelError):
        make_pipeline(network_path, face_model_path, path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"face_recon_points_format": "2"},
        {"vertices": None},
        {"vertices": "[1, 2]"},
        {"prior": "{}"},
        {"prior": "no json"},
        {"identity_answers": '{"mean": [0]}'},
        {"neutral_answers": '{"mean": [0, 1], "error_ratio": [0]}'},
        {"neutral_answers": '{"mean": [0], "error_ratio": [-1]}'},
    ],
)
def test_damaged_files_are_refused_by_name(points_path, metadata):
    with pytest.raises(ModelError, match=r"edited\.onnx"):
        DensePointNetwork(edited(points_path, **metadata))


def test_a_prior_that_is_no_prior_is_refused(points_path):
    meta = {e.key: e.value for e in onnx.load(points_path).metadata_props}
    prior = json.loads(meta["prior"]) | {"identity": 0.0}
    with pytest.raises(ModelError, match="above zero"):
        DensePointNetwork(edited(points_path, prior=json.dumps(prior)))


@pytest.mark.parametrize("population", [[float("nan")], [0.1, 0.2]])
def test_a_population_that_is_no_identity_is_refused(points_path, face_model_path, population):
    meta = {e.key: e.value for e in onnx.load(points_path).metadata_props}
    prior = json.loads(meta["prior"]) | {"population": population}
    with pytest.raises(ModelError, match=r"population|identities"):
        stage_of(edited(points_path, prior=json.dumps(prior)), face_model_path)


@pytest.mark.parametrize(("told", "moved"), [(0.0, 1.0), (1.0, 0.5)])
def test_a_fit_starts_at_the_population_as_far_as_the_network_leaves_it_open(told, moved):
    population = np.linspace(-0.5, 0.5, 4)
    seen = np.ones((2, 4), np.float32)
    people = [Person(ReconstructorConfig(), None) for _ in seen]
    for training_mean, share in ((0.0, moved), (population, 0.0)):
        prior = FitPrior(
            *(1.0, (1.0, 1.0, 1.0), 1.0, np.ones(3), 1.0),
            start_information=told,
            population=population,
            training_mean=training_mean,
        )
        start, _ = identity_priors(people, seen, prior)
        np.testing.assert_allclose(start, seen + share * population)


def test_measurements_of_another_face_model_are_refused(points_path, face_model_path):
    neutral = json.dumps({"mean": [0.1, 0.2], "error_ratio": [0.0, 0.5]})
    with pytest.raises(ModelError, match="expressions"):
        stage_of(edited(points_path, neutral_answers=neutral), face_model_path)


def test_another_kind_of_network_is_refused(network_path):
    with pytest.raises(ModelError, match="dense-point network"):
        DensePointNetwork(network_path)


def test_the_fits_covariance_is_the_poses(network_path, face_model_path, tmp_path):
    """Surer points make a surer pose; the size of heads stays unknown."""
    deviation = []
    for sigma_m in (0.0005, 0.02):
        path = write_point_network(
            tmp_path / f"{sigma_m}.onnx", face_model_path, sigma_m=sigma_m, independence=1.0
        )
        pipeline = make_pipeline(network_path, face_model_path, path)
        image = Image(draw_discs(W, H, (300, 200, 60, RED)), 0.0)
        covariance = pipeline.process(image, CAMERA).faces[0].covariance
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
        assert np.linalg.eigvalsh(covariance).min() > 0
        deviation.append(np.sqrt(covariance.diagonal()))
    sure, doubtful = deviation
    assert (sure[3:] < 0.5 * doubtful[3:]).all()
    distance = pipeline.process(image, CAMERA).faces[0].camera_from_face.translation[2]
    assert sure[2] > 0.04 * distance
