#!/usr/bin/env python3
"""Averages the weights of training runs, each of which went on from the one before.

Wortsman et al. 2022 ("Model soups", ICML): where runs of one network end near each other, the mean
of their weights answers better than each. All else in the checkpoint is that of the first.

    scripts/average_checkpoints.py OUT.pt FIRST.pt SECOND.pt ...
    face-recon export OUT.pt --out face_points_float.onnx --precision float32
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from face_recon_ros.core.errors import FaceReconError, ModelError
from face_recon_ros.training.checkpoint import load_checkpoint, save_checkpoint

#: Parts of a checkpoint that are averaged, where it has them.
_WEIGHTS = ("network", "average")
_PEOPLE = "mean_identity"  # which older runs do not know


def mean(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of floating-point tensors; others are the first one's.

    Raises:
        ModelError: the states have other names or shapes.
    """
    first = states[0]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(other != shapes[0] for other in shapes):
        raise ModelError("checkpoints of one network", "several", "give runs of one configuration")
    out = {}
    for name, value in first.items():
        out[name] = value
        if value.dtype.is_floating_point:
            total = torch.stack([state[name].double() for state in states]).mean(0)
            out[name] = total.to(value.dtype)
    return out


def average(paths: list[Path]) -> dict[str, Any]:
    """The first checkpoint with the weights of all.

    Args:
        paths: of checkpoints.
    """
    states = [load_checkpoint(path) for path in paths]
    out = states[0]
    out |= {key: mean([s[key] for s in states]) for key in _WEIGHTS if key in out}
    if all(_PEOPLE in state for state in states):
        out |= mean([{_PEOPLE: state[_PEOPLE]} for state in states])
    return out


def main() -> None:
    """Writes the averaged checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="checkpoint to write")
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", help="of runs that went on from each other"
    )
    arguments = parser.parse_args()
    try:
        save_checkpoint(arguments.out, average(arguments.checkpoints))
    except FaceReconError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
