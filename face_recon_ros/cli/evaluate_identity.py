"""`face-recon evaluate identity`."""

from __future__ import annotations

import argparse

from face_recon_ros.cli import common
from face_recon_ros.cli.numbers import at_least
from face_recon_ros.evaluation.identity import EmbeddingLook, evaluate_identity


def add_identity_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "identity",
        "same or different person, by identity coefficients (LFW)",
        "How well identity coefficients separate people. --images holds several photographs a\n"
        "person: NAME_0001.jpg, NAME_0002.jpg, ... as LFW does.",
    )
    common.add_image_options(parser, "NAME_0001.jpg, NAME_0002.jpg, ...")
    parser.add_argument(
        "--max-persons",
        type=at_least(0),
        default=0,
        metavar="N",
        help="use N people, chosen at random (default: all)",
    )
    common.add_report_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    return common.run_still_evaluation(
        args,
        "identity",
        lambda chain, model, execution: evaluate_identity(
            args.images,
            chain,
            EmbeddingLook(model),
            max_persons=args.max_persons,
            execution=execution,
        ),
        lambda r: (
            f"{r['count']} images of {r['persons']} people, {r['missed']} missed, "
            f"AUC {r['identity']['auc_cosine']:.3f}, of the tracker's embedding "
            f"{r['embedding']['auc_cosine']:.4f}"
        ),
        max_persons=args.max_persons,
    )
