"""Batches for the training loop, made in worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import MorphableModel, load_morphable_model
from face_recon_ros.face_model.population import population_mean
from face_recon_ros.training.config import RunConfig, TrainConfig
from face_recon_ros.training.photographs import PhotographCache, cache_of
from face_recon_ros.training.synthesis.augment import (
    Backgrounds,
    CropChange,
    Example,
    Jitter,
    Mirror,
    compose_example,
    photograph_example,
)
from face_recon_ros.training.synthesis.faces import CONTEXT, SyntheticFaces
from face_recon_ros.training.synthesis.portraits import Portraits
from face_recon_ros.training.synthesis.render_cache import RenderCache, fill_render_cache
from face_recon_ros.training.synthesis.skins import Skins


class Batch(NamedTuple):
    """B crops with what they should answer.

    Attributes:
        image: (B, S, S, 3) uint8.
        identity, expression, albedo, rotation, translation, illumination: labels, as
            `Coefficients`.
        synthetic: (B,) 1 for renderings, 0 for photographs (then the labels are a teacher's).
        colour_known: (B,) 1 where albedo and light explain the colours.
        person: (B,) who a photograph shows; -1 for renderings.
    """

    image: Tensor
    identity: Tensor
    expression: Tensor
    albedo: Tensor
    rotation: Tensor
    translation: Tensor
    illumination: Tensor
    synthetic: Tensor
    colour_known: Tensor
    person: Tensor


def collate(examples: list[Example], people: list[int]) -> Batch:
    """Stacks examples; `people` are -1 for renderings."""
    person = torch.tensor(people)
    labels = [
        torch.from_numpy(np.stack(values))
        for values in zip(*(e.label for e in examples), strict=True)
    ]
    return Batch(
        torch.from_numpy(np.stack([e.image for e in examples])),
        *labels,
        (person < 0).float(),
        torch.tensor([e.colour_known for e in examples], dtype=torch.float32),
        person,
    )


class Crops(IterableDataset):
    """Endless batches: synthetic crops, and photographs once a teacher has answered for them."""

    def __init__(self, config: TrainConfig, face_model: str, seed: int) -> None:
        """Says what to draw from; opens nothing yet.

        Args:
            config: of the run.
            face_model: path.
            seed: differs between processes and restarts.
        """
        self._config = config
        self._face_model = face_model
        self._seed = seed

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        config = self._config
        random = np.random.default_rng((self._seed, info.id if info else 0))
        model = load_morphable_model(self._face_model, level="coarse")
        pool = open_render_cache(config, (model.k_identity, model.k_expression, model.k_albedo))
        mirror = Mirror(model)
        jitter = Jitter(config.jitter_shift, config.jitter_zoom, config.jitter_roll)
        photographs = open_photographs(config)
        patches = photographs.patches(200) if photographs else None
        backgrounds = Backgrounds(config.seed, patches)
        size = config.image_size
        while True:
            examples: list[Example] = []
            people: list[int] = []
            share = config.photograph_share if photographs and photographs.labelled() else 0.0
            for _ in range(config.batch_size):
                if random.random() < share:
                    picture, label, person = photographs.draw(random)
                    change = jitter.draw(random, 1 / CONTEXT)
                    examples.append(
                        photograph_example(
                            picture, label, change, size, mirror, backgrounds, random
                        )
                    )
                    people.append(person)
                else:
                    rendering = pool.read(random)
                    change = jitter.draw(random, 1 / CONTEXT)
                    examples.append(
                        compose_example(
                            rendering.rgba,
                            rendering.label,
                            change,
                            size,
                            mirror,
                            backgrounds,
                            random,
                        )
                    )
                    people.append(-1)
            yield collate(examples, people)


def synthetic_crops(
    model: MorphableModel, margin: float, size: int, count: int, seed: int = 0
) -> NDArray[np.uint8]:
    """(count, S, S, 3) crops of people drawn for the occasion."""
    faces = SyntheticFaces(model, margin=margin, size=round(CONTEXT * size))
    mirror, backgrounds = Mirror(model), Backgrounds(seed)
    crops = []
    for index in range(count):
        random = np.random.default_rng((seed, index))
        rgba, label, _ = faces.sample(random)
        change = CropChange(zoom=1 / CONTEXT)
        crops.append(compose_example(rgba, label, change, size, mirror, backgrounds, random).image)
    return np.stack(crops)


def open_render_cache(config: RunConfig, sizes: tuple[int, int, int]) -> RenderCache:
    """The run's pool of renderings."""
    folder = config.pool or str(Path(config.out) / "pool")
    return RenderCache(folder, config.pool_slots, config.pool_size, sizes)


_Kind = TypeVar("_Kind", Skins, Portraits)


def open_skins(
    kind: type[_Kind], folder: str, model: MorphableModel, face_model: str
) -> _Kind | None:
    """The skins of a folder for a face model (`model`, from the file `face_model`), if any."""
    if not folder:
        return None
    return kind(folder, model, load_morphable_model(face_model, level="fine"))


def held_out_faces(config: RunConfig, model: MorphableModel) -> SyntheticFaces:
    """Renders people as a run's, but none of photographs, whose shape is known for certain.

    Args:
        config: of the run.
        model: its face model, level coarse.
    """
    face_model = str(find_model(config.face_model))
    return SyntheticFaces(
        model,
        margin=config.crop_margin,
        size=config.pool_size,
        skins=open_skins(Skins, config.skins, model, face_model),
        population=people_mean(config, model),
    )


def people_mean(config: RunConfig, model: MorphableModel) -> NDArray[np.float64] | None:
    """(K_id,) the farthest mean identity of the run's people; None: the face model's."""
    return config.population * population_mean(model) if config.population else None


def open_photographs(config: TrainConfig) -> PhotographCache | None:
    """The run's cache of photographs, where it has any."""
    return PhotographCache(cache_of(config.out)) if config.photographs else None


def make_loader(config: TrainConfig, face_model: str, seed: int) -> DataLoader:
    """Batches made by `loader_workers` processes (0: in this one)."""
    workers = config.loader_workers
    return DataLoader(
        Crops(config, face_model, seed),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )


@contextlib.contextmanager
def renderer(config: RunConfig, face_model: str) -> Iterator[BaseProcess | None]:
    """A process that fills and renews the pool, if this run is to; gone when the block ends."""
    if config.renew_per_second < 0:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_render, args=(config, face_model, os.getpid()), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join(10)


def _render(config: RunConfig, face_model: str, parent: int) -> None:
    cv2.setNumThreads(0)
    os.nice(5)
    model = load_morphable_model(face_model, level="coarse")
    pool = open_render_cache(config, (model.k_identity, model.k_expression, model.k_albedo))
    faces = SyntheticFaces(
        model,
        margin=config.crop_margin,
        size=config.pool_size,
        skins=open_skins(Skins, config.skins, model, face_model),
        portraits=open_skins(Portraits, config.portrait_skins, model, face_model),
        turned_away=config.turned_away,
        population=people_mean(config, model),
        strong_expressions=config.strong_expressions,
    )
    fill_render_cache(
        pool, faces, config.seed, renew_per_second=config.renew_per_second, parent=parent
    )


def wait_for_pool(config: RunConfig, sizes: tuple[int, int, int]) -> None:
    """Until enough different people are rendered to begin."""
    pool = open_render_cache(config, sizes)
    enough = min(pool.slots, 20 * config.batch_size)
    if len(pool) >= enough:
        return
    with tqdm(total=enough, desc="first renderings", unit="img", disable=None) as bar:
        while (n := len(pool)) < enough:
            bar.update(n - bar.n)
            time.sleep(1)
