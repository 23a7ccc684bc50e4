"""The readable story: image -> detections -> tracks -> crops -> coefficients -> faces.

`FaceFinder` tells where faces are, `FaceReconstructor` what they are; `FacePipeline` has both
and closes the loop, so that a reconstructed mesh says where to look in the next frame. Separate
nodes use the two halves on their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.aggregation import Aggregate, AggregationConfig
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop, crop_from_face_box, face_box_from_points
from face_recon_ros.core.detection import (
    Detector,
    DetectorConfig,
    as_rgb,
    make_detector,
    overlap,
)
from face_recon_ros.core.errors import CameraError, ConfigError, ModelError
from face_recon_ros.core.illumination import shade
from face_recon_ros.core.inference import FaceNetwork, Prediction
from face_recon_ros.core.models import FACE_MODEL, NETWORK, find_model
from face_recon_ros.core.morphable_model import (
    FACE,
    FACIAL_SKIN,
    MorphableModel,
    VertexNormals,
    load_morphable_model,
)
from face_recon_ros.core.pose import (
    camera_from_face,
    coefficients_from_crop_pose,
    crop_camera,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.smoothing import OneEuroConfig, OneEuroRigid, OneEuroVector
from face_recon_ros.core.tracking import Tracker, TrackerConfig
from face_recon_ros.core.types import (
    Coefficients,
    Detections,
    Face,
    Float32,
    Image,
    Mesh,
    Track,
)

Timer = Callable[[], float]

#: What takes time, in order; `infer` is the network's own, the rest is overhead.
STAGES = ("detect", "track", "refine", "crop", "infer", "decode", "confirm")

_REMEMBERED_PEOPLE = 32
_SAME_FACE = 0.3  # overlap of a mesh's box with the one it was made from


@dataclass(frozen=True)
class ReconstructorConfig:
    """What is made of a crop.

    Attributes:
        network: shipped name or path of the ONNX network.
        face_model: shipped name or path of the face model.
        level: `coarse` or `fine` mesh.
        part: subset of the face model's mesh that is made: `face`, `facial_skin`, `head`.
        colours: whether meshes carry shaded colours; costs the normals.
        provider: of ONNX Runtime: `auto`, `tensorrt`, `cuda`, `cpu`.
        threads: of ONNX Runtime on the CPU; 0 takes all cores.
        aggregation: of identity and albedo over a track's frames.
        smooth_rotation: One Euro on camera_from_face's rotation, speeds in rad/s.
        smooth_translation: One Euro on its translation, speeds in m/s.
        smooth_expression: One Euro on the expression, speeds in activations/s.
    """

    network: str = NETWORK
    face_model: str = FACE_MODEL
    level: str = "coarse"
    part: str = FACE
    colours: bool = True
    provider: str = "auto"
    threads: int = 2
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    smooth_rotation: OneEuroConfig = field(default_factory=OneEuroConfig)
    smooth_translation: OneEuroConfig = field(default_factory=OneEuroConfig)
    smooth_expression: OneEuroConfig = field(default_factory=OneEuroConfig)

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ConfigError("threads of at least 0", f"{self.threads}", "0 takes all cores")


@dataclass(frozen=True)
class PipelineConfig:
    """Everything that can be set.

    Attributes:
        detector: where to look.
        tracker: how to follow.
        reconstructor: what to make of it.
    """

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    reconstructor: ReconstructorConfig = field(default_factory=ReconstructorConfig)


@dataclass(frozen=True)
class Frame:
    """What the pipeline made of one image.

    Attributes:
        faces: the reconstructed faces, in the order of the tracks.
        tracks: the faces' tracks, before reconstruction corrected them. Those that the detector
            misses are not among them, though they may come back; nor are those without a face.
        unusable: how many faces the network gave no usable answer for.
        detections: what the detector found, None when it did not run.
        timings: stage of `STAGES` -> seconds, for those that ran; and their `total`.
    """

    faces: list[Face]
    tracks: list[Track]
    detections: Detections | None
    timings: dict[str, float]
    unusable: int = 0


class FaceFinder:
    """Image -> tracks. Detector and tracker; the detector rests while the tracks are sure."""

    def __init__(
        self, detector: Detector, tracker: Tracker, config: DetectorConfig | None = None
    ) -> None:
        """Composes a detector and a tracker; `config` is what the detector was made of."""
        self._detector = detector
        self._tracker = tracker
        self._config = config

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
        """All tracks of the last image, shown or in doubt."""
        return self._tracker.tracks

    def find(self, image: Image) -> tuple[list[Track], Detections | None]:
        """All tracks of the next image, and the detections if the detector had to look."""
        if not self._tracker.needs_detection(image.stamp):
            return self._tracker.predict(image.stamp), None
        detections = self._detector.detect(image.rgb)
        return self._tracker.update(detections, image.stamp), detections

    def shown(self) -> list[Track]:
        """Those of the last image's tracks that show a face; see `Tracker.shown`."""
        return self._tracker.shown

    def find_anew(self, image: Image) -> tuple[list[Track], Detections]:
        """Tracks of an image that has nothing to do with those before."""
        self._tracker.reset()
        detections = self._detector.detect(image.rgb)
        tracks = self._tracker.update(detections, image.stamp)
        self._tracker.reset()
        return tracks, detections

    def confirm(self, boxes: dict[str, Float32]) -> None:
        """Tells where the reconstructed meshes were; see `Tracker.confirm`."""
        self._tracker.confirm(boxes)


