"""Renderings on disk, made by one process and read by others: a ring, renewed while it is used.

Rendering a person costs more than changing what is around them; so each rendering is used
several times, with
another crop, background, occluder and camera each time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.training.synthesis.faces import Label, Rendering, SyntheticFaces

_EMPTY = -1
_INTRINSICS = 3


class RenderCache:
    """A memory-mapped ring of renderings. One writer, any number of readers."""

    def __init__(
        self, folder: str | Path, slots: int, size: int, sizes: tuple[int, int, int]
    ) -> None:
        """Opens the ring, and makes it where there is none of this shape.

        Args:
            folder: where it lies.
            slots: how many renderings it holds.
            size: P, pixels per side.
            sizes: K_id, K_exp, K_alb.
        """
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._shapes = [(k,) for k in sizes] + [(3,), (3,), (9, 3)]
        length = sum(int(np.prod(s)) for s in self._shapes) + _INTRINSICS
        self.slots = slots
        self._made_of = (folder, slots, size, sizes)
        self._stamps = self._open("stamps", (slots,), np.int64, fill=_EMPTY)
        self._images = self._open("images", (slots, size, size, 4), np.uint8)
        self._labels = self._open("labels", (slots, length), np.float32)

    def _open(self, name: str, shape: tuple[int, ...], dtype: type, fill: int = 0) -> NDArray:
        path = self._folder / f"{name}.npy"
        if path.is_file():
            array = np.load(path, mmap_mode="r+")
            if array.shape == shape and array.dtype == dtype:
                return array
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        if fill:
            array[:] = fill
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the same files, where it sees what is renewed."""
        return RenderCache, self._made_of

    def __len__(self) -> int:
        return int((np.asarray(self._stamps) != _EMPTY).sum())

    @property
    def next_index(self) -> int:
        """Number of renderings ever made."""
        return int(np.asarray(self._stamps).max()) + 1

    def write(self, index: int, rendering: Rendering) -> None:
        """Stores the rendering number `index`, over the one that is `slots` older."""
        slot = index % self.slots
        self._stamps[slot] = _EMPTY
        self._images[slot] = rendering.rgba
        values = [*rendering.label, rendering.intrinsics]
        self._labels[slot] = np.concatenate([np.ravel(v) for v in values])
        self._stamps[slot] = index

    def read(self, random: np.random.Generator) -> Rendering:
        """Any rendering, copied."""
        while True:
            slot = int(random.integers(self.slots))
            stamp = int(self._stamps[slot])
            if stamp == _EMPTY:
                continue
            image, flat = self._images[slot].copy(), self._labels[slot].copy()
            if int(self._stamps[slot]) == stamp:  # the writer was not here meanwhile
                label, intrinsics = np.split(flat, [-_INTRINSICS])
                return Rendering(image, self._label(label), intrinsics)

    def _label(self, flat: NDArray[np.float32]) -> Label:
        ends = np.cumsum([np.prod(s) for s in self._shapes])[:-1].astype(int)
        parts = np.split(flat, ends)
        return Label(*(p.reshape(s) for p, s in zip(parts, self._shapes, strict=True)))


def fill_render_cache(
    pool: RenderCache,
    faces: SyntheticFaces,
    seed: int,
    *,
    renew_per_second: float = 0.0,
    parent: int | None = None,
) -> None:
    """Renders until the pool is full, then renews its oldest.

    Args:
        pool: where to.
        faces: what.
        seed: rendering number i is drawn from (seed, i), so that a pool can be made again.
        renew_per_second: renderings per second after the pool is full; 0 ends then.
        parent: ends when this is no longer the parent process.
    """
    index = pool.next_index
    while parent is None or os.getppid() == parent:
        if len(pool) == pool.slots:
            if renew_per_second <= 0:
                return
            time.sleep(1 / renew_per_second)
        pool.write(index, faces.sample(np.random.default_rng((seed, index))))
        index += 1
