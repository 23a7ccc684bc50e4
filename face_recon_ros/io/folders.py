"""Folders to write into."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from face_recon_ros.core.errors import DataError


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


def check_place(path: Path, remedy: str = "choose another") -> None:
    """Refuses a place that cannot be written to, before long work is done for it; makes nothing.

    Args:
        path: of a file or folder that will be written, with the folders above it.
        remedy: what to do where it cannot.

    Raises:
        DataError: no folder can be made there, or there is no right to write.
    """
    path = path.expanduser().absolute()
    try:
        folder = path if path.is_dir() else path.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        raise DataError(f"a place to write {path}", fault.strerror or str(fault), remedy) from None
