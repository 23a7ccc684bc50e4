"""Unlabelled photographs: faces found and cropped with the code of inference, kept in a cache.

No annotation is read, only pixels. What the network should answer for a photograph comes from a
teacher: the
averaged network itself (`label_photographs`), asked for the photograph and its mirror image.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_recon_ros.core.crop import crop_from_face_box
from face_recon_ros.core.detection import Detector
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import rotation_from_vector
from face_recon_ros.training.synthesis.augment import CropChange, Mirror
from face_recon_ros.training.synthesis.faces import CONTEXT, Label

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MIN_FACE_PX = 32
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
        lines = source.read_text().splitlines()
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
    """Who is shown, where file names tell (`Name_0001.jpg`), else the file itself."""
    return re.sub(r"[_-]\d+$", "", path.stem)


class PhotographCache:
    """Crops of photographs in a memory-mapped file; one writer, any number of readers."""

    def __init__(self, folder: str | Path) -> None:
        """Opens the cache in `folder`; it may not exist yet."""
        self._folder = Path(folder)
        self._images: NDArray[np.uint8] | None = None
        self._labels: NDArray[np.float32] | None = None
        self._sizes: tuple[int, ...] = ()
        self._numbers: list[int] = []
        self._refresh()

    @property
    def _index(self) -> Path:
        return self._folder / "index.jsonl"

    def _refresh(self) -> None:
        if self._images is None and (self._folder / "images.npy").is_file():
            self._images = np.load(self._folder / "images.npy", mmap_mode="r")
        if self._labels is None and (self._folder / "labels.npy").is_file():
            self._labels = np.load(self._folder / "labels.npy", mmap_mode="r")
            self._sizes = tuple(json.loads((self._folder / "sizes.json").read_text()))
            people = self.people()
            number = {name: i for i, name in enumerate(dict.fromkeys(people))}
            self._numbers = [number[name] for name in people]

    def build(
        self, source: str | Path, detector: Detector, *, margin: float, size: int, skip_grey: bool
    ) -> Counter[str]:
        """Finds and crops faces; goes on where an interrupted call stopped.

        Args:
            source: see `list_photographs`.
            detector: finds faces; the best one of each photograph is taken.
            margin: side of the network's crop over the face box; `CONTEXT` of it is kept.
            size: P, pixels per side.
            skip_grey: photographs without colour are left out.

        Returns:
            How many were `kept`, `unreadable`, `grey`, `faceless`, `tiny`.
        """
        paths = list_photographs(source)
        self._folder.mkdir(parents=True, exist_ok=True)
        shape = (len(paths), size, size, 3)
        file = self._folder / "images.npy"
        images = np.load(file, mmap_mode="r+") if file.is_file() else None
        done: dict[str, str] = {}
        if images is not None and images.shape == shape and self._index.is_file():
            for line in self._index.read_text().splitlines():
                entry = json.loads(line)
                done[entry["path"]] = entry["outcome"]
        else:
            images = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
            self._index.unlink(missing_ok=True)
        counts: Counter[str] = Counter(done.values())
        slot = counts["kept"]
        with self._index.open("a") as index:
            for path in tqdm(paths, desc="photographs", unit="img", disable=None):
                if str(path) in done:
                    continue
                outcome, crop = _crop(path, detector, margin, size, skip_grey)
                if crop is not None:
                    images[slot] = crop
                    slot += 1
                counts[outcome] += 1
                entry = {"path": str(path), "outcome": outcome, "person": person_of(path)}
                index.write(json.dumps(entry) + "\n")
                index.flush()
        images.flush()
        self._images = None
        self._refresh()
        return counts

    def __len__(self) -> int:
        return len(self.people())

    def people(self) -> list[str]:
        """Who is shown on each kept photograph."""
        if not self._index.is_file():
            return []
        entries = (json.loads(line) for line in self._index.read_text().splitlines())
        return [e["person"] for e in entries if e["outcome"] == "kept"]

    def labelled(self) -> bool:
        """Whether a teacher has answered."""
        self._refresh()
        return self._labels is not None

    def pictures(self) -> NDArray[np.uint8]:
        """(N, P, P, 3) kept photographs, `CONTEXT` crops wide."""
        if self._images is None:
            return np.zeros((0, 1, 1, 3), np.uint8)
        return self._images[: len(self)]

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
        assert self._labels is not None and self._images is not None
        while True:
            i = int(random.integers(len(self._labels)))
            row = np.array(self._labels[i])
            if row[0] > 0:
                break
        k_identity, k_expression, k_albedo = self._sizes
        ends = np.cumsum([k_identity, k_expression, k_albedo, 3, 3])
        parts = np.split(row[1:], ends)
        parts[5] = parts[5].reshape(9, 3)
        return np.array(self._images[i]), Label(*parts), self._numbers[i]

    def patches(self, count: int) -> list[NDArray[np.uint8]]:
        """Some of the pictures, for backgrounds."""
        pictures = self.pictures()
        return [np.array(p) for p in pictures[:: max(1, len(pictures) // count)]]


def _crop(
    path: Path, detector: Detector, margin: float, size: int, skip_grey: bool
) -> tuple[str, NDArray[np.uint8] | None]:
    try:
        data = np.fromfile(path, np.uint8)
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        bgr = None
    if bgr is None:
        return "unreadable", None
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
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
    pictures: NDArray[np.uint8], answer: Answer, mirror: Mirror, size: int
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
