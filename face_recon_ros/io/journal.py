"""Finished work on disk, so that an interrupted command goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.io.folders import written

_ARRAY = "__array__"


class Journal:
    """Finished items on disk, a file each, without pickle.

    Answers are what JSON can hold, with numpy arrays anywhere in it.
    """

    def __init__(self, folder: str | Path, settings: object) -> None:
        """Opens the journal; the first answer makes its folder.

        Args:
            folder: of its files.
            settings: what answers depend on besides their items, told by `repr`; those of other
                settings are thrown away.
        """
        self._folder = Path(folder)
        self._settings = hashlib.sha256(repr(settings).encode()).hexdigest()
        self._note = self._folder / "settings"
        with written(self._folder):
            if not self._note.is_file() or self._note.read_text() != self._settings:
                self.forget()

    def folder(self) -> Path:
        """Makes the folder if need be."""
        if not self._note.is_file():
            with written(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._note.write_text(self._settings)
        return self._folder

    def read(self, key: str) -> Any:
        """The answer of an item.

        Raises:
            KeyError: it is not finished.
        """
        try:
            with np.load(self._file(key), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return _with_arrays(json.loads(str(arrays["json"])), arrays)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            raise KeyError(key) from None

    def write(self, key: str, value: Any) -> None:
        """Keeps an answer, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {}
        text = json.dumps(_without_arrays(value, arrays))
        self.folder()
        file = self._file(key)
        # another run of the same command may write, and remove, the same answers
        part = file.with_suffix(f".{os.getpid()}.part")
        with written(file):
            with part.open("wb") as out:
                np.savez(out, json=np.array(text), **arrays)
            part.replace(file)

    def forget(self) -> None:
        """Throws all answers away."""
        self._note.unlink(missing_ok=True)
        for kind in ("npz", "part", "work"):
            for file in self._folder.glob(f"*.{kind}"):
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Deletes the journal; the work is done."""
        self.forget()
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _file(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npz"


def _without_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray):
        name = f"array{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _without_arrays(v, arrays) for key, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_arrays(v, arrays) for v in value]
    return value


def _with_arrays(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: _with_arrays(v, arrays) for key, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(v, arrays) for v in value]
    return value
