"""`face-recon evaluate tracking`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from face_recon_ros.cli import common
from face_recon_ros.cli.cameras import add_camera_options
from face_recon_ros.cli.numbers import at_least, finite
from face_recon_ros.cli.options import (
    add_frames_option,
    add_output,
    add_pipeline_options,
    add_topic_options,
    open_input,
    pipeline_config,
    pipeline_settings,
    report_input,
)
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.models import EMBEDDING, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.pipeline import FacePipeline, Frame, PipelineConfig
from face_recon_ros.core.tracker_config import APPEARANCE
from face_recon_ros.core.types import Image
from face_recon_ros.evaluation.mot import MotConfig, TrueFace
from face_recon_ros.evaluation.output import provenance, write_json
from face_recon_ros.evaluation.room import Person, Room
from face_recon_ros.evaluation.room_script import RoomConfig
from face_recon_ros.evaluation.tracking import (
    Annotated,
    draw,
    evaluate_tracking,
    mot_lines,
    portrait_people,
    read_mot,
    with_truth,
)
from face_recon_ros.io.folders import make_folder
from face_recon_ros.io.images import write_image
from face_recon_ros.io.sources import with_cameras

_DESCRIPTION = """Whether every face keeps its id and every mesh has a face, as JSON: MOTA, IDF1,
id switches, ghosts a minute, and whether people who return have their old id.

Without SOURCE it is a scripted room, made from --seed: people who walk, turn away, cross,
leave for ten or twenty seconds and return. With --portraits they wear real faces. With SOURCE (a
video, a folder of pictures or a bag) and --truth it is your own: lines
"frame,id,left,top,width,height,1" as in MOTChallenge's gt.txt, frames counted from 1."""

_EXAMPLES = """examples:
  face-recon evaluate tracking --out room.json --preview room
  face-recon evaluate tracking --people 4 --seconds 40 --rate 10 --out short.json
  face-recon evaluate tracking --portraits faces --out portraits.json
  face-recon evaluate tracking bag --truth gt.txt --out bag.json
  face-recon evaluate tracking --write room --out room.json
  face-recon evaluate tracking room --truth room/gt.txt --fov 70 --out again.json"""

_PREVIEW_EVERY_S = 2.0


