"""Ctrl-C ends a source of images early, and the results of what it has given are written."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from face_recon_ros.core.errors import SourceError
from face_recon_ros.core.types import Image
from face_recon_ros.io.sources import Source

T = TypeVar("T")


def stoppable(source: Source, frames: int = 0) -> Source:
    """The source, ended by Ctrl-C; as it is where it already is, or no signal can be caught.

    Args:
        source: of images.
        frames: how many of them are wanted; 0: all.
    """
    if isinstance(source, StoppableSource) or not _catches_signals():
        return source
    return StoppableSource(source, frames)


def wanted(length: int | None, frames: int) -> int | None:
    """How many images of a source are read.

    Args:
        length: how many it has; None: unknown.
        frames: at most; 0: all.
    """
    return min(length or frames, frames) if frames else length


def until_stopped(images: Iterable[T], length: int | None) -> Iterator[T]:
    """The images until Ctrl-C, or until their source is lost, which is said on stderr.

    A second Ctrl-C ends the command.

    Args:
        images: of a source.
        length: how many there are; None: unknown.

    Raises:
        KeyboardInterrupt: before there was an image, or for the second time.
        SourceError: there was no image.
    """
    if not _catches_signals():
        yield from images
        return
    waiting = asked = False

    def interrupt(*_: object) -> None:
        nonlocal asked
        if asked or waiting:
            raise KeyboardInterrupt
        asked = True

    before, taken, count = signal.signal(signal.SIGINT, interrupt), iter(images), 0
    try:
        while not asked:
            try:
                waiting = True
                image = next(taken)
            except StopIteration:
                return
            except KeyboardInterrupt:
                if not count:
                    raise
                break
            except SourceError as lost:
                if not count:
                    raise
                _tell(f"{lost}; {count} images are kept")
                return
            finally:
                waiting = False
            count += 1
            yield image
        total = f" of {length}" if length else ""
        _tell(f"stopped by Ctrl-C: the results are those of the first {count}{total} images")
    finally:
        signal.signal(signal.SIGINT, before)


class StoppableSource:
    """A source whose images are those of `until_stopped`."""

    def __init__(self, source: Source, frames: int = 0) -> None:
        """Takes the source, and how many of its images are wanted; 0: all."""
        self._source, self._frames = source, frames
        self.live = source.live
        self.name, self.fps, self.length = source.name, source.fps, source.length

    @property
    def camera_info(self) -> Any:
        """See `Source`."""
        return self._source.camera_info

    @property
    def warnings(self) -> Sequence[str]:
        """See `Source`."""
        return self._source.warnings

    def __iter__(self) -> Iterator[Image]:
        """The images until then; see `until_stopped`."""
        return until_stopped(self._source, wanted(self.length, self._frames))

    def close(self) -> None:
        """See `Source`."""
        self._source.close()


def _catches_signals() -> bool:
    return threading.current_thread() is threading.main_thread()


def _tell(text: str) -> None:
    tqdm.write(f"face-recon: {text}", file=sys.stderr)  # not into the line of a progress bar
