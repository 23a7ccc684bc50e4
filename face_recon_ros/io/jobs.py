"""Many items on many cores or machines: resumable, in order, faults with their items.

An item is worked on in a process of its own kind: local ones (loky), or those of a Dask or Ray
cluster. A `Journal` keeps every finished item on disk, so that an interrupted run goes on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import threadpoolctl
from tqdm import tqdm

from face_recon_ros.core.errors import ConfigError, FaceReconError, ModelError
from face_recon_ros.io.folders import DiskFullError, written
from face_recon_ros.io.journal import Journal

T = TypeVar("T")
#: Work, and key and item that it is done on.
Task = tuple[Callable[[Any], Any], str, Any]

RAY = "ray://"
CONNECT_S = 10.0
_DIED = "its process ended: killed, or out of memory"
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
        if self.cluster and not re.search(r":\d+/?$", self.cluster):
            # Dask's client would say so too, but leave a traceback when it is taken down
            raise ConfigError(
                "--cluster with a port, e.g. tcp://HOST:8786", self.cluster, "add the port"
            )

    def count(self, items: int, worth: int = 1) -> int:
        """Processes on this machine.

        Args:
            items: that are to be done.
            worth: how many of them make up for the start of a process, where no number is given.
        """
        wanted = self.workers or min(len(os.sched_getaffinity(0)), items // max(worth, 1))
        return max(1, min(wanted, items))


@dataclass(frozen=True)
class PerProcess(Generic[T]):
    """An object that cannot be sent to another process: each one makes its own, once.

    Attributes:
        make: makes it; a function that can be sent.
    """

    make: Callable[[], T]

    @functools.cached_property
    def value(self) -> T:
        """The object."""
        return self.make()

    def __reduce__(self) -> tuple[Any, ...]:
        return PerProcess, (self.make,)


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


#: Takes tasks, and gives their outcomes as they come.
Stream = Callable[[Iterator[Task]], Iterator[Outcome[Any]]]


def run_jobs(
    work: Callable[[T], Any],
    items: Mapping[str, T],
    pool: Pool,
    *,
    what: str,
    worth: int = 1,
    journal: Journal | None = None,
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

    Returns:
        An outcome per item, in the order of `items`, whatever the order they were done in.

    Raises:
        DataError: no room on the disk.
        ModelError: a model that cannot be used, which every item needs.
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
        todo = {key: item for key, item in items.items() if key not in done}
        try:
            for outcome in _outcomes(work, todo, pool, pool.count(len(todo), worth), journal):
                if journal is not None and not outcome.fault:
                    journal.write(outcome.key, outcome.value)
                done[outcome.key] = outcome
                bar.update()
        except KeyboardInterrupt:
            if journal is not None and done:
                told = (
                    f"{len(done)} of {len(items)} {what} done; the same command goes on from here"
                )
                bar.write(f"face-recon: interrupted: {told}", file=sys.stderr)
            raise
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
    with _backend(pool, processes) as (stream, deaths), _sent(work, pool, journal) as work:
        left = dict(todo)
        while left:
            running: dict[str, None] = {}
            try:
                for outcome in _parallel(work, left, stream, running):
                    del left[outcome.key]
                    yield outcome
            except deaths:
                for key in running:
                    yield _alone(work, key, left.pop(key), stream, deaths)


def _parallel(
    work: Callable[[T], Any], items: Mapping[str, T], stream: Stream, running: dict[str, None]
) -> Iterator[Outcome[Any]]:
    """Outcomes as they come; `running` holds the keys that were handed out and are not back."""

    def tasks() -> Iterator[Task]:
        for key, item in list(items.items()):
            running[key] = None
            yield work, key, item

    for outcome in stream(tasks()):
        del running[outcome.key]
        yield outcome


def _alone(
    work: Callable[[T], Any],
    key: str,
    item: T,
    stream: Stream,
    deaths: tuple[type[BaseException], ...],
) -> Outcome[Any]:
    try:
        (outcome,) = _parallel(work, {key: item}, stream, {})
        return outcome
    except deaths:
        return Outcome(key, None, _DIED)


@contextlib.contextmanager
def _sent(
    work: Callable[[T], Any], pool: Pool, journal: Journal | None
) -> Iterator[Callable[[T], Any]]:
    """What every item takes along: the work packed, or where it is large the name of its file.

    A cluster's machines see the journal's folder, and no other of this machine.
    """
    content = pickle.dumps(work)
    if len(content) < _LARGE or (pool.cluster and journal is None):
        yield _SentWork(content)
        return
    folder = None if journal is None else journal.folder().absolute()
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".work") as file:
        with written(file.name):
            file.write(content)
            file.flush()
        yield _SentWork(file.name)


@dataclass(frozen=True)
class _SentWork:
    """Work that each process unpacks once, with the models that it loads.

    Attributes:
        packed: the work, or the name of the file that holds it.
    """

    packed: bytes | str

    def __call__(self, item: Any) -> Any:
        return _unpacked(self.packed)(item)


@functools.lru_cache(maxsize=1)
def _unpacked(packed: bytes | str) -> Callable[[Any], Any]:
    content = packed if isinstance(packed, bytes) else Path(packed).read_bytes()
    work: Callable[[Any], Any] = pickle.loads(content)
    return work


def _attempt_elsewhere(task: Task) -> Outcome[Any]:
    """`_attempt` in one of many processes."""
    _one_thread()
    return _attempt(*task)


@functools.cache
def _one_thread() -> None:
    """Leaves the other cores to other processes; sums in the last digit depend on it, too."""
    os.environ.setdefault("IGL_NUM_THREADS", "1")  # libigl reads it when it first starts threads
    cv2.setNumThreads(1)
    threadpoolctl.threadpool_limits(1, "blas")


def _attempt(work: Callable[[T], Any], key: str, item: T) -> Outcome[Any]:
    """Works on one item; runs in any process."""
    try:
        return Outcome(key, work(item))
    except (DiskFullError, ModelError):  # no other item fares better
        raise
    except FaceReconError as fault:
        return Outcome(key, None, str(fault))
    except OSError as fault:
        if full := DiskFullError.of(fault, "the output folder"):
            raise full from None
        return Outcome(key, None, f"{type(fault).__name__}: {fault}")
    except Exception as fault:  # a bug in one item of a thousand must not cost the others
        return Outcome(key, None, f"{type(fault).__name__}: {fault}")


@contextlib.contextmanager
def _backend(
    pool: Pool, processes: int
) -> Iterator[tuple[Stream, tuple[type[BaseException], ...]]]:
    """What takes tasks and gives outcomes as they come; what it raises when a process dies."""
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    if not pool.cluster:
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            # for a single item, too: one job would run in this process
            yield functools.partial(_joblib_stream, max(2, processes)), (BrokenProcessPool,)
    elif pool.cluster.startswith(RAY):
        import ray

        with _reached(pool.cluster, "ray start --head"):
            ray.init(pool.cluster)
        try:
            yield _ray_stream, (ray.exceptions.WorkerCrashedError,)
        finally:
            ray.shutdown()
    else:
        from distributed import Client, KilledWorker

        with _reached(pool.cluster, "dask scheduler"):
            client = Client(pool.cluster, timeout=CONNECT_S, set_as_default=False)
        with client, joblib.parallel_config("dask", client=client):
            yield functools.partial(_joblib_stream, -1), (KilledWorker,)


def _joblib_stream(jobs: int, tasks: Iterator[Task]) -> Iterator[Outcome[Any]]:
    import joblib

    parallel = joblib.Parallel(
        n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs"
    )
    yield from parallel(joblib.delayed(_attempt_elsewhere)(task) for task in tasks)


def _ray_stream(tasks: Iterator[Task]) -> Iterator[Outcome[Any]]:
    """By Ray's own tasks: its backend for joblib gives outcomes at the end only."""
    import ray

    attempt = ray.remote(max_retries=0)(_attempt_elsewhere)
    window, ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1))), []
    for task in tasks:
        ahead.append(attempt.remote(task))
        if len(ahead) == window:
            (done,), ahead = ray.wait(ahead)
            yield ray.get(done)
    while ahead:
        (done,), ahead = ray.wait(ahead)
        yield ray.get(done)


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
