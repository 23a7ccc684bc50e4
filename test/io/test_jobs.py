"""Many items on many processes: the same answers, whatever the order, and nothing lost."""

import errno
import functools
import json
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recon_ros.cli import common
from face_recon_ros.cli.main import make_parser
from face_recon_ros.core.crop import crop_from_face_box
from face_recon_ros.core.errors import ConfigError, DataError, ModelError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Coefficients, Detections
from face_recon_ros.evaluation.chain import Estimate
from face_recon_ros.io import jobs
from face_recon_ros.io.folders import written
from face_recon_ros.io.jobs import Outcome, Pool, run_jobs
from face_recon_ros.io.journal import Journal

#: Rotation of a face that looks into the camera.
FACING = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
ITEMS = {f"item {k}": k for k in range(7)}


def square(k):
    time.sleep(0.01 * (7 - k))  # later items are done earlier
    return {"square": k * k, "row": np.arange(k, dtype=np.float32)}


def odd_only(k):
    if k % 2 == 0:
        raise DataError("an odd number", str(k), "add one")
    if k == 5:
        raise ZeroDivisionError("a bug")
    return k


def dies_of(fatal, folder, k):
    (folder / f"{k} {time.monotonic_ns()}").touch()
    if k == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return k


def killed_once(folder, k):
    """The first to come is killed; tried again, it answers."""
    if k == 3 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return k


def disk_full(k):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/file")


def writes_into_a_full_disk(k):
    with written("/full/file"), Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")


def without_model(folder, k):
    (folder / f"{k}").touch()
    if k == 0:
        raise ModelError("a face model", "none", "restore it")


def counting(folder, k):
    (folder / f"{k} {time.monotonic_ns()}").touch()
    if k == 4 and not (folder / "healed").exists():
        raise DataError("no 4", "4", "heal it")
    return k


def values(outcomes):
    return [(o.key, o.value["square"], o.value["row"].tolist()) for o in outcomes]


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_in_the_same_order(workers):
    outcomes = run_jobs(square, ITEMS, Pool(workers), what="squares")
    assert values(outcomes) == [(f"item {k}", k * k, list(range(k))) for k in range(7)]
    assert all(o.fault == "" for o in outcomes)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_item_no_outcome(workers):
    assert run_jobs(square, {}, Pool(workers), what="squares") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_stays_with_its_item(workers):
    outcomes = run_jobs(odd_only, ITEMS, Pool(workers), what="numbers")
    assert [o.value for o in outcomes] == [None, 1, None, 3, None, None, None]
    assert outcomes[0].fault == "expected an odd number, got 0; add one"
    assert outcomes[5].fault == "ZeroDivisionError: a bug"


def test_an_item_that_kills_its_process_costs_only_itself(tmp_path):
    work = functools.partial(dies_of, 3, tmp_path)
    outcomes = run_jobs(work, ITEMS, Pool(2), what="numbers")
    assert [o.value for o in outcomes] == [0, 1, 2, None, 4, 5, 6]
    assert outcomes[3].fault == "its process ended: killed, or out of memory"


def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    outcomes = run_jobs(functools.partial(killed_once, tmp_path), ITEMS, Pool(2), what="numbers")
    assert [o.value for o in outcomes] == list(range(7))


@pytest.mark.parametrize("work", [disk_full, writes_into_a_full_disk])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_everything_and_says_so(workers, work):
    with pytest.raises(DataError, match=r"room on the disk for /full/file.*goes on where"):
        run_jobs(work, ITEMS, Pool(workers), what="numbers")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_cannot_be_used_stops_everything(workers, tmp_path):
    with pytest.raises(ModelError, match="a face model, got none; restore it"):
        run_jobs(functools.partial(without_model, tmp_path), ITEMS, Pool(workers), what="")
    assert workers > 1 or len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_under_the_journal_says_so(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal", "settings")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match="room on the disk"):
        run_jobs(square, ITEMS, Pool(1), what="squares", journal=journal)


def test_an_interrupted_run_goes_on_and_faults_are_tried_again(tmp_path):
    work = functools.partial(counting, tmp_path)
    journal = Journal(tmp_path / "journal", "settings")
    first = {key: ITEMS[key] for key in list(ITEMS)[:5]}
    assert run_jobs(work, first, Pool(1), what="numbers", journal=journal)[4].fault
    (tmp_path / "healed").touch()
    again = Journal(tmp_path / "journal", "settings")
    outcomes = run_jobs(work, ITEMS, Pool(1), what="numbers", journal=again)
    assert [o.value for o in outcomes] == list(range(7))
    times = [len(list(tmp_path.glob(f"{k} *"))) for k in range(7)]
    assert times == [1, 1, 1, 1, 2, 1, 1]
    again.remove()
    assert not (tmp_path / "journal").exists()


def test_an_interrupted_command_says_that_it_can_go_on(tmp_path, capsys):
    def pressed(k):
        if k == 3:
            raise KeyboardInterrupt
        return k

    for journal in (Journal(tmp_path, "settings"), None):
        with pytest.raises(KeyboardInterrupt):
            run_jobs(pressed, ITEMS, Pool(1), what="numbers", journal=journal)
        told = "interrupted: 3 of 7 numbers done; the same command goes on from here"
        assert (told in capsys.readouterr().err) == (journal is not None)


def test_a_journal_of_other_settings_is_not_believed(tmp_path):
    Journal(tmp_path, ("a", 1)).write("key", 1)
    assert Journal(tmp_path, ("a", 1)).read("key") == 1
    with pytest.raises(KeyError):
        Journal(tmp_path, ("a", 2)).read("key")


@pytest.mark.parametrize(
    "value",
    [None, 1.5, "text", [], {"a": [1, {"b": np.eye(2)}], "c": np.zeros((0, 3), np.float32)}],
)
def test_a_journal_gives_back_what_it_was_given(tmp_path, value):
    journal = Journal(tmp_path, "settings")
    journal.write("any key / even ..", value)
    back = journal.read("any key / even ..")
    assert json.dumps(back, default=np.ndarray.tolist) == json.dumps(
        value, default=np.ndarray.tolist
    )
    if isinstance(value, dict):
        assert back["c"].dtype == np.float32 and back["c"].shape == (0, 3)


def test_a_file_that_was_cut_off_counts_as_not_done(tmp_path):
    journal = Journal(tmp_path, "settings")
    journal.write("key", {"a": np.arange(100)})
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(KeyError):
        journal.read("key")


def test_a_journal_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="--out"):
        Journal(tmp_path / "file" / "journal", "settings")


