"""The reports of each evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import FaceReconError, ImageError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.overlay import Overlay, OverlayConfig
from face_recon_ros.core.types import DrawnFace, Mesh
from face_recon_ros.evaluation.datasets import read_image, read_landmarks
from face_recon_ros.evaluation.output import plain
from face_recon_ros.evaluation.replay import Replay
from face_recon_ros.evaluation.report import (
    Report,
    cumulative,
    cut_out,
    draw_points,
    in_words,
    line,
    show,
    with_interval,
)
from face_recon_ros.evaluation.sequence import MIN_FRAMES, Observation
from face_recon_ros.io.bags import Bag
from face_recon_ros.io.messages import ImageStream, seconds_from_stamp

WORST = 12
_PREDICTED, _ANNOTATED = (255, 64, 64), (64, 255, 96)
_PICTURE_PX = 320
_APART_S = 1.0  # worst frames nearer than this are one case
_NEIGHBOURS_S = 0.25  # frames farther apart than this are no neighbours
_LONGEST = 6  # tracks that are drawn
_ERROR = "#b3261e"
_PER_FRAME = ("rotation_deg", "stamp", "translation_mm")
_OF_ERRORS = ("aligned", "unaligned", "warnings", "alignment")
_POSE_SETS = ("all", "without_extreme", "in_rgb_camera")
_APART = ("protocol", "provenance", "skipped", "per_image")


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
    _left_out(report, result)
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
    _left_out(report, result)
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


def bag_report(
    result: dict[str, Any],
    bag: Bag,
    replay: Replay,
    model: MorphableModel,
    real_time: dict[str, Any] | None = None,
) -> Report:
    """Of `evaluate bag`; the same bytes each time without `real_time`.

    Args:
        result: the deterministic figures, with provenance.
        bag: for the pictures of the worst frames.
        replay: what the pipeline said.
        model: the pipeline's face model, for the names of expressions.
        real_time: what the live nodes did, see `live.run_live`.
    """
    facts, sequence, truth = result["bag"], result["sequence"], result["ground_truth"]
    report = Report(
        f"Replay of {facts['name']}",
        f"{facts['image_topic']}: {sequence['frames']} frames in {facts['duration_s']:.1f} s, "
        f"{show(facts['rate_hz'])} Hz",
    )
    main = replay.recording.main_track
    figures = sequence["tracks"].get(main, {}) if main else {}
    errors = (truth or {}).get("aligned") or (truth or {}).get("unaligned") or {}
    cards = {
        "frames with a face": f"{sequence['frames_with_face']} of {sequence['frames']}",
        "missed in between": show(sequence["missed_frames"]),
        "id switches": show(sequence["id_switches"]),
        "rotation noise": f"{show(figures.get('rotation_noise_deg'))}°",
        "depth noise": f"{show(figures.get('depth_noise_mm'))} mm",
    }
    if errors:
        cards = {
            "mean rotation error": f"{show(errors['rotation_deg']['mean'])}°",
            "mean translation error": f"{show(errors['translation_mm']['mean'])} mm",
            **cards,
        }
    report.cards(cards)
    report.warnings([*facts["problems"], *((truth or {}).get("warnings", []))])
    if facts["info_problem"]:
        report.warnings([f"{facts['info_problem']}: depth rests on the {facts['camera']}"])
    if not main:
        report.warnings(["no face in any frame; small ones need more --tiles"])
    report.heading("Over time")
    report.plots(*_timelines(result, replay, model, errors))
    if truth:
        report.heading("Against ground truth")
        facts_of_truth = {k: v for k, v in truth.items() if k not in _OF_ERRORS}
        facts_of_truth.update(truth.get("alignment", {}))
        report.table(("what", "value"), _worded(facts_of_truth))
        statistics = [
            (f"{kind} {in_words(what)}", *values.values())
            for kind in ("unaligned", "aligned")
            for what, values in truth.get(kind, {}).items()
            if isinstance(values, dict) and "mean" in values
        ]
        if errors:
            report.table(("error", *errors["rotation_deg"]), statistics)
    _tracks(report, sequence)
    worst, why = _worst_frames(replay, errors)
    if worst:
        report.heading("Worst frames")
        report.text(why)
        report.pictures(_frames(bag, replay, model, worst))
    if real_time:
        report.heading("Real time, through the nodes")
        report.table(("what", "value"), _worded(real_time))
    report.heading("Bag")
    report.table(
        ("what", "value"),
        _worded({k: v for k, v in facts.items() if k not in ("topics", "problems")}),
    )
    report.table(("topic", "type"), facts["topics"].items())
    report.machine(result["provenance"])
    return report


def _tracks(report: Report, sequence: dict[str, Any]) -> None:
    report.heading("Tracks")
    everyone = sorted(sequence["tracks"].items(), key=lambda track: -track[1]["frames"])
    long_tracks = {n: t for n, t in everyone if t["frames"] >= MIN_FRAMES}
    columns = (
        "frames", "duration_s", "rotation_noise_deg", "depth_noise_mm", "lateral_noise_mm",
        "identity_drift_per_s", "identity_spread", "blink_depth_mm",
    )  # fmt: skip
    report.table(
        ("track", *columns),
        [(name, *(t.get(c) for c in columns)) for name, t in long_tracks.items()],
    )
    if brief := len(everyone) - len(long_tracks):
        report.text(f"{brief} more of fewer than {MIN_FRAMES} frames")
    report.table(("term", "meaning"), _worded(sequence["definitions"]))


def _worded(figures: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(in_words(key), value) for key, value in figures.items()]


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
    _left_out(report, result)
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
        for name in ("identity", "identity_and_albedo")
    }
    cards["faces missed"] = f"{result['missed']} of {result['count']}"
    lead = f"{folder.name}: {result['count']} photographs, {result['persons']} people with faces"
    return _page("Same or different person", lead, cards, result)


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
    report = _page("Rendering against photograph", lead, cards, result, curve)
    _worst_pictures(report, found, folder, lambda e: f"{show(e['photometric'])} of 255")
    _images(report, found, ("photometric",))
    return report


def temporal_report(result: dict[str, Any], source: str) -> Report:
    """Of `evaluate temporal`."""
    sequence = result["sequence"]
    main = max(sequence["tracks"].values(), key=lambda t: t["frames"], default={})
    cards = {
        "rotation noise": f"{show(main.get('rotation_noise_deg'))}°",
        "depth noise": f"{show(main.get('depth_noise_mm'))} mm",
        "missed in between": show(sequence["missed_frames"]),
        "id switches": show(sequence["id_switches"]),
    }
    lead = f"{source}: {sequence['frames']} frames, {sequence['track_count']} tracks"
    return _page("Steadiness", lead, cards, result)


def speed_report(result: dict[str, Any], source: str) -> Report:
    """Of `evaluate speed`."""
    total = result["total_ms"]
    cards = {
        "frames a second": show(result["fps"]),
        **{f"{p}, image to faces": f"{show(total[p])} ms" for p in ("p50", "p95", "p99")},
        "overhead": f"{show(result['overhead_ratio'])} x inference",
        "peak memory": f"{show(result['memory_mb']['peak_rss'])} MB",
    }

    def stages(axes: Any) -> None:
        names = [*result["stage_ms"]][::-1]
        for k, p in enumerate(("p50", "p95", "p99")):
            values = [result["stage_ms"][name][p] for name in names]
            axes.barh(np.arange(len(names)) - 0.27 * (k - 1), values, 0.25, label=p)
        axes.set_yticks(np.arange(len(names)), names)
        axes.set(xlabel="time, ms")

    return _page("Speed", f"{source}: {result['frames']} frames", cards, result, stages)


def _page(
    title: str, lead: str, cards: dict[str, str], result: dict[str, Any], *plots: Any
) -> Report:
    """Cards, plots, every figure, protocol, machine."""
    report = Report(title, lead)
    report.cards(cards)
    if "skipped" in result:
        _left_out(report, result)
    report.heading("Figures")
    if plots:
        report.plots(*plots)
    figures = {k: v for k, v in result.items() if k not in _APART}
    report.table(("figure", "value"), _leaves(figures))
    if "sequence" in result:
        _tracks(report, result["sequence"])
    report.heading("Protocol")
    report.table(("what", "how"), result["protocol"].items())
    report.machine(result["provenance"])
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
            rgb = read_image(folder / Path(entry["name"]).parent / entry["image"])
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


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every figure; `tracks` and definitions have tables of their own."""
    value = plain(value)
    if not isinstance(value, dict):
        yield path, value
        return
    if value.keys() == {"value", "low", "high"}:
        yield path, f"{show(value['value'])} [{show(value['low'])}, {show(value['high'])}]"
        return
    for key, inner in value.items():
        if key not in ("tracks", "definitions"):
            yield from _leaves(inner, f"{path}.{key}" if path else key)


