"""`face-recon stream`: expressions of a camera or a video to animation tools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from face_recon_ros.cli.options import (
    add_camera_options,
    add_frames_option,
    add_pipeline_options,
    add_topic_options,
    open_input,
    pipeline_config,
    tell_input,
)
from face_recon_ros.core.errors import ConfigError, DataError
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import OFF
from face_recon_ros.core.types import Face, Image
from face_recon_ros.io.expressions_out import (
    LIVE_LINK,
    PORTS,
    VMC,
    CsvRecorder,
    LiveLinkEncoder,
    Neutral,
    Performance,
    UdpSender,
    VmcEncoder,
)
from face_recon_ros.io.sources import Source, paced

_DESCRIPTION = """Sends a person's expressions and head rotation to animation tools, over UDP:
  vmc        VMC over OSC: VSeeFace, Warudo, VNyan, Unity, Godot
  livelink   the packets of Epic's Live Link Face app: Unreal, Blender add-ons
or writes the app's CSV table. The 52 expressions have ARKit's names. Packets stay on this machine
unless --host names another one."""

_EXAMPLES = """examples:
  face-recon stream /dev/video0 --to vmc --calibrate 3
  face-recon stream 0 --to livelink --host 192.168.1.20
  face-recon stream talk.mp4 --csv talk.csv"""


def add_stream_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `stream`."""
    parser = subparsers.add_parser(
        "stream",
        help="expressions to animation tools (VMC, Live Link Face, CSV)",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="camera, stream, video, bag or `pattern`")
    parser.add_argument("--to", choices=(VMC, LIVE_LINK), help="protocol")
    parser.add_argument("--host", default="127.0.0.1", help="of the receiver (default: this one)")
    parser.add_argument(
        "--port", type=int, help=f"of the receiver (default: {PORTS[VMC]}, {PORTS[LIVE_LINK]})"
    )
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="table in place of packets, or too"
    )
    parser.add_argument(
        "--calibrate",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="take the person's face at rest off, which they show so long (default: 0, not)",
    )
    parser.add_argument(
        "--subject", default="face", help="name in Live Link (default: %(default)s)"
    )
    add_frames_option(parser)
    add_pipeline_options(parser, max_faces=4)
    add_camera_options(parser)
    add_topic_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    if args.to is None and args.csv is None:
        raise ConfigError("--to or --csv", "neither", "try --to vmc")
    source, resolver = open_input(args)
    config = pipeline_config(args)
    config = replace(config, reconstructor=replace(config.reconstructor, colours=OFF))
    pipeline = FacePipeline.from_config(config)
    names = pipeline.reconstructor.model.expression_names
    neutral = Neutral(args.calibrate)
    encode = LiveLinkEncoder(args.subject) if args.to == LIVE_LINK else VmcEncoder()
    sender = UdpSender(args.host, args.port or PORTS[args.to]) if args.to else None
    table = CsvRecorder(args.csv) if args.csv else None
    chosen, count = "", 0
    try:
        for k, image in enumerate(_images(source, in_real_time=sender is not None)):
            if args.frames and k >= args.frames:
                break
            if source.camera_info is not None:
                resolver.update(source.camera_info)
            faces = pipeline.process(image, resolver(image)).faces
            if (face := _same_or_nearest(faces, chosen)) is None:
                continue
            chosen, count = face.track.id, count + 1
            performance = neutral(
                Performance.of(
                    image.stamp, names, face.coefficients.expression[0], face.camera_from_face
                )
            )
            if sender:
                sender.send(encode(performance))
            if table:
                table.add(performance)
    finally:
        source.close()
        if table:
            table.close()
        if sender:
            sender.close()
    tell_input(source, resolver)
    if count == 0:
        raise DataError(f"a face in {source.name}", "none", "try --tiles 3, or --min-score 0.3")
    if not neutral.done:
        print("the source ended before the calibration: nothing was taken off", file=sys.stderr)
    print(f"{count} images with a face" + (f"; {args.csv}" if table else ""))
    return 0


def _images(source: Source, *, in_real_time: bool) -> Iterator[Image]:
    """Images as they come; files at their own pace where somebody watches."""
    return paced(iter(source), source.fps) if in_real_time and not source.live else iter(source)


def _same_or_nearest(faces: list[Face], chosen: str) -> Face | None:
    """The person of the last image, else the largest face."""
    for face in faces:
        if face.track.id == chosen:
            return face
    return max(faces, key=lambda face: face.box[2] - face.box[0], default=None)
