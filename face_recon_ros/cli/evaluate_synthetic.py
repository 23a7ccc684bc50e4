"""`face-recon evaluate synthetic`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from face_recon_ros.cli import common
from face_recon_ros.cli.numbers import at_least, finite
from face_recon_ros.cli.options import add_output
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.evaluation.synthetic import (
    ModelScenes,
    facing,
    read_coloured_mesh,
    scene_of_mesh,
    write_scenes,
)
from face_recon_ros.io.meshes import UNITS_M


def add_synthetic_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "synthetic",
        "writes pictures with known camera, pose and shape",
        "Renders the face model, or any coloured mesh, with known truth, in the formats that\n"
        "`evaluate landmarks`, `geometry` and `pose --layout synthetic` read.",
    )
    add_output(
        parser,
        "--out",
        folder=True,
        fresh=True,
        required=True,
        metavar="DIR",
        help="new folder of the pictures",
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--random", type=at_least(1), metavar="N", help="N people in different poses and light"
    )
    group.add_argument(
        "--turntable", type=at_least(1), metavar="N", help="one person in N views, side to side"
    )
    parser.add_argument(
        "--yaw",
        type=finite,
        default=60.0,
        metavar="DEG",
        help="range of the turntable to each side (default: %(default)g)",
    )
    parser.add_argument(
        "--size",
        type=at_least(16),
        default=480,
        metavar="PX",
        help="side of the pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=1,
        help="seed of people and light (default: %(default)s)",
    )
    parser.add_argument(
        "--face-model",
        default=FACE_MODEL,
        metavar="FILE",
        help="face model file (default: the shipped one)",
    )
    group = parser.add_argument_group("a turntable of another mesh")
    group.add_argument(
        "--mesh", type=Path, metavar="FILE", help="OBJ or PLY, neutral, with vertex colours as lit"
    )
    group.add_argument(
        "--mesh-landmarks",
        type=Path,
        metavar="FILE.pts3d",
        help='its 68 landmarks, lines "x y z", same unit and frame',
    )
    group.add_argument(
        "--unit",
        choices=tuple(UNITS_M),
        default="mm",
        help="unit of both (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    if (args.mesh is None) != (args.mesh_landmarks is None) or (args.mesh and not args.turntable):
        raise ConfigError(
            "--mesh with --mesh-landmarks and --turntable", "one without the other", "give all"
        )
    model = load_morphable_model(find_model(args.face_model), level="fine")
    scenes = ModelScenes(model, size_px=args.size)
    if args.mesh:
        mesh, marks = read_coloured_mesh(args.mesh, args.mesh_landmarks, args.unit)
        yaws = np.radians(np.linspace(-args.yaw, args.yaw, args.turntable))
        views = (
            scene_of_mesh(
                f"turn_{i:03d}", mesh, marks, model, scenes.camera, facing([0, 0, 0.55], yaw=yaw)
            )
            for i, yaw in enumerate(yaws)
        )
    elif args.turntable:
        views = scenes.turntable(args.turntable, yaw_deg=args.yaw, seed=args.seed)
    else:
        views = scenes.random(args.random, seed=args.seed)
    total = args.turntable or args.random
    count = write_scenes(tqdm(views, total=total, disable=None), args.out, seed=args.seed)
    print(f"{count} pictures with truth in {args.out}")
    return 0
