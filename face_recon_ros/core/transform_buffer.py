"""A small interpolating TF tree: the pose of every frame at a time of the recent past.

What tf2's buffer does, for machines and tests without tf2. Time is an argument.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from face_recon_ros.core.errors import FrameError
from face_recon_ros.core.rigid import Rigid, rotation_from_vector, vector_from_rotation


class TransformBuffer:
    """Histories of `parent_from_child` motions, queried through the tree they form."""

    def __init__(self, duration_s: float = 10.0, max_step_back_s: float | None = None) -> None:
        """Starts without a frame.

        Args:
            duration_s: how much past to keep, seconds.
            max_step_back_s: a stamp further back than this behind its frame's newest is no late
                message: the clock jumped, and all but the static frames are dropped, as in tf2.
                None takes the duration.
        """
        self._duration_s = duration_s
        self._max_step_back_s = duration_s if max_step_back_s is None else max_step_back_s
        self._edges: dict[str, _Edge] = {}

    def set(
        self, parent: str, child: str, parent_from_child: Rigid, stamp: float | None = None
    ) -> None:
        """Takes in a motion.

        Args:
            parent: frame name; a leading slash is dropped.
            child: frame name; it has one parent at a time, the last one said.
            parent_from_child: metres.
            stamp: seconds; None means valid at all times.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        edge = self._edges.get(child)
        if edge is not None and stamp is not None and edge.newest - stamp > self._max_step_back_s:
            self._edges = {name: e for name, e in self._edges.items() if e.is_static}
            edge = None
        if edge is None or edge.parent != parent or edge.is_static != (stamp is None):
            edge = self._edges[child] = _Edge(parent, stamp is None)
        edge.add(parent_from_child, stamp or 0.0, self._duration_s)

    def lookup(self, target: str, source: str, stamp: float | None) -> Rigid:
        """The motion `target_from_source`.

        Args:
            target: frame name.
            source: frame name.
            stamp: seconds; None takes the newest of every edge.

        Raises:
            FrameError: a frame is unknown, the two are not connected, or the stamp lies outside
                the history.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        up_target, up_source = self._ancestry(target), self._ancestry(source)
        common = next((frame for frame in up_source if frame in up_target), None)
        if common is None:
            raise FrameError(
                f"a transform from {source} to {target}",
                f"no connection; known frames: {', '.join(sorted(self._edges)) or 'none'}",
                "start robot_state_publisher, or publish a static transform between them",
            )
        common_from_source = self._climb(up_source, common, stamp)
        return self._climb(up_target, common, stamp).inverse() @ common_from_source

    def _ancestry(self, frame: str) -> list[str]:
        frames = [frame]
        while (edge := self._edges.get(frames[-1])) is not None and edge.parent not in frames:
            frames.append(edge.parent)
        return frames

    def _climb(self, frames: list[str], top: str, stamp: float | None) -> Rigid:
        top_from_frame = Rigid.identity()
        for frame in frames[: frames.index(top)]:
            top_from_frame = self._edges[frame].at(frame, stamp) @ top_from_frame
        return top_from_frame


class _Edge:
    """History of one child in its parent."""

    def __init__(self, parent: str, is_static: bool) -> None:
        self.parent = parent
        self.is_static = is_static
        self._stamps: list[float] = []
        self._motions: list[Rigid] = []

    @property
    def newest(self) -> float:
        """Seconds; of a static edge none is newer than any other."""
        return -np.inf if self.is_static or not self._stamps else self._stamps[-1]

    def add(self, motion: Rigid, stamp: float, duration_s: float) -> None:
        if self.is_static:
            self._stamps, self._motions = [], []
        i = bisect_left(self._stamps, stamp)
        if i < len(self._stamps) and self._stamps[i] == stamp:
            self._motions[i] = motion
            return
        self._stamps.insert(i, stamp)
        self._motions.insert(i, motion)
        old = bisect_left(self._stamps, self._stamps[-1] - duration_s)
        del self._stamps[:old], self._motions[:old]

    def at(self, child: str, stamp: float | None) -> Rigid:
        if self.is_static or stamp is None or stamp == self._stamps[-1]:
            return self._motions[-1]
        i = bisect_right(self._stamps, stamp)
        if i == 0 or i == len(self._stamps):
            late = "in the past of" if i == 0 else "ahead of"
            raise FrameError(
                f"{child} in {self.parent} at {stamp:.3f} s",
                f"a history from {self._stamps[0]:.3f} to {self._stamps[-1]:.3f} s",
                f"the stamp is {late} TF: check that camera and robot share one clock "
                "(use_sim_time, chrony)",
            )
        before, after = self._motions[i - 1], self._motions[i]
        share = (stamp - self._stamps[i - 1]) / (self._stamps[i] - self._stamps[i - 1])
        return interpolate(before, after, share)


def interpolate(start: Rigid, end: Rigid, share: float) -> Rigid:
    """The motion a `share` in [0, 1] of the way: straight for the origin, geodesic on SO(3)."""
    turn = vector_from_rotation(end.rotation @ start.rotation.T)
    return Rigid(
        rotation_from_vector(share * turn) @ start.rotation,
        (1.0 - share) * start.translation + share * end.translation,
    )
