"""What several commands share: their pages, options, models, progress and results."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from face_recon_ros.cli.cameras import assumed_fov
from face_recon_ros.cli.numbers import at_least, finite
from face_recon_ros.cli.options import (
    add_output,
    add_pipeline_options,
    add_pool_options,
    pipeline_config,
    pipeline_settings,
    pool_of,
    settings_of,
)
from face_recon_ros.core.dense_points import find_points
from face_recon_ros.core.inference import find_network
from face_recon_ros.core.models import DETECTORS, find_model, sha256_of
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.evaluation.chain import StillChain
from face_recon_ros.evaluation.output import Progress, provenance, write_json
from face_recon_ros.evaluation.still_reports import STILL_REPORTS
from face_recon_ros.evaluation.stills import Execution
from face_recon_ros.io.folders import make_folder
from face_recon_ros.io.journal import Journal

#: What `add_subparsers` makes: commands are added to it.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: Pipeline options without effect on stills: measures take all detections and the coarse model.
SEQUENCE_OPTIONS = ("max_faces", "detect_every", "regressor_every", "level", "part")


def command(
    subparsers: Subparsers,
    name: str,
    summary: str,
    description: str,
    examples: str = "",
) -> argparse.ArgumentParser:
    """Adds a command, with its one line for the list and its own page."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


class _NoSuchOption(argparse.Action):
    """An option of other commands that could change nothing in this one."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        raise argparse.ArgumentError(
            self, f"expected no {option_string} here, got {values}; it would change no figure"
        )


def refuse_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Takes options away that the parser has already; their defaults stay in the namespace."""
    group = parser.add_argument_group(conflict_handler="resolve")
    for name in names:
        group.add_argument(
            f"--{name.replace('_', '-')}",
            action=_NoSuchOption,
            default=parser.get_default(name),
            help=argparse.SUPPRESS,
        )


def add_image_options(
    parser: argparse.ArgumentParser, files: str, *, camera_matters: bool = False
) -> None:
    """Adds what every evaluation of still images takes."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=files)
    add_output(parser, "--out", required=True, metavar="FILE.json", help="the figures")
    parser.add_argument(
        "--refine",
        type=at_least(0),
        default=0,
        metavar="N",
        help="how often the crop is placed again by the mesh (default: %(default)s, as live)",
    )
    if camera_matters:
        parser.add_argument(
            "--fov",
            type=finite,
            metavar="DEG",
            help="field of view of the photographs' camera (default: unknown, landmarks as the "
            "crop shows them)",
        )
    add_pipeline_options(parser)
    refuse_options(parser, *SEQUENCE_OPTIONS, "threads")
    add_pool_options(parser)


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--report`."""
    add_output(parser, "--report", metavar="FILE.html", help="one self-contained page with plots")


def still_chain(args: argparse.Namespace) -> tuple[StillChain, MorphableModel]:
    """The chain that still images are measured with, and the whole coarse face model."""
    chain = StillChain.from_config(pipeline_config(args), refine=args.refine)
    return chain, chain.model


def pipeline_provenance(args: argparse.Namespace, **settings: Any) -> dict[str, Any]:
    """What a result was measured with: model files and settings."""
    common = {k: v for k, v in pipeline_settings(args).items() if k not in SEQUENCE_OPTIONS}
    return provenance(pipeline_files(args), {**common, **settings})


def pipeline_files(args: argparse.Namespace) -> list[Path]:
    """The model files of the pipeline that the options ask for."""
    points = find_points(args.points, args.provider)
    detector = args.detector_model or DETECTORS[args.detector]
    files = [find_network(args.network, args.provider)]
    files += [find_model(name) for name in (args.face_model, detector) if name]
    return files + ([points] if points is not None else [])


