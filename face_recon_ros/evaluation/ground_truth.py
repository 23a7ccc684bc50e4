"""Ground truth of the head in a bag: a motion-capture pose topic or tf."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from face_recon_ros.core.errors import DataError, FaceReconError
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.transform_buffer import TransformBuffer
from face_recon_ros.evaluation.trajectory import Trajectory
from face_recon_ros.io.bags import POSE, TF, Bag
from face_recon_ros.io.messages import (
    rigid_from_pose_msg,
    rigid_from_transform_msg,
    seconds_from_stamp,
)

_TRUTH_SPAN_S = 1e9


@dataclass(frozen=True)
class BagTruth:
    """Ground truth of the head found in a bag.

    Attributes:
        trajectory: of the head (its marker) in `frame`.
        frame: the frame it is given in.
        source: in words.
        same_camera: `frame` is the camera's.
    """

    trajectory: Trajectory
    frame: str
    source: str
    same_camera: bool


def head_truth(
    bag: Bag, camera_frame: str, *, pose_topic: str = "", tf_frame: str = ""
) -> BagTruth | None:
    """Ground truth of the head, if the bag has any.

    Args:
        bag: to read.
        camera_frame: frame of the images.
        pose_topic: of geometry_msgs/PoseStamped; the only one there is without a name.
        tf_frame: name of the head's frame in TF instead.

    Returns:
        None when there is none and none was asked for, or several and none was named: the bag's
        problems then name them.

    Raises:
        DataError: what was asked for is not there.
    """
    if tf_frame:
        return _truth_from_tf(bag, camera_frame, tf_frame)
    candidates = [pose_topic] if pose_topic else bag.of_type(POSE)
    if len(candidates) > 1:
        bag.note(
            f"no ground truth: {len(candidates)} PoseStamped topics, {', '.join(candidates)}; "
            "choose one with --truth-topic"
        )
    if len(candidates) != 1:
        return None
    topic = bag.require(candidates[0], POSE)
    stamps, motions, frames = [], [], set()
    for _, msg in bag.messages(topic):
        stamps.append(seconds_from_stamp(msg.header.stamp))
        motions.append(rigid_from_pose_msg(msg.pose))
        frames.add(msg.header.frame_id)
    keep = [_is_rigid(motion) for motion in motions]
    trajectory = Trajectory.of(
        [s for s, ok in zip(stamps, keep, strict=True) if ok],
        [m for m, ok in zip(motions, keep, strict=True) if ok],
    )
    if len(trajectory) == 0 or len(frames) != 1:
        raise DataError(
            f"valid poses in one frame on {topic}",
            f"{sum(keep)} of {len(keep)} valid, frames {sorted(frames)}",
            "check the motion capture's stream",
        )
    frame = frames.pop()
    return BagTruth(trajectory, frame, f"PoseStamped {topic}", frame == camera_frame)


def _truth_from_tf(bag: Bag, camera_frame: str, head_frame: str) -> BagTruth:
    buffer = TransformBuffer(duration_s=_TRUTH_SPAN_S)
    parents: dict[str, str] = {}
    stamps: list[float] = []
    for raw, msg in bag.messages(*(t for t, kind in bag.topics.items() if kind == TF)):
        static = raw.topic.endswith("tf_static")
        for t in msg.transforms:
            parent, child = t.header.frame_id.lstrip("/"), t.child_frame_id.lstrip("/")
            motion = rigid_from_transform_msg(t.transform)
            if not _is_rigid(motion):
                continue
            parents[child] = parent
            stamp = None if static else seconds_from_stamp(t.header.stamp)
            buffer.set(parent, child, motion, stamp)
            if child == head_frame.lstrip("/") and stamp is not None:
                stamps.append(stamp)
    if not stamps:
        raise DataError(
            f"moving frame {head_frame} in TF",
            f"frames {', '.join(sorted({*parents, *parents.values()})) or 'none'}",
            "choose one of these with --truth-frame",
        )
    root = head_frame.lstrip("/")
    while root in parents:
        root = parents[root]
    for target in (camera_frame, root):
        found: list[tuple[float, Rigid]] = []
        for stamp in sorted(set(stamps)):
            with contextlib.suppress(FaceReconError):
                found.append((stamp, buffer.lookup(target, head_frame, stamp)))
        if found:
            trajectory = Trajectory.of([s for s, _ in found], [m for _, m in found])
            return BagTruth(trajectory, target, f"TF {head_frame}", target == camera_frame)
    raise DataError(
        f"TF from {root} to {head_frame}",
        "no stamp that can be looked up",
        "record /tf_static too",
    )


def _is_rigid(motion: Rigid) -> bool:
    return bool(np.isfinite(motion.rotation).all() and np.isfinite(motion.translation).all())
