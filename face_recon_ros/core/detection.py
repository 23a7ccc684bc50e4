"""Where the faces are: detector backends behind one small protocol.

Every detector draws its own kind of box. `BoxMap` carries each one over to the one convention of
`crop.face_box_from_points`, so that a crop looks the same whoever found the face.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.boxes import nms
from face_recon_ros.core.errors import ConfigError, ImageError, ModelError
from face_recon_ros.core.models import (
    DETECTOR_FULL_RANGE,
    DETECTOR_SHORT_RANGE,
    find_model,
)
from face_recon_ros.core.types import Detections, Float32

BACKENDS = ("short_range", "full_range", "yunet")


class Detector(Protocol):
    """Finds faces in one picture; keeps no memory of others."""

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """The faces of an (H, W, 3) uint8 RGB or (H, W) grey image, best first."""
        ...


@dataclass(frozen=True)
class BoxMap:
    """From a detector's box to the face box.

    Attributes:
        shift_x: of the centre, in sides of the detector's box, right positive.
        shift_y: of the centre, down positive.
        scale: side of the face box over the geometric mean side of the detector's.
    """

    shift_x: float
    shift_y: float
    scale: float

    def __call__(self, boxes: ArrayLike) -> Float32:
        """(N, 4) detector boxes x0, y0, x1, y1 -> (N, 4) square face boxes, image pixels."""
        b = np.asarray(boxes, np.float64).reshape(-1, 4)
        size = b[:, 2:] - b[:, :2]
        side = np.sqrt(np.maximum(size.prod(axis=1, keepdims=True), 0.0))
        centre = (b[:, :2] + b[:, 2:]) / 2 + side * [self.shift_x, self.shift_y]
        half = side * self.scale / 2
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


#: Medians over renderings of the face model in random poses; test_detection.py measures again.
BOX_MAPS = {
    "short_range": BoxMap(0.0, -0.16, 1.16),
    "full_range": BoxMap(0.0, -0.11, 1.09),
    "yunet": BoxMap(0.0, -0.07, 1.11),
}


@dataclass(frozen=True)
class DetectorConfig:
    """How to look for faces.

    Attributes:
        backend: `short_range` (2.5 ms; faces from about a seventh of the image's longer side),
            `full_range` (6.5 ms; from about a twentieth: people 2 to 5 m away), or `yunet`
            (needs `model`).
        model: path of the detector's file; empty takes the shipped one.
        min_score: detections below are dropped, in (0, 1].
        tiles: looks also into `tiles` x `tiles` overlapping parts, for small faces; 1 is the
            whole image only. Costs one more run a part.
        rotations_deg: looks also into the image turned by these, for lying or upside-down heads.
        max_side_px: YuNet only: the image is shrunk to this before the search.
    """

    backend: str = "short_range"
    model: str = ""
    min_score: float = 0.5
    tiles: int = 1
    rotations_deg: tuple[float, ...] = ()
    max_side_px: int = 640

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigError(
                f"a detector of {', '.join(BACKENDS)}", repr(self.backend), "choose one"
            )
        if not 0.0 < self.min_score <= 1.0:
            raise ConfigError("min_score in (0, 1]", f"{self.min_score}", "0.5 is a good start")
        if not 1 <= self.tiles <= 8:
            raise ConfigError(
                "tiles from 1 to 8", f"{self.tiles}", "3 finds faces a third as large"
            )
        if self.max_side_px < 32:
            raise ConfigError(
                "max_side_px of at least 32", f"{self.max_side_px}", "640 is a good start"
            )


#: Thorough search for single pictures, where a second more does not matter.
THOROUGH = DetectorConfig(
    backend="full_range", tiles=3, rotations_deg=(-90.0, -45.0, 45.0, 90.0, 180.0)
)


def make_detector(config: DetectorConfig | None = None) -> Detector:
    """The detector a configuration asks for.

    Raises:
        ModelError: its file is missing or damaged.
        ConfigError: its library is not installed.
    """
    config = config or DetectorConfig()
    detector: Detector
    if config.backend == "yunet":
        detector = YuNetDetector(config.model, config.min_score, config.max_side_px)
    else:
        detector = MediapipeDetector(config.backend, config.model, config.min_score)
    if config.tiles > 1 or config.rotations_deg:
        detector = SearchingDetector(detector, config.tiles, config.rotations_deg)
    return detector


class MediapipeDetector:
    """BlazeFace through the mediapipe Tasks API (Bazarevsky et al. 2019). Not thread-safe."""

    def __init__(
        self, backend: str = "short_range", model: str | Path = "", min_score: float = 0.5
    ) -> None:
        """Loads the network.

        Args:
            backend: `short_range` or `full_range`.
            model: path of the tflite file; empty takes the shipped one.
            min_score: detections below are dropped.
        """
        shipped = {"short_range": DETECTOR_SHORT_RANGE, "full_range": DETECTOR_FULL_RANGE}[backend]
        path = find_model(model or shipped)
        with _quiet_stderr():
            try:
                import mediapipe  # half a second and 60 MB: only where it is used
                from mediapipe.tasks.python import vision
                from mediapipe.tasks.python.core.base_options import BaseOptions
            except ImportError as fault:
                raise ConfigError(
                    "mediapipe for this detector",
                    str(fault),
                    "pip install mediapipe, or use yunet",
                ) from None
            options = vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_path=str(path)),
                min_detection_confidence=min_score,
            )
            try:
                self._detector: Any = vision.FaceDetector.create_from_options(options)
            except (RuntimeError, ValueError, OSError) as fault:
                raise ModelError(
                    f"a mediapipe face detector at {path}",
                    str(fault).splitlines()[0],
                    "restore the file",
                ) from None
            weakref.finalize(self, _close, self._detector)
            self._image = mediapipe.Image
            self._srgb = mediapipe.ImageFormat.SRGB
            self._box_map = BOX_MAPS[backend]
            self.detect(np.zeros((8, 8, 3), np.uint8))  # it logs once more on its first image

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """See `Detector`."""
        image = self._image(image_format=self._srgb, data=as_rgb(rgb))
        found = self._detector.detect(image).detections
        boxes = [
            (b.origin_x, b.origin_y, b.origin_x + b.width, b.origin_y + b.height)
            for b in (d.bounding_box for d in found)
        ]
        return _detections(
            np.array(boxes), np.array([d.categories[0].score for d in found]), self._box_map
        )


class YuNetDetector:
    """YuNet through OpenCV (Wu et al. 2023); the user supplies the ONNX file. Not thread-safe."""

    def __init__(self, model: str | Path, min_score: float = 0.5, max_side_px: int = 640) -> None:
        """Loads the network.

        Args:
            model: path of the YuNet ONNX file.
            min_score: detections below are dropped.
            max_side_px: larger images are shrunk to this.
        """
        if not str(model):
            raise ModelError(
                "the path of a YuNet ONNX file",
                "none",
                "get one from the OpenCV model zoo and set the detector's model",
            )
        path = find_model(Path(model).expanduser().absolute())
        try:
            self._detector: Any = cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_score)
        except cv2.error as fault:
            raise ModelError(
                f"a YuNet ONNX file at {path}",
                str(fault).strip().splitlines()[0],
                "restore the file",
            ) from None
        self._max_side_px = max_side_px

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """See `Detector`."""
        image = as_rgb(rgb)
        height, width = image.shape[:2]
        shrink = max(1.0, max(height, width) / self._max_side_px)
        if shrink > 1.0:
            size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        scale = np.array([width / image.shape[1], height / image.shape[0]])
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        # YuNet wants multiples of 32; a black border moves nothing.
        below, right = -bgr.shape[0] % 32, -bgr.shape[1] % 32
        bgr = cv2.copyMakeBorder(bgr, 0, below, 0, right, cv2.BORDER_CONSTANT)
        self._detector.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, found = self._detector.detect(bgr)
        rows = np.zeros((0, 15)) if found is None else np.asarray(found, np.float64)
        low = rows[:, :2] * scale
        boxes = np.concatenate([low, low + rows[:, 2:4] * scale], axis=1)
        return _detections(boxes, rows[:, 14], BOX_MAPS["yunet"])


class SearchingDetector:
    """Looks with another detector into parts and turned copies of the image, and merges."""

    def __init__(
        self, detector: Detector, tiles: int = 1, rotations_deg: tuple[float, ...] = ()
    ) -> None:
        """Wraps a detector; `tiles` and `rotations_deg` as in `DetectorConfig`."""
        self._detector = detector
        self._tiles = tiles
        self._rotations_deg = rotations_deg

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """See `Detector`."""
        found = [self._detector.detect(rgb)]
        for x0, y0, x1, y1 in tile_boxes(rgb.shape[1], rgb.shape[0], self._tiles):
            part = self._detector.detect(np.ascontiguousarray(rgb[y0:y1, x0:x1]))
            inside = _whole(part, x1 - x0, y1 - y0)
            found.append(
                Detections(inside.boxes + np.array([x0, y0, x0, y0], np.float32), inside.scores)
            )
        found += [self._detect_turned(rgb, angle) for angle in self._rotations_deg]
        boxes = np.concatenate([d.boxes for d in found])
        scores = np.concatenate([d.scores for d in found])
        keep = nms(boxes, scores)
        return Detections(boxes[keep], scores[keep])

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


def tile_boxes(width: int, height: int, tiles: int) -> list[tuple[int, int, int, int]]:
    """Half-overlapping parts of an image; none for `tiles` 1.

    Args:
        width: pixels.
        height: pixels.
        tiles: parts along the longer side; the shorter one gets as many as make them square.

    Returns:
        x0, y0, x1, y1 per part, pixels, end exclusive.
    """
    if tiles <= 1:
        return []
    side = min(2 * max(width, height) // (tiles + 1) + 1, max(width, height))

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        n = int(np.ceil((length - side) / (side / 2))) + 1
        return [int(s) for s in np.linspace(0, length - side, n).round()]

    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in starts(height)
        for x in starts(width)
    ]


def _detections(boxes: NDArray[Any], scores: NDArray[Any], box_map: BoxMap) -> Detections:
    mapped, score = box_map(boxes), np.asarray(scores, np.float32)
    good = np.isfinite(mapped).all(axis=1) & (mapped[:, 2] - mapped[:, 0] > 1.0)
    order = np.flatnonzero(good)[np.argsort(-score[good], kind="stable")]
    return Detections(mapped[order], score[order])


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


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A contiguous (H, W, 3) RGB image of an RGB or a grey (H, W) one.

    Raises:
        ImageError: it is neither, or has no pixels.
    """
    if image.dtype != np.uint8 or 0 in image.shape or image.ndim not in (2, 3):
        raise ImageError(
            "an image (H, W, 3) or (H, W) uint8 with pixels",
            f"{image.shape} {image.dtype}",
            "check the source",
        )
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    if image.shape[2] != 3:
        raise ImageError("3 channels, RGB", f"{image.shape[2]}", "convert it to rgb8 first")
    return np.ascontiguousarray(image)


def _close(detector: Any) -> None:
    """Closes a mediapipe task without a word."""
    with _quiet_stderr():
        try:
            detector.close()
        except RuntimeError:  # at interpreter exit its threads are gone before it is
            detector._handle = None


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silences what native code writes to stderr (mediapipe logs there, whatever it is told)."""
    sys.stderr.flush()
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
