"""The pipeline: image -> detections -> tracks -> crops -> coefficients -> faces.

`FaceFinder` finds faces, `FaceReconstructor` reconstructs them; `FacePipeline` has both
and closes the loop, so that a reconstructed mesh says where to look in the next frame. Separate
nodes use the two halves on their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.appearance import AppearanceStage, FaceEmbedder
from face_recon_ros.core.background import executor_of
from face_recon_ros.core.boxes import nms
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Picture
from face_recon_ros.core.detection import DetectorConfig, as_rgb
from face_recon_ros.core.errors import CameraError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.head_state import HeadStateConfig, HeadStateEstimator
from face_recon_ros.core.placement import place_again
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.refresh import Refresher
from face_recon_ros.core.stopwatch import Stopwatch, Timer
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.types import Detections, Face, Image, Track

#: What takes time, in order; `infer` is the network's own, the rest is overhead.
STAGES = (
    "detect",
    "track",
    "refine",
    "crop",
    "infer",
    "fit",
    "decode",
    "identify",
    "confirm",
    "depth",
    "head_state",
)


@dataclass(frozen=True)
class PipelineConfig:
    """Everything that can be set.

    Attributes:
        detector: where to look.
        tracker: how to follow.
        reconstructor: what to make of it.
        head_state: what follows from it.
    """

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    reconstructor: ReconstructorConfig = field(default_factory=ReconstructorConfig)
    head_state: HeadStateConfig = field(default_factory=HeadStateConfig)


@dataclass(frozen=True)
class Frame:
    """What the pipeline made of one image.

    Attributes:
        faces: the reconstructed faces of visible tracks, in the order of the tracks.
        crops: (N, S, S, 3) uint8 RGB, the pixels that the network saw of each face.
        unusable: how many faces the network gave no usable answer for.
        carried: how many of the faces were not reconstructed in this image for want of time, but
            went on with their tracks.
        detections: what the detector found, None when it did not run.
        timings: stage of `STAGES` -> seconds, for those that ran; and their `total`.
    """

    faces: list[Face]
    crops: NDArray[np.uint8]
    detections: Detections | None
    timings: dict[str, float]
    unusable: int = 0
    carried: int = 0

    @property
    def tracks(self) -> list[Track]:
        """The faces' tracks, before reconstruction corrected them."""
        return [face.track for face in self.faces]


