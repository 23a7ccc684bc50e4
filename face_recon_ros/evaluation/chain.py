"""Single pictures through detector and network, as the live pipeline treats its first frame.

Evaluation of still images wants every picture for itself, or all pictures of one person as one
track.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, Picture
from face_recon_ros.core.crop_pose import crop_from_face
from face_recon_ros.core.detection import make_detector
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.pipeline import PipelineConfig
from face_recon_ros.core.placement import place_again
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.types import Coefficients, Detections, Detector, Face, Track

#: A detection is of the annotated face when their boxes share this much (intersection over union).
ANNOTATED_FACE_IOU = 0.2
#: Between two pictures of a person, seconds: another moment, not the next frame of a video.
PICTURE_INTERVAL_S = 1.0


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


class View(NamedTuple):
    """A face in a picture.

    Attributes:
        rgb: (H, W, 3) uint8.
        box: (4,) of the face, pixels.
        camera: that took the picture, or a guess.
    """

    rgb: NDArray[np.uint8]
    box: ArrayLike
    camera: PinholeCamera


class Estimator(Protocol):
    """What evaluations of still images measure."""

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """Faces of an (H, W, 3) uint8 image, best first."""
        ...

    def estimate(self, views: Sequence[View]) -> Estimate:
        """The last of one or more pictures of one person, with all that the others showed."""
        ...


class StillChain:
    """The shipped detector and network as an `Estimator`."""

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
        self._config: PipelineConfig | None = None

    @classmethod
    def from_config(cls, config: PipelineConfig, *, refine: int = 0) -> StillChain:
        """Detector and network of a configuration, on one thread: other cores take other pictures.

        Such a chain can be sent to other processes, which make it anew.

        Args:
            config: its level and part of the mesh do not count: all of the coarse head is made.
            refine: see `StillChain`.
        """
        whole = replace(config.reconstructor, level="coarse", part="head", threads=1)
        detector = make_detector(replace(config.detector, threads=1))
        chain = cls(detector, FaceReconstructor.from_config(whole), refine=refine)
        chain._config = config
        return chain

    def __reduce__(self) -> tuple[Any, ...]:
        if self._config is None:
            raise TypeError("only a chain made by from_config can be sent to other processes")
        return _chain, (self._config, self._refine)

    @property
    def model(self) -> MorphableModel:
        """The face model of its answers."""
        return self._reconstructor.model

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """See `Estimator`."""
        return self._detector.detect(rgb)

    def estimate(self, views: Sequence[View]) -> Estimate:
        """See `Estimator`."""
        (person,) = new_tracks([views[0].box])
        for i, view in enumerate(views):
            box = np.asarray(view.box, np.float32)
            last = self._answer(view, replace(person, box=box, stamp=i * PICTURE_INTERVAL_S))
        return last

    def _answer(self, view: View, track: Track) -> Estimate:
        rgb, _, camera = view
        for _ in range(self._refine):
            (track,) = place_again(self._reconstructor, rgb, [track])
        faces = reconstruct(self._reconstructor, rgb, [track], camera, mirrored=True)
        if not faces:
            raise ModelError(
                "finite coefficients and a face in front of the camera",
                "none of the kind",
                "the network is damaged or badly quantised: export it again",
            )
        face = faces[0]
        row = face.coefficients
        nominal = crop_from_face(row.rotation[0], row.translation[0])
        return Estimate(row, face.crop, nominal, face.camera_from_face, camera)


@functools.lru_cache(maxsize=1)
def _chain(config: PipelineConfig, refine: int) -> StillChain:
    """A chain that was sent to this process: made once, however often it comes."""
    return StillChain.from_config(config, refine=refine)


_NEW_TRACKS = itertools.count()


def new_tracks(boxes: Iterable[ArrayLike]) -> list[Track]:
    """A new track for each (4,) box, pixels: nothing is known of its person yet."""
    return [
        Track(f"still {next(_NEW_TRACKS)}", np.asarray(box, np.float32), 1.0, 0.0) for box in boxes
    ]


def reconstruct(
    reconstructor: FaceReconstructor,
    rgb: NDArray[np.uint8],
    tracks: list[Track],
    camera: PinholeCamera,
    *,
    mirrored: bool = False,
) -> list[Face]:
    """The faces of one image as the live pipeline makes them, each with what its track knows.

    Args:
        reconstructor: network and face model.
        rgb: (H, W, 3) uint8.
        tracks: the faces.
        camera: that took it.
        mirrored: look at each in the mirror, too, as at pictures that stand for themselves.
    """
    crops = reconstructor.crops(tracks)
    crops, _, prediction = reconstructor.look(tracks, crops, reconstructor.extract(rgb, crops))
    prediction = reconstructor.fit(
        [Picture(rgb)] * len(crops), tracks, crops, prediction, camera, mirrored=mirrored
    )
    return reconstructor.decode(tracks, crops, prediction, camera)


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
        None when none reaches `ANNOTATED_FACE_IOU`.
    """
    if len(detections) == 0:
        return None
    shared = iou(detections.boxes, np.asarray(box, np.float32))[:, 0]
    best = int(shared.argmax())
    return best if shared[best] >= ANNOTATED_FACE_IOU else None


def largest(detections: Detections) -> int | None:
    """Index of the largest detection, None when there is none."""
    if len(detections) == 0:
        return None
    size = detections.boxes[:, 2:] - detections.boxes[:, :2]
    return int(size.prod(axis=1).argmax())