def test_pools():
    cores = len(os.sched_getaffinity(0))
    assert Pool(3).count(100) == 3
    assert Pool(3).count(2, worth=8) == 2
    assert Pool().count(100) == cores
    assert [Pool().count(n, worth=8) for n in (0, 1, 15, 8 * cores)] == [1, 1, 1, cores]
    with pytest.raises(ConfigError, match="--workers"):
        Pool(-1)
    for address in ("nonsense", "tcp://host", "ray://"):
        with pytest.raises(ConfigError, match="--cluster with a port"):
            Pool(cluster=address)


def test_a_cluster_that_does_not_answer_is_refused(monkeypatch):
    pytest.importorskip("distributed", reason="needs Dask (pip extra cluster)")
    monkeypatch.setattr(jobs, "CONNECT_S", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x:1"):
        with pytest.raises(ConfigError, match="dask scheduler"):
            run_jobs(square, ITEMS, Pool(cluster=address), what="squares")


@pytest.fixture(scope="module")
def dask_cluster():
    """Scheduler and two worker processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="needs Dask (pip extra cluster)")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_gives_the_same_as_this_process(dask_cluster):
    here = run_jobs(square, ITEMS, Pool(1), what="squares")
    there = run_jobs(square, ITEMS, Pool(cluster=dask_cluster), what="squares")
    assert values(there) == values(here)
    faults = run_jobs(odd_only, ITEMS, Pool(cluster=dask_cluster), what="numbers")
    assert faults == run_jobs(odd_only, ITEMS, Pool(1), what="numbers")


def test_a_worker_of_the_cluster_that_is_killed_loses_nothing(dask_cluster, tmp_path):
    work = functools.partial(killed_once, tmp_path)
    outcomes = run_jobs(work, ITEMS, Pool(cluster=dask_cluster), what="numbers")
    assert [o.value for o in outcomes] == list(range(7))
    assert (tmp_path / "killed").exists()


def test_outcomes_compare_by_what_they_say():
    assert Outcome("a", 1) == Outcome("a", 1) != Outcome("a", None, "fault")


class Guesser:
    """An `Estimator` that sees a mean face in the middle of every picture, turned by its shade."""

    def detect(self, rgb):
        side = np.float32(rgb.shape[0])
        return Detections(np.array([[0, 0, side, side]], np.float32), np.ones(1, np.float32))

    def estimate(self, views):
        rgb, box, camera = views[-1]
        crop = crop_from_face_box(box, 1.3, 100)
        turn = rotation_from_vector([0.0, 0.0, float(rgb.mean()) / 1000])
        pose = Rigid(FACING @ turn, np.array([0.0, 0.0, 0.6]))
        return Estimate(Coefficients.zeros(1, 80, 52, 80), crop, pose, pose, camera)


def test_an_evaluation_writes_the_same_bytes_here_on_processes_and_on_a_cluster(
    tmp_path, monkeypatch, dask_cluster
):
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    monkeypatch.setattr(common, "still_chain", lambda args: (Guesser(), model))
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for k in range(5):
        picture = np.full((64, 64, 3), 40 * k, np.uint8)
        assert cv2.imwrite(str(tmp_path / "in" / f"{k}.png"), picture)
        np.savetxt(tmp_path / "in" / f"{k}.pts", random.uniform(8, 56, (68, 2)))
    (tmp_path / "in" / "3.pts").write_text("1 2\n")
    written = []
    for where in (("--workers", "1"), ("--workers", "2"), ("--cluster", dask_cluster)):
        out = tmp_path / "out.json"
        command = ["evaluate", "landmarks", "--images", str(tmp_path / "in"), "--out", str(out)]
        args = make_parser().parse_args([*command, *where])
        assert args.run(args) == 0
        written.append(out.read_bytes())
        assert not (tmp_path / ".out.json.unfinished").exists()
    assert written[0] == written[1] == written[2]
    result = json.loads(written[0])
    assert [entry["name"] for entry in result["per_image"]] == ["0", "1", "2", "4"]
    assert len({entry["nme68"] for entry in result["per_image"]}) == 4
    assert "68" in result["skipped"]["files"][0]["reason"]
