"""`face-recon stream`: expressions of a camera or a video to animation tools."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator

from face_recon_ros.cli import common
from face_recon_ros.cli.numbers import finite
from face_recon_ros.cli.options import (
    add_output,
    add_source_options,
    no_face,
    open_input,
    pipeline_config,
    progress,
    report_input,
    say_idle,
    without_colours,
)
from face_recon_ros.cli.stopping import stoppable
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.types import Image
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.expression_stream import (
    PROTOCOLS,
    ExpressionStream,
    Sink,
    StreamConfig,
    UdpSink,
)
from face_recon_ros.io.expressions_out import LIVE_LINK, PORTS, VMC, CsvRecorder, Performance
from face_recon_ros.io.sources import Source, paced, with_cameras

_DESCRIPTION = """Sends a person's expressions and head rotation to animation tools, over UDP:
  vmc        VMC over OSC: VSeeFace, Warudo, VNyan, Unity, Godot
  livelink   the packets of Epic's Live Link Face app: Unreal, Blender add-ons
or writes the app's CSV table. The 52 expressions have ARKit's names. Packets stay on this machine
unless --host names another one. Ctrl-C ends the source. In ROS the expression bridge node does
the same."""

_EXAMPLES = """examples:
  face-recon stream /dev/video0 --to vmc --calibrate 3
  face-recon stream 0 --to livelink --host 192.168.1.20
  face-recon stream talk.mp4 --csv talk.csv"""


def add_stream_command(subparsers: common.Subparsers) -> None:
    """Adds `stream`."""
    c = StreamConfig()
    parser = common.command(
        subparsers,
        "stream",
        "expressions to animation tools (VMC, Live Link Face, CSV)",
        _DESCRIPTION,
        _EXAMPLES,
    )
    parser.add_argument("source", help="camera, stream, video, bag or `pattern`")
    parser.add_argument("--to", choices=PROTOCOLS, help="protocol (see above)")
    parser.add_argument(
        "--host", default=c.host, help="address of the receiver (default: this machine)"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=c.port,
        help=f"UDP port of the receiver (default: {PORTS[VMC]}, livelink: {PORTS[LIVE_LINK]})",
    )
    add_output(
        parser,
        "--csv",
        metavar="FILE",
        help="write the table; with --to, packets are sent as well",
    )
    parser.add_argument(
        "--calibrate",
        type=finite,
        default=c.calibrate_s,
        metavar="SECONDS",
        help="subtract the face at rest: the person keeps a neutral face for so long at first "
        "(default: 0, do not subtract)",
    )
    parser.add_argument(
        "--id",
        default=c.id,
        help="track id of the person (default: the nearest one, as long as seen)",
    )
    parser.add_argument(
        "--subject", default=c.subject, help="subject name in Live Link (default: %(default)s)"
    )
    add_source_options(parser, max_faces=4, meshes=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    if args.to is None and args.csv is None:
        raise ConfigError("--to or --csv", "neither", "try --to vmc")
    config = StreamConfig(
        args.to or VMC, args.host, args.port, args.subject, args.id, args.calibrate
    )
    to_tool = {name: getattr(StreamConfig, name) for name in ("host", "port")}
    if args.to is None:
        say_idle(args, "a table alone", to_tool)
    if args.to != LIVE_LINK:
        say_idle(args, "all but --to livelink", {"subject": StreamConfig.subject})
    source, resolver = open_input(args)
    source = stoppable(source, args.frames)
    pipeline = FacePipeline.from_config(without_colours(pipeline_config(args)))
    names = pipeline.reconstructor.model.expression_names
    sinks: list[Sink] = [UdpSink(config)] if args.to else []
    if args.csv:
        sinks.append(CsvRecorder(args.csv))
    stream = ExpressionStream(config, sinks)
    try:
        for image, camera in _images(args, source, resolver):
            faces = pipeline.process(image, camera).faces
            for face in sorted(faces, key=lambda face: face.camera_from_face.translation[2]):
                c, pose = face.coefficients, face.camera_from_face
                performance = Performance.of(image.stamp, names, c.expression[0], pose)
                stream.offer(face.track.id, performance)
    finally:
        source.close()
        stream.close()
    report_input(source, resolver)
    if stream.count == 0:
        raise no_face(source, f"face {args.id}" if args.id else "a face")
    if not stream.calibrated:
        print("the source ended before the calibration: nothing was taken off", file=sys.stderr)
    print(f"{stream.count} images with a face" + (f"; {args.csv}" if args.csv else ""))
    return 0


def _images(
    args: argparse.Namespace, source: Source, resolver: CameraResolver
) -> Iterator[tuple[Image, PinholeCamera]]:
    """Images as they come, with their cameras; files at their own pace if people watch."""
    if args.to is None:
        return progress(args, with_cameras(source, resolver), source.length)
    paced_images = None if source.live else paced(iter(source), source.fps)
    return itertools.islice(with_cameras(source, resolver, paced_images), args.frames or None)
