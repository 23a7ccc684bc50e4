"""Multi-object tracking metrics as the field has them: MOTA, IDF1, id switches; and ghosts.

CLEAR MOT (Bernardin and Stiefelhagen 2008) and identity metrics (Ristani et al. 2016), by the
definitions of py-motmetrics: a person's last match is kept, also over a gap, while it holds; the
rest is assigned for the least distance; a person whose track id differs from the last is switched.
Faces that are hardly to be seen count neither way, as in MOTChallenge: what is found there is
taken out before anything is counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.assignment import assign
from face_recon_ros.core.boxes import iou

_FORBIDDEN = 1e6

DEFINITIONS = {
    "match": "intersection over union of at least min_iou of true and found face box; a "
    "person's last match is kept while it holds, the rest by least-cost assignment",
    "mota": "1 - (misses + false_positives + id_switches) / faces",
    "idf1": "F1 of faces found under the one id that fits a person best over the whole sequence",
    "id_switches": "matches of a person under another id than the last match",
    "ghosts": "tracks on no face at all (IoU under ghost_iou) for more than ghost_s at a time",
    "returns": "people seen again after at least return_s: with the id of before, with another "
    "person's (wrong), or with a new one; by the id they have most of the time in the return_s "
    "that follow",
    "unclear": "faces turned away, covered or small count neither way",
}


@dataclass(frozen=True)
class TrueFace:
    """A face that is there.

    Attributes:
        person: who.
        box: (4,) face box, pixels.
        clear: it can be asked for; else it counts neither way.
    """

    person: str
    box: NDArray[np.float64]
    clear: bool = True


@dataclass(frozen=True)
class FoundFace:
    """A face that was found.

    Attributes:
        id: of its track.
        box: (4,) face box, pixels.
    """

    id: str
    box: NDArray[np.float64]


@dataclass(frozen=True)
class MotConfig:
    """What counts.

    Attributes:
        min_iou: of a match.
        ghost_iou: a track that shares less with every face, clear or not, is on none.
        ghost_s: seconds on no face that make a ghost.
        return_s: seconds of absence that make a return.
    """

    min_iou: float = 0.5
    ghost_iou: float = 0.1
    ghost_s: float = 0.2
    return_s: float = 5.0


@dataclass
class MotAccumulator:
    """Frames in, figures out. Stamps rise."""

    config: MotConfig = field(default_factory=MotConfig)
    faces: int = 0
    found: int = 0
    matches: int = 0
    id_switches: int = 0
    frames: int = 0
    _last_id: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, str] = field(default_factory=dict)
    _together: Counter[tuple[str, str]] = field(default_factory=Counter)
    _of_person: Counter[str] = field(default_factory=Counter)
    _of_track: Counter[str] = field(default_factory=Counter)
    _haunting: dict[str, float] = field(default_factory=dict)
    _counted: set[str] = field(default_factory=set)
    ghosts: list[dict[str, Any]] = field(default_factory=list)
    switches: list[dict[str, Any]] = field(default_factory=list)
    _ids_of: dict[str, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    _stamps: list[float] = field(default_factory=list)

    def add(self, stamp: float, truth: Iterable[TrueFace], found: Iterable[FoundFace]) -> None:
        """Counts a frame.

        Args:
            stamp: seconds.
            truth: all faces that are there.
            found: all faces that were found.
        """
        true, hypotheses = list(truth), list(found)
        self._stamps.append(stamp)
        self.frames += 1
        shared = iou(_boxes(true), _boxes(hypotheses))
        self._look_for_ghosts(stamp, hypotheses, shared)
        pairs = self._match(true, hypotheses, shared)
        self._kept.update((true[i].person, hypotheses[j].id) for i, j in pairs)
        unclear = {j for i, j in pairs if not true[i].clear}
        self.faces += sum(bool(t.clear) for t in true)
        self.found += len(hypotheses) - len(unclear)
        self._of_person.update(t.person for t in true if t.clear)
        self._of_track.update(h.id for j, h in enumerate(hypotheses) if j not in unclear)
        for i, j in pairs:
            if j in unclear:
                continue
            person, track = true[i].person, hypotheses[j].id
            self.matches += 1
            self._together[person, track] += 1
            self._ids_of[person].append((stamp, track))
            last = self._last_id.get(person, track)
            if last != track:
                self.id_switches += 1
                self.switches.append({"stamp": stamp, "person": person, "ids": [last, track]})
            self._last_id[person] = track

    def _match(
        self, true: list[TrueFace], found: list[FoundFace], shared: NDArray[np.float64]
    ) -> list[tuple[int, int]]:
        columns = {h.id: j for j, h in enumerate(found)}
        pairs: list[tuple[int, int]] = []
        for i, t in enumerate(true):
            j = columns.get(self._kept.get(t.person, ""), -1)
            taken = any(j == other for _, other in pairs)
            if j >= 0 and not taken and shared[i, j] >= self.config.min_iou:
                pairs.append((i, j))
        rows = [i for i in range(len(true)) if i not in {i for i, _ in pairs}]
        free = [j for j in range(len(found)) if j not in {j for _, j in pairs}]
        cost = np.where(
            shared[np.ix_(rows, free)] >= self.config.min_iou,
            1.0 - shared[np.ix_(rows, free)],
            _FORBIDDEN,
        )
        pairs += [(rows[a], free[b]) for a, b in assign(cost) if cost[a, b] < _FORBIDDEN]
        return pairs

    def _look_for_ghosts(
        self, stamp: float, found: list[FoundFace], shared: NDArray[np.float64]
    ) -> None:
        nowhere = {
            h.id
            for j, h in enumerate(found)
            if shared[:, j].max(initial=0.0) < self.config.ghost_iou
        }
        self._haunting = {name: self._haunting.get(name, stamp) for name in nowhere}
        self._counted &= nowhere
        for name, since in self._haunting.items():
            if stamp - since > self.config.ghost_s + 1e-9 and name not in self._counted:
                self._counted.add(name)
                self.ghosts.append({"stamp": since, "id": name})

    def figures(self) -> dict[str, Any]:
        """All figures; NaN where nothing was asked for."""
        misses, false = self.faces - self.matches, self.found - self.matches
        duration = self._stamps[-1] - self._stamps[0] if len(self._stamps) > 1 else 0.0
        wrong = misses + false + self.id_switches
        return {
            "frames": self.frames,
            "duration_s": duration,
            "people": len(self._of_person),
            "tracks": len(self._of_track),
            "faces": self.faces,
            "recall": _share(self.matches, self.faces),
            "precision": _share(self.matches, self.found),
            "mota": 1.0 - _share(wrong, self.faces),
            "idf1": _share(2 * self._identity_matches(), self.faces + self.found),
            "id_switches": self.id_switches,
            "misses": misses,
            "false_positives": false,
            "ghosts": len(self.ghosts),
            "ghosts_per_minute": 60.0 * _share(len(self.ghosts), duration),
            "returns": self._returns(),
            "switch_list": self.switches,
            "ghost_list": self.ghosts,
        }

    def _identity_matches(self) -> int:
        """Frames in which people have the id that the best one-to-one assignment gives them."""
        people, tracks = list(self._of_person), list(self._of_track)
        gain = np.array([[self._together[p, t] for t in tracks] for p in people], float)
        gain = gain.reshape(len(people), len(tracks))
        return int(sum(gain[i, j] for i, j in assign(-gain)))

    def _returns(self) -> dict[str, int]:
        counts = {"same": 0, "wrong": 0, "new": 0}
        pause = self.config.return_s
        owner: dict[str, str] = {}  # who had an id first
        for _stamp, person, track in sorted(
            (s, p, t) for p, seen in self._ids_of.items() for s, t in seen
        ):
            owner.setdefault(track, person)
        for person, seen in self._ids_of.items():
            for k in range(1, len(seen)):
                back = seen[k][0]
                if back - seen[k - 1][0] < pause:
                    continue
                before = Counter(t for s, t in seen[:k] if s >= seen[k - 1][0] - pause)
                after = Counter(t for s, t in seen[k:] if s <= back + pause)
                track = after.most_common(1)[0][0]
                same = track == before.most_common(1)[0][0]
                counts["same" if same else "new" if owner[track] == person else "wrong"] += 1
        return counts


def _boxes(faces: list[Any]) -> NDArray[np.float64]:
    return np.array([face.box for face in faces], np.float64).reshape(-1, 4)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
