"""Model files are found, and are what the manifest says."""

import json

import pytest

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.models import (
    MANIFEST,
    MODELS_DIR_VARIABLE,
    find_model,
    models_dir,
    once_per_file,
    read_manifest,
    sha256_of,
    verify,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "net.onnx").write_bytes(b"weights")
    entry = {
        "name": "net.onnx",
        "sha256": sha256_of(tmp_path / "net.onnx"),
        "licence": "Apache-2.0",
        "origin": "a test",
    }
    (tmp_path / MANIFEST).write_text(json.dumps({"files": [entry]}))
    monkeypatch.setenv(MODELS_DIR_VARIABLE, str(tmp_path))
    return tmp_path


def test_shipped_files_are_what_the_manifest_says():
    folder = models_dir()
    for name, entry in read_manifest(folder).items():
        verify(folder / name, entry)
        assert entry.licence and entry.origin
    weights = {p.name for p in folder.iterdir() if p.suffix in (".onnx", ".npz", ".tflite")}
    assert weights == set(read_manifest(folder))


def test_a_name_is_found_in_the_models_folder(folder):
    assert find_model("net.onnx") == folder / "net.onnx"


def test_a_path_is_the_users_own(folder, tmp_path):
    own = tmp_path / "mine.onnx"
    own.write_bytes(b"")
    assert find_model(own) == own
    with pytest.raises(ModelError, match="no such file"):
        find_model(tmp_path / "absent.onnx")


def test_a_name_in_the_working_folder_is_the_users_own_unless_it_ships(
    folder, tmp_path_factory, monkeypatch
):
    here = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(here)
    for name in ("mine.onnx", "net.onnx"):
        (here / name).write_bytes(b"")
    assert find_model("mine.onnx").resolve() == here / "mine.onnx"
    assert find_model("net.onnx") == folder / "net.onnx"
    (here / "mine.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="face-recon export"):
        find_model("mine.pt")


def test_a_replaced_file_is_refused(folder):
    (folder / "net.onnx").write_bytes(b"other weights")
    with pytest.raises(ModelError, match="SHA-256"):
        find_model("net.onnx")


def test_a_file_is_read_again_when_it_changes_and_only_then(tmp_path):
    reads = []

    @once_per_file
    def text(path):
        reads.append(path)
        return path.read_text()

    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a")
    other.write_text("b")
    assert [text(one), text(other), text(one), text(other)] == ["a", "b", "a", "b"]
    assert reads == [one, other]
    one.write_text("longer")
    assert [text(one), text(other)] == ["longer", "b"]
    assert reads == [one, other, one]


def test_missing_files_and_names_say_so(folder):
    with pytest.raises(ModelError, match=r"net\.onnx"):
        find_model("other.onnx")
    (folder / "net.onnx").unlink()
    with pytest.raises(ModelError, match="no such file"):
        find_model("net.onnx")


@pytest.mark.parametrize("text", ["", "[]", '{"files": [{"name": "x"}]}'])
def test_a_broken_manifest_is_refused(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match="manifest"):
        find_model("net.onnx")


def test_no_models_folder_says_where_it_looked(monkeypatch, tmp_path):
    monkeypatch.setenv(MODELS_DIR_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="nowhere"):
        models_dir()
