"""What a node counts of itself, and its /diagnostics."""

from __future__ import annotations

import resource
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping

import numpy as np

WINDOW = 3000


class Meter:
    """Counts and times; read by one thread, written by others."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self._lock = threading.Lock()
        self._counts: dict[str, int] = defaultdict(int)
        self._times: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._facts: dict[str, str] = {}
        self._last = (time.monotonic(), 0)
        self.last_fault = ""

    def count(self, name: str, by: int = 1) -> None:
        """Adds to a counter."""
        with self._lock:
            self._counts[name] += by

    def time(self, seconds: Mapping[str, float]) -> None:
        """Notes durations, seconds, by stage."""
        with self._lock:
            for name, value in seconds.items():
                self._times[name].append(value)

    def fact(self, name: str, value: str) -> None:
        """Notes what does not change often."""
        with self._lock:
            self._facts[name] = value

    def fault(self, text: str) -> None:
        """Notes a fault of one image."""
        with self._lock:
            self._counts["faults"] += 1
            self.last_fault = text

    def values(self, rate_of: str) -> dict[str, object]:
        """All of it: facts, counts, `rate_hz` of one count since last asked, percentiles in ms."""
        with self._lock:
            now, total = time.monotonic(), self._counts[rate_of]
            then, before = self._last
            self._last = (now, total)
            out: dict[str, object] = {**self._facts, **self._counts}
            out["rate_hz"] = f"{(total - before) / max(now - then, 1e-9):.1f}"
            times = {name: np.array(values) for name, values in self._times.items()}
        for name, values in times.items():
            p50, p95, p99 = np.percentile(values, [50, 95, 99]) * 1e3
            out[f"{name}_ms"] = f"p50 {p50:.2f} p95 {p95:.2f} p99 {p99:.2f}"
        out["peak_rss_mb"] = f"{peak_rss_mb():.0f}"
        return out


def peak_rss_mb() -> float:
    """The most memory this process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
