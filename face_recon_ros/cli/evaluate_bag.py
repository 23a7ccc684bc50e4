"""`face-recon evaluate bag`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from face_recon_ros.cli import common
from face_recon_ros.cli.options import (
    add_camera_options,
    add_frames_option,
    add_pipeline_options,
    add_topic_options,
)
from face_recon_ros.evaluation.output import write_json

Subparsers = argparse._SubParsersAction


def add_bag_command(kinds: Subparsers[argparse.ArgumentParser]) -> None:
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
        "  real_time/    with --real-time: rates, drops and latency of the real nodes over DDS",
    )
    parser.add_argument("bag", type=Path, help="folder, .mcap or .db3")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command on its parsed arguments."""
    from face_recon_ros.evaluation.replay import ReplayConfig, replay
    from face_recon_ros.evaluation.sequence_reports import bag_report
    from face_recon_ros.io.bags import open_bag

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
        fov_deg=args.fov,
        rectified=args.rectified,
    )
    bag = open_bag(args.bag)
    pipeline, names = common.live_pipeline(args)
    with common.Bar("replay") as bar:
        done = replay(bag, pipeline, names, config, progress=bar)
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
        told = truth.get("covariance") or truth.get("covariance_unaligned")
        if told:
            print(
                "errors over what the covariance says: position "
                f"{told['position']['normalised_rms']:.2f}, "
                f"rotation {told['rotation']['normalised_rms']:.2f} (1: as uncertain as they say)"
            )
    common.hint_no_face(sequence)
    print(args.out / "report.html")
    return 0
