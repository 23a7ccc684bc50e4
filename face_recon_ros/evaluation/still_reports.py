"""The pages of the evaluations of still images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.evaluation.datasets import read_landmarks, read_stored_image
from face_recon_ros.evaluation.output import plain
from face_recon_ros.evaluation.report import (
    Report,
    add_left_out,
    cumulative,
    draw_points,
    in_words,
    plain_page,
    show,
    with_interval,
)

WORST = 12
_PREDICTED, _ANNOTATED = (255, 64, 64), (64, 255, 96)
_PICTURE_PX = 320
_POSE_SETS = ("all", "without_extreme", "in_rgb_camera")


def landmark_report(result: dict[str, Any], folder: Path) -> Report:
    """Of `evaluate landmarks`."""
    report = Report("Landmark error", f"{folder.name}: {result['count']} annotated faces")
    found = _found(result)
    report.cards(
        {
            "NME 68, interocular": with_interval(
                result["nme68"], result["nme68_interval_95"], 100, " %"
            ),
            "NME 51 (inner)": with_interval(
                result["nme51"], result["nme51_interval_95"], 100, " %"
            ),
            "NME 51, offset removed": f"{show(100 * result['nme51_offset_removed'])} %",
            "NME 17 (contour)": f"{show(100 * result['nme17'])} %",
            "NME 68, visible": f"{show(100 * result['nme68_visible'])} %",
            "NME 68, box": f"{show(100 * result['nme68_box'])} %",
            "faces missed": f"{result['missed']} of {result['count']}",
            "failures above 8 %": f"{show(100 * result['failure_rate_0.08'])} %",
        }
    )
    add_left_out(report, result)
    errors = {key: [e[key] for e in found] for key in ("nme68", "nme51", "nme17")}

    def curve(axes: Any) -> None:
        limit = max(0.1, float(np.percentile(errors["nme68"], 95))) if found else 0.1
        for key in errors:
            cumulative(axes, errors[key], key, limit, result["missed"])
        axes.set(xlabel="error / outer eye corner distance", ylabel="share of faces")

    means = _error_per_landmark(found)

    def per_landmark(axes: Any) -> None:
        axes.bar(np.arange(68), 100 * means, color="#0b69a3")
        axes.set(xlabel="landmark (iBUG)", ylabel="mean error, %")

    report.heading("Errors")
    report.plots(curve, per_landmark)
    report.heading("Worst faces")
    report.text("Red: predicted. Green: annotated.")
    worst = sorted(found, key=lambda e: -e["nme68"])[:WORST]
    report.pictures(_landmark_pictures(worst, folder))
    report.heading("Protocol")
    report.table(("what", "how"), result["protocol"].items())
    report.machine(result["provenance"])
    return report


def geometry_report(result: dict[str, Any], folder: Path) -> Report:
    """Of `evaluate geometry`."""
    report = Report("Neutral shape against scans", f"{folder.name}: {result['count']} images")
    metrical = result["metrical"]
    report.cards(
        {
            "median, scale free": f"{show(result['median_mm'])} mm",
            "mean": f"{show(result['mean_mm'])} mm",
            "of the mean face": f"{show(result['mean_face']['median_mm'])} mm",
            "skill, corresponding vertices": show(
                result.get("skill", {}).get("corresponding_mm", float("nan"))
            ),
            "median, metrical": f"{show(metrical['median_mm'])} mm",
            "faces missed": f"{result['missed']} of {result['count']}",
        }
    )
    add_left_out(report, result)
    found = _found(result)
    free = [e["median_mm"] for e in found]
    metric = [e["metrical"]["median_mm"] for e in found]

    def curve(axes: Any) -> None:
        limit = max(1.0, 1.2 * max([*free, *metric, 0.0]))
        cumulative(axes, free, "scale free", limit, result["missed"])
        cumulative(axes, metric, "metrical", limit, result["missed"])
        axes.set(xlabel="median scan-to-mesh distance of an image, mm", ylabel="share of images")

    def regions(axes: Any) -> None:
        names = list(result["regions"])
        axes.barh(
            [in_words(n) for n in names],
            [plain(result["regions"][n]["median_mm"]) or 0 for n in names],
        )
        axes.set(xlabel="median distance, mm")

    report.heading("Beside the mean face and the floor")
    report.text(
        "The mean face is the answer that knows nothing; the floor is the face model itself, "
        "fitted to the scan. Skill 0 is the mean face's, 1 the floor's."
    )
    _geometry_beside(report, result)
    report.heading("Errors")
    report.plots(curve, regions)
    report.heading("Images")
    rows = [
        (
            e["name"],
            e["median_mm"],
            e["mean_face_median_mm"],
            e["corresponding_mm"],
            e["metrical"]["median_mm"],
        )
        for e in sorted(found, key=lambda e: -e["median_mm"])[:30]
    ]
    header = ("median_mm", "mean_face_median_mm", "corresponding_mm", "metrical_median_mm")
    report.table(("image, worst first", *header), rows)
    report.heading("Protocol")
    report.table(("what", "how"), result["protocol"].items())
    report.machine(result["provenance"])
    return report


def _geometry_beside(report: Report, result: dict[str, Any]) -> None:
    people = result["people"]
    scored = [("every image", {**result, "ours": result})]
    if people["count"]:
        scored.append((f"{people['count']} people, all images of each as one track", people))
    rows = [
        (
            name,
            figure,
            side["mean_face"][figure],
            side["ours"][figure],
            side.get("floor", {}).get(figure),
            side.get("skill", {}).get(figure),
        )
        for name, side in scored
        for figure in ("median_mm", "mean_mm", "landmark_mm", "corresponding_mm")
    ]
    report.table(("of", "figure", "mean face", "ours", "floor", "skill"), rows)


def pose_report(result: dict[str, Any], folder: Path) -> Report:
    """Of `evaluate pose`."""
    everything, few = result["all"], result["without_extreme"]
    cards = {
        "mean absolute error": with_interval(
            everything["mae_deg"]["mean"], everything["mae_mean_interval_95"], 1, "°"
        ),
        "the same, extremes left out": with_interval(
            few["mae_deg"]["mean"], few["mae_mean_interval_95"], 1, "°"
        ),
        "geodesic, mean": f"{show(everything['geodesic_deg']['mean'])}°",
        "heads missed": f"{result['missed']} of {result['count']}",
    }
    report = Report("Head pose", f"{folder.name}: {result['count']} annotated heads")
    report.cards(cards)
    add_left_out(report, result)
    report.heading("Errors")
    sets = {name: result[name] for name in _POSE_SETS if name in result}
    sets.update({f"{k}, offset removed": v.get("offset_removed") for k, v in sets.items()})
    columns = ("heads", "pitch_deg", "yaw_deg", "roll_deg", "mean_deg", "geodesic_deg")
    rows = [
        (in_words(name), s["count"], *s["mae_deg"].values(), *s["geodesic_deg"].values())
        for name, s in sorted(sets.items())
        if s
    ]
    report.table(("of", *columns, "p50", "p95", "p99"), rows)
    report.text("Mean absolute error of the angles; geodesic: mean and percentiles.")
    found = sorted(_found(result), key=lambda e: -e["geodesic_deg"])
    geodesic = [e["geodesic_deg"] for e in found]

    def curve(axes: Any) -> None:
        limit = max(10.0, float(np.percentile(geodesic, 95))) if found else 10.0
        cumulative(axes, geodesic, "geodesic", limit, result["missed"])
        axes.set(xlabel="geodesic error, degrees", ylabel="share of heads")

    def over_yaw(axes: Any) -> None:
        axes.plot([e["true_deg"]["yaw"] for e in found], geodesic, ".", markersize=3)
        axes.set(xlabel="annotated yaw, degrees", ylabel="geodesic error, degrees")
        axes.set_ylim(bottom=0)

    report.plots(curve, over_yaw)
    _worst_pictures(report, found, folder, lambda e: f"{e['geodesic_deg']:.1f}°")
    _images(report, found, ("geodesic_deg", "error_deg", "true_deg"))
    report.heading("Protocol")
    report.table(("what", "how"), result["protocol"].items())
    report.machine(result["provenance"])
    return report


def identity_report(result: dict[str, Any], folder: Path) -> Report:
    """Of `evaluate identity`."""
    cards = {
        f"AUC, {name.replace('_', ' ')}": with_interval(
            result[name]["auc_cosine"], result[name]["auc_cosine_interval_95"]
        )
        for name in ("identity", "identity_and_albedo", "embedding")
        if name in result
    }
    cards["faces missed"] = f"{result['missed']} of {result['count']}"
    lead = f"{folder.name}: {result['count']} photographs, {result['persons']} people with faces"
    return plain_page("Same or different person", lead, cards, result)


def photometric_report(result: dict[str, Any], folder: Path) -> Report:
    """Of `evaluate photometric`."""
    cards = {
        "difference, of 255": with_interval(
            result["photometric"], result["photometric_interval_95"]
        ),
        "faces missed": f"{result['missed']} of {result['count']}",
    }
    for name in ("fit_from_network", "fit_from_scratch"):
        if name in result:
            cards[f"the same, {name.replace('_', ' ')}"] = show(result[name]["photometric"])
    found = sorted(_found(result), key=lambda e: -(plain(e["photometric"]) or 0.0))

    def curve(axes: Any) -> None:
        values = {"network": [e["photometric"] for e in found]}
        for name in ("fit_from_network", "fit_from_scratch"):
            if name in result:
                values[name.replace("_", " ")] = [e[name]["photometric"] for e in found]
        limit = float(np.nanmax([*values["network"], 1.0]))
        for name, errors in values.items():
            cumulative(axes, errors, name, limit, result["missed"])
        axes.set(xlabel="difference, of 255", ylabel="share of pictures")

    lead = f"{folder.name}: {result['count']} pictures"
    report = plain_page("Rendering against photograph", lead, cards, result, curve)
    _worst_pictures(report, found, folder, lambda e: f"{show(e['photometric'])} of 255")
    _images(report, found, ("photometric",))
    return report


def _found(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [e for e in result["per_image"] if e["found"]]


def _worst_pictures(
    report: Report, found: list[dict[str, Any]], folder: Path, caption: Callable[[Any], str]
) -> None:
    """Whole pictures, made small, of the first entries."""
    pictures = []
    for entry in found[:WORST]:
        try:  # BIWI's names begin with their folder
            rgb = read_stored_image(folder / Path(entry["name"]).parent / entry["image"])
        except FaceReconError:
            continue
        scale = _PICTURE_PX / max(rgb.shape[:2])
        if scale < 1:
            rgb = np.asarray(
                cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            )
        pictures.append((rgb, f"{entry['name']}: {caption(entry)}"))
    report.heading("Worst pictures")
    report.pictures(pictures)


def _images(report: Report, found: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    report.heading("Images")
    rows = [(e["name"], *(e[c] for c in columns)) for e in found[:30]]
    report.table(("image, worst first", *columns), rows)


def _error_per_landmark(found: list[dict[str, Any]]) -> NDArray[np.float64]:
    errors = [np.linalg.norm(e["residual_px"], axis=1) / e["interocular_px"] for e in found]
    return np.mean(errors, axis=0) if errors else np.zeros(68)


def _landmark_pictures(
    entries: list[dict[str, Any]], folder: Path
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    for entry in entries:
        rgb = read_stored_image(folder / entry["image"])
        annotated = read_landmarks(folder / f"{entry['name']}.pts", 2)
        picture = draw_points(rgb, (annotated, _ANNOTATED), (entry["landmarks"], _PREDICTED))
        yield picture, f"{entry['name']}: {100 * entry['nme68']:.1f} %"


#: Evaluation -> what makes its page of a result and the pictures' folder.
STILL_REPORTS: dict[str, Callable[[dict[str, Any], Path], Report]] = {
    "landmarks": landmark_report,
    "geometry": geometry_report,
    "pose": pose_report,
    "identity": identity_report,
    "photometric": photometric_report,
}