class FaceReconstructor:
    """Crops -> coefficients -> meshes with poses, all faces of an image in one batch."""

    def __init__(
        self,
        network: FaceNetwork,
        model: MorphableModel,
        config: ReconstructorConfig | None = None,
    ) -> None:
        """Composes a network and a face model.

        Args:
            network: trained for the face model.
            model: the mesh to make, at its level and cut to its part.
            config: the rest of the settings.

        Raises:
            ModelError: network and face model do not belong together.
        """
        sizes = {
            "identity": model.k_identity,
            "expression": model.k_expression,
            "albedo": model.k_albedo,
        }
        if network.sizes != sizes or network.face_model != model.name:
            raise ModelError(
                f"a network for face model {model.name} with {sizes}",
                f"{network.path.name} for {network.face_model} with {network.sizes}",
                "use the face model the network was trained for",
            )
        self.config = config or ReconstructorConfig()
        self.network = network
        self.model = model
        self._skin = np.flatnonzero(model.subsets[FACIAL_SKIN])
        if len(self._skin) == 0:
            raise ModelError("facial skin in the mesh", f"part {self.config.part!r}", "use face")
        self._normals = VertexNormals(model.triangles, model.n_vertices)
        self._size = _LinearSize(model, self._skin)
        self._people: dict[str, _Person] = {}
        self._camera: PinholeCamera | None = None

    @staticmethod
    def from_config(config: ReconstructorConfig) -> FaceReconstructor:
        """Loads what the configuration names."""
        face_model = find_model(config.face_model)
        model = load_morphable_model(face_model, level=config.level)
        network = FaceNetwork(
            find_model(config.network), provider=config.provider, threads=config.threads
        )
        network.check_trained_for(face_model)
        return FaceReconstructor(network, model.subset(config.part), config)

    def tune(self, config: ReconstructorConfig) -> None:
        """Smooths from the next image on by other settings; who people are is kept.

        Args:
            config: of which only `smooth_*` may differ from before.
        """
        if config != self.config:
            self.config = config
            self._smooth_anew()

    def _smooth_anew(self) -> None:
        for person in self._people.values():
            person.smooth(self.config)

    def crops(self, tracks: Iterable[Track]) -> list[Crop]:
        """The squares of the image the network wants to see, one per track."""
        return [
            crop_from_face_box(t.box, self.network.crop_margin, self.network.size) for t in tracks
        ]

    def extract(self, rgb: NDArray[np.uint8], crops: list[Crop]) -> NDArray[np.uint8]:
        """(N, S, S, 3) uint8 pixels of N crops of an (H, W, 3) RGB image; N may be 0."""
        pixels = np.empty((len(crops), self.network.size, self.network.size, 3), np.uint8)
        for out, crop in zip(pixels, crops, strict=True):
            out[:] = crop.extract(rgb)
        return pixels

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        """The network's answer for (N, S, S, 3) uint8 RGB crops."""
        return self.network.predict(pixels)

    def decode(
        self, tracks: list[Track], crops: list[Crop], prediction: Prediction, camera: PinholeCamera
    ) -> list[Face]:
        """Makes faces of the network's answers, each with what its track has shown before.

        Args:
            tracks: N, of one image.
            crops: N, in the same order.
            prediction: N rows, in the same order.
            camera: that took the image.

        Returns:
            A face per usable row of the prediction.
        """
        if self._camera is None or not _same_camera(self._camera, camera):
            self._camera = camera  # the same head is elsewhere now: no motion to be smoothed
            self._smooth_anew()
        faces, usable = [], prediction.usable
        for i, (track, crop) in enumerate(zip(tracks, crops, strict=True)):
            if not usable[i]:
                continue
            person = self._people.pop(track.id, None) or _Person(self.config)
            self._people[track.id] = person  # last is latest
            confidence = float(prediction.identity_confidence[i])
            faces.append(
                self._face(person, track, crop, prediction.coefficients[i], confidence, camera)
            )
        while len(self._people) > max(_REMEMBERED_PEOPLE, len(tracks)):
            del self._people[next(iter(self._people))]
        return faces

    def face_boxes(self, crops: list[Crop], coefficients: Coefficients) -> Float32:
        """Where the network's meshes lie, before anything is aggregated or smoothed.

        Args:
            crops: N.
            coefficients: N rows, in the same order.

        Returns:
            (N, 4) face boxes, image pixels.
        """
        boxes = np.zeros((len(crops), 4), np.float32)
        for i, crop in enumerate(crops):
            vertices = self.model.vertices(coefficients.identity[i], coefficients.expression[i])
            pose = crop_from_face(coefficients.rotation[i], coefficients.translation[i])
            boxes[i] = self._box(vertices, pose, crop)
        return boxes

    def _box(self, vertices: Float32, pose: Rigid, crop: Crop) -> Float32:
        rotation, translation = pose.rotation.astype(np.float32), pose.translation
        x, y, z = rotation @ vertices[self._skin].T + translation[:, None].astype(np.float32)
        nominal = crop_camera(crop.size)
        rays = np.stack([x / z, y / z])
        corners = np.stack([rays.min(axis=1), rays.max(axis=1)])
        pixels = nominal.focal_px * corners + nominal.matrix[:2, 2]
        return face_box_from_points(crop.to_image(pixels)).astype(np.float32)

    def _face(
        self,
        person: _Person,
        track: Track,
        crop: Crop,
        c: Coefficients,
        confidence: float,
        camera: PinholeCamera,
    ) -> Face:
        identity = person.identity(c.identity[0], confidence)
        expression = person.expression(c.expression[0], track.stamp).astype(np.float32)
        # The frame's distance goes with the frame's own head size; keep the size in pixels.
        ratio = self._size(identity) / self._size(c.identity[0])
        rotation, translation = c.rotation[0], ratio * c.translation[0]
        crop_pose = crop_from_face(rotation, translation)
        vertices = self.model.express(person.neutral(self.model, identity), expression)
        box = self._box(vertices, crop_pose, crop)
        pose = camera_from_face(crop_pose, crop, camera)
        if person.smooths_pose:
            pose = person.pose(pose, track.stamp)
            crop_pose = crop_from_camera_pose(pose, crop, camera)
            rotation, translation = coefficients_from_crop_pose(crop_pose)
        albedo, colours = c.albedo[0], None
        if self.config.colours:
            albedo = person.albedo(albedo, confidence)
            normals = self._normals(vertices) @ crop_pose.rotation.T.astype(np.float32)
            reflectance = person.reflectance(self.model, albedo)
            colours = shade(reflectance, normals, c.illumination[0]).astype(np.float32)
        coefficients = replace(
            c,
            identity=identity[None],
            expression=expression[None],
            albedo=albedo[None],
            rotation=rotation[None].astype(np.float32),
            translation=translation[None].astype(np.float32),
        )
        mesh = Mesh(vertices, self.model.triangles, colours)
        return Face(track, crop, coefficients, pose, mesh, box, track.stamp)