def _left_out(report: Report, result: dict[str, Any]) -> None:
    skipped = result["skipped"]
    if skipped["count"]:
        report.warnings([f"{skipped['count']} files were left out"])
        report.table(
            ("left out", "why"), [(e["name"], e["reason"]) for e in skipped["files"][:50]]
        )


def _error_per_landmark(found: list[dict[str, Any]]) -> NDArray[np.float64]:
    errors = [np.linalg.norm(e["residual_px"], axis=1) / e["interocular_px"] for e in found]
    return np.mean(errors, axis=0) if errors else np.zeros(68)


def _landmark_pictures(
    entries: list[dict[str, Any]], folder: Path
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    for entry in entries:
        rgb = read_image(folder / entry["image"])
        annotated = read_landmarks(folder / f"{entry['name']}.pts", 2)
        picture = draw_points(rgb, (annotated, _ANNOTATED), (entry["landmarks"], _PREDICTED))
        yield picture, f"{entry['name']}: {100 * entry['nme68']:.1f} %"


def _timelines(
    result: dict[str, Any], replay: Replay, model: MorphableModel, errors: dict[str, Any]
) -> list[Any]:
    recording = replay.recording
    start = recording.stamps[0]
    names = sorted(recording.tracks, key=lambda t: -len(recording.tracks[t]))
    main = recording.tracks[names[0]] if names else []
    times = np.array([o.stamp for o in main]) - start

    def depth(axes: Any) -> None:
        for name in names[:_LONGEST]:
            seen = recording.tracks[name]
            z = [o.camera_from_face.translation[2] for o in seen]
            line(axes, [o.stamp - start for o in seen], z, name)
        axes.set(xlabel="time, s", ylabel="depth, m")

    def attitude(axes: Any) -> None:
        from face_recon_ros.evaluation.metrics import AFLW2000

        angles = [np.degrees(AFLW2000.angles(o.camera_from_face.rotation)) for o in main]
        for label, values in zip(("pitch", "yaw", "roll"), np.transpose(angles), strict=False):
            line(axes, times, values, label)
        axes.set(xlabel="time, s", ylabel=f"attitude{_of(names)}, degrees")

    def presence(axes: Any) -> None:
        line(axes, np.array(recording.stamps) - start, recording.faces_per_frame)
        top = max(recording.faces_per_frame) + 0.5
        axes.set(xlabel="time, s", ylabel="faces in the frame", ylim=(-0.1, top))
        axes.yaxis.get_major_locator().set_params(integer=True)

    def liveliest(axes: Any) -> None:
        values = np.array([o.expression for o in main]).reshape(len(main), -1)
        for k in np.argsort(-values.std(axis=0))[:6]:
            line(axes, times, values[:, k], model.expression_names[k])
        axes.set(xlabel="time, s", ylabel=f"liveliest expressions{_of(names)}")

    plots: list[Any] = [depth, attitude, presence, liveliest] if main else [presence]
    if errors:
        frames = errors["per_frame"]
        stamps = np.asarray(frames["stamp"]) - start

        def truth_error(axes: Any) -> None:
            line(axes, stamps, frames["rotation_deg"], color=_ERROR)
            axes.set(xlabel="time, s", ylabel="rotation error, degrees")

        def truth_translation(axes: Any) -> None:
            line(axes, stamps, frames["translation_mm"], color=_ERROR)
            axes.set(xlabel="time, s", ylabel="translation error, mm")

        plots = [truth_error, truth_translation, *plots]
    return plots


def _of(names: list[str]) -> str:
    return f" of {names[0]}" if len(names) > 1 else ""


def _worst_frames(
    replay: Replay, errors: dict[str, Any]
) -> tuple[dict[float, tuple[str, str]], str]:
    """Stamp -> track and caption of the frames to show, worst first, and why these."""
    recording = replay.recording
    cases: list[tuple[float, float, str, str]] = []  # badness, stamp, track, caption
    if errors and len(errors["per_frame"]["stamp"]):
        why = "The largest rotation errors."
        frames = errors["per_frame"]
        there = {o.stamp: name for name, seen in recording.tracks.items() for o in seen}
        main = recording.main_track
        there.update({o.stamp: main for o in recording.tracks.get(main or "", [])} if main else {})
        for turn, stamp, shift in zip(*(frames[k] for k in _PER_FRAME), strict=True):
            cases.append((turn, float(stamp), there[stamp], f"{turn:.1f}°, {shift:.0f} mm"))
    else:
        why = "No ground truth: where a head's attitude jerks most between neighbouring frames."
        for name, seen in recording.tracks.items():
            for before, here, after in zip(seen[:-2], seen[1:-1], seen[2:], strict=True):
                if after.stamp - before.stamp > 2 * _NEIGHBOURS_S:
                    continue
                r = [o.camera_from_face.rotation for o in (before, here, after)]
                bend = float(np.degrees(np.linalg.norm(r[0] + r[2] - 2 * r[1]) / 2))
                cases.append((bend, here.stamp, name, f"{name} jerks by {bend:.1f}°"))
    chosen: dict[float, tuple[str, str]] = {}
    for _, stamp, name, caption in sorted(cases, reverse=True):
        if len(chosen) < WORST and all(abs(stamp - other) >= _APART_S for other in chosen):
            chosen[stamp] = (name, caption)
    return chosen, f"{why} Worst first, one picture a case."


def _frames(
    bag: Bag, replay: Replay, model: MorphableModel, wanted: dict[float, tuple[str, str]]
) -> Iterable[tuple[NDArray[np.uint8], str]]:
    """Pictures of stamps with all that was said about them, in the order of `wanted`."""
    overlay = Overlay(model.triangles, model.n_vertices, OverlayConfig(0.5, _PICTURE_PX))
    topic, start = replay.image_topic, replay.recording.stamps[0]
    stream = ImageStream()
    pictures: dict[float, tuple[NDArray[np.uint8], str]] = {}
    for raw, msg in bag.messages(topic, at={replay.recorded[stamp] for stamp in wanted}):
        stamp = seconds_from_stamp(msg.header.stamp) or raw.log_ns * 1e-9
        if stamp not in wanted or stamp in pictures:
            continue
        try:
            image = stream.read(msg)
        except ImageError:
            continue
        track, caption = wanted[stamp]
        there = {
            name: o
            for name, seen in replay.recording.tracks.items()
            for o in seen
            if o.stamp == stamp
        }
        picture, affine = cut_out(image.rgb, there[track].box, 1.8, _PICTURE_PX)
        camera = replay.cameras.at(image)
        seen_by = PinholeCamera(
            _PICTURE_PX,
            _PICTURE_PX,
            np.vstack([affine, [0, 0, 1]]) @ camera.matrix,
            camera.distortion,
            camera.distortion_model,
        )
        faces = [_face(name, o, affine, model) for name, o in there.items()]
        drawn = overlay.draw(picture, faces, seen_by)
        pictures[stamp] = (drawn, f"{stamp - start:.2f} s: {caption}")
    return [pictures[stamp] for stamp in wanted if stamp in pictures]


def _face(
    name: str, o: Observation, affine: NDArray[np.float64], model: MorphableModel
) -> DrawnFace:
    """What was said about a face, in a picture that an affine map (2, 3) makes of the image."""
    box = (o.box.reshape(2, 2) @ affine[:, :2].T + affine[:, 2]).ravel().astype(np.float32)
    identity, expression = o.identity.astype(np.float32), o.expression.astype(np.float32)
    mesh = Mesh(model.vertices(identity, expression), model.triangles)
    return DrawnFace(name, np.stack([box, box]), o.camera_from_face, mesh)
