"""The training loop, for one process or several (torchrun)."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import dataclasses
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import (
    FACE,
    FACIAL_SKIN,
    MorphableModel,
    decoding_sha256,
    load_morphable_model,
)
from face_recon_ros.io.jobs import Pool
from face_recon_ros.training import geometry, losses
from face_recon_ros.training.checkpoint import (
    check_same_run,
    code_version,
    load_checkpoint,
    save_checkpoint,
)
from face_recon_ros.training.config import PointConfig, TrainConfig
from face_recon_ros.training.data import (
    Batch,
    make_loader,
    open_photographs,
    open_render_cache,
    renderer,
    synthetic_crops,
)
from face_recon_ros.training.decoder import FaceDecoder, shade
from face_recon_ros.training.embedding import aligned_faces, load_embedding
from face_recon_ros.training.network import (
    CoefficientSizes,
    Distilled,
    FaceRegressor,
    Prediction,
)
from face_recon_ros.training.onnx_weights import state_from_onnx
from face_recon_ros.training.photographs import check_kept, label_photographs
from face_recon_ros.training.renderer import photograph_attention, render_face
from face_recon_ros.training.synthesis.augment import Mirror
from face_recon_ros.training.synthesis.faces import Label, nominal_distance

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
SAMPLES = "samples.png"
#: <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Batches for the averaged network's statistics; the last ones seen.
STATISTICS_BATCHES = 32
#: Synthetic crops for the statistics of a network that starts from an export.
STATISTICS_CROPS = 128


class Objective(nn.Module):
    """All losses of a batch."""

    def __init__(self, config: TrainConfig, model: MorphableModel) -> None:
        """Prepares what `config` weighs above zero.

        Args:
            config: weights, and the embedding network's file.
            model: face model, coarse, whole head.
        """
        super().__init__()
        self._weights = config.weights
        self._skin = FaceDecoder(model.subset(FACIAL_SKIN))
        part = model.subset(FACE)
        self.face = FaceDecoder(part)
        self._symmetry = torch.from_numpy(part.symmetry.astype(np.int64))
        self._eyes = torch.from_numpy(part.interpupillary.astype(np.int64))
        self._embedding: nn.Module | None = None
        if config.weights.perception > 0:
            self._embedding = load_embedding(config.embedding)

    def forward(self, answer: Prediction, batch: Batch) -> dict[str, Tensor]:
        """Losses by the names of `LossWeights`, unweighted."""
        out = self.against_labels(answer, batch)
        photographs = torch.nonzero(batch.synthetic < 0.5)[:, 0]
        if len(photographs) and self._renders():
            rows = Prediction(*(v[photographs] for v in answer))
            out |= self.against_photographs(
                rows, batch.image[photographs].float() / 255, batch.person[photographs]
            )
        return out

    def total(self, values: dict[str, Tensor]) -> Tensor:
        """Weighted sum."""
        return torch.stack([getattr(self._weights, k) * v for k, v in values.items()]).sum()

    def _renders(self) -> bool:
        w = self._weights
        return max(w.photometric, w.perception, w.same_person) > 0

    def against_labels(self, answer: Prediction, batch: Batch) -> dict[str, Tensor]:
        """Renderings against what they were rendered from, photographs against a teacher."""
        synthetic, photograph = batch.synthetic, 1 - batch.synthetic
        coloured = synthetic * batch.colour_known
        skin = self._skin
        neutral, true_neutral = skin.neutral(answer.identity), skin.neutral(batch.identity)
        shape = skin.express(neutral, answer.expression)
        true_shape = skin.express(true_neutral, batch.expression)
        points = geometry.crop_from_face_points(shape, answer.rotation, answer.translation)
        true_points = geometry.crop_from_face_points(true_shape, batch.rotation, batch.translation)
        normals = skin.normals(true_points)
        colours = shade(skin.albedo(answer.albedo), normals, answer.illumination)
        true_colours = shade(skin.albedo(batch.albedo), normals, batch.illumination)
        error_mm = 1e3 * (neutral - true_neutral).norm(dim=2).mean(1)
        out = {
            "reprojection": losses.reprojection(points, true_points, synthetic),
            "neutral_mm": losses.vertex_distance_mm(neutral, true_neutral, synthetic),
            "shape_mm": losses.shape_distance_mm(neutral, true_neutral, synthetic),
            "expression_mm": losses.vertex_distance_mm(
                shape - neutral, true_shape - true_neutral, synthetic
            ),
            "identity": losses.coefficients(answer.identity, batch.identity, synthetic),
            "expression": losses.coefficients(answer.expression, batch.expression, synthetic),
            "albedo": losses.coefficients(answer.albedo, batch.albedo, coloured),
            "rotation": losses.rotation_geodesic(
                geometry.rotation_from_vector(answer.rotation),
                geometry.rotation_from_vector(batch.rotation),
                synthetic,
            ),
            "log_distance": losses.log_distance(answer.translation, batch.translation, synthetic),
            "colour": losses.vertex_colour(colours, true_colours, coloured),
            "illumination": losses.coefficients(answer.illumination, batch.illumination, coloured),
            "confidence": losses.confidence(answer.identity_confidence, error_mm, synthetic),
        }
        if bool((photograph > 0).any()):
            out["equivariance"] = losses.reprojection(points, true_points, photograph)
            out["equivariance_mm"] = losses.vertex_distance_mm(neutral, true_neutral, photograph)
            out["equivariance_expression"] = losses.coefficients(
                answer.expression, batch.expression, photograph
            )
        return out

    def against_photographs(
        self, answer: Prediction, photograph: Tensor, person: Tensor
    ) -> dict[str, Tensor]:
        """Photographs against renderings of the answer, and against what faces are like.

        Args:
            answer: B rows.
            photograph: (B, S, S, 3) in [0, 1].
            person: (B,) who it is; below 0 unknown.
        """
        rendering = render_face(self.face, answer, photograph.shape[1])
        colour = rendering.colour
        grey = (photograph.amax(3) - photograph.amin(3)).mean((1, 2)) < 3 / 255
        luminance = colour @ colour.new_tensor([0.299, 0.587, 0.114])
        colour = torch.where(
            grey[:, None, None, None], luminance[..., None].expand_as(colour), colour
        )
        attention = photograph_attention(photograph, rendering)
        albedo = self.face.albedo(answer.albedo)
        out = {
            "photometric": losses.photometric(colour, photograph, attention),
            "identity_prior": losses.normal_prior(answer.identity),
            "expression_prior": losses.activation_prior(answer.expression),
            "albedo_prior": losses.normal_prior(answer.albedo),
            "albedo_symmetry": losses.albedo_symmetry(albedo, self._symmetry),
            "albedo_variance": losses.albedo_variance(albedo, self.face.skin_attention),
            "white_light": losses.white_light(answer.illumination),
            "same_person": losses.same_person(answer.identity, person),
        }
        if self._embedding is not None:
            covered = rendering.coverage[..., None]
            pasted = photograph * (1 - covered) + colour * covered
            faces = [
                self._embedding(aligned_faces(images, self.face, self._eyes, answer))
                for images in (pasted, photograph)
            ]
            out["perception"] = losses.perception(faces[0], faces[1].detach())
        return out


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


def _train(config: TrainConfig, resume: bool, rank: int, processes: int) -> Path:
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    keep_freed_memory()
    out = Path(config.out)
    face_model = find_model(config.face_model)
    model = load_morphable_model(face_model, level="coarse")
    objective = Objective(config, model).to(device)
    network = build_network(config, model).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    teacher = load_teacher(config, model).to(device) if config.teacher else None
    student = Distilled(network, teacher).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        parameter_groups(student, config.weight_decay), config.learning_rate, fused=True
    )
    step, elapsed = 0, 0.0
    if resume:
        state = load_checkpoint(out / CHECKPOINT)
        check_same_run(out / CHECKPOINT, state, config, face_model)
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, elapsed = state["step"], state["elapsed_s"]
    elif (out / CHECKPOINT).exists():
        raise ConfigError(
            f"no run at {out}", "one that began already", "use --resume, or another --out"
        )

    recent: deque[Tensor] = deque(maxlen=STATISTICS_BATCHES)

    def save() -> None:
        measure_statistics(average, recent)
        state = {
            "config": dataclasses.asdict(config),
            "sizes": dataclasses.asdict(network.sizes),
            "nominal_distance_m": network.nominal_distance_m,
            "face_model": model.name,
            "face_model_sha256": decoding_sha256(face_model),
            "code": code_version(),
            "step": step,
            "elapsed_s": elapsed,
            "student": student.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        save_checkpoint(out / CHECKPOINT, state)

    def progress() -> float:
        by_steps = step / config.steps if config.steps else 0.0
        by_time = elapsed / (60 * config.minutes) if config.minutes else 0.0
        return max(by_steps, by_time)

    log = Log(out) if rank == 0 else None
    with renderer(config, str(face_model)) if rank == 0 else contextlib.nullcontext():
        wait_for_pool(config, (model.k_identity, model.k_expression, model.k_albedo))
        photographs = open_photographs(config)
        if photographs is not None and rank == 0:
            counts = photographs.build(
                config.photographs,
                make_detector,
                margin=config.crop_margin,
                size=config.pool_size,
                skip_grey=config.skip_grey,
                pool=Pool(),
            )
            tqdm.write(f"photographs: {dict(counts)}")
            check_kept(counts, config.photographs)
        if processes > 1:
            dist.barrier()
        parallel = DistributedDataParallel(student) if processes > 1 else student
        seed = config.seed + 1000 * step + rank
        batches = iter(make_loader(config, str(face_model), seed))
        bar = tqdm(
            total=100, disable=rank > 0, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        )
        labeller, label_size = average, config.image_size
        relabel_at, relabel_s = 0.0, 60 * config.relabel_minutes
        if teacher is not None:  # whose answers stay the same
            labeller, label_size = teacher, config.teacher_size or config.image_size
            relabel_s = math.inf
        clock = saved = time.monotonic()
        try:
            while progress() < 1.0:
                if (
                    photographs is not None
                    and rank == 0
                    and progress() >= config.photograph_after
                    and elapsed >= relabel_at
                ):
                    if labeller is average:
                        measure_statistics(average, recent)
                    pseudo_label(photographs, labeller, Mirror(model), label_size)
                    relabel_at = elapsed + relabel_s
                batch = Batch(*(t.to(device, non_blocking=True) for t in next(batches)))
                waited = time.monotonic() - clock
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(config, progress())
                parallel.train()
                bf16 = config.mixed_precision and device.type == "cuda"
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    answer, hints = parallel(batch.image)
                values = objective(Prediction(*(v.float() for v in answer)), batch)
                if teacher is not None:
                    with torch.no_grad():
                        seen = teacher.stages(resized(batch.image, config.teacher_size))
                    values["features"] = losses.features([h.float() for h in hints], seen)
                loss = objective.total(values)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
                optimiser.step()
                update_average(average, network, min(config.ema_decay, (1 + step) / (10 + step)))

                if rank == 0:  # which alone saves
                    recent.append(batch.image)
                step += 1
                took = time.monotonic() - clock
                clock += took
                elapsed = _same_everywhere(elapsed + took, device, processes)
                if log is not None:
                    log.add(values, loss, len(batch.image) * processes / took, waited / took)
                    if step % 20 == 0:
                        bar.n = round(100 * progress(), 1)
                        bar.set_postfix_str(log.write(step, elapsed))
                    if clock - saved > 60 * config.save_minutes:
                        save()
                        draw_samples(out / SAMPLES, objective.face, average, batch)
                        saved = clock
        except KeyboardInterrupt:
            if rank == 0:
                tqdm.write("interrupted; go on with --resume")
        bar.close()
    if rank == 0:
        save()
    return out / CHECKPOINT


def resized(images: Tensor, size: int) -> Tensor:
    """(B, S, S, 3) images -> the same at another size, float; 0 leaves them as they are."""
    if size in (0, images.shape[1]):
        return images
    channels_first = images.permute(0, 3, 1, 2).float()
    return nn.functional.interpolate(
        channels_first, (size, size), mode="bilinear", align_corners=False
    ).permute(0, 2, 3, 1)


def _same_everywhere(value: float, device: torch.device, processes: int) -> float:
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


def pseudo_label(photographs: Any, network: FaceRegressor, mirror: Mirror, size: int) -> None:
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
    cv2.imwrite(str(path), np.ascontiguousarray(picture[..., ::-1]))


def load_network(checkpoint: Path) -> tuple[FaceRegressor, dict[str, Any]]:
    """The averaged network of a checkpoint, frozen, in evaluation mode; and the checkpoint."""
    state = load_checkpoint(checkpoint)
    return _averaged_network(state), state


def _averaged_network(state: dict[str, Any]) -> FaceRegressor:
    network = FaceRegressor(
        state["config"]["backbone"],
        CoefficientSizes(**state["sizes"]),
        state["nominal_distance_m"],
    )
    network.load_state_dict(state["average"])
    return network.eval().requires_grad_(False)


def build_network(config: TrainConfig, model: MorphableModel) -> FaceRegressor:
    """A network for `model`, started from `init` or `backbone_weights` where given."""
    sizes = CoefficientSizes(
        model.k_identity,
        model.k_expression,
        model.k_albedo,
        model.expression_prior == "unit_interval",
    )
    start = stored_network(config.init, config, model, config.image_size) if config.init else None
    # A distance head keeps its nominal distance; a new one begins at the mean face's.
    known = start is not None and start["face_model"] == model.name
    distance = (
        start["nominal_distance_m"] if known else nominal_distance(model, config.crop_margin)
    )
    network = FaceRegressor(config.backbone, sizes, distance)
    if config.backbone_weights:
        if config.backbone != "efficientnet_lite0":
            raise ConfigError(
                "backbone_weights only with efficientnet_lite0", config.backbone, "leave one out"
            )
        weights = torch.load(config.backbone_weights, map_location="cpu", weights_only=True)
        network.backbone.load_imagenet(weights)
    if start is not None:
        take_what_fits(network, start, model.name)
    network.freeze(config.frozen_stages)
    return network


def load_teacher(config: TrainConfig, model: MorphableModel) -> FaceRegressor:
    """The network `teacher` names, frozen, in evaluation mode.

    Raises:
        ModelError: the file is missing or damaged.
        ConfigError: it answers for another face model.
    """
    size = config.teacher_size or config.image_size
    state = stored_network(config.teacher, config, model, size)
    if state["face_model"] != model.name:
        raise ConfigError(
            f"a teacher that answers for {model.name}",
            f"{config.teacher} answers for {state['face_model']}",
            "choose another teacher or face_model",
        )
    return _averaged_network(state)


def stored_network(
    path: str, config: TrainConfig, model: MorphableModel, size: int
) -> dict[str, Any]:
    """A checkpoint, or what of one an exported network still has.

    Args:
        path: of a checkpoint, or of an export (`.onnx`), or the name of one that ships.
        config: of the run.
        model: face model, for crops that give BatchNorm its statistics.
        size: of these crops, pixels per side.
    """
    if not path.endswith(".onnx"):
        return load_checkpoint(Path(path))
    crops = synthetic_crops(model, config.crop_margin, size, STATISTICS_CROPS)
    return state_from_onnx(find_model(path), crops)


def take_what_fits(network: nn.Module, state: dict[str, Any], face_model: str) -> None:
    """Starts from another run; heads in a face model's own bases only if it is the same model."""
    ours = network.state_dict()
    other = state["face_model"] != face_model
    for key, value in state["average"].items():
        if key not in ours or (other and key.startswith(("heads.identity", "heads.albedo"))):
            continue
        if ours[key].ndim == 2 and value.shape[1] * 3 == ours[key].shape[1]:
            value = nn.functional.pad(value, (0, 2 * value.shape[1]))  # from before `pool_moments`
        if value.shape == ours[key].shape:
            ours[key] = value
    network.load_state_dict(ours)


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


