"""The data of the pipeline: frozen structures of arrays; each has an empty form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.arrays import Float32 as Float32
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.depth_fusion import RangeReading
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.texture import View


@dataclass(frozen=True)
class Image:
    """A picture and when it was taken.

    Attributes:
        rgb: (H, W, 3) uint8, RGB.
        stamp: seconds, of the clock that stamped it (message header, file position).
        frame: name of the camera's optical frame.
    """

    rgb: NDArray[np.uint8]
    stamp: float
    frame: str = "camera_optical_frame"


@dataclass(frozen=True)
class Detections:
    """The faces a detector found in one image.

    Attributes:
        boxes: (N, 4) float32 x0, y0, x1, y1, image pixels, mapped to the face-box convention of
            `crop.face_box_from_points`.
        scores: (N,) float32 in [0, 1].
        views: (M, 5) float32 x0, y0, x1, y1, least side: the parts of the image that were looked
            into, infinite where they end with the image, each with the side of the smallest face
            box that is reliably found in it, pixels. None: the whole image, faces of any size.
    """

    boxes: Float32
    scores: Float32
    views: Float32 | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def looked_at(self, boxes: ArrayLike) -> NDArray[np.bool_]:
        """Whether a face in each of these places would have been found.

        Args:
            boxes: (N, 4) face boxes, image pixels.

        Returns:
            (N,) true where one of the views holds the whole box and shows faces of its size.
        """
        b = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
        if self.views is None:
            return np.ones(len(b), np.bool_)
        v = self.views.astype(np.float64)
        side = np.sqrt(np.maximum(b[..., 2:] - b[..., :2], 0.0).prod(axis=-1))
        within = (b[..., :2] >= v[:, :2]).all(axis=-1) & (b[..., 2:] <= v[:, 2:4]).all(axis=-1)
        return np.asarray((within & (side >= v[:, 4])).any(axis=1))

    @staticmethod
    def empty() -> Detections:
        """No face."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


class Detector(Protocol):
    """Finds faces in one picture; keeps no memory of others."""

    def detect(self, rgb: NDArray[np.uint8]) -> Detections:
        """The faces of an (H, W, 3) uint8 RGB or (H, W) grey image, best first."""
        ...


@dataclass(frozen=True)
class Track:
    """One person's face, followed over time.

    Attributes:
        id: short, never used for another person within one run.
        box: (4,) face box in this image, pixels.
        score: detector's or tracker's confidence in [0, 1].
        stamp: seconds, of the image the box belongs to.
        age: frames since the track began.
        misses: frames since a detection or reconstruction last confirmed it.
    """

    id: str
    box: Float32
    score: float
    stamp: float
    age: int = 0
    misses: int = 0


@dataclass(frozen=True)
class Coefficients:
    """What the network says about N crops. Sizes come from the face model.

    Attributes:
        identity: (N, K_id) standard normal.
        expression: (N, K_exp) activations.
        albedo: (N, K_alb) standard normal.
        rotation: (N, 3) rotation vectors of the nominal crop camera, rad; see `core.crop_pose`.
        translation: (N, 3) sellion in the nominal crop camera, metres.
        illumination: (N, 9, 3) spherical harmonics per colour channel.
    """

    identity: Float32
    expression: Float32
    albedo: Float32
    rotation: Float32
    translation: Float32
    illumination: Float32

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(
        self, index: int | slice | NDArray[np.bool_] | NDArray[np.intp]
    ) -> Coefficients:
        """The chosen faces; an int keeps the leading axis."""
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return Coefficients(**{name: getattr(self, name)[index] for name in COEFFICIENT_NAMES})

    @staticmethod
    def stacked(parts: Sequence[Coefficients]) -> Coefficients:
        """The rows of one or more, one after the other."""
        columns = {name: [getattr(c, name) for c in parts] for name in COEFFICIENT_NAMES}
        return Coefficients(**{name: np.concatenate(c) for name, c in columns.items()})

    @staticmethod
    def zeros(n: int, k_identity: int, k_expression: int, k_albedo: int) -> Coefficients:
        """N mean faces, frontal, neutral, in white light, one crop focal away."""
        illumination = np.zeros((n, 9, 3), np.float32)
        illumination[:, 0] = 1.0
        translation = np.zeros((n, 3), np.float32)
        translation[:, 2] = 1.0
        return Coefficients(
            np.zeros((n, k_identity), np.float32),
            np.zeros((n, k_expression), np.float32),
            np.zeros((n, k_albedo), np.float32),
            np.zeros((n, 3), np.float32),
            translation,
            illumination,
        )


