"""Folders and files that are written, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from face_recon_ros.core.errors import DataError


class DiskFullError(DataError):
    """No room on the disk: nothing else can be written either, so work that goes on is lost."""

    @staticmethod
    def of(fault: OSError, path: str | Path) -> DiskFullError | None:
        """The error for a fault of writing to a path; None if the fault is another."""
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
            return None
        return DiskFullError(
            f"room on the disk for {fault.filename or path}",
            "none left",
            "make room and run the same command again: it goes on where it stopped",
        )


@contextlib.contextmanager
def written(path: str | Path, remedy: str = "choose another --out") -> Iterator[None]:
    """Faults of writing a file as errors that say what to do.

    Args:
        path: that is written.
        remedy: what to do where it cannot be.

    Raises:
        DiskFullError: no room.
        DataError: no permission, or no such place.
    """
    try:
        yield
    except OSError as fault:
        if full := DiskFullError.of(fault, path):
            raise full from None
        raise DataError(f"a place to write {path}", fault.strerror or str(fault), remedy) from None


def write_whole(path: str | Path, text: str, remedy: str = "choose another --out") -> None:
    """Writes a text file whole or not at all, and makes its folder.

    Args:
        path: of the file.
        text: its content.
        remedy: what to do where it cannot be written.

    Raises:
        DiskFullError: no room.
        DataError: no permission, or no such place.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    with written(target, remedy):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # of names that are no text: what JSON writes for them, too
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def make_folder(folder: Path, remedy: str = "choose another") -> None:
    """Makes a folder, and those above it, where there is none.

    Args:
        folder: its path.
        remedy: what to do where it cannot be made.

    Raises:
        DataError: a file has that name, or there is no right to write there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise DataError(f"a folder at {folder}", fault.strerror or str(fault), remedy) from None


def check_place(path: Path, remedy: str = "choose another", *, folder: bool) -> None:
    """Refuses a place that cannot be written to, before long work is done for it; makes nothing.

    Args:
        path: of a file or folder that will be written, with the folders above it.
        remedy: what to do where it cannot.
        folder: whether it will be a folder.

    Raises:
        DataError: a folder stands where a file is wanted or the reverse, no folder can be made
            there, or there is no right to write.
    """
    path = path.absolute()
    kind = "folder" if folder else "file"
    if path.exists() and path.is_dir() != folder and not path.is_char_device():
        raise DataError(f"a {kind} at {path}", f"a {'file' if folder else 'folder'}", remedy)
    try:
        place = path if path.is_dir() else path.parent
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as fault:
        raise DataError(f"a place to write {path}", fault.strerror or str(fault), remedy) from None
