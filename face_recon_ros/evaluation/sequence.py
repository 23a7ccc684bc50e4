"""What a video says about the pipeline without ground truth: noise, drift, gaps, switches."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.pipeline import Frame
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.evaluation.metrics import drift_of_series, noise_of_rotations, noise_of_series
from face_recon_ros.evaluation.trajectory import Trajectory

Array = NDArray[np.float64]

BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")
#: A new track this soon after, and this much over, the end of another one is the same person
#: renamed.
SWITCH_GAP_S = 1.0
SWITCH_IOU = 0.3
#: Tracks shorter than this say nothing about noise.
MIN_FRAMES = 10
_BLINK_RANGE = 0.15
_BLINK_SPAN_S = 2.0
_SMOOTH_S = 0.5


@dataclass(frozen=True)
class Observation:
    """One face of one frame.

    Attributes:
        stamp: seconds.
        box: (4,) pixels.
        camera_from_face: the head.
        identity: (K_id,).
        expression: (K_exp,).
        covariance: (6, 6) of `camera_from_face`, as `Face.covariance`; None where there is none.
        depth: whether a depth image gave the distance.
    """

    stamp: float
    box: Array
    camera_from_face: Rigid
    identity: Array
    expression: Array
    covariance: Array | None = None
    depth: bool = False


@dataclass
class Recording:
    """What the pipeline said about a sequence.

    Attributes:
        stamps: of all frames processed, seconds.
        faces_per_frame: as many.
        tracks: id -> observations in order.
    """

    stamps: list[float] = field(default_factory=list)
    faces_per_frame: list[int] = field(default_factory=list)
    tracks: dict[str, list[Observation]] = field(default_factory=lambda: defaultdict(list))

    def add(self, frame: Frame, stamp: float) -> None:
        """Notes the pipeline's answer to the image of a stamp."""
        self.stamps.append(stamp)
        self.faces_per_frame.append(len(frame.faces))
        for face in frame.faces:
            self.tracks[face.track.id].append(
                Observation(
                    stamp,
                    np.asarray(face.box, np.float64),
                    face.camera_from_face,
                    face.coefficients.identity[0].astype(np.float64),
                    face.coefficients.expression[0].astype(np.float64),
                    face.covariance,
                    face.depth_reading is not None,
                )
            )

    def trajectory(self, track: str) -> Trajectory:
        """camera_from_face over time."""
        seen = self.tracks[track]
        return Trajectory.of([o.stamp for o in seen], [o.camera_from_face for o in seen])

    @property
    def main_track(self) -> str | None:
        """The track seen most often."""
        return max(self.tracks, key=lambda t: len(self.tracks[t]), default=None)


def sequence_figures(recording: Recording, expression_names: tuple[str, ...]) -> dict[str, Any]:
    """Figures of a recording.

    Args:
        recording: see `Recording`.
        expression_names: of the face model, to find the blinks.

    Returns:
        Frames, missed frames, id switches, and per track noise, drift and blink coupling; NaN
        where a track is too short to say.
    """
    faces = np.array(recording.faces_per_frame, int)
    with_face = np.flatnonzero(faces > 0)
    inside = faces[with_face[0] : with_face[-1] + 1] if len(with_face) else faces[:0]
    blinks = [expression_names.index(n) for n in BLINKS if n in expression_names]
    tracks = {
        name: _track_figures(recording.tracks[name], blinks) for name in sorted(recording.tracks)
    }
    return {
        "frames": len(faces),
        "frames_with_face": len(with_face),
        "missed_frames": int((inside == 0).sum()),
        "id_switches": id_switches(recording),
        "track_count": len(tracks),
        "definitions": {
            "missed_frames": "frames without any face between the first and last with one",
            "id_switches": f"tracks that begin within {SWITCH_GAP_S:g} s of the end of another "
            f"and over it (IoU > {SWITCH_IOU:g}), and pairs of tracks that trade places",
            "noise": "deviation from the line through the two neighbours, per axis, unbiased",
            "identity_drift_per_s": "slope of the coefficients' straight-line fit",
            "blink_depth_mm": "depth that goes with a full blink, slow motion removed; none where "
            f"lids move by less than {_BLINK_RANGE:g} or the track is under {_BLINK_SPAN_S:g} s",
        },
        "tracks": tracks,
    }