COEFFICIENT_NAMES = (
    "identity",
    "expression",
    "albedo",
    "rotation",
    "translation",
    "illumination",
)


@dataclass(frozen=True)
class Mesh:
    """A decoded face.

    Attributes:
        vertices: (V, 3) float32 metres; the frame is the holder's to say.
        triangles: (F, 3) int32, counter-clockwise from outside.
        colours: (V, 3) float32 sRGB-encoded in [0, 1], or None.
    """

    vertices: Float32
    triangles: NDArray[np.int32]
    colours: Float32 | None = None


@dataclass(frozen=True)
class Face:
    """One reconstructed face of one image.

    Attributes:
        track: who and where.
        crop: the square the network saw.
        coefficients: its answer (one row), after smoothing.
        camera_from_face: head in the camera's optical frame.
        mesh: vertices in the face frame, shaded colours.
        box: (4,) where the mesh lies, image pixels, by the definition of
            `crop.face_box_from_points`; before any smoothing.
        stamp: seconds, of the image.
        covariance: (6, 6) float64 of `camera_from_face`: x, y, z in metres, then rotations about
            the camera's x, y, z in radians; None until `core.head_state` estimated it.
        picture_covariance: (6, 6) likewise, of what the picture itself says; None without a fit.
        camera_from_gaze: REP-155's gaze frame, z along the gaze, metres; None likewise.
        attention: how directly the person looks into the camera, 1 for right into it; None while
            they do not.
        depth_reading: what a depth image said of the distance; None where none was believed.
        presence: how sure the network is that this is a face, in [0, 1]; None where no network
            says so.
        point_sigma: (P,) standard deviations of the dense points, crop sides; None likewise.
        view: how the picture shows the face's colours; None where they were not sampled.
        camera: that took the image; None: not known.
    """

    track: Track
    crop: Crop
    coefficients: Coefficients
    camera_from_face: Rigid
    mesh: Mesh
    box: Float32
    stamp: float
    covariance: NDArray[np.float64] | None = None
    picture_covariance: NDArray[np.float64] | None = None
    camera_from_gaze: Rigid | None = None
    attention: float | None = None
    depth_reading: RangeReading | None = None
    presence: float | None = None
    point_sigma: NDArray[np.float64] | None = None
    view: View | None = None
    camera: PinholeCamera | None = None

    @property
    def id(self) -> str:
        """Of its track."""
        return self.track.id

    @property
    def boxes(self) -> Float32:
        """(2, 4) where the face may be: its track's box and its mesh's, image pixels."""
        return np.stack([self.track.box, self.box])


class Drawable(Protocol):
    """What pictures show of a face: a `Face`, or a `DrawnFace` where there is less of it."""

    @property
    def id(self) -> str:
        """Of its track."""
        ...

    @property
    def boxes(self) -> Float32:
        """(2, 4) where the face may be: its track's box and its mesh's, image pixels."""
        ...

    @property
    def camera_from_face(self) -> Rigid:
        """Head in the camera's optical frame, metres."""
        ...

    @property
    def mesh(self) -> Mesh:
        """Vertices in the face frame."""
        ...


@dataclass(frozen=True)
class DrawnFace:
    """A `Drawable`, and no more.

    Attributes:
        id: of its track.
        boxes: (2, 4) where the face may be: its track's box and its mesh's, image pixels.
        camera_from_face: head in the camera's optical frame, metres.
        mesh: vertices in the face frame.
    """

    id: str
    boxes: Float32
    camera_from_face: Rigid
    mesh: Mesh

    @staticmethod
    def of(face: Drawable) -> DrawnFace:
        """Drops the rest of a face."""
        return DrawnFace(face.id, face.boxes, face.camera_from_face, face.mesh)
