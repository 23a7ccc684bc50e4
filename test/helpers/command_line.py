"""The commands of `face-recon` and their options."""

from __future__ import annotations

import argparse


def commands(parser: argparse.ArgumentParser, name: str = "") -> dict[str, set[str]]:
    """Every command -> its options."""
    out = {name: set(parser._option_string_actions)}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                out |= commands(inner, f"{name} {word}".strip())
    return out
