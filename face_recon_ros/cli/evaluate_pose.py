"""`face-recon evaluate pose`."""

from __future__ import annotations

import argparse

from face_recon_ros.cli import common
from face_recon_ros.evaluation.pose_benchmark import evaluate_pose


def add_pose_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "pose",
        "head rotation (AFLW2000-3D, BIWI, synthetic)",
        "Head rotation by the data set's own angle convention, and as one geodesic angle.\n"
        "  aflw2000   NAME.jpg + NAME.mat (Pose_Para, pt3d_68)\n"
        "  biwi       hpdb's numbered folders: frame_*_rgb.png, frame_*_pose.txt, rgb.cal\n"
        "  synthetic  NAME.png + NAME.json of `face-recon evaluate synthetic`",
    )
    common.add_image_options(parser, "the data set's folder")
    parser.add_argument(
        "--layout",
        choices=("aflw2000", "biwi", "synthetic"),
        required=True,
        help="data set (see above)",
    )
    common.add_report_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    return common.run_still_evaluation(
        args,
        "pose",
        lambda chain, model, execution: evaluate_pose(
            args.images, args.layout, chain, execution=execution
        ),
        lambda r: (
            f"{r['count']} images, {r['missed']} missed, mean absolute error "
            f"{r['all']['mae_deg']['mean']:.2f} degrees, geodesic "
            f"{r['all']['geodesic_deg']['mean']:.2f} degrees"
        ),
        layout=args.layout,
    )
