"""Cameras and streams, which do not end by themselves, as sources of commands, which must."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from face_recon_ros.core.errors import SourceError
from face_recon_ros.core.types import Image
from face_recon_ros.io.sources import Source


class UntilItEnds:
    """A live source that ends, so that results are written: by Ctrl-C, or because it is lost.

    A second Ctrl-C ends the command.
    """

    live = True

    def __init__(self, source: Source) -> None:
        """Takes the source, which goes on for ever."""
        self._source = source
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
                except (KeyboardInterrupt, SourceError) as end:
                    if not count:
                        raise
                    if isinstance(end, SourceError):
                        print(f"face-recon: {end}; {count} images are kept", file=sys.stderr)
                    return
                finally:
                    waiting = False
                count += 1
                yield image
        finally:
            signal.signal(signal.SIGINT, before)

    def close(self) -> None:
        """See `Source`."""
        self._source.close()
