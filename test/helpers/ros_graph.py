"""A ROS graph of a test's own: real processes on real DDS, which never outlive the test."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import demo
import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 90.0
RELIABILITY_VARIABLE = "FACE_RECON_RELIABILITY"
TABLE_BEGIN, TABLE_END = "<!-- begin of the table -->", "<!-- end of the table -->"


def graph_environment() -> dict[str, str]:
    """This machine only, room for images in shared memory, a domain no other worker draws."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    domain = str(1 + 25 * (worker % 4) + random.randrange(25))
    return {**demo.environment(), "ROS_DOMAIN_ID": domain, "FACE_RECON_DOMAIN_ID": domain}


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
        self._segments: set[Path] = set()

    def start(self, module: str, *parameters: str, arguments: tuple[str, ...] = ()):
        """Starts `python -m face_recon_ros.nodes.MODULE` with `name:=value` parameters."""
        return self.run("-m", f"face_recon_ros.nodes.{module}", *arguments, parameters=parameters)

    def run(self, *arguments: str, parameters: tuple[str, ...] = ()):
        """Starts a Python process of the graph."""
        flags = [flag for p in parameters for flag in ("-p", p)]
        process = subprocess.Popen(
            [sys.executable, *arguments, "--ros-args", *flags],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.adopt(process)

    def adopt(self, process: subprocess.Popen):
        """Ends this process, too, at `close`."""
        self._running.append(process)
        return process

    def kill(self, process: subprocess.Popen) -> None:
        """Ends a process without its knowing."""
        self._segments |= segments(process.pid)
        process.kill()
        process.wait()

    def close(self) -> None:
        """Ends all; what does not listen is killed, and leaves no shared memory either."""
        running = [process for process in self._running if process.poll() is None]
        for process in running:
            self._segments |= segments(process.pid)
            process.terminate()
            process.send_signal(signal.SIGCONT)
        until = time.monotonic() + 5.0
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=max(0.1, until - time.monotonic()))
            process.kill()
        for process in self._running:
            process.communicate()
        for segment in self._segments:
            segment.unlink(missing_ok=True)


def segments(pid: int) -> set[Path]:
    """Fast DDS' shared memory that a process has mapped, 70 MB each; SIGKILL leaves its own."""
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text()
        return {Path(s) for s in re.findall(r"/dev/shm/fastdds_[0-9a-f]{16}(?:_el)?", maps)}
    return set()


@contextlib.contextmanager
def a_graph():
    """A graph of its own; it is gone after the block."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    env = graph_environment()
    made = Graph(env)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for key in set(env) - set(os.environ):
            monkeypatch.setenv(key, env[key])
        monkeypatch.setenv("ROS_DOMAIN_ID", env["ROS_DOMAIN_ID"])
        try:
            yield made
        finally:
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
