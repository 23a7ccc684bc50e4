"""Unlabelled photographs: faces found and cropped with the code of inference, kept in a cache.

No annotation is read, only pixels. What the network should answer for a photograph comes from a
teacher: the averaged network itself (`label_photographs`), asked for the photograph and its mirror
image.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import crop_from_face_box
from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.errors import DataError, FaceReconError
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.core.types import Detector
from face_recon_ros.io.folders import make_folder
from face_recon_ros.io.images import read_image
from face_recon_ros.io.jobs import Pool, run_jobs
from face_recon_ros.io.journal import Journal
from face_recon_ros.training.config import RunConfig
from face_recon_ros.training.synthesis.augment import CropChange, Mirror
from face_recon_ros.training.synthesis.faces import CONTEXT, Label

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MIN_FACE_PX = 32
SHARD = 128  # photographs: about a second's work
#: Answers for a photograph and its mirror image may differ by this, in crop sides, to count as
#: known.
MAX_DISAGREEMENT = 0.03
GREY_LEVELS = 3.0

Answer = Callable[[NDArray[np.uint8]], list[Label]]


def list_photographs(source: str | Path) -> list[Path]:
    """Photographs of a folder and all below it, or those a text file lists, one path a line.

    Raises:
        DataError: there is none.
    """
    source = Path(source)
    if source.is_dir():
        found = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
    elif source.is_file():
        text = source.read_text(errors="surrogateescape")
        lines = [] if "\0" in text else text.splitlines()  # a picture is no list
        found = [source.parent / line.strip() for line in lines if line.strip()]
    else:
        found = []
    if not found:
        raise DataError(
            f"photographs ({', '.join(SUFFIXES)}) in {source}", "none", "check the folder or list"
        )
    return found


def is_grey(image: NDArray[np.uint8]) -> bool:
    """Whether an (H, W, 3) image has no colour."""
    spread = image.max(2).astype(np.int16) - image.min(2)
    return float(spread.mean()) < GREY_LEVELS


def person_of(path: Path) -> str:
    """The person, where file names say it (`Name_0001.jpg`), else the file itself."""
    return re.sub(r"[_-]\d+$", "", path.stem)


class Pictures(Sequence[NDArray[np.uint8]]):
    """(P, P, 3) crops in the memory-mapped files of a cache's shards, as one sequence.

    Attributes:
        shape: (N, P, P, 3).
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Maps the files, each (n, P, P, 3)."""
        self._parts = [np.load(file, mmap_mode="r") for file in files]
        self._ends = np.cumsum([len(part) for part in self._parts])
        side = self._parts[0].shape[1] if self._parts else 1
        self.shape = (int(self._ends[-1]) if self._parts else 0, side, side, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """One crop; or an array of those of a slice."""
        if isinstance(index, slice):
            chosen = [self[i] for i in range(*index.indices(len(self)))]
            return np.stack(chosen) if chosen else np.zeros((0, *self.shape[1:]), np.uint8)
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, i, side="right"))
        return np.array(self._parts[part][i - self._ends[part]])


@dataclass(frozen=True)
class Cropper:
    """Finds and crops the faces of a shard of photographs; for any process.

    Attributes:
        folder: of the shards' files.
        find: makes the detector, once a process.
        margin: side of the network's crop over the face box; `CONTEXT` of it is kept.
        size: P, pixels per side.
        skip_grey: photographs without colour are left out.
    """

    folder: Path
    find: Callable[[], Detector]
    margin: float
    size: int
    skip_grey: bool

    def __call__(self, shard: tuple[int, list[str]]) -> dict[str, list[str]]:
        """Writes the crops of shard number `shard[0]`; says what became of each path."""
        number, paths = shard
        cv2.setNumThreads(1)
        detector = _detector(self.find)
        crops, outcomes = [], []
        for path in paths:
            outcome, crop = _crop(Path(path), detector, self.margin, self.size, self.skip_grey)
            outcomes.append(outcome)
            if crop is not None:
                crops.append(crop)
        pixels = np.array(crops, np.uint8).reshape(-1, self.size, self.size, 3)
        file = shard_file(self.folder, number)
        part = file.with_suffix(".part")
        with part.open("wb") as out:
            np.save(out, pixels)
        part.replace(file)
        return {"paths": paths, "outcomes": outcomes}


@functools.lru_cache(maxsize=1)
def _detector(find: Callable[[], Detector]) -> Detector:
    return find()


def shard_file(folder: Path, number: int) -> Path:
    """Where the crops of a shard lie."""
    return folder / f"images_{number:06d}.npy"


def cache_of(run: str | Path) -> Path:
    """Folder of a run's photographs."""
    return Path(run) / "photographs"


