"""A ROS graph of the test's own, its listener, and what the nodes are fed with."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from ros_graph import (
    RELIABILITY_VARIABLE,
    TABLE_BEGIN,
    TABLE_END,
    Listener,
    a_graph,
    graph_environment,
)


@pytest.fixture
def ros_environment():
    """`graph_environment`, for scripts that start nodes of their own."""
    with graph_environment() as env:
        yield env


#: Rows of docs/reliability.md: fault, how it was injected, what was seen, the test that did it.
FAULTS: list[tuple[str, str, str, str]] = []


@pytest.fixture
def note(request):
    """Notes what a test saw of a fault: note(fault, how, seen)."""

    def noted(fault: str, how: str, seen: str) -> None:
        FAULTS.append((fault, how, seen, request.node.originalname))

    return noted


def pytest_sessionfinish():
    """With FACE_RECON_RELIABILITY=docs/reliability.md the table there is written anew."""
    path = os.environ.get(RELIABILITY_VARIABLE)
    if not (path and FAULTS):
        return
    rows = ["| fault | injected by | result | test |", "|---|---|---|---|"]
    rows += [f"| {fault} | {how} | {seen} | `{test}` |" for fault, how, seen, test in FAULTS]
    text = Path(path).read_text()
    before, _, rest = text.partition(TABLE_BEGIN)
    after = rest.partition(TABLE_END)[2]
    load = f"Measured on {os.cpu_count()} cores at a load average of {os.getloadavg()[1]:.1f}."
    table = "\n".join([TABLE_BEGIN, *rows, "", load, TABLE_END])
    Path(path).write_text(before + table + after)


@pytest.fixture
def graph():
    with a_graph() as made:
        yield made


@pytest.fixture
def listener(graph):
    made = Listener(graph.domain)
    yield made
    made.close()


@pytest.fixture(scope="session")
def head_video(tmp_path_factory) -> Path:
    """Sixty frames, 640 x 480 at 30 Hz, of the test pattern's turning head."""
    from face_recon_ros.core.pattern import TurningHead

    head = TurningHead(640, 480)
    path = tmp_path_factory.mktemp("video") / "head.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (640, 480))
    for index in range(60):
        video.write(np.ascontiguousarray(head.render(index / 30.0)[..., ::-1]))
    video.release()
    return path


@pytest.fixture(scope="session")
def small_models(network_path, face_model_path) -> list[str]:
    """Parameters that name the tests' own network and face model: quick to load, quick to run."""
    return [
        f"reconstructor.network:={network_path}",
        f"reconstructor.face_model:={face_model_path}",
    ]