def id_switches(recording: Recording) -> int:
    """How often a person got another id. See `sequence_figures` for what counts."""
    count = 0
    tracks = recording.tracks
    for name, seen in tracks.items():
        first = seen[0]
        count += any(
            0 < first.stamp - other[-1].stamp <= SWITCH_GAP_S
            and iou(first.box, other[-1].box)[0, 0] > SWITCH_IOU
            for other_name, other in tracks.items()
            if other_name != name
        )
    at: dict[float, dict[str, Array]] = defaultdict(dict)
    for name, seen in tracks.items():
        for o in seen:
            at[o.stamp][name] = o.box
    stamps = sorted(at)
    for before, after in pairwise(stamps):
        common = sorted(at[before].keys() & at[after].keys())
        if len(common) < 2:
            continue
        old = np.array([at[before][name] for name in common])
        new = np.array([at[after][name] for name in common])
        shared = iou(new, old)
        best = shared.argmax(axis=1)
        for i, j in enumerate(best):
            traded = j > i and best[j] == i and shared[i, j] > SWITCH_IOU
            count += int(traded and shared[j, i] > SWITCH_IOU)
    return count


def _track_figures(seen: list[Observation], blinks: list[int]) -> dict[str, Any]:
    stamps = np.array([o.stamp for o in seen])
    duration = float(stamps[-1] - stamps[0])
    figures: dict[str, Any] = {"frames": len(seen), "duration_s": duration}
    if len(seen) < MIN_FRAMES or (np.diff(stamps) <= 0).any():
        return figures
    positions = np.array([o.camera_from_face.translation for o in seen])
    rays = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    depth = np.linalg.norm(positions, axis=1)
    identity = np.array([o.identity for o in seen])
    expression = np.array([o.expression for o in seen])
    return {
        **figures,
        "rotation_noise_deg": float(
            np.degrees(
                noise_of_rotations(np.array([o.camera_from_face.rotation for o in seen]), stamps)
            )
        ),
        "depth_noise_mm": 1000 * noise_of_series(depth[:, None], stamps),
        "lateral_noise_mm": 1000 * float(depth.mean()) * noise_of_series(rays[:, :2], stamps),
        "expression_noise": noise_of_series(expression, stamps),
        "identity_drift_per_s": drift_of_series(identity, stamps),
        "identity_spread": float(np.sqrt(identity.var(axis=0).mean())),
        "depth_mean_m": float(depth.mean()),
        "depth_std_mm": 1000 * float(depth.std()),
        "blink_depth_mm": blink_coupling_mm(stamps, expression[:, blinks], depth),
    }


def blink_coupling_mm(stamps: Array, blinks: Array, depth: Array) -> float:
    """Depth change that goes with a full blink: a blink must not move the head.

    Args:
        stamps: (T,) seconds, rising.
        blinks: (T, 1 or 2) activations of the lids.
        depth: (T,) metres.

    Returns:
        Millimetres per unit of activation, slow motion (the mean over half a second to both
        sides) removed from both; NaN without blinks, or with too few images.
    """
    if blinks.size == 0 or stamps[-1] - stamps[0] < _BLINK_SPAN_S:
        return float("nan")
    x, y = (values - _smooth(stamps, values) for values in (blinks.mean(axis=1), depth))
    if np.ptp(x) < _BLINK_RANGE:
        return float("nan")
    return float(1000 * (x @ y) / (x @ x))


def _smooth(stamps: Array, values: Array) -> Array:
    """Running mean over `_SMOOTH_S` to both sides, shorter at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.searchsorted(stamps, stamps - _SMOOTH_S, "left")
    high = np.searchsorted(stamps, stamps + _SMOOTH_S, "right")
    return np.asarray((total[high] - total[low]) / (high - low))
