"""Where to look for faces: the whole picture, parts of it for small faces, turned copies.

A detector sees a picture shrunk to what its network takes, so that small faces vanish. In parts of
the picture they are larger. A single picture is searched in all parts at once. Images of a video
are searched as a whole and, in turn, in one part or another: no image costs much, and a face too
small for the whole is found within a round.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import nms
from face_recon_ros.core.types import Detections, Detector, Float32

Box = tuple[int, int, int, int]

_CLEAR = 0.05  # share of a face's side between it and the border of a part that holds all of it
_OVERLAP = 1.2  # of parts, over the side of the largest face that only parts show
_WHOLE_S = 0.05  # images that follow faster are not each searched as a whole


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
                of the longer side of the picture it is shown. Tiles overlap by more.
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
        self._whole_stamp = 0.0

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
        views = self._due(parts, stamp)
        found = _merge([self._look(rgb, view) for view in views])
        shown = [self._shown(rgb, view) for view in views]
        return Detections(found.boxes, found.scores, np.array(shown, np.float32))

    def _due(self, parts: list[Box], stamp: float) -> list[Box | None]:
        """Where to look in the image of a stamp: the whole (None), unless just seen, and parts."""
        waited = np.inf if self._stamp is None else stamp - self._stamp
        self._stamp = stamp
        if not 0.0 <= waited < self._scan_period_s:
            self._owed, self._whole_stamp = 0.0, stamp
            return [None, *parts]
        self._owed = min(self._owed + len(parts) * waited / self._scan_period_s, len(parts))
        whole = bool(stamp - self._whole_stamp >= _WHOLE_S)
        if whole:
            self._whole_stamp = stamp
        due = max(int(self._owed), 0 if whole else 1)
        self._owed = max(0.0, self._owed - due)
        turn, self._turn = self._turn, self._turn + due
        return [None] * whole + [parts[(turn + k) % len(parts)] for k in range(due)]

    def _parts(self, rgb: NDArray[np.uint8]) -> list[Box]:
        height, width = rgb.shape[:2]
        tiles = self._tiles if max(height, width) > self._native_px else 1
        return tile_boxes(width, height, tiles, _OVERLAP * self._smallest)

    def _look(self, rgb: NDArray[np.uint8], part: Box | None) -> Detections:
        """What is found in a part, or in the whole and its turned copies; whole image's pixels."""
        if part is None:
            turned = [self._detect_turned(rgb, angle) for angle in self._rotations_deg]
            return _merge([self._detector.detect(rgb), *turned])
        x0, y0, x1, y1 = part
        found = self._detector.detect(rgb[y0:y1, x0:x1])
        boxes = found.boxes + np.array([x0, y0, x0, y0], np.float32)
        kept = _whole(boxes, part, (rgb.shape[1], rgb.shape[0]))
        return Detections(boxes[kept], found.scores[kept])

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


def _whole(boxes: Float32, part: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which boxes in a part are of whole faces; a face it cuts is another part's business.

    Args:
        boxes: (N, 4) image pixels.
        part: of the image.
        size: of the image, whose own border may cut faces down to the middle half.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    low, high = np.array(part[:2]), np.array(part[2:])
    before = np.where(low > 0, -_CLEAR, 0.25) * sides
    behind = np.where(high < size, -_CLEAR, 0.25) * sides
    inside = (boxes[:, :2] + before >= low) & (boxes[:, 2:] - behind <= high)
    return np.asarray(inside.all(axis=1))


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
