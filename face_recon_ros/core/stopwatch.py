"""How long the stages of an image take."""

from __future__ import annotations

from collections.abc import Callable

Timer = Callable[[], float]


class Stopwatch:
    """Stages and how long they took."""

    def __init__(self, timer: Timer) -> None:
        """Starts; `timer` returns the time in seconds."""
        self._timer = timer
        self._start = self._last = timer()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Ends a stage, which may come more than once."""
        now = self._timer()
        self._laps[stage] = self._laps.get(stage, 0.0) + now - self._last
        self._last = now

    def since(self, *before: str) -> float:
        """Seconds of all stages so far but those."""
        return sum(seconds for stage, seconds in self._laps.items() if stage not in before)

    def laps(self) -> dict[str, float]:
        """Stage -> seconds, and their `total`."""
        return {**self._laps, "total": self._last - self._start}
