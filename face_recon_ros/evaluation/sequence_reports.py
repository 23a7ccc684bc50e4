"""The pages of the evaluations of videos and bags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.overlay import Overlay, OverlayConfig
from face_recon_ros.core.types import DrawnFace, Mesh
from face_recon_ros.evaluation.replay import Replay
from face_recon_ros.evaluation.report import (
    Report,
    add_track_table,
    cut_out,
    in_words,
    line,
    plain_page,
    show,
    worded,
)
from face_recon_ros.evaluation.sequence import Observation
from face_recon_ros.io.bags import Bag
from face_recon_ros.io.messages import ImageStream, seconds_from_stamp

WORST = 12
_PICTURE_PX = 320
_APART_S = 1.0  # worst frames nearer than this are one case
_NEIGHBOURS_S = 0.25  # frames farther apart than this are no neighbours
_LONGEST = 6  # tracks that are drawn
_ERROR = "#b3261e"
_PER_FRAME = ("rotation_deg", "stamp", "translation_mm")
_OF_ERRORS = (
    "aligned", "unaligned", "warnings", "alignment", "covariance", "covariance_unaligned",
)  # fmt: skip


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
        _add_truth(report, truth, errors)
    add_track_table(report, sequence)
    worst, why = _worst_frames(replay, errors)
    if worst:
        report.heading("Worst frames")
        report.text(why)
        report.pictures(_frames(bag, replay, model, worst))
    if real_time:
        report.heading("Real time, through the nodes")
        report.table(("what", "value"), worded(real_time))
    report.heading("Bag")
    report.table(
        ("what", "value"),
        worded({k: v for k, v in facts.items() if k not in ("topics", "problems")}),
    )
    report.table(("topic", "type"), facts["topics"].items())
    report.machine(result["provenance"])
    return report


def _add_truth(report: Report, truth: dict[str, Any], errors: dict[str, Any]) -> None:
    """Adds the errors of poses, and whether their covariance predicts them."""
    report.heading("Against ground truth")
    facts_of_truth = {k: v for k, v in truth.items() if k not in _OF_ERRORS}
    facts_of_truth.update(truth.get("alignment", {}))
    report.table(("what", "value"), worded(facts_of_truth))
    statistics = [
        (f"{kind} {in_words(what)}", *values.values())
        for kind in ("unaligned", "aligned")
        for what, values in truth.get(kind, {}).items()
        if isinstance(values, dict) and "mean" in values
    ]
    if errors:
        report.table(("error", *errors["rotation_deg"]), statistics)
    calibration = truth.get("covariance") or truth.get("covariance_unaligned")
    if calibration:
        report.table(
            ("error over its covariance", *calibration["position"]),
            [(name, *calibration[name].values()) for name in ("position", "rotation")],
        )


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
    return plain_page("Steadiness", lead, cards, result)


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

    return plain_page("Speed", f"{source}: {result['frames']} frames", cards, result, stages)


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
