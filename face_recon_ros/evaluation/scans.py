"""True neutral faces, and how far a face of the model is from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.alignment import Similarity, align_points
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.surface import Surface, align_to_surface, facial_region
from face_recon_ros.evaluation.datasets import read_landmarks
from face_recon_ros.evaluation.metrics import INNER, skill
from face_recon_ros.fitting.scan import fit_scan, fit_vertices
from face_recon_ros.io.meshes import UNITS_M, read_mesh

Array = NDArray[np.float64]

_ALIGNMENT_POINTS = 2000

#: Parts of the face that are scored apart, as REALY does (Chai et al. 2022): nearest landmarks
#: decide.
REGIONS = {
    "nose": np.arange(27, 36),
    "mouth": np.arange(48, 68),
    "eyes_forehead": np.concatenate([np.arange(17, 27), np.arange(36, 48)]),
    "cheeks_jaw": np.arange(0, 17),
}


@dataclass(frozen=True)
class Scan:
    """A true neutral face.

    Attributes:
        points: (N, 3) millimetres, facial region only.
        landmarks: (68, 3) millimetres, same frame.
        region: (N,) index into `REGIONS`.
        vertices: (V, 3) millimetres, the whole mesh.
        triangles: (F, 3) of the mesh.
    """

    points: Array
    landmarks: Array
    region: NDArray[np.intp]
    vertices: Array
    triangles: NDArray[np.int32]


def read_scan(mesh_path: Path, landmarks_path: Path, unit: str = "mm") -> Scan:
    """Reads a scan and cuts it to the facial region.

    Args:
        mesh_path: OBJ or PLY.
        landmarks_path: `.pts3d`, 68 lines of "x y z", same unit and frame.
        unit: of `UNITS_M`.

    Raises:
        DataError: unreadable, or no scan point near the landmarks.
    """
    mm = 1000 * UNITS_M[unit]
    landmarks = read_landmarks(landmarks_path, 3) * mm
    mesh = read_mesh(mesh_path)
    vertices = np.asarray(mesh.vertices, np.float64) * mm
    points = vertices[np.isfinite(vertices).all(axis=1)]
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
    return Scan(points, landmarks, region[nearest], vertices, mesh.triangles)


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
    """As REALY: each region of the scan is aligned separately, independent of the others.

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


@dataclass(frozen=True)
class Measured:
    """How far one neutral face is from a scan.

    Attributes:
        free: (N,) millimetres, scan points to the surface, scale free.
        metrical: (N,) the same at the face's own size.
        landmark_mm: mean distance of the 51 inner landmarks after similarity.
        corresponding_mm: mean distance of the facial skin's vertices after similarity; NaN unless
            the scan has the model's topology.
        scan_from_mesh: the scale-free alignment.
    """

    free: Array
    metrical: Array
    landmark_mm: float
    corresponding_mm: float
    scan_from_mesh: Similarity


def measured_of(fields: Mapping[str, Any]) -> Measured:
    """`Measured` again, after `dataclasses.asdict`."""
    moved = Similarity(**fields["scan_from_mesh"])
    return Measured(**{**fields, "scan_from_mesh": moved})


class ScanJudge:
    """Measures faces of the model against scans, and knows the best and the emptiest of them."""

    def __init__(
        self, model: MorphableModel, fine_triangles: NDArray[np.int32] | None = None
    ) -> None:
        """Prepares.

        Args:
            model: whole head, coarse.
            fine_triangles: of its fine level, whose first vertices are the coarse ones.
        """
        self.model = model
        self._fine = fine_triangles
        self._skin = model.subsets[FACIAL_SKIN]

    def corresponding(self, scan: Scan) -> Array | None:
        """(V, 3) millimetres: the model's vertices on the scan, where it has its topology."""
        for triangles in (self.model.triangles, self._fine):
            if triangles is not None and np.array_equal(scan.triangles, triangles):
                return scan.vertices[: self.model.n_vertices]
        return None

    def measure(self, neutral: ArrayLike, scan: Scan) -> Measured:
        """Scores a (V, 3) neutral face, metres, against a scan."""
        vertices = np.asarray(neutral, np.float64) * 1000.0
        surface = Surface(vertices, self.model.triangles)
        marks = self.model.landmarks.of(vertices)
        free, scan_from_mesh = scan_distances(surface, marks, scan, metrical=False)
        middle = marks[INNER].mean(axis=0)  # stays where it is as the scale becomes one
        turned = scan_from_mesh.apply(middle) - scan_from_mesh.rotation @ middle
        start = Similarity(1.0, scan_from_mesh.rotation, turned)
        metrical, _ = _aligned_distances(surface, scan.points, start, with_scale=False)
        true = self.corresponding(scan)
        return Measured(
            free,
            metrical,
            _similar(marks[INNER], scan.landmarks[INNER]),
            float("nan") if true is None else _similar(vertices[self._skin], true[self._skin]),
            scan_from_mesh,
        )

    def mean_face(self, scan: Scan) -> Measured:
        """The answer that knows nothing."""
        return self.measure(self.model.mean_shape, scan)

    def floor(self, scan: Scan) -> Measured:
        """The best that the face model can say: itself fitted to the scan, at the scan's size."""
        true = self.corresponding(scan)
        if true is None:
            identity = fit_scan(self.model, scan.vertices / 1000, scan.landmarks / 1000).identity
        else:
            identity = fit_vertices(self.model, true / 1000, self._skin)
        return self.measure(self.model.neutral(identity), scan)


def _similar(ours: Array, true: Array) -> float:
    """Mean distance of corresponding points after similarity, at the true size."""
    moved = align_points(ours, true, with_scale=True).apply(ours)
    return float(np.linalg.norm(moved - true, axis=1).mean())


def figures(measured: Sequence[Measured]) -> dict[str, Any]:
    """Over the scan points of all faces together; means over faces where points correspond."""

    def mean(values: list[float]) -> float:
        known = [v for v in values if np.isfinite(v)]
        return float(np.mean(known)) if known else float("nan")

    return {
        **statistics([m.free for m in measured]),
        "metrical": statistics([m.metrical for m in measured]),
        "landmark_mm": mean([m.landmark_mm for m in measured]),
        "corresponding_mm": mean([m.corresponding_mm for m in measured]),
    }


def statistics(distances: Sequence[Array]) -> dict[str, float]:
    """Median, mean and standard deviation of pooled (N,) distances, millimetres."""
    pooled = np.concatenate([np.zeros(0), *distances])
    if pooled.size == 0:
        nan = float("nan")
        return {"median_mm": nan, "mean_mm": nan, "std_mm": nan}
    return {
        "median_mm": float(np.median(pooled)),
        "mean_mm": float(pooled.mean()),
        "std_mm": float(pooled.std()),
    }


def skills(
    mean_face: dict[str, Any], ours: dict[str, Any], floor: dict[str, Any]
) -> dict[str, float]:
    """`metrics.skill` of each of `figures`."""
    out = {
        name: skill(mean_face[name], ours[name], floor[name])
        for name in ("median_mm", "mean_mm", "landmark_mm", "corresponding_mm")
    }
    sides = (side["metrical"]["median_mm"] for side in (mean_face, ours, floor))
    return {**out, "metrical_median_mm": skill(*sides)}
