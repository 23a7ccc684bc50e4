"""Where to look for faces: the whole picture, parts of it for small faces, turned copies.

A detector sees a picture shrunk to what its network takes, so that small faces vanish. In parts of
the picture they are larger. A single picture is searched in all parts at once. Of a video each
image is searched in one part, in turn, every other time in the whole: no image costs much, and a
face too small for the whole is found within a round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import nms
from face_recon_ros.core.types import Detections

if TYPE_CHECKING:
    from face_recon_ros.core.detection import Detector

Box = tuple[int, int, int, int]


class SearchingDetector:
    """Looks with another detector into parts and turned copies of the image, and merges."""

    def __init__(
        self,
        detector: Detector,
        tiles: int = 1,
        rotations_deg: tuple[float, ...] = (),
        smallest: float = 0.15,
        native_px: int = 0,
        scan_period_s: float = 1.0,
    ) -> None:
        """Wraps a detector.

        Args:
            detector: that looks.
            tiles: parts along each side of the picture; 1 is the whole only.
            rotations_deg: the whole picture is searched turned by these as well.
            smallest: side of the smallest face box that the detector reliably finds, as a share
                of the longer side of the picture it is shown. Tiles overlap by as much.
            native_px: pictures up to this long are seen in full detail as a whole: no tiles.
            scan_period_s: seconds within which `detect_next` has looked everywhere; 0: each time.
        """
        self._detector = detector
        self._tiles = tiles
        self._rotations_deg = rotations_deg
        self._smallest = smallest
        self._native_px = native_px
        self._scan_period_s = scan_period_s
        self._turn, self._owed = 0, 0.0
        self._stamp: float | None = None

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """The faces of a picture by itself, looked for everywhere; see `Detector`."""
        return _merge([self._look(rgb, part) for part in (None, *self._parts(rgb))])

    def detect_next(self, rgb: NDArray[np.uint8], stamp: float) -> Detections:
        """The faces of the next image of a video, in the parts of it whose turn it is.

        Args:
            rgb: (H, W, 3) or (H, W) uint8.
            stamp: seconds, of the image. The longer ago the last one was, the more is due.

        Returns:
            What was found, and in its `views` where it was looked for.
        """
        parts = self._parts(rgb)
        if not parts:
            return self.detect(rgb)
        cycle = [view for part in parts for view in (None, part)]
        waited = -1.0 if self._stamp is None else stamp - self._stamp
        in_time = 0.0 <= waited < self._scan_period_s
        self._owed += len(cycle) * waited / self._scan_period_s if in_time else len(cycle)
        due = min(max(1, int(self._owed)), len(cycle))
        self._owed = min(max(0.0, self._owed - due), 1.0)
        self._stamp = stamp
        views = dict.fromkeys(cycle[(self._turn + k) % len(cycle)] for k in range(due))
        self._turn += due
        found = _merge([self._look(rgb, view) for view in views])
        shown = [self._shown(rgb, view) for view in views]
        return Detections(found.boxes, found.scores, np.array(shown, np.float32))

    def _parts(self, rgb: NDArray[np.uint8]) -> list[Box]:
        height, width = rgb.shape[:2]
        tiles = self._tiles if max(height, width) > self._native_px else 1
        return tile_boxes(width, height, tiles, self._smallest)

    def _look(self, rgb: NDArray[np.uint8], part: Box | None) -> Detections:
        """What is found in a part, or in the whole and its turned copies; whole image's pixels."""
        if part is None:
            turned = [self._detect_turned(rgb, angle) for angle in self._rotations_deg]
            return _merge([self._detector.detect(rgb), *turned])
        x0, y0, x1, y1 = part
        found = _whole(self._detector.detect(rgb[y0:y1, x0:x1]), x1 - x0, y1 - y0)
        return Detections(found.boxes + np.array([x0, y0, x0, y0], np.float32), found.scores)

    def _shown(self, rgb: NDArray[np.uint8], part: Box | None) -> tuple[float, ...]:
        """The row of `Detections.views` of a part or of the whole."""
        height, width = rgb.shape[:2]
        if part is None:
            return -np.inf, -np.inf, np.inf, np.inf, self._smallest * max(height, width)
        x0, y0, x1, y1 = part
        return (
            x0 if x0 > 0 else -np.inf,
            y0 if y0 > 0 else -np.inf,
            x1 if x1 < width else np.inf,
            y1 if y1 < height else np.inf,
            0.0,
        )

    def _detect_turned(self, rgb: NDArray[np.uint8], angle_deg: float) -> Detections:
        height, width = rgb.shape[:2]
        turned_from_image, size = _turn(width, height, angle_deg)
        turned = self._detector.detect(
            np.asarray(cv2.warpAffine(rgb, turned_from_image, size), np.uint8)
        )
        centres = (turned.boxes[:, :2] + turned.boxes[:, 2:]) / 2
        half = (turned.boxes[:, 2:] - turned.boxes[:, :2]) / 2
        rotation, offset = turned_from_image[:, :2], turned_from_image[:, 2]
        centres = (centres - offset) @ rotation  # orthonormal: the transpose is the inverse
        boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
        return Detections(boxes, turned.scores)


def tile_boxes(width: int, height: int, tiles: int, overlap: float) -> list[Box]:
    """Overlapping parts of an image, with its shape; none for `tiles` 1.

    Args:
        width: pixels.
        height: pixels.
        tiles: parts along each side; fewer along one that is shorter than the overlap.
        overlap: of neighbours, as a share of the longer side.

    Returns:
        x0, y0, x1, y1 per part, pixels, end exclusive.
    """
    if tiles <= 1:
        return []
    shared = overlap * max(width, height)

    def spans(length: int) -> list[tuple[int, int]]:
        size = min(int(np.ceil((length + (tiles - 1) * shared) / tiles)), length)
        starts = np.linspace(0, length - size, tiles if size < length else 1)
        return [(int(s), int(s) + size) for s in starts.round()]

    return [(x0, y0, x1, y1) for y0, y1 in spans(height) for x0, x1 in spans(width)]


def _merge(found: list[Detections]) -> Detections:
    boxes = np.concatenate([d.boxes for d in found])
    scores = np.concatenate([d.scores for d in found])
    keep = nms(boxes, scores)
    return Detections(boxes[keep], scores[keep])


def _whole(detections: Detections, width: int, height: int) -> Detections:
    """Those whose middle lies in the part: a face cut by its border is another part's business."""
    centre = (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
    side = detections.boxes[:, 2:3] - detections.boxes[:, :1]
    low, high = centre - side / 4, centre + side / 4
    inside = (low >= 0).all(axis=1) & (high <= [width, height]).all(axis=1)
    return Detections(detections.boxes[inside], detections.scores[inside])


def _turn(
    width: int, height: int, angle_deg: float
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """(2, 3) affine that turns an image about its middle, and the size that holds all of it."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    new_w = int(np.ceil(abs(c) * width + abs(s) * height))
    new_h = int(np.ceil(abs(s) * width + abs(c) * height))
    rotation = np.array([[c, s], [-s, c]])
    offset = (
        np.array([new_w - 1, new_h - 1]) / 2 - rotation @ np.array([width - 1, height - 1]) / 2
    )
    return np.column_stack([rotation, offset]), (new_w, new_h)
