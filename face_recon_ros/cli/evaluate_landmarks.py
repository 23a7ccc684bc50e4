"""`face-recon evaluate landmarks`."""

from __future__ import annotations

import argparse

from face_recon_ros.cli import common
from face_recon_ros.evaluation.landmark_benchmark import evaluate_landmarks
from face_recon_ros.evaluation.landmarks import LandmarkProjector


def add_landmarks_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "landmarks",
        "68 landmarks of annotated photographs (300-W, AFW, ...)",
        "Normalised mean error of the 68 landmarks. --images holds NAME.jpg and NAME.pts:\n"
        '68 lines "x y", iBUG order, pixel centres at integers (iBUG files with their header are\n'
        "read too). The annotation chooses among the detections; the crop is the detection's.",
    )
    common.add_image_options(parser, "NAME.jpg + NAME.pts", camera_matters=True)
    common.add_report_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    return common.run_still_evaluation(
        args,
        "landmarks",
        lambda chain, model, execution: evaluate_landmarks(
            args.images, chain, LandmarkProjector(model), fov_deg=args.fov, execution=execution
        ),
        lambda r: (
            f"{r['count']} images, {r['missed']} missed, "
            f"nme68 {100 * r['nme68']:.2f} %, nme51 {100 * r['nme51']:.2f} %"
        ),
        fov_deg=args.fov,
    )
