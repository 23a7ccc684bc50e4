"""Paths of model files, and their check against the manifest.

`models/manifest.json` lists every shipped file with its SHA-256, licence and origin.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.onnx_file import external_tensors

T = TypeVar("T")

MANIFEST = "manifest.json"
FACE_MODEL = "face_model.npz"
NETWORK = "face_net.onnx"
#: In 8 bits, which a CPU does three times as fast; and in floats, for GPUs and to train on from.
POINT_NETWORK, POINT_NETWORK_FLOAT = "face_points.onnx", "face_points_float.onnx"
EMBEDDING = "face_embedding.onnx"
REFERENCE_NETWORK = "face_net_resnet50.onnx"
#: Backend of `core.detection` -> its file.
DETECTORS = {
    "yunet": "face_detection_yunet.onnx",
    "short_range": "face_detection_short_range.tflite",
    "full_range": "face_detection_full_range_sparse.tflite",
}

#: Data and nothing else: no format in which a file could bring code with it.
SUFFIXES = (".npz", ".onnx", ".tflite")

MODELS_DIR_VARIABLE = "FACE_RECON_MODELS"


@dataclass(frozen=True)
class ModelFile:
    """One entry of the manifest.

    Attributes:
        name: file name in the models folder.
        sha256: hexadecimal digest.
        licence: SPDX identifier.
        origin: where it came from, in a sentence.
    """

    name: str
    sha256: str
    licence: str
    origin: str


def models_dir() -> Path:
    """The folder of the shipped models: $FACE_RECON_MODELS, the checkout's, or the installed one.

    Raises:
        ModelError: there is none.
    """
    candidates = [
        Path(__file__).resolve().parents[2] / "models",
        *(
            Path(prefix) / "share" / "face_recon_ros" / "models"
            for prefix in [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
            if prefix
        ),
    ]
    if override := os.environ.get(MODELS_DIR_VARIABLE):
        candidates = [Path(override)]
    for candidate in candidates:
        if (candidate / MANIFEST).is_file():
            return candidate
    raise ModelError(
        f"a models folder with {MANIFEST}",
        f"none in {', '.join(map(str, candidates))}",
        f"reinstall the package or set {MODELS_DIR_VARIABLE}",
    )


def read_manifest(folder: Path) -> dict[str, ModelFile]:
    """The manifest of a models folder, by file name."""
    path = folder / MANIFEST
    try:
        entries = json.loads(path.read_text())["files"]
        return {entry["name"]: ModelFile(**entry) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ModelError(f"a manifest at {path}", str(fault), "reinstall the package") from None


def once_per_file(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """A function of a file's content that reads the file again only when the file has changed."""

    @functools.lru_cache(maxsize=64)
    def kept(path: Path, size: int, mtime_ns: int) -> T:
        return read(path)

    @functools.wraps(read)
    def current(path: Path) -> T:
        state = path.stat()
        return kept(path, state.st_size, state.st_mtime_ns)

    return current


@once_per_file
def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def user_path(path: str | Path) -> Path:
    """A path as a user writes it: `~` is the home folder, where there is one of that name."""
    # Path.expanduser raises where there is none, and `~$letter.jpg` is a file's name, too
    return Path(os.path.expanduser(path))  # noqa: PTH111


def find_model(name: str | Path) -> Path:
    """Path of a model file, checked against the manifest when it is one we ship.

    Args:
        name: a file name of the manifest, or a path to a file of the user's own; what ships
            comes before a file of that name in the working folder.

    Raises:
        ModelError: it is missing, is not the file that was shipped, is of no format that holds
            data alone, or has weights elsewhere.
    """
    path = user_path(name)
    if path.name != str(name):  # a path, not a bare name: the user's own file
        if not path.is_file():
            raise ModelError(f"a model file at {path}", "no such file", "check the path")
        _check_form(path)
        return path
    folder = models_dir()
    entries = read_manifest(folder)
    if path.name not in entries and path.is_file():
        _check_form(path)
        return path
    if path.name not in entries:
        raise ModelError(
            f"one of {', '.join(sorted(entries))}, or a path", repr(str(name)), "check the name"
        )
    path = folder / path.name
    if not path.is_file():
        raise ModelError(f"a model file at {path}", "no such file", "reinstall the package")
    verify(path, entries[path.name])
    return path


def _check_form(path: Path) -> None:
    """Raises ModelError for a format that may hold code, and for ONNX with external data."""
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(
            f"a model file of {', '.join(SUFFIXES)}",
            repr(path.name),
            "export it (`face-recon export`, `face-recon model import`)",
        )
    if path.suffix.lower() == ".onnx":
        try:
            outside = external_tensors(path.read_bytes())
        except ValueError as fault:
            raise ModelError(
                f"an ONNX network at {path}", str(fault), "restore or re-export it"
            ) from None
        if outside:
            raise ModelError(
                f"an ONNX file with its weights in {path}",
                f"{len(outside)} tensors in other files ({outside[0]!r} first)",
                "save it again as one file: onnx.save(model, path, save_as_external_data=False)",
            )


def verify(path: Path, entry: ModelFile) -> None:
    """Raises ModelError unless the file is the one the manifest describes."""
    if (found := sha256_of(path)) != entry.sha256:
        raise ModelError(
            f"SHA-256 {entry.sha256[:16]}... for {path}",
            f"{found[:16]}...",
            "the file is damaged or was replaced: restore it, or give your own by path",
        )
