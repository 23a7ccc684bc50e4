"""`face-recon evaluate compare A.json B.json`: is B worse than A, beyond chance?

Pairs what both results have by name (per image or per frame), so that hard pictures count on both
sides; the interval of the difference is a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from face_recon_ros.core.errors import DataError
from face_recon_ros.evaluation.metrics import Interval, bootstrap

#: Figures of which less is better, where found in a per-image entry or at the top of the sequence
#: figures.
PAIRED = (
    "nme68",
    "nme51",
    "nme17",
    "nme68_box",
    "median_mm",
    "mean_mm",
    "metrical.median_mm",
    "metrical.mean_mm",
    "geodesic_deg",
    "error_deg.yaw",
    "error_deg.pitch",
    "error_deg.roll",
    "photometric",
)
PAIRED_FRAMES = ("rotation_deg", "translation_mm")
COUNTS = (
    "missed",
    "sequence.missed_frames",
    "sequence.id_switches",
)


@dataclass(frozen=True)
class Change:
    """One figure in A and in B.

    Attributes:
        name: of the figure; less is better.
        a: mean in A over the pairs.
        b: mean in B.
        pairs: how many; 0 for a plain count.
        difference: B - A with its interval, for paired figures.
        verdict: `worse`, `better` or `same`.
    """

    name: str
    a: float
    b: float
    pairs: int
    difference: Interval | None
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
    changes = []
    entries_a, entries_b = _entries(a), _entries(b)
    common = sorted(entries_a.keys() & entries_b.keys())
    for key in (*PAIRED, *PAIRED_FRAMES):
        values = [(_at(entries_a[n], key), _at(entries_b[n], key)) for n in common]
        pairs = np.array(
            [v for v in values if all(isinstance(x, (int, float)) for x in v)], np.float64
        ).reshape(-1, 2)
        if len(pairs) < 2:
            continue
        difference = bootstrap(pairs[:, 1] - pairs[:, 0], confidence=confidence)
        margin = tolerance * abs(float(pairs[:, 0].mean()))
        worse, better = difference.low > margin, difference.high < -margin
        verdict = "worse" if worse else "better" if better else "same"
        means = pairs.mean(axis=0)
        changes.append(
            Change(key, float(means[0]), float(means[1]), len(pairs), difference, verdict)
        )
    for key in COUNTS:
        x, y = _at(a, key), _at(b, key)
        if isinstance(x, (int, float)) and isinstance(y, (int, float)):
            verdict = "worse" if y > x * (1 + tolerance) else "better" if y < x else "same"
            changes.append(Change(key, x, y, 0, None, verdict))
    if not changes:
        raise DataError(
            "figures that both results have",
            f"{len(entries_a)} and {len(entries_b)} entries, {len(common)} in common",
            "give two --out files of the same evaluation over the same data",
        )
    return changes


def _entries(result: Mapping[str, Any]) -> dict[str, Any]:
    entries = {e["name"]: e for e in result.get("per_image") or [] if e.get("found", True)}
    truth = result.get("ground_truth") or {}
    frames = (truth.get("aligned") or truth.get("unaligned") or {}).get("per_frame")
    if frames:  # neighbouring frames err together: a second of video is one draw
        second = np.floor(np.asarray(frames["stamp"], np.float64)).astype(int)
        for start in np.unique(second):
            entries[f"second {start}"] = {
                key: float(np.asarray(frames[key], np.float64)[second == start].mean())
                for key in PAIRED_FRAMES
            }
    return entries


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
