"""Configuration, data, the loop, checkpoints, export: end to end on a tiny network."""

import ast
import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

import face_recon_ros.training as training_package  # noqa: E402
from face_recon_ros.cli.main import main as cli_main  # noqa: E402
from face_recon_ros.core.crop_pose import crop_camera, crop_from_face  # noqa: E402
from face_recon_ros.core.errors import ConfigError, DataError, FaceReconError, ModelError  # noqa: E402
from face_recon_ros.core.models import FACE_MODEL, find_model  # noqa: E402
from face_recon_ros.core.morphable_model import load_morphable_model  # noqa: E402
from face_recon_ros.core.rasterizer import rasterize as core_rasterize  # noqa: E402
from face_recon_ros.core.types import Detections  # noqa: E402
from face_recon_ros.face_model.population import population_mean  # noqa: E402
from face_recon_ros.io.jobs import Pool  # noqa: E402
from face_recon_ros.training import checkpoint as checkpoints  # noqa: E402
from face_recon_ros.training import photographs as photographs_module  # noqa: E402
from face_recon_ros.training.config import (  # noqa: E402
    PointConfig,
    TrainConfig,
    config_from_dict,
    load_config,
    parse_overrides,
)
from face_recon_ros.training.data import Batch, Crops, people_mean  # noqa: E402
from face_recon_ros.training.export import export  # noqa: E402
from face_recon_ros.training.network import CoefficientSizes, Distilled, FaceRegressor  # noqa: E402
from face_recon_ros.training.objective import Objective  # noqa: E402
from face_recon_ros.training.optimisation import measure_statistics  # noqa: E402
from face_recon_ros.training.photographs import (  # noqa: E402
    PhotographCache,
    label_photographs,
    list_photographs,
    shard_file,
)
from face_recon_ros.training.rasterizer import rasterize  # noqa: E402
from face_recon_ros.training.stored import build_network, load_network  # noqa: E402
from face_recon_ros.training.synthesis import faces as faces_module  # noqa: E402
from face_recon_ros.training.synthesis.augment import Mirror  # noqa: E402
from face_recon_ros.training.synthesis.faces import Label, SyntheticFaces, draw_person  # noqa: E402
from face_recon_ros.training.synthesis.people import People  # noqa: E402
from face_recon_ros.training.synthesis.render_cache import RenderCache, fill_render_cache  # noqa: E402
from face_recon_ros.training.train import pseudo_label, resized, train  # noqa: E402


def tiny(tmp_path, face_model_path, **changes):
    values = {
        "out": str(tmp_path / "run"),
        "backbone": "tiny",
        "image_size": 32,
        "face_model": str(face_model_path),
        "crop_margin": 1.5,
        "minutes": 0.0,
        "steps": 4,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "device": "cpu",
        "pool_slots": 128,
        "pool_size": 48,
        "renew_per_second": -1.0,  # the tests fill the pool
        "loader_workers": 0,
        "pool": str(tmp_path / "pool"),
        **changes,
    }
    return config_from_dict(values)


def fill(config):
    model = load_morphable_model(config.face_model, level="coarse")
    pool = RenderCache(
        config.pool,
        config.pool_slots,
        config.pool_size,
        (model.k_identity, model.k_expression, model.k_albedo),
    )
    fill_render_cache(
        pool, SyntheticFaces(model, margin=config.crop_margin, size=config.pool_size), 0
    )
    return pool


# Configuration ----------------------------------------------------------------------------------


