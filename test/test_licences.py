"""A licence for every byte that ships: REUSE.toml says it, the models' manifest says the same."""

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest

from face_recon_ros.core.models import read_manifest

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = tomllib.loads((ROOT / "REUSE.toml").read_text())["annotations"]
EVERYTHING = "**"
#: What comes from elsewhere, or is not code, must be named: the entry for everything does not do.
NAMED = {".bin", ".gz", ".jpg", ".mp4", ".npz", ".obj", ".onnx", ".ply", ".pth", ".tflite", ".zip"}


def tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def patterns(entry):
    return [entry["path"]] if isinstance(entry["path"], str) else entry["path"]


def entry_of(path):
    """The last entry that fits; `*` stays within a folder, `**` does not."""
    for entry in reversed(ENTRIES):
        for pattern in patterns(entry):
            same_depth = pattern.count("/") == path.count("/")
            if pattern == EVERYTHING or (same_depth and fnmatch.fnmatchcase(path, pattern)):
                return entry
    return None


def identifiers(entry):
    return set(re.split(r" AND | OR ", entry["SPDX-License-Identifier"]))


def test_every_file_has_a_licence_and_whose_it_is():
    for path in tracked():
        entry = entry_of(path)
        assert entry, f"{path}: say in REUSE.toml under what licence it is"
        assert entry["SPDX-FileCopyrightText"]
        if Path(path).suffix in NAMED:
            assert EVERYTHING not in patterns(entry), f"{path}: name it in REUSE.toml"


def test_the_text_of_every_licence_is_there_and_no_other():
    used = set().union(*map(identifiers, ENTRIES))
    texts = {path.stem: path.read_text() for path in (ROOT / "LICENSES").iterdir()}
    assert set(texts) == used
    assert "Version 2.0, January 2004" in texts["Apache-2.0"]
    assert "CC0 1.0 Universal" in texts["CC0-1.0"]


def test_no_entry_is_for_nothing():
    paths = tracked()
    for entry in ENTRIES:
        for pattern in patterns(entry):
            assert any(fnmatch.fnmatchcase(path, pattern) for path in paths), pattern


def test_models_say_the_same_in_their_manifest():
    for name, model in read_manifest(ROOT / "models").items():
        assert identifiers(entry_of(f"models/{name}")) == {model.licence}, name


def test_nothing_that_binds_our_users_ships():
    free = {"Apache-2.0", "CC0-1.0", "LicenseRef-Public-Domain", "MIT"}
    assert set().union(*map(identifiers, ENTRIES)) <= free


def test_the_package_says_the_same():
    assert '<license file="LICENSE">Apache-2.0</license>' in (ROOT / "package.xml").read_text()
    assert 'license="Apache-2.0"' in (ROOT / "setup.py").read_text()
