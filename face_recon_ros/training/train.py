"""The training loop, for one process or several (torchrun)."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import decoding_sha256, load_morphable_model
from face_recon_ros.io.images import write_image
from face_recon_ros.io.jobs import Pool
from face_recon_ros.training import losses
from face_recon_ros.training.checkpoint import (
    CHECKPOINT,
    check_new_run,
    check_same_run,
    code_version,
    load_checkpoint,
    save_checkpoint,
)
from face_recon_ros.training.config import TrainConfig
from face_recon_ros.training.data import (
    Batch,
    make_loader,
    open_photographs,
    renderer,
    wait_for_pool,
)
from face_recon_ros.training.decoder import FaceDecoder
from face_recon_ros.training.log import Log
from face_recon_ros.training.network import Distilled, FaceRegressor, Prediction
from face_recon_ros.training.objective import Objective
from face_recon_ros.training.optimisation import (
    choose_device,
    keep_freed_memory,
    learning_rate,
    measure_statistics,
    parameter_groups,
    process_group,
    progress,
    same_everywhere,
    update_average,
)
from face_recon_ros.training.photographs import PhotographCache, label_photographs
from face_recon_ros.training.renderer import render_face
from face_recon_ros.training.stored import build_network, load_teacher
from face_recon_ros.training.synthesis.augment import Mirror
from face_recon_ros.training.synthesis.faces import Label

SAMPLES = "samples.png"
#: Batches for the averaged network's statistics; the last ones seen.
STATISTICS_BATCHES = 32


def train(config: TrainConfig, *, resume: bool = False) -> Path:
    """Trains and returns the path of the last checkpoint.

    Args:
        config: see `TrainConfig`.
        resume: go on from the checkpoint in `config.out`.

    Raises:
        ConfigError: a setting that does not fit.
        ModelError: a file that is missing, damaged or of another run.
        DataError: a folder without photographs.
    """
    with process_group() as (rank, processes):
        return _train(config, resume, rank, processes)


class _Run:
    """What a run changes, and its checkpoint holds.

    Attributes:
        step: how many are done.
        elapsed_s: in all, with those before it was resumed.
    """

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        self.config, self.device = config, choose_device(config.device)
        self.checkpoint = Path(config.out) / CHECKPOINT
        self.face_model = find_model(config.face_model)
        self.model = load_morphable_model(self.face_model, level="coarse")
        self.objective = Objective(config, self.model).to(self.device)
        layout = {"device": self.device, "memory_format": torch.channels_last}
        self.network = build_network(config, self.model).to(**layout)
        self.average = copy.deepcopy(self.network).eval()
        self.teacher = load_teacher(config, self.model).to(self.device) if config.teacher else None
        self.student = Distilled(self.network, self.teacher).to(**layout)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.student, config.weight_decay), config.learning_rate, fused=True
        )
        self.step, self.elapsed_s = 0, 0.0
        self.recent: deque[Tensor] = deque(maxlen=STATISTICS_BATCHES)
        self._label_at_s = 0.0
        if resume:
            state = load_checkpoint(self.checkpoint)
            check_same_run(self.checkpoint, state, config, self.face_model)
            for name in ("student", "average", "optimiser"):
                getattr(self, name).load_state_dict(state[name])
            self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        else:
            check_new_run(self.checkpoint)

    def progress(self) -> float:
        """See `optimisation.progress`."""
        return progress(self.config, self.step, self.elapsed_s)

    def save(self) -> None:
        """Writes the checkpoint."""
        measure_statistics(self.average, self.recent)
        state = {
            "config": dataclasses.asdict(self.config),
            "sizes": dataclasses.asdict(self.network.sizes),
            "nominal_distance_m": self.network.nominal_distance_m,
            "face_model": self.model.name,
            "face_model_sha256": decoding_sha256(self.face_model),
            "code": code_version(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(self.checkpoint, state)

    def learn(self, batch: Batch, parallel: nn.Module) -> tuple[dict[str, Tensor], Tensor]:
        """One step; the losses by name, and their weighted sum.

        Args:
            batch: on the run's device.
            parallel: the student, as all processes see it.
        """
        config, cuda = self.config, self.device.type == "cuda"
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, self.progress())
        parallel.train()
        bf16 = config.mixed_precision and cuda
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            answer, hints = parallel(batch.image)
        values = self.objective(Prediction(*(v.float() for v in answer)), batch)
        if self.teacher is not None:
            with torch.no_grad():
                seen = self.teacher.stages(resized(batch.image, config.teacher_size))
            values["features"] = losses.features([h.float() for h in hints], seen)
        loss = self.objective.total(values)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), config.clip_norm)
        self.optimiser.step()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        update_average(self.average, self.network, decay)
        self.recent.append(batch.image)
        self.step += 1
        return values, loss

    def label_when_due(self, photographs: PhotographCache) -> None:
        """Pseudo-labels: of the teacher once, else of the average every `relabel_minutes`."""
        config = self.config
        if self.progress() < config.photograph_after or self.elapsed_s < self._label_at_s:
            return
        if self.teacher is not None:
            labeller, size, pause_s = self.teacher, config.teacher_size, math.inf
        else:
            measure_statistics(self.average, self.recent)
            labeller, size, pause_s = self.average, 0, 60 * config.relabel_minutes
        pseudo_label(photographs, labeller, Mirror(self.model), size or config.image_size)
        self._label_at_s = self.elapsed_s + pause_s


def _train(config: TrainConfig, resume: bool, rank: int, processes: int) -> Path:
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    run = _Run(config, resume=resume)
    model, face_model = run.model, str(run.face_model)
    first = rank == 0  # which alone renders, labels, logs and saves
    log = Log(Path(config.out)) if first else None
    with renderer(config, face_model) if first else contextlib.nullcontext():
        photographs = open_photographs(config)
        if photographs is not None and first:
            # before the pool: a wrong folder is told at once
            counts = photographs.build(
                config.photographs, config, skip_grey=config.skip_grey, pool=Pool()
            )
            tqdm.write(f"photographs: {dict(counts)}")
        wait_for_pool(config, (model.k_identity, model.k_expression, model.k_albedo))
        if processes > 1:
            dist.barrier()
        parallel = DistributedDataParallel(run.student) if processes > 1 else run.student
        batches = iter(make_loader(config, face_model, config.seed + 1000 * run.step + rank))
        bar = tqdm(
            total=100, disable=not first, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        )
        clock = saved = time.monotonic()
        try:
            while run.progress() < 1.0:
                if photographs is not None and first:
                    run.label_when_due(photographs)
                batch = Batch(*(t.to(run.device, non_blocking=True) for t in next(batches)))
                waited = time.monotonic() - clock
                values, loss = run.learn(batch, parallel)
                took = time.monotonic() - clock
                clock += took
                run.elapsed_s = same_everywhere(run.elapsed_s + took, run.device, processes)
                if log is not None:
                    log.add(values, loss, len(batch.image) * processes / took, waited / took)
                    if run.step % 20 == 0:
                        bar.n = round(100 * run.progress(), 1)
                        bar.set_postfix_str(log.write(run.step, run.elapsed_s))
                    if clock - saved > 60 * config.save_minutes:
                        run.save()
                        samples = run.checkpoint.with_name(SAMPLES)
                        draw_samples(samples, run.objective.face, run.average, batch)
                        saved = clock
        except KeyboardInterrupt:
            if first:
                tqdm.write("interrupted; go on with --resume")
        bar.close()
    if first:
        run.save()
    return run.checkpoint


def resized(images: Tensor, size: int) -> Tensor:
    """(B, S, S, 3) images -> the same at another size, float; 0 leaves them as they are."""
    if size in (0, images.shape[1]):
        return images
    channels_first = images.permute(0, 3, 1, 2).float()
    return nn.functional.interpolate(
        channels_first, (size, size), mode="bilinear", align_corners=False
    ).permute(0, 2, 3, 1)


def pseudo_label(
    photographs: PhotographCache, network: FaceRegressor, mirror: Mirror, size: int
) -> None:
    """Lets a network answer for all photographs: the teacher, or the run's own average."""
    device = next(network.parameters()).device

    @torch.no_grad()
    def answer(crops: NDArray[np.uint8]) -> list[Label]:
        values = network(torch.from_numpy(crops).to(device))[:6]
        return [Label(*row) for row in zip(*(v.cpu().numpy() for v in values), strict=True)]

    labels = label_photographs(photographs.pictures(), answer, mirror, size)
    photographs.write_labels(labels)
    known = sum(v is not None for v in labels)
    tqdm.write(f"photographs: the teacher is sure of {known} of {len(labels)}")


@torch.no_grad()
def draw_samples(path: Path, face: FaceDecoder, network: FaceRegressor, batch: Batch) -> None:
    """Crops above, the averaged network's answers pasted over them below."""
    images = batch.image[:12]
    rendering = render_face(face, network(images), images.shape[1])
    covered = rendering.coverage[..., None]
    pasted = images.float() / 255 * (1 - covered) + rendering.colour * covered
    rows = [images.cpu().numpy(), (pasted * 255).byte().cpu().numpy()]
    picture = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    write_image(path, picture)


if __name__ == "__main__":  # what torchrun starts
    import sys

    from face_recon_ros.training.config import load_config, parse_overrides

    options = [a for a in sys.argv[1:] if "=" in a]
    train(load_config(None, parse_overrides(options)), resume="--resume" in sys.argv)
