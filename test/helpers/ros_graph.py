"""A ROS graph of a test's own: real processes on real DDS, which never outlive the test."""

import contextlib
import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import demo
import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 90.0
RELIABILITY_VARIABLE = "FACE_RECON_RELIABILITY"
TABLE_BEGIN, TABLE_END = "<!-- begin of the table -->", "<!-- end of the table -->"


#: What every system can open the ports of; 0 is what others use by default.
DOMAINS = range(1, 101)
LOCKS = Path(tempfile.gettempdir()) / "face_recon_ros_domains"


@contextlib.contextmanager
def own_domain(folder: Path = LOCKS, domains: Sequence[int] = DOMAINS) -> Iterator[int]:
    """A ROS domain in which no other test of this machine runs.

    Two graphs in one domain hear each other, and a test would count the publishers of both. The
    kernel frees the lock when the process ends, however it ends.

    Args:
        folder: of the locks; all checkouts use the same.
        domains: to choose from.
    """
    folder.mkdir(exist_ok=True)
    for domain in random.sample(domains, len(domains)):
        with contextlib.ExitStack() as held:
            try:
                lock = held.enter_context((folder / str(domain)).open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # taken, perhaps by another user
                continue
            yield domain
            return
    raise RuntimeError(f"tests are running in all {len(domains)} ROS domains: run fewer at once")


@contextlib.contextmanager
def graph_environment() -> Iterator[dict[str, str]]:
    """This machine only, room for images in shared memory, a domain of its own."""
    with own_domain() as domain:
        own = {"ROS_DOMAIN_ID": str(domain), "FACE_RECON_DOMAIN_ID": str(domain)}
        yield {**demo.environment(), **own}


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
    with graph_environment() as env, pytest.MonkeyPatch.context() as monkeypatch:
        made = Graph(env)
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