class PhotographCache:
    """Crops of photographs in memory-mapped shards; written by many processes, read by many."""

    def __init__(self, folder: str | Path) -> None:
        """Opens the cache in `folder`; it may not exist yet."""
        self._folder = Path(folder)
        self._images = Pictures(())
        self._labels: NDArray[np.float32] | None = None
        self._sizes: tuple[int, ...] = ()
        self._numbers: list[int] = []
        self._refresh()

    @property
    def _index(self) -> Path:
        return self._folder / "index.jsonl"

    def _refresh(self) -> None:
        if len(self._images) == 0 and self._index.is_file():
            shards = sorted({entry["shard"] for entry in self._kept()})
            self._images = Pictures([shard_file(self._folder, number) for number in shards])
        if self._labels is None and (self._folder / "labels.npy").is_file():
            self._labels = np.load(self._folder / "labels.npy", mmap_mode="r")
            self._sizes = tuple(json.loads((self._folder / "sizes.json").read_text()))
            people = self.people()
            number = {name: i for i, name in enumerate(dict.fromkeys(people))}
            self._numbers = [number[name] for name in people]

    def build(
        self,
        source: str | Path,
        config: RunConfig,
        *,
        skip_grey: bool,
        pool: Pool | None = None,
    ) -> Counter[str]:
        """Finds and crops faces; goes on where an interrupted call stopped.

        Args:
            source: see `list_photographs`; the best face of each photograph is taken.
            config: of the run: `crop_margin`, and `pool_size` for the crops.
            skip_grey: photographs without colour are left out.
            pool: where it is done; None: in this process. Machines of a cluster must see source
                and cache under the same paths.

        Returns:
            How many were `kept`, `unreadable`, `grey`, `faceless`, `tiny`.

        Raises:
            DataError: there is no photograph, none shows a face that may be used, or a shard of
                them could not be done.
        """
        paths = [str(path.absolute()) for path in list_photographs(source)]
        folder = self._folder.resolve()
        make_folder(folder)
        margin, size = config.crop_margin, config.pool_size
        work = Cropper(folder, make_detector, margin, size, skip_grey)
        journal = Journal(folder / "journal", (margin, size, skip_grey, paths))
        shards = {
            str(number): (number, paths[start : start + SHARD])
            for number, start in enumerate(range(0, len(paths), SHARD))
        }
        outcomes = run_jobs(
            work, shards, pool or Pool(1), what=f"photographs, {SHARD} each", journal=journal
        )
        if failed := [o for o in outcomes if o.fault]:
            raise DataError(
                f"crops of {len(outcomes)} shards of photographs",
                f"{len(failed)} without, the first because {failed[0].fault}",
                "correct it and run the same command again: it continues where it stopped",
            )
        entries = [
            {"path": path, "outcome": what, "person": person_of(Path(path)), "shard": number}
            for number, outcome in enumerate(outcomes)
            for path, what in zip(*outcome.value.values(), strict=True)
        ]
        part = self._index.with_suffix(".part")
        part.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        part.replace(self._index)
        self._images = Pictures(())
        self._refresh()
        counts = Counter(entry["outcome"] for entry in entries)
        check_kept(counts, source)
        return counts

    def _kept(self) -> list[dict[str, Any]]:
        if not self._index.is_file():
            return []
        entries = (json.loads(line) for line in self._index.read_text().splitlines())
        return [e for e in entries if e["outcome"] == "kept"]

    def __len__(self) -> int:
        return len(self.people())

    def people(self) -> list[str]:
        """Who is shown on each kept photograph."""
        return [entry["person"] for entry in self._kept()]

    def labelled(self) -> bool:
        """Whether a teacher has answered."""
        self._refresh()
        return self._labels is not None

    def pictures(self) -> Pictures:
        """The kept photographs, (N, P, P, 3), `CONTEXT` crops wide."""
        self._refresh()
        return self._images

    def write_labels(self, labels: list[Label | None]) -> None:
        """Stores a teacher's answers for all photographs; None: it does not know."""
        known = next((v for v in labels if v is not None), None)
        if known is None:
            return
        flat = np.full((len(labels), 1 + sum(v.size for v in known)), 0, np.float32)
        for row, label in zip(flat, labels, strict=True):
            if label is not None:
                row[0] = 1
                row[1:] = np.concatenate([np.ravel(v) for v in label])
        sizes = [len(known.identity), len(known.expression), len(known.albedo)]
        (self._folder / "sizes.json").write_text(json.dumps(sizes))
        file = self._folder / "labels.npy"
        if file.is_file() and np.load(file, mmap_mode="r").shape == flat.shape:
            np.load(file, mmap_mode="r+")[:] = flat  # readers see it at once
        else:
            np.save(file, flat)

    def draw(self, random: np.random.Generator) -> tuple[NDArray[np.uint8], Label, int]:
        """Any photograph whose answer is known.

        Returns:
            (P, P, 3) picture, the answer for the whole of it, and a number of the person shown.
        """
        assert self._labels is not None
        while True:
            i = int(random.integers(len(self._labels)))
            row = np.array(self._labels[i])
            if row[0] > 0:
                break
        k_identity, k_expression, k_albedo = self._sizes
        ends = np.cumsum([k_identity, k_expression, k_albedo, 3, 3])
        parts = np.split(row[1:], ends)
        parts[5] = parts[5].reshape(9, 3)
        return self._images[i], Label(*parts), self._numbers[i]

    def patches(self, count: int) -> list[NDArray[np.uint8]]:
        """Some of the pictures, for backgrounds."""
        pictures = self.pictures()
        return list(pictures[:: max(1, len(pictures) // count)])


def check_kept(counts: Mapping[str, int], source: str | Path) -> None:
    """Raises DataError if no photograph was kept.

    Args:
        counts: how many were `kept`, and how many left out, by reason.
        source: of the photographs.
    """
    if not counts.get("kept"):
        raise DataError(
            f"photographs with a face in {source}",
            f"none that may be used: {dict(counts)}",
            "give others" + (", or skip_grey=false" if counts.get("grey") else ""),
        )


def _crop(
    path: Path, detector: Detector, margin: float, size: int, skip_grey: bool
) -> tuple[str, NDArray[np.uint8] | None]:
    try:
        rgb = read_image(path)
    except FaceReconError:
        return "unreadable", None
    if skip_grey and is_grey(rgb):
        return "grey", None
    found = detector.detect(rgb)
    if len(found) == 0:
        return "faceless", None
    box = found.boxes[0]
    if box[2] - box[0] < MIN_FACE_PX:
        return "tiny", None
    return "kept", crop_from_face_box(box, margin * CONTEXT, size).extract(rgb)


def label_photographs(
    pictures: NDArray[np.uint8] | Pictures, answer: Answer, mirror: Mirror, size: int
) -> list[Label | None]:
    """A teacher's answers for whole pictures, None where it contradicts itself.

    Args:
        pictures: (N, P, P, 3) uint8.
        answer: (B, S, S, 3) uint8 crops -> B labels.
        mirror: of the face model.
        size: S.
    """
    inner, outer = CropChange(zoom=1 / CONTEXT), CropChange(zoom=CONTEXT)
    affine = inner.affine(pictures.shape[1], size)
    labels: list[Label | None] = []
    for start in range(0, len(pictures), 32):
        crops = np.stack(
            [cv2.warpAffine(p, affine, (size, size)) for p in pictures[start : start + 32]]
        )
        straight = answer(crops)
        flipped = [mirror(v) for v in answer(np.ascontiguousarray(crops[:, :, ::-1]))]
        for a, b in zip(straight, flipped, strict=True):
            mean = Label(*((x + y) / 2 for x, y in zip(a, b, strict=True)))
            known = _disagreement(a, b) < MAX_DISAGREEMENT
            labels.append(outer.move(mean, mirror) if known else None)
    return labels


def _disagreement(a: Label, b: Label) -> float:
    """How far two answers lie apart, roughly, in crop sides: position, size and attitude."""
    offset = (
        np.abs(a.translation / a.translation[2] - b.translation / b.translation[2]).max() * 4.5
    )
    size = abs(np.log(a.translation[2] / b.translation[2])) * 0.35
    turn = rotation_from_vector(a.rotation).T @ rotation_from_vector(b.rotation)
    angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)) * 0.3
    return float(max(offset, size, angle))
