#!/usr/bin/env python3
"""Takes each training loss away in turn, in short runs from one start, and prints a table.

All runs see the same crops in the same order. They begin from a trained backbone, all but its
last stage frozen, with new heads; the baseline with several seeds shows the noise of differences.
Interrupt it when you like: the same command goes on where it stopped.

    scripts/ablation.py --start runs/s6/checkpoint.pt --landmarks AFW --out runs/ablation
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.training.checkpoint import load_checkpoint, save_checkpoint
from face_recon_ros.training.config import LossWeights, TrainConfig, config_from_dict
from face_recon_ros.training.data import Crops, open_render_cache
from face_recon_ros.training.export import export
from face_recon_ros.training.objective import Objective
from face_recon_ros.training.stored import load_network
from face_recon_ros.training.synthesis.faces import SyntheticFaces
from face_recon_ros.training.synthesis.render_cache import fill_render_cache
from face_recon_ros.training.train import train

#: With photographs: weights of the baseline, and which are taken away together.
ON_PHOTOGRAPHS = {
    "photometric": 2.0,
    "perception": 0.2,
    "albedo_symmetry": 0.5,
    "albedo_variance": 0.5,
    "white_light": 0.5,
    "same_person": 0.05,
}
PHOTOGRAPH_GROUPS = {
    "equivariance": ("equivariance", "equivariance_expression", "equivariance_mm"),
    "priors": ("identity_prior", "expression_prior", "albedo_prior"),
    **{name: (name,) for name in ON_PHOTOGRAPHS},
}
OF_PHOTOGRAPHS = {name for group in PHOTOGRAPH_GROUPS.values() for name in group}
#: On synthetic crops; a teacher's feature maps are not learned here.
SYNTHETIC = [
    field.name
    for field in dataclasses.fields(LossWeights)
    if field.name not in OF_PHOTOGRAPHS | {"features"}
]
MEASURES = ("reprojection", "rotation", "log_distance", "neutral_mm", "expression_mm", "colour")


def variants(seeds: int, with_photographs: bool) -> dict[str, dict]:
    """Name -> changes of the settings."""
    out: dict[str, dict] = {
        f"all, seed {seed}" if seed else "all": {"seed": seed} for seed in range(seeds)
    }
    out |= {f"- {name}": {"weights": {name: 0.0}} for name in SYNTHETIC}
    if with_photographs:
        rendered = OF_PHOTOGRAPHS - set(PHOTOGRAPH_GROUPS["equivariance"])
        out["photographs: self-training alone"] = {
            "weights": dict.fromkeys(sorted(rendered), 0.0),
            "photographs": "yes",
        }
        out["photographs: all"] = {"weights": dict(ON_PHOTOGRAPHS), "photographs": "yes"}
        for group, members in PHOTOGRAPH_GROUPS.items():
            weights = ON_PHOTOGRAPHS | dict.fromkeys(members, 0.0)
            out[f"photographs: - {group}"] = {"weights": weights, "photographs": "yes"}
    return out


def settings(arguments: argparse.Namespace, name: str, change: dict) -> TrainConfig:
    """Of one run."""
    started = load_checkpoint(arguments.start)["config"]
    folder = arguments.out / "".join(c if c.isalnum() else "_" for c in name)
    values = {
        "out": str(folder),
        "backbone": started["backbone"],
        # frozen stages know no other size
        "image_size": started["image_size"],
        "crop_margin": started["crop_margin"],
        "init": str(arguments.out / "start.pt"),
        "frozen_stages": 3,
        "steps": arguments.steps,
        "minutes": 0.0,
        "batch_size": 24,
        "learning_rate": 1e-3,
        "device": "cpu",
        "pool": str(arguments.out / "pool"),
        "pool_slots": arguments.people,
        "renew_per_second": -1.0,
        "loader_workers": 0,
        "photograph_share": 0.25,
        "photograph_after": 0.4,
        "skip_grey": False,
        "embedding": str(arguments.embedding or ""),
        **change,
    }
    if "photographs" in change:
        values["photographs"] = str(arguments.photographs)
    return config_from_dict(values)


def prepare(arguments: argparse.Namespace) -> None:
    """Renders who is learned from, and who is held out; takes the heads off the start."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = arguments.out / "start.pt"
    if not start.is_file():
        state = load_checkpoint(arguments.start)
        state["average"] = {k: v for k, v in state["average"].items() if "heads." not in k}
        save_checkpoint(start, state)
    config = settings(arguments, "all", {})
    model = load_morphable_model(find_model(config.face_model), level="coarse")
    faces = SyntheticFaces(model, margin=config.crop_margin, size=config.pool_size)
    sizes = (model.k_identity, model.k_expression, model.k_albedo)
    for seed, pool in enumerate((config, held_out(config)), 70):
        fill_render_cache(open_render_cache(pool, sizes), faces, seed)


