"""Finding and following faces: detector, tracker and scene cuts of a video."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.appearance import turn_of
from face_recon_ros.core.background import Background
from face_recon_ros.core.boxes import iou
from face_recon_ros.core.crop import crop_from_face_box
from face_recon_ros.core.detection import DetectorConfig, make_detector
from face_recon_ros.core.placement import SAME_FACE_IOU
from face_recon_ros.core.scene_cut import SceneCut
from face_recon_ros.core.scout import look, moved_on
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections, Detector, Face, Float32, Image, Track

_LATE_S = 0.25  # after its image a detection no longer says where faces are
_NEAR_MARGIN, _NEAR_PX = 2.0, 192  # of the crop in which a face must be found again


class FaceFinder:
    """Image -> tracks. Detector and tracker; the detector rests while the tracks are sure.

    Attributes:
        left_out: faces that the detector saw when it looked last and that are not followed, as
            there are more than the tracker may follow.
    """

    def __init__(
        self,
        detector: Detector,
        tracker: Tracker,
        config: DetectorConfig | None = None,
        scout: Background[Detections] | None = None,
    ) -> None:
        """Composes a detector and a tracker.

        Args:
            detector: of faces.
            tracker: of them.
            config: what the detector was made of.
            scout: has the detector look beside the pipeline while there are tracks; None: an
                image waits for its detections.
        """
        self._detector = detector
        self._tracker = tracker
        self._scene_cut = SceneCut()
        self._config = config
        self._near: Detector | None = None
        self.left_out = 0
        self._scout = scout
        self._stamp: float | None = None
        self._sent: float | None = None  # stamp of the image that the scout looks at
        self._then: dict[str, Float32] = {}  # where tracks were in it
        self._in_doubt = False  # whether the next image waits for its own detections

    @staticmethod
    def from_config(
        detector: DetectorConfig, tracker: TrackerConfig, beside: Executor | None = None
    ) -> FaceFinder:
        """Loads what the configuration names.

        Args:
            detector: where to look.
            tracker: how to follow.
            beside: the detector looks beside the pipeline by it; None: an image waits for its
                detections.
        """
        scout = Background[Detections](beside) if beside else None
        return FaceFinder(make_detector(detector), Tracker(tracker), detector, scout)

    def tune(self, detector: DetectorConfig) -> None:
        """Looks from the next image on by other settings; the tracks go on."""
        if detector != self._config:
            self._detector, self._config = make_detector(detector), detector

    def warm_up(self) -> None:
        """Runs the detector once, on a grey picture of a usual size."""
        self._detector.detect(np.full((720, 1280, 3), 128, np.uint8))

    @property
    def tracks(self) -> list[Track]:
        """All tracks of the last image, visible or tentative."""
        return self._tracker.tracks

    def find(self, image: Image) -> tuple[list[Track], Detections | None]:
        """All tracks of the next image, and the detections if the detector had to look."""
        self._tracker.set_image_size(image.rgb.shape[1], image.rgb.shape[0])
        if self._stamp == self._sent:  # the last image: where its meshes are is known now
            self._then = self._boxes(self._tracker.tracks)
        if self._scene_cut(image.rgb):
            self._tracker.cut()
            self._sent = None
        detections = self._detections(image)
        self._stamp = image.stamp
        if detections is None:
            return self._tracker.predict(image.stamp), None
        tracks = self._tracker.update(detections, image.stamp)
        self.left_out = self._unclaimed(tracks, detections)
        return tracks, detections

    def _detections(self, image: Image) -> Detections | None:
        """What the detector says of an image, itself or by then; None where it says nothing."""
        scout, tracker, stamp = self._scout, self._tracker, image.stamp
        found = scout.take() if scout else None
        if scout is None or (scout.is_idle and self._must_wait()):
            if not tracker.needs_detection(stamp):
                return None
            self._in_doubt = False
            return look(self._detector, image.rgb, stamp)
        if found and found.stamp == self._sent and 0.0 < stamp - found.stamp <= _LATE_S:
            now = self._boxes(tracker.expected(stamp))
            moved, self._in_doubt = moved_on(found.value, self._then, now)
            return moved
        if scout.is_idle and tracker.needs_detection(stamp, ahead=1):
            scout.send(stamp, look, self._detector, image.rgb, stamp)
            self._sent, self._then = stamp, {}
        return None

    def _must_wait(self) -> bool:
        """Whether only detections of the next image itself say who is who there."""
        tracker = self._tracker
        return self._in_doubt or not tracker.tracks or bool(tracker.touching().any())

    @staticmethod
    def _boxes(tracks: list[Track]) -> dict[str, Float32]:
        return {track.id: track.box for track in tracks}

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
        """Whether the detector finds a face again: near, upright, where its mesh is.

        What it takes for a face in the image `rgb` (H, W, 3), and not in its own crop, is none.
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

    def identify(self, embeddings: dict[str, Float32], stamp: float) -> dict[str, str]:
        """Passes on what faces looked like in the image of a stamp; see `Tracker.identify`."""
        return self._tracker.identify(embeddings, stamp)

    def confirm(self, faces: list[Face]) -> None:
        """Passes on where the reconstructed meshes were; see `Tracker.confirm`."""
        presence = {f.track.id: f.presence for f in faces if f.presence is not None}
        boxes = {face.track.id: face.box for face in faces}
        turns = {face.track.id: turn_of(face.coefficients) for face in faces}
        self._tracker.confirm(boxes, presence, turns)
