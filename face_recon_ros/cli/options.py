"""Command-line options that several commands share: detector, network, face model."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from face_recon_ros.cli.cameras import add_camera_options, camera_resolver
from face_recon_ros.cli.numbers import at_least, finite
from face_recon_ros.cli.stopping import stoppable, wanted
from face_recon_ros.core.detection import BACKENDS, DetectorConfig
from face_recon_ros.core.errors import ConfigError, DataError, FaceReconError
from face_recon_ros.core.models import FACE_MODEL
from face_recon_ros.core.onnx_session import PROVIDERS
from face_recon_ros.core.pipeline import PipelineConfig
from face_recon_ros.core.reconstructor_config import OFF, ReconstructorConfig
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.io.bag_source import BagSource
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.jobs import Pool
from face_recon_ros.io.picture_sources import few
from face_recon_ros.io.sources import Source, SourceConfig, image_topic_of, open_source

T = TypeVar("T")

#: The options of `add_pool_options`, and their defaults.
POOL: dict[str, Any] = {"workers": 0, "cluster": ""}
#: The options of `add_pipeline_options` without effect on pictures, and their defaults.
OF_VIDEOS = {
    "detect_every": TrackerConfig.detect_every,
    "regressor_every": ReconstructorConfig.regressor_every,
}


def _place(text: str) -> Path:
    """The type of an option that names a place: an unset variable of the shell is none."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty one")
    return Path(text)


class _Output(NamedTuple):
    """What an option names that is written; see `add_output`."""

    folder: bool
    suffixes: tuple[str, ...]
    fresh: bool


def add_output(
    parser: argparse._ActionsContainer,
    name: str,
    *,
    folder: bool = False,
    suffixes: tuple[str, ...] = (),
    fresh: bool = False,
    **more: Any,
) -> None:
    """Adds an option that names a file or folder to write; it is checked before the work.

    Args:
        parser: of the command, or a group of its options.
        name: of the option.
        folder: whether a folder is written.
        suffixes: that the file's name may have; any where there is none.
        fresh: whether the folder must be new or empty: what reads it takes all of its files.
        more: for `add_argument`.
    """
    dest = parser.add_argument(name, type=_place, **more).dest
    others = parser.get_default("outputs") or {}
    parser.set_defaults(outputs={**others, dest: _Output(folder, suffixes, fresh)})


def add_frames_option(parser: argparse._ActionsContainer) -> None:
    """Adds `--frames`; 0 stands for all."""
    parser.add_argument(
        "--frames",
        type=at_least(0),
        default=0,
        metavar="N",
        help="stop after this number of images (default: all)",
    )


def say_idle(args: argparse.Namespace, what: str, defaults: Mapping[str, Any]) -> None:
    """Says on stderr which of the options that were given change nothing.

    Args:
        args: of the command.
        what: the input that they do not matter to, for the line.
        defaults: the options that do not, by their names among `args`, and their defaults.
    """
    given = [name for name, default in defaults.items() if getattr(args, name) != default]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        print(f"face-recon: no effect on {what}: {names}", file=sys.stderr)


