"""The dense-point network: its points, its fit in torch beside numpy's, its run and its export."""

import importlib.util
import itertools
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")

import torch

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import ConfigError, ModelError
from face_recon_ros.core.mirror import identity_mirror
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.point_fit import FitPrior, FitState, PointFitter
from face_recon_ros.core.point_network import DensePointNetwork, fit_stride
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rectification import CELLS, FaceFrame, Rectifier, grid_coordinates
from face_recon_ros.core.rigid import angle_between, rotation_from_vector
from face_recon_ros.face_model.population import population_mean
from face_recon_ros.training.checkpoint import save_checkpoint
from face_recon_ros.training.config import PointConfig, TrainConfig, config_from_dict
from face_recon_ros.training.export_points import export_points, people_of
from face_recon_ros.training.photographs import cache_of
from face_recon_ros.training.point_calibration import information_of
from face_recon_ros.training.point_examples import PointBatch, PointExamples
from face_recon_ros.training.point_fit import Fit, State
from face_recon_ros.training.point_network import PointNetwork, choose_points
from face_recon_ros.training.point_objective import PointObjective
from face_recon_ros.training.point_photographs import answers, open_labelled
from face_recon_ros.training.point_weights import load_export, renew_statistics
from face_recon_ros.training.synthesis.faces import SyntheticFaces
from face_recon_ros.training.synthesis.render_cache import RenderCache, fill_render_cache
from face_recon_ros.training.train_points import (
    build_point_network,
    copied,
    replayed,
    train_points,
)

POINTS = 60


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture(scope="module")
def vertices(model):
    return choose_points(model, POINTS)