def add_tracking_command(subparsers: common.Subparsers) -> None:
    """Adds `tracking` to the sub-commands of `evaluate`."""
    room = RoomConfig()
    parser = common.command(
        subparsers,
        "tracking",
        "ids over time: MOTA, IDF1, id switches, ghosts, returns",
        _DESCRIPTION,
        _EXAMPLES,
    )
    parser.add_argument(
        "source", nargs="?", default="", metavar="SOURCE", help="video, folder of pictures, bag"
    )
    parser.add_argument("--truth", type=Path, metavar="GT.txt", help="true faces of SOURCE")
    add_output(parser, "--out", required=True, metavar="FILE.json", help="the figures")
    add_output(
        parser,
        "--preview",
        folder=True,
        metavar="DIR",
        help="write a picture with true and found faces for every two seconds",
    )
    parser.add_argument(
        "--min-iou",
        type=finite,
        default=MotConfig.min_iou,
        help="least IoU of a true and a found box (default: %(default)s)",
    )
    parser.add_argument(
        "--appearance",
        choices=APPEARANCE,
        default="auto",
        help="whether an embedding distinguishes faces, too (default: %(default)s)",
    )
    add_frames_option(parser)
    group = parser.add_argument_group("room")
    group.add_argument(
        "--people",
        type=at_least(0),
        default=room.people,
        help="number of people (default: %(default)s)",
    )
    group.add_argument(
        "--seconds",
        type=finite,
        default=room.seconds,
        help="length of the scene, seconds (default: %(default)s)",
    )
    group.add_argument(
        "--rate",
        type=finite,
        default=room.rate_hz,
        help="images a second, also of a SOURCE that is a folder (%(default)s)",
    )
    group.add_argument(
        "--seed", type=at_least(0), default=0, help="seed of the room (%(default)s)"
    )
    group.add_argument(
        "--portraits",
        type=Path,
        metavar="DIR",
        help="photographs, one person each; they are not kept",
    )
    add_output(
        group,
        "--write",
        folder=True,
        fresh=True,
        metavar="DIR",
        help="write the room's images and gt.txt into this new folder",
    )
    add_pipeline_options(parser)
    add_camera_options(parser)
    add_topic_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    if args.source and (args.write or args.portraits):
        raise ConfigError(
            "no --write and --portraits with SOURCE", "both", "leave one out: they are of the room"
        )
    if bool(args.source) != bool(args.truth):
        raise ConfigError(
            "SOURCE and --truth together, or neither",
            "--truth alone" if args.truth else "SOURCE alone",
            "write gt.txt for it; `evaluate bag` and `evaluate temporal` need no truth",
        )
    if not 0.0 < args.min_iou <= 1.0:
        raise ConfigError("--min-iou above 0 and up to 1", f"{args.min_iou}", "0.5 is usual")
    config = pipeline_config(args)
    config = replace(config, tracker=replace(config.tracker, appearance=args.appearance))
    if args.source:
        truth = read_mot(args.truth)
        source, resolver = open_input(args, folder_fps=args.rate)
        frames, total = with_truth(with_cameras(source, resolver), truth), 0
    else:
        room = _room(args, config)
        frames, total = ((f.image, room.camera, f.faces) for f in room), len(room)
    if args.frames:
        frames, total = islice(frames, args.frames), min(total, args.frames) or args.frames
    if args.write and not args.source:
        frames = _writing(frames, args.write)
    pipeline = FacePipeline.from_config(config)
    result = evaluate_tracking(
        tqdm(frames, desc="tracking", unit="image", total=total or None, disable=None),
        pipeline,
        MotConfig(min_iou=args.min_iou),
        show=_Preview(args.preview) if args.preview else None,
    )
    if args.source:
        source.close()
        report_input(source, resolver)
    names = ("people", "seconds", "rate", "seed", "frames", "appearance")
    settings = {name: getattr(args, name) for name in names}
    settings["source"] = Path(args.source).name or "room"
    settings["portraits"] = args.portraits is not None
    files = common.pipeline_files(args)
    files += [find_model(EMBEDDING)] if args.appearance != "off" else []
    result["provenance"] = provenance(files, {**settings, **pipeline_settings(args)})
    write_json(args.out, result)
    back = result["returns"]
    print(
        f"{result['faces']} faces of {result['people']} people in {result['frames']} images: "
        f"IDF1 {result['idf1']:.3f}, MOTA {result['mota']:.3f}, recall {result['recall']:.3f}, "
        f"{result['id_switches']} id switches, {result['ghosts']} ghosts; returns: "
        f"{back['same']} with the old id, {back['new']} new, {back['wrong']} wrong: {args.out}"
    )
    return 0


def _room(args: argparse.Namespace, config: PipelineConfig) -> Room:
    room = RoomConfig(args.people, args.seconds, args.rate, seed=args.seed)
    model = load_morphable_model(find_model(args.face_model), level="coarse")
    people: list[Person] = []
    if args.portraits:
        whole = replace(config.reconstructor, part="head", level="coarse", colours="image")
        stills = FacePipeline.from_config(replace(config, reconstructor=whole))
        people = portrait_people(
            args.portraits,
            lambda rgb: stills.process_still(Image(rgb, 0.0)),
            model,
            args.people,
            args.seed,
        )
    return Room(room, model, people)


def _writing(frames: Iterable[Annotated], folder: Path) -> Iterable[Annotated]:
    """The same frames, written on the way."""
    make_folder(folder)
    with (folder / "gt.txt").open("w") as file:
        for number, (image, camera, truth) in enumerate(frames, 1):
            write_image(folder / f"{number:06d}.png", image.rgb)
            file.writelines(f"{line}\n" for line in mot_lines(number, truth))
            yield image, camera, truth


class _Preview:
    """Writes a picture now and then."""

    def __init__(self, folder: Path) -> None:
        common.make_preview(folder)
        self._folder = folder
        self._next = float("-inf")
        self._number = 0

    def __call__(self, image: Image, truth: Sequence[TrueFace], frame: Frame) -> None:
        if image.stamp < self._next:
            return
        self._next = image.stamp + _PREVIEW_EVERY_S
        write_image(self._folder / f"{self._number:04d}.png", draw(image, truth, frame))
        self._number += 1
