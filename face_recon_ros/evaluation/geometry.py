"""`face-recon evaluate geometry`: neutral shape against scans, as NoW (Sanyal et al. 2019).

Beside every figure stands that of the mean face, which an answer that knows nothing has, and that
of the face model itself fitted to the scan, which no answer can beat: without them a distance to
the nearest surface says little, as all faces lie near each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.surface import Surface
from face_recon_ros.evaluation.chain import Estimate, Estimator, View
from face_recon_ros.evaluation.datasets import Sample, Skipped, list_samples, read_stored_image
from face_recon_ros.evaluation.metrics import bootstrap
from face_recon_ros.evaluation.scans import (
    REGIONS,
    Measured,
    Scan,
    ScanJudge,
    figures,
    measured_of,
    read_scan,
    region_distances,
    skills,
    statistics,
)
from face_recon_ros.evaluation.stills import (
    HERE,
    Execution,
    Scored,
    Still,
    StillBenchmark,
    run_stills,
    score_samples,
)

#: A picture and the box of its face.
Found = tuple[Sample, NDArray[np.float32]]
#: Scans are measured so slowly.
_WORTH_A_PROCESS = 8

PROTOCOL = {
    "name": "scan to mesh, NoW style",
    "region": "scan points within 1.2 x mean(outer eye distance, nose length) of the nose",
    "alignment": "51 inner landmarks, then point-to-surface least squares over the region",
    "non_metrical": "similarity (scale estimated); the figures at top level",
    "metrical": "rigid (the prediction's own size), from the similarity's attitude",
    "distance": "each scan point to the nearest point of the predicted surface, millimetres",
    "landmark_mm": "mean distance of the 51 inner landmarks after similarity",
    "corresponding_mm": "mean distance of the facial skin's vertices after similarity, where the "
    "scan has the face model's topology; nearest points forgive what slides along the skin",
    "mean_face": "the same figures of the face model's mean: of an answer that knows nothing",
    "floor": "the same of the face model fitted to the scan (face-recon model fit): of the best "
    "answer there is",
    "skill": "(mean_face - ours) / (mean_face - floor): 0 the mean face, 1 the floor",
    "people": "images that share scan and landmarks, byte by byte, show one person; here all "
    "images of a person are reconstructed as one track, people with several images only",
    "face": "the largest detection",
    "statistics": "over the scan points of all images together, as NoW's cumulative curve",
    "regions": "as REALY, each aligned separately (rigidly, at the whole face's scale); nearest "
    "landmarks decide which points belong",
}


@dataclass(frozen=True)
class _Truth:
    person: str
    scan: Scan


@dataclass(frozen=True)
class GeometryBenchmark(StillBenchmark[_Truth]):
    """Neutral shape of single pictures.

    Attributes:
        judge: of the estimator's face model.
        unit: of scans and their landmarks.
    """

    judge: ScanJudge
    unit: str = "mm"

    def truth(self, sample: Sample) -> _Truth:
        """The scan, and a name for whom it shows."""
        mesh, landmarks = (sample.annotations[suffix] for suffix in (".ply", ".pts3d"))
        person = hashlib.sha256(mesh.read_bytes() + landmarks.read_bytes()).hexdigest()
        return _Truth(person, read_scan(mesh, landmarks, self.unit))

    def score(self, still: Still[_Truth]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Distances to the scan."""
        if still.estimate is None:
            return {}, {}
        scan = still.truth.scan
        ours = self.measure(still.estimate, scan)
        neutral = self.judge.model.neutral(still.estimate.coefficients.identity[0])
        surface = Surface(neutral.astype(np.float64) * 1000.0, self.judge.model.triangles)
        return figures([ours]), {
            "person": still.truth.person,
            "ours": asdict(ours),
            "apart": region_distances(surface, scan, ours.scan_from_mesh),
            "region": scan.region,
            "box": still.box,
        }

    def measure(self, estimate: Estimate, scan: Scan) -> Measured:
        """How far the neutral face of an answer is from a scan."""
        return self.judge.measure(
            self.judge.model.neutral(estimate.coefficients.identity[0]), scan
        )


@dataclass(frozen=True)
class Person:
    """What is known once all pictures of a person are.

    Attributes:
        mean_face: of the answer that knows nothing.
        floor: of the best answer; None where it was not asked for.
        track: of all pictures as one track; None where there is one only.
        pictures: in which the face was found.
    """

    mean_face: Measured
    floor: Measured | None
    track: Measured | None
    pictures: int


