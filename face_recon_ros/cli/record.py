"""`face-recon record`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path

from face_recon_ros.cli import common
from face_recon_ros.cli.options import (
    add_frames_option,
    add_output,
    add_topic_options,
    open_input,
    report_input,
)
from face_recon_ros.cli.stopping import stoppable
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.types import Image
from face_recon_ros.evaluation.record import record
from face_recon_ros.io.sources import image_topic_of


def add_record_command(commands: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        commands,
        "record",
        "a video, folder or camera into a rosbag2",
        "Writes images into a rosbag2 without ROS: /camera/image_raw, with CameraInfo where\n"
        "there is a calibration. Ctrl-C ends the source; what was read is kept. Live topics:\n"
        "  ros2 bag record -s mcap /camera/image_raw /camera/camera_info",
    )
    parser.add_argument("source", help="video, folder, bag, device number, or `pattern`")
    add_output(parser, "--out", folder=True, required=True, metavar="BAG", help="folder to make")
    add_topic_options(parser)
    parser.add_argument(
        "--storage",
        choices=("mcap", "sqlite3"),
        default="mcap",
        help="file format of the bag (default: %(default)s)",
    )
    parser.add_argument("--compressed", action="store_true", help="JPEG instead of raw pixels")
    add_frames_option(parser)
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE.yaml",
        help="calibration file of camera_calibration; written as CameraInfo",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    source, resolver = open_input(args)

    def camera_of(image: Image) -> PinholeCamera | None:
        if source.camera_info is not None:
            resolver.update(source.camera_info)
        camera = resolver(image)
        return camera if camera.calibrated else None

    # A file's first stamp is 0, which in a message means "not stamped".
    shift = 0.0 if source.live or image_topic_of(source) else 1.0
    source = stoppable(source, args.frames)
    images = islice(source, args.frames or None)
    shifted = (replace(image, stamp=image.stamp + shift) for image in images)
    with common.Bar("record") as bar:
        count = record(
            shifted,
            args.out,
            storage=args.storage,
            compressed=args.compressed,
            camera=camera_of,
            total=args.frames or source.length or 0,
            progress=bar,
        )
    source.close()
    report_input(source, resolver)
    print(f"{count} image{'s' if count != 1 else ''} in {args.out}")
    return 0