class FacePipeline:
    """Images in, faces out."""

    def __init__(
        self,
        finder: FaceFinder,
        reconstructor: FaceReconstructor,
        timer: Timer = time.perf_counter,
    ) -> None:
        """Composes both halves; `timer` only measures the stages, seconds."""
        self.finder = finder
        self.reconstructor = reconstructor
        self._timer = timer

    @staticmethod
    def from_config(config: PipelineConfig | None = None) -> FacePipeline:
        """Loads what the configuration names."""
        config = config or PipelineConfig()
        return FacePipeline(
            FaceFinder.from_config(config.detector, config.tracker),
            FaceReconstructor.from_config(config.reconstructor),
        )

    def process(self, image: Image, camera: PinholeCamera | None = None) -> Frame:
        """The next image of a video.

        Args:
            image: RGB or grey; its stamp tells how much time went by.
            camera: that took it; None guesses one from the default field of view.

        Raises:
            ImageError: the image cannot be used.
            CameraError: the camera is of another image size.
        """
        clock = _Stopwatch(self._timer)
        image = replace(image, rgb=as_rgb(image.rgb))
        camera = camera_of(image, camera)
        tracks, detections = self.finder.find(image)
        clock.lap("detect" if detections is not None else "track")
        shown = self.finder.shown()
        # Also of those in doubt: their meshes lead the tracks on for when they are seen again.
        faces = self._reconstruct(image, camera, tracks, clock)
        self.finder.confirm({face.track.id: face.box for face in faces})
        unusable = len(tracks) - len(faces)
        ids = {track.id for track in shown}
        faces = [face for face in faces if face.track.id in ids]
        clock.lap("confirm")
        return Frame(faces, _with_face(shown, faces), detections, clock.laps(), unusable)

    def process_still(
        self, image: Image, camera: PinholeCamera | None = None, refine: int = 1
    ) -> Frame:
        """A picture that stands for itself: every detection is a new person.

        Args:
            image: RGB or grey.
            camera: that took it; None guesses one from the default field of view.
            refine: how often the face box is measured again on the mesh and the network run again.
        """
        clock = _Stopwatch(self._timer)
        image = replace(image, rgb=as_rgb(image.rgb))
        camera = camera_of(image, camera)
        tracks, detections = self.finder.find_anew(image)
        clock.lap("detect")
        for _ in range(refine):
            crops = self.reconstructor.crops(tracks)
            prediction = self.reconstructor.predict(self.reconstructor.extract(image.rgb, crops))
            boxes = self.reconstructor.face_boxes(crops, prediction.coefficients)
            tracks = [
                replace(t, box=b) if ok and overlap(t.box, b)[0, 0] > _SAME_FACE else t
                for t, b, ok in zip(tracks, boxes, prediction.usable, strict=True)
            ]
            clock.lap("refine")
        faces = self._reconstruct(image, camera, tracks, clock)
        unusable = len(tracks) - len(faces)
        return Frame(faces, _with_face(tracks, faces), detections, clock.laps(), unusable)

    def _reconstruct(
        self, image: Image, camera: PinholeCamera, tracks: list[Track], clock: _Stopwatch
    ) -> list[Face]:
        crops = self.reconstructor.crops(tracks)
        pixels = self.reconstructor.extract(image.rgb, crops)
        clock.lap("crop")
        prediction = self.reconstructor.predict(pixels)
        clock.lap("infer")
        faces = self.reconstructor.decode(tracks, crops, prediction, camera)
        clock.lap("decode")
        return faces


