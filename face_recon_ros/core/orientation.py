"""The orientation of a face in its crop: lying or upside-down heads and cameras.

Detectors find faces that are rolled by any angle and do not say by how much; the network knows
faces that are rolled by less than about 60 degrees. So a new face is shown to it in the four
quarter turns, and the one it is surest of counts: by its confidence in the identity times the
square of the presence score. Of 337 photographs of AFW and 78 rendered profiles, shown upright
and turned by 90, 180 or 270 degrees, the small network has none of the upright wrong and 0.5 and
0.4 % of the turned, ResNet50 one upright of either kind and 0.9 and 1.3 % of the turned. Presence
alone has 5 and 8 % of the turned wrong, confidence alone 7 and 4 %, half of them with ResNet50.

Four answers take as long as most images have. Where there is a budget, later comparisons are
spread over images: each adds one quarter, and until all are there, the face counts as it stood
before. The first is not: a mesh the wrong way up would draw its track away from the face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import crop_from_face
from face_recon_ros.core.inference import Prediction

QUARTERS = 4
_SURER = 1.04  # confidence of a turned face over that of the upright one, to be believed
_SURER_ALONE = 1.1  # the same without a presence score: confidence alone turns upright faces
_FACE = 0.5  # presence with which a quarter counts: what is no face says nothing
_LOOKS = (0, 3, 10, 30)  # at which sight of a face the four are compared, first is 0
_ROLLED = np.radians(55.0)  # within its crop: then another quarter turn may fit better
_FORESHORTENED = 0.5  # of the head's axis in the image: with less it has no direction there


@dataclass(eq=False)
class Orientation:
    """Which way up one person is.

    Attributes:
        quarter: the crop is turned by so many quarters clockwise.
        seen: how often it was looked at.
        compared: how often all four quarters were.
    """

    quarter: int = 0
    seen: int = 0
    compared: int = 0
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(QUARTERS))
    _sure: dict[int, float] = field(default_factory=dict)  # of the comparison under way

    @property
    def is_due(self) -> bool:
        """Whether all four are to be compared, this time or soon."""
        return self.compared < len(_LOOKS) and self.seen >= _LOOKS[self.compared]

    @property
    def urgency(self) -> tuple[bool, int]:
        """Whose comparison comes first, the least: one under way, then the one least compared."""
        return not self._sure, self.compared

    def missing(self, most: int = QUARTERS) -> list[int]:
        """Quarters that the comparison lacks: its own, which a new face shows anyway, and others.

        Args:
            most: of the others.
        """
        others = [q for q in range(QUARTERS) if q != self.quarter and q not in self._sure]
        own = [] if self.quarter in self._sure else [self.quarter]
        return own + others[:most]

    def compare(
        self,
        confidences: NDArray[np.floating],
        presence: NDArray[np.floating] | None = None,
        quarters: Sequence[int] = range(QUARTERS),
    ) -> None:
        """Takes what the networks say in quarters of an image; the last of the four decides.

        Args:
            confidences: (Q,) in the identity; what is not finite counts as none.
            presence: (Q,) in [0, 1], that it is a face; None: no network says so.
            quarters: Q, in the same order.
        """
        sure = np.where(np.isfinite(confidences), confidences, 0.0)
        if presence is not None:
            sure = sure * np.where(presence >= _FACE, np.square(presence), 0.0)
        self._sure.update(zip(quarters, sure.tolist(), strict=True))
        if len(self._sure) < QUARTERS:
            return
        surer = _SURER if presence is not None else _SURER_ALONE
        self.compared += 1
        self._sum += [self._sure[q] for q in range(QUARTERS)]
        self._sure.clear()
        best = int(self._sum.argmax())
        self.quarter = best if self._sum[best] > surer * self._sum[0] else 0

    def follow(self, rotation: NDArray[np.floating]) -> None:
        """Takes the face's rotation vector, (3,), in its crop: who rolled on is compared anew."""
        self.seen += 1
        # Of the head, in the crop.
        x, y = crop_from_face(rotation, np.zeros(3)).rotation[:2, 2].tolist()
        if not math.hypot(x, y) >= _FORESHORTENED:
            return
        if abs(math.atan2(x, -y)) > _ROLLED and self.seen > _LOOKS[1]:
            self.seen, self.compared, self._sum[:] = 0, 0, 0.0
            self._sure.clear()


