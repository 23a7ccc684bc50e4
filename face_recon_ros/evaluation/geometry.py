"""`face-recon evaluate geometry`: neutral shape against scans, as NoW (Sanyal et al. 2019).

Beside every figure stands that of the mean face, which an answer that knows nothing has, and that
of the face model itself fitted to the scan, which no answer can beat: without them a distance to
the nearest surface says little, as all faces lie near each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import DEFAULT_HORIZONTAL_FOV_DEG, PinholeCamera
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.surface import Surface
from face_recon_ros.evaluation.chain import Estimate, Estimator, batches, largest, prefetched
from face_recon_ros.evaluation.datasets import (
    Sample,
    Skipped,
    list_samples,
    read_image,
    readable,
)
from face_recon_ros.evaluation.metrics import bootstrap
from face_recon_ros.evaluation.output import Progress, no_progress
from face_recon_ros.evaluation.scans import (
    REGIONS,
    Measured,
    Scan,
    ScanJudge,
    figures,
    read_scan,
    region_distances,
    skills,
    statistics,
)

BATCH = 8

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
    "regions": "as REALY, each aligned anew (rigidly, at the scale of the whole face); nearest "
    "landmarks decide which points belong",
}


@dataclass(frozen=True)
class _View:
    """One image with its truth."""

    sample: Sample
    person: str
    scan: Scan
    rgb: NDArray[np.uint8]
    box: NDArray[np.float32] | None
    camera: PinholeCamera


@dataclass
class _Person:
    """Whom one scan shows, and in which images a face was found."""

    scan: Scan
    mean_face: Measured
    floor: Measured | None
    found: list[tuple[Path, NDArray[np.float32], PinholeCamera]] = field(default_factory=list)


def evaluate_geometry(
    folder: str | Path,
    estimator: Estimator,
    model: MorphableModel,
    *,
    unit: str = "mm",
    fov_deg: float = DEFAULT_HORIZONTAL_FOV_DEG,
    floor: bool = True,
    fine_triangles: NDArray[np.int32] | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures neutral shape over a folder of NAME.jpg + NAME.ply + NAME.pts3d.

    Args:
        folder: see `datasets.list_samples`.
        estimator: what is measured.
        model: whole head, coarse.
        unit: of scans and their landmarks.
        fov_deg: horizontal field of view assumed for every photograph.
        floor: fit the face model to every scan; the slowest part.
        fine_triangles: of the face model's fine level, to know scans of that topology too.
        progress: called as images are done.

    Returns:
        The result, see docs/evaluation.md: count, median_mm, mean_mm, std_mm, metrical,
        mean_face, floor, skill, people, per_image.

    Raises:
        DataError: nothing to evaluate.
    """
    skipped = Skipped()
    samples = list_samples(folder, (".ply", ".pts3d"), skipped)

    def load(sample: Sample) -> _View:
        files = [sample.annotations[suffix] for suffix in (".ply", ".pts3d")]
        person = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
        scan = read_scan(files[0], files[1], unit)
        rgb = read_image(sample.image)
        detections = estimator.detect(rgb)
        index = largest(detections)
        box = None if index is None else detections.boxes[index]
        camera = PinholeCamera.from_fov(rgb.shape[1], rgb.shape[0], fov_deg)
        return _View(sample, person, scan, rgb, box, camera)

    bench = _Bench(ScanJudge(model, fine_triangles), estimator, floor)
    loaded = prefetched(readable(samples, load, skipped), lambda pair: pair[1], ahead=2 * BATCH)
    for batch in batches(loaded, BATCH):
        for view, estimate in _estimated(batch, estimator):
            bench.add(view, estimate)
            progress(len(bench.per_image) + len(skipped.reasons), len(samples))
    if not bench.per_image:
        reasons = "; ".join(f"{k}: {v}" for k, v in [*skipped.reasons.items()][:3])
        raise DataError(
            "at least one readable image with scan and landmarks",
            f"{len(skipped.reasons)} samples, none usable",
            f"see the reasons: {reasons}",
        )
    return {**bench.result(), "skipped": skipped.as_json(), "per_image": bench.per_image}


def _estimated(batch: list[_View], estimator: Estimator) -> list[tuple[_View, Estimate | None]]:
    found = [(v.rgb, v.box, v.camera) for v in batch if v.box is not None]
    estimates = iter(estimator.estimate(found))
    return [(v, None if v.box is None else next(estimates)) for v in batch]


