"""`face-recon avatar`: a person of a video, a folder or a picture as one glTF file."""

from __future__ import annotations

import argparse
import sys

from face_recon_ros.cli import common
from face_recon_ros.cli.options import (
    OF_VIDEOS,
    add_output,
    add_source_options,
    no_face,
    open_input,
    pipeline_config,
    progress,
    report_input,
    say_faceless,
    say_idle,
    without_colours,
)
from face_recon_ros.cli.stopping import stoppable
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.types import Face
from face_recon_ros.fitting.avatar import LITTLE_SEEN, TEXTURE_SIZES, AvatarMaker
from face_recon_ros.io.gltf import write_glb
from face_recon_ros.io.picture_sources import FolderSource
from face_recon_ros.io.sources import Source, with_cameras

_SIGHTINGS = 3  # the detector's passing fancies have fewer
_PERSON = "person"  # of pictures, which are taken to show one

_DESCRIPTION = """Makes an avatar: a glTF 2.0 binary with a person's neutral head, own texture,
eyes, teeth and tongue, and the face model's expressions (52, by ARKit's names) as morph targets.
Blender, three.js, Godot, Unity and Unreal read it.

A video shows the person from many sides: turn the head slowly. Pictures of a folder are taken to
show one person; in each the largest face counts. The file holds a face: biometric data.
Ctrl-C ends the source, and the avatar is made of what was read until then."""

_EXAMPLES = """examples:
  face-recon avatar me.mp4 --out me.glb
  face-recon avatar me.mp4 --out me.glb --animate       with the video's motion
  face-recon avatar portrait.jpg --out portrait.glb
  face-recon avatar two.mp4 --out second.glb --id ID    several people: their ids are printed"""


def add_avatar_command(subparsers: common.Subparsers) -> None:
    """Adds `avatar`."""
    parser = common.command(
        subparsers,
        "avatar",
        "a person of a video or of pictures as one glTF file",
        _DESCRIPTION,
        _EXAMPLES,
    )
    parser.add_argument("source", help="video, folder of pictures of one person, picture, bag")
    add_output(
        parser,
        "--out",
        suffixes=(".glb",),
        required=True,
        metavar="FILE.glb",
        help="file to write",
    )
    parser.add_argument(
        "--id",
        metavar="ID",
        help="track id of the person, where there are several (default: the one seen most)",
    )
    parser.add_argument(
        "--animate", action="store_true", help="videos: expressions and head pose as an animation"
    )
    parser.add_argument(
        "--texture-size",
        type=int,
        choices=TEXTURE_SIZES,
        default=1024,
        help="side of the texture, pixels (default: %(default)s)",
    )
    add_source_options(parser, max_faces=8, meshes=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    source, resolver = open_input(args)
    config = without_colours(pipeline_config(args))
    pipeline = FacePipeline.from_config(config)
    model = load_morphable_model(find_model(config.reconstructor.face_model))
    maker = AvatarMaker(model, args.texture_size, pipeline.reconstructor.points)
    pictures = source if isinstance(source, FolderSource) else None
    still, found = pictures is not None, []
    if still:
        say_idle(args, "pictures", {"animate": False, **OF_VIDEOS})
    source = stoppable(source, args.frames)
    for image, camera in progress(args, with_cameras(source, resolver), source.length):
        if still:
            faces = pipeline.process_still(image, camera).faces
            found.append(len(faces))
            for face in sorted(faces, key=_area)[-1:]:
                maker.add(image.rgb, face, _PERSON)
            if len(faces) > 1:
                print(f"{len(faces)} faces in a picture: the largest is taken", file=sys.stderr)
        else:
            for face in pipeline.process(image, camera).faces:
                maker.add(image.rgb, face)
    source.close()
    report_input(source, resolver)
    if pictures is not None:
        read = (path.name for path in pictures.paths if path not in pictures.skipped)
        say_faceless([name for name, n in zip(read, found, strict=False) if not n], len(found))
    name = _chosen(maker, source, args.id)
    head = maker.head(name, animate=args.animate and not still, fused=not still)
    size = write_glb(args.out, head)
    seen = maker.coverage(name)
    if seen < LITTLE_SEEN:
        print(
            "hardly anything of the face was seen from the front: the avatar has the face model's "
            "colours",
            file=sys.stderr,
        )
    told = f"{size / 1e6:.1f} MB, {len(head.targets)} expressions, {seen:.0%} of the face seen"
    print(f"{args.out}: {told}")
    return 0


def _area(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return float((x1 - x0) * (y1 - y0))


def _chosen(maker: AvatarMaker, source: Source, wanted: str | None) -> str:
    """The person whose avatar is made; reports several people."""
    people = maker.images
    if not people:
        raise no_face(source)
    if wanted is not None:
        if wanted not in people:
            raise DataError(f"--id of {', '.join(people)}", repr(wanted), "choose one of these")
        return wanted
    people = {name: n for name, n in people.items() if n >= _SIGHTINGS} or people
    if len(people) > 1:
        print(f"{len(people)} people; the first is taken, --id takes another:", file=sys.stderr)
        for name, count in people.items():
            x, y = maker.first_place(name)
            print(f"  {name} in {count} images, first at {x:.0f}, {y:.0f}", file=sys.stderr)
    return next(iter(people))
