"""`face-recon evaluate shape`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from face_recon_ros.cli import common
from face_recon_ros.cli.options import (
    add_pipeline_options,
    at_least,
    pipeline_config,
    pipeline_settings,
)
from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import MorphableModel, load_morphable_model
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.evaluation.output import provenance

if TYPE_CHECKING:
    from face_recon_ros.evaluation.shape import KnownView

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
Needs the extra `training`, whose renderer makes the people. Runs the pipeline that users run: any
network file will do."""

_EXAMPLES = """examples:
  face-recon evaluate shape --out shape.json
  face-recon evaluate shape --network run/best.onnx --out best.json --people 10
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
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the figures")
    parser.add_argument(
        "--people", type=at_least(2), default=40, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--views", type=at_least(1), default=12, metavar="N", help="of each (default: %(default)s)"
    )
    parser.add_argument(
        "--pictures",
        type=at_least(0),
        default=60,
        metavar="N",
        help="plain ones (default: %(default)s); 0 leaves them out",
    )
    parser.add_argument(
        "--heads",
        type=at_least(0),
        default=3,
        metavar="N",
        help="per camera and distance, 16 of those (default: %(default)s); 0 leaves them out",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of the people (default: %(default)s)"
    )
    add_pipeline_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    from face_recon_ros.evaluation.head_poses import evaluate_head_poses
    from face_recon_ros.evaluation.shape import evaluate_shape

    config = pipeline_config(args)
    settings = replace(config.reconstructor, level="coarse", part="head", colours="off")
    reconstructor = FaceReconstructor.from_config(settings)
    model = reconstructor.model
    with common.Bar("people") as bar:
        result = evaluate_shape(
            _people(args, model, reconstructor.network.crop_margin),
            reconstructor,
            seed=args.seed,
            total=args.people,
            progress=bar,
        )
    if args.pictures:
        result["pictures"] = _pictures(args, reconstructor)
    if args.heads:
        with common.Bar("heads") as bar:
            result["heads"] = evaluate_head_poses(
                reconstructor, model, count=args.heads, progress=bar
            )
    files = [reconstructor.network.path, find_model(args.face_model)]
    if reconstructor.points is not None:
        files.append(reconstructor.points.network.path)
    own = {k: getattr(args, k) for k in ("people", "views", "pictures", "seed")}
    result["provenance"] = provenance(files, {**pipeline_settings(args), **own})
    return common.finish(args, result, _table(result, args.views))


def _people(
    args: argparse.Namespace, model: MorphableModel, margin: float
) -> Iterator[Sequence[KnownView]]:
    """Held-out people before smooth backgrounds, as training renders them."""
    from face_recon_ros.core.crop_pose import crop_camera, crop_from_face
    from face_recon_ros.evaluation.shape import KnownView
    from face_recon_ros.evaluation.synthetic import smooth_background
    from face_recon_ros.training.synthesis.faces import SyntheticFaces

    faces = SyntheticFaces(model, margin=margin, size=_RENDERING_PX)
    camera = crop_camera(_RENDERING_PX)  # the renderings' labels are for a picture as a crop
    random = np.random.default_rng(args.seed)
    for renderings in faces.held_out(args.people, args.views, args.seed):
        views = []
        for rgba, label in renderings:
            alpha = rgba[..., 3:].astype(np.float32) / 255
            rgb = rgba[..., :3] * alpha + smooth_background(camera, random) * (1 - alpha)
            pose = crop_from_face(label.rotation, label.translation)
            shown = np.asarray(rgb + 0.5, np.uint8)
            views.append(KnownView(shown, camera, pose, label.identity, label.expression))
        yield views


def _pictures(args: argparse.Namespace, reconstructor: FaceReconstructor) -> dict[str, Any]:
    """Landmarks and jitter on plain renderings, as `evaluate synthetic --random` writes them."""
    from face_recon_ros.evaluation.chain import StillChain
    from face_recon_ros.evaluation.landmark_benchmark import evaluate_landmarks
    from face_recon_ros.evaluation.landmarks import LandmarkProjector
    from face_recon_ros.evaluation.stills import Execution
    from face_recon_ros.evaluation.synthetic import ModelScenes, write_scenes

    chain = StillChain(make_detector(pipeline_config(args).detector), reconstructor)
    fine = load_morphable_model(find_model(args.face_model), level="fine")
    with tempfile.TemporaryDirectory(prefix="face_recon_") as folder:
        scenes = ModelScenes(fine).random(args.pictures, seed=1 + args.seed)
        write_scenes(tqdm(scenes, "pictures", args.pictures, disable=None), folder, seed=1)
        marks = evaluate_landmarks(
            folder, chain, LandmarkProjector(reconstructor.model), execution=Execution(bar=True)
        )
        trembling = _jitter(Path(folder), chain, reconstructor)
    keys = ("count", "missed", "nme51", "nme51_interval_95", "nme68")
    return {**{key: marks[key] for key in keys}, "jitter_px": trembling}


def _jitter(folder: Path, chain: Any, reconstructor: FaceReconstructor) -> dict[str, Any]:
    from face_recon_ros.evaluation.chain import largest
    from face_recon_ros.evaluation.datasets import read_image
    from face_recon_ros.evaluation.jitter import jitter_px, scaled_to, scattered_boxes

    found = []
    files = sorted(folder.glob("*.png"))[:JITTER_FACES]
    for number, file in enumerate(tqdm(files, "jitter", disable=None)):
        rgb = read_image(file)
        detections = chain.detect(rgb)
        if (best := largest(detections)) is not None:
            rgb, box = scaled_to(rgb, detections.boxes[best], JITTER_FACE_PX)
            boxes = scattered_boxes(box, JITTER_BOXES, np.random.default_rng(number))
            found.append(jitter_px(rgb, boxes, reconstructor))
    known = np.array(found)[np.isfinite(found)]
    nan = float("nan")
    return {
        "faces": len(known),
        "face_px": JITTER_FACE_PX,
        "median": float(np.median(known)) if len(known) else nan,
        "p90": float(np.percentile(known, 90)) if len(known) else nan,
    }


def _table(result: dict[str, Any], views: int) -> str:
    """The figures as people read them."""
    shape, skill, rank = result["shape_mm"], result["skill"], result["rank"]
    rms, px = result["identity_rms"], result["vertices_px"]
    rows = [
        ("shape, mm", shape["mean_face"], shape["one_view"], shape["track"]),
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
