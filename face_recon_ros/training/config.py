"""Everything a run depends on, in one place; overridden by YAML and `--set key=value`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from face_recon_ros.core.errors import ConfigError, reason
from face_recon_ros.training.synthesis.expressions import STRONG


@dataclass(frozen=True)
class LossWeights:
    """Weight of each loss; the names are those of the functions in `losses`.

    The first group compares synthetic crops with what they were rendered from, the second asks
    photographs to agree with a teacher's answer for another crop of themselves, the third with
    renderings of the answer.
    """

    reprojection: float = 120.0
    neutral_mm: float = 0.05
    shape_mm: float = 0.5
    expression_mm: float = 0.4
    identity: float = 0.05
    expression: float = 5.0
    albedo: float = 0.02
    rotation: float = 4.0
    log_distance: float = 3.0
    colour: float = 0.5
    illumination: float = 0.1
    confidence: float = 0.1
    features: float = 1.0

    equivariance: float = 10.0
    equivariance_expression: float = 0.5
    equivariance_mm: float = 0.02

    photometric: float = 0.0
    perception: float = 0.0
    identity_prior: float = 1e-3
    expression_prior: float = 1e-3
    albedo_prior: float = 1e-3
    albedo_symmetry: float = 0.0
    albedo_variance: float = 0.0
    white_light: float = 0.0
    same_person: float = 0.0


@dataclass(frozen=True)
class RunConfig:
    """What all training runs have.

    Attributes:
        out: folder of checkpoints and logs.
        face_model: name in models/ or path of the face model.
        crop_margin: side of the crop over the side of the face box.
        init: checkpoint, or path or shipped name of an export (`.onnx`) where the network can be
            read back from one, to take weights from where they fit; empty: none.
        seed: of everything random.
        steps: how long, in optimiser steps; 0: no limit.
        minutes: how long, in minutes of training; 0: no limit. Whichever comes first.
        batch_size: examples per process and step.
        learning_rate: peak.
        weight_decay: AdamW's.
        ema_decay: of the averaged weights, which are what is exported.
        clip_norm: of the gradient.
        threads: of torch per process; 0: torch's choice.
        pool: folder of renderings; empty: `out`/pool.
        pool_slots: renderings kept.
        pool_size: P, pixels per side of a rendering.
        renew_per_second: renderings replaced per second once the pool is full; below 0: another
            run fills this pool.
        skins: folder of MakeHuman's system assets, whose photographic skins most synthetic people
            then wear; empty: skin is the face model's.
        portrait_skins: folder of skins taken from photographs (`scripts/portrait_skins.py`), which
            half of all synthetic people wear; empty: none.
        turned_away: share of renderings that show the back of the head.
        strong_expressions: share of renderings of grimaces: any muscles together.
        population: each person is drawn around a part of real people's mean identity
            (`face_model.population`), evenly from none to this part; 0: around the face model's
            mean.
        loader_workers: processes that make examples.
        save_minutes: between checkpoints.
    """

    out: str = "runs/train"
    face_model: str = "face_model.npz"
    crop_margin: float = 1.3
    init: str = ""
    seed: int = 0
    steps: int = 0
    minutes: float = 60.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    ema_decay: float = 0.998
    clip_norm: float = 5.0
    threads: int = 1
    pool: str = ""
    pool_slots: int = 16384
    pool_size: int = 144
    renew_per_second: float = 6.0
    skins: str = ""
    portrait_skins: str = ""
    turned_away: float = 0.0
    strong_expressions: float = STRONG
    population: float = 0.0
    loader_workers: int = 1
    save_minutes: float = 3.0

    def __post_init__(self) -> None:
        self._at_least_1("batch_size", "pool_slots", "pool_size")
        self._below_1("turned_away", "strong_expressions")
        if not 0 <= self.population <= 1:
            raise ConfigError("population in [0, 1]", f"{self.population}", "1 is all of it")
        if self.steps <= 0 and self.minutes <= 0:
            raise ConfigError("steps or minutes above 0", "neither", "say how long to train")
        if self.crop_margin <= 0:
            raise ConfigError("crop_margin above 0", f"{self.crop_margin}", "1.3 is a good start")

    def _at_least_1(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of at least 1", f"{getattr(self, name)}", "raise it")

    def _below_1(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} in [0, 1)", f"{getattr(self, name)}", "lower it")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """One training run of the regression network.

    Attributes:
        backbone: `resnet50`, `efficientnet_lite0` or `tiny`.
        image_size: S, pixels per side of a crop.
        teacher: as `init`, another network, whose feature maps are learned too and whose answers
            for photographs count; empty: none.
        teacher_size: pixels per side of the crops the teacher sees; 0: image_size.
        backbone_weights: ImageNet weights for efficientnet_lite0; empty: none.
        frozen_stages: first stages of the backbone that stay as `init` has them; with the first
            of efficientnet_lite0's four frozen, a CPU sees 1.7 times as many crops.
        warmup: share of the run in which the learning rate climbs.
        device: `cpu`, `cuda`, or `auto`.
        mixed_precision: bfloat16 on GPUs.
        photographs: folder with photographs, or a text file that lists them; empty: none.
        skip_grey: leave out photographs without colour.
        embedding: face recognition network for the perception loss, ONNX or TorchScript.
        photograph_share: share of a batch that is photographs.
        photograph_after: share of the run after which photographs join.
        relabel_minutes: how often the teacher answers for the photographs again.
        jitter_shift: standard deviation of the crop's middle, crop sides.
        jitter_zoom: standard deviation of the logarithm of its side.
        jitter_roll: standard deviation, radians.
        weights: of the losses.
    """

    backbone: str = "resnet50"
    image_size: int = 64
    teacher: str = ""
    teacher_size: int = 0
    backbone_weights: str = ""
    frozen_stages: int = 0
    warmup: float = 0.03
    device: str = "auto"
    mixed_precision: bool = True
    photographs: str = ""
    skip_grey: bool = True
    embedding: str = ""
    photograph_share: float = 0.25
    photograph_after: float = 0.3
    relabel_minutes: float = 10.0
    jitter_shift: float = 0.04
    jitter_zoom: float = 0.07
    jitter_roll: float = 0.12
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_1("image_size")
        self._below_1("photograph_share")


@dataclass(frozen=True)
class PointLossWeights:
    """Weight of each loss of the dense-point network, by the names in `point_objective`.

    The first group is about the points themselves, the second about what the picture says of the
    person without the fit, the third about what the fit makes of both.
    """

    nll: float = 1.0
    points_mm: float = 0.5
    presence: float = 0.5

    direct_identity: float = 0.5
    direct_expression: float = 10.0

    shape_mm: float = 1.0
    identity: float = 0.2
    expression: float = 5.0
    expression_mm: float = 0.3
    reprojection: float = 120.0
    rotation: float = 4.0
    log_distance: float = 3.0


@dataclass(frozen=True)
class PointConfig(RunConfig):
    """One training run of the dense-point network.

    Attributes:
        device: where examples are rendered and the network is trained: `cuda`, or `cpu` (the same
            in torch, to try it); empty: on the CPU, examples from the pool, made by
            `loader_workers` processes.
        people: heads that are dressed before a run on a `device`; each wears any face, pose and
            light.
        regressor: name in models/ or path of the exported network whose answers are corrected.
        points: about how many vertices of the face model are found.
        width: channels of the network at the grid's resolution.
        hidden: width of its fully connected layer.
        warmup_steps: steps in which the learning rate climbs.
        fit_after: steps after which the losses that go through the fit join.
        bfloat16: convolutions in bfloat16: a step takes two thirds of the time where the processor
            has AVX512-BF16 or AMX, and longer where it has not.
        backgrounds: folder of photographs, pieces of whose lower thirds are backgrounds; empty:
            backgrounds are procedural.
        photograph_share: share of examples that show the photographs of `backgrounds` themselves,
            with the pose and shape that several looks of `teacher` agree on; 0: none.
        teacher: name in models/ or path of the exported dense-point network that answers for
            photographs.
        no_face: share of examples that show no face where one was expected.
        worsen: share of starts that are moved away from the regressor's answer.
        plain: share of pictures as a good camera sees them, with nothing before the face.
        uncalibrated: share of pictures whose camera the fit does not know.
        replay: batches kept, to be used again whenever no new one is ready; 0 waits for new ones,
            which is better: where two of three batches came again, the network learned them by
            heart and others no better.
        weights: of the losses.
    """

    out: str = "runs/points"
    minutes: float = 90.0
    learning_rate: float = 1.5e-3
    clip_norm: float = 10.0
    pool_slots: int = 24000
    pool_size: int = 192
    renew_per_second: float = 3.0
    turned_away: float = 0.03
    save_minutes: float = 4.0
    device: str = ""
    people: int = 4096
    regressor: str = "face_net.onnx"
    points: int = 500
    width: int = 48
    hidden: int = 256
    warmup_steps: int = 300
    fit_after: int = 900
    bfloat16: bool = False
    backgrounds: str = ""
    photograph_share: float = 0.0
    teacher: str = "face_points_float.onnx"
    no_face: float = 0.1
    worsen: float = 0.35
    plain: float = 0.0
    uncalibrated: float = 0.3
    replay: int = 0
    weights: PointLossWeights = field(default_factory=PointLossWeights)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_1("points", "width", "hidden", "people")
        self._below_1("no_face", "worsen", "photograph_share")
        for name in ("plain", "uncalibrated"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} in [0, 1]", f"{getattr(self, name)}", "1 is all of them"
                )
        if self.portrait_skins and self.device:
            raise ConfigError(
                "no `device` with portrait_skins",
                f"device={self.device!r}",
                "leave --device out, or portrait_skins empty: they are rendered with numpy",
            )
        if self.photograph_share and (self.device or not self.backgrounds):
            raise ConfigError(
                "a folder `backgrounds` and no `device` for a photograph_share",
                f"backgrounds={self.backgrounds!r}, device={self.device!r}",
                "name the folder (--photographs DIR), leave --device out, or photograph_share=0",
            )


Config = TypeVar("Config", TrainConfig, PointConfig)


def load_config(
    path: str | Path | None,
    overrides: Mapping[str, str] | None = None,
    kind: type[Config] = TrainConfig,  # type: ignore[assignment]
) -> Config:
    """The defaults, changed by a YAML file, changed by `--set` options.

    Args:
        path: YAML with any fields of `kind` (losses under `weights:`); None: none.
        overrides: field (or `weights.name`) -> text of its value.
        kind: of run.

    Raises:
        ConfigError: a file, key or value that does not fit.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(Path(path).read_text())
        except (OSError, ValueError, yaml.YAMLError) as fault:
            raise ConfigError(
                f"a YAML file at {path}",
                reason(fault),
                "check the path and its syntax",
            ) from None
        if not isinstance(loaded, dict):
            raise ConfigError(
                f"keys and values in {path}", type(loaded).__name__, "write NAME: VALUE lines"
            )
        values = loaded
    for key, text in (overrides or {}).items():
        target = values
        *parents, last = key.split(".")
        for parent in parents:
            target = _mapping(target.setdefault(parent, {}), parent)
        try:
            target[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"a value for {key}", repr(text), "quote it as YAML does") from None
    return config_from_dict(values, kind)


