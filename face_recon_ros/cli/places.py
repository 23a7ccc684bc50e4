"""Files and folders that a command line names, looked at before the work."""

from __future__ import annotations

import argparse
from pathlib import Path

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.models import user_path
from face_recon_ros.io.folders import check_place

_INPUTS = ("source", "photographs", "prepared")  # paths that are read and not of type `Path`


def expand_home(args: argparse.Namespace) -> None:
    """Lets `~` in the paths among the options be the home folder: shells leave `--out=~/x`."""
    for name, value in vars(args).items():
        if isinstance(value, Path):
            setattr(args, name, user_path(value))
        elif isinstance(value, list) and all(isinstance(path, Path) for path in value):
            setattr(args, name, [user_path(path) for path in value])


def check_outputs(args: argparse.Namespace) -> None:
    """Refuses what `add_output`'s options name where it cannot be written.

    Raises:
        DataError: one of them cannot.
        ConfigError: its name does not say what it will be, it is what is read, or it must be
            empty and is not.
    """
    inputs = [path for path in _input_paths(args) if path.is_file() or path.is_dir()]
    for dest, output in getattr(args, "outputs", {}).items():
        place, another = getattr(args, dest), f"choose another --{dest}"
        if not place:
            continue
        kind = "folder" if output.folder else "file"
        if output.suffixes and place.suffix.lower() not in output.suffixes:
            wanted = f"a file name for --{dest} that ends in {' or '.join(output.suffixes)}"
            raise ConfigError(wanted, repr(place.name), "rename it")
        check_place(place, another, folder=output.folder)
        if any(place.exists() and place.samefile(path) for path in inputs):
            raise ConfigError(f"another {kind} for --{dest}", f"{place}, which is read", another)
        if output.fresh and place.is_dir() and any(place.iterdir()):
            wanted = f"a new or empty folder for --{dest}"
            raise ConfigError(wanted, f"{place} with files in it", f"empty it, or {another}")


def _input_paths(args: argparse.Namespace) -> list[Path]:
    """Files and folders that a command reads, as far as its options tell them by their type."""
    outputs = getattr(args, "outputs", {})
    paths: list[Path] = []
    for name, value in vars(args).items():
        values = value if isinstance(value, list) else [value]
        if name in _INPUTS:
            paths += [user_path(v) for v in values if v]
        elif name not in outputs:
            paths += [v for v in values if isinstance(v, Path)]
    return paths
