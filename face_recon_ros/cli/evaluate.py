"""`face-recon evaluate ...`, `fit` and `record`: options, and what each writes."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from face_recon_ros.cli.evaluate_detection import add_detection_command
from face_recon_ros.cli.evaluate_shape import add_shape_command
from face_recon_ros.cli.evaluate_speed import add_speed_command
from face_recon_ros.cli.evaluate_tracking import add_tracking_command
from face_recon_ros.cli.options import (
    add_camera_options,
    add_frames_option,
    add_pipeline_options,
    add_topic_options,
    at_least,
    camera_resolver,
    open_input,
    pipeline_config,
    pipeline_settings,
    tell_input,
)
from face_recon_ros.core.errors import ConfigError, DataError
from face_recon_ros.core.models import (
    DETECTORS,
    FACE_MODEL,
    find_model,
    sha256_of,
)
from face_recon_ros.evaluation.output import Progress, provenance, read_json, write_json

if TYPE_CHECKING:
    from face_recon_ros.core.camera import PinholeCamera
    from face_recon_ros.core.morphable_model import MorphableModel
    from face_recon_ros.core.types import Image
    from face_recon_ros.evaluation.chain import StillChain

Subparsers = argparse._SubParsersAction

#: Pipeline options without effect on stills: measures take all detections and the coarse model.
_OF_SEQUENCES = ("max_faces", "detect_every", "level", "part")

_EVALUATE = """Measures the pipeline. Every evaluation writes JSON (--out): the figures, their
definitions, what was left out and why, what they were measured with; --report (a bag: always)
writes a self-contained HTML page too. docs/evaluation.md explains the protocols and their traps.
"""

_EXAMPLES = """examples:
  face-recon evaluate landmarks --images afw --out afw.json --report afw.html
  face-recon evaluate geometry --images scans --out now.json
  face-recon evaluate pose --images AFLW2000 --layout aflw2000 --out pose.json
  face-recon evaluate synthetic --turntable 25 --out truth && \\
    face-recon evaluate landmarks --images truth --out truth.json
  face-recon evaluate bag recording --out report
  face-recon evaluate compare before.json after.json"""


def add_evaluation_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Adds `evaluate`, `fit` and `record` to the commands of `face-recon`."""
    parser = _command(
        commands,
        "evaluate",
        "landmarks, geometry, pose, identity, detection, bags, speed, ...",
        _EVALUATE,
    )
    parser.epilog = _EXAMPLES
    kinds = parser.add_subparsers(title="evaluations", metavar="WHAT", required=True)
    _add_landmarks(kinds)
    _add_geometry(kinds)
    add_shape_command(kinds)
    _add_expression(kinds)
    _add_pose(kinds)
    _add_identity(kinds)
    _add_photometric(kinds)
    _add_temporal(kinds)
    add_detection_command(kinds)
    add_tracking_command(kinds)
    add_speed_command(kinds)
    _add_bag(kinds)
    _add_synthetic(kinds)
    _add_compare(kinds)
    _add_fit(commands)
    _add_record(commands)


# Parts that commands share -----------------------------------------------------------------------


def _command(
    subparsers: Subparsers[argparse.ArgumentParser], name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    return subparsers.add_parser(
        name,
        help=summary,
        description=description,
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


def _refuse(parser: argparse.ArgumentParser, *names: str) -> None:
    """Takes options away that the parser has already; their defaults stay in the namespace."""
    group = parser.add_argument_group(conflict_handler="resolve")
    for name in names:
        group.add_argument(
            f"--{name.replace('_', '-')}",
            action=_NoSuchOption,
            default=parser.get_default(name),
            help=argparse.SUPPRESS,
        )


def _add_image_options(
    parser: argparse.ArgumentParser, files: str, *, camera_matters: bool = False
) -> None:
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=files)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the figures")
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
            type=float,
            metavar="DEG",
            help="of the photographs' camera (default: unknown; landmarks as the crop shows them)",
        )
    add_pipeline_options(parser)
    _refuse(parser, *_OF_SEQUENCES)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="one self-contained page with plots"
    )