def config_from_dict(
    values: Mapping[str, Any],
    kind: type[Config] = TrainConfig,  # type: ignore[assignment]
) -> Config:
    """Checked construction; the inverse of `dataclasses.asdict`."""
    values = dict(values)
    losses = {TrainConfig: LossWeights, PointConfig: PointLossWeights}[kind]
    weights = _build(losses, _mapping(values.pop("weights", None) or {}, "weights"), "weights.")
    return dataclasses.replace(_build(kind, values, ""), weights=weights)


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"names and values below {key}", repr(value), f"{key}.NAME=VALUE")
    return value


def _build(kind: type, values: Mapping[str, Any], prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name != "weights"}
    checked = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(
                f"training options {', '.join(sorted(fields))}", f"{prefix}{key}", "check the name"
            )
        wanted = type(fields[key].default)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if wanted is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
            with contextlib.suppress(ValueError):
                value = float(value)
        if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
            finite = "finite " if wanted is float else ""
            raise ConfigError(
                f"{prefix}{key} of type {finite}{wanted.__name__}",
                repr(value),
                "face_recon_ros/training/config.py describes it",
            )
        checked[key] = value
    return kind(**checked)


def parse_overrides(pairs: list[str]) -> dict[str, str]:
    """`["a=1", "b.c=2"]` -> `{"a": "1", "b.c": "2"}`."""
    out = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError("--set KEY=VALUE", repr(pair), "for example --set minutes=30")
        out[key] = value
    return out
