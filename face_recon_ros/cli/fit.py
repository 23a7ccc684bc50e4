"""`face-recon fit`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from face_recon_ros.cli import common
from face_recon_ros.cli.cameras import add_camera_options, camera_resolver
from face_recon_ros.cli.options import add_output, add_pipeline_options
from face_recon_ros.evaluation.output import write_json


def add_fit_command(commands: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        commands,
        "fit",
        "refine one portrait by iterative analysis by synthesis",
        "Fits the face model to the largest face of a picture: minimises the difference between\n"
        "rendering and photograph (Blanz and Vetter 1999): the traditional way, to compare with\n"
        "or to refine a portrait offline. Writes NAME_fit.ply, NAME_fit.png and NAME_fit.json.",
    )
    parser.add_argument("image", type=Path, help="picture; its largest face is fitted")
    add_output(
        parser, "--out", folder=True, required=True, metavar="DIR", help="folder of the results"
    )
    parser.add_argument(
        "--start",
        choices=("network", "scratch"),
        default="network",
        help="start of the fit (default: %(default)s)",
    )
    parser.add_argument("--refine", type=int, default=0, help=argparse.SUPPRESS)
    add_pipeline_options(parser)
    common.refuse_options(parser, *common.SEQUENCE_OPTIONS, "threads")
    add_camera_options(parser)
    common.refuse_options(parser, "rectified")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    from face_recon_ros.evaluation.portrait import fit_portrait

    chain, model = common.still_chain(args)
    result = fit_portrait(
        args.image,
        args.out,
        chain,
        model,
        from_scratch=args.start == "scratch",
        camera_of=partial(camera_resolver(args).of_picture, args.image),
    )
    result["provenance"] = common.pipeline_provenance(args, start=args.start)
    write_json(args.out / f"{args.image.stem}_fit.json", result)
    print(
        f"{result['seconds']:.1f} s; difference to the photograph "
        f"{result['photometric_start']:.2f} -> {result['photometric_end']:.2f} of 255; {args.out}"
    )
    return 0
