"""The gallery of recently seen faces: what is remembered of each person."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_VIEWS, _ONE_VIEW = 5, 0.9  # looks remembered one by one; of those more alike only the last
_MEMORY_LOOKS = 30  # an entry goes on learning as if it had so many looks at most


@dataclass
class GalleryEntry:
    """A person, and whether the track that has its id still shows it. All times are stamps.

    Attributes:
        began: when the track began.
        seen: when it was last followed.
        looked: when its face was last looked at.
        total: (D,) sum of the looks, which are unit vectors; None before the first.
        views: the last looks that differ, as by pose, each (D,).
        looks: how many there were.
        settled: the id stands; else it may be that of a lost person.
        shown: the id was published.
        contested: since when the track may have moved on to another face, until a look.
        contested_last: when that was said last.
        doubted: since when the track's match is unclear, until a look.
        doubted_last: when that was said last.
        strikes: looks in a row that showed another face.
        with_others: ids seen side by side, where looks before and after say that it was this
            person.
        beside: ids seen side by side since the last look.
    """

    began: float
    seen: float
    looked: float = -np.inf
    total: Array | None = None
    views: list[Array] = field(default_factory=list)
    looks: int = 0
    settled: bool = False
    shown: bool = False
    contested: float = np.inf
    contested_last: float = -np.inf
    doubted: float = np.inf
    doubted_last: float = -np.inf
    strikes: int = 0
    with_others: set[str] = field(default_factory=set)
    beside: set[str] = field(default_factory=set)

    @property
    def mean(self) -> Array | None:
        """Unit vector, None before the first look."""
        if self.total is None:
            return None
        return self.total / max(float(np.linalg.norm(self.total)), 1e-9)

    def contest(self, stamp: float) -> None:
        """Notes that its track may have moved on to another face."""
        self.contested, self.contested_last = min(self.contested, stamp), stamp

    def doubt(self, stamp: float) -> None:
        """Notes that its track's match is unclear."""
        self.contest(stamp)
        self.doubted, self.doubted_last = min(self.doubted, stamp), stamp

    def uncontest(self, stamp: float) -> None:
        """Takes contests back, unless the last one came after a stamp."""
        if self.contested_last <= stamp:
            self.contested = np.inf

    def clear(self, stamp: float) -> None:
        """Takes doubts back, unless the last one came after a stamp."""
        self.uncontest(stamp)
        if self.doubted_last <= stamp:
            self.doubted = np.inf
        self.strikes = 0

    def likeness(self, look: Array) -> float:
        """Cosine of a look to the mean, or to a remembered one: that may be turned likewise."""
        seen = (self.mean, *self.views)
        return max((float(s @ look) for s in seen if s is not None), default=-1.0)

    def learn(self, look: Array) -> None:
        """Adds a look."""
        other = [view for view in self.views if float(view @ look) < _ONE_VIEW]
        self.views = [look, *other[: _VIEWS - 1]]
        old = np.zeros_like(look) if self.total is None else self.total
        if self.looks >= _MEMORY_LOOKS:
            old = old * (1.0 - 1.0 / _MEMORY_LOOKS)
        self.total, self.looks = old + look, self.looks + 1
        self.with_others |= self.beside
        self.beside.clear()
