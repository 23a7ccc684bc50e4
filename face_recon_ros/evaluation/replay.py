"""`face-recon evaluate bag`, lock-step: every image through the pipeline, in stamp order.

Time is the images' stamps throughout, so the same bag gives the same figures on a fast and a slow
machine. What the clock on the wall says is kept apart (`Replay.seconds`); rates and latency of
the live system are measured by the real-time mode through the real nodes (`live.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import DEFAULT_HORIZONTAL_FOV_DEG, PinholeCamera
from face_recon_ros.core.errors import DataError, FaceReconError
from face_recon_ros.core.pipeline import Frame
from face_recon_ros.core.types import Image
from face_recon_ros.evaluation.ground_truth import BagTruth, head_truth
from face_recon_ros.evaluation.output import Progress, no_progress
from face_recon_ros.evaluation.sequence import Observation, Recording, sequence_figures
from face_recon_ros.evaluation.trajectory import (
    Trajectory,
    align_trajectories,
    aligned_truth,
    covariance_calibration,
    estimate_time_offset,
    pose_errors,
)
from face_recon_ros.io.bag_source import CameraHistory, ImageCounts, images_in_order
from face_recon_ros.io.bag_topics import choose_image_topic
from face_recon_ros.io.bags import Bag
from face_recon_ros.io.calibration import AUTO, CameraResolver
from face_recon_ros.io.depth import BagDepth

Array = NDArray[np.float64]

#: Below this the head turned too little to compare clocks; the offset is then taken as zero.
MIN_CONTRAST = 1.5
#: Below this the head turned about one axis at most and hand-eye rotation is not determined.
MIN_EXCITATION_DEG = 2.0
#: So many images are asked for the name of the camera's frame.
_FRAME_SEARCH = 100


class Pipeline(Protocol):
    """What is replayed into: `core.pipeline.FacePipeline`."""

    def process(
        self,
        image: Image,
        camera: PinholeCamera | None = None,
        depth: Array | None = None,
    ) -> Frame:
        """The next image."""
        ...


@dataclass(frozen=True)
class ReplayConfig:
    """What to read of a bag.

    Attributes:
        image_topic: raw or compressed images; empty takes the one with most.
        info_topic: CameraInfo; empty takes the one beside the images.
        depth_topic: depth images registered to the colour images; empty reads none.
        truth_topic: PoseStamped of the head; empty takes the only one there is.
        truth_frame: TF frame of the head instead.
        max_offset_s: clock difference to ground truth that is searched; 0 trusts the stamps.
        align: `auto` (hand-eye; only the marker's place when truth is in the camera's frame) or
            `none`.
        max_frames: stop after so many images; 0 takes all.
        calibration: camera_calibration YAML file, in place of the bag's CameraInfo.
        fov_deg: assumed across the longer side of images without either.
        rectified: whether images are rectified: `auto` (by the topic's name), `true`, `false`.
    """

    image_topic: str = ""
    info_topic: str = ""
    depth_topic: str = ""
    truth_topic: str = ""
    truth_frame: str = ""
    max_offset_s: float = 1.0
    align: str = "auto"
    max_frames: int = 0
    calibration: Path | None = None
    fov_deg: float = DEFAULT_HORIZONTAL_FOV_DEG
    rectified: str = AUTO


class Cameras:
    """The camera of each image of a bag.

    Attributes:
        history: the bag's CameraInfo.
        resolver: that decides.
    """

    def __init__(self, history: CameraHistory, resolver: CameraResolver) -> None:
        """Composes both."""
        self.history = history
        self.resolver = resolver

    def at(self, image: Image) -> PinholeCamera:
        """The camera of an image."""
        info = self.history.at(image.stamp)
        if info is not None:
            self.resolver.update(info)
        return self.resolver(image)

    @property
    def problem(self) -> str:
        """What was wrong with CameraInfo, in words."""
        return "; ".join(self.resolver.problems) or (
            "" if self.history.topic else "no CameraInfo in the bag"
        )


@dataclass(frozen=True)
class Replay:
    """A bag replayed.

    Attributes:
        result: all figures; the same each time.
        recording: what the pipeline said.
        image_topic: that was read.
        seconds: wall-clock time it took; not part of the result.
        cameras: of the images.
        recorded: stamp of an image -> when it was recorded, nanoseconds.
    """

    result: dict[str, Any]
    recording: Recording
    image_topic: str
    seconds: float
    cameras: Cameras
    recorded: dict[float, int]


def replay(
    bag: Bag,
    pipeline: Pipeline,
    expression_names: tuple[str, ...],
    config: ReplayConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> Replay:
    """Replays a bag in lock-step.

    Args:
        bag: to read.
        pipeline: fresh, with nothing seen yet.
        expression_names: of its face model.
        config: what to read.
        progress: called as images are done.

    Raises:
        DataError: no images, or what was asked for is not there.
    """
    config = config or ReplayConfig()
    began = time.perf_counter()
    topic = choose_image_topic(bag, config.image_topic)
    history = CameraHistory(bag, topic, config.info_topic)
    resolver = CameraResolver(
        config.calibration, config.fov_deg, rectified=config.rectified, image_topic=topic
    )
    cameras = Cameras(history, resolver)
    truth = _truth(bag, topic, config)
    depths = BagDepth(bag, config.depth_topic) if config.depth_topic else None
    counts = ImageCounts()
    recording = Recording()
    recorded: dict[float, int] = {}
    with_depth = 0
    wanted = min(config.max_frames or bag.counts[topic], bag.counts[topic])
    for image in images_in_order(bag, topic, counts, recorded):
        depth = depths.at(image.stamp) if depths else None
        with_depth += depth is not None
        arguments = (image, cameras.at(image), *(() if depth is None else (depth,)))
        recording.add(pipeline.process(*arguments), image.stamp)
        progress(len(recording.stamps), wanted)
        if config.max_frames and len(recording.stamps) >= config.max_frames:
            break
    if not recording.stamps:
        raise DataError(
            f"usable images on {topic} in {bag.path}",
            f"{counts.read} messages, {counts.unreadable} unreadable; {'; '.join(bag.problems)}",
            "choose another topic with --image-topic, or record again",
        )
    stamps = np.array(recording.stamps)
    result = {
        "protocol": {"name": "bag, lock-step", "order": "header stamps", "time": "header stamps"},
        "bag": {
            "name": bag.path.name,
            "image_topic": topic,
            "image_type": bag.topics[topic],
            "info_topic": history.topic,
            "info_problem": cameras.problem,
            "info_notes": list(resolver.notes),
            "frames_with_camera_info": resolver.readings["CameraInfo"],
            "camera": resolver.source,
            "depth_topic": config.depth_topic,
            "frames_with_depth": with_depth,
            "images": vars(counts),
            "duration_s": float(stamps[-1] - stamps[0]),
            "rate_hz": float((len(stamps) - 1) / (stamps[-1] - stamps[0]))
            if len(stamps) > 1
            else float("nan"),
            "largest_gap_s": float(np.diff(stamps).max(initial=0.0)),
            "problems": bag.problems,
            "topics": dict(sorted(bag.topics.items())),
        },
        "sequence": sequence_figures(recording, expression_names),
        "ground_truth": _against(bag, recording, truth, config),
        "per_frame": _per_frame(recording),
    }
    return Replay(result, recording, topic, time.perf_counter() - began, cameras, recorded)


def _truth(bag: Bag, image_topic: str, config: ReplayConfig) -> BagTruth | None:
    """Ground truth, read before the replay: what was named and is not there stops it at once.

    Unusable truth that was not asked for becomes one of the bag's problems.
    """
    first = islice(bag.messages(image_topic), _FRAME_SEARCH)
    camera_frame = next((msg.header.frame_id for _, msg in first if msg.header.frame_id), "")
    try:
        return head_truth(
            bag, camera_frame, pose_topic=config.truth_topic, tf_frame=config.truth_frame
        )
    except FaceReconError as fault:
        if config.truth_topic or config.truth_frame:
            raise
        bag.note(f"no ground truth: expected {fault.expected}, got {fault.got}")
        return None


def _against(
    bag: Bag, recording: Recording, truth: BagTruth | None, config: ReplayConfig
) -> dict[str, Any] | None:
    """`truth_figures`; a fault in them costs only them."""
    if truth is None:
        return None
    try:
        return truth_figures(recording, truth, config)
    except FaceReconError as fault:
        bag.note(f"{truth.source} not used: expected {fault.expected}, got {fault.got}")
        return None


def truth_figures(recording: Recording, truth: BagTruth, config: ReplayConfig) -> dict[str, Any]:
    """Errors of the tracked head against ground truth, clocks and frames aligned.

    Args:
        recording: what the pipeline said.
        truth: from the bag.
        config: how to align.
    """
    observed = _head_of_interest(recording)
    estimated = Trajectory.of([o.stamp for o in observed], [o.camera_from_face for o in observed])
    offset, contrast = 0.0, 1.0
    if config.max_offset_s > 0:
        offset, contrast = estimate_time_offset(
            estimated,
            truth.trajectory,
            max_offset_s=config.max_offset_s,
            same_camera=truth.same_camera,
        )
    if contrast < MIN_CONTRAST:
        offset = 0.0
    true, matched = truth.trajectory.delayed(offset).at(estimated.stamps)
    seen = estimated.chosen(matched)
    matching = [o for o, keep in zip(observed, matched, strict=True) if keep]
    warnings = []
    if config.max_offset_s > 0 and contrast < MIN_CONTRAST:
        warnings.append("the head turned too little to compare clocks: offset taken as zero")
    figures: dict[str, Any] = {
        "source": truth.source,
        "frame": truth.frame,
        "same_camera": truth.same_camera,
        "matched_frames": len(seen),
        "unmatched_frames": int(len(estimated) - len(seen)),
        "time_offset_s": offset,
        "time_offset_contrast": contrast,
        "frames_with_depth_reading": sum(o.depth for o in matching),
        "warnings": warnings,
    }
    if truth.same_camera:
        figures["unaligned"] = pose_errors(seen, true)
        figures["covariance_unaligned"] = _calibration(matching, seen, true)
    if config.align == "none":
        return figures
    if len(seen) < 3:
        warnings.append("fewer than three matched frames: frames not aligned")
        return figures
    alignment = align_trajectories(seen, true, same_camera=truth.same_camera)
    if alignment.excitation_deg < MIN_EXCITATION_DEG and not truth.same_camera:
        warnings.append("the head turned about one axis at most: rotation errors are optimistic")
    turn = np.trace(alignment.face_from_marker.rotation)
    figures["alignment"] = {
        "method": "marker only (A X = B)" if truth.same_camera else "hand-eye (A X = Y B)",
        "excitation_deg": alignment.excitation_deg,
        "face_from_marker_mm": alignment.face_from_marker.translation * 1000,
        "face_from_marker_deg": float(np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1)))),
    }
    carried = aligned_truth(true, alignment)
    figures["aligned"] = pose_errors(seen, carried)
    figures["covariance"] = _calibration(matching, seen, carried)
    return figures


def _calibration(
    observed: list[Observation], seen: Trajectory, true: Trajectory
) -> dict[str, Any] | None:
    """Whether errors of poses are as large as their covariance says; None without covariance."""
    covariances = [o.covariance for o in observed if o.covariance is not None]
    if not observed or len(covariances) < len(observed):
        return None
    return covariance_calibration(seen, true, np.stack(covariances))


def _head_of_interest(recording: Recording) -> list[Observation]:
    """The track seen most; where it is missing, the only face of the picture. By stamp."""
    main = recording.main_track
    if main is None:
        return []
    best = {o.stamp: o for o in recording.tracks[main]}
    alone = {
        stamp
        for stamp, n in zip(recording.stamps, recording.faces_per_frame, strict=True)
        if n == 1
    }
    for name, seen in recording.tracks.items():
        if name != main:
            best.update({o.stamp: o for o in seen if o.stamp in alone and o.stamp not in best})
    return [best[stamp] for stamp in sorted(best)]


def _per_frame(recording: Recording) -> list[dict[str, Any]]:
    """Where every face was, frame by frame: enough to compare two replays pose by pose."""
    at: dict[float, list[dict[str, Any]]] = {stamp: [] for stamp in recording.stamps}
    for name in sorted(recording.tracks):
        for o in recording.tracks[name]:
            at[o.stamp].append(
                {
                    "track": name,
                    "box": o.box.round(2),
                    "translation_m": o.camera_from_face.translation,
                    "rotation": o.camera_from_face.rotation.ravel(),
                }
            )
    return [{"stamp": stamp, "faces": faces} for stamp, faces in at.items()]