def _with_face(tracks: list[Track], faces: list[Face]) -> list[Track]:
    ids = {face.track.id for face in faces}
    return [track for track in tracks if track.id in ids]


def _same_camera(a: PinholeCamera, b: PinholeCamera) -> bool:
    return a is b or (
        (a.width, a.height, a.distortion_model) == (b.width, b.height, b.distortion_model)
        and np.array_equal(a.matrix, b.matrix)
        and np.array_equal(a.distortion, b.distortion)
    )


def camera_of(image: Image, camera: PinholeCamera | None) -> PinholeCamera:
    """The camera to use for an image: the given one if it fits, else a guess.

    Raises:
        CameraError: the camera's size is not the image's.
    """
    height, width = image.rgb.shape[:2]
    if camera is None:
        return PinholeCamera.from_fov(width, height)
    if (camera.width, camera.height) != (width, height):
        raise CameraError(
            f"a calibration of {width} x {height}, as the image is",
            f"{camera.width} x {camera.height}",
            "publish the CameraInfo of this image, or recalibrate at this size",
        )
    return camera


class _Person:
    """What is known of a track: aggregates, filters, and what was decoded of them."""

    def __init__(self, config: ReconstructorConfig) -> None:
        self.identity = Aggregate(config.aggregation)
        self.albedo = Aggregate(config.aggregation)
        self.smooth(config)
        self._neutral: tuple[Float32, Float32] | None = None
        self._reflectance: tuple[Float32, Float32] | None = None

    def smooth(self, config: ReconstructorConfig) -> None:
        """Starts the filters anew."""
        self.pose = OneEuroRigid(config.smooth_rotation, config.smooth_translation)
        self.expression = OneEuroVector(config.smooth_expression)
        self.smooths_pose = config.smooth_rotation.enabled or config.smooth_translation.enabled

    def neutral(self, model: MorphableModel, identity: Float32) -> Float32:
        """(V, 3) neutral shape, decoded anew only for another array."""
        if self._neutral is None or self._neutral[0] is not identity:
            self._neutral = identity, model.neutral(identity)
        return self._neutral[1]

    def reflectance(self, model: MorphableModel, albedo: Float32) -> Float32:
        """(V, 3) albedo, decoded anew only for another array."""
        if self._reflectance is None or self._reflectance[0] is not albedo:
            self._reflectance = albedo, model.albedo(albedo)
        return self._reflectance[1]


class _LinearSize:
    """Size of a head by its identity, to first order: mean radius of the facial skin, metres."""

    def __init__(self, model: MorphableModel, skin: NDArray[np.intp]) -> None:
        points = model.mean_shape[skin]
        radial = points - points.mean(axis=0)
        radius = np.linalg.norm(radial, axis=1, keepdims=True)
        outward = radial / np.maximum(radius, 1e-9)
        basis = model.identity_basis.reshape(-1, 3, model.k_identity)[skin]
        moved = basis - basis.mean(axis=0)
        self._mean = float(radius.mean())
        self._slope = np.einsum("vx,vxk->k", outward, moved) / len(skin)

    def __call__(self, identity: Float32) -> float:
        return max(self._mean + float(self._slope @ identity), 0.5 * self._mean)


class _Stopwatch:
    """Stages and how long they took."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._start = self._last = timer()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = self._timer()
        self._laps[stage] = self._laps.get(stage, 0.0) + now - self._last
        self._last = now

    def laps(self) -> dict[str, float]:
        return {**self._laps, "total": self._last - self._start}
