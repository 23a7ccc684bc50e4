"""`face-recon evaluate expression`."""

from __future__ import annotations

import argparse
from typing import Any

from face_recon_ros.cli import common
from face_recon_ros.evaluation.expression_benchmark import evaluate_expression


def add_expression_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "expression",
        "expressions on photographs against another method's landmarks",
        "Gaps of lids and lips, the mouth's width and corners and the brows' heights, on the\n"
        "reconstructed face and on 68 landmarks in 3D of another method: --images holds NAME.jpg\n"
        "and NAME.xyz, as scripts/mediapipe_points.py writes them.",
    )
    common.add_image_options(parser, "NAME.jpg + NAME.xyz")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    return common.run_still_evaluation(
        args,
        "expression",
        lambda chain, model, execution: evaluate_expression(
            args.images, chain, model, execution=execution
        ),
        lambda r: f"{_table(r)}\n{r['count']} images, {r['missed']} missed",
    )


def _table(result: dict[str, Any]) -> str:
    """Correlation and amplitude of every measure, and its channels."""
    rows = []
    for name, row in result["measures"].items():
        mesh = row["mesh"]
        channels = ", ".join(f"{k} {common.figure(v)}" for k, v in row["channels"].items())
        rows.append((name, mesh["correlation"], mesh["amplitude"], channels))
    return common.table(("measure", "correlation", "amplitude", "channels"), rows)