@pytest.fixture(scope="module")
def pool(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    sizes = (model.k_identity, model.k_expression, model.k_albedo)
    cache = RenderCache(folder, 6, 96, sizes)
    fill_render_cache(cache, SyntheticFaces(model, margin=1.3, size=96), 0)
    return folder, cache


@pytest.fixture(scope="module")
def batch(model, pool):
    examples = PointExamples(pool[1], model, str(find_model("face_net.onnx")), 0, batch_size=8)
    return next(iter(examples))


def random_state(n, model, seed=0):
    random = np.random.default_rng(seed)
    turns = [
        rotation_from_vector(v) @ CAMERA_FROM_FRONTAL_FACE for v in random.normal(0, 0.3, (n, 3))
    ]
    return FitState(
        np.stack(turns),
        random.normal([0, 0, 1], 0.01, (n, 3)),
        random.normal(0, 0.5, (n, model.k_identity)),
        random.uniform(0, 0.4, (n, model.k_expression)),
        random.uniform(0.9, 1.5, n),
    )


def test_points_lie_on_the_face_alike_on_both_sides(model, vertices):
    assert abs(len(vertices) - POINTS) <= 1
    assert set(model.symmetry[vertices]) == set(vertices.tolist())
    names = {model.region_names[i] for i in model.regions[vertices]}
    assert not names & {"scalp", "neck", "teeth", "tongue", "mouth_interior"}
    assert {"face", "eyelid", "lip_upper", "lip_lower"} <= names
    places = grid_coordinates(model.mean_shape[vertices])
    assert (places > -0.5).all()
    assert (places < CELLS - 0.5).all()


def test_points_are_no_landmarks(model):
    """They are spread by distance alone: few are among the 68, and most of the 68 are not."""
    chosen = set(choose_points(model, 300).tolist())
    assert len(chosen & set(model.landmarks_68.tolist())) < 34


def test_the_fit_in_torch_is_the_fit_in_numpy(model):
    vertices = choose_points(model, 330)
    assert fit_stride(len(vertices)) > 1
    fit = Fit(model, vertices)
    with torch.no_grad():
        fit.log_identity.copy_(torch.linspace(-0.5, 0.2, model.k_identity))
    lists = {k: np.array(fit.prior()[k]) for k in ("identity", "expression")}
    prior = FitPrior(**{**fit.prior(), **lists})
    true, start = random_state(5, model), random_state(5, model, seed=1)
    start = replace(start, rotation=true.rotation, translation=true.translation)
    mean = model.mean_shape[vertices]
    seen = FaceFrame.of(true.rotation, true.translation).project(mean)
    seen = seen + np.random.default_rng(2).normal(0, 0.001, seen.shape)
    sigma = np.full(seen.shape[:2], 0.004)
    every = fit_stride(len(vertices))
    ours = PointFitter(model, vertices, prior, every).fit(start, seen, sigma, steps=1)
    begun = State(*(torch.from_numpy(np.asarray(v, np.float32)) for v in vars(start).values()))
    log_sigma = torch.log(torch.from_numpy(sigma.astype(np.float32)))
    theirs = fit(begun, torch.from_numpy(seen.astype(np.float32)), log_sigma, steps=1)
    bounds = (1e-3, 1e-3, 0.02, 0.01, 1e-6)
    for a, b, bound in zip(vars(ours.state).values(), theirs, bounds, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=bound)


def test_the_fit_passes_gradients_on(model, vertices):
    vertices = vertices[::4]  # every point costs six fits
    fit = Fit(model, vertices).double()
    state = random_state(1, model)
    start = State(*(torch.from_numpy(v) for v in vars(state).values()))
    seen = FaceFrame.of(state.rotation, state.translation).project(model.mean_shape[vertices])
    places = torch.from_numpy(seen).requires_grad_()
    doubt = torch.full(places.shape[:2], float(np.log(0.004)), dtype=torch.float64)
    doubt.requires_grad_()

    def shape(p, s):
        return fit(start, p, s, steps=1).identity[0, :4]

    assert torch.autograd.gradcheck(shape, (places, doubt), eps=1e-6, atol=1e-4, nondet_tol=1e-9)


def test_normals_are_those_of_inference(model, vertices):
    state = random_state(3, model)
    rotation = torch.from_numpy(state.rotation.astype(np.float32))
    ours = PointObjective(model, vertices).normals(rotation).numpy()
    theirs = Rectifier(model).seen_normals(FaceFrame.of(state.rotation, state.translation))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_examples_show_faces_where_they_say_so(model, batch):
    assert batch.image.shape[1:] == (96, 96, 3)
    bright = batch.image.float().std((1, 2, 3))
    assert (bright[batch.present > 0.5] > 1).all()


def test_perfect_points_have_no_error(model, vertices, batch):
    """The labels are the renderings' own geometry: told back, they cost nothing."""
    objective = PointObjective(model, vertices).eval()
    here = PointBatch(*(v[batch.present > 0.5] for v in batch))
    frame = FaceFrame.of(here.start_rotation.numpy(), here.start_translation.numpy())
    c = torch.cat([here.identity, here.expression], 1)
    true = objective.fit.mean + (c @ objective.fit.basis.flatten(0, 1).T).view(len(c), -1, 3)
    truth = FaceFrame.of(here.rotation.numpy(), here.translation.numpy())
    displacement = frame.displacement(truth.project(true.numpy()), objective.fit.mean.numpy())
    answer = _answer(displacement, here)
    values = objective(answer, here)
    assert values["points_mm"] < 0.02
    worse = objective(_answer(displacement + 0.004, here), here)
    assert worse["points_mm"] > 5
    assert values["shape_mm"] < worse["shape_mm"]


def _answer(displacement, here):
    from face_recon_ros.training.point_network import DensePoints

    moved = torch.from_numpy(displacement.astype(np.float32))
    n, p = moved.shape[:2]
    sure = torch.full((n, p), float(np.log(0.0005)))
    c = here.coefficients.split([here.identity.shape[1], here.expression.shape[1]], 1)
    return DensePoints(moved, sure, torch.zeros(n, 1), *c)


def test_a_network_learns_a_batch_by_heart(model, vertices, batch):
    torch.manual_seed(0)
    sizes = (model.k_identity, model.k_expression)
    network = PointNetwork(grid_coordinates(model.mean_shape[vertices]), sizes, 8, hidden=32)
    objective = PointObjective(model, vertices)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    first: dict[str, float] = {}
    for _ in range(60):
        seen = batch.image, objective.normals(batch.start_rotation), batch.coefficients
        values = objective(network(*seen), batch, fit=False)
        loss = objective.total(values, PointConfig().weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        last = {name: float(value.detach()) for name, value in values.items()}
        first = first or last
    for name in ("points_mm", "direct_identity", "direct_expression"):
        assert last[name] < 0.7 * first[name]


def settings(tmp_path, pool, **more):
    values = {
        "out": str(tmp_path / "run"),
        "pool": str(pool[0]),
        "pool_slots": 6,
        "pool_size": 96,
        "renew_per_second": -1.0,
        "points": POINTS,
        "width": 8,
        "hidden": 16,
        "batch_size": 4,
        "steps": 6,
        "fit_after": 3,
        "loader_workers": 0,
        "replay": 3,
    }
    return config_from_dict(values | more, PointConfig)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_run_resumes_and_its_export_answers(tmp_path, pool, model, precision):
    config = settings(tmp_path, pool)
    checkpoint = train_points(config)
    with pytest.raises(ConfigError, match="resume"):
        train_points(config)
    longer = settings(tmp_path, pool, steps=8)
    assert train_points(longer, resume=True) == checkpoint
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert all("points_mm" in json.loads(line) for line in lines)
    out = tmp_path / "points.onnx"
    fresh = str(tmp_path / "held_out")
    report = export_points(
        checkpoint, out, precision=precision, pool=fresh, calibration=8, people=4
    )
    network = DensePointNetwork(out, threads=1)
    assert len(network.vertices) == report["points"]
    assert network.prior.pose_scale == pytest.approx(report["pose_scale"])
    assert 2 <= report["people"] <= 4
    assert network.answers is not None and network.neutral is not None
    assert network.trained_for(model, find_model(FACE_MODEL))
    half_way = population_mean(model) / 2
    np.testing.assert_allclose(network.prior.population, half_way, atol=1e-4)
    seen = torch.load(checkpoint, weights_only=True)["mean_identity"].numpy()
    assert 0.0 < np.abs(seen).mean() < 1.0
    np.testing.assert_allclose(network.prior.training_mean, seen, atol=1e-4)
    for n in (0, 1, 3):
        images = np.zeros((n, 96, 96, 3), np.uint8)
        normals = np.zeros((n, CELLS, CELLS, 3), np.float32)
        regressed = np.zeros((n, model.k_identity + model.k_expression), np.float32)
        answer = network.predict(images, normals, regressed)
        assert answer.displacement.shape == (n, len(network.vertices), 2)
        assert answer.log_sigma.shape == answer.displacement.shape[:2]
        assert ((answer.presence >= 0) & (answer.presence <= 1)).all()
        assert answer.coefficients.shape == regressed.shape


def test_the_prior_knows_real_peoples_mean_and_trainings(model, face_model_path):
    said = people_of(model, torch.full((model.k_identity,), 0.25))
    np.testing.assert_allclose(said["training_mean"], 0.25)
    assert max(map(abs, said["population"])) > 0.1
    assert not np.any(people_of(model, None)["training_mean"])  # an older run does not say
    assert people_of(load_morphable_model(face_model_path, level="coarse"), None) == {}


def test_a_run_goes_on_from_an_export(tmp_path, pool, model):
    """Same answers in evaluation and, with the statistics of a batch, in training."""
    out = tmp_path / "points.onnx"
    checkpoint = train_points(settings(tmp_path, pool))
    export_points(checkpoint, out, calibration=0, people=0)
    vertices = choose_points(model, POINTS)
    network = build_point_network(model, vertices, settings(tmp_path, pool))
    fit = Fit(model, vertices)
    load_export(out, network, fit, vertices)
    random = np.random.default_rng(8)
    image = random.integers(0, 256, (6, 96, 96, 3)).astype(np.uint8)
    normals = random.normal(0, 1, (6, CELLS, CELLS, 3)).astype(np.float32)
    regressed = random.normal(0, 0.3, (6, sum(network.sizes))).astype(np.float32)
    inputs = image, normals, regressed
    expected = DensePointNetwork(out, threads=1).predict(*inputs)
    examples = tuple(torch.from_numpy(v) for v in inputs)
    with torch.no_grad():
        before = network.eval()(*examples)
        renew_statistics(network, examples)
        after = network.eval()(*examples)
        trained = network.train()
        trained.whole[1].eval()  # their statistics are the run's
        trained.person[1].eval()
        training = trained(*examples)
    for answer in (before, after, training):
        np.testing.assert_allclose(answer.displacement, expected.displacement, atol=2e-4)
        coefficients = torch.cat([answer.identity, answer.expression], 1)
        np.testing.assert_allclose(coefficients, expected.coefficients, atol=2e-3)
    again = tmp_path / "again.onnx"
    export_points(out, again, calibration=0, people=0)
    copy = DensePointNetwork(again, threads=1)
    assert copy.metadata == DensePointNetwork(out).metadata
    displacement = copy.predict(*inputs).displacement
    np.testing.assert_allclose(displacement, expected.displacement, atol=2e-4)
    prior = json.loads(DensePointNetwork(out).metadata["prior"])
    assert fit.prior()["independence"] == pytest.approx(prior["independence"])
    more = settings(tmp_path, pool, out=str(tmp_path / "more"), init=str(out), steps=1)
    assert train_points(more).is_file()
    with pytest.raises(ModelError, match="export of the same points"):
        train_points(settings(tmp_path, pool, out=str(tmp_path / "x"), init=str(out), width=12))


def test_a_precision_that_there_is_not_is_refused(tmp_path):
    for precision, calibration in (("int8_weights", 8), ("int8", 0)):
        with pytest.raises(ConfigError, match="--precision"):
            export_points(
                tmp_path / "c.pt", tmp_path / "x", precision=precision, calibration=calibration
            )


def test_information_is_what_errors_leave():
    random = np.random.default_rng(7)
    assert information_of(random.normal(0, 1.2, (50, 4))).tolist() == [0, 0, 0, 0]
    deviation = np.array([0.5, 0.8, 1.0])
    found = information_of(random.normal(0, deviation, (200_000, 3)))
    np.testing.assert_allclose(found, 1 / deviation**2 - 1, atol=0.03)


def test_checkpoints_of_other_networks_are_refused(tmp_path):
    torch.save({"format": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="dense-point network"):
        export_points(tmp_path / "checkpoint.pt", tmp_path / "x.onnx")


@pytest.fixture(scope="module")
def photographs(pool, tmp_path_factory):
    """Renderings on grey as if they were photographs, a landscape, and what the first two show."""
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(3)
    labels = []
    while len(labels) < 2:
        shown = pool[1].read(random)
        if abs(shown.label.rotation[1]) < 0.4:
            alpha = shown.rgba[..., 3:].astype(np.float32) / 255
            picture = shown.rgba[..., :3] * alpha + 128 * (1 - alpha)
            picture = cv2.resize(picture.astype(np.uint8), (256, 256))
            cv2.imwrite(str(folder / f"{len(labels)}.png"), picture[..., ::-1])
            labels.append(shown.label)
    cv2.imwrite(str(folder / "landscape.png"), np.full((256, 256, 3), 90, np.uint8))
    return folder, labels


def test_a_teachers_looks_agree_on_a_face_and_not_on_none(photographs):
    """Seen again in the whole picture's own terms."""
    folder, labels = photographs
    teacher = FaceReconstructor.from_config(
        ReconstructorConfig(network="face_net.onnx", points="face_points_float.onnx", threads=1)
    )
    pictures = [cv2.imread(str(folder / f"{k}.png"))[..., ::-1] for k in range(2)]
    *said, nothing = answers([*pictures, np.full((256, 256, 3), 90, np.uint8)], teacher, 0)
    assert nothing is None
    for label, answer in zip(labels, said, strict=True):
        assert answer is not None
        turn = angle_between(*(rotation_from_vector(v.rotation) for v in (label, answer)))
        assert turn < np.radians(12)
        true, ours = label.translation, answer.translation
        np.testing.assert_allclose(ours[:2] / ours[2], true[:2] / true[2], atol=0.02)
        assert abs(np.log(ours[2] / true[2])) < 0.15


def test_photographs_become_examples_with_the_teachers_answers(photographs, pool, model, tmp_path):
    config = PointConfig(
        out=str(tmp_path), backgrounds=str(photographs[0]), photograph_share=0.9, pool_size=160
    )
    cache = open_labelled(config)
    assert 1 <= len(cache) <= 2  # as the detector finds
    assert len(open_labelled(config)) == len(cache)  # made once
    known = {
        tuple(np.round(cache.draw(np.random.default_rng(k))[1].identity, 3)) for k in range(9)
    }
    examples = PointExamples(
        pool[1],
        model,
        str(find_model("face_net.onnx")),
        0,
        batch_size=12,
        no_face=0.0,
        photographs=cache_of(tmp_path),
        photograph_share=0.9,
    )
    batch = next(iter(examples))
    identities = {tuple(np.round(v, 3)) for v in batch.identity.numpy()}
    mirrored = {tuple(np.round(identity_mirror(model) @ np.array(v), 3)) for v in known}
    near = [any(np.allclose(v, k, atol=5e-3) for k in known | mirrored) for v in identities]
    assert sum(near) >= 1 and len(identities) < 12


def test_a_share_of_photographs_wants_photographs():
    with pytest.raises(ConfigError, match="backgrounds"):
        PointConfig(photograph_share=0.3)
    with pytest.raises(ConfigError, match="device"):
        PointConfig(photograph_share=0.3, backgrounds="somewhere", device="cpu")
    with pytest.raises(ConfigError, match="portrait_skins"):
        PointConfig(portrait_skins="somewhere", device="cpu")


def test_averaged_runs_answer_with_the_mean_of_their_weights(tmp_path):
    path = Path(__file__).resolve().parents[2] / "scripts" / "average_checkpoints.py"
    spec = importlib.util.spec_from_file_location("average_checkpoints", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    files = [tmp_path / f"{k}.pt" for k in range(3)]
    for k, file in enumerate(files):
        weights = {"a": torch.full((2,), float(k)), "count": torch.tensor(k)}
        save_checkpoint(file, {"average": weights, "step": k})
    out = script.average(files)
    assert out["step"] == 0 and out["average"]["count"] == 0
    assert out["average"]["a"].tolist() == [1.0, 1.0]
    save_checkpoint(files[2], {"average": weights, "mean_identity": torch.ones(3)})
    assert "mean_identity" not in script.average(files)  # older runs do not know it
    assert script.average([files[2], files[2]])["mean_identity"].tolist() == [1.0, 1.0, 1.0]
    save_checkpoint(files[2], {"average": {"a": torch.zeros(3), "count": torch.tensor(0)}})
    with pytest.raises(ModelError, match="one network"):
        script.average(files)


def test_old_batches_fill_the_gaps():
    arriving = iter(["a", None, "b", None, None, "c"])
    got = list(replayed(arriving, 2, 0))
    assert [value for value, fresh in got if fresh] == ["a", "b", "c"]
    assert {value for value, fresh in got if not fresh} <= {"a", "b"}
    assert list(replayed(iter([None, None]), 2, 0)) == []
    waiting = itertools.chain(["a"], ["b"])
    assert [fresh for _, fresh in replayed(waiting, 0, 0)] == [True, True]


def test_batches_to_keep_hold_no_shared_memory(batch):
    shared = PointBatch(*(value.clone().share_memory_() for value in batch))
    kept = copied(shared)
    assert not any(value.is_shared() for value in kept)
    for value, same in zip(kept, batch, strict=True):
        torch.testing.assert_close(value, same)


def test_each_kind_of_run_has_its_own_options():
    with pytest.raises(ConfigError, match="backbone"):
        config_from_dict({"backbone": "tiny"}, PointConfig)
    with pytest.raises(ConfigError, match="regressor"):
        config_from_dict({"regressor": "x"}, TrainConfig)
    with pytest.raises(ConfigError, match="no_face"):
        config_from_dict({"no_face": 1.0}, PointConfig)
