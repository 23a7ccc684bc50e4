"""What people look like, as a bank of tensors: skin, hair, beards, teeth, hats, clothes.

`synthesis.people` dresses the mean head, once for each person of the bank, in as many processes
as there are cores. On the device any head wears any person's outfit: each vertex of it moves with
a vertex of the head.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face_recon_ros.core.morphable_model import MorphableModel, load_morphable_model
from face_recon_ros.training.data import open_skins
from face_recon_ros.training.rasterizer import vertex_normals
from face_recon_ros.training.synthesis.expressions import mood_of, sample_expression
from face_recon_ros.training.synthesis.faces import draw_person
from face_recon_ros.training.synthesis.people import Part, People
from face_recon_ros.training.synthesis.skins import Skins
from face_recon_ros.training.torch_synthesis.drawing import Draw

#: Of so many people the one is taken whose folds fit the expression best.
_CANDIDATES = 12
_BANK = 552  # a third number beside seed and index: nobody of a pool, or held out, is drawn again


class Outfit(NamedTuple):
    """One person, V vertices of the head and E of everything else.

    Attributes:
        colours: (V + E, 3) sRGB-encoded reflectance.
        occlusion: (V + E,) share of the sky that is seen, mouth wide open.
        place: (E,) the head's vertex that each moves with.
        offset: (E, 3) from there, metres.
        normals: (E, 3).
        strands, teeth: (E,) bool.
        triangles: (F, 3) of everything else, numbered from V.
        complexion: (H, W, 3) what the skin is multiplied by.
        skin: number of the photographic skin from 1; 0: none.
        mood: (3,) as in `Mood`.
    """

    colours: NDArray[np.float16]
    occlusion: NDArray[np.float16]
    place: NDArray[np.int32]
    offset: NDArray[np.float32]
    normals: NDArray[np.float16]
    strands: NDArray[np.bool_]
    teeth: NDArray[np.bool_]
    triangles: NDArray[np.int32]
    complexion: NDArray[np.float16]
    skin: int
    mood: NDArray[np.float32]


class Worn(NamedTuple):
    """B people's outfits on their heads, V + E vertices each, face frame.

    Attributes:
        vertices: (B, V + E, 3) metres.
        normals: (B, E, 3) of what is not the head.
        colours: (B, V + E, 3).
        occlusion: (B, V + E).
        strands: (B, V + E) 1 for hair.
        triangles: (B, F, 3), the head's first; rows of zeros fill up.
    """

    vertices: Tensor
    normals: Tensor
    colours: Tensor
    occlusion: Tensor
    strands: Tensor
    triangles: Tensor


class Wardrobe:
    """A bank of outfits.

    Attributes:
        people: who dressed them.
        complexions: (N, H, W, 3), and how the head is wrapped in them: (V, 3).
        skins: (K + 1, H', W', 3), the first empty; and how: (V, 3).
    """

    def __init__(
        self,
        model: MorphableModel,
        people: People,
        outfits: list[Outfit],
        skins: Skins | None,
        device: torch.device,
    ) -> None:
        """Stacks outfits.

        Args:
            model: coarse level, whole head.
            people: who dressed them.
            outfits: N of them.
            skins: that some wear.
            device: for everything.
        """
        self.people = people
        self._head = torch.from_numpy(model.triangles.astype(np.int64)).to(device)

        def stack(name: str, head: int = 0) -> Tensor:
            arrays = [getattr(o, name) for o in outfits]
            longest = max(len(a) for a in arrays)
            out = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
            for row, array in zip(out, arrays, strict=True):
                row[: len(array)] = array
            return torch.from_numpy(out).to(device)

        self._colours, self._occlusion = stack("colours"), stack("occlusion")
        self._place, self._offset = stack("place"), stack("offset")
        self._normals, self._triangles = stack("normals"), stack("triangles")
        self._strands, self._teeth = stack("strands"), stack("teeth")
        self._mood = torch.from_numpy(np.stack([o.mood for o in outfits])).to(device)
        self.skin = torch.tensor([o.skin for o in outfits], device=device)
        maps = torch.from_numpy(np.stack([o.complexion for o in outfits])).to(device)
        wrapped = np.zeros((model.n_vertices, 3), np.float32)
        if people.complexion is not None:
            wrapped = people.complexion.coordinates
        self.complexions = maps, torch.from_numpy(wrapped).to(device)
        details = skins.details if skins is not None else []
        shape = details[0].factor.shape if details else (1, 1, 3)
        factors = np.stack([np.ones(shape), *(d.factor for d in details)]).astype(np.float16)
        wrapped = details[0].coordinates if details else np.zeros_like(wrapped)
        self.skins = torch.from_numpy(factors).to(device), torch.from_numpy(wrapped).to(device)

    def __len__(self) -> int:
        return len(self._mood)

    def choose(self, mood: Tensor, draw: Draw) -> Tensor:
        """(B,) people whose folds fit the (B, 3) moods."""
        candidates = draw.index(len(self), _CANDIDATES)
        away = (self._mood[candidates] - mood[:, None]).square().sum(2)
        return candidates.gather(1, away.argmin(1, keepdim=True))[:, 0]

    def wear(self, who: Tensor, heads: Tensor, light: Tensor) -> Worn:
        """Dresses heads.

        Args:
            who: (B,) of the bank.
            heads: (B, V, 3) metres.
            light: (B,) share of light that the lips let in to the teeth.
        """
        b, v, _ = heads.shape
        place = self._place[who].long()
        moved = heads.gather(1, place[..., None].expand(-1, -1, 3))
        occlusion, teeth = self._occlusion[who].float(), self._teeth[who]
        occlusion[:, v:] *= torch.where(teeth, light[:, None], 1.0)
        bare = torch.zeros(b, v, device=heads.device)
        return Worn(
            torch.cat([heads, moved + self._offset[who]], 1),
            self._normals[who].float(),
            self._colours[who].float(),
            occlusion,
            torch.cat([bare, self._strands[who].float()], 1),
            torch.cat([self._head.expand(b, -1, -1), self._triangles[who].long()], 1),
        )


def make_wardrobe(
    face_model: str, skins: str, count: int, seed: int, device: torch.device, processes: int = 0
) -> Wardrobe:
    """Dresses `count` people.

    Args:
        face_model: path.
        skins: folder of MakeHuman's system assets; empty: none.
        count: N.
        seed: of who they are.
        device: where the bank is to be.
        processes: 0: as many as there are cores, no more than pay.
    """
    processes = min(processes or os.cpu_count() or 1, 1 + count // 50)
    model = load_morphable_model(face_model, level="coarse")
    known = open_skins(Skins, skins, model, face_model)
    people = People(model, known)
    if processes == 1:
        found = [_outfits(model, people, known, seed, range(count))]
    else:
        jobs = [(face_model, skins, seed, range(k, count, processes)) for k in range(processes)]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context) as pool:
            found = list(pool.map(_alone, *zip(*jobs, strict=True)))
    outfits = [outfit for part in found for outfit in part]
    return Wardrobe(model, people, outfits, known, device)


def _alone(face_model: str, skins: str, seed: int, numbers: range) -> list[Outfit]:
    """What a process of its own does."""
    model = load_morphable_model(face_model, level="coarse")
    known = open_skins(Skins, skins, model, face_model)
    return _outfits(model, People(model, known), known, seed, numbers)


def _outfits(
    model: MorphableModel, people: People, skins: Skins | None, seed: int, numbers: range
) -> list[Outfit]:
    return [
        dress(model, people, skins, np.random.default_rng((seed, number, _BANK)))
        for number in numbers
    ]


def dress(
    model: MorphableModel, people: People, skins: Skins | None, random: np.random.Generator
) -> Outfit:
    """One person's outfit on the mean head."""
    head = model.mean_shape
    albedo = model.albedo(draw_person(model, random).albedo)
    expression = sample_expression(model.expression_names, model.expression_prior, random)
    mood = mood_of(expression, model.expression_names)
    skin, *rest = people.dress(head, albedo, mood, random)
    details = skins.details if skins is not None else []
    number = next((k for k, d in enumerate(details, 1) if skin.paint and d is skin.paint[0]), 0)
    maps = skin.paint[1:] if number else skin.paint
    blank = np.ones((1, 1, 3))
    if people.complexion is not None:
        blank = np.ones((*people.complexion.shape, 3))
    pieces = [_piece(part, head, people) for part in rest]
    starts = model.n_vertices + np.cumsum([0] + [len(p.place) for p in pieces])

    def join(first: list[NDArray], name: str, dtype: type) -> NDArray:
        return np.concatenate([*first, *(getattr(p, name) for p in pieces)]).astype(dtype)

    nothing = np.zeros((0, 3))
    triangles = [p.triangles + s for p, s in zip(pieces, starts, strict=False)]
    sky = np.ones(model.n_vertices) if skin.occlusion is None else skin.occlusion
    return Outfit(
        join([skin.colours], "colours", np.float16),
        join([sky], "occlusion", np.float16),
        join([nothing[:, 0]], "place", np.int32),
        join([nothing], "offset", np.float32),
        join([nothing], "normals", np.float16),
        join([nothing[:, 0]], "strands", np.bool_),
        join([nothing[:, 0]], "teeth", np.bool_),
        np.concatenate([nothing, *triangles]).astype(np.int32),
        (maps[0].factor if maps else blank).astype(np.float16),
        number,
        np.array(mood, np.float32),
    )


def _piece(part: Part, head: NDArray[np.float32], people: People) -> Outfit:
    """A part without what nobody sees, and what it moves with."""
    used, triangles = np.unique(part.triangles, return_inverse=True)
    vertices = part.vertices[used]
    place = used
    teeth = any(part.on is row for row in people.teeth.values())
    if part.on is not None:
        sites = np.flatnonzero(part.on) if part.on.any() else np.arange(len(head))
        # a row of teeth is stiff, and moves with the middle one
        near = head[sites].mean(0, keepdims=True) if teeth else vertices
        away = np.linalg.norm(near[:, None] - head[sites], axis=2)
        place = np.broadcast_to(sites[away.argmin(1)], len(used))
    sky = np.ones(len(used)) if part.occlusion is None else part.occlusion[used]
    return Outfit(
        part.colours[used],
        sky / people.light_on_teeth(head) if teeth else sky,
        place,
        vertices - head[place],
        vertex_normals(part.vertices, part.triangles)[used],
        np.full(len(used), part.strands),
        np.full(len(used), teeth),
        triangles.reshape(-1, 3),
        np.zeros(0),
        0,
        np.zeros(0),
    )
