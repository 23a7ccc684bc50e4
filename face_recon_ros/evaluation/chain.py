"""Single pictures through detector and network, as the live pipeline treats its first frame.

Evaluation of still images wants every picture for itself (no tracks, no smoothing), crops of
several pictures in one batch, and no mesh where landmarks will do.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import camera_from_face, crop_from_face
from face_recon_ros.core.detection import Detector
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.types import Coefficients, Detections, Track

#: A detection is of the annotated face when their boxes share this much (intersection over union).
SAME_FACE_IOU = 0.2

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Estimate:
    """What the chain says about one face.

    Attributes:
        coefficients: one row.
        crop: what the network saw.
        crop_from_face: the head in the nominal crop camera: its attitude to the viewing ray.
        camera_from_face: the head in the camera.
        camera: that took the image, or the guess that stood in for it.
    """

    coefficients: Coefficients
    crop: Crop
    crop_from_face: Rigid
    camera_from_face: Rigid
    camera: PinholeCamera


class Estimator(Protocol):
    """What evaluations of still images measure."""

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """Faces of an (H, W, 3) uint8 image, best first."""
        ...

    def estimate(
        self, views: Sequence[tuple[NDArray[np.uint8], ArrayLike, PinholeCamera]]
    ) -> list[Estimate]:
        """Reconstructs one face of each (image, face box, camera)."""
        ...


class StillChain:
    """The shipped detector and network as an `Estimator`, several pictures in one batch."""

    def __init__(
        self, detector: Detector, reconstructor: FaceReconstructor, *, refine: int = 0
    ) -> None:
        """Composes them.

        Args:
            detector: any.
            reconstructor: network and face model.
            refine: how often the face box is measured again on the mesh and the network run
                again, as `FacePipeline.process_still` does.
        """
        self._detector = detector
        self._reconstructor = reconstructor
        self._refine = refine

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """See `Estimator`."""
        return self._detector.detect(rgb)

    def estimate(
        self, views: Sequence[tuple[NDArray[np.uint8], ArrayLike, PinholeCamera]]
    ) -> list[Estimate]:
        """See `Estimator`."""
        if not views:
            return []
        boxes = np.array([np.asarray(box, np.float32) for _, box, _ in views])
        for _ in range(self._refine):
            crops, coefficients = self._regress(views, boxes)
            moved = self._reconstructor.face_boxes(crops, coefficients)
            same = [iou(a, b)[0, 0] > SAME_FACE_IOU for a, b in zip(boxes, moved, strict=True)]
            boxes = np.where(np.array(same)[:, None], moved, boxes)
        crops, coefficients = self._regress(views, boxes)
        out = []
        for i, ((_, _, camera), crop) in enumerate(zip(views, crops, strict=True)):
            row = coefficients[i]
            nominal = crop_from_face(row.rotation[0], row.translation[0])
            out.append(
                Estimate(row, crop, nominal, camera_from_face(nominal, crop, camera), camera)
            )
        return out

    def _regress(
        self,
        views: Sequence[tuple[NDArray[np.uint8], ArrayLike, PinholeCamera]],
        boxes: NDArray[np.float32],
    ) -> tuple[list[Crop], Coefficients]:
        tracks = [Track(str(i), box, 1.0, 0.0) for i, box in enumerate(boxes)]
        crops = self._reconstructor.crops(tracks)
        pixels = [
            self._reconstructor.extract(rgb, [crop])
            for (rgb, _, _), crop in zip(views, crops, strict=True)
        ]
        prediction = self._reconstructor.predict(np.concatenate(pixels))
        if not prediction.usable.all():
            raise ModelError(
                "finite coefficients and faces in front of the camera",
                f"{int((~prediction.usable).sum())} of {len(prediction.usable)} rows without",
                "the network is damaged or badly quantised: export it again",
            )
        return crops, prediction.coefficients


def box_of_points(points_px: ArrayLike) -> NDArray[np.float64]:
    """(4,) x0, y0, x1, y1 of (N, 2) points."""
    p = np.asarray(points_px, np.float64)
    return np.concatenate([p.min(axis=0), p.max(axis=0)])


def associate(detections: Detections, box: ArrayLike) -> int | None:
    """Index of the detection that overlaps a box most.

    Args:
        detections: of the image.
        box: (4,) of the annotated face, pixels; it only associates, it never makes the crop.

    Returns:
        None when none reaches `SAME_FACE_IOU`.
    """
    if len(detections) == 0:
        return None
    shared = iou(detections.boxes, np.asarray(box, np.float32))[:, 0]
    best = int(shared.argmax())
    return best if shared[best] >= SAME_FACE_IOU else None


def largest(detections: Detections) -> int | None:
    """Index of the largest detection, None when there is none."""
    if len(detections) == 0:
        return None
    size = detections.boxes[:, 2:] - detections.boxes[:, :2]
    return int(size.prod(axis=1).argmax())


def prefetched(items: Iterable[T], work: Callable[[T], U], ahead: int = 16) -> Iterator[U]:
    """`map(work, items)` in one other thread, a few items ahead; an error surfaces in order."""
    done = object()
    results: queue.Queue[object] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(value: object) -> bool:
        while not stop.is_set():
            try:
                results.put(value, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(work(item)):
                    return
        except BaseException as fault:  # handed over to the caller's thread
            put(fault)
        else:
            put(done)

    thread = threading.Thread(target=run, name="prefetch", daemon=True)
    thread.start()
    try:
        while (value := results.get()) is not done:
            if isinstance(value, BaseException):
                raise value
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
