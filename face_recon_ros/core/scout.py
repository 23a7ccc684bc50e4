"""A detector that looks beside the pipeline: its finds join a later image, moved on to it.

Tracks go on by their meshes, so a detection may come an image or two late. In the meantime its
faces have moved, and tracks say by how much.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.placement import SAME_FACE_IOU
from face_recon_ros.core.search import SearchingDetector
from face_recon_ros.core.track_state import box_of, positions_of
from face_recon_ros.core.types import Detections, Detector, Float32


class Found(NamedTuple):
    """What was found.

    Attributes:
        stamp: seconds, of the image that was looked at.
        detections: in that image.
    """

    stamp: float
    detections: Detections


def look(detector: Detector, rgb: NDArray[np.uint8], stamp: float) -> Detections:
    """The faces of the next image of a video, seconds `stamp`."""
    if isinstance(detector, SearchingDetector):
        return detector.detect_next(rgb, stamp)
    return detector.detect(rgb)


class Scout:
    """Looks at one image at a time, in a thread of its own; nothing is queued."""

    def __init__(self, executor: Executor | None = None) -> None:
        """Starts idle.

        Args:
            executor: that runs the detector; None: a thread.
        """
        self._executor = executor or ThreadPoolExecutor(1, "scout")
        self._stamp = 0.0
        self._future: Future[Detections] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it looks at nothing, and what it found was taken."""
        return self._future is None

    def send(self, detector: Detector, rgb: NDArray[np.uint8], stamp: float) -> None:
        """Looks at an image if it is idle.

        Args:
            detector: to look with; nobody else uses it until the scout is idle again.
            rgb: (H, W, 3) uint8; stays as it is.
            stamp: seconds, of the image.
        """
        if self._future is None:
            self._stamp = stamp
            self._future = self._executor.submit(look, detector, rgb, stamp)

    def take(self) -> Found | None:
        """What was found since the last call, or None; raises what the detector raised."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return Found(self._stamp, future.result())


def moved_on(
    detections: Detections, then: Mapping[str, Float32], now: Mapping[str, Float32]
) -> tuple[Detections, bool]:
    """Detections of an earlier image where their faces are by now.

    Args:
        detections: of the earlier image.
        then: track id -> (4,) box in that image.
        now: track id -> (4,) box.

    Returns:
        Those on a track moved and grown as it did, and those far from all as they are. Whether
        others are left out: beside a track only a fresh look says who is who.
    """
    known = [name for name in then if name in now]
    before = np.array([then[name] for name in known], np.float64).reshape(-1, 4)
    after = np.array([now[name] for name in known], np.float64).reshape(-1, 4)
    change = positions_of(after) - positions_of(before)
    shared = iou(detections.boxes, before)
    places = positions_of(detections.boxes)
    boxes, kept = detections.boxes.copy(), []
    for i, row in enumerate(shared):
        j = int(row.argmax()) if len(row) else -1
        if j >= 0 and row[j] > SAME_FACE_IOU and shared[:, j].argmax() == i:
            boxes[i] = box_of(places[i] + change[j])
            kept.append(i)
        elif row.max(initial=0.0) == 0.0 and iou(boxes[i], after).max(initial=0.0) == 0.0:
            kept.append(i)
    moved = Detections(boxes[kept], detections.scores[kept], detections.views)
    return moved, len(kept) < len(boxes)
