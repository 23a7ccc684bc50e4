"""Files every test may use: the small world of `fixtures`, written once."""

import contextlib
import fcntl
from pathlib import Path

import pytest
from fixtures import write_face_model, write_network
from hypothesis import settings

# A test that is slow because the machine is busy has not failed; CI's profile says so, too.
settings.register_profile("no deadline", parent=settings(), deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def face_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face model file of format 1: a dome."""
    return write_face_model(tmp_path_factory.mktemp("models") / "dome.npz")


@pytest.fixture(scope="session")
def network_path(face_model_path: Path) -> Path:
    """An ONNX network that reconstructs bright discs with the dome."""
    return write_network(face_model_path.with_name("disc.onnx"), face_model_path)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Removes the shared memory of Fast DDS processes that were killed, of earlier runs, too.

    A killed process leaves 64 MiB a segment. What a living one has is locked (`fastdds shm clean`
    goes by the same locks, but needs psutil).
    """
    if hasattr(session.config, "workerinput"):  # of pytest-xdist: others are at work yet
        return
    for lock in Path("/dev/shm").glob("fast*_[0-9a-f]*_el"):
        with contextlib.suppress(OSError), lock.open() as file:  # held, another user's, gone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.with_name(lock.name.removesuffix("_el")).unlink(missing_ok=True)
            lock.unlink()


#: Slow parts first: with a file per process, none is left over when the others are done.
SLOW_FIRST = (
    "ros/test_reliability.py",
    "face_model/test_cross_check.py",
    "training",
    "ros",
    "test_install.py",
    "evaluation",
    "cli",
    "io",
    "fitting",
    "face_model",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Orders files by how long they take; tests of a file keep their order.

    What is covered of core is asked of core's own tests: counting lines slows the others down.
    """
    here = Path(__file__).parent
    if config.pluginmanager.hasplugin("_cov"):
        for item in items:
            if here / "core" not in item.path.parents:
                item.add_marker("no_cover")

    def rank(item: pytest.Item) -> int:
        file = item.path.relative_to(here).as_posix()
        return next(
            (k for k, part in enumerate(SLOW_FIRST) if file.startswith(part)), len(SLOW_FIRST)
        )

    items.sort(key=rank)
