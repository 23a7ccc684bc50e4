"""Many replayed bags in one result: figures of each, sums over all, and what could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from face_recon_ros.evaluation.report import Link, Report, show
from face_recon_ros.io.jobs import Outcome

_SUMMED = ("frames", "frames_with_face", "missed_frames", "track_count", "id_switches")


def overview(outcomes: Sequence[Outcome[Any]]) -> dict[str, Any]:
    """The result over all bags.

    Args:
        outcomes: of bags; values have the `sequence` and `ground_truth` of `replay`.

    Returns:
        `bags` (one entry a bag), `faults` (name and reason), and the sums of the counts; errors
        against ground truth stay with their bags.
    """
    bags: list[dict[str, Any]] = []
    for outcome in outcomes:
        if outcome.fault:
            continue
        sequence, truth = outcome.value["sequence"], outcome.value["ground_truth"] or {}
        errors = truth.get("aligned") or truth.get("unaligned") or {}
        bags.append(
            {
                "name": outcome.key,
                **{name: sequence[name] for name in _SUMMED},
                "rotation_deg": errors["rotation_deg"]["mean"] if errors else None,
                "translation_mm": errors["translation_mm"]["mean"] if errors else None,
            }
        )
    return {
        **{name: sum(bag[name] for bag in bags) for name in _SUMMED},
        "bags": bags,
        "faults": [{"name": o.key, "reason": o.fault} for o in outcomes if o.fault],
    }


def overview_report(result: dict[str, Any]) -> Report:
    """A page of `overview`; the pages of single bags lie in their folders."""
    report = Report(
        f"Replay of {len(result['bags'])} bags",
        f"{result['frames']} frames; each bag has a page of its own",
    )
    report.cards({name.replace("_", " "): show(result[name]) for name in _SUMMED})
    report.warnings(f"{fault['name']}: {fault['reason']}" for fault in result["faults"])
    columns = [*_SUMMED, "rotation_deg", "translation_mm"]
    report.table(
        ["bag", *(name.replace("_", " ") for name in columns)],
        [[_page(bag["name"]), *(show(bag[name]) for name in columns)] for bag in result["bags"]],
    )
    return report


def _page(name: str) -> Link:
    return Link(name, f"{name}/report.html")
