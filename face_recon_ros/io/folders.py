"""Folders to write into."""

from __future__ import annotations

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
