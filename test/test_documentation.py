"""What the documentation names must exist: commands, options, scripts, files; its example runs."""

from __future__ import annotations

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


def test_the_readmes_example_runs(tmp_path, monkeypatch, capsys):
    shutil.copy(ROOT / "face_recon_ros/io/portrait.jpg", tmp_path / "portrait.jpg")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(example.splitlines()) <= 10
    exec(compile(example, "README.md", "exec"), {})
    assert "(2259, 3)" in capsys.readouterr().out