def _chain(args: argparse.Namespace) -> tuple[StillChain, MorphableModel]:
    """The chain that still images are measured with, and the whole coarse face model."""
    from face_recon_ros.core.detection import make_detector
    from face_recon_ros.core.reconstructor import FaceReconstructor
    from face_recon_ros.evaluation.chain import StillChain

    config = pipeline_config(args)
    whole = replace(config.reconstructor, level="coarse", part="head")
    reconstructor = FaceReconstructor.from_config(whole)
    chain = StillChain(make_detector(config.detector), reconstructor, refine=args.refine)
    return chain, reconstructor.model


def _provenance(args: argparse.Namespace, **settings: Any) -> dict[str, Any]:
    from face_recon_ros.core.inference import find_network

    detector = args.detector_model or DETECTORS[args.detector]
    files = [find_network(args.network, args.provider)]
    files += [find_model(name) for name in (args.face_model, detector) if name]
    common = {k: v for k, v in pipeline_settings(args).items() if k not in _OF_SEQUENCES}
    return provenance(files, {**common, **settings})


class _Bar:
    """A progress bar on stderr, with the time left; quiet where nobody looks."""

    def __init__(self, what: str) -> None:
        self._bar = tqdm(desc=what, unit="", disable=None, dynamic_ncols=True)

    def __call__(self, done: int, total: int) -> None:
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


def _finish(args: argparse.Namespace, result: dict[str, Any], summary: str) -> int:
    write_json(args.out, result)
    _warn_skipped(result)
    print(summary)
    return 0


# Still images ------------------------------------------------------------------------------------


def _add_landmarks(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "landmarks",
        "68 landmarks of annotated photographs (300-W, AFW, ...)",
        "Normalised mean error of the 68 landmarks. --images holds NAME.jpg and NAME.pts:\n"
        '68 lines "x y", iBUG order, pixel centres at integers (iBUG files with their header are\n'
        "read too). The annotation chooses among the detections; the crop is the detection's.",
    )
    _add_image_options(parser, "NAME.jpg + NAME.pts", camera_matters=True)
    _add_report(parser)
    parser.set_defaults(run=_run_landmarks)


def _run_landmarks(args: argparse.Namespace) -> int:
    from face_recon_ros.evaluation.landmark_benchmark import evaluate_landmarks
    from face_recon_ros.evaluation.landmarks import LandmarkProjector

    chain, model = _chain(args)
    with _Bar("landmarks") as bar:
        result = evaluate_landmarks(
            args.images, chain, LandmarkProjector(model), fov_deg=args.fov, progress=bar
        )
    result["provenance"] = _provenance(args, refine=args.refine, fov_deg=args.fov)
    if args.report:
        from face_recon_ros.evaluation.report_pages import landmark_report

        landmark_report(result, args.images).write(args.report)
    return _finish(
        args,
        result,
        f"{result['count']} images, {result['missed']} missed, "
        f"nme68 {100 * result['nme68']:.2f} %, nme51 {100 * result['nme51']:.2f} %",
    )


def _add_geometry(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "geometry",
        "neutral shape against scans (NoW style)",
        "Scan-to-mesh distance of the neutral face, beside the mean face's (what an answer that\n"
        "knows nothing has) and the floor (the face model fitted to the scan), and the skill\n"
        "between the two. --images holds NAME.jpg, NAME.ply (true neutral face) and NAME.pts3d\n"
        '(its 68 landmarks, lines "x y z", same unit and frame). Images with the same scan show\n'
        "one person: they are also scored together, as one track.",
    )
    _add_image_options(parser, "NAME.jpg + NAME.ply + NAME.pts3d")
    parser.add_argument(
        "--unit", choices=("mm", "cm", "m"), default="mm", help="of scans (default: %(default)s)"
    )
    parser.add_argument(
        "--no-floor",
        action="store_true",
        help="leave out the fit of the face model to every scan (some seconds each), and skill",
    )
    _add_report(parser)
    parser.set_defaults(run=_run_geometry)


