"""Who is who from frame to frame: short stable ids, prediction between detections.

A track moves with constant velocity in x, y and log size. Detections are assigned to predicted
boxes for the least total cost; between detections the box of the reconstructed mesh takes their
place (`confirm`), so the detector need not run on every frame. Only a detection keeps a track
alive: the network answers for anything it is visible, so a track nobody detected for
`max_undetected_s` ends. It keeps its id that long, but is `visible` only for `max_tentative_s`
after the detector began to miss it. Time is an argument.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.types import Detections, Float32, Track

_FORBIDDEN = 1e6  # cost of a match outside the gates
_HORIZON_S = 0.25  # how long a velocity is believed without a new measurement
_VELOCITY_GAIN = 0.5  # share of a newly seen velocity
_DETECTION_PULL = 0.2  # least share of the detector's box where the mesh closes the loop
_MESH_CAUTION = 0.6  # share of the gates within which a mesh may differ from the prediction
_SURE = 0.7  # IoU of mesh and detection that lets the detector rest
_SAME_FACE = 0.5  # IoU of two boxes that are one face
_PROVEN = 3  # detections after the first that earn a track its full patience
_ID_LENGTH = 5  # REP-155


@dataclass(frozen=True)
class TrackerConfig:
    """How faces are followed.

    Attributes:
        detect_every: the detector runs on every n-th frame; 1 is each. It also runs whenever a
            track is in doubt, and while there is none.
        max_undetected_s: seconds a track lives without a detection, once it had a few: after
            its first one it ends with the first miss.
        max_tentative_s: seconds a face is still visible after the detector began to miss it; its
            track lives on and may be reactivated under its id.
        max_gap_s: stamps further apart than this, or going backwards, start all over.
        min_iou: intersection over union with the prediction that makes a match certain.
        max_distance: between predicted and found centre, in box sides, for any match.
        max_size_ratio: between predicted and found side, for any match.
        max_faces: of one image, the most certain first.
        seed: of the ids.
    """

    detect_every: int = 3
    max_undetected_s: float = 1.0
    max_tentative_s: float = 0.25
    max_gap_s: float = 2.0
    min_iou: float = 0.3
    max_distance: float = 0.7
    max_size_ratio: float = 1.8
    max_faces: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.detect_every < 1:
            raise ConfigError("detect_every of at least 1", f"{self.detect_every}", "3 is good")
        if self.max_faces < 1:
            raise ConfigError("max_faces of at least 1", f"{self.max_faces}", "8 is good")
        if min(self.max_undetected_s, self.max_tentative_s) < 0 or self.max_gap_s <= 0:
            raise ConfigError(
                "times above zero",
                f"max_undetected_s {self.max_undetected_s}, "
                f"max_tentative_s {self.max_tentative_s}, max_gap_s {self.max_gap_s}",
                "1, 0.25 and 2 seconds are good",
            )


@dataclass
class _State:
    """What is known of one track. Positions are centre x, y in pixels and log side; per second.

    The `anchor_*` are of the last measurement before this frame: velocity is reckoned from it.
    `sure_stamp` is of the last frame that showed the face for all we know: by a detection, or by a
    mesh while the detector has not looked there since and found nothing. `looked_stamp` is of the
    last frame in which the detector would have found the face (`Detections.looked_at`).
    """

    track: Track
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    measured_stamp: float
    anchor_position: NDArray[np.float64]
    anchor_velocity: NDArray[np.float64]
    anchor_stamp: float
    began_stamp: float
    detected_stamp: float
    detected_score: float
    detected_position: NDArray[np.float64]
    sure_stamp: float
    looked_stamp: float
    detections: int = 1
    detected_velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    tentative: bool = False
    closed_loop: bool = False


class Tracker:
    """Follows faces. Per frame: `needs_detection`, then `update` or `predict`, then `confirm`.

    `confirm` is left out where the mesh is made elsewhere; detections then place the boxes alone.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        """Starts with no track."""
        self.config = config or TrackerConfig()
        self._random = random.Random(self.config.seed)
        self._used_ids: set[str] = set()
        self._states: list[_State] = []
        self._hidden: list[_State] = []  # lost of late, perhaps behind somebody: may come back
        self._stamp: float | None = None
        self._detection_stamp = 0.0
        self._frames_since_detection = 0

    @property
    def tracks(self) -> list[Track]:
        """The tracks as of the last frame, oldest first."""
        return [state.track for state in self._states]

    @property
    def visible(self) -> list[Track]:
        """The tracks that show a face: not those the detector misses for `max_tentative_s`.

        Whoever left would else be a ghost in its place for as long as its track lives: the mesh
        cannot tell, as the network answers for anything.
        """
        return [
            state.track
            for state in self._states
            if not self._missed(state)
            or state.track.stamp - state.sure_stamp <= self.config.max_tentative_s
        ]

    def reset(self) -> None:
        """Forgets all tracks; their ids stay used."""
        self._states, self._hidden = [], []
        self._stamp = None

    def needs_detection(self, stamp: float) -> bool:
        """Whether the detector should look at the frame of this stamp (seconds)."""
        return (
            not self._states
            or self._jumped(stamp)
            or self._frames_since_detection + 1 >= self.config.detect_every
            or stamp - self._detection_stamp > self.config.max_undetected_s / 2
            or any(state.tentative or state.detections == 1 for state in self._states)
        )

    def predict(self, stamp: float) -> list[Track]:
        """Moves all tracks on to a frame the detector does not look at.

        Args:
            stamp: seconds, of the frame.

        Returns:
            The tracks, with predicted boxes.
        """
        self._advance(stamp)
        self._frames_since_detection += 1
        return self.tracks

    def update(self, detections: Detections, stamp: float) -> list[Track]:
        """Moves all tracks on to a frame the detector looked at.

        Args:
            detections: what it found; may be empty.
            stamp: seconds, of the frame.

        Returns:
            The tracks, corrected; new ones for detections nobody claims.
        """
        self._advance(stamp)
        self._frames_since_detection = 0
        self._detection_stamp = stamp
        candidates = [*self._states, *self._hidden]
        cost = self._costs(candidates, detections)
        returning = self._costs_of_return(candidates, detections, stamp)
        cost[len(self._states) :] = _FORBIDDEN  # out of sight: only where they would be by now
        claimed: set[int] = set()
        for i, j in assign(np.minimum(cost, returning)):
            score = float(detections.scores[j])
            if min(cost[i, j], returning[i, j]) >= _FORBIDDEN:
                continue
            claimed.add(j)
            if cost[i, j] < _FORBIDDEN:
                self._detected(candidates[i], detections.boxes[j], score, stamp)
            else:
                self._reactivate(candidates[i], detections.boxes[j], score, stamp)
        places = np.array([s.track.box for s in self._states]).reshape(-1, 4)
        for state, looked_at in zip(self._states, detections.looked_at(places), strict=True):
            if looked_at:
                state.looked_stamp = stamp
            if state.looked_stamp == stamp:
                state.tentative = state.detected_stamp != stamp
        self._drop_lost(stamp)
        for j in np.argsort(-detections.scores, kind="stable"):
            if int(j) not in claimed:
                self._begin(detections.boxes[j], float(detections.scores[j]), stamp)
        return self.tracks

    def confirm(self, boxes: Mapping[str, ArrayLike]) -> None:
        """Corrects tracks by the boxes of their reconstructed meshes, for the frame just tracked.

        A box that is not about where the track is, or was not about where the detector last saw
        the face, puts the track in doubt instead: the detector then looks at the next frame.

        Args:
            boxes: track id -> (4,) face box, image pixels. Ids of no track are ignored.
        """
        for state in self._states:
            if state.track.id not in boxes:
                continue
            box = np.asarray(boxes[state.track.id], np.float64)
            plausible = self._plausible(state, box)
            if state.detected_stamp == self._stamp:
                detected = _box(state.detected_position)
                agreement = iou(box, detected)[0, 0] if plausible else 0.0
                state.closed_loop = agreement > _SAME_FACE
                state.tentative = agreement < _SURE
            if plausible and state.closed_loop:
                self._measure(state, box, 1.0)
                if not self._missed(state):
                    state.sure_stamp = state.track.stamp
            else:
                state.tentative = True

    def _missed(self, state: _State) -> bool:
        """Whether the detector has looked there since it last found this face."""
        return state.detected_stamp < state.looked_stamp

    def _jumped(self, stamp: float) -> bool:
        return self._stamp is not None and not (
            0.0 <= stamp - self._stamp <= self.config.max_gap_s
        )

    def _advance(self, stamp: float) -> None:
        if self._jumped(stamp):
            self.reset()
        before = stamp if self._stamp is None else self._stamp
        self._stamp = stamp
        for state in self._states:
            # Beyond the horizon a velocity says nothing any more: the box stands still.
            end = state.measured_stamp + _HORIZON_S
            move = max(0.0, min(stamp, end) - min(before, end))
            if state.measured_stamp == before:
                state.anchor_position, state.anchor_velocity = state.position, state.velocity
                state.anchor_stamp = before
            state.position = state.position + state.velocity * move
            state.track = replace(
                state.track,
                box=_box(state.position),
                stamp=stamp,
                score=self._score(state, stamp),
                age=state.track.age + 1,
                misses=state.track.misses + 1,
            )

    def _score(self, state: _State, stamp: float) -> float:
        if not state.tentative:
            return state.detected_score
        undetected = (stamp - state.detected_stamp) / max(self.config.max_undetected_s, 1e-9)
        return state.detected_score * max(0.0, 1.0 - undetected)

    def _costs(self, states: list[_State], detections: Detections) -> NDArray[np.float64]:
        """(tracks, detections): 1 - IoU + distance in sides; `_FORBIDDEN` beyond the gates."""
        boxes = np.array([s.track.box for s in states], np.float64).reshape(-1, 4)
        return self._costs_of_boxes(boxes, detections)

    def _costs_of_return(
        self, states: list[_State], detections: Detections, stamp: float
    ) -> NDArray[np.float64]:
        """The same for those out of sight of late, as if they had walked on meanwhile."""
        boxes = np.zeros((len(states), 4))
        for box, state in zip(boxes, states, strict=True):
            if self._may_come_back(state, stamp):
                walked = state.detected_velocity * [1.0, 1.0, 0.0]
                box[:] = _box(state.detected_position + walked * (stamp - state.detected_stamp))
        costs = self._costs_of_boxes(boxes, detections)
        costs[~boxes.any(axis=1)] = _FORBIDDEN
        return costs

    def _costs_of_boxes(
        self, boxes: NDArray[np.float64], detections: Detections
    ) -> NDArray[np.float64]:
        a, b = _positions(boxes)[:, None], _positions(detections.boxes)[None]
        shared = iou(boxes, detections.boxes)
        log_ratio = np.abs(a[..., 2] - b[..., 2])
        side = np.exp((a[..., 2] + b[..., 2]) / 2)
        distance = np.linalg.norm(a[..., :2] - b[..., :2], axis=-1) / side
        near = (distance <= self.config.max_distance) & (
            log_ratio <= np.log(self.config.max_size_ratio)
        )
        allowed = near | (shared >= self.config.min_iou)
        return np.asarray(np.where(allowed, 1.0 - shared + distance, _FORBIDDEN))

    def _detected(self, state: _State, box: Float32, score: float, stamp: float) -> None:
        # Where the mesh closes the loop it is steadier than the detector, which then pulls gently,
        # but the harder the less they agree.
        gain = 1.0
        if state.closed_loop and not state.tentative:
            apart = 1.0 - iou(box, state.track.box)[0, 0]
            gain = float(np.clip(apart / _SAME_FACE, _DETECTION_PULL, 1.0))
        state.detected_stamp = state.sure_stamp = state.looked_stamp = stamp
        state.detected_score = score
        state.track = replace(state.track, score=score)
        state.detections += 1
        self._measure(state, box, gain)
        state.detected_position = _positions(box[None])[0]
        state.detected_velocity = state.velocity

    def _measure(self, state: _State, box: ArrayLike, gain: float) -> None:
        found = _positions(np.asarray(box, np.float64)[None])[0]
        state.position = state.position + gain * (found - state.position)
        if (dt := state.track.stamp - state.anchor_stamp) > 0:
            seen = (state.position - state.anchor_position) / dt
            gain = 1.0 if state.anchor_stamp == state.began_stamp else _VELOCITY_GAIN
            state.velocity = state.anchor_velocity + gain * (seen - state.anchor_velocity)
        state.measured_stamp = state.track.stamp
        state.track = replace(state.track, box=_box(state.position), misses=0)

    def _plausible(self, state: _State, box: NDArray[np.float64]) -> bool:
        if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
            return False
        found = _positions(box[None])[0]
        return self._near(found, state.position, _MESH_CAUTION)

    def _near(self, a: NDArray[np.float64], b: NDArray[np.float64], caution: float = 1.0) -> bool:
        moved = np.linalg.norm(a[:2] - b[:2]) / np.exp((a[2] + b[2]) / 2)
        return bool(
            moved <= caution * self.config.max_distance
            and abs(a[2] - b[2]) <= caution * np.log(self.config.max_size_ratio)
        )

    def _alive(self, state: _State) -> bool:
        """Whether an undetected track may be a face: seen lately, often enough, near there."""
        patience = self.config.max_undetected_s * min(1.0, (state.detections - 1) / _PROVEN)
        unseen = state.looked_stamp - state.detected_stamp
        return unseen <= patience and (
            unseen == 0.0 or self._near(state.position, state.detected_position)
        )

    def _drop_lost(self, stamp: float) -> None:
        """Ends tracks undetected for too long, and those that slid onto somebody else's face."""
        kept: list[_State] = []
        for state in sorted(self._states, key=lambda s: (s.tentative, -s.track.age)):
            boxes = np.array([s.track.box for s in kept]).reshape(-1, 4)
            alone = iou(state.track.box, boxes).max(initial=0.0) <= _SAME_FACE
            if self._alive(state) and (alone or not state.tentative):
                kept.append(state)
            else:
                self._hidden.append(state)
        self._states = [s for s in self._states if any(s is k for k in kept)]
        self._hidden = [s for s in self._hidden if self._may_come_back(s, stamp)]

    def _may_come_back(self, state: _State, stamp: float) -> bool:
        unseen = stamp - state.detected_stamp
        return state.detections > 1 and 0.0 < unseen <= self.config.max_undetected_s

    def _reactivate(self, state: _State, box: Float32, score: float, stamp: float) -> None:
        """Takes up a track again that was out of sight."""
        if not any(state is s for s in self._states):
            self._hidden = [s for s in self._hidden if s is not state]
            self._states.append(state)
        found = _positions(box[None])[0]
        state.position = state.anchor_position = state.detected_position = found
        state.velocity = state.anchor_velocity = state.detected_velocity
        state.measured_stamp = state.anchor_stamp = stamp
        state.detected_stamp = state.sure_stamp = state.looked_stamp = stamp
        state.detected_score, state.closed_loop = score, False
        state.detections += 1
        state.track = replace(state.track, box=_box(found), score=score, stamp=stamp, misses=0)

    def _begin(self, box: Float32, score: float, stamp: float) -> None:
        known = np.array([s.track.box for s in self._states]).reshape(-1, 4)
        if len(known) >= self.config.max_faces or iou(box, known).max(initial=0) > _SAME_FACE:
            return
        position = _positions(box[None])[0]
        still = np.zeros(3)
        track = Track(self._new_id(), _box(position), score, stamp)
        self._states.append(
            _State(
                track,
                position,
                still,
                stamp,
                position,
                still,
                stamp,
                stamp,
                stamp,
                score,
                position,
                stamp,
                stamp,
            )
        )

    def _new_id(self) -> str:
        while True:
            new = "".join(self._random.choices(string.ascii_lowercase, k=_ID_LENGTH))
            if new not in self._used_ids:
                self._used_ids.add(new)
                return new


