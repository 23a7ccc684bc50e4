"""Who is who from frame to frame: short stable ids, prediction between detections.

A track moves with constant velocity in x, y and log size. Detections are assigned to predicted
boxes for the least total cost; between detections the box of the reconstructed mesh takes their
place (`confirm`), so the detector need not run on every frame. Only a detection keeps a track
alive, as the network makes a mesh of anything; after `max_undetected_s` without one it ends.
It stays `visible` for `max_tentative_s` only, or while the network's presence says it is a face.

Place, size and motion say who a face is as long as it is followed without a gap. After a crossing,
a gap or a cut appearance says it (`core.reidentification`); a track whose match is unclear is not
`visible` until then. Time is an argument.
"""

from __future__ import annotations

import copy
import random
import string
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core import association
from face_recon_ros.core.assignment import assign
from face_recon_ros.core.association import FORBIDDEN, POOR, SAME_FACE, near
from face_recon_ros.core.boxes import iou
from face_recon_ros.core.reidentification import ReIdentifier
from face_recon_ros.core.track_state import TrackState, box_of, position_of
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.types import Detections, Float32, Track

_DETECTION_PULL = 0.2  # least share of the detector's box where the mesh closes the loop
_MESH_CAUTION = 0.6  # share of the gates within which a mesh may differ from the prediction
_SURE = 0.7  # IoU of mesh and detection that lets the detector rest
_INSIDE = 0.5  # share of a box within the image below which nothing is seen of a face there
_MAX_GROWTH = np.log(1.35)  # of a mesh's box over the last detected one
_JUMP = np.log(1.15)  # of a mesh's box from one image to the next: more than a walker grows
_TURNED_AWAY = np.radians(65.0)  # from the camera: a face missed then has turned on, most likely
_NO_FACE = np.radians(95.0)  # a mesh turned farther shows none, unless the detector finds it
_USUAL_RATE_HZ = 30.0  # of cameras; slower ones have the detector look as often as these
_PROVEN = 3  # detections after the first that earn a track its full patience
_ID_LENGTH = 5  # REP-155


