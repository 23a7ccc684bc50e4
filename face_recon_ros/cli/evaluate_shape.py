"""`face-recon evaluate shape`."""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_recon_ros.cli import common
from face_recon_ros.cli.numbers import at_least
from face_recon_ros.cli.options import (
    add_output,
    add_pipeline_options,
    add_pool_options,
    pipeline_config,
    pipeline_settings,
)
from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.evaluation.output import provenance, read_json
from face_recon_ros.io.jobs import PerProcess

if TYPE_CHECKING:
    from face_recon_ros.evaluation.shape import KnownView
    from face_recon_ros.evaluation.stills import Execution
    from face_recon_ros.training.synthesis.faces import SyntheticFaces

#: Pixels per side of the renderings of people: a crop of 192 with room around it.
_RENDERING_PX = 288
JITTER_FACES, JITTER_BOXES, JITTER_FACE_PX = 20, 60, 100.0

_DESCRIPTION = """How well a network knows faces, on rendered people that no training has seen; one
command for the figures that matter, about a minute and a half on one core.
  people    --people heads as training renders them (hair, hats, glasses, light), --views pictures
            of each: shape from one picture and from all as one track, beside the mean face's;
            the right person's rank; expressions, channel by channel
  pictures  --pictures plain renderings through the detector: landmarks, and the jitter of a still
            face when the detector's box scatters
  heads     rendered before four cameras, 0.4 to 4 m away: rotation and distance
Needs the extra `train`, whose renderer makes the people. Runs the pipeline that users run: any
network file will do."""

_EXAMPLES = """examples:
  face-recon evaluate shape --out shape.json
  face-recon evaluate shape --network run/best.onnx --out best.json --people 10
  face-recon evaluate shape --identities fits/*.json --pictures 0 --heads 0 --out scanned.json
  face-recon evaluate compare shape.json best.json"""


