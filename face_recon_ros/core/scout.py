"""A detector that looks beside the pipeline: its finds join a later image, moved on to it.

Tracks go on by their meshes, so a detection may come an image or two late. In the meantime its
faces have moved, and tracks say by how much.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.placement import SAME_FACE_IOU
from face_recon_ros.core.search import SearchingDetector
from face_recon_ros.core.track_state import box_of, positions_of
from face_recon_ros.core.types import Detections, Detector, Float32


def look(detector: Detector, rgb: NDArray[np.uint8], stamp: float) -> Detections:
    """The faces of the next image of a video: (H, W, 3) uint8, taken at `stamp` seconds."""
    if isinstance(detector, SearchingDetector):
        return detector.detect_next(rgb, stamp)
    return detector.detect(rgb)


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