def test_yaml_and_overrides(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("image_size: 96\nweights:\n  photometric: 2\n")
    config = load_config(file, parse_overrides(["minutes=5", "weights.perception=1e-1"]))
    assert (config.image_size, config.minutes) == (96, 5.0)
    assert (config.weights.photometric, config.weights.perception) == (2.0, 0.1)
    assert config_from_dict(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    "values",
    [
        {"imagesize": 1},
        {"weights": {"landmarks": 1.0}},
        {"image_size": "big"},
        {"image_size": 0},
        {"minutes": 0, "steps": 0},
        {"photograph_share": 1.5},
        {"population": -0.1},
        {"population": 1.1},
    ],
)
def test_bad_settings_are_refused(values):
    with pytest.raises(ConfigError):
        config_from_dict(values)


def test_settings_that_no_run_can_have_are_refused(tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\0")
    with pytest.raises(ConfigError, match="a YAML file"):
        load_config(picture)
    (tmp_path / "weights.yaml").write_text("weights: 5")
    with pytest.raises(ConfigError, match="below weights"):
        load_config(tmp_path / "weights.yaml")
    for pair in (
        "minutes=.nan",
        "minutes=nan",
        "weights.perception=.inf",
        "minutes=[",
        "weights=5",
    ):
        with pytest.raises(ConfigError):  # nan minutes never end
            load_config(None, parse_overrides([pair]))
    with pytest.raises(DataError, match="photographs"):
        list_photographs(picture)


@pytest.mark.parametrize("what", ["none", "text", "list", "others"])
def test_weights_that_are_none_are_refused(what, tmp_path, face_model_path):
    path = tmp_path / "weights.pth"
    if what == "text":
        path.write_text("hello")
    elif what != "none":
        torch.save([1] if what == "list" else {"a": torch.zeros(3), "b": 1}, path)
    with pytest.raises(ModelError, match="a checkpoint"):
        checkpoints.load_checkpoint(path)
    own = {"backbone": "efficientnet_lite0", "backbone_weights": str(path)}
    model = load_morphable_model(face_model_path, level="coarse")
    with pytest.raises(FaceReconError) as fault:
        build_network(tiny(tmp_path, face_model_path, **own), model)
    assert "efficientnet-lite0" in str(fault.value) or what == "none"
    assert "weights_only" not in str(fault.value)  # torch's advice to load what may run code


def test_shipped_configs_are_valid():
    folder = Path(__file__).parents[2] / "config"
    files = list(folder.glob("train*.yaml"))
    assert files
    for file in files:
        points = file.name.startswith("train_points")
        load_config(file, kind=PointConfig if points else TrainConfig)


# Data -------------------------------------------------------------------------------------------


def test_renderings_may_be_large(face_model_path):
    model = load_morphable_model(face_model_path, level="coarse")
    rendering = SyntheticFaces(model, margin=1.3, size=400).sample(np.random.default_rng(0))
    assert rendering.rgba.shape == (400, 400, 4)


def test_people_are_drawn_around_a_part_of_the_populations_mean():
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    population = np.full(model.k_identity, 10.0)
    for seed in range(5):
        around = draw_person(model, np.random.default_rng(seed), population)
        alone = draw_person(model, np.random.default_rng(seed))
        part = (around.identity - alone.identity) / population
        np.testing.assert_allclose(part, part[0], atol=1e-5)
        assert 0 <= part[0] <= 1
        np.testing.assert_array_equal(around.albedo, alone.albedo)
    assert people_mean(TrainConfig(), model) is None
    half = people_mean(TrainConfig(population=0.5), model)
    np.testing.assert_allclose(2 * half, population_mean(model))


def test_an_open_smile_shows_teeth_and_an_open_jaw_a_dark_mouth(monkeypatch):
    """Black holes for mouths taught networks that people who smile keep their lips together."""
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    names = list(model.expression_names)
    smile = {"mouthSmile": 0.8, "mouthStretch": 0.3, "mouthUpperUp": 0.8, "mouthLowerDown": 0.6}
    open_smile = np.array(
        [smile.get(n.removesuffix("Left").removesuffix("Right"), 0.0) for n in names], np.float32
    )
    monkeypatch.setattr(faces_module, "sample_attitude", lambda random: (0.0, 0.0, 0.0))
    monkeypatch.setattr(People, "_beard", lambda *_: None)
    faces = SyntheticFaces(model, margin=1.3, size=288)

    def between_the_lips(expression, seed):
        monkeypatch.setattr(faces_module, "sample_expression", lambda *_, **__: expression)
        rgba, label, _ = faces.sample(np.random.default_rng(seed))
        head = crop_from_face(label.rotation, label.translation).apply(
            model.vertices(label.identity, label.expression)
        )
        lips = head[model.landmarks_68[[62, 66]]].mean(0, keepdims=True)
        nose = head[model.landmarks_68[[30]]]
        at = np.rint(crop_camera(288).project(np.concatenate([lips, nose]))).astype(int)
        mouth, skin = rgba[at[:, 1], at[:, 0], :3].astype(float).mean(1)
        return mouth / skin

    people = range(36)
    assert np.median([between_the_lips(open_smile, seed) for seed in people]) > 0.8
    open_jaw = np.array([0.5 * (n == "jawOpen") for n in names], np.float32)
    assert np.median([between_the_lips(open_jaw, seed) for seed in people]) < 0.6


def test_no_landmark_enters_training(face_model_path):
    """No module names them but to say so, and a model without any trains alike."""
    for file in Path(training_package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(node, "attr", getattr(node, "id", getattr(node, "arg", None)))
            assert "landmark" not in str(name), file
    model = load_morphable_model(face_model_path, level="coarse")
    without = dataclasses.replace(model, landmarks_68=np.full(68, -1, np.int32))
    a, b = (
        SyntheticFaces(m, margin=1.5, size=48).sample(np.random.default_rng(3))
        for m in (model, without)
    )
    assert np.array_equal(a.rgba, b.rgba)
    assert not any("landmark" in field for field in Batch._fields)


def test_rasterizers_agree():
    rng = np.random.default_rng(0)
    points, depth = (
        rng.uniform(-5, 45, (60, 2)).astype(np.float32),
        rng.uniform(1, 2, 60).astype(np.float32),
    )
    triangles = rng.integers(0, 60, (40, 3)).astype(np.int32)
    ours, theirs = (f(points, depth, triangles, 40, 40) for f in (rasterize, core_rasterize))
    same = ours.triangle == theirs.triangle
    assert same.mean() > 0.985  # pixels on an edge may go either way
    assert np.allclose(ours.weights[same], theirs.weights[same], atol=0.05)
    assert rasterize(points, -depth, triangles, 40, 40).triangle.max() == -1


def test_pool_keeps_the_newest(tmp_path):
    from face_recon_ros.training.synthesis.faces import Rendering

    def rendering(i):
        values = (2, 3, 2, 3, 3)
        return Rendering(
            np.full((4, 4, 4), i, np.uint8),
            Label(*(np.full(k, i, np.float32) for k in values), np.full((9, 3), i, np.float32)),
            np.full(3, i, np.float32),
        )

    pool = RenderCache(tmp_path, 3, 4, (2, 3, 2))
    assert len(pool) == 0 and pool.next_index == 0
    for i in range(5):
        pool.write(i, rendering(i))
    again = RenderCache(tmp_path, 3, 4, (2, 3, 2))  # another process
    assert len(again) == 3 and again.next_index == 5
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        found = again.read(random)
        seen.add(int(found.rgba[0, 0, 0]))
        values = (*found.label, found.intrinsics)
        assert all((v == found.rgba[0, 0, 0]).all() for v in values)
        assert found.label.illumination.shape == (9, 3)
    assert seen == {2, 3, 4}
    sent = pickle.dumps(pool)  # as a loader's process gets it
    assert len(sent) < 1000
    there = pickle.loads(sent)
    for i in range(5, 8):
        pool.write(i, rendering(i))
    assert {int(there.read(random).rgba[0, 0, 0]) for _ in range(50)} == {5, 6, 7}


class DiscDetector:
    """Finds what is bright."""

    def detect(self, rgb):
        rows, columns = np.nonzero(rgb.max(2) > 100)
        if len(rows) < 9:
            return Detections.empty()
        box = [columns.min(), rows.min(), columns.max(), rows.max()]
        return Detections(np.array([box], np.float32), np.ones(1, np.float32))


def write_photographs(folder):
    folder.mkdir()
    for i in range(3):
        image = np.zeros((120, 120, 3), np.uint8)
        cv2.circle(image, (60, 55), 30, (120, 160, 200 + 10 * i), -1)
        cv2.imwrite(str(folder / f"Ann_{i:04d}.png"), image)
    cv2.imwrite(str(folder / "Bob_0001.png"), image)
    small = np.full((90, 90, 3), (60, 30, 20), np.uint8)
    cv2.circle(small, (40, 40), 6, (120, 160, 200), -1)
    cv2.imwrite(str(folder / "tiny.png"), small)
    cv2.imwrite(str(folder / "nobody.png"), np.full((90, 90, 3), (60, 30, 20), np.uint8))
    cv2.imwrite(str(folder / "grey.png"), np.full((90, 90, 3), 128, np.uint8))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("not a photograph")


def test_photographs_are_cropped_skipped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs_module, "make_detector", DiscDetector)
    write_photographs(tmp_path / "photos")
    cache = PhotographCache(tmp_path / "cache")
    config = TrainConfig(crop_margin=1.3, pool_size=48)
    counts = cache.build(tmp_path / "photos", config, skip_grey=True)
    assert counts == {"kept": 4, "unreadable": 2, "grey": 1, "faceless": 1, "tiny": 1}
    assert len(cache) == 4 and cache.pictures().shape == (4, 48, 48, 3)
    assert cache.people() == ["Ann", "Ann", "Ann", "Bob"]
    middle = cache.pictures()[:][:, 24, 24]
    assert (middle > 100).all()

    class Never:
        def detect(self, rgb):
            raise AssertionError("looked again")

    monkeypatch.setattr(photographs_module, "make_detector", Never)
    again = PhotographCache(tmp_path / "cache")
    assert again.build(tmp_path / "photos", config, skip_grey=True) == counts
    with pytest.raises(DataError, match="photographs"):
        cache.build(tmp_path / "nowhere", config, skip_grey=True)


def test_photographs_are_the_same_however_many_processes_crop_them(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs_module, "SHARD", 2)
    monkeypatch.setattr(photographs_module, "make_detector", DiscDetector)
    write_photographs(tmp_path / "photos")
    config = TrainConfig(crop_margin=1.3, pool_size=48)
    caches = []
    for workers in (1, 2):
        cache = PhotographCache(tmp_path / f"cache {workers}")
        cache.build(tmp_path / "photos", config, skip_grey=True, pool=Pool(workers))
        caches.append(cache)
    one, two = caches
    assert one.people() == two.people() == ["Ann", "Ann", "Ann", "Bob"]
    np.testing.assert_array_equal(one.pictures()[:], two.pictures()[:])
    np.testing.assert_array_equal(one.pictures()[-1], one.pictures()[3])
    assert one.pictures()[4:].shape == (0, 48, 48, 3)
    with pytest.raises(IndexError):
        one.pictures()[4]


def test_photographs_can_be_prepared_ahead_of_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(photographs_module, "make_detector", DiscDetector)
    write_photographs(tmp_path / "photos")
    run = tmp_path / "run"
    command = ["train", "prepare", str(tmp_path / "photos"), "--out", str(run), "--workers", "1"]
    assert cli_main([*command, "--set", "skip_grey=false"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "cache": str(run / "photographs"), "faceless": 1, "kept": 5, "tiny": 1, "unreadable": 2,
    }  # fmt: skip
    assert len(PhotographCache(run / "photographs")) == 5
    assert cli_main(["train", "prepare", str(tmp_path), "--out", str(run), "--set", "a"]) == 2


def test_teacher_labels_where_it_agrees_with_itself(face_model_path, tmp_path):
    model = load_morphable_model(face_model_path, level="coarse")
    mirror = Mirror(model)
    zero = Label(
        *(np.zeros(k, np.float32) for k in (model.k_identity, model.k_expression, model.k_albedo)),
        np.zeros(3, np.float32),
        np.array([0.0, 0.0, 1.0], np.float32),
        np.zeros((9, 3), np.float32),
    )
    askew = zero._replace(rotation=np.array([0, 0.5, 0], np.float32))
    pictures = np.zeros((2, 48, 48, 3), np.uint8)
    # the second says turned left, of the mirrored picture too: against itself
    labels = label_photographs(pictures, lambda crops: [zero, askew], mirror, 32)
    assert labels[0] is not None and labels[1] is None
    assert labels[0].translation[2] == pytest.approx(1.5, rel=1e-4)  # the whole picture is wider
    cache = PhotographCache(tmp_path)
    np.save(shard_file(tmp_path, 0), pictures)
    entry = {"path": "a", "outcome": "kept", "person": "a", "shard": 0}
    (tmp_path / "index.jsonl").write_text(f"{json.dumps(entry)}\n" * 2)
    cache.write_labels(labels)
    assert cache.labelled()
    picture, label, person = cache.draw(np.random.default_rng(0))
    assert picture.shape == (48, 48, 3) and person == 0
    assert np.allclose(label.translation, labels[0].translation)


# The loop ---------------------------------------------------------------------------------------


def held_out(config, network, seed=99):
    """Mean reprojection error of new crops of the pool, crop sides."""
    model = load_morphable_model(config.face_model, level="coarse")
    objective = Objective(config, model)
    batches = iter(Crops(config, config.face_model, seed))
    with torch.no_grad():
        return np.mean(
            [
                float(objective.against_labels(network(batch.image), batch)["reprojection"])
                for batch in (next(batches) for _ in range(4))
            ]
        )


def test_tiny_run_improves_its_own_held_out_figure(tmp_path, face_model_path):
    config = tiny(
        tmp_path,
        face_model_path,
        steps=160,
        pool_slots=16,
        learning_rate=3e-3,
        jitter_shift=0.12,
        jitter_zoom=0.15,
    )
    fill(config)
    torch.manual_seed(0)
    model = load_morphable_model(face_model_path, level="coarse")
    before = held_out(config, build_network(config, model).eval())
    path = train(config)
    network, state = load_network(path)
    assert held_out(config, network) < 0.96 * before  # the same crops before and after
    assert state["step"] == 160 and state["code"] and state["config"]["seed"] == 0
    lines = [
        json.loads(line) for line in (Path(config.out) / "log.jsonl").read_text().splitlines()
    ]
    assert lines[-1]["step"] == 160 and lines[-1]["loss"] > 0


def test_resume_goes_on_and_refuses_what_does_not_fit(tmp_path, face_model_path):
    config = tiny(tmp_path, face_model_path, pool_slots=16, renew_per_second=0.0)
    path = train(config)  # by a pool that its own process fills
    config = dataclasses.replace(config, renew_per_second=-1.0)
    with pytest.raises(ConfigError, match="resume"):
        train(config)
    longer = dataclasses.replace(config, steps=6)
    assert checkpoints.load_checkpoint(train(longer, resume=True))["step"] == 6
    with pytest.raises(ModelError, match="learning_rate"):
        train(dataclasses.replace(longer, learning_rate=1.0), resume=True)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="checkpoint"):
        train(longer, resume=True)
    with pytest.raises(ModelError, match="no such file"):
        load_network(tmp_path / "none.pt")


def test_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoints.save_checkpoint(path, {"step": 1})

    def full(state, file):
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ModelError, match="disk"):
        checkpoints.save_checkpoint(path, {"step": 2})
    assert checkpoints.load_checkpoint(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError("No space left on device")])