def wait_for_pool(config: TrainConfig | PointConfig, sizes: tuple[int, int, int]) -> None:
    """Until enough different people are rendered to begin."""
    pool = open_render_cache(config, sizes)
    enough = min(pool.slots, 20 * config.batch_size)
    if len(pool) >= enough:
        return
    with tqdm(total=enough, desc="first renderings", unit="img", disable=None) as bar:
        while (n := len(pool)) < enough:
            bar.update(n - bar.n)
            time.sleep(1)


class Log:
    """Running means of all figures: a line of JSON each time, and TensorBoard where installed."""

    def __init__(self, out: Path, status: Callable[[dict[str, float]], str] | None = None) -> None:
        """Appends to the log in `out`; `status` says the main figures in a line."""
        self._status = status or regressor_status
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / LOG
        self._means: dict[str, float] = {}
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out))
        except ImportError:
            self._board = None

    def add(
        self, values: dict[str, Tensor], loss: Tensor, images_per_s: float, waited: float
    ) -> None:
        """One step; `waited` is the share of it in which no batch was ready."""
        figures = {"loss": loss, **values, "images_per_s": images_per_s, "waited": waited}
        for name, value in figures.items():
            value = float(value.detach()) if isinstance(value, Tensor) else value
            self._means[name] = 0.97 * self._means.get(name, value) + 0.03 * value

    def write(self, step: int, elapsed: float) -> str:
        """Stores the means and says the main ones."""
        m = self._means
        line = {"step": step, "elapsed_s": round(elapsed, 1)}
        with self._path.open("a") as file:
            file.write(json.dumps({**line, **{k: round(v, 5) for k, v in m.items()}}) + "\n")
        if self._board is not None:
            for name, value in m.items():
                self._board.add_scalar(name, value, step)
        return (
            f"step {step}, {m['images_per_s']:.0f} img/s, waited {m['waited']:.0%}, "
            f"loss {m['loss']:.3f}, {self._status(m)}"
        )


def regressor_status(means: dict[str, float]) -> str:
    """The regression network's main figures."""
    return (
        f"reprojection {means['reprojection']:.4f}, {means['neutral_mm']:.2f} mm, "
        f"{math.degrees(means['rotation']):.1f} deg"
    )


if __name__ == "__main__":  # what torchrun starts
    import sys

    from face_recon_ros.training.config import load_config, parse_overrides

    options = [a for a in sys.argv[1:] if "=" in a]
    train(load_config(None, parse_overrides(options)), resume="--resume" in sys.argv)
