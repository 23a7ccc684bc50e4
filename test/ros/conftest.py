"""A ROS graph of the test's own: real processes on real DDS, which never outlive the test."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 90.0


def graph_environment() -> dict[str, str]:
    """This machine only, a random domain, room for images in shared memory."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import demo

    return demo.environment()


class Graph:
    """Starts nodes.

    Attributes:
        env: of the processes; the domain of this test.
        domain: number of it.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.domain = int(env["ROS_DOMAIN_ID"])
        self._running: list[subprocess.Popen] = []

    def start(self, module: str, *parameters: str, arguments: tuple[str, ...] = ()):
        """Starts `python -m face_recon_ros.nodes.MODULE` with `name:=value` parameters."""
        flags = [flag for p in parameters for flag in ("-p", p)]
        command = [sys.executable, "-m", f"face_recon_ros.nodes.{module}", *arguments]
        process = subprocess.Popen(
            [*command, "--ros-args", *flags],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def graph(monkeypatch):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    env = {**graph_environment(), "ROS_DOMAIN_ID": str(random.randint(1, 100))}
    for key in set(env) - set(os.environ):
        monkeypatch.setenv(key, env[key])
    monkeypatch.setenv("ROS_DOMAIN_ID", env["ROS_DOMAIN_ID"])
    made = Graph(env)
    yield made
    made.close()


class Listener:
    """A node in the test's process, on a context of its own."""

    def __init__(self, domain: int) -> None:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor

        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list] = {}

    def listen(self, kind, topic, qos) -> list:
        """Subscribes; the list grows with every message."""
        heard = self.heard.setdefault(topic, [])
        self.node.create_subscription(kind, topic, heard.append, qos)
        return heard

    def spin_until(self, done, timeout_s: float = TIMEOUT_S, each=lambda: None) -> bool:
        """Spins until done() or the time is over; calls each() now and then."""
        until = time.monotonic() + timeout_s
        while not done() and time.monotonic() < until:
            each()
            self.executor.spin_once(timeout_sec=0.05)
        return bool(done())

    def close(self) -> None:
        import rclpy

        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


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


@pytest.fixture
def small_models(network_path, face_model_path) -> list[str]:
    """Parameters that name the tests' own network and face model: quick to load, quick to run."""
    return [
        f"reconstructor.network:={network_path}",
        f"reconstructor.face_model:={face_model_path}",
    ]
