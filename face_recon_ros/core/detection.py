"""Where the faces are: detector backends behind one small protocol.

Every detector draws its own kind of box. `BoxMap` carries each one over to the one convention of
`crop.face_box_from_points`, so that a crop is the same for every detector.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import ConfigError, ImageError, ModelError
from face_recon_ros.core.models import DETECTORS, find_model, user_path
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.search import SearchingDetector
from face_recon_ros.core.types import Detections, Detector, Float32
from face_recon_ros.core.yunet import YuNet

BACKENDS = tuple(DETECTORS)


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
    "yunet": BoxMap(0.0, -0.07, 1.05),
}

#: Side of the smallest face box of which 95 % are found, over the longer side of the picture that
#: the detector is shown (`face-recon evaluate detection`; docs/evaluation.md has the table).
SMALLEST = {"short_range": 0.13, "full_range": 0.12, "yunet": 0.033}


@dataclass(frozen=True)
class DetectorConfig:
    """How to look for faces.

    Attributes:
        backend: The detector is `yunet` (default; it finds faces from 20 pixels in a 720p
            picture, people up to 5 m away), or MediaPipe's `short_range` (one person near
            the camera) or `full_range`.
        model: This is the path of the detector's file; empty takes the shipped one.
        min_score: Detections with a lower score, in (0, 1], are dropped.
        tiles: The image is also searched in this number of parts along each side, for
            small faces; 1 searches only the whole image. A video's parts are searched
            one after the other.
        scan_period_s: All parts of a video's images are searched within this time in
            seconds; 0 searches all parts of each image.
        rotations_deg: The image is also searched turned by these angles, for lying or
            upside-down heads.
        max_side_px: A larger image or part is shrunk to this side before the search (YuNet
            only).
        threads: ONNX Runtime uses this number of threads for the detector (YuNet only); 0
            takes all cores.
    """

    backend: str = "yunet"
    model: str = ""
    min_score: float = ranged(0.6, 0.01, 1.0)
    tiles: int = ranged(2, 1, 8)
    scan_period_s: float = ranged(1.0, 0.0, 60.0)
    rotations_deg: tuple[float, ...] = ()
    max_side_px: int = ranged(640, 32, 16384)
    threads: int = ranged(2, 0, 256)

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigError(
                f"a detector of {', '.join(BACKENDS)}", repr(self.backend), "choose one"
            )
        check_ranges(self)


#: Thorough search for single pictures, where a second more does not matter.
#: It looks at so many places that its threshold is higher; see also `FaceFinder.finds_again`.
THOROUGH = DetectorConfig(tiles=3, min_score=0.7)


def make_detector(config: DetectorConfig | None = None) -> Detector:
    """The detector a configuration asks for.

    Raises:
        ModelError: its file is missing or damaged.
        ConfigError: its library is not installed.
    """
    config = config or DetectorConfig()
    detector: Detector
    if config.backend == "yunet":
        detector = YuNetDetector(
            config.model, config.min_score, config.max_side_px, config.threads
        )
    else:
        detector = MediapipeDetector(config.backend, config.model, config.min_score)
    if config.tiles == 1 and not config.rotations_deg:
        return detector
    return SearchingDetector(
        detector,
        config.tiles,
        config.rotations_deg,
        smallest=SMALLEST[config.backend],
        native_px=config.max_side_px if config.backend == "yunet" else 0,
        scan_period_s=config.scan_period_s,
    )


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
        path = find_model(model or DETECTORS[backend])
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
    """YuNet in ONNX Runtime; see `core.yunet`."""

    def __init__(
        self,
        model: str | Path = "",
        min_score: float = 0.5,
        max_side_px: int = 640,
        threads: int = 2,
    ) -> None:
        """Loads the network; empty `model` takes the shipped one, the rest is as in `YuNet`."""
        path = user_path(model).absolute() if str(model) else DETECTORS["yunet"]
        self._network = YuNet(find_model(path), min_score, max_side_px, threads)

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """See `Detector`."""
        boxes, scores = self._network(as_rgb(rgb))
        return _detections(boxes, scores, BOX_MAPS["yunet"])


def _detections(boxes: NDArray[Any], scores: NDArray[Any], box_map: BoxMap) -> Detections:
    mapped, score = box_map(boxes), np.asarray(scores, np.float32)
    good = np.isfinite(mapped).all(axis=1) & (mapped[:, 2] - mapped[:, 0] > 1.0)
    order = np.flatnonzero(good)[np.argsort(-score[good], kind="stable")]
    return Detections(mapped[order], score[order])


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
    """Silences what native code writes to stderr (mediapipe always logs there)."""
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