@dataclass(frozen=True)
class PersonScorer:
    """Scores the pictures of one person together, for `run_stills`."""

    benchmark: GeometryBenchmark
    estimator: Estimator
    with_floor: bool

    def __call__(self, views: Sequence[Found]) -> dict[str, Any]:
        """The fields of `Person`, of the pictures in which the face was found, at least one."""
        judge = self.benchmark.judge
        truth = self.benchmark.truth(views[0][0])
        track = None
        if len(views) > 1:
            seen = []
            for sample, box in views:
                rgb = read_stored_image(sample.image)
                camera = self.benchmark.camera(sample, truth, rgb.shape[1], rgb.shape[0])
                seen.append(View(rgb, box, camera))
            track = self.benchmark.measure(self.estimator.estimate(seen), truth.scan)
        floor = judge.floor(truth.scan) if self.with_floor else None
        return asdict(Person(judge.mean_face(truth.scan), floor, track, len(views)))


def evaluate_geometry(
    folder: str | Path,
    estimator: Estimator,
    model: MorphableModel,
    *,
    unit: str = "mm",
    floor: bool = True,
    fine_triangles: NDArray[np.int32] | None = None,
    execution: Execution = HERE,
) -> dict[str, Any]:
    """Measures neutral shape over a folder of NAME.jpg + NAME.ply + NAME.pts3d.

    Args:
        folder: see `datasets.list_samples`.
        estimator: what is measured.
        model: whole head, coarse.
        unit: of scans and their landmarks.
        floor: fit the face model to every scan; the slowest part.
        fine_triangles: of the face model's fine level, to know scans of that topology too.
        execution: where pictures are worked on.

    Returns:
        The result, see docs/evaluation.md: count, median_mm, mean_mm, std_mm, metrical,
        mean_face, floor, skill, people, per_image.

    Raises:
        DataError: nothing to evaluate.
    """
    skipped = Skipped()
    samples = list_samples(folder, (".ply", ".pts3d"), skipped)

    benchmark = GeometryBenchmark(ScanJudge(model, fine_triangles), unit)
    scored = score_samples(
        samples,
        benchmark,
        estimator,
        skipped,
        execution,
        worth=_WORTH_A_PROCESS,
        wanted="readable image with scan and landmarks",
    )
    views: dict[str, list[Found]] = {}
    for s in scored:
        if s.found:
            views.setdefault(s.kept["person"], []).append((s.sample, s.kept["box"]))
    known = run_stills(
        {_name(seen): seen for seen in views.values()},
        PersonScorer(benchmark, estimator, floor),
        skipped,
        execution,
        what="people",
        worth=_WORTH_A_PROCESS,
    )
    people = {
        key: _person(known[_name(seen)]) for key, seen in views.items() if _name(seen) in known
    }
    scored = [s for s in scored if not s.found or s.kept["person"] in people]
    result = _result(scored, people)
    return {**result, "skipped": skipped.as_json(), "per_image": [s.entry() for s in scored]}


def _name(views: Sequence[Found]) -> str:
    return "person of " + ", ".join(sample.name for sample, _ in views)


def _person(known: Mapping[str, Any]) -> Person:
    """Of what `PersonScorer` says."""
    measured = {key: known[key] and measured_of(known[key]) for key in known if key != "pictures"}
    return Person(**measured, pictures=known["pictures"])


def _result(scored: list[Scored], people: dict[str, Person]) -> dict[str, Any]:
    """All figures but those of single images, which get their person's."""
    found = [s for s in scored if s.found]
    for s in found:
        person = people[s.kept["person"]]
        s.figures["mean_face_median_mm"] = float(np.median(person.mean_face.free))
        if person.floor is not None:
            s.figures["floor_median_mm"] = float(np.median(person.floor.free))
    region_of = np.concatenate([np.zeros(0, np.intp), *(s.kept["region"] for s in found)])
    apart = np.concatenate([np.zeros(0), *(s.kept["apart"] for s in found)])
    compared = _compared([(measured_of(s.kept["ours"]), people[s.kept["person"]]) for s in found])
    ours = compared.pop("ours")
    # Of the mean over images of the images' medians; images are the independent draws.
    metrical = bootstrap([s.figures["metrical"]["median_mm"] for s in found])
    ours["metrical"]["median_mm_interval_95"] = metrical
    several = [(p.track, p) for p in people.values() if p.track is not None]
    return {
        "protocol": PROTOCOL,
        "count": len(scored),
        "missed": len(scored) - len(found),
        **ours,
        "median_mm_interval_95": bootstrap([s.figures["median_mm"] for s in found]),
        **compared,
        "people": {
            "count": len(several),
            "images": sum(person.pictures for _, person in several),
            **(_compared(several) if several else {}),
        },
        "regions": {name: statistics([apart[region_of == i]]) for i, name in enumerate(REGIONS)},
    }


def _compared(scored: list[tuple[Measured, Person]]) -> dict[str, Any]:
    """Figures of ours, of the mean face, of the floor where there is one, and the skill."""
    ours = figures([measured for measured, _ in scored])
    mean_face = figures([person.mean_face for _, person in scored])
    floors = [person.floor for _, person in scored if person.floor is not None]
    out = {"ours": ours, "mean_face": mean_face}
    if floors and len(floors) == len(scored):
        floor = figures(floors)
        out |= {"floor": floor, "skill": skills(mean_face, ours, floor)}
    return out
