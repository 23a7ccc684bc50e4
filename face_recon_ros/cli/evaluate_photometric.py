"""`face-recon evaluate photometric`."""

from __future__ import annotations

import argparse
from typing import Any

from face_recon_ros.cli import common
from face_recon_ros.cli.numbers import at_least


def add_photometric_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "photometric",
        "rendering against photograph over the skin; optionally what a fit would gain",
        "Mean absolute difference between rendering and photograph over the visible skin\n"
        "(of 255), of the largest face of each picture. --fit runs the iterative fit from the\n"
        "network's answer and from scratch on each: what the network gains, at what cost in time.",
    )
    common.add_image_options(parser, "pictures")
    parser.add_argument("--fit", action="store_true", help="compare with the iterative fit")
    parser.add_argument(
        "--max-images",
        type=at_least(0),
        default=0,
        metavar="N",
        help="use N pictures, evenly spaced in the folder (default: all)",
    )
    common.add_report_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    from face_recon_ros.evaluation.photometric import evaluate_photometric

    return common.run_still_evaluation(
        args,
        "photometric",
        lambda chain, model, execution: evaluate_photometric(
            args.images,
            chain,
            model,
            fit=args.fit,
            max_images=args.max_images,
            execution=execution,
        ),
        _summary,
        fit=args.fit,
        max_images=args.max_images,
    )


def _summary(r: dict[str, Any]) -> str:
    line = f"{r['count']} images, {r['missed']} missed, {r['photometric']:.2f} of 255"
    if "fit_from_network" not in r:
        return line
    return (
        f"{line}; fitted from the network {r['fit_from_network']['photometric']:.2f}, "
        f"from scratch {r['fit_from_scratch']['photometric']:.2f}"
    )
