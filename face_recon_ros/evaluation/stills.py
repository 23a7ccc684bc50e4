"""Benchmarks of still pictures: one loop for all of them.

A benchmark reads the truth of a picture, chooses the annotated face among the detections, and
scores the answer. Pictures do not depend on each other, so that the loop may take them in any
process; what concerns all of them is the benchmark's summary.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.types import Detections
from face_recon_ros.evaluation.chain import Estimate, Estimator, View, largest
from face_recon_ros.evaluation.datasets import Sample, Skipped, camera_beside, read_stored_image
from face_recon_ros.io.jobs import Pool, run_jobs
from face_recon_ros.io.journal import Journal

Item = TypeVar("Item")
Truth = TypeVar("Truth")

#: So many pictures make up for the start of a process, which takes seconds.
WORTH_A_PROCESS = 64


@dataclass(frozen=True)
class Execution:
    """How items are worked on.

    Attributes:
        pool: where; by itself in this process.
        journal: where finished items are kept, so that an interrupted evaluation goes on.
        bar: show a progress bar.
    """

    pool: Pool = field(default_factory=lambda: Pool(1))
    journal: Journal | None = None
    bar: bool = False


HERE = Execution()


def run_stills(
    items: Mapping[str, Item],
    score: Callable[[Item], Any],
    skipped: Skipped,
    execution: Execution = HERE,
    *,
    what: str = "pictures",
    worth: int = WORTH_A_PROCESS,
    wanted: str = "",
) -> dict[str, Any]:
    """Scores every item; one that cannot be used is noted and left out.

    Args:
        items: name -> picture, or all pictures of one person.
        score: see `StillScorer`. Its answer depends on the item alone, and is what JSON can hold,
            with arrays in it.
        skipped: receives what cannot be used, and why.
        execution: where the items are worked on.
        what: the items are, for the progress bar.
        worth: see `Pool.count`.
        wanted: what an item must be. Empty: having none at all is no error here.

    Returns:
        Name -> score, in the order of the items.

    Raises:
        DataError: no item could be used.
    """
    outcomes = run_jobs(
        score,
        items,
        execution.pool,
        what=what if execution.bar else "",
        worth=worth,
        journal=execution.journal,
    )
    for outcome in outcomes:
        if outcome.fault:
            skipped.add(outcome.key, outcome.fault)
    scores = {o.key: o.value for o in outcomes if not o.fault}
    if wanted and not scores:
        reasons = "; ".join(f"{k}: {v}" for k, v in [*skipped.reasons.items()][:3])
        raise DataError(
            f"at least one {wanted}",
            f"{len(skipped.reasons)} files, none usable",
            f"see the reasons: {reasons}",
        )
    return scores


@dataclass(frozen=True)
class Still(Generic[Truth]):
    """A picture, its truth, and the answer.

    Attributes:
        sample: where it comes from.
        truth: what the benchmark read.
        rgb: (H, W, 3) uint8.
        box: (4,) detected face box, pixels; None: the annotated face was missed.
        camera: that took it, known or assumed.
        estimate: None where `box` is None.
        seconds: that the estimate took.
    """

    sample: Sample
    truth: Truth
    rgb: NDArray[np.uint8]
    box: NDArray[np.float32] | None
    camera: PinholeCamera
    estimate: Estimate | None
    seconds: float


@dataclass(frozen=True)
class Scored:
    """What one picture adds to a result.

    Attributes:
        sample: the picture.
        found: whether its face was.
        figures: what the result says of this picture.
        kept: what only the summary needs; both are what JSON can hold, with arrays in it.
    """

    sample: Sample
    found: bool
    figures: dict[str, Any]
    kept: dict[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """Of the result's `per_image`."""
        return {
            "name": self.sample.name,
            "image": self.sample.image.name,
            "found": self.found,
            **self.figures,
        }


class StillBenchmark(ABC, Generic[Truth]):
    """What differs between benchmarks of still pictures."""

    @abstractmethod
    def truth(self, sample: Sample) -> Truth:
        """Reads the annotation.

        Raises:
            DataError: it cannot be used.
        """

    def choose(self, detections: Detections, truth: Truth, width: int, height: int) -> int | None:
        """Index of the annotated face's detection; without an override the largest."""
        return largest(detections)

    def camera(self, sample: Sample, truth: Truth, width: int, height: int) -> PinholeCamera:
        """The picture's camera: that of a NAME.json beside it, else of the default field of view.

        Raises:
            DataError: NAME.json has a camera that cannot be this picture's.
        """
        known = camera_beside(sample.image, width, height)
        return known or PinholeCamera.from_fov(width, height, whole=False)

    @abstractmethod
    def score(self, still: Still[Truth]) -> tuple[dict[str, Any], dict[str, Any]]:
        """`figures` and `kept` of `Scored`; asked of missed faces, too."""


@dataclass(frozen=True)
class StillScorer(Generic[Truth]):
    """Scores one picture by a benchmark, for `run_stills`."""

    benchmark: StillBenchmark[Truth]
    estimator: Estimator

    def __call__(self, sample: Sample) -> dict[str, Any]:
        """Reads, detects, chooses, estimates and scores; the fields of `Scored`.

        Raises:
            FaceReconError: picture or annotation cannot be used.
        """
        truth = self.benchmark.truth(sample)
        rgb = read_stored_image(sample.image)
        height, width = rgb.shape[:2]
        detections = self.estimator.detect(rgb)
        index = self.benchmark.choose(detections, truth, width, height)
        box = None if index is None else detections.boxes[index]
        camera = self.benchmark.camera(sample, truth, width, height)
        began = time.perf_counter()
        estimate = None if box is None else self.estimator.estimate([View(rgb, box, camera)])
        seconds = time.perf_counter() - began
        still = Still(sample, truth, rgb, box, camera, estimate, seconds)
        figures, kept = self.benchmark.score(still)
        return {"found": box is not None, "figures": figures, "kept": kept}


def score_samples(
    samples: list[Sample],
    benchmark: StillBenchmark[Any],
    estimator: Estimator,
    skipped: Skipped,
    execution: Execution = HERE,
    *,
    worth: int = WORTH_A_PROCESS,
    wanted: str = "",
) -> list[Scored]:
    """`run_stills` over pictures on disk."""
    by_name = {sample.name: sample for sample in samples}
    scorer = StillScorer(benchmark, estimator)
    scores = run_stills(by_name, scorer, skipped, execution, worth=worth, wanted=wanted)
    return [Scored(by_name[name], **score) for name, score in scores.items()]
