"""`face-recon evaluate bag`."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from face_recon_ros.cli import common
from face_recon_ros.cli.cameras import add_camera_options, assumed_fov
from face_recon_ros.cli.numbers import finite
from face_recon_ros.cli.options import (
    add_frames_option,
    add_output,
    add_pipeline_options,
    add_pool_options,
    add_topic_options,
    pool_of,
    settings_of,
)
from face_recon_ros.core.errors import ConfigError, DataError
from face_recon_ros.evaluation.bag_overview import overview, overview_report
from face_recon_ros.evaluation.live import node_parameters, run_live
from face_recon_ros.evaluation.output import Progress, no_progress, write_json
from face_recon_ros.evaluation.replay import Replay, ReplayConfig, replay
from face_recon_ros.evaluation.sequence_reports import bag_report
from face_recon_ros.io.bags import open_bag
from face_recon_ros.io.folders import make_folder
from face_recon_ros.io.jobs import run_jobs
from face_recon_ros.io.journal import Journal

_PREFIX = "face-recon: "  # of what goes to stderr


def add_bag_command(kinds: common.Subparsers) -> None:
    """Adds the command."""
    parser = common.command(
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
        "  real_time/    with --real-time: rates, drops and latency of the real nodes over DDS\n"
        "Several bags: the same in a folder each, and result.json and report.html over all. A\n"
        "bag that cannot be read is named there and costs only itself; interrupted, the same\n"
        "command goes on where it stopped.",
    )
    parser.add_argument(
        "bag", type=Path, nargs="+", help="folder, .mcap or .db3; several: on all cores"
    )
    add_output(
        parser, "--out", folder=True, required=True, metavar="DIR", help="folder of the results"
    )
    group = parser.add_argument_group("what to read")
    add_topic_options(group)
    group.add_argument(
        "--depth-topic",
        default="",
        metavar="TOPIC",
        help="depth images registered to the colour images, to correct distances (default: none)",
    )
    truth = group.add_mutually_exclusive_group()
    truth.add_argument(
        "--truth-topic", default="", metavar="TOPIC", help="PoseStamped of the head (mocap)"
    )
    truth.add_argument("--truth-frame", default="", metavar="FRAME", help="the head's TF frame")
    group.add_argument(
        "--max-offset",
        type=finite,
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
    add_pool_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    if len(args.bag) > 1:
        return _run_many(args)
    _replay(argparse.Namespace(**{**vars(args), "bag": args.bag[0]}), common.Bar("replay"))
    return 0


def _run_many(args: argparse.Namespace) -> int:
    """Replays every bag, on all cores or a cluster, and sums up."""
    if args.real_time:
        raise ConfigError("one bag for --real-time", f"{len(args.bag)}", "give one after another")
    stems = Counter(path.resolve().stem for path in args.bag)
    bags = {
        (path.resolve().stem if stems[path.resolve().stem] == 1 else f"{k}_{path.stem}"): path
        for k, path in enumerate(args.bag)
    }
    everything = {**vars(args), "out": args.out.absolute(), "threads": 1}
    make_folder(args.out)
    journal = Journal(args.out / ".unfinished", settings_of(args))
    outcomes = run_jobs(
        _BagJob(argparse.Namespace(**everything)),
        {name: (name, str(path.absolute())) for name, path in bags.items()},
        pool_of(args),
        what="bags",
        journal=journal,
    )
    result = overview(outcomes)
    write_json(args.out / "result.json", result)
    overview_report(result).write(args.out / "report.html")
    for outcome in outcomes:
        if outcome.fault:
            print(f"{_PREFIX}left out {bags[outcome.key]}: {outcome.fault}", file=sys.stderr)
            continue
        for warning in outcome.value["warnings"]:
            print(f"{_PREFIX}{bags[outcome.key]}: {warning}", file=sys.stderr)
    if not result["bags"]:
        raise DataError(
            "a bag that can be replayed", f"{len(outcomes)} that cannot", outcomes[0].fault
        )
    journal.remove()
    print(f"{len(result['bags'])} of {len(outcomes)} bags, {result['frames']} frames")
    print(args.out / "report.html")
    return 0


@dataclass(frozen=True)
class _BagJob:
    """Replays one of several bags, in any process."""

    args: argparse.Namespace

    def __call__(self, item: tuple[str, str]) -> dict[str, Any]:
        """Figures of a bag, given its name among them and its path."""
        name, path = item
        own = {"bag": Path(path), "out": self.args.out / name}
        told, no_bar = io.StringIO(), contextlib.nullcontext(no_progress)
        # what several processes print would go through each other, their bars above all
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            result = _replay(argparse.Namespace(**{**vars(self.args), **own}), no_bar)
        warnings = [line.removeprefix(_PREFIX) for line in told.getvalue().splitlines()]
        return {**{key: result[key] for key in ("sequence", "ground_truth")}, "warnings": warnings}


def _replay(
    args: argparse.Namespace, bar: contextlib.AbstractContextManager[Progress]
) -> dict[str, Any]:
    """Replays one bag, writes and prints the result."""
    config = ReplayConfig(
        image_topic=args.image_topic,
        info_topic=args.info_topic,
        depth_topic=args.depth_topic,
        truth_topic=args.truth_topic,
        truth_frame=args.truth_frame,
        max_offset_s=args.max_offset,
        align=args.align,
        max_frames=args.frames,
        calibration=args.calibration,
        fov_deg=assumed_fov(args),
        rectified=args.rectified,
    )
    bag = open_bag(args.bag)
    pipeline, names = common.live_pipeline(args)
    with bar as progress:
        done = replay(bag, pipeline, names, config, progress=progress)
    result = done.result
    result["provenance"] = common.pipeline_provenance(
        args,
        image_topic=args.image_topic,
        info_topic=args.info_topic,
        depth_topic=args.depth_topic,
        truth_topic=args.truth_topic,
        truth_frame=args.truth_frame,
        align=args.align,
        max_offset_s=args.max_offset,
        **common.sequence_settings(args),
    )
    write_json(args.out / "result.json", result)
    duration = result["bag"]["duration_s"]
    timing: dict[str, Any] = {
        "replay_s": done.seconds,
        "times_real_time": duration / done.seconds if done.seconds > 0 else 0.0,
    }
    if args.real_time:
        timing["real_time"] = run_live(
            args.bag, args.out / "real_time", frames=args.frames, parameters=node_parameters(args)
        )
    model, began = pipeline.reconstructor.model, time.perf_counter()
    page = bag_report(result, bag, done, model, timing.get("real_time"))
    page.write(args.out / "report.html")
    timing["report_s"] = time.perf_counter() - began
    write_json(args.out / "timing.json", timing)
    for problem in (*bag.problems, *done.cameras.resolver.problems):
        print(f"{_PREFIX}{problem}", file=sys.stderr)
    _summarise(args, done, timing["times_real_time"])
    return dict(result)


def _summarise(args: argparse.Namespace, done: Replay, times_real_time: float) -> None:
    """Prints the figures that are looked at first, and where the page is."""
    sequence, truth = done.result["sequence"], done.result["ground_truth"]
    print(f"{args.bag}: images of {done.image_topic}, {done.cameras.resolver.source}")
    print(
        f"{sequence['frames']} frames in {done.seconds:.1f} s "
        f"({times_real_time:.1f} x real time), {sequence['missed_frames']} missed, "
        f"{sequence['track_count']} tracks, {sequence['id_switches']} id switches"
    )
    errors = truth and (truth.get("aligned") or truth.get("unaligned"))
    if errors:
        print(
            f"against {truth['source']}: rotation {errors['rotation_deg']['mean']:.2f} degrees, "
            f"translation {errors['translation_mm']['mean']:.1f} mm (means)"
        )
        calibration = truth.get("covariance") or truth.get("covariance_unaligned")
        if calibration:
            print(
                "errors over what the covariance says: position "
                f"{calibration['position']['normalised_rms']:.2f}, "
                f"rotation {calibration['rotation']['normalised_rms']:.2f} (1: as it says)"
            )
    common.hint_no_face(sequence)
    print(args.out / "report.html")
