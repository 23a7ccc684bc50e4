"""The commands of `face-recon` and their options."""

from __future__ import annotations

import argparse

from face_recon_ros.cli.main import EXIT_FAULT, main


def commands(parser: argparse.ArgumentParser, name: str = "") -> dict[str, set[str]]:
    """Every command -> its options."""
    out = {name: set(parser._option_string_actions)}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                out |= commands(inner, f"{name} {word}".strip())
    return out


def every_command(parser, words=()):
    """All commands, with the words that call them."""
    yield words, parser
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for word, inner in action.choices.items():
                yield from every_command(inner, (*words, word))


def fails(capsys, *arguments):
    """Runs a command that must fail; its one line."""
    assert main([str(a) for a in arguments]) == EXIT_FAULT
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("face-recon: expected ")
    assert ", got " in line and "; " in line
    return line