def _run_geometry(args: argparse.Namespace) -> int:
    from face_recon_ros.core.morphable_model import load_morphable_model
    from face_recon_ros.evaluation.geometry import evaluate_geometry

    chain, model = _chain(args)
    fine = load_morphable_model(find_model(args.face_model), level="fine").triangles
    with _Bar("geometry") as bar:
        result = evaluate_geometry(
            args.images,
            chain,
            model,
            unit=args.unit,
            floor=not args.no_floor,
            fine_triangles=fine,
            progress=bar,
        )
    result["provenance"] = _provenance(args, refine=args.refine, unit=args.unit)
    if args.report:
        from face_recon_ros.evaluation.report_pages import geometry_report

        geometry_report(result, args.images).write(args.report)
    print(_geometry_table(result))
    return _finish(args, result, f"{result['count']} images, {result['missed']} missed")


def _geometry_table(result: dict[str, Any]) -> str:
    """What was measured beside the mean face, the floor and the skill, a line a figure."""
    tracks = result["people"] if result["people"]["count"] else {}
    together = tracks.get("ours", {}), tracks.get("skill", {})
    lines = [
        f"{'mm':28}{'mean face':>10}{'ours':>8}{'floor':>8}{'skill':>8}"
        + (f"{'as tracks':>11}{'skill':>8}" if tracks else "")
    ]
    for name, label in (
        ("median_mm", "nearest surface, median"),
        ("landmark_mm", "51 landmarks, mean"),
        ("corresponding_mm", "corresponding vertices, mean"),
    ):
        sides = [result["mean_face"], result, result.get("floor", {}), result.get("skill", {})]
        cells = [_figure(side.get(name)) for side in sides]
        line = f"{label:28}{cells[0]:>10}{cells[1]:>8}{cells[2]:>8}{cells[3]:>8}"
        if tracks:
            line += f"{_figure(together[0].get(name)):>11}{_figure(together[1].get(name)):>8}"
        lines.append(line)
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"


def _add_expression(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "expression",
        "expressions on photographs against another method's landmarks",
        "Gaps of lids and lips, the mouth's width and corners and the brows' heights, on the\n"
        "reconstructed face and on 68 landmarks in 3D of another method: --images holds NAME.jpg\n"
        "and NAME.xyz, as scripts/mediapipe_points.py writes them.",
    )
    _add_image_options(parser, "NAME.jpg + NAME.xyz")
    parser.set_defaults(run=_run_expression)


def _run_expression(args: argparse.Namespace) -> int:
    from face_recon_ros.evaluation.expression_benchmark import evaluate_expression

    chain, model = _chain(args)
    with _Bar("expression") as bar:
        result = evaluate_expression(args.images, chain, model, progress=bar)
    result["provenance"] = _provenance(args, refine=args.refine)
    print(f"{'measure':16}{'correlation':>12}{'amplitude':>11}  channels")
    for name, row in result["measures"].items():
        told = ", ".join(f"{k} {_figure(v)}" for k, v in row["channels"].items())
        mesh = row["mesh"]
        line = f"{name:16}{_figure(mesh['correlation']):>12}{_figure(mesh['amplitude']):>11}"
        print(f"{line}  {told}")
    return _finish(args, result, f"{result['count']} images, {result['missed']} missed")


def _add_pose(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "pose",
        "head rotation (AFLW2000-3D, BIWI, synthetic)",
        "Head rotation by the data set's own angle convention, and as one geodesic angle.\n"
        "  aflw2000   NAME.jpg + NAME.mat (Pose_Para, pt3d_68)\n"
        "  biwi       hpdb's numbered folders: frame_*_rgb.png, frame_*_pose.txt, rgb.cal\n"
        "  synthetic  NAME.png + NAME.json of `face-recon evaluate synthetic`",
    )
    _add_image_options(parser, "the data set's folder")
    parser.add_argument("--layout", choices=("aflw2000", "biwi", "synthetic"), required=True)
    _add_report(parser)
    parser.set_defaults(run=_run_pose)


