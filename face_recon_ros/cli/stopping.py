"""Ctrl-C ends a source of images early, and the results of what it has given are written."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from face_recon_ros.core.errors import SourceError
from face_recon_ros.core.types import Image
from face_recon_ros.io.sources import Source


def stoppable(source: Source) -> Source:
    """The source, ended by Ctrl-C; as it is where it already is, or no signal can be caught."""
    if isinstance(source, StoppableSource) or not _catches_signals():
        return source
    return StoppableSource(source)


class StoppableSource:
    """A source that ends by Ctrl-C, or because it is lost, and says so on stderr.

    A second Ctrl-C ends the command.
    """

    def __init__(self, source: Source) -> None:
        """Takes the source."""
        self._source = source
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
        """The images until then.

        Raises:
            KeyboardInterrupt: before there was an image, or for the second time.
            SourceError: there was no image.
        """
        waiting = asked = False

        def interrupt(*_: object) -> None:
            nonlocal asked
            if asked or waiting:
                raise KeyboardInterrupt
            asked = True

        before, images, count = signal.signal(signal.SIGINT, interrupt), iter(self._source), 0
        try:
            while not asked:
                try:
                    waiting = True
                    image = next(images)
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
            total = f" of {self.length}" if self.length else ""
            _tell(f"stopped by Ctrl-C: the results are those of the first {count}{total} images")
        finally:
            signal.signal(signal.SIGINT, before)

    def close(self) -> None:
        """See `Source`."""
        self._source.close()


def _catches_signals() -> bool:
    return threading.current_thread() is threading.main_thread()


def _tell(text: str) -> None:
    tqdm.write(f"face-recon: {text}", file=sys.stderr)  # not into the line of a progress bar
