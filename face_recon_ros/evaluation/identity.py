"""`face-recon evaluate identity`: do identity coefficients distinguish people?"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.appearance import FaceEmbedder, FacePoints
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.types import Detections
from face_recon_ros.evaluation.chain import Estimate, Estimator, associate, largest
from face_recon_ros.evaluation.datasets import Sample, Skipped, images_by_name
from face_recon_ros.evaluation.metrics import Interval, roc_auc
from face_recon_ros.evaluation.stills import HERE, Execution, Still, StillBenchmark, score_samples

Array = NDArray[np.float64]
_MOST_PHOTOS = 6  # of each person
#: Picture and answer -> embedding of the face.
Look = Callable[[NDArray[np.uint8], Estimate], NDArray[np.floating]]


class EmbeddingLook:
    """The tracker's embedding, as a `Look` that other processes can be sent."""

    def __init__(self, model: MorphableModel) -> None:
        """Takes the face model of the answers."""
        self._points = FacePoints(model)

    def __call__(self, rgb: NDArray[np.uint8], estimate: Estimate) -> NDArray[np.float32]:
        """(E,) embedding."""
        points = self._points(estimate.coefficients, estimate.crop)
        return _embedder()(rgb, [points])[0]


@functools.cache
def _embedder() -> FaceEmbedder:
    return FaceEmbedder(threads=1)


_NAME = re.compile(r"(?P<person>.+)_\d+$")

PROTOCOL = {
    "name": "same or different person, by identity coefficients",
    "persons": "file names NAME_0001.jpg: several photographs of NAME",
    "face": "the detection over the middle of the picture (LFW), else the largest",
    "same_pairs": "all pairs of photographs of one person",
    "different_pairs": "as many random pairs of two persons",
    "score": "cosine of the coefficient vectors, mean over the set taken off; and -distance",
    "auc": "probability that a same pair scores above a different one, ties half",
    "interval": "bootstrap over persons",
}


