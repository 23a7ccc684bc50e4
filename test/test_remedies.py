"""A remedy that leads nowhere is worse than none: what remedies name must be there."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest
from command_line import commands

from face_recon_ros.cli.main import make_parser
from face_recon_ros.core.detection import BACKENDS

ROOT = Path(__file__).resolve().parents[1]
_PARAMETER = re.compile(
    r"\b(?:camera|detector|tracker|reconstructor|output|visualization|neck|look_at)\.\w+(?:\.\w+)*"
)
#: Remedies that send the reader away without saying what for.
_EMPTY = {"see the docs", "see the README", "choose", "correct it", "mend it", "check them"}


def remedies() -> dict[str, str]:
    """Every remedy as it is written, in words -> file and line of one place."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "face_recon_ros").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_fault = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id.endswith("Error")
                and len(node.args) == 3
            )
            if is_fault:
                words = [
                    inner.value
                    for inner in ast.walk(node.args[2])
                    if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
                ]
                for text in words:
                    found.setdefault(text, f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


REMEDIES = remedies()


def naming(pattern: str) -> list[tuple[str, str]]:
    """What a pattern finds in remedies, with the place."""
    return [
        (match, place) for text, place in REMEDIES.items() for match in re.findall(pattern, text)
    ]


def test_there_are_remedies():
    assert len(REMEDIES) > 150


def test_none_only_sends_away():
    assert not {text: place for text, place in REMEDIES.items() if text in _EMPTY}


def test_options_exist():
    known = set().union(*commands(make_parser()).values()) | {"--src", "--dst"}
    known |= {"--timeout"} if "--timeout" in known else set()
    scripts = "\n".join(p.read_text() for p in (ROOT / "scripts").glob("*.py"))
    missing = {o: p for o, p in naming(r"(--[a-z][\w-]+)") if o not in known and o not in scripts}
    assert not missing


def test_detectors_that_are_recommended_ship():
    assert all(name in BACKENDS for name, _ in naming(r"--detector (\w+)"))
    from face_recon_ros.core.detection import DetectorConfig, make_detector

    for name in BACKENDS:  # without a file of the user's
        make_detector(DetectorConfig(backend=name))


def test_commands_exist():
    known = commands(make_parser())
    for words, place in naming(r"face-recon ((?:[a-z]+ ?)+)"):
        assert words.strip() in known, f"{place}: face-recon {words}"


def test_files_exist():
    for name, place in naming(r"\b((?:docs|scripts|models|launch|config)/[\w./-]*\w)"):
        assert (ROOT / name).exists(), f"{place}: {name}"


def test_packages_and_extras_are_those_of_the_setup():
    setup = (ROOT / "setup.py").read_text()
    for extra, place in naming(r"face_recon_ros\[(\w+)\]"):
        assert f'"{extra}": [' in setup, f"{place}: extra {extra}"
    for package, place in naming(r"pip install ([a-z][\w-]*)"):
        assert package == "face_recon_ros" or f'"{package}' in setup, f"{place}: {package}"


def test_parameters_exist():
    pytest.importorskip("rclpy", reason="parameters are declared with rclpy")
    from face_recon_ros.nodes.parameters import GROUPS, leaves

    known = {leaf.name for group in GROUPS for leaf in leaves(group)}
    for name, place in naming(_PARAMETER.pattern):
        assert name in known or any(k.startswith(f"{name}.") for k in known), f"{place}: {name}"


def test_other_peoples_programs_are_installed_with_us():
    assert any(name == "rosbags-convert" for name, _ in naming(r"(rosbags-convert)"))
    assert shutil.which("rosbags-convert", path=str(Path(sys.executable).parent))
