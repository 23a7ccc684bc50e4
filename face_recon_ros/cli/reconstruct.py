"""`face-recon reconstruct`: pictures and videos to meshes, overlays and coefficients, no ROS."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.cli import common
from face_recon_ros.cli.cameras import camera_resolver
from face_recon_ros.cli.numbers import at_least
from face_recon_ros.cli.options import (
    OF_VIDEOS,
    POOL,
    add_output,
    add_pool_options,
    add_source_options,
    no_face,
    open_input,
    pipeline_config,
    pool_of,
    progress,
    report_input,
    say_faceless,
    say_idle,
    settings_of,
)
from face_recon_ros.cli.reconstruction_files import MESHES, Sighting, textured_heads, write_results
from face_recon_ros.cli.stopping import stoppable, until_stopped, wanted
from face_recon_ros.core.anonymise import LostFaces, hide_faces
from face_recon_ros.core.appearance import (
    FaceEmbedder,
    FacePoints,
    is_telling,
    unlike_the_others,
)
from face_recon_ros.core.decoding import as_known
from face_recon_ros.core.detection import THOROUGH
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.overlay import Overlay, OverlayConfig
from face_recon_ros.core.pipeline import FacePipeline, PipelineConfig
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reidentification import ReIdentificationConfig
from face_recon_ros.core.types import Face, Image, Mesh
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.folders import make_folder
from face_recon_ros.io.images import png_bytes
from face_recon_ros.io.jobs import run_jobs
from face_recon_ros.io.journal import Journal
from face_recon_ros.io.picture_sources import FolderSource
from face_recon_ros.io.sources import Source, SourceConfig, with_cameras
from face_recon_ros.io.video import VideoWriter

_OVERLAY = "overlay.mp4"
_WORTH_A_PROCESS = 8  # pictures
_OF_PICTURES = {"thorough": False, "refine": 1}  # options without effect on videos -> default
_MIN_SIGHTINGS = 3  # of a person in a video; false detections have fewer
_NO_MESH = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))

_DESCRIPTION = """Reconstructs every face of a picture, a folder of pictures, a video, a bag or
`pattern` (our own head, turning). Writes into --out:
  NAME_overlay.png or overlay.mp4   the mesh drawn on the faces
  NAME_ID.ply                       meshes, metres, face frame, vertex colours
  NAME_ID.obj, .mtl, .png           --mesh obj: the whole head with a texture
  NAME_ID.glb                       --mesh glb: the same, neutral, with 52 expressions (glTF)
  NAME_ID_views.png                 the mesh from the front and the side
  NAME.json, NAME.npz               id, box, pose, expression, all coefficients
