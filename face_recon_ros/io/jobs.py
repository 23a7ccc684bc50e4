"""Many items on many cores or machines, by joblib: resumable, in order, faults with their items.

An item is worked on in a process of its own kind: local ones (loky), or those of a Dask or Ray
cluster. A `Journal` keeps every finished item on disk, so that an interrupted run goes on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import threadpoolctl
from numpy.typing import NDArray
from tqdm import tqdm

from face_recon_ros.core.errors import ConfigError, DataError, FaceReconError

T = TypeVar("T")

RAY = "ray://"
CONNECT_S = 10.0
_DIED = "its process ended: killed, or out of memory"
_ARRAY = "__array__"
_LARGE = 100_000  # bytes of work that are not sent with every item


@dataclass(frozen=True)
class Pool:
    """Where work is done.

    Attributes:
        workers: processes of this machine; 0: as many as it has cores. Not used with a cluster.
        cluster: address of a Dask scheduler (tcp://HOST:8786) or a Ray head (ray://HOST:10001).
    """

    workers: int = 0
    cluster: str = ""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError("--workers of at least 0", f"{self.workers}", "0 takes all cores")

    def count(self, items: int, worth: int = 1) -> int:
        """Processes on this machine.

        Args:
            items: that are to be done.
            worth: how many of them make up for the start of a process, where no number is given.
        """
        wanted = self.workers or min(len(os.sched_getaffinity(0)), items // max(worth, 1))
        return max(1, min(wanted, items))


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of an item.

    Attributes:
        key: of the item.
        value: the answer; None where there is a fault.
        fault: why there is none; empty where there is.
    """

    key: str
    value: T | None
    fault: str = ""


class Journal:
    """Finished items on disk, a file each, without pickle.

    Answers are what JSON can hold, with numpy arrays anywhere in it.
    """

    def __init__(self, folder: str | Path, settings: object) -> None:
        """Opens the journal; the first answer makes its folder.

        Args:
            folder: of its files.
            settings: what answers depend on besides their items, told by `repr`; those of other
                settings are thrown away.
        """
        self._folder = Path(folder)
        self._settings = hashlib.sha256(repr(settings).encode()).hexdigest()
        self._note = self._folder / "settings"
        with _disk(self._folder):
            if not self._note.is_file() or self._note.read_text() != self._settings:
                self.forget()

    def folder(self) -> Path:
        """Makes the folder if need be."""
        if not self._note.is_file():
            with _disk(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._note.write_text(self._settings)
        return self._folder

    def read(self, key: str) -> Any:
        """The answer of an item.

        Raises:
            KeyError: it is not finished.
        """
        try:
            with np.load(self._file(key), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return _with_arrays(json.loads(str(arrays["json"])), arrays)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            raise KeyError(key) from None

    def write(self, key: str, value: Any) -> None:
        """Keeps an answer, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {}
        text = json.dumps(_without_arrays(value, arrays))
        self.folder()
        file = self._file(key)
        part = file.with_suffix(".part")
        with _disk(file), part.open("wb") as out:
            np.savez(out, json=np.array(text), **arrays)
        part.replace(file)

    def forget(self) -> None:
        """Throws all answers away."""
        self._note.unlink(missing_ok=True)
        for kind in ("npz", "part", "work"):
            for file in self._folder.glob(f"*.{kind}"):
                file.unlink()

    def remove(self) -> None:
        """Deletes the journal; the work is done."""
        self.forget()
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _file(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def run_jobs(
    work: Callable[[T], Any],
    items: Mapping[str, T],
    pool: Pool,
    *,
    what: str,
    worth: int = 1,
    journal: Journal | None = None,
    report: Callable[[Outcome[Any]], None] = lambda outcome: None,
) -> list[Outcome[Any]]:
    """Does `work` on every item, with a progress bar on stderr that tells the time left.

    Args:
        work: a function of a module, or an object of one of its classes, so that other processes
            can be given it. Its answer depends on the item alone.
        items: key -> item.
        pool: where.
        what: for the progress bar, e.g. `photographs`.
        worth: see `Pool.count`.
        journal: where answers are kept; items that it has are not worked on again.
        report: called with each outcome as it comes, in any order.

    Returns:
        An outcome per item, in the order of `items`, whatever the order they were done in.

    Raises:
        DataError: no room on the disk.
        ConfigError: the cluster cannot be reached.
    """
    done: dict[str, Outcome[Any]] = {}
    if journal is not None:
        for key in items:
            with contextlib.suppress(KeyError):
                done[key] = Outcome(key, journal.read(key))
    every_s = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(
        total=len(items),
        initial=len(done),
        desc=what,
        unit="",
        mininterval=every_s,
        disable=not what,
    ) as bar:
        for outcome in done.values():
            report(outcome)
        todo = {key: item for key, item in items.items() if key not in done}
        for outcome in _outcomes(work, todo, pool, pool.count(len(todo), worth), journal):
            if journal is not None and not outcome.fault:
                journal.write(outcome.key, outcome.value)
            done[outcome.key] = outcome
            bar.update()
            report(outcome)
    return [done[key] for key in items]


def _outcomes(
    work: Callable[[T], Any],
    todo: Mapping[str, T],
    pool: Pool,
    processes: int,
    journal: Journal | None,
) -> Iterator[Outcome[Any]]:
    """Outcomes as they come. When a process dies, those whose item it may have been go alone."""
    if not todo:
        return
    if processes == 1 and not pool.cluster:
        with threadpoolctl.threadpool_limits(1, "blas"):
            for key, item in todo.items():
                yield _attempt(work, key, item)
        return
    with _backend(pool, processes) as (jobs, deaths), _sent(work, pool, journal) as work:
        left = dict(todo)
        while left:
            running: dict[str, None] = {}
            try:
                for outcome in _parallel(work, left, jobs, running):
                    del left[outcome.key]
                    yield outcome
            except deaths:
                for key in running:
                    yield _alone(work, key, left.pop(key), deaths)


def _parallel(
    work: Callable[[T], Any], items: Mapping[str, T], jobs: int, running: dict[str, None]
) -> Iterator[Outcome[Any]]:
    """Outcomes as they come; `running` holds the keys that were handed out and are not back."""
    import joblib

    def tasks() -> Iterator[Any]:
        for key, item in list(items.items()):
            running[key] = None
            yield joblib.delayed(_attempt_elsewhere)(work, key, item)

    parallel = joblib.Parallel(
        n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs"
    )
    for outcome in parallel(tasks()):
        del running[outcome.key]
        yield outcome


def _alone(
    work: Callable[[T], Any], key: str, item: T, deaths: tuple[type[BaseException], ...]
) -> Outcome[Any]:
    try:
        (outcome,) = _parallel(work, {key: item}, 2, {})  # one job would run in this process
        return outcome
    except deaths:
        return Outcome(key, None, _DIED)


@contextlib.contextmanager
def _sent(
    work: Callable[[T], Any], pool: Pool, journal: Journal | None
) -> Iterator[Callable[[T], Any]]:
    """What every item takes along: the work, or where it is large the name of its file.

    A cluster's machines see the journal's folder, and no other of this machine.
    """
    content = pickle.dumps(work)
    if len(content) < _LARGE or (pool.cluster and journal is None):
        yield work
        return
    folder = None if journal is None else journal.folder().absolute()
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".work") as file:
        with _disk(Path(file.name)):
            file.write(content)
            file.flush()
        yield _FiledWork(file.name)


@dataclass(frozen=True)
class _FiledWork:
    """Work that each process reads from a file once."""

    file: str

    def __call__(self, item: Any) -> Any:
        return _filed_work(self.file)(item)


@functools.lru_cache(maxsize=1)
def _filed_work(file: str) -> Callable[[Any], Any]:
    work: Callable[[Any], Any] = pickle.loads(Path(file).read_bytes())
    return work


def _attempt_elsewhere(work: Callable[[T], Any], key: str, item: T) -> Outcome[Any]:
    """`_attempt` in one of many processes."""
    _one_thread()
    return _attempt(work, key, item)


@functools.cache
def _one_thread() -> None:
    """Leaves the other cores to other processes; sums in the last digit depend on it, too."""
    cv2.setNumThreads(1)
    threadpoolctl.threadpool_limits(1, "blas")


def _attempt(work: Callable[[T], Any], key: str, item: T) -> Outcome[Any]:
    """Works on one item; runs in any process."""
    try:
        return Outcome(key, work(item))
    except FaceReconError as fault:
        return Outcome(key, None, str(fault))
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(fault.filename or "the output folder") from None
        return Outcome(key, None, f"{type(fault).__name__}: {fault}")
    except Exception as fault:  # a bug in one item of a thousand must not cost the others
        return Outcome(key, None, f"{type(fault).__name__}: {fault}")


@contextlib.contextmanager
def _backend(pool: Pool, processes: int) -> Iterator[tuple[int, tuple[type[BaseException], ...]]]:
    """Joblib's backend; how many jobs it takes, and what it raises when a process dies."""
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    if not pool.cluster:
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            yield processes, (BrokenProcessPool,)
    elif pool.cluster.startswith(RAY):
        import ray
        from ray.util.joblib import register_ray

        with _reached(pool.cluster, "ray start --head"):
            ray.init(pool.cluster)
        register_ray()
        with joblib.parallel_config("ray"):
            yield -1, (ray.exceptions.WorkerCrashedError,)
    else:
        from distributed import Client, KilledWorker

        with _reached(pool.cluster, "dask scheduler"):
            client = Client(pool.cluster, timeout=CONNECT_S, set_as_default=False)
        with client, joblib.parallel_config("dask", client=client):
            yield -1, (KilledWorker,)


@contextlib.contextmanager
def _reached(address: str, command: str) -> Iterator[None]:
    try:
        yield
    except (OSError, TimeoutError, ValueError, ConnectionError) as fault:
        raise ConfigError(
            f"a cluster at {address}",
            str(fault).splitlines()[0] or type(fault).__name__,
            f"start one (`{command}`) and check address and firewall (docs/install.md)",
        ) from None


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from None
        raise DataError(
            f"a place to write {path}", fault.strerror or str(fault), "choose another --out"
        ) from None


def _full(path: str | Path) -> DataError:
    return DataError(
        f"room on the disk for {path}",
        "none left",
        "make room and run the same command again: it goes on where it stopped",
    )


def _without_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray):
        name = f"array{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _without_arrays(v, arrays) for key, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_arrays(v, arrays) for v in value]
    return value


def _with_arrays(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: _with_arrays(v, arrays) for key, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(v, arrays) for v in value]
    return value
