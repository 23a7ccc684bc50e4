"""What the documentation names must exist: commands, options, scripts, files; its example runs."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import commands, every_command

from face_recon_ros.cli.main import make_parser
from face_recon_ros.training import config as training_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "models/MODEL_CARD.md"]
SCRIPTS = sorted((ROOT / "scripts").glob("*.*"))
PARSER = make_parser()


@pytest.fixture(scope="module")
def known():
    return commands(PARSER)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_scripts_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (page.parent / target).exists(), target
    for script in re.findall(r"\b(scripts/\w+\.(?:py|sh))", text):
        assert (ROOT / script).is_file(), script


def anchors(page):
    """What links to a page may name after `#`: its headings, as GitHub makes anchors of them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for heading in re.findall(r"^#+ (.*)$", prose, re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_headings(page):
    for file, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text()):
        assert anchor in anchors(page.parent / file if file else page), f"{file}#{anchor}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_can_be_called_by_their_path(script):
    """As the documentation calls them; what is only imported has no `#!` line."""
    assert os.access(script, os.X_OK) == script.read_text().startswith("#!")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_option_of_a_script_says_what_it_is(script):
    if script.suffix == ".py":
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                assert any(k.arg == "help" for k in node.keywords), ast.unparse(node)


def documented_texts():
    """Where commands are shown: pages, scripts, and the help of commands."""
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]  # it tells of what is gone
    yield from ((str(p.relative_to(ROOT)), p.read_text()) for p in (*pages, *SCRIPTS))
    for words, parser in every_command(PARSER):
        help_page = f"{parser.description}\n{parser.epilog}"
        yield f"face-recon {' '.join(words)} --help", help_page


TEXTS = dict(documented_texts())


@pytest.mark.parametrize("name", TEXTS)
def test_the_parser_accepts_the_commands_that_are_shown(name, capsys):
    text = TEXTS[name].replace("\\\n", " ")
    for line in re.findall(r"^\s*(?:&& )?face-recon (.*)$", text, re.M):
        words = re.split(r"\s+#|\s{3,}|&&| \| ", line)[0]
        if "..." in words or "[" in words:  # a pattern of commands
            continue
        try:
            PARSER.parse_args(shlex.split(words))
        except SystemExit as refused:
            assert not refused.code, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("name", TEXTS)
def test_options_of_scripts_exist(name):
    text = TEXTS[name].replace("\\\n", " ")
    for script, rest in re.findall(r"\b(scripts/\w+\.(?:py|sh))([^`\n]*)", text):
        code = (ROOT / script).read_text()
        if script == "scripts/demo.sh":  # it hands its options on
            code += (ROOT / "scripts/demo.py").read_text()
        for option in re.findall(r"(?<!\S)(--[a-z][\w-]*)", re.split(r"&&|\s#", rest)[0]):
            assert option in code or option == "--help", f"{script} has no {option}"


@pytest.mark.parametrize("name", TEXTS)
def test_tests_that_are_named_exist(name):
    for file, choice in re.findall(r"\b(test/\w+/\w+\.py)(?: -k (\w+))?", TEXTS[name]):
        assert (ROOT / file).is_file(), file
        if choice:
            names = set(names_in(ROOT / file))
            assert any(n.startswith("test_") and choice in n for n in names), f"{file} -k {choice}"


def settings_of_training():
    """Names that `--set` knows."""
    configs = (
        value for value in vars(training_config).values() if dataclasses.is_dataclass(value)
    )
    return {field.name for config in configs for field in dataclasses.fields(config)}


@pytest.mark.parametrize("name", TEXTS)
def test_settings_of_training_exist(name):
    for key in re.findall(r"--set[ =](?!KEY)([\w.]+)=", TEXTS[name].replace("key=value", "")):
        assert key.rpartition(".")[2] in settings_of_training(), key


@pytest.mark.parametrize("name", TEXTS)
def test_launch_arguments_exist(name):
    launch = [*(ROOT / "launch").glob("*.py"), ROOT / "face_recon_ros/nodes/launch_arguments.py"]
    code = "".join(path.read_text() for path in launch)
    for argument in re.findall(r"(?<![\w/.])([a-z]\w*):=", TEXTS[name]):
        if not name.startswith("scripts/"):  # they give parameters of nodes
            assert f'"{argument}"' in code, argument


@pytest.mark.parametrize("name", TEXTS)
def test_parameters_exist(name):
    pytest.importorskip("rclpy", reason="parameters are declared with rclpy")
    from face_recon_ros.nodes.parameters import GROUPS, leaves

    known = {leaf.name for group in GROUPS for leaf in leaves(group)}
    groups = "|".join(filter(None, GROUPS))
    for word in re.findall(rf"`((?:{groups})\.[\w.]*)", TEXTS[name]):
        if not word.endswith((".py", ".xml", ".yaml")):
            assert any(k == word or re.match(rf"{word}(?<=[._])|{word}\.", k) for k in known), word


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