class Tracker:
    """Follows faces. Per frame: `needs_detection`, `update` or `predict`, `identify`, `confirm`.

    The last two are left out where the mesh is made elsewhere; detections then place the boxes
    alone, and no one is recognised after `max_undetected_s`.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        """Starts with no track."""
        self.config = config or TrackerConfig()
        self._random = random.Random(self.config.seed)
        self._used_ids: set[str] = set()
        self._states: list[TrackState] = []
        self._hidden: list[TrackState] = []  # lost recently, perhaps occluded: may return
        self._stamp: float | None = None
        self._detection_stamp = 0.0
        self._image: tuple[int, int] | None = None
        self._frames_since_detection = 0
        self._people = ReIdentifier(self._new_id, self.config.reidentification)

    @property
    def tracks(self) -> list[Track]:
        """The tracks as of the last frame, oldest first."""
        return [state.track for state in self._states]

    @property
    def visible(self) -> list[Track]:
        """The tracks that show a face of their own.

        Not those the detector misses for `max_tentative_s`: who left would else be a ghost in
        its place for as long as its track lives. Where the network gives a presence score, that
        says it better. Nor those that may turn out to be a lost person (`identify`).
        """
        return [
            state.track
            for state in self._states
            if self._shows_face(state) and not self._people.is_anonymous(state.track.id)
        ]

    def _shows_face(self, state: TrackState) -> bool:
        if state.covered or self._outside(state.track.box):
            return False
        if state.presence is not None:
            return state.presence >= self.config.min_presence
        if state.turn > _NO_FACE and state.detected_stamp < state.track.stamp:
            return False
        unsure_s = state.track.stamp - state.sure_stamp
        if state.turn >= _TURNED_AWAY:
            undetected_s = state.track.stamp - state.detected_stamp
            return not state.missed and undetected_s <= self.config.max_tentative_s
        return not state.missed or unsure_s <= self.config.max_tentative_s

    def reset(self, seed: int | None = None) -> None:
        """Forgets all tracks and people; their ids stay used.

        Args:
            seed: of the ids from now on; None: they go on as they would.
        """
        if seed is not None:
            self._random = random.Random(seed)
        self._people.reset()
        self.cut()

    def cut(self) -> None:
        """Ends all tracks, as another scene begins: who is still there is known by appearance."""
        self._states, self._hidden = [], []
        self._stamp = None

    def set_image_size(self, width: int, height: int) -> None:
        """Says how large the images are, pixels: who walks out of them is gone."""
        self._image = width, height

    def _outside(self, box: ArrayLike) -> bool:
        """Whether so little of a (4,) box lies within the image that no face is seen there."""
        if self._image is None:
            return False
        width, height = self._image
        x0, y0, x1, y1 = np.asarray(box, np.float64).tolist()
        inner = max(min(x1, width) - max(x0, 0.0), 0.0) * max(min(y1, height) - max(y0, 0.0), 0.0)
        return bool(inner < _INSIDE * (x1 - x0) * (y1 - y0))

    def expected(self, stamp: float) -> list[Track]:
        """The tracks where they will be at a later stamp, in seconds; nothing is changed."""
        before = stamp if self._stamp is None else self._stamp
        states = [copy.copy(state) for state in self._states]
        for state in states:
            state.advance(before, stamp, state.track.score)
        return [state.track for state in states]

    def needs_detection(self, stamp: float, ahead: int = 0) -> bool:
        """Whether the detector should look at the frame of this stamp (seconds).

        `ahead`: as its answer comes so many frames later.
        """
        return (
            not self._states
            or self._jumped(stamp)
            or self._frames_since_detection + 1 + ahead >= self.config.detect_every
            or stamp - self._detection_stamp > self.config.max_undetected_s / 2
            or stamp - self._detection_stamp >= self.config.detect_every / _USUAL_RATE_HZ - 1e-3
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
        self._follow_people(stamp)
        return self.tracks

    def update(self, detections: Detections, stamp: float) -> list[Track]:
        """Moves all tracks on to a frame the detector looked at.

        Args:
            detections: what it found; may be empty.
            stamp: seconds, of the frame.

        Returns:
            The tracks, corrected; new ones for unclaimed detections.
        """
        self._advance(stamp)
        self._frames_since_detection = 0
        self._detection_stamp = stamp
        candidates = [*self._states, *self._hidden]
        places = np.array([s.track.box for s in candidates], np.float64).reshape(-1, 4)
        reach = np.array([association.reach(s, stamp, self.config) for s in candidates])
        cost = association.costs(places, detections, self.config, reach)
        shared = iou(places, detections.boxes)
        returning = association.costs_of_return(candidates, detections, stamp, self.config, reach)
        followed = len(self._states)
        cost[followed:] = FORBIDDEN  # out of sight: only where they would be by now
        least = np.minimum(cost, returning)
        matches = [(i, j) for i, j in assign(least) if least[i, j] < FORBIDDEN]
        unclear = association.unclear(least, matches)
        contested: list[str] = []
        doubted: list[str] = []
        for i, j in matches:
            state, score = candidates[i], float(detections.scores[j])
            again = state.missed or i >= followed or not self._shows_face(state)
            leaps = reach[i] > self.config.max_distance and not shared[i, j]
            if again or leaps:
                contested.append(state.track.id)
            met = (again or leaps) and state.touched(stamp)
            if i in unclear or met or least[i, j] > POOR:
                doubted.append(state.track.id)
            if cost[i, j] < FORBIDDEN:
                self._detected(state, detections.boxes[j], score, stamp)
            elif i < followed or len(self._states) < self.config.max_faces:
                self._reactivate(state, detections.boxes[j], score, stamp)
        claimed = {j for _, j in matches}
        places = np.array([s.track.box for s in self._states]).reshape(-1, 4)
        for state, looked_at in zip(self._states, detections.looked_at(places), strict=True):
            if looked_at:
                state.looked_stamp = stamp
            if state.looked_stamp == stamp:
                state.tentative = state.detected_stamp != stamp
        self._drop_lost(stamp)
        sides = detections.boxes[:, 2] - detections.boxes[:, 0]
        for j in np.lexsort([-detections.scores, -sides]):  # near people first
            if int(j) not in claimed:
                self._begin(detections.boxes[j], float(detections.scores[j]), stamp)
        self._follow_people(stamp)
        for name in contested:
            self._people.contest(name)
        for name in doubted:
            self._people.doubt(name)
        return self.tracks

    def wants_appearance(self) -> list[str]:
        """Tracks whose face should be embedded in this frame, the most urgent first.

        None that the detector misses, and none known that another face may cover.
        """
        whole = {
            state.track.id
            for state, behind in zip(self._states, association.behind(self._states), strict=True)
            if not (state.missed or state.tentative)
            and not (behind and self._people.is_settled(state.track.id))
            and (state.presence is None or state.presence >= self.config.min_presence)
        }
        return [name for name in self._people.wanted() if name in whole]

    def identify(
        self, embeddings: Mapping[str, ArrayLike], stamp: float | None = None
    ) -> dict[str, str]:
        """Takes up the ids of people seen before; see `ReIdentifier.see`.

        Returns:
            old id -> new id, of the tracks that turned out to show another person.
        """
        renamed = self._people.see(embeddings, stamp)
        taken = set(renamed.values())
        self._hidden = [s for s in self._hidden if s.track.id not in taken]
        kept = []
        for state in self._states:
            if new := renamed.get(state.track.id):
                state.track = replace(state.track, id=new)
            elif state.track.id in taken:
                continue  # it lags behind a face that another track has found
            kept.append(state)
        self._states = kept
        return renamed

    def _follow_people(self, stamp: float) -> None:
        # Who is hidden and not detected may be elsewhere by now, under another track.
        here = (s for s in self._states if not s.tentative or self._shows_face(s))
        waiting = (s.track.id for s in (*self._states, *self._hidden))
        self._people.follow([s.track.id for s in here if not s.missed], stamp, waiting)
        self._people.side_by_side(
            s.track.id for s in self._states if s.detected_stamp == stamp and not s.tentative
        )
        for state, touching in zip(self._states, self.touching(), strict=True):
            if touching:
                state.touched_stamp = stamp
                self._people.contest(state.track.id)
            if not self._shows_face(state):
                self._people.postpone(state.track.id)

    def touching(self) -> NDArray[np.bool_]:
        """(tracks,) whether it may be taken for another face of the last frame."""
        return np.asarray(association.touching(self._states).any(axis=1))

    def confirm(
        self,
        boxes: Mapping[str, ArrayLike],
        presence: Mapping[str, float] | None = None,
        turns: Mapping[str, float] | None = None,
    ) -> None:
        """Corrects tracks by the boxes of their reconstructed meshes, for the frame just tracked.

        A box that is not about where the track is, or was not about where the detector last saw
        the face, makes the track tentative instead, and so does a low presence score: the detector
        then looks at the next frame.

        Args:
            boxes: track id -> (4,) face box, image pixels. Ids of no track are ignored.
            presence: track id -> the network's score in [0, 1] that this is a face; None where it
                gives none.
            turns: track id -> angle between the face's direction and the ray to the camera,
                radians.
        """
        covered = association.covered(self._states, boxes)
        for state, touching in zip(self._states, self.touching(), strict=True):
            state.covered = state.track.id in covered
            if state.covered:
                state.tentative = True
            if state.covered or state.track.id not in boxes:
                continue
            seen = (presence or {}).get(state.track.id)
            if seen is not None and np.isfinite(seen):
                state.see_presence(float(seen))
            if state.detected_stamp == self._stamp:
                state.turn = 0.0  # from a face turned away a mesh comes back as it likes
            state.turn = max(state.turn, (turns or {}).get(state.track.id, 0.0))
            box = np.asarray(boxes[state.track.id], np.float64)
            if self._jumps(state, box):
                self._people.doubt(state.track.id)
            plausible = self._plausible(state, box)
            if state.detected_stamp == self._stamp:
                detected = box_of(state.detected_position)
                agreement = iou(box, detected)[0, 0] if plausible else 0.0
                state.closed_loop = agreement > SAME_FACE
                state.tentative = agreement < _SURE
            if plausible and state.closed_loop and not (state.missed and touching):
                state.measure(box, 1.0)
                if not state.missed:
                    state.sure_stamp = state.track.stamp
            else:
                state.tentative = True
            state.tentative |= not self._shows_face(state)

    def _jumps(self, state: TrackState, box: NDArray[np.float64]) -> bool:
        """Whether a mesh is that much larger or smaller than it was that it may be another's."""
        grown = abs(position_of(box)[2] - state.anchor_position[2])
        return state.closed_loop and state.touched(state.track.stamp) and bool(grown > _JUMP)

    def _jumped(self, stamp: float) -> bool:
        return self._stamp is not None and not (
            0.0 <= stamp - self._stamp <= self.config.max_gap_s
        )

    def _advance(self, stamp: float) -> None:
        if self._jumped(stamp):
            if self._stamp is not None and stamp < self._stamp:
                self.reset()
            self.cut()
        before = stamp if self._stamp is None else self._stamp
        self._stamp = stamp
        for state in self._states:
            state.advance(before, stamp, self._score(state, stamp))

    def _score(self, state: TrackState, stamp: float) -> float:
        if state.presence is not None:
            return state.presence
        if not state.tentative:
            return state.detected_score
        undetected = (stamp - state.detected_stamp) / max(self.config.max_undetected_s, 1e-9)
        return state.detected_score * max(0.0, 1.0 - undetected)

    def _detected(self, state: TrackState, box: Float32, score: float, stamp: float) -> None:
        # Where the mesh closes the loop it is steadier than the detector, which then pulls gently,
        # but the harder the less they agree.
        gain = 1.0
        if state.closed_loop and not state.tentative:
            apart = 1.0 - iou(box, state.track.box)[0, 0]
            gain = float(np.clip(apart / SAME_FACE, _DETECTION_PULL, 1.0))
        state.detect(box, gain, score, stamp)

    def _plausible(self, state: TrackState, box: NDArray[np.float64]) -> bool:
        if not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
            return False
        if self._outside(box):
            return False
        found = position_of(box)
        grown = abs(found[2] - state.detected_position[2])  # walls make meshes grow and shrink
        return grown <= _MAX_GROWTH and near(found, state.position, self.config, _MESH_CAUTION)

    def _alive(self, state: TrackState) -> bool:
        """Whether an undetected track may be a face: seen lately, often enough, near there."""
        patience = self.config.max_undetected_s * min(1.0, (state.detections - 1) / _PROVEN)
        if state.presence is not None and not (state.covered or self._shows_face(state)):
            patience = min(patience, self.config.max_tentative_s)
        elif state.presence is not None:
            patience = max(patience, self.config.max_tentative_s)
        unseen = state.looked_stamp - state.detected_stamp
        return unseen <= patience and (
            unseen == 0.0
            or near(state.position, state.detected_position, self.config)
            or near(state.position, state.walked(state.track.stamp), self.config)
        )

    def _drop_lost(self, stamp: float) -> None:
        """Ends tracks undetected for too long, and those that slid onto another person's face."""
        kept: list[TrackState] = []
        for state in sorted(self._states, key=lambda s: (s.tentative, -s.track.age)):
            boxes = np.array([s.track.box for s in kept]).reshape(-1, 4)
            alone = iou(state.track.box, boxes).max(initial=0.0) <= SAME_FACE
            if self._alive(state) and (alone or not state.tentative):
                kept.append(state)
            else:
                self._hidden.append(state)
        self._states = [s for s in self._states if any(s is k for k in kept)]
        self._hidden = [
            s for s in self._hidden if s.may_reactivate(stamp, self.config.max_undetected_s)
        ]

    def _reactivate(self, state: TrackState, box: Float32, score: float, stamp: float) -> None:
        """Takes up a track again that was out of sight."""
        if not any(state is s for s in self._states):
            self._hidden = [s for s in self._hidden if s is not state]
            self._states.append(state)
        state.reactivate(box, score, stamp)

    def _begin(self, box: Float32, score: float, stamp: float) -> None:
        known = np.array([s.track.box for s in self._states]).reshape(-1, 4)
        if len(known) < self.config.max_faces and iou(box, known).max(initial=0) <= SAME_FACE:
            self._states.append(TrackState.begin(self._new_id(), box, score, stamp))

    def _new_id(self) -> str:
        while True:
            new = "".join(self._random.choices(string.ascii_lowercase, k=_ID_LENGTH))
            if new not in self._used_ids:
                self._used_ids.add(new)
                return new
