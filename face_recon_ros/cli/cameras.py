"""Command-line options about the camera that took the images."""

from __future__ import annotations

import argparse
from pathlib import Path

from face_recon_ros.cli.numbers import finite
from face_recon_ros.core.camera import DEFAULT_HORIZONTAL_FOV_DEG
from face_recon_ros.io.calibration import AUTO, NO, YES, CameraResolver


def add_camera_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `camera_resolver` reads."""
    group = parser.add_argument_group("camera")
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE.yaml",
        help="calibration file of camera_calibration",
    )
    group.add_argument(
        "--fov",
        type=finite,
        metavar="DEG",
        help="field of view of the longer side without calibration. Without either "
        f"{DEFAULT_HORIZONTAL_FOV_DEG:g} is assumed; pictures and video files may then have been "
        "cut out of larger ones, and nothing is assumed of their perspective",
    )
    group.add_argument(
        "--rectified",
        choices=(AUTO, YES, NO),
        default=AUTO,
        help="bags: whether P of CameraInfo counts and not K and D; auto: by the topic's name",
    )


def camera_resolver(
    args: argparse.Namespace, image_topic: str = "", *, whole: bool = False
) -> CameraResolver:
    """The resolver of cameras, by the options of `add_camera_options`.

    Args:
        args: the options.
        image_topic: of the images.
        whole: whether images are as their camera took them; `--fov` says so, too.
    """
    return CameraResolver(
        args.calibration,
        assumed_fov(args),
        rectified=getattr(args, "rectified", AUTO),
        image_topic=image_topic,
        whole=whole or getattr(args, "fov", None) is not None,
    )


def assumed_fov(args: argparse.Namespace) -> float:
    """Degrees, of images whose camera is not known."""
    fov = getattr(args, "fov", None)
    return DEFAULT_HORIZONTAL_FOV_DEG if fov is None else float(fov)