class Orientations:
    """Those of the people who were seen last, by id."""

    def __init__(self, remembered: int) -> None:
        """Starts with nobody; remembers at least so many people."""
        self._remembered = remembered
        self._people: dict[str, Orientation] = {}

    def of(self, ids: Sequence[str]) -> list[Orientation]:
        """Of the people in an image, who are remembered as those seen last."""
        people = [self._people.pop(name, Orientation()) for name in ids]
        self._people.update(zip(ids, people, strict=True))
        while len(self._people) > max(self._remembered, len(ids)):
            del self._people[next(iter(self._people))]
        return people

    def due_again(self, ids: Iterable[str]) -> str | None:
        """Who of those seen before is to be compared next."""
        known = ((self._people[name], name) for name in ids if name in self._people)
        due = [(p.urgency, name) for p, name in known if p.is_due and p.seen > 0]
        return min(due, key=lambda pair: pair[0], default=(0, None))[1]


def quarters_to_compare(
    people: Sequence[Orientation], *, video: bool, hurried: bool
) -> list[list[int]]:
    """In which quarters each person of an image is looked at, to find out which way up it is.

    Args:
        people: N.
        video: if nobody is new, only one person is compared.
        hurried: of a video, that one is compared in one more quarter an image.

    Returns:
        N lists, most of them empty.
    """
    due = sorted((p for p in people if p.is_due), key=lambda p: p.urgency)
    new = [p for p in due if p.compared == 0]
    if video:
        due = new or due[:1]
    few = 1 if hurried and not new else QUARTERS
    return [p.missing(few) if p in due else [] for p in people]


def look_in_quarters(
    pixels: NDArray[np.uint8],
    people: Sequence[Orientation],
    compared: Sequence[Sequence[int]],
    carried: Sequence[Prediction | None],
    answer: Callable[[NDArray[np.uint8]], Prediction],
    presence: Callable[[NDArray[np.uint8], Prediction], NDArray[np.float32]] | None,
) -> list[Prediction | None]:
    """The network's answers for upright crops turned as people are found, who are compared.

    Args:
        pixels: (N, S, S, 3) of the crops.
        people: N; they learn what is found out.
        compared: N, the quarters to look at for that, see `quarters_to_compare`.
        carried: N, what stands for the answer of those who do without the network.
        answer: the network, (M, S, S, 3) -> M rows.
        presence: of faces in M crops with these answers; None where no network says so.

    Returns:
        N rows; None where nothing is known of the quarter that a comparison has decided for.
    """
    before = [person.quarter for person in people]
    turns = [
        list(dict.fromkeys([*quarters, *([q] if row is None else [])]))
        for q, quarters, row in zip(before, compared, carried, strict=True)
    ]
    views = [turned_pixels(pixels[i], q) for i, t in enumerate(turns) for q in t]
    seen = np.stack(views) if views else pixels[:0]
    found = answer(seen)
    first = 0
    rows: list[Prediction | None] = []
    for i, person in enumerate(people):
        if n := len(compared[i]):
            ways = found.rows(slice(first, first + n))
            face = presence(seen[first : first + n], ways) if presence else None
            person.compare(ways.identity_confidence, face, compared[i])
        if person.quarter in turns[i]:
            k = first + turns[i].index(person.quarter)
            rows.append(found.rows(slice(k, k + 1)))
        else:
            rows.append(carried[i] if person.quarter == before[i] else None)
        first += len(turns[i])
    return rows


def turned_crop(crop: Crop, quarter: int) -> Crop:
    """The crop turned by quarters clockwise."""
    return replace(crop, angle=crop.angle + quarter * np.pi / 2) if quarter else crop


def turned_pixels(pixels: NDArray[np.uint8], quarter: int) -> NDArray[np.uint8]:
    """What `turned_crop` extracts, of the (S, S, 3) pixels of the crop as it was."""
    return np.ascontiguousarray(np.rot90(pixels, quarter))
