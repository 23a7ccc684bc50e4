"""The training loop of the dense-point network."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from face_recon_ros.core.errors import FaceReconError, ModelError
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import (
    MorphableModel,
    decoding_sha256,
    load_morphable_model,
)
from face_recon_ros.core.rectification import grid_coordinates
from face_recon_ros.io.images import read_image
from face_recon_ros.training.checkpoint import (
    CHECKPOINT,
    check_new_run,
    code_version,
    load_checkpoint,
    save_checkpoint,
)
from face_recon_ros.training.config import PointConfig, TrainConfig
from face_recon_ros.training.data import open_render_cache, renderer, wait_for_pool
from face_recon_ros.training.log import Log
from face_recon_ros.training.optimisation import (
    choose_device,
    keep_freed_memory,
    learning_rate,
    parameter_groups,
    progress,
    update_average,
)
from face_recon_ros.training.photographs import cache_of, list_photographs
from face_recon_ros.training.point_examples import PointBatch, PointExamples
from face_recon_ros.training.point_network import DensePoints, PointNetwork, choose_points
from face_recon_ros.training.point_objective import PointObjective
from face_recon_ros.training.point_photographs import open_labelled
from face_recon_ros.training.point_weights import load_export, renew_statistics
from face_recon_ros.training.torch_synthesis.point_source import TorchPointExamples

#: What stands in a checkpoint of this network, and in no other's.
KIND = "dense points"
#: BatchNorm's statistics of the averaged weights follow those of the run this fast.
_STATISTICS_DECAY = 0.99


def train_points(config: PointConfig, *, resume: bool = False) -> Path:
    """Trains and returns the path of the last checkpoint.

    Args:
        config: see `PointConfig`.
        resume: go on from the checkpoint in `config.out`.

    Raises:
        ConfigError: a setting that does not fit.
        ModelError: a file that is missing, damaged or of another run.
    """
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    run = _Run(config, resume=resume)
    log = Log(Path(config.out), _status)
    with point_batches(config, run.model, run.step) as batches:
        if not resume and config.init.endswith(".onnx"):
            run.renew_statistics(next(batches)[0])
        bar = tqdm(total=100, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")
        clock = saved = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            while run.progress() < 1.0:
                batch, fresh = next(batches)
                values, loss = run.learn(batch)
                took = time.monotonic() - clock
                clock += took
                run.elapsed_s += took
                log.add(values, loss, len(batch.image) / took, float(not fresh))
                if run.step % 20 == 0:
                    bar.n = round(100 * run.progress(), 1)
                    bar.set_postfix_str(log.write(run.step, run.elapsed_s))
                if clock - saved > 60 * config.save_minutes:
                    run.save()
                    saved = clock
        bar.close()
    if run.step:
        log.write(run.step, run.elapsed_s)
    run.save()
    return run.checkpoint


class _Run:
    """What a run changes, and its checkpoint holds.

    Attributes:
        step: how many are done.
        elapsed_s: in all, with those before it was resumed.
        mean_identity: (K_id,) running mean of the people it has seen lately.
    """

    def __init__(self, config: PointConfig, *, resume: bool) -> None:
        self.config, self.device = config, choose_device(config.device or "cpu")
        self.checkpoint = Path(config.out) / CHECKPOINT
        self.face_model = find_model(config.face_model)
        self.model = load_morphable_model(self.face_model, level="coarse")
        self.vertices = choose_points(self.model, config.points)
        network = build_point_network(self.model, self.vertices, config)
        self.network = network.to(self.device)
        self.objective = PointObjective(self.model, self.vertices).to(self.device)
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.AdamW(
            [
                *parameter_groups(self.network, config.weight_decay),
                {"params": list(self.objective.fit.parameters()), "weight_decay": 0.0},
            ],
            config.learning_rate,
            fused=True,
        )
        self.step, self.elapsed_s = 0, 0.0
        self.mean_identity = torch.zeros(self.model.k_identity, device=self.device)
        # The rate's schedule is the regressor's; the warm-up is in steps here.
        self._schedule = TrainConfig(learning_rate=config.learning_rate, warmup=0.0)
        if resume:
            state = self._load(self.checkpoint)
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.elapsed_s = state["step"], state["elapsed_s"]
            return
        check_new_run(self.checkpoint)
        if config.init.endswith(".onnx"):
            load_export(find_model(config.init), self.network, self.objective.fit, self.vertices)
        elif config.init:
            self._load(Path(config.init), strict=False)

    def _load(self, path: Path, *, strict: bool = True) -> dict[str, Any]:
        state = load_point_checkpoint(path)
        for module, key in (
            (self.network, "network"),
            (self.average, "average"),
            (self.objective.fit, "fit"),
        ):
            module.load_state_dict(state[key], strict=strict)
        if "mean_identity" in state:
            self.mean_identity = state["mean_identity"].to(self.device)
        return state

    def progress(self) -> float:
        """See `optimisation.progress`."""
        return progress(self.config, self.step, self.elapsed_s)

    def renew_statistics(self, batch: PointBatch) -> None:
        """BatchNorm's, which an export does not have."""
        normals = self.objective.normals(batch.start_rotation)
        renew_statistics(self.network, (batch.image, normals, batch.coefficients))
        self.average.load_state_dict(self.network.state_dict())

    def save(self) -> None:
        """Writes the checkpoint."""
        state = {
            "kind": KIND,
            "config": dataclasses.asdict(self.config),
            "vertices": self.vertices.tolist(),
            "face_model": self.model.name,
            "face_model_sha256": decoding_sha256(self.face_model),
            "code": code_version(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "fit": self.objective.fit.state_dict(),
            "mean_identity": self.mean_identity,
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(self.checkpoint, state)

    def learn(self, batch: PointBatch) -> tuple[dict[str, Tensor], Tensor]:
        """One step; the losses by name, and their weighted sum."""
        config = self.config
        climb = min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        for group in self.optimiser.param_groups:
            group["lr"] = climb * learning_rate(self._schedule, self.progress())
        self.network.train()
        self.objective.train()
        normals = self.objective.normals(batch.start_rotation)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bfloat16):
            answer = self.network(batch.image, normals, batch.coefficients)
        answer = DensePoints(*(v.float() for v in answer))
        values = self.objective(answer, batch, fit=self.step >= config.fit_after)
        loss = self.objective.total(values, config.weights)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        if bool(torch.isfinite(norm)):  # a singular fit must not cost a run
            self.optimiser.step()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        if bool((seen := batch.present > 0.5).any()):
            self.mean_identity.lerp_(batch.identity[seen].mean(0), 1 - decay)
        update_average(self.average, self.network, decay)
        _follow_statistics(self.average, self.network)
        self.step += 1
        return values, loss


@contextlib.contextmanager
def point_batches(
    config: PointConfig, model: MorphableModel, step: int
) -> Iterator[Iterator[tuple[PointBatch, bool]]]:
    """Batches, and whether each is new: made on the run's device, or by other processes."""
    if config.device:
        patches = background_patches(config.backgrounds) if config.backgrounds else None
        device = choose_device(config.device)
        examples = TorchPointExamples(config, model, device, first_step=step, patches=patches)
        yield ((batch, True) for batch in examples)
        return
    if config.photograph_share:
        open_labelled(config)
    with renderer(config, str(find_model(config.face_model))):
        wait_for_pool(config, (model.k_identity, model.k_expression, model.k_albedo))
        yield replayed(_loader(config, model, step), config.replay, config.seed)


def replayed(
    batches: Iterator[PointBatch | None], kept: int, seed: int
) -> Iterator[tuple[PointBatch, bool]]:
    """New batches as they come, and old ones whenever none is ready.

    Args:
        batches: new ones; None where none is ready yet.
        kept: how many stay to be used again; 0 waits for new ones.
        seed: of which are taken.

    Yields:
        A batch, and whether it is new.
    """
    random, ring = np.random.default_rng(seed), []
    for batch in batches:
        if batch is not None:
            if kept and len(ring) < kept:
                ring.append(batch)
            elif kept:
                ring[random.integers(kept)] = batch
            yield batch, True
        elif ring:
            yield ring[random.integers(len(ring))], False


def _loader(config: PointConfig, model: MorphableModel, step: int) -> Iterator[PointBatch | None]:
    """Batches made by other processes; None where none is ready and old ones may be used."""
    pool = open_render_cache(config, (model.k_identity, model.k_expression, model.k_albedo))
    patches = background_patches(config.backgrounds) if config.backgrounds else None
    regressor = str(find_model(config.regressor))
    examples = PointExamples(
        pool,
        model,
        regressor,
        config.seed + 1000 * step,
        batch_size=config.batch_size,
        no_face=config.no_face,
        worsen=config.worsen,
        plain=config.plain,
        uncalibrated=config.uncalibrated,
        patches=patches,
        photographs=cache_of(config.out),
        photograph_share=config.photograph_share,
    )
    workers = config.loader_workers
    loader = iter(
        DataLoader(
            examples,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            multiprocessing_context="spawn" if workers else None,
        )
    )
    while True:
        waiting = getattr(loader, "_data_queue", None)
        ready = waiting is None or not hasattr(waiting, "empty") or not waiting.empty()
        yield copied(next(loader)) if ready or not config.replay else None


def copied(batch: PointBatch) -> PointBatch:
    """In this process's memory: a worker's tensors are open files, of which a process has few."""
    return PointBatch(*(value.clone() if value.is_shared() else value for value in batch))


def background_patches(folder: str) -> list[NDArray[np.uint8]]:
    """Lower thirds of photographs, where portraits show clothes: (H, W, 3) RGB each."""
    patches = []
    for path in list_photographs(folder):
        with contextlib.suppress(FaceReconError):
            rgb = read_image(path)
            if min(rgb.shape[:2]) >= 120:
                patches.append(np.ascontiguousarray(rgb[2 * rgb.shape[0] // 3 :]))
    return patches


def build_point_network(
    model: MorphableModel, vertices: NDArray[np.integer], config: PointConfig
) -> PointNetwork:
    """A network for these vertices of the coarse mesh."""
    places = grid_coordinates(model.mean_shape[vertices].astype(np.float64))
    sizes = (model.k_identity, model.k_expression)
    network = PointNetwork(places, sizes, config.width, config.hidden)
    return network.to(memory_format=torch.channels_last)


def load_point_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this network.

    Raises:
        ModelError: it is missing, damaged, or another network's.
    """
    state = load_checkpoint(path)
    if state.get("kind") != KIND:
        raise ModelError(
            f"a checkpoint of the dense-point network at {path}",
            "one of another network",
            "check the path, or leave --points out",
        )
    return state


@torch.no_grad()
def _follow_statistics(average: nn.Module, network: nn.Module) -> None:
    for mean, value in zip(average.buffers(), network.buffers(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - _STATISTICS_DECAY)


def _status(means: dict[str, float]) -> str:
    shape = f", shape {means['shape_mm']:.2f} mm" if "shape_mm" in means else ""
    return f"points {means['points_mm']:.2f} mm, presence {means['presence']:.3f}{shape}"
