"""A node's counters, and its /diagnostics."""

from __future__ import annotations

import resource
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

import numpy as np

from face_recon_ros.core.errors import FaceReconError

WINDOW = 3000
#: Stamps of consecutive images further apart than this, or going back, are a jump of the clock.
JUMP_S = 2.0


class Meter:
    """Counts and times; read by one thread, written by others."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self._lock = threading.Lock()
        self._counts: dict[str, int] = defaultdict(int)
        self._times: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._facts: dict[str, str] = {}
        self._scores: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._last = (time.monotonic(), 0, 0)
        self._last_fault = ""
        self._arrival: tuple[float, float] | None = None  # monotonic, stamp

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
        """Notes what does not change often; an empty value is forgotten."""
        with self._lock:
            self._facts[name] = value
            if not value:
                del self._facts[name]

    @property
    def facts(self) -> list[str]:
        """Names of what is noted."""
        with self._lock:
            return list(self._facts)

    def forget(self, *, but: Iterable[str] = ()) -> None:
        """Forgets facts, since they are no longer true."""
        with self._lock:
            self._facts = {name: self._facts[name] for name in but if name in self._facts}

    def score(self, name: str, values: Iterable[float]) -> None:
        """Notes scores in [0, 1], of which the lowest and the median are told once."""
        with self._lock:
            self._scores[name].extend(values)

    def arrived(self, stamp: float) -> None:
        """Notes an image that came in, with its stamp in seconds."""
        with self._lock:
            before, self._arrival = self._arrival, (time.monotonic(), stamp)
            self._counts["frames_in"] += 1
            if before is not None and not 0.0 <= stamp - before[1] <= JUMP_S:
                self._counts["clock_jumps"] += 1

    def input_age_s(self) -> float:
        """Seconds since an image came in; infinite before the first."""
        with self._lock:
            return np.inf if self._arrival is None else time.monotonic() - self._arrival[0]

    def fault(self, fault: FaceReconError) -> None:
        """Notes a fault of one image, or of one message about the camera."""
        with self._lock:
            self._counts["faults"] += 1
            self._last_fault = str(fault)

    def dropped(self, fault: FaceReconError) -> None:
        """Notes that an image was dropped, by its cause: `dropped_image`, `dropped_camera` ..."""
        with self._lock:
            self._counts[f"dropped_{type(fault).__name__.removesuffix('Error').lower()}"] += 1

    def take_fault(self) -> str:
        """The last fault since last asked."""
        with self._lock:
            fault, self._last_fault = self._last_fault, ""
            return fault

    def values(self, rate_of: str, late: int = 0) -> dict[str, object]:
        """All of it: facts, counts, rates and scores since last asked, percentiles in ms, ages.

        Args:
            rate_of: the counter `rate_hz` is of.
            late: images that were replaced by newer ones before their turn, beside those counted.
        """
        age_s = self.input_age_s()
        with self._lock:
            self._counts["dropped_late"] += 0
            counts = dict(self._counts)
            counts["dropped_late"] += late
            now, total, inputs = (
                time.monotonic(),
                counts.get(rate_of, 0),
                counts.get("frames_in", 0),
            )
            then, total_before, inputs_before = self._last
            self._last = (now, total, inputs)
            seconds = max(now - then, 1e-9)
            out: dict[str, object] = {**self._facts, **counts}
            times = {name: np.array(values) for name, values in self._times.items()}
            scores = {name: np.array(values) for name, values in self._scores.items() if values}
            self._scores.clear()
        out["dropped"] = sum(n for name, n in counts.items() if name.startswith("dropped_"))
        out["rate_hz"] = f"{(total - total_before) / seconds:.1f}"
        if np.isfinite(age_s):
            out["input_hz"] = f"{(inputs - inputs_before) / seconds:.1f}"
            out["input_age_s"] = f"{age_s:.2f}"
        for name, values in times.items():
            p50, p95, p99 = np.percentile(values, [50, 95, 99]) * 1e3
            out[f"{name}_ms"] = f"p50 {p50:.2f} p95 {p95:.2f} p99 {p99:.2f}"
        for name, values in scores.items():
            out[name] = f"min {values.min():.2f} p50 {np.median(values):.2f}"
        out["peak_rss_mb"] = f"{peak_rss_mb():.0f}"
        return out


def peak_rss_mb() -> float:
    """The most memory this process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