NAME is the picture's name, or `faces` for a video: there JSON and meshes show each person as
last seen, if seen three times, and the NPZ has a row for every face in every image.
Files that an earlier run wrote under the same NAME are replaced.
With --same-person a folder's pictures all show one person, by their largest faces: one neutral
head, faces_person.ply, from all of them together; faces.json and faces.npz have every picture.
Pictures of a folder are processed on all cores, and an interrupted command continues where it
stopped. Ctrl-C ends a video, bag, camera or stream, and the pictures of --same-person, and the
results of what was read until then are written."""

_EXAMPLES = """examples:
  face-recon reconstruct portrait.jpg --out out
  face-recon reconstruct group.jpg --out out --thorough --level fine
  face-recon reconstruct portrait.jpg --out out --mesh all     PLY, OBJ and GLB
  face-recon reconstruct talk.mp4 --out out --calibration ost.yaml
  face-recon reconstruct --same-person photographs_of_ann --out ann
  face-recon reconstruct pattern --out out"""


def add_reconstruct_command(subparsers: common.Subparsers) -> None:
    """Adds `reconstruct`."""
    parser = common.command(
        subparsers,
        "reconstruct",
        "pictures and videos to meshes, overlays and coefficients",
        _DESCRIPTION,
        _EXAMPLES,
    )
    parser.add_argument("source", help="picture, folder, video, bag, device number or `pattern`")
    add_output(parser, "--out", folder=True, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--mesh",
        choices=tuple(MESHES),
        default="ply",
        help="format of the meshes; both: PLY and OBJ; OBJ and GLB hold the whole head with its "
        "texture, whatever --part and --level (default: %(default)s)",
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="pictures: search small and turned faces, too; the default where none is found",
    )
    parser.add_argument(
        "--refine",
        type=at_least(0),
        default=_OF_PICTURES["refine"],
        metavar="N",
        help="pictures: how often the crop is placed again by the mesh (default: %(default)s)",
    )
    parser.add_argument(
        "--same-person",
        action="store_true",
        help="the source is a folder of pictures of one person: one shape from all of them",
    )
    parser.add_argument(
        "--anonymise",
        action="store_true",
        help="pixelate the faces in the overlay (not in meshes and coefficients)",
    )
    add_source_options(parser, max_faces=64)
    add_pool_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    source, resolver = open_input(args)
    config = pipeline_config(args)
    _refuse_itself(args)
    make_folder(args.out)
    if isinstance(source, FolderSource):
        say_idle(args, "pictures", OF_VIDEOS)
        if args.same_person:
            say_idle(args, "--same-person", POOL)
            pipelines = list(_pipelines(config, args.thorough))
            found = _person(args, pipelines, source, resolver)
        else:
            found = _pictures(args, source)
    elif args.same_person:
        raise ConfigError(
            "a folder of pictures for --same-person", args.source, "a video has tracks of its own"
        )
    else:
        say_idle(args, "videos, bags and cameras", {**POOL, **_OF_PICTURES})
        reconstructor = FaceReconstructor.from_config(config.reconstructor)
        finder = FaceFinder.from_config(config.detector, config.tracker)
        found = _video(args, FacePipeline(finder, reconstructor), source, resolver)
    report_input(source, resolver)
    if found == 0:
        raise no_face(source)
    what = "1 head from {} picture" if args.same_person else "{} face"
    print(f"{what.format(found)}{'s' if found > 1 else ''} in {args.out}")
    return 0


def _refuse_itself(args: argparse.Namespace) -> None:
    """Refuses an overlay that would be written into the video that is read."""
    overlay = args.out / _OVERLAY
    if overlay.is_file() and Path(args.source).is_file() and overlay.samefile(args.source):
        raise ConfigError(
            "another folder for --out", f"{overlay}, which is read", "choose another"
        )


def _pictures(args: argparse.Namespace, source: FolderSource) -> int:
    """Reconstructs each picture, on all cores or a cluster; goes on where it was interrupted."""
    stems = Counter(path.stem for path in source.paths)
    paths = source.paths[: args.frames or None]
    # a.jpg beside a.png: by their whole names
    names = {(p.stem if stems[p.stem] == 1 else p.name): str(p.absolute()) for p in paths}
    job = _PictureJob(argparse.Namespace(**{**vars(args), "out": args.out.absolute()}))
    journal = Journal(args.out / ".unfinished", settings_of(args))
    outcomes = run_jobs(
        job,
        {name: (name, path) for name, path in names.items()},
        pool_of(args),
        what="pictures",
        worth=_WORTH_A_PROCESS,
        journal=journal,
    )
    done = [o.value for o in outcomes if not o.fault]
    if not done:
        job(next(iter(names.items())))  # raises what is wrong with it
    for value in done:
        for note, pictures in value["notes"].items():
            source.notes.setdefault(note, []).extend(pictures)
    for warning in dict.fromkeys(w for value in done for w in value["warnings"]):
        _tell(warning)
    for outcome in outcomes:
        if outcome.fault:
            _tell(f"left out: {outcome.key}: {outcome.fault}")
    journal.remove()
    say_faceless([o.key for o in outcomes if not o.fault and not o.value["faces"]], len(paths))
    return sum(value["faces"] for value in done)


def _tell(warning: str) -> None:
    if warning:
        print(f"face-recon: {warning}", file=sys.stderr)


@dataclass(frozen=True)
class _PictureJob:
    """Reconstructs one picture, by the first pipeline that finds a face in it; in any process."""

    args: argparse.Namespace

    def __call__(self, item: tuple[str, str]) -> dict[str, Any]:
        """Writes the results of a picture, given its name among them and its path."""
        name, path = item
        args = self.args
        cv2.setNumThreads(1)
        source = FolderSource(SourceConfig(path))
        ((_, rgb),) = source.readable()
        image, resolver = Image(rgb, 0.0), camera_resolver(args)
        camera = resolver.of_picture(path, rgb.shape[1], rgb.shape[0])
        faces: list[Face] = []
        pipelines = _pipelines(pipeline_config(args), args.thorough)
        for pipeline in pipelines:
            if not faces:
                frame = pipeline.process_still(
                    image, camera, args.refine, doubting=True, seed=zlib.crc32(os.fsencode(name))
                )
                faces = frame.faces
        reconstructor = pipelines[0].reconstructor
        overlay = _overlay(args, reconstructor, mesh_side_px=1024)
        drawn = png_bytes(overlay.draw(image.rgb, faces, camera))
        (args.out / f"{name}_overlay.png").write_bytes(drawn)
        sightings = [Sighting(0, face, camera) for face in faces]
        heads = textured_heads(args, reconstructor)
        for face in faces if heads else ():
            heads.add(image.rgb, face)
        replaced = write_results(
            args, name, reconstructor, sightings, faces, heads, files=[f"{name}_overlay.png"]
        )
        warnings = list(filter(None, [*resolver.problems, replaced]))
        return {"faces": len(faces), "notes": source.notes, "warnings": warnings}


@functools.lru_cache(maxsize=1)
def _pipelines(config: PipelineConfig, thorough: bool) -> tuple[FacePipeline, ...]:
    """What a process looks at pictures with; one thread, as there may be a process a core."""
    detector = replace(config.detector, threads=1)
    reconstructor = FaceReconstructor.from_config(replace(config.reconstructor, threads=1))
    detectors = [replace(THOROUGH, threads=1)]
    if not thorough:
        detectors.insert(0, detector)
    return tuple(
        FacePipeline(FaceFinder.from_config(d, config.tracker), reconstructor) for d in detectors
    )


def _person(
    args: argparse.Namespace,
    pipelines: list[FacePipeline],
    source: FolderSource,
    resolver: CameraResolver,
) -> int:
    """One head from all pictures: each adds what it shows of the person to one track."""
    reconstructor = pipelines[0].reconstructor
    overlay = _overlay(args, reconstructor, mesh_side_px=1024)
    heads, looks = textured_heads(args, reconstructor), _Looks(reconstructor.model)
    sightings: list[Sighting] = []
    shown: list[Path] = []
    faceless: list[str] = []
    pictures = until_stopped(source.readable(), wanted(source.length, args.frames))
    for path, rgb in progress(args, pictures, source.length):
        image = Image(rgb, float(len(shown)))  # a second apart: another moment
        camera = resolver.of_picture(path, rgb.shape[1], rgb.shape[0])
        faces: list[Face] = []
        for pipeline in pipelines:
            if not faces:
                frame = pipeline.process_person(image, camera, person="person", refine=args.refine)
                faces = frame.faces
        if faces:
            if heads:
                heads.add(rgb, faces[0])
            looks.add(path.name, rgb, faces[0])
            sightings.append(Sighting(len(shown), replace(faces[0], view=None), camera))
            shown.append(path)
        else:
            faceless.append(path.name)
    say_faceless(faceless, len(shown) + len(faceless))
    if not sightings:
        return 0
    _tell(looks.doubt())
    identity = sightings[-1].face.coefficients.identity[0]
    model = reconstructor.model
    sightings = [replace(s, face=as_known(s.face, identity, model)) for s in sightings]
    last = sightings[-1].face
    head = replace(last.mesh, vertices=model.neutral(identity))
    neutral = replace(last.coefficients, expression=0 * last.coefficients.expression)
    people = [replace(last, mesh=head, coefficients=neutral)]
    names = [path.name for path in shown]
    files = [f"{name}_overlay.png" for name in names]
    _tell(
        write_results(
            args, "faces", reconstructor, sightings, people, heads, files=files, pictures=names
        )
    )
    known = dict(zip(shown, sightings, strict=True))
    for path, rgb in source.readable(shown):
        drawn = overlay.draw(rgb, [known[path].face], known[path].camera)
        (args.out / f"{path.name}_overlay.png").write_bytes(png_bytes(drawn))
    return len(sightings)


class _Looks:
    """Looks at the faces of pictures that are said to show one person."""

    def __init__(self, model: MorphableModel) -> None:
        self._points, self._embed = FacePoints(model), FaceEmbedder(threads=1)
        self._names: list[str] = []
        self._looks: list[NDArray[np.float32]] = []

    def add(self, name: str, rgb: NDArray[np.uint8], face: Face) -> None:
        """Looks at a picture's face, if it is large and frontal enough to say who it is."""
        points = self._points(face.coefficients, face.crop)
        size = rgb.shape[1], rgb.shape[0]
        if self._points.known and is_telling(face.coefficients, points, size):
            self._names.append(name)
            self._looks += list(self._embed(rgb, [points]))

    def doubt(self) -> str:
        """Names the pictures that seem to show other people than most; empty without."""
        odd = unlike_the_others(self._looks, ReIdentificationConfig().different)
        if not len(odd):
            return ""
        names = ", ".join(self._names[i] for i in odd)
        return (
            f"{len(odd)} of {len(self._names)} pictures seem to show another person than the "
            f"others: {names}; the head is of all of them: leave out what does not belong"
        )


