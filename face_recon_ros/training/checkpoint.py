"""Checkpoints: written atomically, with their provenance."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import torch

from face_recon_ros.core.errors import ConfigError, ModelError
from face_recon_ros.core.morphable_model import same_decoding
from face_recon_ros.training.config import TrainConfig

FORMAT = 1
#: Name of a run's checkpoint.
CHECKPOINT = "checkpoint.pt"
#: What may differ between a checkpoint and the run that goes on from it.
MAY_CHANGE = frozenset(
    [
        "backbone_weights",
        "batch_size",
        "device",
        "frozen_stages",
        "image_size",
        "init",
        "loader_workers",
        "minutes",
        "mixed_precision",
        "out",
        "photograph_after",
        "photograph_share",
        "photographs",
        "pool",
        "pool_slots",
        "relabel_minutes",
        "renew_per_second",
        "save_minutes",
        "skip_grey",
        "steps",
        "teacher",
        "teacher_size",
        "threads",
    ]
)


def check_new_run(checkpoint: Path) -> None:
    """Before a run begins.

    Raises:
        ConfigError: there is a checkpoint already.
    """
    if checkpoint.exists():
        raise ConfigError(
            f"no run at {checkpoint.parent}",
            "one that began already",
            "use --resume, or another --out",
        )


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes beside the old file, then takes its place: an interrupt leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    try:
        torch.save({"format": FORMAT, **state}, beside)
        beside.replace(path)
    except (OSError, RuntimeError) as fault:
        beside.unlink(missing_ok=True)
        raise ModelError(
            f"room for a checkpoint at {path}", str(fault), "free disk space; the last one is kept"
        ) from None


def load_tensors(path: Path, what: str, remedy: str) -> Any:
    """Reads a file of torch that holds tensors and plain values, on the CPU.

    Args:
        path: of the file.
        what: it is, for the error.
        remedy: where it is damaged or no such file.

    Raises:
        ModelError: it is missing, damaged, or of another kind.
    """
    if not path.is_file():
        raise ModelError(f"{what} at {path}", "no such file", "check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:  # torch raises whatever its unpickler does, with advice on safety
        raise ModelError(
            f"{what} at {path}",
            f"a file of another kind, or a damaged one ({type(fault).__name__})",
            remedy,
        ) from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint.

    Raises:
        ModelError: it is missing, damaged, or none of ours.
    """
    state = load_tensors(path, "a checkpoint", "take an older one or start again")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ModelError(
            f"a checkpoint of format {FORMAT} at {path}", "something else", "check the path"
        )
    return state


def check_same_run(
    path: Path, state: dict[str, Any], config: TrainConfig, face_model: Path
) -> None:
    """Raises ModelError unless `config` may go on from this checkpoint."""
    now, then = dataclasses.asdict(config), state["config"]
    changed = [key for key in now if key not in MAY_CHANGE and now[key] != then.get(key, now[key])]
    if not same_decoding(state["face_model_sha256"], face_model):
        changed.append("the face model's content")
    if changed:
        raise ModelError(
            f"the settings of the run at {path}",
            f"other {', '.join(changed)}",
            "undo that, or start a new run with `init` set to this checkpoint",
        )


def code_version() -> str:
    """The commit of the code, `+` appended when files differ; `unknown` outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
