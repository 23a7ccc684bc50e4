"""`face-recon evaluate detection`."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.cli import common
from face_recon_ros.cli.numbers import at_least, finite
from face_recon_ros.cli.options import (
    add_detector_options,
    add_output,
    add_pool_options,
    detector_config,
)
from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.errors import ConfigError, DataError, FaceReconError
from face_recon_ros.core.models import DETECTORS, find_model
from face_recon_ros.evaluation.datasets import Skipped, images_by_name, read_stored_image
from face_recon_ros.evaluation.detection import (
    THRESHOLDS,
    Composer,
    DetectionScorer,
    Scene,
    evaluate_detection,
    list_scenes,
    read_scene,
    rendered_portraits,
)
from face_recon_ros.evaluation.output import provenance
from face_recon_ros.io.jobs import PerProcess

_DESCRIPTION = """Recall and precision of the detector by the size of the faces, as JSON.

Pictures come from --images: NAME.jpg with NAME.boxes (a line "x0 y0 x1 y1" for each face box,
`ignore` after those that count neither way) or NAME.pts (68 landmarks of one face). With
--compose their faces are shrunk to random sizes and pasted on --backgrounds, pictures without
faces; left out, on procedural ones. Without --images, renderings of the face model are pasted.
A video's images are searched in parts, in turn; here every picture is searched everywhere."""

_EXAMPLES = """examples:
  face-recon evaluate detection --out synthetic.json
  face-recon evaluate detection --images afw --compose 100 --out composed.json --preview shown
  face-recon evaluate detection --images rooms --detector full_range --out full_range.json"""


def add_detection_command(subparsers: common.Subparsers) -> None:
    """Adds `detection` to the sub-commands of `evaluate`."""
    parser = common.command(
        subparsers,
        "detection",
        "recall and precision of the detector by size of the faces",
        _DESCRIPTION,
        _EXAMPLES,
    )
    add_output(parser, "--out", required=True, metavar="FILE.json", help="the figures")
    parser.add_argument("--images", type=Path, metavar="DIR", help="annotated pictures")
    parser.add_argument(
        "--compose",
        type=at_least(0),
        metavar="N",
        help="pictures to compose (default: 0, the pictures of --images as they are; 60 without)",
    )
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="pictures without faces")
    parser.add_argument(
        "--size", default="1280x720", metavar="WxH", help="size of composed pictures (%(default)s)"
    )
    parser.add_argument(
        "--sides",
        nargs=2,
        type=finite,
        default=(16.0, 200.0),
        metavar=("MIN", "MAX"),
        help="sides of composed faces' boxes, pixels (default: 16 200)",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="seed of composed pictures (%(default)s)"
    )
    parser.add_argument(
        "--min-side",
        type=finite,
        default=24.0,
        metavar="PX",
        help="smaller faces count neither way (default: %(default)g)",
    )
    add_output(
        parser,
        "--preview",
        folder=True,
        metavar="DIR",
        help="write the pictures with the detections",
    )
    add_detector_options(parser)
    add_pool_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    count = (0 if args.images else 60) if args.compose is None else args.compose
    if not args.images and not count:
        raise ConfigError("--images, or --compose of at least 1", "neither", "give one of them")
    if args.backgrounds and not count:
        raise ConfigError("--compose N with --backgrounds", "none", "say how many to compose")
    if not 0 < args.sides[0] < args.sides[1]:
        raise ConfigError("--sides MIN MAX, 0 < MIN < MAX", f"{args.sides}", "16 200 is good")
    size = _size(args.size)
    options = ("detector", "min_score", "tiles", "size", "sides", "seed")
    settings = {name: getattr(args, name) for name in options}
    files = [find_model(args.detector_model or DETECTORS[args.detector])]
    told = provenance(files, {**settings, "compose": count})
    config, skipped = detector_config(args), Skipped()
    # one thread: other cores take other pictures
    least = replace(config, min_score=min(THRESHOLDS[0], config.min_score), threads=1)
    detector = PerProcess(functools.partial(make_detector, least))
    if args.preview:
        common.make_preview(args.preview)
    pictures = list_scenes(args.images, skipped) if args.images else {}
    measured = (detector, config.min_score, args.min_side, args.preview)
    with common.journalled(args, told) as execution:
        if count:
            portraits = _portraits(pictures, skipped) if args.images else rendered_portraits(count)
            compose = Composer(
                [(scene.rgb, box) for scene in portraits for box in scene.boxes],
                _backgrounds(args.backgrounds),
                size,
                tuple(args.sides),
                args.seed,
            )
            numbers = {f"{number:04d}": number for number in range(count)}
            scorer = DetectionScorer(compose, *measured)
            result = evaluate_detection(numbers, scorer, skipped, execution)
        else:
            scorer = DetectionScorer(read_scene, *measured)
            result = evaluate_detection(pictures, scorer, skipped, execution)
        result["provenance"] = told
        common.finish(args, result, _summary(args, result))
    return 0


def _summary(args: argparse.Namespace, result: dict[str, Any]) -> str:
    rows = ", ".join(f"{r['from_px']}-{r['to_px']} {r['recall']:.3f}" for r in result["by_size"])
    return (
        f"{result['faces']} faces of {args.min_side:g} px and more in {result['pictures']} "
        f"pictures: recall {result['recall']:.4f}, precision {result['precision']:.4f}, "
        f"{result['ms']:.1f} ms a picture; recall by size in pixels: {rows}: {args.out}"
    )


def _portraits(pictures: dict[str, Path], skipped: Skipped) -> Iterator[Scene]:
    """Those that can be read."""
    for name, path in pictures.items():
        try:
            yield read_scene(path)
        except FaceReconError as fault:
            skipped.add(name, str(fault))


def _size(text: str) -> tuple[int, int]:
    matched = re.fullmatch(r"(\d+)x(\d+)", text)
    width, height = map(int, matched.groups()) if matched else (0, 0)
    if min(width, height) < 64:
        raise ConfigError("--size WIDTHxHEIGHT of at least 64x64", repr(text), "1280x720 is good")
    return width, height


def _backgrounds(folder: Path | None) -> list[NDArray[np.uint8]]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise DataError(f"a folder of pictures at {folder}", "no such folder", "check the path")
    pictures = [read_stored_image(path) for path in images_by_name(folder, Skipped()).values()]
    if not pictures:
        raise DataError(f"pictures in {folder}", "none", "leave --backgrounds out")
    return pictures