def _run_pose(args: argparse.Namespace) -> int:
    from face_recon_ros.evaluation.pose_benchmark import evaluate_pose

    chain, _ = _chain(args)
    with _Bar("pose") as bar:
        result = evaluate_pose(args.images, args.layout, chain, progress=bar)
    result["provenance"] = _provenance(args, refine=args.refine, layout=args.layout)
    everything = result["all"]
    if args.report:
        from face_recon_ros.evaluation.report_pages import pose_report

        pose_report(result, args.images).write(args.report)
    return _finish(
        args,
        result,
        f"{result['count']} images, {result['missed']} missed, mean absolute error "
        f"{everything['mae_deg']['mean']:.2f} degrees, geodesic "
        f"{everything['geodesic_deg']['mean']:.2f} degrees",
    )


def _add_identity(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "identity",
        "same or different person, by identity coefficients (LFW)",
        "How well identity coefficients separate people. --images holds several photographs a\n"
        "person: NAME_0001.jpg, NAME_0002.jpg, ... as LFW does.",
    )
    _add_image_options(parser, "NAME_0001.jpg, NAME_0002.jpg, ...")
    parser.add_argument(
        "--max-persons", type=at_least(0), default=0, metavar="N", help="at random (default: all)"
    )
    _add_report(parser)
    parser.set_defaults(run=_run_identity)


def _run_identity(args: argparse.Namespace) -> int:
    from face_recon_ros.evaluation.identity import evaluate_identity

    chain, _ = _chain(args)
    with _Bar("identity") as bar:
        result = evaluate_identity(args.images, chain, max_persons=args.max_persons, progress=bar)
    result["provenance"] = _provenance(args, refine=args.refine, max_persons=args.max_persons)
    if args.report:
        from face_recon_ros.evaluation.report_pages import identity_report

        identity_report(result, args.images).write(args.report)
    return _finish(
        args,
        result,
        f"{result['count']} images of {result['persons']} people, {result['missed']} missed, "
        f"AUC {result['identity']['auc_cosine']:.3f}",
    )


def _add_photometric(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "photometric",
        "rendering against photograph over the skin; optionally what a fit would gain",
        "Mean absolute difference between rendering and photograph over the visible skin\n"
        "(of 255), of the largest face of each picture. --fit runs the iterative fit from the\n"
        "network's answer and from scratch on each: what the network gains, at what cost in time.",
    )
    _add_image_options(parser, "pictures")
    parser.add_argument("--fit", action="store_true", help="compare with the iterative fit")
    parser.add_argument(
        "--max-images", type=at_least(0), default=0, metavar="N", help="evenly (default: all)"
    )
    _add_report(parser)
    parser.set_defaults(run=_run_photometric)


def _run_photometric(args: argparse.Namespace) -> int:
    from face_recon_ros.evaluation.photometric import evaluate_photometric

    chain, model = _chain(args)
    with _Bar("photometric") as bar:
        result = evaluate_photometric(
            args.images, chain, model, fit=args.fit, max_images=args.max_images, progress=bar
        )
    result["provenance"] = _provenance(
        args, refine=args.refine, fit=args.fit, max_images=args.max_images
    )
    if args.report:
        from face_recon_ros.evaluation.report_pages import photometric_report

        photometric_report(result, args.images).write(args.report)
    line = (
        f"{result['count']} images, {result['missed']} missed, {result['photometric']:.2f} of 255"
    )
    if args.fit:
        line += (
            f"; fitted from the network {result['fit_from_network']['photometric']:.2f}, "
            f"from scratch {result['fit_from_scratch']['photometric']:.2f}"
        )
    return _finish(args, result, line)


