#!/usr/bin/env python3
"""Shows and measures the dense-point network's examples as a device makes them.

Prints JSON: examples per second without training (wall clock), the memory traffic of an example by
counting the bytes of every operation's operands and results, and the operations of a batch.
KEY=VALUE are options of `face-recon train --points`.

    scripts/point_examples.py --device cuda --sheet examples.png batch_size=512 skins=DIR
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.io.images import write_image
from face_recon_ros.training.config import PointConfig, load_config, parse_overrides
from face_recon_ros.training.optimisation import choose_device
from face_recon_ros.training.torch_synthesis.point_source import TorchPointExamples
from face_recon_ros.training.train_points import background_patches

#: Operations that move nothing.
_FREE = {"view", "expand", "permute", "transpose", "unsqueeze", "squeeze", "slice", "select", "t"}
_FREE |= {"split", "split_with_sizes", "unbind", "detach", "alias", "as_strided", "empty"}
_FREE |= {"_unsafe_view", "unflatten", "_reshape_alias", "empty_strided", "lift_fresh"}
_GATHERS = {"index", "gather", "index_select"}
_COLUMNS = 8


class Traffic(TorchDispatchMode):
    """Counts bytes that operations read and write, as if nothing stayed in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operations = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Runs and counts one operation."""
        out = function(*args, **(kwargs or {}))
        name = function._schema.name.split("::")[1]
        if name not in _FREE:
            read = [_size(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            written = sum(_size(t) for t in tree_leaves(out) if isinstance(t, Tensor))
            # a gather reads what it writes, and its indices
            self.bytes += written + (written + sum(read[1:]) if name in _GATHERS else sum(read))
            self.operations += 1
        return out


def _size(tensor: Tensor) -> int:
    stored = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return int(np.prod(stored, dtype=np.int64)) * tensor.element_size()


def main() -> None:
    """Makes some batches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", metavar="cuda", help="(default: cpu)")
    parser.add_argument("--rounds", type=int, default=5, help="batches (default: 5)")
    parser.add_argument("--sheet", metavar="FILE.png", help="pictures before rectification")
    parser.add_argument(
        "options", nargs="*", metavar="KEY=VALUE", help="as of `face-recon train --points`"
    )
    arguments = parser.parse_args()
    defaults = {"batch_size": "16", "people": "16", "device": arguments.device}
    config = load_config(None, defaults | parse_overrides(arguments.options), PointConfig)
    device = choose_device(config.device)
    model = load_morphable_model(find_model(config.face_model), level="coarse")
    patches = background_patches(config.backgrounds) if config.backgrounds else None
    began = time.perf_counter()
    examples = TorchPointExamples(config, model, device, patches=patches)
    setup = time.perf_counter() - began
    examples.batch(0)

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    began = wait()
    for number in range(arguments.rounds):
        examples.batch(1 + number)
    took = (wait() - began) / arguments.rounds
    with Traffic() as traffic:
        examples.batch(1)
    report = {
        "device": str(device),
        "setup_s": round(setup, 1),
        "examples_per_s": round(config.batch_size / took, 1),
        "mb_per_example": round(traffic.bytes / config.batch_size / 1e6, 1),
        "operations_per_batch": traffic.operations,
    }
    if device.type == "cuda":
        report["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
    print(json.dumps(report, indent=2))
    if arguments.sheet:
        shown = examples.pictures(2)[: 4 * _COLUMNS].to(torch.uint8).cpu().numpy()
        columns = min(_COLUMNS, len(shown))
        rows = len(shown) // columns
        sheet = shown[: rows * columns].reshape(rows, columns, *shown.shape[1:])
        write_image(Path(arguments.sheet), np.concatenate(np.concatenate(sheet, 1), 1))


if __name__ == "__main__":
    main()