def assign(cost: ArrayLike) -> list[tuple[int, int]]:
    """Least-cost assignment (Kuhn 1955; shortest augmenting paths, Jonker and Volgenant 1987).

    Args:
        cost: (N, M) finite.

    Returns:
        min(N, M) pairs (row, column), by row.
    """
    c = np.asarray(cost, np.float64)
    if c.size == 0:
        return []
    if c.shape[0] > c.shape[1]:
        return sorted((i, j) for j, i in assign(c.T))
    n, m = c.shape
    row_price, column_price = np.zeros(n), np.zeros(m + 1)
    row_of = np.full(m + 1, -1)  # of each column; the last column is a dummy that starts each path
    for row in range(n):
        row_of[m] = row
        column, visited = m, np.zeros(m + 1, bool)
        slack, previous = np.full(m, np.inf), np.full(m, m)
        while row_of[column] >= 0:
            visited[column] = True
            i = row_of[column]
            reduced = c[i] - row_price[i] - column_price[:m]
            better = ~visited[:m] & (reduced < slack)
            slack[better], previous[better] = reduced[better], column
            column = int(np.argmin(np.where(visited[:m], np.inf, slack)))
            step = slack[column]
            row_price[row_of[visited]] += step
            column_price[visited] -= step
            slack[~visited[:m]] -= step
        while column != m:
            row_of[column] = row_of[previous[column]]
            column = int(previous[column])
    return sorted((int(row_of[j]), j) for j in range(m) if row_of[j] >= 0)


def _positions(boxes: ArrayLike) -> NDArray[np.float64]:
    """(N, 4) boxes -> (N, 3) centre x, centre y, log side."""
    b = np.asarray(boxes, np.float64)
    sides = np.maximum(b[:, 2:] - b[:, :2], 1e-3)
    return np.column_stack([(b[:, :2] + b[:, 2:]) / 2, np.log(sides.prod(axis=1)) / 2])


def _box(position: NDArray[np.float64]) -> Float32:
    half = np.exp(position[2]) / 2
    return np.concatenate([position[:2] - half, position[:2] + half]).astype(np.float32)
