"""Sources of single pictures: those of a folder, and pictures rendered on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ConfigError, FaceReconError, SourceError
from face_recon_ros.core.models import user_path
from face_recon_ros.core.types import Image
from face_recon_ros.io.images import PICTURES, REFUSED, picture_format, read_picture
from face_recon_ros.io.intensity import IntensityScale
from face_recon_ros.io.source_config import SourceConfig
from face_recon_ros.io.video import DEFAULT_FPS

_CACHE_BYTES = 128 << 20  # of a looping pattern's pictures; larger ones are rendered each time
_NAMED = 5  # files in one line
_PICTURE_SUFFIXES = {
    ".avif", ".bmp", ".cr2", ".cr3", ".dds", ".dng", ".exr", ".gif", ".hdr", ".heic", ".heif",
    ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl", ".nef", ".pbm", ".pcx",
    ".pgm", ".png", ".pnm", ".ppm", ".psd", ".raf", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip


def few(names: Sequence[str]) -> str:
    """Names for one line: the first ones, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


class FolderSource:
    """The pictures of a folder by name, or a single picture. Unreadable ones are left out.

    Attributes:
        skipped: file -> what is wrong with it.
        notes: what was done about pictures -> the names of their files.
    """

    live = False
    camera_info = None

    def __init__(self, config: SourceConfig) -> None:
        """Lists the pictures."""
        self.name = config.source
        self._config = config
        path = user_path(config.source)
        self.skipped: dict[Path, FaceReconError] = {}
        self.paths = [path] if path.is_file() else image_paths(path, self.skipped)
        self.fps = config.fps or DEFAULT_FPS
        self.length = None if config.loop else len(self.paths)
        self.notes: dict[str, list[str]] = {}
        self._scale = IntensityScale()

    @property
    def warnings(self) -> list[str]:
        """See `Source`."""
        notes = [f"{few(names)}: {note}" for note, names in self.notes.items()]
        return [*notes, *(f"left out: {fault}" for fault in self.skipped.values())]

    def __iter__(self) -> Iterator[Image]:
        """All pictures, a frame period apart.

        Raises:
            SourceError: none of them can be read.
        """
        index = 0
        while True:
            for _, rgb in self.readable():
                yield Image(rgb, index / self.fps, self._config.frame)
                index += 1
            if not self._config.loop:
                return

    def readable(
        self, paths: Sequence[Path] | None = None
    ) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
        """Each picture that can be read, once, with its path; see `__iter__`.

        Args:
            paths: of some of them; None: all.
        """
        read, fault = 0, None
        for path in self.paths if paths is None else paths:
            try:
                picture = read_picture(path, self._scale)
            except (SourceError, ConfigError) as bad:
                self.skipped[path] = fault = bad
                continue
            scaled = picture.scaled and f"deep pixels scaled to 8 bits: {picture.scaled}"
            for note in filter(None, (picture.warning, scaled)):
                names = self.notes.setdefault(note, [])
                if path.name not in names:
                    names.append(path.name)
            read += 1
            yield path, picture.rgb
        if fault is not None and not read:
            raise fault

    def close(self) -> None:
        """See `Source`."""


class RenderedSource:
    """Pictures made on the spot, which need no camera and no video: `pattern`, `portrait`.

    Loops show the pictures of the first round again, if they are not too large to keep: rendering
    a head takes about 50 ms.
    """

    live = False
    camera_info = None
    warnings: Sequence[str] = ()

    def __init__(
        self,
        config: SourceConfig,
        render: Callable[[float], NDArray[np.uint8]],
        period_s: float,
        fps: float,
    ) -> None:
        """Takes what renders.

        Args:
            config: what was asked for.
            render: (H, W, 3) uint8 RGB picture at a time in seconds.
            period_s: after which the motion repeats.
            fps: where none was asked for.
        """
        self.name = config.source
        self._config, self._render = config, render
        self.fps = config.fps or fps
        self._round = max(1, round(period_s * self.fps))
        self.length = None if config.loop else self._round

    def __iter__(self) -> Iterator[Image]:
        """One round of the motion, or without end."""
        pictures: dict[int, NDArray[np.uint8]] = {}
        index = 0
        while self.length is None or index < self.length:
            phase = index % self._round
            picture = pictures.get(phase)
            if picture is None:
                picture = self._render(phase / self.fps)
                if self.length is None and self._round * picture.nbytes <= _CACHE_BYTES:
                    pictures[phase] = picture
            yield Image(picture, index / self.fps, self._config.frame)
            index += 1

    def close(self) -> None:
        """See `Source`."""


def image_paths(folder: Path, skipped: dict[Path, FaceReconError] | None = None) -> list[Path]:
    """The pictures of a folder, by name; recognised by their content.

    Args:
        folder: to look into.
        skipped: filled in: files that are no pictures, with the reason; what never are (text,
            annotations, videos, hidden files) is not named.

    Raises:
        SourceError: there are none.
    """
    paths = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            with path.open("rb") as file:
                head = file.read(4096)
        except OSError as fault:
            head, what = b"", str(fault.strerror)
        else:
            what = "an empty file" if not head else "something else"
        kind = picture_format(head)
        if kind in PICTURES:
            paths.append(path)
        elif skipped is not None and (kind in REFUSED or path.suffix.lower() in _PICTURE_SUFFIXES):
            got = f"{path.name}, {kind or what}"
            remedy = REFUSED.get(kind, "replace or remove the file")
            skipped[path] = SourceError("a picture", got, remedy)
    if not paths:
        below = sorted(p.name for p in folder.iterdir() if p.is_dir())
        remedy = f"folders are looked into one by one: give {folder / below[0]}" if below else ""
        raise SourceError(
            f"pictures ({', '.join(PICTURES)}) in {folder}", "none", remedy or "check the folder"
        )
    return paths