def test_an_interrupt_loses_nothing_and_a_crash_what_came_after_the_last_save(
    tmp_path, face_model_path, monkeypatch, fault
):
    import importlib

    loop = importlib.import_module("face_recon_ros.training.train")
    config = tiny(tmp_path, face_model_path, save_minutes=1e-9)  # after every step
    fill(config)
    real, calls = loop.update_average, []

    def third_fails(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise fault
        real(*arguments)

    monkeypatch.setattr(loop, "update_average", third_fails)
    if isinstance(fault, KeyboardInterrupt):
        train(config)
    else:
        with pytest.raises(OSError, match="space"):
            train(config)
    checkpoint = Path(config.out) / checkpoints.CHECKPOINT
    assert checkpoints.load_checkpoint(checkpoint)["step"] == 2
    assert checkpoints.load_checkpoint(train(config, resume=True))["step"] == config.steps


def test_photographs_join_the_run(tmp_path, face_model_path, monkeypatch):
    """All losses on photographs at once: finite, and they move the network."""
    write_photographs(tmp_path / "photos")
    monkeypatch.setattr(photographs_module, "make_detector", DiscDetector)
    monkeypatch.setattr(photographs_module, "MAX_DISAGREEMENT", 1e9)
    weights = {
        "photometric": 1.0,
        "albedo_symmetry": 1.0,
        "albedo_variance": 1.0,
        "white_light": 1.0,
        "same_person": 1.0,
    }
    config = tiny(
        tmp_path,
        face_model_path,
        photographs=str(tmp_path / "photos"),
        photograph_share=0.5,
        photograph_after=0.0,
        steps=20,
        weights=weights,
    )
    fill(config)
    train(config)
    line = json.loads((Path(config.out) / "log.jsonl").read_text().splitlines()[-1])
    assert {"photometric", "equivariance", "same_person", "white_light"} <= set(line)
    assert all(np.isfinite(v) for v in line.values())


def test_photographs_that_are_all_left_out_stop_the_run(tmp_path, face_model_path, monkeypatch):
    write_photographs(tmp_path / "photos")
    for path in (tmp_path / "photos").iterdir():
        if path.stem != "grey":
            path.unlink()
    monkeypatch.setattr(photographs_module, "make_detector", DiscDetector)
    config = tiny(tmp_path, face_model_path, photographs=str(tmp_path / "photos"))
    fill(config)
    late = "face_recon_ros.training.train.wait_for_pool"
    monkeypatch.setattr(late, lambda *_: pytest.fail("told after minutes of rendering"))
    with pytest.raises(DataError, match=r"'grey': 1.*skip_grey=false"):
        train(config)


def test_a_teacher_answers_for_photographs(tmp_path, face_model_path, monkeypatch):
    """Not the run itself, so that it cannot come to believe its own mistakes."""
    write_photographs(tmp_path / "photos")
    monkeypatch.setattr(photographs_module, "make_detector", DiscDetector)
    monkeypatch.setattr(photographs_module, "MAX_DISAGREEMENT", 1e9)
    config = tiny(tmp_path, face_model_path)
    fill(config)
    teacher = train(config)
    learner = dataclasses.replace(
        config,
        out=str(tmp_path / "learner"),
        teacher=str(teacher),
        teacher_size=48,
        photographs=str(tmp_path / "photos"),
        photograph_share=0.5,
        photograph_after=0.0,
        steps=20,
    )
    train(learner)
    line = json.loads((Path(learner.out) / "log.jsonl").read_text().splitlines()[-1])
    assert line["features"] > 0 and line["equivariance"] > 0
    cache = PhotographCache(Path(learner.out) / "photographs")
    kept = np.load(Path(learner.out) / "photographs/labels.npy")
    mirror = Mirror(load_morphable_model(face_model_path, level="coarse"))
    pseudo_label(cache, load_network(teacher)[0], mirror, 48)
    again = np.load(Path(learner.out) / "photographs/labels.npy")
    assert np.abs(kept).max() > 0 and np.allclose(kept, again, atol=1e-5)


def test_a_teacher_of_another_face_model_is_refused(tmp_path, face_model_path):
    config = tiny(tmp_path, face_model_path)
    fill(config)
    teacher = train(config)
    state = checkpoints.load_checkpoint(teacher)
    checkpoints.save_checkpoint(teacher, {**state, "face_model": "theirs"})
    learner = dataclasses.replace(config, out=str(tmp_path / "b"), teacher=str(teacher))
    with pytest.raises(ConfigError, match="theirs"):
        train(learner)


def test_images_change_size_and_keep_what_they_show():
    image = torch.full((2, 8, 8, 3), 7, dtype=torch.uint8)
    assert resized(image, 0) is image and resized(image, 8) is image
    assert torch.allclose(resized(image, 12), torch.full((2, 12, 12, 3), 7.0))
    assert resized(image[:0], 12).shape == (0, 12, 12, 3)


def test_hints_reach_every_stage():
    sizes = CoefficientSizes(8, 52, 4)
    teacher, student = (FaceRegressor("tiny", sizes, 1.0).eval() for _ in range(2))
    distilled = Distilled(student, teacher)
    image = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    answer, hints = distilled(image)
    assert [h.shape for h in hints] == [t.shape for t in teacher.stages(image)]
    assert len(Distilled(student, None)(image)[1]) == 0
    assert torch.allclose(answer.rotation, student(image).rotation)


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path, face_model_path):
    config = tiny(tmp_path, face_model_path)
    fill(config)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    options = [
        f"{k}={json.dumps(v)}" for k, v in dataclasses.asdict(config).items() if k != "weights"
    ]
    workers = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        command = [sys.executable, "-m", "face_recon_ros.training.train", *options]
        workers.append(
            subprocess.Popen(
                command,
                env=environment,
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [w.communicate(timeout=120)[0] for w in workers]
    assert [w.returncode for w in workers] == [0, 0], outputs
    assert checkpoints.load_checkpoint(Path(config.out) / checkpoints.CHECKPOINT)["step"] == 4


# Export -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "int8_weights"])
def test_export_keeps_the_contract(tmp_path, face_model_path, precision):
    from face_recon_ros.core.inference import FaceNetwork

    config = tiny(tmp_path, face_model_path)
    fill(config)
    path = train(config)
    out = tmp_path / "net.onnx"
    report = export(path, out, precision=precision)
    network = FaceNetwork(out, provider="cpu")
    assert network.size == 32 and network.crop_margin == 1.5 and network.face_model == "dome"
    assert network.sizes == {"identity": 8, "expression": 52, "albedo": 4}
    prediction = network.predict(np.zeros((3, 32, 32, 3), np.uint8))
    assert prediction.coefficients.illumination.shape == (3, 9, 3)
    assert ((prediction.identity_confidence > 0) & (prediction.identity_confidence < 1)).all()
    assert json.loads(network.metadata["training"])["step"] == 4
    assert report["bytes"] == out.stat().st_size
    if precision == "int8_weights":
        assert report["parity"]["vertex_shift_mm"] <= 0.3 and report["parity"]["pose_deg"] <= 0.3


# Frozen stages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["tiny", "efficientnet_lite0"])
def test_frozen_stages_stay_and_the_rest_moves(backbone):
    """Weights and BatchNorm statistics alike, through a step of training."""
    torch.manual_seed(0)
    network = FaceRegressor(backbone, CoefficientSizes(8, 52, 4), 1.0)
    network.freeze(1)
    network.train()
    frozen = {
        name
        for part in network.backbone.early(1)
        for module in part.modules()
        for name, other in network.named_modules()
        if other is module
    }
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    image = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    sum(v.square().sum() for v in network(image)).backward()
    optimiser.step()
    moved = {
        name.rpartition(".")[0]
        for name, value in network.state_dict().items()
        if not torch.equal(before[name], value)
    }
    layers = {name.rpartition(".")[0] for name in before}
    assert frozen & layers  # there is something to freeze
    assert not moved & frozen
    unmoved = layers - frozen - moved
    assert not unmoved, unmoved
    with pytest.raises(ConfigError, match="frozen_stages"):
        network.freeze(len(network.backbone.channels) + 1)
    with pytest.raises(ConfigError, match="frozen_stages"):
        network.freeze(-1)


def test_the_average_has_the_statistics_of_its_own_weights():
    """In evaluation it answers as in training, where crops bring their own statistics."""
    torch.manual_seed(0)
    network = FaceRegressor("tiny", CoefficientSizes(4, 6, 3), 1.0)
    network.freeze(1)
    batches = [torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8) for _ in range(3)]
    frozen = {k: v.clone() for k, v in network.state_dict().items() if "backbone.bn1" in k}
    measure_statistics(network, batches)
    assert not network.training
    last = network.backbone.layer3[0].bn3
    assert last.momentum == 0.1  # as before
    seen = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    network.train()
    network(torch.cat(batches))  # one batch of all
    hook.remove()
    assert all(torch.equal(network.state_dict()[k], v) for k, v in frozen.items())
    measure_statistics(network, [torch.cat(batches)])
    assert torch.allclose(last.running_mean, seen[0].mean((0, 2, 3)), atol=1e-4)
    with torch.no_grad():
        evaluated = network(torch.cat(batches)).identity
        trained = network.train()(torch.cat(batches)).identity
    assert torch.allclose(evaluated, trained, atol=1e-3)