def add_pool_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--workers` and `--cluster`, which `pool_of` reads."""
    group = parser.add_argument_group("many cores, many machines")
    group.add_argument(
        "--workers",
        type=at_least(0),
        default=POOL["workers"],
        metavar="N",
        help="processes of this machine (default: as many as it has cores, fewer for little "
        "work); results do not depend on it",
    )
    group.add_argument(
        "--cluster",
        default=POOL["cluster"],
        metavar="ADDRESS",
        help="a Dask scheduler (tcp://HOST:8786) or Ray head (ray://HOST:10001) in place of this "
        "machine; its machines need this package, and input and output under the same paths",
    )


def pool_of(args: argparse.Namespace) -> Pool:
    """Where the options of `add_pool_options` want work done."""
    return Pool(args.workers, args.cluster)


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    """All that results depend on: the options but for those of `add_pool_options`."""
    others = {*POOL, "run", "outputs"}
    return {name: repr(value) for name, value in sorted(vars(args).items()) if name not in others}


def add_detector_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds what `detector_config` reads, in a group of its own."""
    d = DetectorConfig()
    group = parser.add_argument_group("detector")
    group.add_argument(
        "--detector",
        choices=BACKENDS,
        default=d.backend,
        help="yunet: faces from 20 pixels in a 720p picture; MediaPipe's short_range: one near "
        "person; full_range: persons up to 2 m away (default: %(default)s)",
    )
    group.add_argument(
        "--detector-model",
        default="",
        metavar="FILE",
        help="the detector's file (default: the shipped one)",
    )
    group.add_argument(
        "--min-score",
        type=finite,
        default=d.min_score,
        help="drop detections with a lower score (default: %(default)s)",
    )
    group.add_argument(
        "--tiles",
        type=at_least(1),
        default=d.tiles,
        metavar="N",
        help="look into N x N parts of the picture as well, for small faces (default: "
        "%(default)s)",
    )
    return group


def detector_config(args: argparse.Namespace) -> DetectorConfig:
    """The configuration that the options of `add_detector_options` ask for."""
    return DetectorConfig(args.detector, args.detector_model, args.min_score, args.tiles)


def add_pipeline_options(
    parser: argparse.ArgumentParser,
    *,
    max_faces: int = TrackerConfig.max_faces,
    meshes: bool = True,
) -> None:
    """Adds what `pipeline_config` reads.

    Args:
        parser: of the command.
        max_faces: its default.
        meshes: whether it matters to the command which mesh is made.
    """
    t, r = TrackerConfig(), ReconstructorConfig()
    group = add_detector_options(parser)
    group.add_argument(
        "--max-faces",
        type=int,
        default=max_faces,
        help="follow at most this number of faces (default: %(default)s)",
    )
    group.add_argument(
        "--detect-every",
        type=int,
        default=t.detect_every,
        metavar="N",
        help="videos: the detector looks at every n-th frame (default: %(default)s)",
    )
    group = parser.add_argument_group("reconstruction")
    group.add_argument(
        "--network",
        default=r.network,
        metavar="FILE",
        help="ONNX network (default: the shipped one for this hardware)",
    )
    group.add_argument(
        "--points",
        default=r.points,
        metavar="FILE",
        help="dense-point network that corrects the network's answer: a file, "
        "auto (the shipped one), or off (default: %(default)s)",
    )
    group.add_argument(
        "--regressor-every",
        type=int,
        default=r.regressor_every,
        metavar="N",
        help="videos: --network runs on every n-th image of a track whose pose is known "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--face-model", default=FACE_MODEL, metavar="FILE", help="file (default: the shipped one)"
    )
    parser.set_defaults(level=r.level, part=r.part)
    if meshes:
        group.add_argument(
            "--level",
            choices=("coarse", "fine"),
            default=r.level,
            help="resolution of the mesh (default: %(default)s)",
        )
        group.add_argument(
            "--part",
            default=r.part,
            help="part of the mesh: face, facial_skin, head (default: %(default)s)",
        )
    group.add_argument(
        "--provider",
        choices=("auto", *PROVIDERS),
        default=r.provider,
        help="execution provider of ONNX Runtime (default: %(default)s)",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=r.threads,
        help="threads of each network on the CPU; 0: all cores (default: %(default)s)",
    )


def pipeline_config(args: argparse.Namespace) -> PipelineConfig:
    """The configuration that the options of `add_pipeline_options` ask for."""
    detector = detector_config(args)
    if args.threads:  # 0, all cores, leaves the detector its own number
        detector = replace(detector, threads=min(detector.threads, args.threads))
    return PipelineConfig(
        detector,
        TrackerConfig(detect_every=args.detect_every, max_faces=args.max_faces),
        ReconstructorConfig(
            network=args.network,
            points=args.points,
            regressor_every=args.regressor_every,
            face_model=args.face_model,
            level=args.level,
            part=args.part,
            provider=args.provider,
            threads=args.threads,
        ),
    )


def without_colours(config: PipelineConfig) -> PipelineConfig:
    """The same for who wants no colours of meshes, or makes their own."""
    return replace(config, reconstructor=replace(config.reconstructor, colours=OFF))


def pipeline_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of `add_pipeline_options` say beside model files, for provenance."""
    names: tuple[str, ...] = ("detector", "min_score", "tiles", "max_faces", "detect_every")
    names += ("points", "regressor_every", "level", "part", "provider", "threads")
    return {name: getattr(args, name) for name in names}


def add_topic_options(parser: argparse._ActionsContainer) -> None:
    """Adds what `open_input` reads of a bag."""
    parser.add_argument(
        "--image-topic",
        default="",
        metavar="TOPIC",
        help="topic of a bag's images (default: the one with colour, else grey; never depth)",
    )
    parser.add_argument(
        "--info-topic",
        default="",
        metavar="TOPIC",
        help="topic of a bag's CameraInfo (default: the one beside the images)",
    )


def add_source_options(
    parser: argparse.ArgumentParser, *, max_faces: int, meshes: bool = True
) -> None:
    """Adds all that says how the faces of a source are found: what commands with one share.

    Args:
        parser: of the command.
        max_faces: default of how many.
        meshes: whether it matters to the command which mesh is made.
    """
    add_frames_option(parser)
    add_pipeline_options(parser, max_faces=max_faces, meshes=meshes)
    add_camera_options(parser)
    add_topic_options(parser)


def open_input(
    args: argparse.Namespace, *, loop: bool = False, folder_fps: float = 0.0
) -> tuple[Source, CameraResolver]:
    """The source of images that the options name, and the resolver of its cameras.

    What is chosen in a bag is printed. Ctrl-C ends a camera or stream. `stoppable` makes it end a
    file, too, in commands whose results are worth keeping then.

    Args:
        args: of `source`, `add_topic_options` and, where the command has them, of
            `add_camera_options`.
        loop: whether files begin again at their end.
        folder_fps: images a second of a folder of pictures; 0 takes the usual rate.
    """
    config = SourceConfig(
        str(args.source),
        loop=loop,
        fps=folder_fps if Path(args.source).is_dir() else 0.0,
        topic=args.image_topic,
        info_topic=args.info_topic,
    )
    source = open_source(config, complain=left_out)
    if isinstance(source, BagSource):
        print(f"{source.name}: {source.choice}")
    elif args.image_topic or args.info_topic:
        raise ConfigError(
            "a bag for --image-topic and --info-topic", args.source, "leave these options out"
        )
    of_a_camera = source.live or isinstance(source, BagSource)
    resolver = camera_resolver(args, image_topic_of(source), whole=of_a_camera)
    return (stoppable(source) if source.live else source), resolver


def left_out(fault: FaceReconError) -> None:
    """Says on stderr what was left out of the input."""
    print(f"face-recon: left out: {fault}", file=sys.stderr)


def say_faceless(names: Sequence[str], total: int) -> None:
    """Names on stderr the pictures without a face, where others have one."""
    if 0 < len(names) < total:
        told = f"no face in {len(names)} of {total} pictures: {few(names)}"
        print(f"face-recon: {told}", file=sys.stderr)


def report_input(source: Source, resolver: CameraResolver) -> None:
    """Says on stderr what was wrong with the images and their camera."""
    for warning in (*source.warnings, *resolver.problems):
        print(f"face-recon: {warning}", file=sys.stderr)


def progress(args: argparse.Namespace, images: Iterable[T], length: int | None) -> Iterator[T]:
    """The images up to `--frames`, with a progress bar and the time left."""
    length = wanted(length, args.frames)
    every_s = 0.1 if sys.stderr.isatty() else 10.0
    chosen = itertools.islice(images, args.frames or None)
    yield from tqdm(chosen, total=length, unit="image", mininterval=every_s)


def no_face(source: Source, whom: str = "a face") -> DataError:
    """The hint where a source shows no person, or not the requested one."""
    return DataError(f"{whom} in {source.name}", "none", "try --tiles 3, or --min-score 0.3")
