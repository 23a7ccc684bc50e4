"""Re-identification: a gallery of recently seen faces, and what a new look says about a track.

Position identifies a face as long as no other is near and none is missed; else appearance does. A
look is an embedding (`core.appearance`): faces of one person point the same way. A face that was
lost is taken up again when a look is close enough to its gallery entry, clearly closer than to any
other, and closer than any two people are who were seen side by side: these are certainly two, so
that the scene itself says how alike different people look. In case of doubt it is a new person.

A look may be told some frames late: it counts as of its own frame, so that it takes no doubt back
that arose since, and a face that was still followed then is not found again in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.gallery import GalleryEntry
from face_recon_ros.core.ranges import check_ranges, ranged

Array = NDArray[np.float64]

_EARLY_LOOKS, _EARLY_S = 3, 0.3  # the first looks follow each other faster
_SURE_LOOKS = 2  # that agree make a person new: one may have missed the face
_PATIENCE = 4  # looks at a face that seems to be another track's, until that one is looked at
_ONE = 0.85  # similarity of two lost faces, never seen side by side, that are one person's
_YOUNG_S = 2.0  # a track that began so shortly before another ended may be that one's person


@dataclass(frozen=True)
class ReIdentificationConfig:
    """When two looks are of one person. Similarities are cosines of embeddings.

    Attributes:
        memory_s: A lost face is remembered for this time in seconds; 0 remembers none.
        look_every_s: A known face is looked at again after this time in seconds.
        same: A face is taken for a known person if their similarity is at least this.
        different: A face is no longer the track's person if the similarity falls below
            this.
        margin: A match must lead the next similar person, and people seen side by side, by
            this similarity.
        max_anonymous_s: A face is held back for up to this time in seconds while it might be a
            lost one, or while its track might have moved on to another face.
    """

    memory_s: float = ranged(30.0, 0.0, 3600.0)
    look_every_s: float = ranged(2.0, 0.0, 3600.0)
    same: float = ranged(0.45, -1.0, 1.0)
    different: float = ranged(0.2, -1.0, 1.0)
    margin: float = ranged(0.05, 0.0, 1.0)
    max_anonymous_s: float = ranged(0.8, 0.0, 60.0)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.different > self.same:
            raise ConfigError(
                "different <= same",
                f"{self.different} and {self.same}",
                "0.2 and 0.45 fit the embedding network that ships",
            )


class ReIdentifier:
    """Keeps a gallery entry per id. Per frame: `follow`, then `see` with the looks there are."""

    def __init__(
        self, new_id: Callable[[], str], config: ReIdentificationConfig | None = None
    ) -> None:
        """Starts without people.

        Args:
            new_id: makes an id that was never used.
            config: see there.
        """
        self.config = config or ReIdentificationConfig()
        self._new_id = new_id
        self._people: dict[str, GalleryEntry] = {}
        self._active: set[str] = set()
        self._stamp = 0.0
        self._seen_at = 0.0  # stamp of the looks that `see` is at
        self._elsewhere: set[str] = set()  # who was followed then, and is lost by now

    def reset(self) -> None:
        """Forgets all people."""
        self._people, self._active = {}, set()

    def follow(self, ids: Iterable[str], stamp: float, waiting: Iterable[str] = ()) -> None:
        """Says which tracks a frame has.

        Args:
            ids: of all tracks that show a face; those unheard of are new.
            stamp: seconds, of the frame.
            waiting: ids of tracks that may show theirs again. Until then it may be that another
                track shows it.
        """
        before, waiting = self._active, set(waiting)
        self._stamp, self._active = stamp, set(ids)
        for name in self._active:
            self._people.setdefault(name, GalleryEntry(stamp, stamp)).seen = stamp
        self._people = {
            name: person
            for name, person in self._people.items()
            if name in self._active | waiting
            or (person.shown and person.looks and stamp - person.seen <= self.config.memory_s)
        }
        lost = self._lost()
        if ended := lost & before:
            last = min(self._people[name].seen for name in ended)
            for name in self._active:
                self._people[name].settled &= self._people[name].began < last - _YOUNG_S
        for name in self._active:
            person = self._people[name]
            # No one is missing: this is a new person.
            person.settled |= not lost and person.looks > 0
            person.shown |= not self.is_anonymous(name)

    def side_by_side(self, ids: Iterable[str]) -> None:
        """Says that these tracks surely show different people: all detected in one frame.

        Not those in doubt or never looked at: it is not sure that they show a person of their own.
        """
        known = ((name, self._people.get(name)) for name in ids)
        names = {name for name, p in known if p is not None and p.looks and np.isinf(p.contested)}
        for name in names:
            self._people[name].beside |= names - {name}

    def postpone(self, name: str) -> None:
        """Notes that a track shows no face: its time for identification has not begun."""
        person = self._people.get(name)
        if person is not None and not person.shown:
            person.began = self._stamp

    def contest(self, name: str) -> None:
        """Says that a track may have moved on to another face: it is looked at soon."""
        if name in self._people:
            self._people[name].contest(self._stamp)

    def doubt(self, name: str) -> None:
        """Says that a track may be on another's face as well as on its own: a look must tell."""
        person = self._people.get(name)
        if person is not None and person.looks:
            person.doubt(self._stamp)

    def is_anonymous(self, name: str) -> bool:
        """Whether a track must not be shown yet, as it may turn out to be another person.

        Only for `max_anonymous_s`: while a person is missing, or while it is in doubt.
        """
        person = self._people.get(name)
        if person is None:
            return False
        in_doubt = 0.0 <= self._stamp - person.doubted < self.config.max_anonymous_s
        new = not person.settled and self._stamp - person.began < self.config.max_anonymous_s
        return in_doubt or (new and bool(self._lost()))

    def is_settled(self, name: str) -> bool:
        """Whether a track's id stands: looks have said so, or no known person is missing."""
        person = self._people.get(name)
        return person is not None and person.settled

    def wanted(self) -> list[str]:
        """Tracks whose face should be looked at, the most urgent first."""
        due = []
        for name in self._active:
            person = self._people[name]
            since = self._stamp - person.looked
            pause = _EARLY_S if person.looks < _EARLY_LOOKS else self.config.look_every_s
            in_doubt = np.isfinite(person.contested)
            urgent = (not person.settled and bool(self._lost())) or in_doubt
            hidden = self.is_anonymous(name)
            if hidden or since >= (_EARLY_S if urgent else pause):
                first = hidden and since >= _EARLY_S
                due.append((not first, not urgent, person.looked, name))
        return [name for *_, name in sorted(due)]

    def see(self, looks: Mapping[str, ArrayLike], stamp: float | None = None) -> dict[str, str]:
        """Looks at faces of a frame.

        Args:
            looks: track id -> (D,) embedding of its face.
            stamp: seconds, of the frame; None: the one just followed.

        Returns:
            old id -> new id, of tracks that turned out to be another person.
        """
        at = self._seen_at = self._stamp if stamp is None else stamp
        late = (n for n, p in self._people.items() if at < self._stamp and p.seen >= at)
        self._elsewhere = set(late) - self._active
        useful = {}
        for name, look in looks.items():
            vector = np.asarray(look, np.float64)
            length = np.linalg.norm(vector)
            if name in self._active and np.isfinite(length) and length > 0.0:
                useful[name] = vector / length
                self._people[name].looked = at
        # Those who are not themselves are out of their ids before these are given away.
        strangers = [
            name
            for name, look in useful.items()
            if self._people[name].settled and not self._is_still(self._people[name], look)
        ]
        self._active -= set(strangers)
        renamed: dict[str, str] = {}
        for name, look in useful.items():
            if name in strangers:
                final = self._taken_up(name, look) or self._trade(name, look, renamed)
                if not final and self._asks_another(name, look):
                    self._active.add(name)
                    continue
                renamed[name] = self._become(name, final or self._new_id(), look)
                self._people[renamed[name]].settled = bool(final)  # new, or one look misled
            elif not self._people[name].settled and name not in renamed:
                final = self._settle(name, look)
                if final != name:
                    renamed[name] = final
        return renamed

    def _is_still(self, person: GalleryEntry, look: Array) -> bool:
        """Whether a look at a known person is of that person; learns it if it is."""
        own = person.likeness(look) if person.looks else 1.0
        others = (p for p in self._people.values() if p is not person and p.looks)
        rival = max((other.likeness(look) for other in others), default=-1.0)
        lead = own - rival
        against = rival >= self.config.same and lead <= -2 * self.config.margin
        if own >= self.config.different and not against:
            sure = own >= self.config.same and person.contested > self._seen_at
            if sure or lead >= self.config.margin:  # else it says nothing
                person.learn(look)
                person.clear(self._seen_at)
            return True
        person.strikes += 1
        if person.strikes < 2 and person.contested > self._seen_at:
            person.doubt(self._stamp)  # a second look decides, at once
            return True
        return False

    def _settle(self, name: str, look: Array) -> str:
        """A look at a new track: takes up a lost id, or keeps its own, once that is sure."""
        person = self._people[name]
        differs = person.mean is not None and float(person.mean @ look) < self.config.different
        if person.contested <= self._seen_at or differs:
            # one of the two saw no face, or another's
            person.total, person.looks, person.views = None, 0, []
        person.learn(look)
        person.uncontest(self._seen_at)
        mean = person.mean
        assert mean is not None
        if best := self._taken_up(name, look) or self._taken_up(name, mean):
            return self._become(name, best, look)
        self._asks_another(name, mean)
        close = max((s for s, _ in self._similarities(name, mean, self._lost())), default=-1.0)
        clear = close < self.config.same - self.config.margin and person.looks >= _SURE_LOOKS
        person.settled = clear or person.looks >= _EARLY_LOOKS
        return name

    def _trade(self, name: str, look: Array, renamed: dict[str, str]) -> str:
        """The other of two whose tracks met, if it has this one's id; empty if not.

        The other track gets this one's id in exchange, and is looked at soon.
        """
        (_, best), *_ = self._similarities(name, look, self._people) or [(0.0, "")]
        if not (best in self._active and np.isfinite(self._people[best].contested)):
            return ""
        if not self._is(best, self._similarities(name, look, self._people)):
            return ""
        self._active.discard(best)
        self._active.add(name)
        renamed[best] = name
        self._people[name].contested, self._people[name].strikes = self._stamp, 0
        self._people[name].looked = -np.inf
        return best

    def _asks_another(self, name: str, look: Array) -> bool:
        """Whether it looks like the face of another track, which is then looked at first.

        Two tracks may have traded faces unseen; if the other one is itself, this is a new face.
        """
        similar = self._similarities(name, look, self._people)
        if not similar or not self._is(similar[0][1], similar):
            return False
        best = similar[0][1]
        other = self._people[best]
        unseen = best in self._active and self._stamp - other.looked > _EARLY_S
        if not unseen or self._people[name].strikes > _PATIENCE:
            return False
        self.doubt(best)
        return True

    def _become(self, name: str, final: str, look: Array) -> str:
        """Hands a track over to another id. What it showed before stays with the old one."""
        was = self._people[name]
        was.beside.clear()  # it was not this person that was seen there
        now = self._people.setdefault(final, GalleryEntry(self._stamp, self._stamp))
        if not was.settled:  # it was this one all the time
            del self._people[name]
            self._active.discard(name)
        now.beside.clear()
        now.learn(look)
        now.settled, now.seen, now.looked = True, self._stamp, self._seen_at
        now.contested, now.contested_last = was.contested, was.contested_last
        now.doubted, now.doubted_last = was.doubted, was.doubted_last
        now.clear(self._seen_at)
        if was.settled and name not in self._active:
            was.contested, was.strikes = np.inf, 0
        self._active.add(final)
        return final

    def _lost(self) -> set[str]:
        return {
            name
            for name, person in self._people.items()
            if name not in self._active and person.looks > 0 and person.shown
        }

    def _similarities(
        self, name: str, look: Array, among: Iterable[str]
    ) -> list[tuple[float, str]]:
        found = []
        for other in among:
            person = self._people[other]
            if other != name and person.looks:
                found.append((person.likeness(look), other))
        return sorted(found, reverse=True)

    def _taken_up(self, name: str, look: Array) -> str:
        """The lost person that a look is of; empty when in doubt."""
        similar = self._similarities(name, look, self._people)
        best = similar[0][1] if similar else ""
        if not best or best in self._active | self._elsewhere or not self._is(best, similar):
            return ""
        ids = [best, *(other for _, other in similar[1:] if self._are_one(best, other))]
        return min(ids, key=lambda other: self._people[other].began)

    def _are_one(self, first: str, second: str) -> bool:
        """Whether two lost ids are of one person, who was not known again in between."""
        a, b = self._people[first], self._people[second]
        if {first, second} & self._active or second in a.with_others or first in b.with_others:
            return False
        assert a.mean is not None and b.mean is not None
        return float(a.mean @ b.mean) >= _ONE

    def _is(self, best: str, similar: list[tuple[float, str]]) -> bool:
        """Whether a look is of the most similar person, and surely of no other.

        Who surely is elsewhere in the image is no other.
        """
        closeness = similar[0][0]
        certain = {n for n in self._active if self._is_certain(n)}
        rivals = [
            other
            for other in similar[1:]
            if other[1] not in certain and not self._are_one(best, other[1])
        ]
        lead = closeness - (rivals[0][0] if rivals else -1.0)
        return lead >= self.config.margin and closeness >= self._bar(best)

    def _is_certain(self, name: str) -> bool:
        person = self._people[name]
        return person.settled and bool(np.isinf(person.contested))

    def _bar(self, name: str) -> float:
        """Least similarity to be this person: more than people have who were seen beside."""
        person = self._people[name]
        mean = person.mean
        assert mean is not None
        others = (self._people[n] for n in person.with_others & self._people.keys())
        means = [other.mean for other in others]
        alike_ones = sorted((float(mean @ m) for m in means if m is not None), reverse=True)
        alike = alike_ones[0] + self.config.margin / 2 if alike_ones else -1.0
        return max(self.config.same, alike)
