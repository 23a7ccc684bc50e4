"""`face-recon evaluate geometry`: neutral shape against scans, as NoW (Sanyal et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.alignment import Similarity, align_points
from face_recon_ros.core.camera import DEFAULT_HORIZONTAL_FOV_DEG, PinholeCamera
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.surface import Surface, align_to_surface, facial_region
from face_recon_ros.evaluation.chain import Estimator, batches, largest, prefetched
from face_recon_ros.evaluation.datasets import (
    Sample,
    Skipped,
    list_samples,
    read_image,
    read_landmarks,
    readable,
)
from face_recon_ros.evaluation.metrics import INNER, bootstrap
from face_recon_ros.evaluation.output import Progress, no_progress
from face_recon_ros.io.meshes import read_mesh

Array = NDArray[np.float64]

BATCH = 8
UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
_ALIGNMENT_POINTS = 2000

#: Parts of the face that are scored apart, as REALY does (Chai et al. 2022): nearest landmarks
#: decide.
REGIONS = {
    "nose": np.arange(27, 36),
    "mouth": np.arange(48, 68),
    "eyes_forehead": np.concatenate([np.arange(17, 27), np.arange(36, 48)]),
    "cheeks_jaw": np.arange(0, 17),
}

PROTOCOL = {
    "name": "scan to mesh, NoW style",
    "region": "scan points within 1.2 x mean(outer eye distance, nose length) of the nose",
    "alignment": "51 inner landmarks, then point-to-surface least squares over the region",
    "non_metrical": "similarity (scale estimated); the figures at top level",
    "metrical": "rigid (the prediction's own size)",
    "distance": "each scan point to the nearest point of the predicted surface, millimetres",
    "face": "the largest detection",
    "statistics": "over the scan points of all images together, as NoW's cumulative curve",
    "regions": "as REALY, each aligned anew (rigidly, at the scale of the whole face); nearest "
    "landmarks decide which points belong",
}


@dataclass(frozen=True)
class Scan:
    """A true neutral face.

    Attributes:
        points: (N, 3) millimetres, facial region only.
        landmarks: (68, 3) millimetres, same frame.
        region: (N,) index into `REGIONS`.
    """

    points: Array
    landmarks: Array
    region: NDArray[np.intp]


def read_scan(mesh_path: Path, landmarks_path: Path, unit: str = "mm") -> Scan:
    """Reads a scan and cuts it to the facial region.

    Args:
        mesh_path: OBJ or PLY.
        landmarks_path: `.pts3d`, 68 lines of "x y z", same unit and frame.
        unit: `mm`, `cm` or `m`.

    Raises:
        DataError: unreadable, or no scan point near the landmarks.
    """
    landmarks = read_landmarks(landmarks_path, 3) * UNITS_MM[unit]
    points = np.asarray(read_mesh(mesh_path).vertices, np.float64) * UNITS_MM[unit]
    points = points[np.isfinite(points).all(axis=1)]
    points = points[facial_region(points, landmarks)]
    if len(points) < 100:
        raise DataError(
            "a hundred scan points around the landmarks at least",
            f"{len(points)} in {mesh_path.name}",
            "check that mesh and landmarks share unit and frame",
        )
    nearest = ((landmarks**2).sum(axis=1) - 2 * points @ landmarks.T).argmin(axis=1)
    region = np.zeros(68, np.intp)
    for i, indices in enumerate(REGIONS.values()):
        region[indices] = i
    return Scan(points, landmarks, region[nearest])


def scan_distances(
    surface: Surface, landmarks: Array, scan: Scan, *, metrical: bool
) -> tuple[Array, Similarity]:
    """Distance of each scan point to a predicted neutral face, after alignment.

    Args:
        surface: predicted, millimetres.
        landmarks: (68, 3) of the prediction, millimetres, same frame.
        scan: the truth.
        metrical: keep the prediction's size.

    Returns:
        (N,) millimetres, and the alignment `scan_from_mesh`.
    """
    start = align_points(landmarks[INNER], scan.landmarks[INNER], with_scale=not metrical)
    return _aligned_distances(surface, scan.points, start, with_scale=not metrical)


def region_distances(surface: Surface, scan: Scan, scan_from_mesh: Similarity) -> Array:
    """As REALY: each region of the scan is aligned anew, so that none pays for another.

    Args:
        surface: predicted, millimetres.
        scan: the truth.
        scan_from_mesh: of the whole face; its scale stays.

    Returns:
        (N,) millimetres.
    """
    distances = np.zeros(len(scan.points))
    for i in np.unique(scan.region):
        own = scan.region == i
        distances[own], _ = _aligned_distances(
            surface, scan.points[own], scan_from_mesh, with_scale=False
        )
    return distances


def _aligned_distances(
    surface: Surface, points: Array, scan_from_mesh: Similarity, *, with_scale: bool
) -> tuple[Array, Similarity]:
    step = max(1, len(points) // _ALIGNMENT_POINTS)
    moved, distances = align_to_surface(
        surface, points[::step], scan_from_mesh, with_scale=with_scale
    )
    if step > 1:
        distances = surface.nearest(moved.inverse().apply(points)).distance * moved.scale
    return distances, moved


def evaluate_geometry(
    folder: str | Path,
    estimator: Estimator,
    model: MorphableModel,
    *,
    unit: str = "mm",
    fov_deg: float = DEFAULT_HORIZONTAL_FOV_DEG,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures neutral shape over a folder of NAME.jpg + NAME.ply + NAME.pts3d.

    Args:
        folder: see `datasets.list_samples`.
        estimator: what is measured.
        model: whole head.
        unit: of scans and their landmarks.
        fov_deg: horizontal field of view assumed for every photograph.
        progress: called as images are done.

    Returns:
        The result, see docs/evaluation.md: count, median_mm, mean_mm, std_mm, metrical, per_image.

    Raises:
        DataError: nothing to evaluate.
    """
    skipped = Skipped()
    samples = list_samples(folder, (".ply", ".pts3d"), skipped)

    def load(sample: Sample) -> tuple[Any, ...]:
        scan = read_scan(sample.annotations[".ply"], sample.annotations[".pts3d"], unit)
        rgb = read_image(sample.image)
        detections = estimator.detect(rgb)
        index = largest(detections)
        box = None if index is None else detections.boxes[index]
        return sample, scan, rgb, box, PinholeCamera.from_fov(rgb.shape[1], rgb.shape[0], fov_deg)

    per_image: list[dict[str, Any]] = []
    pooled: list[tuple[Array, Array, Array]] = []
    regions: list[NDArray[np.intp]] = []
    loaded = prefetched(readable(samples, load, skipped), lambda pair: pair[1], ahead=2 * BATCH)
    for batch in batches(loaded, BATCH):
        found = [item for item in batch if item[3] is not None]
        estimates = iter(estimator.estimate([(rgb, box, cam) for _, _, rgb, box, cam in found]))
        for sample, scan, _, box, _ in batch:
            entry: dict[str, Any] = {
                "name": sample.name,
                "image": sample.image.name,
                "found": box is not None,
            }
            if box is not None:
                neutral = model.neutral(next(estimates).coefficients.identity[0])
                vertices = neutral.astype(np.float64) * 1000.0
                surface, marks = Surface(vertices, model.triangles), vertices[model.landmarks_68]
                free, scan_from_mesh = scan_distances(surface, marks, scan, metrical=False)
                metric, _ = scan_distances(surface, marks, scan, metrical=True)
                entry.update({**_statistics(free), "metrical": _statistics(metric)})
                pooled.append((free, metric, region_distances(surface, scan, scan_from_mesh)))
                regions.append(scan.region)
            per_image.append(entry)
            progress(len(per_image) + len(skipped.reasons), len(samples))
    if not per_image:
        reasons = "; ".join(f"{k}: {v}" for k, v in [*skipped.reasons.items()][:3])
        raise DataError(
            "at least one readable image with scan and landmarks",
            f"{len(skipped.reasons)} samples, none usable",
            f"see the reasons: {reasons}",
        )
    found_entries = [e for e in per_image if e["found"]]
    free, metric, apart = (_pool([p[k] for p in pooled]) for k in range(3))
    region_of = np.concatenate([np.zeros(0, np.intp), *regions])
    return {
        "protocol": PROTOCOL,
        "count": len(per_image),
        "missed": len(per_image) - len(found_entries),
        **_statistics(free),
        "median_mm_interval_95": _interval(found_entries, lambda e: e["median_mm"]),
        "regions": {name: _statistics(apart[region_of == i]) for i, name in enumerate(REGIONS)},
        "metrical": {
            **_statistics(metric),
            "median_mm_interval_95": _interval(
                found_entries, lambda e: e["metrical"]["median_mm"]
            ),
        },
        "skipped": skipped.as_json(),
        "per_image": per_image,
    }


def _pool(parts: list[Array]) -> Array:
    return np.concatenate([np.zeros(0), *parts])


def _interval(entries: list[dict[str, Any]], value: Any) -> Any:
    """Of the mean over images of the images' medians; images are the independent draws."""
    return bootstrap([value(e) for e in entries])


def _statistics(distances: Array) -> dict[str, float]:
    if distances.size == 0:
        nan = float("nan")
        return {"median_mm": nan, "mean_mm": nan, "std_mm": nan}
    return {
        "median_mm": float(np.median(distances)),
        "mean_mm": float(distances.mean()),
        "std_mm": float(distances.std()),
    }