def held_out(config: TrainConfig) -> TrainConfig:
    """The same run's settings with people it never saw."""
    values = {
        "pool": str(Path(config.pool).parent / "held_out"),
        "pool_slots": 400,
        "photographs": "",
        "batch_size": 64,
    }
    return config_from_dict(dataclasses.asdict(config) | values)


def measure(config: TrainConfig, checkpoint: Path, landmarks: Path | None) -> dict[str, float]:
    """Held-out figures: of 512 crops of other people, and of photographs where given."""
    network, _ = load_network(checkpoint)
    face_model = str(find_model(config.face_model))
    objective = Objective(held_out(config), load_morphable_model(face_model, level="coarse"))
    batches = iter(Crops(held_out(config), face_model, 4321))
    rows = []
    with torch.no_grad():
        for _ in range(8):
            batch = next(batches)
            losses = objective.against_labels(network(batch.image), batch)
            rows.append([float(losses[name]) for name in MEASURES])
    figures = dict(zip(MEASURES, np.mean(rows, 0).tolist(), strict=True))
    figures["rotation"] = float(np.degrees(figures["rotation"]))
    if landmarks is not None:
        onnx, report = checkpoint.with_suffix(".onnx"), checkpoint.with_suffix(".json")
        export(checkpoint, onnx, precision="float32")
        command = [sys.executable, "-m", "face_recon_ros", "evaluate", "landmarks"]
        options = ["--images", str(landmarks), "--network", str(onnx), "--out", str(report)]
        subprocess.run([*command, *options, "--workers", "1"], check=True, capture_output=True)
        found = json.loads(report.read_text())
        figures |= {"nme51": 100 * found["nme51"], "nme68": 100 * found["nme68"]}
    return figures


def table(results: list[dict]) -> str:
    """Markdown: the baseline's mean and spread over seeds, then differences from its first."""
    names = [n for n in (*MEASURES, "nme51", "nme68") if n in results[0]]
    scale = {"reprojection": 100.0, "log_distance": 100.0, "colour": 100.0}
    titles = {
        "reprojection": "reprojection, % of the crop",
        "rotation": "pose, deg",
        "log_distance": "distance, %",
        "neutral_mm": "neutral shape, mm",
        "expression_mm": "expression, mm",
        "colour": "colour, %",
        "nme51": "AFW NME51, %",
        "nme68": "AFW NME68, %",
    }
    lines = ["| run | " + " | ".join(titles[n] for n in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")

    def line(name: str, values: list[str]) -> None:
        lines.append(f"| {name} | " + " | ".join(values) + " |")

    same = np.array(
        [[r[n] * scale.get(n, 1) for n in names] for r in results if r["run"].startswith("all")]
    )
    line("all losses", [f"{v:.2f}" for v in same.mean(0)])
    if len(same) > 1:
        line(f"spread over {len(same)} seeds", [f"± {v:.2f}" for v in same.std(0, ddof=1)])
    first = {True: None, False: same[0]}
    for r in results:
        values = np.array([r[n] * scale.get(n, 1) for n in names])
        photographs = r["run"].startswith("photographs")
        if r["run"].startswith("all"):
            continue
        if first[photographs] is None or r["run"] == "photographs: all":
            line(r["run"], [f"{v:.2f}" for v in values])
            first[photographs] = values
        else:
            line(r["run"], [f"{v:+.2f}" for v in values - first[photographs]])
    return "\n".join(lines)


def main() -> None:
    """Runs what is not yet done, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="checkpoint of a trained run")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablation"), help="(default: %(default)s)"
    )
    parser.add_argument("--landmarks", type=Path, help="folder of NAME.jpg + NAME.pts")
    parser.add_argument("--photographs", type=Path, help="also the losses on photographs")
    parser.add_argument("--embedding", type=Path, help="needed with --photographs")
    parser.add_argument("--steps", type=int, default=200, help="of each run (default: 200)")
    parser.add_argument("--people", type=int, default=2400, help="renderings to learn from (2400)")
    parser.add_argument("--seeds", type=int, default=3, help="of the baseline")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepare(arguments)
    file = arguments.out / "results.jsonl"
    done = [json.loads(s) for s in file.read_text().splitlines()] if file.is_file() else []
    for name, change in variants(arguments.seeds, arguments.photographs is not None).items():
        if any(r["run"] == name for r in done):
            continue
        config = settings(arguments, name, change)
        folder, cache = Path(config.out), arguments.out / "photographs"
        folder.mkdir(exist_ok=True)
        if config.photographs and not (folder / "photographs").exists():
            cache.mkdir(exist_ok=True)
            (folder / "photographs").symlink_to(cache.resolve())
        clock = time.monotonic()
        checkpoint = train(config, resume=(folder / "checkpoint.pt").is_file())
        figures = measure(config, checkpoint, arguments.landmarks)
        result = {"run": name, "seconds": round(time.monotonic() - clock), **figures}
        done.append(result)
        with file.open("a") as log:
            log.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