# Sequences ---------------------------------------------------------------------------------------


def _pipeline(args: argparse.Namespace) -> tuple[Any, tuple[str, ...]]:
    from face_recon_ros.core.pipeline import FacePipeline

    pipeline = FacePipeline.from_config(pipeline_config(args))
    return pipeline, pipeline.reconstructor.model.expression_names


def _sequence_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What changes figures of videos and bags beside the models."""
    names = (*_OF_SEQUENCES, "frames")
    calibration = args.calibration
    return {
        **{name: getattr(args, name) for name in names},
        "calibration": calibration and {calibration.name: sha256_of(calibration)},
        "fov_deg": args.fov,
    }


def _hint_no_face(figures: dict[str, Any]) -> None:
    if not figures["frames_with_face"]:
        remedy = "small ones need more --tiles"
        print(f"face-recon: no face in {figures['frames']} frames; {remedy}", file=sys.stderr)


def _add_temporal(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "temporal",
        "steadiness on a video: noise, drift, blinks, id switches",
        "Runs a video through the pipeline and measures what should stand still. On a clip of a\n"
        "still head all of depth_std_mm is error; a blink must not move the head.",
    )
    parser.add_argument("source", help="video, folder of pictures, bag, or `pattern`")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    add_frames_option(parser)
    add_topic_options(parser)
    add_pipeline_options(parser)
    _add_report(parser)
    add_camera_options(parser)
    parser.set_defaults(run=_run_temporal)


def _run_temporal(args: argparse.Namespace) -> int:
    from itertools import islice

    from face_recon_ros.evaluation.sequence import Recording, sequence_figures
    from face_recon_ros.io.sources import with_cameras

    source, resolver = open_input(args)
    pipeline, names = _pipeline(args)
    recording = Recording()
    with _Bar("temporal") as bar:
        for image, camera in islice(with_cameras(source, resolver), args.frames or None):
            recording.add(pipeline.process(image, camera), image.stamp)
            bar(len(recording.stamps), source.length or 0)
    tell_input(source, resolver)
    if not recording.stamps:
        raise DataError(f"images in {args.source}", "none", "check the source")
    figures = sequence_figures(recording, names)
    result = {
        "protocol": {"name": "temporal"},
        "sequence": figures,
        "provenance": _provenance(args, source=Path(args.source).name, **_sequence_settings(args)),
    }
    if args.report:
        from face_recon_ros.evaluation.report_pages import temporal_report

        temporal_report(result, Path(args.source).name).write(args.report)
    _hint_no_face(figures)
    return _finish(
        args,
        result,
        f"{figures['frames']} frames, {figures['missed_frames']} missed, "
        f"{figures['track_count']} tracks, {figures['id_switches']} id switches",
    )


def _add_bag(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "bag",
        "deterministic replay of a rosbag2, with a report",
        "Replays a rosbag2 (sqlite3 or mcap, raw or compressed images) in lock-step: every\n"
        "image, in the order of stamps: the same bag gives the same bytes. The camera is that of\n"
        "--calibration, else the bag's CameraInfo, else --fov. Writes into --out:\n"
        "  result.json   figures; accuracy where the bag has ground truth of the head\n"
        "  report.html   the same to look at\n"
        "  timing.json   how long replay and report took (the only file that differs from run to\n"
        "                run, with --real-time report.html too)\n"
        "  real_time/    with --real-time: rates, drops and latency of the real nodes over DDS",
    )
    parser.add_argument("bag", type=Path, help="folder, .mcap or .db3")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    group = parser.add_argument_group("what to read")
    add_topic_options(group)
    truth = group.add_mutually_exclusive_group()
    truth.add_argument(
        "--truth-topic", default="", metavar="TOPIC", help="PoseStamped of the head (mocap)"
    )
    truth.add_argument("--truth-frame", default="", metavar="FRAME", help="the head's TF frame")
    group.add_argument(
        "--max-offset",
        type=float,
        default=1.0,
        metavar="S",
        help="clock difference to ground truth that is searched (default: %(default)g)",
    )
    group.add_argument(
        "--align",
        choices=("auto", "none"),
        default="auto",
        help="hand-eye alignment of ground truth (default: %(default)s)",
    )
    add_frames_option(group)
    parser.add_argument(
        "--real-time", action="store_true", help="also through the real nodes (needs ROS)"
    )
    add_pipeline_options(parser)
    add_camera_options(parser)
    parser.set_defaults(run=_run_bag)


def _run_bag(args: argparse.Namespace) -> int:
    from face_recon_ros.evaluation.replay import ReplayConfig, replay
    from face_recon_ros.evaluation.report_pages import bag_report
    from face_recon_ros.io.bags import open_bag

    config = ReplayConfig(
        image_topic=args.image_topic,
        info_topic=args.info_topic,
        truth_topic=args.truth_topic,
        truth_frame=args.truth_frame,
        max_offset_s=args.max_offset,
        align=args.align,
        max_frames=args.frames,
        calibration=args.calibration,
        fov_deg=args.fov,
        rectified=args.rectified,
    )
    bag = open_bag(args.bag)
    pipeline, names = _pipeline(args)
    with _Bar("replay") as bar:
        done = replay(bag, pipeline, names, config, progress=bar)
    result = done.result
    result["provenance"] = _provenance(
        args,
        image_topic=args.image_topic,
        info_topic=args.info_topic,
        truth_topic=args.truth_topic,
        truth_frame=args.truth_frame,
        align=args.align,
        max_offset_s=args.max_offset,
        **_sequence_settings(args),
    )
    write_json(args.out / "result.json", result)
    duration = result["bag"]["duration_s"]
    timing: dict[str, Any] = {
        "replay_s": done.seconds,
        "times_real_time": duration / done.seconds if done.seconds > 0 else 0.0,
    }
    if args.real_time:
        from face_recon_ros.evaluation.live import node_parameters, run_live

        timing["real_time"] = run_live(
            args.bag, args.out / "real_time", frames=args.frames, parameters=node_parameters(args)
        )
    model, began = pipeline.reconstructor.model, time.perf_counter()
    page = bag_report(result, bag, done, model, timing.get("real_time"))
    page.write(args.out / "report.html")
    timing["report_s"] = time.perf_counter() - began
    write_json(args.out / "timing.json", timing)
    for problem in bag.problems:
        print(f"face-recon: {problem}", file=sys.stderr)
    sequence, truth = result["sequence"], result["ground_truth"]
    for problem in done.cameras.resolver.problems:
        print(f"face-recon: {problem}", file=sys.stderr)
    print(f"{args.bag}: images of {done.image_topic}, {done.cameras.resolver.source}")
    print(
        f"{sequence['frames']} frames in {done.seconds:.1f} s "
        f"({timing['times_real_time']:.1f} x real time), {sequence['missed_frames']} missed, "
        f"{sequence['track_count']} tracks, {sequence['id_switches']} id switches"
    )
    errors = truth and (truth.get("aligned") or truth.get("unaligned"))
    if errors:
        print(
            f"against {truth['source']}: rotation {errors['rotation_deg']['mean']:.2f} degrees, "
            f"translation {errors['translation_mm']['mean']:.1f} mm (means)"
        )
    _hint_no_face(sequence)
    print(args.out / "report.html")
    return 0


def _add_record(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "record",
        "a video, folder or camera into a rosbag2",
        "Writes images into a rosbag2 without ROS: /camera/image_raw, with CameraInfo where\n"
        "there is a calibration. Live topics:\n"
        "  ros2 bag record -s mcap /camera/image_raw /camera/camera_info",
    )
    parser.add_argument("source", help="video, folder, bag, device number, or `pattern`")
    parser.add_argument("--out", type=Path, required=True, metavar="BAG", help="folder to make")
    add_topic_options(parser)
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap")
    parser.add_argument("--compressed", action="store_true", help="JPEG instead of raw pixels")
    add_frames_option(parser)
    parser.add_argument("--calibration", type=Path, metavar="FILE.yaml")
    parser.set_defaults(run=_run_record)


def _run_record(args: argparse.Namespace) -> int:
    from dataclasses import replace
    from itertools import islice

    from face_recon_ros.evaluation.record import record
    from face_recon_ros.io.sources import image_topic_of

    source, resolver = open_input(args)

    def camera_of(image: Image) -> PinholeCamera | None:
        if source.camera_info is not None:
            resolver.update(source.camera_info)
        camera = resolver(image)
        return camera if camera.calibrated else None

    # A file's first stamp is 0, which in a message means "not stamped".
    shift = 0.0 if source.live or image_topic_of(source) else 1.0
    images = islice(source, args.frames or None)
    shifted = (replace(image, stamp=image.stamp + shift) for image in images)
    with _Bar("record") as bar:
        count = record(
            shifted,
            args.out,
            storage=args.storage,
            compressed=args.compressed,
            camera=camera_of,
            total=args.frames or source.length or 0,
            progress=bar,
        )
    source.close()
    tell_input(source, resolver)
    print(f"{count} images in {args.out}")
    return 0


# Truth, comparison, fit --------------------------------------------------------------------------


def _add_synthetic(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "synthetic",
        "writes pictures with known camera, pose and shape",
        "Renders the face model, or any coloured mesh, with known truth, in the formats that\n"
        "`evaluate landmarks`, `geometry` and `pose --layout synthetic` read.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--random", type=at_least(1), metavar="N", help="N people in different poses and light"
    )
    group.add_argument(
        "--turntable", type=at_least(1), metavar="N", help="one person in N views, side to side"
    )
    parser.add_argument(
        "--yaw",
        type=float,
        default=60.0,
        metavar="DEG",
        help="of the turntable, to each side (default: %(default)g)",
    )
    parser.add_argument(
        "--size", type=at_least(16), default=480, metavar="PX", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=1, help="of people and light (default: %(default)s)"
    )
    parser.add_argument(
        "--face-model", default=FACE_MODEL, metavar="FILE", help="(default: the shipped one)"
    )
    group = parser.add_argument_group("a turntable of another mesh")
    group.add_argument(
        "--mesh", type=Path, metavar="FILE", help="OBJ or PLY, neutral, with vertex colours as lit"
    )
    group.add_argument(
        "--mesh-landmarks",
        type=Path,
        metavar="FILE.pts3d",
        help='its 68 landmarks, lines "x y z", same unit and frame',
    )
    group.add_argument(
        "--unit", choices=("mm", "cm", "m"), default="mm", help="of both (default: %(default)s)"
    )
    parser.set_defaults(run=_run_synthetic)


def _run_synthetic(args: argparse.Namespace) -> int:
    import numpy as np

    from face_recon_ros.core.morphable_model import load_morphable_model
    from face_recon_ros.evaluation.synthetic import (
        ModelScenes,
        facing,
        read_coloured_mesh,
        scene_of_mesh,
        write_scenes,
    )

    if (args.mesh is None) != (args.mesh_landmarks is None) or (args.mesh and not args.turntable):
        raise ConfigError(
            "--mesh with --mesh-landmarks and --turntable", "one without the other", "give all"
        )
    model = load_morphable_model(find_model(args.face_model), level="fine")
    scenes = ModelScenes(model, size_px=args.size)
    if args.mesh:
        mesh, marks = read_coloured_mesh(args.mesh, args.mesh_landmarks, args.unit)
        yaws = np.radians(np.linspace(-args.yaw, args.yaw, args.turntable))
        views = (
            scene_of_mesh(
                f"turn_{i:03d}", mesh, marks, model, scenes.camera, facing([0, 0, 0.55], yaw=yaw)
            )
            for i, yaw in enumerate(yaws)
        )
    elif args.turntable:
        views = scenes.turntable(args.turntable, yaw_deg=args.yaw, seed=args.seed)
    else:
        views = scenes.random(args.random, seed=args.seed)
    total = args.turntable or args.random
    count = write_scenes(tqdm(views, total=total, disable=None), args.out, seed=args.seed)
    print(f"{count} pictures with truth in {args.out}")
    return 0


def _add_compare(kinds: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        kinds,
        "compare",
        "two results: better, worse or the same, for regression gates",
        "Compares two results of one evaluation: paired by image (or second of video) with\n"
        "bootstrap intervals, counts by a binomial test, AUC by its interval; noise and speed,\n"
        "single numbers, by more than 5 %. Exit code 1 when B is worse than A beyond chance and\n"
        "--tolerance.",
    )
    parser.add_argument("a", type=Path, metavar="A.json", help="reference")
    parser.add_argument("b", type=Path, metavar="B.json", help="candidate")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="B may be worse by this share of A (default: %(default)g)",
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="(default: %(default)g)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="the comparison as JSON")
    parser.set_defaults(run=_run_compare)


def _run_compare(args: argparse.Namespace) -> int:
    from face_recon_ros.evaluation.compare import compare

    if not (0.0 < args.confidence < 1.0 and args.tolerance >= 0.0):
        raise ConfigError(
            "--confidence between 0 and 1, --tolerance of at least 0",
            f"{args.confidence} and {args.tolerance}",
            "0.95 and 0 are usual",
        )
    changes = compare(
        read_json(args.a), read_json(args.b), tolerance=args.tolerance, confidence=args.confidence
    )
    print(f"{'figure':30} {'A':>10} {'B':>10}  B - A [{100 * args.confidence:g} %]")
    for c in changes:
        d = c.difference
        gap = f"{d.value:+.4g} [{d.low:+.4g}, {d.high:+.4g}]" if d else f"{c.b - c.a:+.4g}"
        gap += f" n={c.pairs}" if c.pairs else ""
        gap += f" p={c.chance:.3g}" if c.chance is not None else ""
        print(f"{c.name:30} {c.a:10.4g} {c.b:10.4g}  {gap}  {c.verdict}")
    if args.out:
        write_json(args.out, {"changes": [vars(c) for c in changes]})
    return int(any(c.verdict == "worse" for c in changes))


def _add_fit(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "fit",
        "refine one portrait by iterative analysis by synthesis",
        "Fits the face model to the largest face of a picture: minimises the difference between\n"
        "rendering and photograph (Blanz and Vetter 1999): the traditional way, to compare with\n"
        "or to refine a portrait offline. Writes NAME_fit.ply, NAME_fit.png and NAME_fit.json.",
    )
    parser.add_argument("image", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--start",
        choices=("network", "scratch"),
        default="network",
        help="where to begin (default: %(default)s)",
    )
    parser.add_argument("--refine", type=int, default=0, help=argparse.SUPPRESS)
    add_pipeline_options(parser)
    _refuse(parser, *_OF_SEQUENCES)
    add_camera_options(parser)
    parser.set_defaults(run=_run_fit)


def _run_fit(args: argparse.Namespace) -> int:
    from face_recon_ros.evaluation.portrait import fit_portrait

    chain, model = _chain(args)
    result = fit_portrait(
        args.image,
        args.out,
        chain,
        model,
        from_scratch=args.start == "scratch",
        camera_of=camera_resolver(args).camera,
    )
    result["provenance"] = _provenance(args, start=args.start)
    write_json(args.out / f"{args.image.stem}_fit.json", result)
    print(
        f"{result['seconds']:.1f} s; difference to the photograph "
        f"{result['photometric_start']:.2f} -> {result['photometric_end']:.2f} of 255; {args.out}"
    )
    return 0
