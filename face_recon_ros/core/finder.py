"""Finding and following faces: detector, tracker and scene cuts of a video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.appearance import turn_of
from face_recon_ros.core.boxes import iou
from face_recon_ros.core.crop import crop_from_face_box
from face_recon_ros.core.detection import DetectorConfig, make_detector
from face_recon_ros.core.placement import SAME_FACE_IOU
from face_recon_ros.core.scene_cut import SceneCut
from face_recon_ros.core.search import SearchingDetector
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections, Detector, Face, Float32, Image, Track

_NEAR_MARGIN, _NEAR_PX = 2.0, 192  # of the crop in which a face must be found again


class FaceFinder:
    """Image -> tracks. Detector and tracker; the detector rests while the tracks are sure.

    Attributes:
        left_out: faces that the detector saw when it looked last and that are not followed, as
            there are more than the tracker may follow.
    """

    def __init__(
        self, detector: Detector, tracker: Tracker, config: DetectorConfig | None = None
    ) -> None:
        """Composes a detector and a tracker; `config` is what the detector was made of."""
        self._detector = detector
        self._tracker = tracker
        self._scene_cut = SceneCut()
        self._config = config
        self._near: Detector | None = None
        self.left_out = 0

    @staticmethod
    def from_config(detector: DetectorConfig, tracker: TrackerConfig) -> FaceFinder:
        """Loads what the configuration names."""
        return FaceFinder(make_detector(detector), Tracker(tracker), detector)

    def tune(self, detector: DetectorConfig) -> None:
        """Looks from the next image on by other settings; the tracks go on."""
        if detector != self._config:
            self._detector, self._config = make_detector(detector), detector

    @property
    def tracks(self) -> list[Track]:
        """All tracks of the last image, visible or tentative."""
        return self._tracker.tracks

    def find(self, image: Image) -> tuple[list[Track], Detections | None]:
        """All tracks of the next image, and the detections if the detector had to look."""
        self._tracker.set_image_size(image.rgb.shape[1], image.rgb.shape[0])
        if self._scene_cut(image.rgb):
            self._tracker.cut()
        if not self._tracker.needs_detection(image.stamp):
            return self._tracker.predict(image.stamp), None
        if isinstance(self._detector, SearchingDetector):
            detections = self._detector.detect_next(image.rgb, image.stamp)
        else:
            detections = self._detector.detect(image.rgb)
        tracks = self._tracker.update(detections, image.stamp)
        self.left_out = self._unclaimed(tracks, detections)
        return tracks, detections

    def _unclaimed(self, tracks: list[Track], detections: Detections) -> int:
        """How many faces were found that no track follows, because there are too many."""
        if len(tracks) < self._tracker.config.max_faces:
            return 0
        boxes = np.array([track.box for track in tracks], np.float32).reshape(-1, 4)
        return int((iou(detections.boxes, boxes).max(axis=1, initial=0.0) < SAME_FACE_IOU).sum())

    def visible(self) -> list[Track]:
        """Those of the last image's tracks that show a face; see `Tracker.visible`."""
        return self._tracker.visible

    def find_anew(self, image: Image, seed: int | None = None) -> tuple[list[Track], Detections]:
        """Tracks of an image that has nothing to do with those before; `seed`: of their ids."""
        self._tracker.reset(seed)
        self._scene_cut.reset()
        detections = self._detector.detect(image.rgb)
        tracks = self._tracker.update(detections, image.stamp)
        self._tracker.reset()
        return tracks, detections

    def finds_again(self, rgb: NDArray[np.uint8], face: Face) -> bool:
        """Whether the detector finds a reconstructed face again: near, upright, where its mesh is.

        What it takes for a face in a large picture and not in its own crop is none.
        """
        if self._near is None:
            self._near = self._detector  # what was composed by hand looks itself
            if self._config is not None:
                self._near = make_detector(replace(self._config, tiles=1, rotations_deg=()))
        crop = crop_from_face_box(face.box, _NEAR_MARGIN, _NEAR_PX, face.crop.angle)
        found = self._near.detect(crop.extract(rgb))
        middle, half = (crop.size - 1) / 2, crop.size / _NEAR_MARGIN / 2
        box = np.array([middle - half, middle - half, middle + half, middle + half])
        return bool(iou(box, found.boxes).max(initial=0.0) > SAME_FACE_IOU)

    def wants_appearance(self) -> list[str]:
        """Tracks of the last image whose face should be embedded, the most urgent first."""
        return self._tracker.wants_appearance()

    def identify(self, embeddings: dict[str, Float32]) -> dict[str, str]:
        """Looks at faces of the last image; old id -> new id where it is another person."""
        return self._tracker.identify(embeddings)

    def confirm(self, faces: list[Face], presence: dict[str, float] | None = None) -> None:
        """Passes on where the reconstructed meshes were; see `Tracker.confirm`."""
        boxes = {face.track.id: face.box for face in faces}
        turns = {face.track.id: turn_of(face.coefficients) for face in faces}
        self._tracker.confirm(boxes, presence, turns)