class IdentityBenchmark(StillBenchmark[None]):
    """Identities of single pictures."""

    def __init__(self, look: Look | None = None) -> None:
        """Takes what makes an embedding of a picture's face, if that is measured, too."""
        self._look = look

    def truth(self, sample: Sample) -> None:
        """The picture needs none: its name says the person."""

    def choose(self, detections: Detections, truth: None, width: int, height: int) -> int | None:
        """The detection over the middle of the picture, else the largest."""
        middle = np.array([width / 3, height / 3, width * 2 / 3, height * 2 / 3])
        index = associate(detections, middle)
        return largest(detections) if index is None else index

    def score(self, still: Still[None]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The vectors of the face."""
        if still.estimate is None:
            return {}, {}
        row = still.estimate.coefficients
        kept = {
            "identity": row.identity[0].astype(np.float64),
            "albedo": row.albedo[0].astype(np.float64),
        }
        if self._look:
            kept["embedding"] = self._look(still.rgb, still.estimate).astype(np.float64)
        return {}, kept


def evaluate_identity(
    folder: str | Path,
    estimator: Estimator,
    look: Look | None = None,
    *,
    max_persons: int = 0,
    execution: Execution = HERE,
) -> dict[str, Any]:
    """Measures how well identity separates people.

    Args:
        folder: of NAME_NNNN.jpg.
        estimator: what is measured.
        look: makes an embedding of a picture's face, which is measured too (`embedding`).
        max_persons: random choice of so many people with two photographs or more; 0 takes all.
        execution: where pictures are worked on.

    Raises:
        DataError: fewer than two people with two found faces.
    """
    skipped = Skipped()
    rng = np.random.default_rng(0)
    samples = _choose(Path(folder), max_persons, rng, skipped)

    scored = score_samples(samples, IdentityBenchmark(look), estimator, skipped, execution)
    found = [s for s in scored if s.found]
    names = np.array([_person_of(s.sample.name) or s.sample.name for s in found])
    same, different = _pairs(names, rng)
    shape = np.stack([s.kept["identity"] for s in found])
    both = np.concatenate([shape, np.stack([s.kept["albedo"] for s in found])], axis=1)
    embedding: dict[str, Any] = {}
    if look:
        looks = np.stack([s.kept["embedding"] for s in found])
        embedding["embedding"] = _separation(looks, names, same, different, rng)
    return {
        "protocol": PROTOCOL,
        "count": len(scored),
        "missed": len(scored) - len(found),
        "persons": len(np.unique(names)),
        "same_pairs": len(same),
        "different_pairs": len(different),
        "identity": _separation(shape, names, same, different, rng),
        "identity_and_albedo": _separation(both, names, same, different, rng),
        **embedding,
        "skipped": skipped.as_json(),
    }


def _person_of(stem: str) -> str | None:
    match = _NAME.match(stem)
    return match["person"] if match else None


def _choose(
    root: Path, max_persons: int, rng: np.random.Generator, skipped: Skipped
) -> list[Sample]:
    if not root.is_dir():
        raise DataError(f"a folder of photographs at {root}", "no such folder", "check the path")
    people: dict[str, list[Path]] = {}
    for path in images_by_name(root, skipped).values():
        if person := _person_of(path.stem):
            people.setdefault(person, []).append(path)
    several = [paths for paths in people.values() if len(paths) > 1]
    if max_persons and len(several) > max_persons:
        chosen = np.sort(rng.choice(len(several), max_persons, replace=False))
        several = [several[i] for i in chosen]
    return [Sample(p.stem, p, {}) for paths in several for p in paths[:_MOST_PHOTOS]]


def _pairs(names: NDArray[np.str_], rng: np.random.Generator) -> tuple[Array, Array]:
    """(N, 2) index pairs of one person, and as many of two."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names.tolist()):
        groups.setdefault(name, []).append(i)
    same = np.array([pair for g in groups.values() for pair in combinations(g, 2)], np.intp)
    if len(groups) < 2 or len(same) == 0:
        raise DataError(
            "two people with two photographs each in which a face is found",
            f"{len(groups)} people in {len(names)} found faces",
            "name photographs NAME_0001.jpg, NAME_0002.jpg, ...",
        )
    drawn = rng.integers(0, len(names), (4 * len(same) + 16, 2))
    drawn = drawn[names[drawn[:, 0]] != names[drawn[:, 1]]]
    return same.reshape(-1, 2), drawn[: len(same)]


def _separation(
    vectors: Array,
    names: NDArray[np.str_],
    same: Array,
    different: Array,
    rng: np.random.Generator,
) -> dict[str, Any]:
    centred = vectors - vectors.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)

    def cosine(pairs: Array) -> Array:
        return np.asarray((unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1))

    def closeness(pairs: Array) -> Array:
        return -np.linalg.norm(vectors[pairs[:, 0]] - vectors[pairs[:, 1]], axis=1)

    within = np.linalg.norm(vectors[same[:, 0]] - vectors[same[:, 1]], axis=1)
    between = np.linalg.norm(vectors[different[:, 0]] - vectors[different[:, 1]], axis=1)
    return {
        "auc_cosine": roc_auc(cosine(same), cosine(different)),
        "auc_cosine_interval_95": _interval(cosine, names, same, different, rng),
        "auc_distance": roc_auc(closeness(same), closeness(different)),
        "within_person_distance": float(within.mean()),
        "between_person_distance": float(between.mean()),
    }


def _interval(
    score: Any, names: NDArray[np.str_], same: Array, different: Array, rng: np.random.Generator
) -> Interval:
    """Bootstrap over persons: all pairs of a person are drawn together."""
    a, b = score(same), score(different)
    _, person = np.unique(names, return_inverse=True)
    n = int(person.max()) + 1
    draws = []
    for _ in range(300):
        times = np.bincount(rng.integers(0, n, n), minlength=n)
        s = np.repeat(a, times[person[same[:, 0]]])
        d = np.repeat(b, times[person[different[:, 0]]] * times[person[different[:, 1]]])
        draws.append(roc_auc(s, d))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(roc_auc(a, b), float(low), float(high))
