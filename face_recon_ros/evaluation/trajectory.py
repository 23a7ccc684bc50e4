"""Head trajectories against ground truth: other clocks, other frames, and the error that remains.

A motion-capture rig tracks a marker frame on the head in its own world, by its own clock. For
each instant `camera_from_face face_from_marker = camera_from_world world_from_marker` with two
unknown constant motions: the robot-world/hand-eye problem A X = Y B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import Rigid, nearest_rotation, vector_from_rotation
from face_recon_ros.evaluation.metrics import percentiles

Array = NDArray[np.float64]

_OFFSET_STEP_S = 0.02
_OFFSET_SAMPLES = 300
_SEARCH_ROUNDS = 5  # of an alignment at an offset that may be wrong: there it hardly converges


@dataclass(frozen=True)
class Trajectory:
    """Rigid motions `b_from_a` over time.

    Attributes:
        stamps: (T,) seconds, rising.
        rotations: (T, 3, 3).
        translations: (T, 3) metres.
    """

    stamps: Array
    rotations: Array
    translations: Array

    @staticmethod
    def of(stamps: ArrayLike, motions: list[Rigid]) -> Trajectory:
        """Motions at (N,) stamps in seconds, sorted; of equal stamps the last one counts."""
        by_stamp = dict(zip(np.asarray(stamps, np.float64).tolist(), motions, strict=True))
        order = sorted(by_stamp)
        return Trajectory(
            np.array(order, np.float64),
            np.array([by_stamp[t].rotation for t in order], np.float64).reshape(-1, 3, 3),
            np.array([by_stamp[t].translation for t in order], np.float64).reshape(-1, 3),
        )

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, index: int) -> Rigid:
        return Rigid(self.rotations[index], self.translations[index])

    def chosen(self, keep: ArrayLike) -> Trajectory:
        """The samples a mask or index array names."""
        k = np.asarray(keep)
        return Trajectory(self.stamps[k], self.rotations[k], self.translations[k])

    def delayed(self, offset_s: float) -> Trajectory:
        """The same motions with stamps later by an offset in seconds."""
        return Trajectory(self.stamps + offset_s, self.rotations, self.translations)

    def at(
        self, stamps: ArrayLike, max_gap_s: float = 0.2
    ) -> tuple[Trajectory, NDArray[np.bool_]]:
        """Interpolates: translations linearly, rotations along geodesics.

        Args:
            stamps: (N,) seconds, rising.
            max_gap_s: no interpolation across a longer hole.

        Returns:
            The motions at those stamps that can be served, and the (N,) mask of which they are.
        """
        t = np.asarray(stamps, np.float64)
        if len(self) == 0 or len(t) == 0:
            return self.chosen(np.zeros(0, np.intp)), np.zeros(len(t), bool)
        after = np.clip(np.searchsorted(self.stamps, t, "left"), 0, len(self) - 1)
        before = np.where(self.stamps[after] == t, after, np.maximum(after - 1, 0))
        gap = self.stamps[after] - self.stamps[before]
        inside = (self.stamps[0] <= t) & (t <= self.stamps[-1]) & (gap <= max_gap_s)
        share = np.where(gap > 0, (t - self.stamps[before]) / np.where(gap > 0, gap, 1.0), 0.0)
        rotations = self.rotations[before[inside]]
        if len(rotations):
            from scipy.spatial.transform import Rotation

            first = Rotation.from_matrix(rotations)
            turn = (first.inv() * Rotation.from_matrix(self.rotations[after[inside]])).as_rotvec()
            part = Rotation.from_rotvec(share[inside, None] * turn)
            rotations = (first * part).as_matrix()
        low, high = self.translations[before[inside]], self.translations[after[inside]]
        translations = low + share[inside, None] * (high - low)
        return Trajectory(t[inside], rotations, translations), inside


@dataclass(frozen=True)
class Alignment:
    """What carries ground truth over to estimates.

    Attributes:
        face_from_marker: constant.
        camera_from_world: constant.
        excitation_deg: root mean square turn about the axis turned about least but one. Below a
        few degrees
            the rotation part is not determined and errors come out too small.
    """

    face_from_marker: Rigid
    camera_from_world: Rigid
    excitation_deg: float


def align_trajectories(
    camera_from_face: Trajectory, world_from_marker: Trajectory, *, same_camera: bool = False
) -> Alignment:
    """Robot-world/hand-eye calibration, rotation and translation by least squares.

    Rotations: the bilinear problem's best pair from a 9 x 9 singular value decomposition (Shah
    2013, "Solving the robot-world/hand-eye calibration problem using the Kronecker product"),
    then polished by turns.

    Args:
        camera_from_face: (N) estimates.
        world_from_marker: (N) ground truth at the same instants.
        same_camera: ground truth is already in the camera's frame; only `face_from_marker` is
        sought.

    Raises:
        DataError: fewer than three pairs.
    """
    n = len(camera_from_face)
    if n < 3 or n != len(world_from_marker):
        raise DataError(
            "three or more instants with estimate and ground truth",
            f"{n}",
            "check that the two overlap in time (stamps, --max-offset)",
        )
    a, b = camera_from_face.rotations, world_from_marker.rotations
    x, y = _align_rotations(a, b, same_camera)
    ta, tb = camera_from_face.translations, world_from_marker.translations
    if same_camera:
        offset, origin = np.einsum("nca,nc->na", a, tb - ta).mean(axis=0), np.zeros(3)
    else:
        rows = np.concatenate([a, np.tile(-np.eye(3), (n, 1, 1))], axis=2).reshape(-1, 6)
        solution, *_ = np.linalg.lstsq(rows, (tb @ y.T - ta).ravel(), rcond=1e-9)
        offset, origin = solution[:3], solution[3:]
    mean = nearest_rotation(b.sum(axis=0))
    turns = np.array([vector_from_rotation(mean.T @ r) for r in b])
    spread = np.sqrt(np.linalg.eigvalsh(turns.T @ turns / n)[1].clip(0))
    return Alignment(Rigid(x, offset), Rigid(y, origin), float(np.degrees(spread)))


def aligned_truth(world_from_marker: Trajectory, alignment: Alignment) -> Trajectory:
    """Ground truth as camera_from_face."""
    marker_from_face = alignment.face_from_marker.inverse()
    motions = [
        alignment.camera_from_world @ world_from_marker[i] @ marker_from_face
        for i in range(len(world_from_marker))
    ]
    return Trajectory.of(world_from_marker.stamps, motions)


def estimate_time_offset(
    estimated: Trajectory,
    truth: Trajectory,
    *,
    max_offset_s: float = 1.0,
    same_camera: bool = False,
) -> tuple[float, float]:
    """By how much the estimates' stamps lag those of ground truth.

    For every offset of a grid the rotations are aligned (unknown frames and all) and the angles
    that remain are squared; the best one is refined.

    Args:
        estimated: the pipeline's.
        truth: ground truth.
        max_offset_s: searched to both sides.
        same_camera: as in `align_trajectories`.

    Returns:
        Offset in seconds (`estimated.stamp = truth.stamp + offset`), and the contrast of the
        minimum: how many times smaller the angles are than at a typical offset. Near one the head
        turned too little, and the offset is meaningless.
    """
    step = max(1, len(estimated) // _OFFSET_SAMPLES)
    seen = estimated.chosen(np.arange(0, len(estimated), step))

    def cost(offset: float) -> float:
        true, matched = truth.at(seen.stamps - offset)
        if matched.sum() < max(4, len(seen) // 2):
            return float("nan")
        a, b = seen.rotations[matched], true.rotations
        x, y = _align_rotations(a, b, same_camera, _SEARCH_ROUNDS)
        trace = np.einsum("ab,nca,cd,ndb->", x, a, y, b, optimize=True) / len(b)
        return float(3 - trace)  # mean of the squared angles, for small ones

    offsets = np.arange(-max_offset_s, max_offset_s + _OFFSET_STEP_S / 2, _OFFSET_STEP_S)
    costs = np.array([cost(offset) for offset in offsets])
    if np.isnan(costs).all():
        return 0.0, 1.0
    best = float(offsets[np.nanargmin(costs)])
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda offset: np.nan_to_num(cost(offset), nan=np.inf),
        bounds=(best - _OFFSET_STEP_S, best + _OFFSET_STEP_S),
        method="bounded",
        options={"xatol": 1e-4},
    )
    least = min(float(found.fun), float(np.nanmin(costs)))
    offset = float(found.x) if found.fun <= np.nanmin(costs) else best
    return offset, float(np.sqrt(np.nanmedian(costs) / max(least, 1e-12)))


def pose_errors(estimated: Trajectory, truth: Trajectory) -> dict[str, Any]:
    """Differences of matched camera_from_face motions.

    Args:
        estimated: N motions.
        truth: N motions of the same instants and frames.

    Returns:
        `rotation_deg`, `translation_mm`, `depth_mm` (along the viewing ray) each with mean, rmse
        and percentiles, and `per_frame` arrays.
    """
    relative = np.einsum("nba,nbc->nac", truth.rotations, estimated.rotations)
    rotation = np.degrees([np.linalg.norm(vector_from_rotation(r)) for r in relative])
    gap = (estimated.translations - truth.translations) * 1000.0
    distance = np.maximum(np.linalg.norm(truth.translations, axis=1, keepdims=True), 1e-9)
    depth = (gap * truth.translations / distance).sum(axis=1)
    translation = np.linalg.norm(gap, axis=1)
    return {
        "count": len(rotation),
        "rotation_deg": _statistics(rotation),
        "translation_mm": _statistics(translation),
        "depth_mm": _statistics(np.abs(depth)),
        "per_frame": {
            "stamp": estimated.stamps,
            "rotation_deg": rotation,
            "translation_mm": translation,
        },
    }


#: Of a squared normalised error in three dimensions: share of a Gaussian within -> threshold.
_CHI_SQUARE_3 = {"within_68": 3.527, "within_95": 7.815}


def covariance_calibration(
    estimated: Trajectory, truth: Trajectory, covariances: ArrayLike
) -> dict[str, Any]:
    """Whether errors of poses are as large as their covariance says.

    Args:
        estimated: N motions.
        truth: N motions of the same instants and frames.
        covariances: (N, 6, 6) x, y, z in metres, rotations about the camera's x, y, z in radians.

    Returns:
        For `position` and `rotation`: `normalised_rms`, the root mean square of the error over
        its standard deviation, 1 where they agree and above where poses claim too much; and the
        shares of errors within the regions that should hold 68 and 95 %.
    """
    c = np.asarray(covariances, np.float64).reshape(-1, 6, 6)
    turns = np.einsum("nab,ncb->nac", estimated.rotations, truth.rotations)
    errors = {
        "position": (slice(0, 3), estimated.translations - truth.translations),
        "rotation": (slice(3, 6), np.array([vector_from_rotation(r) for r in turns])),
    }
    out: dict[str, Any] = {"count": len(c)}
    for name, (block, error) in errors.items():
        e = error.reshape(-1, 3)
        squared = np.einsum(
            "na,na->n", e, np.linalg.solve(c[:, block, block], e[..., None])[..., 0]
        )
        out[name] = {
            "normalised_rms": float(np.sqrt(squared.mean() / 3.0)) if len(c) else float("nan"),
            **{
                key: float((squared <= limit).mean()) if len(c) else float("nan")
                for key, limit in _CHI_SQUARE_3.items()
            },
        }
    return out


def _statistics(values: ArrayLike) -> dict[str, float]:
    v = np.asarray(values, np.float64)
    if v.size == 0:
        return {"mean": float("nan"), "rmse": float("nan"), **percentiles(v)}
    return {"mean": float(v.mean()), "rmse": float(np.sqrt((v**2).mean())), **percentiles(v)}


def _align_rotations(
    a: Array, b: Array, same_camera: bool, rounds: int = 50
) -> tuple[Array, Array]:
    """Rotations x, y with a x = y b in the sense of least squares; y = 1 for one camera."""
    one = np.eye(3)
    direct = np.einsum("nca,nce->ae", a, b)
    if same_camera:
        return nearest_rotation(direct), one
    product = np.einsum("nca,ndb->abcd", a, b, optimize=True).reshape(9, 9)
    u, _, vt = np.linalg.svd(product)
    left, right = u[:, 0].reshape(3, 3), vt[0].reshape(3, 3)
    x = nearest_rotation(np.stack([left, -left, direct]))
    y = nearest_rotation(np.stack([right, -right, one]))
    for _ in range(rounds):  # each in turn, from all starts
        y_new = nearest_rotation((x.reshape(-1, 9) @ product).reshape(-1, 3, 3))
        x_new = nearest_rotation((y_new.reshape(-1, 9) @ product.T).reshape(-1, 3, 3))
        moved = np.abs(x_new - x).max() + np.abs(y_new - y).max()
        x, y = x_new, y_new
        if moved < 1e-12:
            break
    best = int(np.einsum("sab,abcd,scd->s", x, product.reshape(3, 3, 3, 3), y).argmax())
    return x[best], y[best]
