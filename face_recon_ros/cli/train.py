"""`face-recon train` and `face-recon export`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from face_recon_ros.cli import common
from face_recon_ros.cli.numbers import at_least
from face_recon_ros.cli.options import add_output, add_pool_options, pool_of
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.models import NETWORK

_TRAIN = """Trains the regression network, or with --points the dense-point network, without any
label or landmark, from synthetic faces and, where given, a folder of unlabelled photographs.
Interrupt it when you like; `--resume` goes on. Every setting of --config and --set is described in
face_recon_ros/training/config.py; docs/training.md and docs/dense_points.md say what for."""

_PREPARE = """Finds the best face of each photograph and crops it, as `face-recon train` would
before its first step, into memory-mapped shards in OUT/photographs. No torch is needed.
Interrupted, the same command goes on; any number of cores or machines gives the same."""

_EXPORT = """Writes a checkpoint's averaged network as ONNX, and prints as JSON what was written
and how far 8 bits lie from float32."""


def add_training_commands(subparsers: common.Subparsers) -> None:
    """Adds `train` and `export`; each sets `run`, a function of the parsed arguments."""
    train = common.command(
        subparsers,
        "train",
        "train a network (needs torch)",
        _TRAIN,
        "example: face-recon train --config config/train.yaml --set minutes=30",
    )
    train.add_argument(
        "--config", metavar="FILE.yaml", help="see config/train.yaml; else defaults"
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one option (losses: weights.NAME=VALUE); may be repeated",
    )
    add_output(train, "--out", folder=True, help="folder of the run (default: runs/train)")
    train.add_argument(
        "--photographs",
        help="folder of photographs, or a text file listing them; with --points pieces of them "
        "are backgrounds",
    )
    train.add_argument(
        "--points",
        action="store_true",
        help="the dense-point network, which corrects the regressor (config/train_points.yaml)",
    )
    train.add_argument(
        "--device",
        metavar="cuda",
        help="where to train; with --points examples are made there, too (default: cpu; without "
        "--points: a GPU if there is one)",
    )
    train.add_argument(
        "--resume", action="store_true", help="continue from the folder's checkpoint"
    )
    train.set_defaults(run=_train)
    _add_prepare(train)
    _add_export(subparsers)


def _add_export(subparsers: common.Subparsers) -> None:
    export = common.command(
        subparsers,
        "export",
        "write a trained network as ONNX (needs torch)",
        _EXPORT,
        "example: face-recon export runs/train/checkpoint.pt --out models/face_net.onnx",
    )
    export.add_argument(
        "checkpoint",
        type=Path,
        help="checkpoint.pt of a run, or dense points exported in float32 to calibrate anew",
    )
    add_output(
        export, "--out", suffixes=(".onnx",), default=Path(NETWORK), help=f"default: {NETWORK}"
    )
    export.add_argument(
        "--precision",
        choices=("float32", "int8_weights", "int8"),
        default="float32",
        help="int8_weights: a quarter of the file, computed in float32; int8: dense points only, "
        "a third of the time on a CPU (default: %(default)s)",
    )
    export.add_argument(
        "--size", type=at_least(0), default=0, help="input size in pixels; 0: the training's"
    )
    export.add_argument(
        "--people",
        type=at_least(0),
        default=1000,
        metavar="N",
        help="dense points only: measure what answers say of who is shown on N rendered people, "
        "five minutes of one core for 1000; more are better; 0: not at all (default: %(default)s)",
    )
    export.add_argument(
        "--skins",
        metavar="DIR",
        help="dense points only: MakeHuman's system assets, whose skins most of these people wear "
        "(default: the run's)",
    )
    export.add_argument(
        "--manifest",
        metavar="ORIGIN",
        help="enter the file's SHA-256 into the manifest beside it, with this origin",
    )
    export.set_defaults(run=_export)


def _add_prepare(train: argparse.ArgumentParser) -> None:
    prepare = common.command(
        train.add_subparsers(metavar="[prepare]"),
        "prepare",
        "find and crop photographs ahead of a run, on many cores or machines",
        _PREPARE,
        "example: face-recon train prepare /data/faces --out runs/train --workers 16",
    )
    # The names of `train`'s options, under which its parser would put its own defaults.
    prepare.add_argument("prepared", metavar="PHOTOGRAPHS", help="folder, or text file listing")
    add_output(
        prepare,
        "--out",
        folder=True,
        default=Path("runs/train"),
        help="folder of the run (default: %(default)s)",
    )
    prepare.add_argument("--config", metavar="FILE.yaml", help="settings of the run")
    prepare.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one option; may be repeated",
    )
    add_pool_options(prepare)
    prepare.set_defaults(run=_prepare)


def _prepare(arguments: argparse.Namespace) -> None:
    from face_recon_ros.training.config import load_config, parse_overrides
    from face_recon_ros.training.photographs import PhotographCache, cache_of

    overrides = {**parse_overrides(arguments.set), "out": str(arguments.out)}
    config = load_config(arguments.config, overrides)
    counts = PhotographCache(cache_of(config.out)).build(
        arguments.prepared, config, skip_grey=config.skip_grey, pool=pool_of(arguments)
    )
    print(json.dumps({"cache": str(cache_of(config.out)), **dict(sorted(counts.items()))}))


def _train(arguments: argparse.Namespace) -> None:
    from face_recon_ros.training.config import PointConfig, load_config, parse_overrides
    from face_recon_ros.training.train import train
    from face_recon_ros.training.train_points import train_points

    overrides = parse_overrides(arguments.set)
    if arguments.out:
        overrides["out"] = str(arguments.out)
    if arguments.points:
        if arguments.photographs:
            overrides["backgrounds"] = arguments.photographs
        if arguments.device:
            overrides["device"] = arguments.device
        config = load_config(arguments.config, overrides, PointConfig)
        print(train_points(config, resume=arguments.resume))
        return
    if arguments.device:
        overrides["device"] = arguments.device
    if arguments.photographs:
        overrides["photographs"] = arguments.photographs
    print(train(load_config(arguments.config, overrides), resume=arguments.resume))


def _export(arguments: argparse.Namespace) -> None:
    from face_recon_ros.training.checkpoint import load_checkpoint
    from face_recon_ros.training.export import enter_manifest, export
    from face_recon_ros.training.export_points import export_points
    from face_recon_ros.training.train_points import KIND

    source = arguments.checkpoint
    if source.suffix == ".onnx" or load_checkpoint(source).get("kind") == KIND:
        if arguments.size:
            raise ConfigError("no --size for dense points", f"{arguments.size}", "leave it out")
        report = export_points(
            source,
            arguments.out,
            precision=arguments.precision,
            people=arguments.people,
            skins=arguments.skins,
        )
    else:
        report = export(
            source,
            arguments.out,
            precision=arguments.precision,
            size=arguments.size,
        )
    if arguments.manifest:
        enter_manifest(arguments.out, arguments.manifest)
    print(json.dumps(report, indent=2))
