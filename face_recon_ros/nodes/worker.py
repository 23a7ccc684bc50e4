"""A worker thread beside the executor: a slot for the newest item, and a thread that takes it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestValue(Generic[T]):
    """A slot for the newest item; an item that was not taken in time is replaced, never queued."""

    def __init__(self) -> None:
        """Starts empty."""
        self._condition = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self._idle = True
        self.dropped = 0

    def put(self, item: T) -> None:
        """Replaces the item in the slot."""
        with self._condition:
            self.dropped += self._item is not None
            self._item = item
            self._condition.notify_all()

    def put_when_idle(self, item: T) -> None:
        """Waits until what was put before has been worked off."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or (self._item is None and self._idle))
            self._item = item
            self._condition.notify_all()

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Whether all that was put has been worked off within the time."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._closed or (self._item is None and self._idle), timeout_s
            )

    def take(self) -> T | None:
        """Waits for an item; None once the slot is closed."""
        with self._condition:
            self._idle = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._closed or self._item is not None)
            if self._closed:
                return None
            item, self._item, self._idle = self._item, None, False
            return item

    def close(self) -> None:
        """Wakes all waiting threads."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class Worker(Generic[T]):
    """A thread that works off a `LatestValue`; it ends, after the item it is at, with the slot.

    Attributes:
        slot: where work is put.
        thread: that works it off.
    """

    def __init__(
        self, name: str, work: Callable[[T], None], crashed: Callable[[BaseException], None]
    ) -> None:
        """Starts the thread.

        Args:
            name: of the thread.
            work: on one item; handles the faults it expects itself.
            crashed: called with what else `work` raised; the thread ends.
        """
        self.slot: LatestValue[T] = LatestValue()
        self._work, self._crashed = work, crashed
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while (item := self.slot.take()) is not None:
                self._work(item)
        except BaseException as bug:
            self._crashed(bug)
