"""`face-recon evaluate compare A.json B.json`: is B worse than A, beyond chance?

What both results have by name (image, person, second of video) is paired, so that hard pictures
count on both sides. `FIGURES` lists what is compared and by which test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot
from statistics import NormalDist
from typing import Any

import numpy as np

from face_recon_ros.core.errors import DataError
from face_recon_ros.evaluation.metrics import Interval, bootstrap

#: Kinds of figures, by the test of significance:
PAIRED = "paired"  # one value an image or second: paired bootstrap of the mean difference
COUNT = "count"  # events: exact binomial test
INTERVAL = "interval"  # PATH_interval_95 beside it: the two intervals, as if independent
SINGLE = "single"  # one number, chance unknown: must differ by SINGLE_SHARE
#: Smaller differences of `SINGLE` figures are taken for chance. A choice: the results hold nothing
#: that would show how much two runs of one build differ.
SINGLE_SHARE = 0.05


@dataclass(frozen=True)
class Figure:
    """What is compared.

    Attributes:
        path: keys from the top of the result, of an entry of `per_image` or `per_person`, or of
            the ground truth's `per_frame`; `main_track` stands for the track of most frames.
        kind: see above.
        more_is_better: less is better without.
    """

    path: str
    kind: str
    more_is_better: bool = False


FIGURES = (
    *(
        Figure(path, PAIRED)
        for path in (
            "nme68",
            "nme51",
            "nme17",
            "nme68_box",
            "median_mm",
            "mean_mm",
            "metrical.median_mm",
            "metrical.mean_mm",
            "landmark_mm",
            "corresponding_mm",
            "one_view_mm",
            "track_mm",
            "geodesic_deg",
            "error_deg.yaw",
            "error_deg.pitch",
            "error_deg.roll",
            "photometric",
            "rotation_deg",
            "translation_mm",
        )
    ),
    Figure("missed", COUNT),
    Figure("sequence.missed_frames", COUNT),
    Figure("sequence.id_switches", COUNT),
    Figure("identity.auc_cosine", INTERVAL, more_is_better=True),
    Figure("identity_and_albedo.auc_cosine", INTERVAL, more_is_better=True),
    Figure("main_track.rotation_noise_deg", SINGLE),
    Figure("main_track.depth_noise_mm", SINGLE),
    Figure("main_track.lateral_noise_mm", SINGLE),
    Figure("total_ms.p50", SINGLE),
    Figure("total_ms.p95", SINGLE),
    Figure("total_ms.p99", SINGLE),
    Figure("overhead_ratio", SINGLE),
)
_EXPOSURE = {"missed": "count"}  # how many chances a count had; frames for the others
_PER_SECOND = ("rotation_deg", "translation_mm")


@dataclass(frozen=True)
class Change:
    """One figure in A and in B.

    Attributes:
        name: of the figure.
        kind: of the figure.
        a: in A; the mean over the pairs where there are pairs.
        b: in B.
        pairs: how many; 0 without.
        difference: B - A with its interval, where there is one.
        chance: of counts: probability of a difference as large between equals, two-sided.
        verdict: `worse`, `better` or `same`.
    """

    name: str
    kind: str
    a: float
    b: float
    pairs: int
    difference: Interval | None
    chance: float | None
    verdict: str


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    tolerance: float = 0.0,
    confidence: float = 0.95,
) -> list[Change]:
    """Compares two results of the same evaluation.

    Args:
        a: the reference.
        b: the candidate.
        tolerance: B may be worse by this share of A's mean and still counts as the same.
        confidence: of the intervals.

    Raises:
        DataError: they have nothing in common to compare.
    """
    name_a, name_b = (_at(r, "protocol.name") for r in (a, b))
    if name_a != name_b:
        raise DataError(
            "two results of one protocol", f"{name_a!r} and {name_b!r}", "compare like with like"
        )
    entries_a, entries_b = _entries(a), _entries(b)
    common = sorted(entries_a.keys() & entries_b.keys())
    changes = []
    for figure in FIGURES:
        if figure.kind == PAIRED:
            pairs = [
                (x, y)
                for n in common
                if _number(x := _at(entries_a[n], figure.path))
                and _number(y := _at(entries_b[n], figure.path))
            ]
            change = _paired(figure, pairs, tolerance, confidence)
        else:
            change = _whole(
                figure, _with_main_track(a), _with_main_track(b), tolerance, confidence
            )
        if change:
            changes.append(change)
    if not changes:
        raise DataError(
            "figures that both results have",
            f"{len(entries_a)} and {len(entries_b)} entries, {len(common)} in common",
            "give two --out files of one evaluation over the same data; those of detection, "
            "expression and tracking have no figures that are compared",
        )
    return changes


def _paired(
    figure: Figure, pairs: list[tuple[float, float]], tolerance: float, confidence: float
) -> Change | None:
    if len(pairs) < 2:
        return None
    values = np.array(pairs, np.float64)
    x, y = (float(mean) for mean in values.mean(axis=0))
    gap = bootstrap(values[:, 1] - values[:, 0], confidence=confidence)
    verdict = _verdict(figure, gap.low, gap.high, tolerance * abs(x))
    return Change(figure.path, figure.kind, x, y, len(pairs), gap, None, verdict)


def _whole(
    figure: Figure,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    tolerance: float,
    confidence: float,
) -> Change | None:
    x, y = _at(a, figure.path), _at(b, figure.path)
    if not (_number(x) and _number(y)):
        return None
    gap, margin = y - x, tolerance * abs(x)
    difference, chance = None, None
    low = high = gap
    if figure.kind == COUNT:
        chance, expected = _chance_of_counts(figure, a, b)
        low = high = y - expected if chance < 1 - confidence else 0.0
    elif figure.kind == INTERVAL:
        intervals = [_at(r, f"{figure.path}_interval_95") for r in (a, b)]
        ends = [_at(i, end) for i in intervals for end in ("low", "high")]
        if not all(_number(end) for end in ends):
            return None
        half = hypot(ends[1] - ends[0], ends[3] - ends[2]) / 2
        half *= NormalDist().inv_cdf((1 + confidence) / 2) / NormalDist().inv_cdf(0.975)
        low, high = gap - half, gap + half
        difference = Interval(gap, low, high)
    else:
        margin = max(tolerance, SINGLE_SHARE) * abs(x)
    verdict = _verdict(figure, low, high, margin)
    return Change(figure.path, figure.kind, x, y, 0, difference, chance, verdict)


def _verdict(figure: Figure, low: float, high: float, margin: float) -> str:
    """Of an interval of B - A: worse or better when all of it lies beyond the margin."""
    above, below = low > margin, high < -margin
    if figure.more_is_better:
        above, below = below, above
    return "worse" if above else "better" if below else "same"


def _chance_of_counts(
    figure: Figure, a: Mapping[str, Any], b: Mapping[str, Any]
) -> tuple[float, float]:
    """Two-sided exact probability of counts as different as these, and the count expected of B.

    Images that only one side missed, of those both have, are heads and tails of a coin (sign
    test). Other events fall to either side as its share of all frames.
    """
    if figure.path == "missed":
        found_a, found_b = (
            {e["name"]: e["found"] for e in r.get("per_image") or [] if "found" in e}
            for r in (a, b)
        )
        common = found_a.keys() & found_b.keys()
        if common:
            only_a = sum(found_b[n] and not found_a[n] for n in common)
            only_b = sum(found_a[n] and not found_b[n] for n in common)
            return _binomial_test(only_a, only_b, 0.5), _at(b, "missed") - only_b + only_a
    exposure = _EXPOSURE.get(figure.path, "sequence.frames")
    n_a, n_b = (n if _number(n := _at(r, exposure)) and n > 0 else 1 for r in (a, b))
    count_a, count_b = (round(_at(r, figure.path)) for r in (a, b))
    return _binomial_test(count_a, count_b, n_a / (n_a + n_b)), count_a * n_b / n_a


def _binomial_test(hits: int, others: int, share: float) -> float:
    from scipy import stats

    n = hits + others
    return float(stats.binomtest(hits, n, share).pvalue) if n else 1.0


def _with_main_track(result: Mapping[str, Any]) -> Mapping[str, Any]:
    tracks = _at(result, "sequence.tracks") or {}
    main: Mapping[str, Any] = max(tracks.values(), key=lambda t: t["frames"], default={})
    return {**result, "main_track": main}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _entries(result: Mapping[str, Any]) -> dict[str, Any]:
    named = result.get("per_image") or result.get("per_person") or []
    entries = {e["name"]: e for e in named if e.get("found", True)}
    truth = result.get("ground_truth") or {}
    frames = (truth.get("aligned") or truth.get("unaligned") or {}).get("per_frame")
    if frames:  # neighbouring frames err together: a second of video is one draw
        second = np.floor(np.asarray(frames["stamp"], np.float64)).astype(int)
        for start in np.unique(second):
            entries[f"second {start}"] = {
                key: float(np.asarray(frames[key], np.float64)[second == start].mean())
                for key in _PER_SECOND
            }
    return entries


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