def _video(
    args: argparse.Namespace, pipeline: FacePipeline, source: Source, resolver: CameraResolver
) -> int:
    overlay, lost = _overlay(args, pipeline.reconstructor, mesh_side_px=384), LostFaces()
    heads = textured_heads(args, pipeline.reconstructor)
    sightings: list[Sighting] = []
    last: dict[str, Face] = {}
    seen: Counter[str] = Counter()
    with VideoWriter(args.out / _OVERLAY, source.fps) as video:
        taken = with_cameras(source, resolver, stoppable(source, args.frames))
        for k, (image, camera) in enumerate(progress(args, taken, source.length)):
            faces = pipeline.process(image, camera).faces
            for face in faces if heads else ():
                heads.add(image.rgb, face)
            picture = image.rgb
            if args.anonymise:
                picture = picture.copy()
                hide_faces(picture, lost.boxes(faces, camera.width, camera.height, image.stamp))
            video.write(overlay.draw(picture, faces, camera), image.stamp)
            last.update({f.track.id: replace(f, view=None) for f in faces})
            seen.update(face.track.id for face in faces)
            sightings += [Sighting(k, replace(f, mesh=_NO_MESH, view=None), camera) for f in faces]
    source.close()
    enough = min(_MIN_SIGHTINGS, max(seen.values(), default=0))
    people = [face for name, face in last.items() if seen[name] >= enough]
    _tell(
        write_results(
            args, "faces", pipeline.reconstructor, sightings, people, heads, files=[_OVERLAY]
        )
    )
    return len(people)


def _overlay(
    args: argparse.Namespace, reconstructor: FaceReconstructor, mesh_side_px: int
) -> Overlay:
    config = OverlayConfig(mesh_side_px=mesh_side_px, anonymise=args.anonymise)
    return Overlay(reconstructor.model.triangles, reconstructor.model.n_vertices, config)
