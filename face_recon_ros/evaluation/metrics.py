"""The figures we report, each as a pure function of arrays.

Image points are (..., 2) pixels with pixel centres at integers; rotations (3, 3) matrices; angles
radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import rotation_from_vector, vector_from_rotation

Array = NDArray[np.float64]

N_LANDMARKS = 68
CONTOUR = np.arange(17)
INNER = np.arange(17, N_LANDMARKS)
OUTER_EYE_CORNERS = (36, 45)


# Landmarks ---------------------------------------------------------------------------------------


def interocular_distance(landmarks_68: ArrayLike) -> float:
    """Distance of the outer eye corners (36, 45): normalises 300-W (Sagonas et al. 2013)."""
    p = np.asarray(landmarks_68, np.float64)
    a, b = OUTER_EYE_CORNERS
    return float(np.linalg.norm(p[a] - p[b]))


def bounding_box_size(landmarks_68: ArrayLike) -> float:
    """Root of the landmarks' bounding box's area: normalises AFLW2000-3D (Zhu et al. 2016)."""
    p = np.asarray(landmarks_68, np.float64)
    return float(np.sqrt(np.prod(p.max(axis=0) - p.min(axis=0))))


def normalised_mean_error(
    predicted: ArrayLike,
    annotated: ArrayLike,
    normaliser: float,
    indices: ArrayLike = tuple(range(N_LANDMARKS)),
    visible: ArrayLike | None = None,
) -> float:
    """Mean distance of chosen landmarks over a length of the face.

    Args:
        predicted: (68, 2) or (68, 3).
        annotated: the same landmarks as annotated, same unit.
        normaliser: length, same unit.
        indices: which landmarks count.
        visible: (68,) bool; those that are not do not count.

    Returns:
        A fraction; NaN when no landmark counts or the normaliser is zero.
    """
    chosen = np.asarray(indices, np.intp)
    if visible is not None:
        chosen = chosen[np.asarray(visible, bool)[chosen]]
    if len(chosen) == 0 or normaliser <= 0:
        return float("nan")
    gap = np.asarray(predicted, np.float64)[chosen] - np.asarray(annotated, np.float64)[chosen]
    return float(np.linalg.norm(gap, axis=1).mean() / normaliser)


def error_curve(errors: ArrayLike, limit: float) -> tuple[float, float]:
    """Area under the cumulative error distribution up to a limit, and the share beyond it.

    Faces that were missed enter as infinite errors (or NaN), so that a detector cannot win by
    finding less.

    Args:
        errors: (N,).
        limit: e.g. 0.08 of the interocular distance.

    Returns:
        Area in [0, 1] (1: all errors zero) and failure rate in [0, 1]; NaN for no errors.
    """
    e = np.asarray(errors, np.float64)
    if e.size == 0:
        return float("nan"), float("nan")
    e = np.where(np.isnan(e), np.inf, e)
    return float(np.maximum(1.0 - e / limit, 0.0).mean()), float((e > limit).mean())


# Shape -------------------------------------------------------------------------------------------


def shape_distance_mm(vertices: ArrayLike, true_vertices: ArrayLike) -> float:
    """Mean distance of corresponding vertices once place and size are made equal.

    A single picture does not show the size of a head; `training.losses.shape_distance_mm` is
    the same for batches.

    Args:
        vertices: (N, 3) metres, face frame.
        true_vertices: (N, 3) the same vertices of the true face.

    Returns:
        Millimetres, at the true size.
    """
    return float(np.linalg.norm(_aligned_difference_mm(vertices, true_vertices), axis=1).mean())


def point_to_plane_mm(vertices: ArrayLike, true_vertices: ArrayLike, normals: ArrayLike) -> float:
    """The part of `shape_distance_mm` that lies across the true surface.

    The rest slides along it: where on a smooth cheek a vertex of the mesh belongs, no picture
    shows.

    Args:
        vertices: (N, 3) metres, face frame.
        true_vertices: (N, 3) the same vertices of the true face.
        normals: (N, 3) unit normals of the true face there.

    Returns:
        Millimetres, at the true size.
    """
    difference = _aligned_difference_mm(vertices, true_vertices)
    return float(np.abs((difference * np.asarray(normals, np.float64)).sum(axis=1)).mean())


def _aligned_difference_mm(vertices: ArrayLike, true_vertices: ArrayLike) -> Array:
    """(N, 3) of centred vertices, ours scaled to the true size."""
    ours, true = np.asarray(vertices, np.float64), np.asarray(true_vertices, np.float64)
    ours, true = ours - ours.mean(axis=0), true - true.mean(axis=0)
    ours = ours * (np.linalg.norm(true) / np.linalg.norm(ours))
    return np.asarray(1e3 * (ours - true))


def skill(mean_face: float, ours: float, floor: float) -> float:
    """How much of what can be known about a face an answer knows.

    Args:
        mean_face: error of the answer that knows nothing.
        ours: error of the answer.
        floor: error of the best answer the face model has.

    Returns:
        1 at the floor, 0 at the mean face, below zero beyond it; NaN where there is nothing to
        know.
    """
    room = mean_face - floor
    return float((mean_face - ours) / room) if room > 0 else float("nan")


# Rotations ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EulerConvention:
    """How a data set writes a head's attitude as pitch, yaw and roll.

    The rotation is a product of elementary rotations in the order of `order`, each about its axis
    by `sign` times the angle: `order = "pyr"` reads R = Rx(s pitch) Ry(s yaw) Rz(s roll).

    Attributes:
        name: of the data set.
        order: three of `p` (about x), `y` (about y), `r` (about z), left to right in the product.
        signs: (3,) of pitch, yaw, roll.
        camera_from_dataset_camera: (3, 3) to the optical frame (x right, y down, z forward).
        dataset_face_from_face: (3, 3) from our face frame (x out, y left, z up).
    """

    name: str
    order: str
    signs: tuple[float, float, float]
    camera_from_dataset_camera: Array
    dataset_face_from_face: Array

    def rotation(self, pitch: float, yaw: float, roll: float) -> Array:
        """(3, 3) camera_from_face rotation of a triple of angles in radians."""
        angles = dict(zip("pyr", np.multiply(self.signs, [pitch, yaw, roll]), strict=True))
        product = np.eye(3)
        for letter in self.order:
            product = product @ rotation_from_vector(
                angles[letter] * np.eye(3)["pyr".index(letter)]
            )
        return np.asarray(self.camera_from_dataset_camera @ product @ self.dataset_face_from_face)

    def angles(self, camera_from_face_rotation: ArrayLike) -> Array:
        """(3,) pitch, yaw, roll in radians, the inverse of `rotation`.

        The middle angle is in [-pi/2, pi/2]; at its ends the last angle is set to zero (gimbal
        lock).
        """
        m = (
            self.camera_from_dataset_camera.T
            @ np.asarray(camera_from_face_rotation, np.float64)
            @ self.dataset_face_from_face.T
        )
        i, j, k = ("pyr".index(letter) for letter in self.order)
        parity = 1.0 if (j - i) % 3 == 1 else -1.0
        out = np.zeros(3)
        cosine = np.hypot(m[i, i], m[i, j])
        out[j] = np.arctan2(parity * m[i, k], cosine)
        if cosine > 1e-9:
            out[i] = np.arctan2(-parity * m[j, k], m[k, k])
            out[k] = np.arctan2(-parity * m[i, j], m[i, i])
        else:
            out[i] = np.arctan2(parity * m[k, j], m[j, j])
        return np.asarray(out * self.signs)

    def angles_near(self, camera_from_face_rotation: ArrayLike, reference: ArrayLike) -> Array:
        """(3,) of the two triples that write a rotation, the one nearer to another triple.

        (a, b, c) and (a + pi, pi - b, c + pi), with b the middle angle, are the same rotation.

        Args:
            camera_from_face_rotation: (3, 3).
            reference: (3,) pitch, yaw, roll in radians.

        Returns:
            Pitch, yaw, roll in radians, each within pi of its reference.
        """
        first = self.angles(camera_from_face_rotation)
        twin = first + np.pi
        middle = "pyr".index(self.order[1])
        twin[middle] = np.pi - first[middle]
        start = np.asarray(reference, np.float64)
        gaps = [_wrapped(candidate - start) for candidate in (first, twin)]
        return np.asarray(start + min(gaps, key=lambda gap: float(np.abs(gap).sum())))


def _wrapped(angles: Array) -> Array:
    return np.asarray((angles + np.pi) % (2 * np.pi) - np.pi)


_UP_TO_OPTICAL = np.diag([1.0, -1.0, -1.0])
_UP_FROM_FACE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
_DOWN_FROM_FACE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])

#: 3DDFA's matrices (Zhu et al. 2016) are the transposes of the usual ones: hence the minus signs.
#: Camera and face axes: x to the image's right, y up, z to the viewer. Positive yaw turns the
#: nose to the image's left.
AFLW2000 = EulerConvention("AFLW2000-3D", "pyr", (-1, -1, -1), _UP_TO_OPTICAL, _UP_FROM_FACE)

#: The angles that Hopenet (Ruiz et al. 2018) reads from BIWI's matrices, as all later papers do:
#: of the transposed matrix, roll and yaw negated. Camera and head axes: x right, y down, z away
#: from the viewer.
BIWI = EulerConvention("BIWI", "pyr", (-1, 1, 1), np.eye(3), _DOWN_FROM_FACE)


def euler_errors(
    predicted: ArrayLike,
    true: ArrayLike,
    convention: EulerConvention,
    *,
    true_angles: ArrayLike | None = None,
) -> Array:
    """Absolute differences of Euler angles, the field's way to report pose.

    Each difference is taken the short way round, and of the two triples that write the predicted
    rotation the one nearer to the truth counts: else a head at yaw 91 degrees that is seen at 89
    would be 178 degrees off in pitch and roll.

    Args:
        predicted: (3, 3) camera-from-face rotation.
        true: (3, 3) camera-from-face rotation.
        convention: whose angles.
        true_angles: (3,) radians, the triple that the annotation of `true` holds; that with the
            middle angle within pi/2 without it.

    Returns:
        (3,) radians of pitch, yaw, roll.
    """
    angles = convention.angles(true) if true_angles is None else np.asarray(true_angles)
    return np.asarray(np.abs(convention.angles_near(predicted, angles) - angles))


# Sets of numbers ---------------------------------------------------------------------------------


def roc_auc(same: ArrayLike, different: ArrayLike) -> float:
    """Probability that a pair of one person scores above a pair of two; ties count half.

    Args:
        same: (N,) similarity scores of pairs of one person.
        different: (M,) of pairs of two people.

    Returns:
        Area under the ROC curve (Mann-Whitney U / NM); NaN when either is empty.
    """
    a, b = np.asarray(same, np.float64), np.sort(np.asarray(different, np.float64))
    if a.size == 0 or b.size == 0:
        return float("nan")
    below, below_or_equal = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")
    return float((below + below_or_equal).sum() / (2 * a.size * b.size))


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        value: the statistic of the sample.
        low: lower bound.
        high: upper bound.
    """

    value: float
    low: float
    high: float


