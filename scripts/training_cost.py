#!/usr/bin/env python3
"""What a training step costs over the bare network step, in CPU time of one thread.

CPU time and turns about, so that other work on the machine disturbs little. The bare step is
forward, backward and AdamW on random crops. Crops are made by other processes; how long the loop
waits for them stands in a run's log.jsonl (`waited`).

    scripts/training_cost.py [--embedding FACES.onnx] [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.training.config import load_config, parse_overrides
from face_recon_ros.training.data import Batch
from face_recon_ros.training.objective import Objective
from face_recon_ros.training.optimisation import (
    keep_freed_memory,
    parameter_groups,
    update_average,
)
from face_recon_ros.training.stored import build_network

PHOTOGRAPH_SHARE = 0.25


def main() -> None:
    """Prints milliseconds per crop, and the share that is the network's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedding", default="", help="also with the perception loss")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement (default: 5)")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="as of `face-recon train`")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    config = load_config(None, {"batch_size": "24", **parse_overrides(arguments.options)})
    model = load_morphable_model(find_model(config.face_model), level="coarse")
    network = build_network(config, model).to(memory_format=torch.channels_last).train()
    average = build_network(config, model)
    optimiser = torch.optim.AdamW(parameter_groups(network, 0.02), 1e-6, fused=True)
    n, size = config.batch_size, config.image_size
    image = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8)
    with torch.no_grad():
        answer = network.eval()(image)
    network.train()
    ones = torch.ones(n)
    batch = Batch(image, *answer[:6], ones, ones, torch.full((n,), -1))
    photographs = (torch.arange(n) >= round(PHOTOGRAPH_SHARE * n)).float()
    mixed = batch._replace(synthetic=photographs, colour_known=photographs)

    def step(loss: Callable, data: Batch) -> None:
        values = loss(network(data.image), data)
        optimiser.zero_grad(set_to_none=True)
        values.backward()
        if loss is not bare:
            nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimiser.step()
        if loss is not bare:
            update_average(average, network, config.ema_decay)

    def bare(answer: tuple, data: Batch) -> torch.Tensor:
        return torch.stack([v.square().mean() for v in answer]).sum()

    def with_weights(**weights: float) -> Callable:
        changed = dataclasses.replace(config.weights, **weights)
        settings = dataclasses.replace(config, weights=changed, embedding=arguments.embedding)
        objective = Objective(settings, model)
        return lambda answer, data: objective.total(objective(answer, data))

    steps = {
        "bare": (bare, batch),
        "synthetic": (with_weights(), batch),
        "photometric": (with_weights(photometric=2.0), mixed),
    }
    if arguments.embedding:
        both = with_weights(photometric=2.0, perception=0.2)
        steps["photometric and perception"] = (both, mixed)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.rounds + 1):
        for name, (loss, data) in steps.items():
            clock = time.process_time()
            step(loss, data)
            if turn:  # the first warms up
                taken[name].append(1e3 * (time.process_time() - clock) / n)
    cost = {name: float(np.median(values)) for name, values in taken.items()}
    report = {
        name: {"cpu_ms_per_crop": round(v, 2), "bare_over_this": round(cost["bare"] / v, 3)}
        for name, v in cost.items()
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