def add_shape_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `shape` to the sub-commands of `evaluate`."""
    parser = common.command(
        subparsers,
        "shape",
        "shape, expressions, landmarks, pose and jitter on rendered people never trained on",
        _DESCRIPTION,
        _EXAMPLES,
    )
    add_output(parser, "--out", required=True, metavar="FILE.json", help="the figures")
    parser.add_argument(
        "--people",
        type=at_least(2),
        default=40,
        metavar="N",
        help="number of people (default: %(default)s)",
    )
    parser.add_argument(
        "--identities",
        type=Path,
        nargs="+",
        default=[],
        metavar="FIT.json",
        help="people of these shapes in place of random ones: results of `face-recon model fit`, "
        "so that shapes are distributed as those of scanned people are",
    )
    parser.add_argument(
        "--views",
        type=at_least(1),
        default=12,
        metavar="N",
        help="pictures of each person (default: %(default)s)",
    )
    parser.add_argument(
        "--uncalibrated",
        action="store_true",
        help="the cameras of the people's pictures are not known: their perspective is guessed",
    )
    parser.add_argument(
        "--pictures",
        type=at_least(0),
        default=60,
        metavar="N",
        help="number of plain renderings (default: %(default)s); 0 leaves them out",
    )
    parser.add_argument(
        "--heads",
        type=at_least(0),
        default=3,
        metavar="N",
        help="heads for each of 16 pairs of camera and distance (default: %(default)s); 0 leaves "
        "them out",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        help="random seed of the people (default: %(default)s)",
    )
    add_pipeline_options(parser)
    common.refuse_options(parser, *common.SEQUENCE_OPTIONS, "threads")
    add_pool_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    from face_recon_ros.evaluation.head_poses import HeadScorer, evaluate_head_poses
    from face_recon_ros.evaluation.shape import ShapeScorer, evaluate_shape

    config = pipeline_config(args)
    settings = replace(config.reconstructor, level="coarse", part="head", colours="off", threads=1)
    reconstructor = PerProcess(functools.partial(FaceReconstructor.from_config, settings))
    network, model = reconstructor.value.network, reconstructor.value.model
    counts = ("people", "views", "pictures", "heads", "seed", "uncalibrated")
    own = {k: getattr(args, k) for k in counts}
    own["identities"] = [str(path) for path in args.identities]
    told = provenance(
        common.pipeline_files(args), {**pipeline_settings(args), **own, "threads": 1}
    )
    face_model = find_model(args.face_model)
    views = _PeopleRenderer(face_model, network.crop_margin, args.seed, not args.uncalibrated)
    with common.journalled(args, told) as execution:
        result = evaluate_shape(
            _people(args, model.k_identity),
            ShapeScorer(views, reconstructor, args.seed),
            model,
            execution,
        )
        if args.pictures:
            result["pictures"] = _pictures(args, reconstructor, execution)
        if args.heads:
            heads = HeadScorer(reconstructor, model)
            result["heads"] = evaluate_head_poses(heads, args.heads, execution)
        result["provenance"] = told
        return common.finish(args, result, _table(result, args.views))


#: Number of a held-out person, the (6, 6, 3) colours behind each picture, and the shape, if given.
_Person = tuple[int, Sequence[NDArray[np.uint8]], NDArray[np.float32] | None]


def _people(args: argparse.Namespace, k_identity: int) -> Iterator[_Person]:
    from face_recon_ros.evaluation.synthetic import background_colours

    shapes = [_shape(path, k_identity) for path in args.identities] or [None] * args.people
    random = np.random.default_rng(args.seed)
    for number, shape in enumerate(shapes):
        yield number, [background_colours(random) for _ in range(args.views)], shape


def _shape(path: Path, k_identity: int) -> NDArray[np.float32]:
    """(K_id,) of a result of `model fit`."""
    identity = read_json(path).get("identity")
    shape = np.array(identity if isinstance(identity, list) else [], np.float32)
    if shape.shape != (k_identity,) or not np.isfinite(shape).all():
        raise DataError(
            f"`identity` of {k_identity} numbers in {path}",
            f"{shape.size}",
            "give results of `face-recon model fit` with this face model",
        )
    return shape


@dataclass(frozen=True)
class _PeopleRenderer:
    """Held-out people before smooth backgrounds, as training renders them.

    Attributes:
        face_model: its file.
        margin: of the network's crops.
        seed: of the people.
        calibrated: whether the cameras are known.
    """

    face_model: Path
    margin: float
    seed: int
    calibrated: bool

    @functools.cached_property
    def _faces(self) -> SyntheticFaces:
        from face_recon_ros.training.synthesis.faces import SyntheticFaces

        model = load_morphable_model(self.face_model, level="coarse")
        return SyntheticFaces(model, margin=self.margin, size=_RENDERING_PX)

    def __call__(self, person: _Person) -> list[KnownView]:
        from face_recon_ros.core.crop import whole_crop
        from face_recon_ros.core.crop_pose import camera_from_face, crop_from_face
        from face_recon_ros.evaluation.shape import KnownView
        from face_recon_ros.evaluation.synthetic import smooth_background

        number, colours, identity = person
        views = []
        renderings = self._faces.held_out(number, len(colours), self.seed, identity)
        for rendering, behind in zip(renderings, colours, strict=True):
            assert rendering.camera is not None
            rgba, label, camera = rendering.rgba, rendering.label, rendering.camera
            alpha = rgba[..., 3:].astype(np.float32) / 255
            rgb = rgba[..., :3] * alpha + smooth_background(camera, behind) * (1 - alpha)
            # labels are for a picture as a crop
            in_crop = crop_from_face(label.rotation, label.translation)
            pose = camera_from_face(in_crop, whole_crop(_RENDERING_PX), camera)
            shown = np.asarray(rgb + 0.5, np.uint8)
            known = self.calibrated
            camera = replace(camera, calibrated=known, whole=known)
            views.append(KnownView(shown, camera, pose, label.identity, label.expression))
        return views


def _pictures(
    args: argparse.Namespace, reconstructor: PerProcess[FaceReconstructor], execution: Execution
) -> dict[str, Any]:
    """Landmarks and jitter on plain renderings, as `evaluate synthetic --random` writes them."""
    from face_recon_ros.evaluation.chain import StillChain
    from face_recon_ros.evaluation.jitter import JitterScorer, evaluate_jitter
    from face_recon_ros.evaluation.landmark_benchmark import evaluate_landmarks
    from face_recon_ros.evaluation.landmarks import LandmarkProjector
    from face_recon_ros.evaluation.synthetic import ModelScenes, write_scenes

    chain = StillChain.from_config(pipeline_config(args))
    fine = load_morphable_model(find_model(args.face_model), level="fine")
    with tempfile.TemporaryDirectory(prefix="face_recon_") as folder:
        scenes = ModelScenes(fine).random(args.pictures, seed=1 + args.seed)
        write_scenes(tqdm(scenes, "pictures", args.pictures, disable=None), folder, seed=1)
        marks = evaluate_landmarks(
            folder, chain, LandmarkProjector(chain.model), execution=execution
        )
        files = sorted(Path(folder).glob("*.png"))[:JITTER_FACES]
        alone = replace(pipeline_config(args).detector, threads=1)
        detector = PerProcess(functools.partial(make_detector, alone))
        scorer = JitterScorer(detector, reconstructor, JITTER_BOXES, JITTER_FACE_PX)
        jitter = evaluate_jitter(files, scorer, execution)
    keys = ("count", "missed", "nme51", "nme51_interval_95", "nme68")
    return {**{key: marks[key] for key in keys}, "jitter_px": jitter}


def _table(result: dict[str, Any], views: int) -> str:
    """The figures as people read them."""
    shape, skill, rank = result["shape_mm"], result["skill"], result["rank"]
    rms, px = result["identity_rms"], result["vertices_px"]
    across = result["point_to_plane_mm"]
    rows = [
        ("shape, mm", shape["mean_face"], shape["one_view"], shape["track"]),
        ("across the surface, mm", across["mean_face"], across["one_view"], across["track"]),
        ("skill", 0.0, skill["one_view"], skill["track"]),
        ("rank of the right person", 0.5, rank["one_view"], rank["track"]),
        (f"identity, rms ({rms['truth']:.2f})", 0.0, rms["one_view"], rms["track"]),
    ]
    header = ("", "mean face", "one picture", f"{views} as one track")
    lines = [common.table(header, rows)]
    lines.append(f"vertices, pixels of a 96 px crop: {px['mean']:.2f} (median {px['median']:.2f})")
    if pictures := result.get("pictures"):
        jitter = pictures["jitter_px"]
        lines.append(
            f"landmarks: NME51 {100 * pictures['nme51']:.2f} %, missed {pictures['missed']} of "
            f"{pictures['count']}; jitter of a face {jitter['face_px']:g} px wide: median "
            f"{jitter['median']:.2f} px, 90 % {jitter['p90']:.2f} px"
        )
    if heads := result.get("heads"):
        everywhere = heads["all"]
        lines.append(
            f"heads: rotation {everywhere['rotation_deg']:.2f} degrees, distance "
            f"{100 * everywhere['distance_share']:.2f} %"
        )
    table = result["expression"]
    bad = [row["name"] for row in table if not row["trusted"]]
    lines.append(f"expression: {len(bad)} of {len(table)} channels untrusted: {', '.join(bad)}")
    return "\n".join(lines)
