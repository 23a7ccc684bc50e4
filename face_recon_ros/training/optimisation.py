"""What training loops share: rates, averages of weights, devices, processes."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from collections.abc import Collection, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.training.config import RunConfig, TrainConfig

#: <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def progress(config: RunConfig, step: int, elapsed_s: float) -> float:
    """How much of a run is done, by its steps or its minutes; 1 at the end."""
    by_steps = step / config.steps if config.steps else 0.0
    by_time = elapsed_s / (60 * config.minutes) if config.minutes else 0.0
    return max(by_steps, by_time)


def learning_rate(config: TrainConfig, progress: float) -> float:
    """A short climb, then half a cosine to a hundredth of the peak; `progress` in [0, 1]."""
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 0.02)
    rest = (progress - config.warmup) / (1 - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0))))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of weights; `measure_statistics` sees to the rest."""
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value.detach(), 1 - decay)


@torch.no_grad()
def measure_statistics(network: nn.Module, batches: Collection[Tensor]) -> None:
    """BatchNorm's statistics of exactly these weights (Wu and Johnson 2021, "precise BN").

    Those that a run keeps belong to the weights of the moment. While these move fast, an average
    of many of them that is given such statistics answers worse (docs/results/regressor.md).

    Args:
        network: left in evaluation mode; frozen stages stay as they are.
        batches: (B, S, S, 3) images; without any all stays as it is.
    """
    if not batches:
        return
    network.train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    kept = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    for batch in batches:
        network(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    network.eval()


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and normalisation do not."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def keep_freed_memory() -> None:
    """Lets glibc keep what tensors free: else each step faults all its pages in again.

    Figures: docs/results/regressor.md. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(option, 2**31 - 1)


def choose_device(name: str) -> torch.device:
    """`auto`: the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise ConfigError("device auto, cpu, or cuda where there is one", repr(name), "use auto")
    return torch.device(name)


def same_everywhere(value: float, device: torch.device, processes: int) -> float:
    """The value of process 0, so that all stop at the same step."""
    if processes == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return float(tensor)


@contextlib.contextmanager
def process_group() -> Iterator[tuple[int, int]]:
    """Rank and number of processes, as torchrun says; 0 of 1 without it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield 0, 1
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield dist.get_rank(), processes
    finally:
        dist.destroy_process_group()