class FacePipeline:
    """Images in, faces out."""

    def __init__(
        self,
        finder: FaceFinder,
        reconstructor: FaceReconstructor,
        timer: Timer = time.perf_counter,
        head_state: HeadStateEstimator | None = None,
        appearance: AppearanceStage | None = None,
        refresher: Refresher | None = None,
    ) -> None:
        """Composes the parts.

        Args:
            finder: of faces.
            reconstructor: of faces.
            timer: only measures the stages, seconds.
            head_state: of faces; None makes one with default settings.
            appearance: distinguishes people; None follows faces by position alone.
            refresher: keeps within a budget of time; None reconstructs all faces of all images.
        """
        self.finder = finder
        self.reconstructor = reconstructor
        self.head_state = head_state or HeadStateEstimator(reconstructor.model)
        self._timer = timer
        self._appearance = appearance
        self._refresher = refresher
        self._attended: set[str] = set()

    @staticmethod
    def from_config(config: PipelineConfig | None = None, *, live: bool = False) -> FacePipeline:
        """Loads what the configuration names.

        Args:
            config: None takes the defaults.
            live: keeps within `reconstructor.budget_ms`, and looks for faces beside the images:
                what is made of an image then depends on how fast this machine is. All networks
                have run once then.
        """
        config = config or PipelineConfig()
        beside = executor_of(live=live)
        reconstructor = FaceReconstructor.from_config(config.reconstructor)
        appearance = None
        if config.tracker.appearance != "off":
            appearance = AppearanceStage(
                FaceEmbedder(threads=config.reconstructor.threads), reconstructor.model, beside
            )
        pipeline = FacePipeline(
            FaceFinder.from_config(config.detector, config.tracker, beside if live else None),
            reconstructor,
            head_state=HeadStateEstimator(reconstructor.model, config.head_state),
            appearance=appearance,
            refresher=Refresher.within(config.reconstructor.budget_ms) if live else None,
        )
        if live:
            pipeline.warm_up()
        return pipeline

    def warm_up(self) -> None:
        """Runs all networks once, so that no image waits for what only their first run takes."""
        self.finder.warm_up()
        self.reconstructor.warm_up()
        if self._appearance:
            self._appearance.warm_up()

    def process(
        self,
        image: Image,
        camera: PinholeCamera | None = None,
        depth: NDArray[np.float64] | Callable[[], NDArray[np.float64] | None] | None = None,
    ) -> Frame:
        """The next image of a video.

        Args:
            image: RGB or grey; its stamp gives the time.
            camera: that took it; None guesses one from the default field of view.
            depth: (H, W) metres along the optical axis, registered to the image; 0 or NaN is a
                hole. It corrects how far away heads are. A function that gives it is called once
                there are faces: depth may come later than the image.

        Raises:
            ImageError: the image or the depth image cannot be used.
            CameraError: the camera is of another image size.
        """
        clock = Stopwatch(self._timer)
        image = replace(image, rgb=as_rgb(image.rgb))
        camera = camera_of(image, camera)
        self._identify()
        clock.lap("identify")
        tracks, detections = self.finder.find(image)
        clock.lap("detect" if detections is not None else "track")
        due, left_out = self._due(tracks, image.stamp, clock.since())
        # Tentative tracks, too: their meshes move the tracks until they are seen again.
        faces, pixels = self._reconstruct(image, camera, due, clock, follow=True)
        reconstruction_s = clock.since("detect", "track", "identify")
        self.finder.confirm(faces)
        unusable, fresh = len(due) - len(faces), {face.track.id for face in faces}
        if self._refresher:
            self._refresher.remember(faces, pixels)
            left_out = [track for track in left_out if track.id not in fresh]
            carried = self._refresher.carried(left_out, camera)
            faces = [*faces, *(face for face, _ in carried)]
            pixels = np.concatenate([pixels, *(crop[None] for _, crop in carried)])
        scores = {track.id: track.score for track in self.finder.visible()}
        shown = [i for i, face in enumerate(faces) if face.track.id in scores]
        faces = [
            replace(faces[i], track=replace(faces[i].track, score=scores[faces[i].track.id]))
            for i in shown
        ]
        clock.lap("confirm")
        if callable(depth):
            depth = depth() if faces else None
            clock.lap("depth")
        faces = self.head_state(faces, camera, image.stamp, depth)
        clock.lap("head_state")
        laps = clock.laps()
        if self._refresher:
            self._refresher.took(reconstruction_s, laps["confirm"] + laps["head_state"])
            self._attended = {face.track.id for face in faces if face.attention is not None}
        n_carried = sum(face.track.id not in fresh for face in faces)
        return Frame(faces, pixels[shown], detections, laps, unusable, n_carried)

    def also_took(self, seconds: float) -> None:
        """Counts what was done with the last frame after `process` towards the budget."""
        if self._refresher:
            self._refresher.also_took(seconds)

    def _identify(self) -> dict[str, str]:
        """Old id -> new id, of tracks that show another person as a look has said by now."""
        look = self._appearance.take() if self._appearance else None
        return self.finder.identify(look.value, look.stamp) if look else {}

    @staticmethod
    def _renamed(tracks: list[Track], renamed: dict[str, str]) -> list[Track]:
        """The tracks under their new ids; without an id where another one has it now."""
        taken = set(renamed.values()) - set(renamed)
        names = [renamed.get(t.id, "" if t.id in taken else t.id) for t in tracks]
        return [replace(track, id=name) for track, name in zip(tracks, names, strict=True)]

    def _due(
        self, tracks: list[Track], stamp: float, spent_s: float
    ) -> tuple[list[Track], list[Track]]:
        """Tracks to be reconstructed, and those left out for want of time."""
        if self._refresher is None:
            return tracks, []
        compared = self.reconstructor.orientations.due_again(track.id for track in tracks)
        chosen = self._refresher.choose(
            tracks, stamp, self._attended, spent_s=spent_s, compared=compared
        )
        return (
            [track for i, track in enumerate(tracks) if i in chosen],
            [track for i, track in enumerate(tracks) if i not in chosen],
        )

    def process_still(
        self,
        image: Image,
        camera: PinholeCamera | None = None,
        refine: int = 1,
        *,
        doubting: bool = False,
        seed: int | None = None,
    ) -> Frame:
        """A picture that stands for itself: every detection is a new person.

        Args:
            image: RGB or grey.
            camera: that took it; None guesses one from the default field of view.
            refine: how often the face box is measured again on the mesh and the network run again.
            doubting: whether a face must be found again where its mesh is, and of meshes in one
                place only the best counts: for a search that looks at very many places.
            seed: of the ids, so that they do not depend on what was seen before.
        """
        clock = Stopwatch(self._timer)
        image = replace(image, rgb=as_rgb(image.rgb))
        camera = camera_of(image, camera)
        tracks, detections = self.finder.find_anew(image, seed)
        clock.lap("detect")
        for _ in range(refine):
            tracks = place_again(self.reconstructor, image.rgb, tracks)
            clock.lap("refine")
        faces, pixels = self._reconstruct(image, camera, tracks, clock)
        unusable = len(tracks) - len(faces)
        if doubting:
            again = [i for i, face in enumerate(faces) if self.finder.finds_again(image.rgb, face)]
            scores = np.array([faces[i].track.score for i in again], np.float32)
            boxes = np.array([faces[i].box for i in again], np.float32).reshape(-1, 4)
            kept = sorted(again[i] for i in nms(boxes, scores))
            faces, pixels = [faces[i] for i in kept], pixels[kept]
            clock.lap("confirm")
        faces = self.head_state.still(faces, camera)
        clock.lap("head_state")
        return Frame(faces, pixels, detections, clock.laps(), unusable)

    def process_person(
        self,
        image: Image,
        camera: PinholeCamera | None = None,
        *,
        person: str,
        refine: int = 1,
    ) -> Frame:
        """One of several pictures of a person: one track of pictures, not of a video.

        Args:
            image: RGB or grey; its largest face is taken. Stamps of one person must rise.
            camera: that took it; None guesses one from the default field of view.
            person: name of the track; all that its earlier pictures showed of identity counts.
            refine: see `process_still`.

        Returns:
            One face, or none.
        """
        frame = self.process_still(image, camera, refine, doubting=True)
        if not frame.faces:
            return frame
        largest = max(frame.faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
        track = replace(largest.track, id=person, stamp=image.stamp)
        image = replace(image, rgb=as_rgb(image.rgb))
        camera = camera_of(image, camera)
        clock = Stopwatch(self._timer)
        faces, pixels = self._reconstruct(image, camera, [track], clock)
        faces = self.head_state.still(faces, camera)
        return replace(frame, faces=faces, crops=pixels)

    def _reconstruct(
        self,
        image: Image,
        camera: PinholeCamera,
        tracks: list[Track],
        clock: Stopwatch,
        *,
        follow: bool = False,
    ) -> tuple[list[Face], NDArray[np.uint8]]:
        """The faces that could be reconstructed, and the pixels of each.

        Each for itself, or with what its track showed a moment ago (`follow`).
        """
        crops = self.reconstructor.crops(tracks)
        pixels = self.reconstructor.extract(image.rgb, crops)
        clock.lap("crop")
        crops, pixels, prediction = self.reconstructor.look(
            tracks, crops, pixels, camera if follow else None, hurried=self._refresher is not None
        )
        clock.lap("infer")
        if self._appearance and follow:
            wanted = self.finder.wants_appearance()
            self._appearance.look(image, wanted, tracks, crops, prediction)
            tracks = self._renamed(tracks, self._identify())
        clock.lap("identify")
        pictures = [Picture(image.rgb)] * len(tracks)
        prediction = self.reconstructor.fit(
            pictures, tracks, crops, prediction, camera, mirrored=not follow
        )
        clock.lap("fit")
        faces = self.reconstructor.decode(tracks, crops, prediction, camera, pictures)
        made = {face.track.id for face in faces}
        rows = [i for i, track in enumerate(tracks) if track.id in made]
        clock.lap("decode")
        return faces, pixels[rows]


def camera_of(image: Image, camera: PinholeCamera | None) -> PinholeCamera:
    """The camera to use for an image: the given one if it fits, else a guess, as of a picture.

    Raises:
        CameraError: the camera's size is not the image's.
    """
    height, width = image.rgb.shape[:2]
    if camera is None:
        return PinholeCamera.from_fov(width, height, whole=False)
    if (camera.width, camera.height) != (width, height):
        raise CameraError(
            f"a calibration of {width} x {height}, as the image is",
            f"{camera.width} x {camera.height}",
            "publish the CameraInfo of this image, or recalibrate at this size",
        )
    return camera
