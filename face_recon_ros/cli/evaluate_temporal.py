"""`face-recon evaluate temporal`."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from face_recon_ros.cli import common
from face_recon_ros.cli.cameras import add_camera_options
from face_recon_ros.cli.options import (
    add_frames_option,
    add_output,
    add_pipeline_options,
    add_topic_options,
    open_input,
    report_input,
)
from face_recon_ros.core.errors import DataError
from face_recon_ros.evaluation.sequence import Recording, sequence_figures
from face_recon_ros.evaluation.sequence_reports import temporal_report
from face_recon_ros.io.sources import with_cameras


def add_temporal_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
        kinds,
        "temporal",
        "steadiness on a video: noise, drift, blinks, id switches",
        "Runs a video through the pipeline and measures what should stand still. On a clip of a\n"
        "still head all of depth_std_mm is error; a blink must not move the head.",
    )
    parser.add_argument("source", help="video, folder of pictures, bag, or `pattern`")
    add_output(parser, "--out", required=True, metavar="FILE.json", help="the figures")
    add_frames_option(parser)
    add_topic_options(parser)
    add_pipeline_options(parser)
    common.add_report_option(parser)
    add_camera_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    source, resolver = open_input(args)
    pipeline, names = common.live_pipeline(args)
    recording = Recording()
    with common.Bar("temporal") as bar:
        for image, camera in islice(with_cameras(source, resolver), args.frames or None):
            recording.add(pipeline.process(image, camera), image.stamp)
            bar(len(recording.stamps), source.length or 0)
    report_input(source, resolver)
    if not recording.stamps:
        raise DataError(f"images in {args.source}", "none", "check the source")
    figures = sequence_figures(recording, names)
    result = {
        "protocol": {"name": "temporal"},
        "sequence": figures,
        "provenance": common.pipeline_provenance(
            args, source=Path(args.source).name, **common.sequence_settings(args)
        ),
    }
    if args.report:
        temporal_report(result, Path(args.source).name).write(args.report)
    common.hint_no_face(figures)
    return common.finish(
        args,
        result,
        f"{figures['frames']} frames, {figures['missed_frames']} missed, "
        f"{figures['track_count']} tracks, {figures['id_switches']} id switches",
    )
