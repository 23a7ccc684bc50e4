"""Work beside the pipeline: no image waits for it, a later one has its result.

All work of a pipeline shares one executor. Live that is a thread, so that never two pieces of work
compete with the images at once; else `Inline`, so that results do not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Result(Generic[T]):
    """What came of a piece of work.

    Attributes:
        stamp: seconds, of the image that it was about.
        value: that the work returned.
    """

    stamp: float
    value: T


class Background(Generic[T]):
    """One piece of work at a time; nothing is queued."""

    def __init__(self, executor: Executor) -> None:
        """Starts idle.

        Args:
            executor: that does the work.
        """
        self._executor = executor
        self._stamp = 0.0
        self._future: Future[T] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and the last result was taken."""
        return self._future is None

    def send(self, stamp: float, work: Callable[..., T], *args: Any) -> None:
        """Begins a piece of work if it is idle.

        Args:
            stamp: seconds, of the image that it is about.
            work: nobody else uses what it works with until this is idle again.
            args: of `work`; they stay as they are.
        """
        if self._future is None:
            self._stamp = stamp
            self._future = self._executor.submit(work, *args)

    def take(self) -> Result[T] | None:
        """The result since the last call, or None; raises what the work raised."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return Result(self._stamp, future.result())


class Inline(Executor):
    """Does at once what it is given: the next image has the result, on any machine."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """The result, or the exception, of a call."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as fault:
            future.set_exception(fault)
        return future


def executor_of(*, live: bool) -> Executor:
    """That does the work beside a pipeline; `live`: in a thread."""
    return ThreadPoolExecutor(1, "background") if live else Inline()
