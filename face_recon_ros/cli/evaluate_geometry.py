"""`face-recon evaluate geometry`."""

from __future__ import annotations

import argparse
from typing import Any

from face_recon_ros.cli import common
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.evaluation.geometry import evaluate_geometry
from face_recon_ros.io.meshes import UNITS_M


def add_geometry_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "geometry",
        "neutral shape against scans (NoW style)",
        "Scan-to-mesh distance of the neutral face, beside the mean face's (what an answer that\n"
        "knows nothing has) and the floor (the face model fitted to the scan), and the skill\n"
        "between the two. --images holds NAME.jpg, NAME.ply (true neutral face) and NAME.pts3d\n"
        '(its 68 landmarks, lines "x y z", same unit and frame). Images with the same scan show\n'
        "one person: they are also scored together, as one track.",
    )
    common.add_image_options(parser, "NAME.jpg + NAME.ply + NAME.pts3d")
    parser.add_argument(
        "--unit",
        choices=tuple(UNITS_M),
        default="mm",
        help="unit of the scans (default: %(default)s)",
    )
    parser.add_argument(
        "--no-floor",
        action="store_true",
        help="leave out the fit of the face model to every scan (some seconds each), and skill",
    )
    common.add_report_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    fine = load_morphable_model(find_model(args.face_model), level="fine").triangles
    return common.run_still_evaluation(
        args,
        "geometry",
        lambda chain, model, execution: evaluate_geometry(
            args.images,
            chain,
            model,
            unit=args.unit,
            floor=not args.no_floor,
            fine_triangles=fine,
            execution=execution,
        ),
        lambda r: f"{_geometry_table(r)}\n{r['count']} images, {r['missed']} missed",
        unit=args.unit,
    )


def _geometry_table(result: dict[str, Any]) -> str:
    """What was measured beside the mean face, the floor and the skill, a line a figure."""
    tracks = result["people"] if result["people"]["count"] else {}
    header = ["mm", "mean face", "ours", "floor", "skill"]
    sides = [result["mean_face"], result, result.get("floor", {}), result.get("skill", {})]
    if tracks:
        header += ["as tracks", "skill"]
        sides += [tracks["ours"], tracks.get("skill", {})]
    figures = {
        "median_mm": "nearest surface, median",
        "landmark_mm": "51 landmarks, mean",
        "corresponding_mm": "corresponding vertices, mean",
    }
    return common.table(
        header, [[label, *(side.get(key) for side in sides)] for key, label in figures.items()]
    )
