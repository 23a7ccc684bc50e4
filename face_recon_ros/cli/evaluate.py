"""`face-recon evaluate ...`: the list of evaluations."""

from __future__ import annotations

from face_recon_ros.cli import common
from face_recon_ros.cli.evaluate_bag import add_bag_command
from face_recon_ros.cli.evaluate_compare import add_compare_command
from face_recon_ros.cli.evaluate_detection import add_detection_command
from face_recon_ros.cli.evaluate_expression import add_expression_command
from face_recon_ros.cli.evaluate_geometry import add_geometry_command
from face_recon_ros.cli.evaluate_identity import add_identity_command
from face_recon_ros.cli.evaluate_landmarks import add_landmarks_command
from face_recon_ros.cli.evaluate_photometric import add_photometric_command
from face_recon_ros.cli.evaluate_pose import add_pose_command
from face_recon_ros.cli.evaluate_shape import add_shape_command
from face_recon_ros.cli.evaluate_speed import add_speed_command
from face_recon_ros.cli.evaluate_synthetic import add_synthetic_command
from face_recon_ros.cli.evaluate_temporal import add_temporal_command
from face_recon_ros.cli.evaluate_tracking import add_tracking_command

_EVALUATE = """Measures the pipeline. Every evaluation writes JSON (--out): the figures, their
definitions, what was left out and why, what they were measured with; many take --report (a bag:
always), which writes a self-contained HTML page too. docs/evaluation.md explains the protocols
and their traps.
"""

_EXAMPLES = """examples:
  face-recon evaluate landmarks --images afw --out afw.json --report afw.html
  face-recon evaluate geometry --images scans --out now.json
  face-recon evaluate pose --images AFLW2000 --layout aflw2000 --out pose.json
  face-recon evaluate synthetic --turntable 25 --out truth && \\
    face-recon evaluate landmarks --images truth --out truth.json
  face-recon evaluate bag recording --out report
  face-recon evaluate compare before.json after.json"""


def add_evaluation_commands(commands: common.Subparsers) -> None:
    """Adds `evaluate` to the commands of `face-recon`."""
    parser = common.command(
        commands,
        "evaluate",
        "landmarks, geometry, pose, identity, detection, bags, speed, ...",
        _EVALUATE,
        _EXAMPLES,
    )
    kinds = parser.add_subparsers(title="evaluations", metavar="WHAT", required=True)
    add_landmarks_command(kinds)
    add_geometry_command(kinds)
    add_shape_command(kinds)
    add_expression_command(kinds)
    add_pose_command(kinds)
    add_identity_command(kinds)
    add_photometric_command(kinds)
    add_temporal_command(kinds)
    add_detection_command(kinds)
    add_tracking_command(kinds)
    add_speed_command(kinds)
    add_bag_command(kinds)
    add_synthetic_command(kinds)
    add_compare_command(kinds)
