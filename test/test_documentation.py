"""What the documentation names must exist: commands, options, scripts, files; its example runs."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest
from command_line import commands

from face_recon_ros.cli.main import make_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "models/MODEL_CARD.md"]


@pytest.fixture(scope="module")
def known():
    return commands(make_parser())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_scripts_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (page.parent / target).exists(), target
    for script in re.findall(r"\b(scripts/\w+\.(?:py|sh))", text):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_options_exist(page, known):
    if page.name == "CHANGELOG.md":  # it tells of options that are gone, too
        return
    for line in re.findall(r"face-recon( [^`\n|]*)", page.read_text()):
        words = re.split(r"\s+#|&&|;|,| and ", line)[0].split()
        name = ""
        while words and f"{name} {words[0]}".strip() in known:
            name = f"{name} {words.pop(0)}".strip()
        first = words[0] if words else ""
        if not name:  # prose about the program
            assert not re.fullmatch(r"[a-z]+", first) or first in ("commands", "is"), line
            continue
        for option in re.findall(r"(?<!\S)(--[a-z][\w-]*)", " ".join(words)):
            assert option in known[name], f"face-recon {name} has no {option}"


ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


def names_in(path):
    """Functions, classes, methods, variables and fields that a module defines, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_the_files_that_the_architecture_names_exist():
    files = set(re.findall(r"\b[\w*/]+/[\w*]+\.(?:py|jinja|yaml|xml)\b", ARCHITECTURE))
    assert len(files) > 30
    for file in files:
        name = re.sub(r"[A-Z]{3,}", "*", file)  # evaluation/NAME.py
        assert [*(ROOT / "face_recon_ros").glob(name), *ROOT.glob(name)], file


def test_the_names_that_the_architecture_gives_are_in_their_files():
    """`NAME` in `FILE.py`, for the questions that a new reader asks, among others."""
    pairs = re.findall(r"`([A-Za-z_][\w.]*)[^`]*` in\s+`([\w/]+\.py)`", ARCHITECTURE)
    for name, file in pairs:
        known = set(names_in(ROOT / "face_recon_ros" / file))
        assert set(name.split(".")) <= known, f"{name} in {file}"
    named = {name for name, _ in pairs}
    assert named >= {"hide_faces", "CameraResolver.camera", "Detector", "make_detector", "depth"}


def test_the_architecture_names_nothing_that_is_gone():
    modules = [*(ROOT / "face_recon_ros").rglob("*.py")]
    known = {name for path in modules for name in (path.stem, *names_in(path))}
    words = re.findall(r"`([A-Z]\w*[a-z]\w*(?:\.\w+)?|[a-z]\w*_\w+)(?:\([^`]*\))?`", ARCHITECTURE)
    assert len(words) > 30
    for word in words:
        assert set(word.split(".")) <= known, word


def test_the_readmes_example_runs(tmp_path, monkeypatch, capsys):
    shutil.copy(ROOT / "face_recon_ros/io/portrait.jpg", tmp_path / "portrait.jpg")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(example.splitlines()) <= 10
    exec(compile(example, "README.md", "exec"), {})
    assert "(2259, 3)" in capsys.readouterr().out
