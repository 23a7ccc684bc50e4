"""Which detection is which track's, and which tracks may be taken for each other.

Costs of matches, gates, matches that are not clear; faces that touch, hide or cover each other.

People who cross differ in how far away they are: size tells them apart when places do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.track_state import TrackState, box_of, positions_of
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.types import Detections

FORBIDDEN = 1e6  # cost of a match outside the gates
_SIZE_WEIGHT = 3.0  # a face grows or shrinks less from image to image than it moves
_HIGHEST = 2.2  # cost of a match, beside what is due to reach: else rather none
_UNCLEAR = 0.4  # what the other way round must cost more, for a match to be clear
POOR = 1.0  # cost from which a match is none that would be expected
_SIDES_PER_S = 2.0 / 0.15  # of a face that walks past: 2 m/s over the side of a face box
_SIDES_PER_S2 = 3.0 / 0.15  # of one that sets off or stops unseen: 3 m/s^2
_FARTHEST_SIDES = 3.0  # farther off is another person
SAME_FACE = 0.5  # IoU of two boxes that are one face
_TOUCHING = 0.05  # IoU from which two faces may be taken for each other
_AS_NEAR = math.log(1.1)  # of two faces this much alike in size either may be the nearer one


def reach(state: TrackState, stamp: float, config: TrackerConfig) -> float:
    """How far from its prediction a face may be, in sides; without a speed: as it may walk."""
    if state.measured_stamp == state.began_stamp:
        walked = _SIDES_PER_S * (stamp - state.began_stamp)
        return max(config.max_distance, min(walked, _FARTHEST_SIDES))
    unseen_s = stamp - state.sure_stamp if state.missed else 0.0
    return min(config.max_distance + _SIDES_PER_S2 / 2 * unseen_s**2, _FARTHEST_SIDES)


def costs(
    boxes: NDArray[np.float64],
    detections: Detections,
    config: TrackerConfig,
    reach: ArrayLike,
) -> NDArray[np.float64]:
    """(boxes, detections): 1 - IoU, distance and size; `FORBIDDEN` beyond the gates.

    Args:
        boxes: (N, 4).
        detections: M.
        config: gates.
        reach: (N,) largest distance in sides.
    """
    a, b = positions_of(boxes)[:, None], positions_of(detections.boxes)[None]
    shared = iou(boxes, detections.boxes)
    log_ratio = np.abs(a[..., 2] - b[..., 2])
    distance = _sides_between(a, b)
    farthest = np.reshape(np.asarray(reach, np.float64), (-1, 1))
    near_enough = (distance <= farthest) & (log_ratio <= np.log(config.max_size_ratio))
    allowed = near_enough | (shared >= config.min_iou)
    total = 1.0 - shared + distance + _SIZE_WEIGHT * log_ratio
    allowed &= total <= _HIGHEST + farthest - config.max_distance
    return np.asarray(np.where(allowed, total, FORBIDDEN))


def costs_of_return(
    states: Sequence[TrackState],
    detections: Detections,
    stamp: float,
    config: TrackerConfig,
    reach: ArrayLike,
) -> NDArray[np.float64]:
    """(states, detections) of those out of sight, as if they had walked on meanwhile."""
    boxes = np.zeros((len(states), 4))
    for box, state in zip(boxes, states, strict=True):
        if state.may_reactivate(stamp, config.max_undetected_s):
            box[:] = box_of(state.walked(stamp))
    cost = costs(boxes, detections, config, reach)
    cost[~boxes.any(axis=1)] = FORBIDDEN
    return cost


def unclear(cost: NDArray[np.float64], matches: Sequence[tuple[int, int]]) -> set[int]:
    """Rows of matches that would cost little more the other way round.

    Args:
        cost: (N, M).
        matches: of rows and columns.
    """
    column = dict(matches)
    doubtful = set()
    for i, j in matches:
        for k in map(int, np.flatnonzero(cost[:, j] < FORBIDDEN)):
            if k == i:
                continue
            kept, other = float(cost[i, j]), float(cost[k, j])
            if k in column:
                kept, other = kept + cost[k, column[k]], other + cost[i, column[k]]
            if other - kept < _UNCLEAR:
                doubtful.add(i)
    return doubtful


def touching(states: Sequence[TrackState]) -> NDArray[np.bool_]:
    """(N, N) whether two different ones of N faces overlap, so that one may be the other."""
    boxes = np.array([state.track.box for state in states]).reshape(-1, 4)
    shared = iou(boxes, boxes)
    np.fill_diagonal(shared, 0.0)
    return np.asarray(shared > _TOUCHING)


def behind(states: Sequence[TrackState]) -> NDArray[np.bool_]:
    """(N,) whether a face that is nearer, for all we know, may cover one of N."""
    size = np.array([state.position[2] for state in states])
    there = np.array([not state.missed for state in states], bool)
    nearer = size[None] > size[:, None] - _AS_NEAR
    return np.asarray((touching(states) & nearer & there).any(axis=1))


def covered(states: Sequence[TrackState], boxes: Mapping[str, ArrayLike]) -> set[str]:
    """Ids of tracks whose mesh is on the face of another one, which is where it should be.

    Args:
        states: of all tracks.
        boxes: track id -> (4,) face box of its mesh, image pixels.
    """
    states = [s for s in states if s.track.id in boxes]
    meshes = np.array([boxes[s.track.id] for s in states], np.float64).reshape(-1, 4)
    found, expected = positions_of(meshes), [s.position for s in states]
    out = set()
    for i, j in zip(*np.nonzero(np.triu(iou(meshes, meshes), 1) > SAME_FACE), strict=True):
        off = [
            (states[k].detected_stamp < states[k].track.stamp, apart(found[k], expected[k]))
            for k in (i, j)
        ]
        if off[0][0] or off[1][0]:  # both detected are two
            out.add(states[i if off[0] > off[1] else j].track.id)
    return out


def _sides_between(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of positions (..., 3), in sides of the face."""
    side = np.exp((a[..., 2] + b[..., 2]) / 2)
    return np.asarray(np.linalg.norm(a[..., :2] - b[..., :2], axis=-1) / side)


def apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """How little two positions, (3,), are of one face: distance in sides, and size."""
    sides, log_ratio = _between(a, b)
    return sides + _SIZE_WEIGHT * log_ratio


def near(
    a: NDArray[np.float64], b: NDArray[np.float64], config: TrackerConfig, caution: float = 1.0
) -> bool:
    """Whether two positions, (3,), are within the gates; `caution`: a share of these."""
    sides, log_ratio = _between(a, b)
    return sides <= caution * config.max_distance and log_ratio <= caution * math.log(
        config.max_size_ratio
    )


def _between(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Distance of two positions, (3,), in sides of the face, and logarithm of their sizes' ratio.

    In plain numbers: with arrays of three numpy takes ten times as long.
    """
    (ax, ay, a_log), (bx, by, b_log) = a.tolist(), b.tolist()
    return math.hypot(ax - bx, ay - by) / math.exp((a_log + b_log) / 2), abs(a_log - b_log)