class Bar:
    """A progress bar on stderr, with the time left; silent where stderr is no terminal."""

    def __init__(self, what: str) -> None:
        self._bar = tqdm(desc=what, unit="", disable=None, dynamic_ncols=True)

    def __call__(self, done: int, total: int) -> None:
        """Shows how many are done, of `total` or, if that is 0, of an unknown number."""
        self._bar.total = total or None
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _warn_skipped(result: dict[str, Any]) -> None:
    skipped = result.get("skipped") or {"count": 0, "files": []}
    for entry in skipped["files"][:10]:
        print(f"face-recon: left out {entry['name']}: {entry['reason']}", file=sys.stderr)
    if skipped["count"] > 10:
        print(f"face-recon: and {skipped['count'] - 10} more left out", file=sys.stderr)


def finish(args: argparse.Namespace, result: dict[str, Any], summary: str) -> int:
    """Writes a result, says what was left out, and prints its line."""
    write_json(args.out, result)
    _warn_skipped(result)
    print(summary)
    return 0


def run_still_evaluation(
    args: argparse.Namespace,
    name: str,
    measure: Callable[[StillChain, MorphableModel, Execution], dict[str, Any]],
    summary: Callable[[dict[str, Any]], str],
    **settings: Any,
) -> int:
    """Runs an evaluation of still images, and writes its result and its page.

    Args:
        args: of the command, with what `add_image_options` adds.
        name: of the evaluation; of its page too, where there is one.
        measure: chain, face model and where pictures are worked on -> result.
        summary: result -> the line that is printed.
        settings: for the provenance.
    """
    chain, model = still_chain(args)
    told = pipeline_provenance(args, refine=args.refine, threads=1, **settings)
    with journalled(args, told) as execution:
        result = measure(chain, model, execution)
        result["provenance"] = told
        if getattr(args, "report", None):
            STILL_REPORTS[name](result, args.images).write(args.report)
        return finish(args, result, summary(result))


@contextlib.contextmanager
def journalled(args: argparse.Namespace, told: Mapping[str, Any]) -> Iterator[Execution]:
    """Where the items of an evaluation are worked on; the same command goes on with unfinished.

    Args:
        args: of the command, with `out` and what `add_pool_options` adds.
        told: the result's provenance; what was measured otherwise is not gone on with.
    """
    folder = args.out.with_name(f".{args.out.name}.unfinished")
    journal = Journal(folder, (settings_of(args), told))
    yield Execution(pool_of(args), journal, bar=True)
    journal.remove()


def make_preview(folder: Path) -> None:
    """Makes a folder of pictures to look at, and says if pictures of others will be among them."""
    make_folder(folder, "choose another --preview")
    if any(folder.glob("*.png")):
        told = "has pictures already: those of other names stay"
        print(f"face-recon: {folder} {told}", file=sys.stderr)


def figure(value: float | None) -> str:
    """A figure for a table; - where there is none."""
    return "-" if value is None or value != value else f"{value:.2f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """Aligned columns: texts to the left, figures to the right, two places each."""
    body = [list(row) for row in rows]
    columns = []
    for k, title in enumerate(header):
        values = [row[k] for row in body]
        texts = all(isinstance(value, str) for value in values)
        cells = [title, *(v if isinstance(v, str) else figure(v) for v in values)]
        width = max(map(len, cells))
        columns.append([c.ljust(width) if texts else c.rjust(width) for c in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def live_pipeline(args: argparse.Namespace) -> tuple[FacePipeline, tuple[str, ...]]:
    """The live pipeline, and the names of its face model's expressions."""
    pipeline = FacePipeline.from_config(pipeline_config(args))
    return pipeline, pipeline.reconstructor.model.expression_names


def sequence_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What changes figures of videos and bags beside the models."""
    names = (*SEQUENCE_OPTIONS, "frames")
    calibration = args.calibration
    return {
        **{name: getattr(args, name) for name in names},
        "calibration": calibration and {calibration.name: sha256_of(calibration)},
        "fov_deg": assumed_fov(args),
        "fov_stated": args.fov is not None,
    }


def hint_no_face(figures: dict[str, Any]) -> None:
    """Says what helps where no image of a video shows a face."""
    if not figures["frames_with_face"]:
        remedy = "small ones need more --tiles"
        print(f"face-recon: no face in {figures['frames']} frames; {remedy}", file=sys.stderr)