def bootstrap(
    values: ArrayLike, *, confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> Interval:
    """The mean and its percentile bootstrap (Efron 1979), deterministic for a seed.

    Args:
        values: (N,) independent draws; give one value per image or person, not per pixel.
        confidence: coverage.
        samples: resamplings.
        seed: of the generator.

    Returns:
        NaN throughout for an empty sample.
    """
    from scipy import stats

    x = np.asarray(values, np.float64)
    if len(x) == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    value = float(x.mean())
    if len(x) == 1:  # scipy wants two draws
        return Interval(value, value, value)
    found = stats.bootstrap(
        (x,),
        np.mean,
        method="percentile",
        confidence_level=confidence,
        n_resamples=samples,
        batch=max(1, 2_000_000 // len(x)),
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(found.low), float(found.high))


def percentiles(values: ArrayLike) -> dict[str, float]:
    """`p50`, `p95` and `p99` of (N,) values; NaN when there is none."""
    v = np.asarray(values, np.float64)
    return {f"p{p}": float(np.percentile(v, p)) if v.size else float("nan") for p in (50, 95, 99)}


# Over time ---------------------------------------------------------------------------------------


def noise_of_series(values: ArrayLike, stamps: ArrayLike) -> float:
    """Noise of a signal: deviation of each sample from the line through its neighbours.

    Unbiased for white noise on a signal that is locally linear; frame rates may vary.

    Args:
        values: (T, D).
        stamps: (T,) seconds, rising.

    Returns:
        Standard deviation per coordinate, root mean square over coordinates; unit of `values`.
        NaN for fewer than three samples.
    """
    x, weight = _triples(values, stamps)
    if len(x) < 3:
        return float("nan")
    w = weight[:, None]
    residual = x[1:-1] - (1 - w) * x[:-2] - w * x[2:]
    gain = 1 + w**2 + (1 - w) ** 2
    return float(np.sqrt((residual**2 / gain).mean()))


def noise_of_rotations(rotations: ArrayLike, stamps: ArrayLike) -> float:
    """`noise_of_series` for (T, 3, 3) rotations, radians per axis."""
    r = np.asarray(rotations, np.float64).reshape(-1, 3, 3)
    _, weight = _triples(r.reshape(-1, 9), stamps)
    if len(r) < 3:
        return float("nan")
    residuals = []
    for before, here, after, w in zip(r[:-2], r[1:-1], r[2:], weight, strict=True):
        between = before @ rotation_from_vector(w * vector_from_rotation(before.T @ after))
        residuals.append(vector_from_rotation(between.T @ here) / np.sqrt(1 + w**2 + (1 - w) ** 2))
    return float(np.sqrt(np.square(residuals).mean()))


def drift_of_series(values: ArrayLike, stamps: ArrayLike) -> float:
    """Length of the slope of a straight-line fit: how fast what should be constant wanders.

    Args:
        values: (T, D).
        stamps: (T,) seconds.

    Returns:
        Unit of `values` per second; NaN for fewer than two distinct stamps.
    """
    x = np.asarray(values, np.float64)
    t = np.asarray(stamps, np.float64)
    if len(t) < 2 or np.ptp(t) == 0:
        return float("nan")
    t = t - t.mean()
    return float(np.linalg.norm(t @ (x - x.mean(axis=0)) / (t @ t)))


def _triples(values: ArrayLike, stamps: ArrayLike) -> tuple[Array, Array]:
    x, t = np.asarray(values, np.float64), np.asarray(stamps, np.float64)
    if len(x) != len(t) or (np.diff(t) <= 0).any():
        raise DataError(
            "one rising stamp per sample",
            f"{len(x)} samples, {len(t)} stamps, least step {np.diff(t).min(initial=np.inf):g} s",
            "sort by stamp and drop duplicates first",
        )
    return x, (t[1:-1] - t[:-2]) / (t[2:] - t[:-2])
