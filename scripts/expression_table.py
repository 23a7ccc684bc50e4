#!/usr/bin/env python3
"""Writes docs/expressions.md: which expression channels can be trusted, from measurements.

face-recon evaluate shape --out shape.json
face-recon evaluate expression --images ANNOTATED --out photographs.json    # optional
scripts/expression_table.py shape.json [photographs.json ...] > docs/expressions.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from face_recon_ros.evaluation.expression import TRUSTED_CORRELATION, untrusted

_HEAD = """# Expressions: what can be trusted

`/face/<id>/expression` and the files of `face-recon reconstruct` carry 52 activations by ARKit's
names. A network does not know all of them equally well. A robot should act on the trusted ones
only; the others are given because a face looks stiff without them.

This page is written by `scripts/expression_table.py` from measurements; do not edit it.
"""


def main() -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", type=Path, help="of `face-recon evaluate shape`")
    parser.add_argument(
        "photographs", type=Path, nargs="*", help="of `face-recon evaluate expression`"
    )
    arguments = parser.parse_args()
    shape = json.loads(arguments.shape.read_text())
    print(
        page(shape, [(p.stem, json.loads(p.read_text())) for p in arguments.photographs]), end=""
    )


def page(shape: dict[str, Any], photographs: list[tuple[str, dict[str, Any]]]) -> str:
    """The page as Markdown.

    Args:
        shape: result of `evaluate shape`.
        photographs: names and results of `evaluate expression`.
    """
    table = shape["expression"]
    bad = untrusted(table)
    trusted = [row["name"] for row in table if row["trusted"]]
    models = "".join(f"| `{n}` | `{sha}` |\n" for n, sha in shape["provenance"]["models"].items())
    parts = [
        _HEAD,
        f"Trusted, {len(trusted)}: {_names(trusted)}.\n",
        f"**Untrusted**, {len(bad)}: {_names(bad)}.\n",
        f"| measured with | SHA-256 |\n|---|---|\n{models}",
        "## On renderings\n\n"
        f"{shape['views']} pictures of {shape['people']} rendered people never trained on "
        "(`face-recon evaluate shape`): correlation of the answer with the truth; amplitude, the "
        "slope of the answer over the truth (1: the full motion); shown, the share of pictures in "
        "which the truth is active; in a track, the correlation once six other pictures have "
        f"shown the person. Trusted: {TRUSTED_CORRELATION:g} at least in one picture alone.\n",
        "| channel | correlation | amplitude | in a track | shown | trusted |\n"
        "|---|---|---|---|---|---|\n"
        + "".join(
            f"| `{row['name']}` | {_number(row['correlation'])} | {_number(row['amplitude'])} | "
            f"{_number(along['correlation'])} | {_number(row['shown'])} | "
            f"{'yes' if row['trusted'] else '**no**'} |\n"
            for row, along in zip(table, shape["expression_in_track"], strict=True)
        ),
    ]
    for name, result in photographs:
        parts += [_photographs(f": {name}" if len(photographs) > 1 else "", result)]
    return "\n".join(parts)


def _photographs(name: str, result: dict[str, Any]) -> str:
    found = result["count"] - result["missed"]
    rows = ""
    for row in result["measures"].values():
        channels = ", ".join(f"{k} {_number(v)}" for k, v in row["channels"].items())
        mesh = [_number(row["mesh"][key]) for key in ("correlation", "amplitude")]
        alone = _number(row["expression_alone"]["correlation"])
        cells = [row["measure"], *mesh, alone, channels]
        rows += f"| {' | '.join(cells)} |\n"
    return (
        f"## On photographs{name}\n\n"
        f"{found} photographs against MediaPipe FaceMesh's points (`scripts/mediapipe_points.py`, "
        "`face-recon evaluate expression`): the same measure on our mesh and on theirs, and the "
        "correlation of channels with it. FaceMesh is another opinion, not the truth; its own "
        "blendshapes are not in its wheel.\n\n"
        "| measure | correlation | amplitude | of the expression alone | channels, with the sign "
        "they should have |\n|---|---|---|---|---|\n" + rows
    )


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.2f}"


if __name__ == "__main__":
    main()
