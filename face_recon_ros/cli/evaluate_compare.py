"""`face-recon evaluate compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from face_recon_ros.cli import common
from face_recon_ros.cli.numbers import finite
from face_recon_ros.cli.options import add_output
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.evaluation.compare import compare
from face_recon_ros.evaluation.output import read_json, write_json


def add_compare_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "compare",
        "two results: better, worse or the same, for regression gates",
        "Compares two results of one evaluation: paired by image (or second of video) with\n"
        "bootstrap intervals, counts by a binomial test, AUC by its interval; noise and speed,\n"
        "single numbers, by more than 5 %. Exit code 1 when B is worse than A beyond chance and\n"
        "--tolerance. Results of detection, expression and tracking are not compared.",
    )
    parser.add_argument("a", type=Path, metavar="A.json", help="reference")
    parser.add_argument("b", type=Path, metavar="B.json", help="candidate")
    parser.add_argument(
        "--tolerance",
        type=finite,
        default=0.0,
        metavar="SHARE",
        help="B may be worse by this share of A (default: %(default)g)",
    )
    parser.add_argument(
        "--confidence",
        type=finite,
        default=0.95,
        help="of the bootstrap intervals (default: %(default)g)",
    )
    add_output(parser, "--out", metavar="FILE.json", help="the comparison as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    if not (0.0 < args.confidence < 1.0 and args.tolerance >= 0.0):
        raise ConfigError(
            "--confidence between 0 and 1, --tolerance of at least 0",
            f"{args.confidence} and {args.tolerance}",
            "0.95 and 0 are usual",
        )
    changes = compare(
        read_json(args.a), read_json(args.b), tolerance=args.tolerance, confidence=args.confidence
    )
    print(f"{'figure':30} {'A':>10} {'B':>10}  B - A [{100 * args.confidence:g} %]")
    for c in changes:
        d = c.difference
        gap = f"{d.value:+.4g} [{d.low:+.4g}, {d.high:+.4g}]" if d else f"{c.b - c.a:+.4g}"
        gap += f" n={c.pairs}" if c.pairs else ""
        gap += f" p={c.chance:.3g}" if c.chance is not None else ""
        print(f"{c.name:30} {c.a:10.4g} {c.b:10.4g}  {gap}  {c.verdict}")
    if args.out:
        write_json(args.out, {"changes": [vars(c) for c in changes]})
    return int(any(c.verdict == "worse" for c in changes))