class _Bench:
    """Scores image by image, then person by person."""

    def __init__(self, judge: ScanJudge, estimator: Estimator, with_floor: bool) -> None:
        self._judge = judge
        self._estimator = estimator
        self._with_floor = with_floor
        self._people: dict[str, _Person] = {}
        self._ours: list[tuple[Measured, _Person]] = []
        self._apart: list[NDArray[np.float64]] = []
        self.per_image: list[dict[str, Any]] = []

    def add(self, view: _View, estimate: Estimate | None) -> None:
        """Scores one image; no estimate: its face was missed."""
        entry: dict[str, Any] = {
            "name": view.sample.name,
            "image": view.sample.image.name,
            "found": estimate is not None,
        }
        self.per_image.append(entry)
        if estimate is None or view.box is None:
            return
        person = self._person(view)
        person.found.append((view.sample.image, view.box, view.camera))
        ours = self._measure(estimate, view.scan)
        vertices = self._judge.model.neutral(estimate.coefficients.identity[0])
        self._apart.append(self._regions(vertices, view.scan, ours))
        self._ours.append((ours, person))
        entry.update(figures([ours]))
        entry["mean_face_median_mm"] = float(np.median(person.mean_face.free))
        if person.floor is not None:
            entry["floor_median_mm"] = float(np.median(person.floor.free))

    def _person(self, view: _View) -> _Person:
        if view.person not in self._people:
            floor = self._judge.floor(view.scan) if self._with_floor else None
            person = _Person(view.scan, self._judge.mean_face(view.scan), floor)
            self._people[view.person] = person
        return self._people[view.person]

    def _measure(self, estimate: Estimate, scan: Scan) -> Measured:
        neutral = self._judge.model.neutral(estimate.coefficients.identity[0])
        return self._judge.measure(neutral, scan)

    def result(self) -> dict[str, Any]:
        """All figures but those of single images."""
        found = [e for e in self.per_image if e["found"]]
        region_of = np.concatenate(
            [np.zeros(0, np.intp), *(person.scan.region for _, person in self._ours)]
        )
        apart = np.concatenate([np.zeros(0), *self._apart])
        compared = _compared(self._ours)
        ours = compared.pop("ours")
        ours["metrical"]["median_mm_interval_95"] = _interval(
            found, lambda e: e["metrical"]["median_mm"]
        )
        return {
            "protocol": PROTOCOL,
            "count": len(self.per_image),
            "missed": len(self.per_image) - len(found),
            **ours,
            "median_mm_interval_95": _interval(found, lambda e: e["median_mm"]),
            **compared,
            "people": self._tracks(),
            "regions": {
                name: statistics([apart[region_of == i]]) for i, name in enumerate(REGIONS)
            },
        }

    def _tracks(self) -> dict[str, Any]:
        """All images of each person as one track; those with one image are left out."""
        tracks = []
        several = [person for person in self._people.values() if len(person.found) > 1]
        for person in several:
            views = [(read_image(path), box, camera) for path, box, camera in person.found]
            estimate = self._estimator.estimate_person(views)
            tracks.append((self._measure(estimate, person.scan), person))
        images = sum(len(person.found) for person in several)
        return {"count": len(several), "images": images, **(_compared(tracks) if tracks else {})}

    def _regions(
        self, neutral: NDArray[np.float32], scan: Scan, ours: Measured
    ) -> NDArray[np.float64]:
        surface = Surface(neutral.astype(np.float64) * 1000.0, self._judge.model.triangles)
        return region_distances(surface, scan, ours.scan_from_mesh)


def _compared(scored: list[tuple[Measured, _Person]]) -> dict[str, Any]:
    """Figures of ours, of the mean face, of the floor where there is one, and the skill."""
    ours = figures([measured for measured, _ in scored])
    mean_face = figures([person.mean_face for _, person in scored])
    floors = [person.floor for _, person in scored if person.floor is not None]
    out = {"ours": ours, "mean_face": mean_face}
    if floors and len(floors) == len(scored):
        floor = figures(floors)
        out |= {"floor": floor, "skill": skills(mean_face, ours, floor)}
    return out


def _interval(entries: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> Any:
    """Of the mean over images of the images' medians; images are the independent draws."""
    return bootstrap([value(e) for e in entries])
