"""`face-recon evaluate speed`."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from tqdm import tqdm

from face_recon_ros.cli import common
from face_recon_ros.cli.cameras import add_camera_options
from face_recon_ros.cli.numbers import at_least
from face_recon_ros.cli.options import (
    add_output,
    add_pipeline_options,
    add_topic_options,
    open_input,
    pipeline_config,
    pipeline_settings,
)
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.evaluation.output import provenance, write_json
from face_recon_ros.evaluation.sequence_reports import speed_report
from face_recon_ros.evaluation.speed import measure
from face_recon_ros.io.sources import with_cameras

_DESCRIPTION = """Runs the live pipeline over a video as fast as it goes and writes, as JSON:
  stage_ms        p50, p95, p99, mean of each stage, over the frames in which it ran
  total_ms        the same of image -> faces
  fps             frames over time spent in the pipeline
  overhead_ratio  everything beside the network's inference, over that inference
  memory_mb       peak resident memory of this process
Loops the source until --frames have been measured, after --warmup frames that are not."""


def add_speed_command(subparsers: common.Subparsers) -> None:
    """Adds `speed` to the sub-commands of `evaluate`."""
    parser = common.command(
        subparsers,
        "speed",
        "milliseconds of every stage, fps, overhead, memory",
        _DESCRIPTION,
        "example: face-recon evaluate speed --source talk.mp4 --out speed.json",
    )
    parser.add_argument(
        "--source", required=True, help="video, picture, folder of pictures, bag, or `pattern`"
    )
    add_output(parser, "--out", required=True, metavar="FILE.json", help="the figures")
    parser.add_argument(
        "--frames", type=at_least(1), default=300, help="images to measure (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup", type=at_least(0), default=20, help="images before that (default: %(default)s)"
    )
    common.add_report_option(parser)
    add_pipeline_options(parser)
    add_camera_options(parser)
    add_topic_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    pipeline = FacePipeline.from_config(pipeline_config(args))
    source, resolver = open_input(args, loop=True)
    images = tqdm(
        itertools.islice(with_cameras(source, resolver), args.warmup + args.frames),
        total=args.warmup + args.frames,
        unit="image",
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
    )
    result = measure(
        pipeline,
        images,
        warmup=args.warmup,
        source=args.source,
    )
    source.close()
    network = pipeline.reconstructor.network
    settings = {
        "source": Path(args.source).name,
        "frames": args.frames,
        "warmup": args.warmup,
        "network_size": network.size,
        **pipeline_settings(args),
        "provider": network.provider,
    }
    result["provenance"] = provenance(common.pipeline_files(args), settings)
    write_json(args.out, result)
    if args.report:
        speed_report(result, Path(args.source).name).write(args.report)
    total, stages = result["total_ms"], result["stage_ms"]
    print(
        f"{result['fps']:.1f} fps; total p50 {total['p50']:.1f} p99 {total['p99']:.1f} ms; "
        + ", ".join(f"{name} {stage['p50']:.2f}" for name, stage in stages.items())
        + f"; overhead {result['overhead_ratio']:.2f} x inference: {args.out}"
    )
    return 0
