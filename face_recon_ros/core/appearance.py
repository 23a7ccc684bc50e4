"""Face embeddings, which distinguish people, for the tracker alone.

A recognition network sees the face upright in a square of its own, placed by five points of the
reconstructed mesh: no landmark detector is needed. Embeddings are biometric data. They stay in
memory, as long as the tracker remembers a face, and are neither written nor published.

Contract of the ONNX file:
    input   `image` (N, S, S, 3) uint8 RGB
    output  `embedding` (N, D) float32, unit length
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.background import Background, Inline, Result
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import crop_camera, crop_from_face
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.models import EMBEDDING, find_model
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.onnx_session import open_on_cpu, session_options
from face_recon_ros.core.types import Coefficients, Image, Track

#: Where recognition networks want right eye, left eye, tip of the nose and the mouth's right and
#: left corner (the subject's), in a square of 112 pixels: the template of ArcFace (Deng et al.
#: 2019) and SFace (Zhong et al. 2021).
TEMPLATE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
#: The same points by the 68 iBUG landmarks: the mean of each group.
_GROUPS = (range(36, 42), range(42, 48), (30,), (48,), (54,))

#: A face that is turned farther away, or smaller, does not identify a person.
MAX_TURN = np.radians(55.0)
MIN_EYE_DISTANCE_PX = 9.0


class FacePoints:
    """Five points of faces that need no whole mesh: eyes, tip of the nose, corners of the mouth.

    Attributes:
        known: whether the face model has these points.
    """

    def __init__(self, model: MorphableModel) -> None:
        """Cuts the points' rows out of the model's bases."""
        groups = [model.landmarks_68[list(group)] for group in _GROUPS]
        self.known = all((group >= 0).all() for group in groups)
        average = np.zeros((5, model.n_vertices), np.float32)
        for row, group in zip(average, groups, strict=True):
            if self.known:
                row[group] = 1.0 / len(group)
        used = np.flatnonzero(average.any(axis=0))
        weights = average[:, used]

        def rows(basis: NDArray[np.float32]) -> NDArray[np.float32]:
            picked = basis.reshape(model.n_vertices, 3, -1)[used]
            return np.asarray(np.einsum("pv,vxk->pxk", weights, picked), np.float32)

        self._mean = weights @ model.mean_shape[used]
        self._identity = rows(model.identity_basis)
        self._expression = rows(model.expression_basis)

    def __call__(self, coefficients: Coefficients, crop: Crop) -> NDArray[np.float64]:
        """Where the points of one face are.

        Args:
            coefficients: one row.
            crop: that it is of.

        Returns:
            (5, 2) image pixels, in the order of `TEMPLATE_112`.
        """
        c = coefficients
        points = self._mean + self._identity @ c.identity[0] + self._expression @ c.expression[0]
        pose = crop_from_face(c.rotation[0], c.translation[0])
        return crop.to_image(crop_camera(crop.size).project(pose.apply(points)))


def turn_of(coefficients: Coefficients) -> float:
    """Angle between the face's direction and the ray to the camera, radians, of one row."""
    pose = crop_from_face(coefficients.rotation[0], coefficients.translation[0])
    distance = max(math.hypot(*pose.translation.tolist()), 1e-9)
    cosine = -float(pose.rotation[:, 0] @ pose.translation) / distance
    return math.acos(min(max(cosine, -1.0), 1.0))


def is_telling(
    coefficients: Coefficients, points_px: ArrayLike, image_size: tuple[int, int]
) -> bool:
    """Whether a face is large, frontal and whole enough to say who it is.

    Args:
        coefficients: one row.
        points_px: (5, 2) of it, image pixels.
        image_size: width and height, pixels.
    """
    points = np.asarray(points_px, np.float64)
    right, left, *_ = points
    if (points < 0).any() or (points > np.array(image_size) - 1).any():
        return False
    turn = turn_of(coefficients)
    # a turned head's eyes come closer in the picture: that makes it no smaller
    distance = float(np.linalg.norm(left - right)) / max(np.cos(turn), 0.5)
    return bool(turn <= MAX_TURN and distance >= MIN_EYE_DISTANCE_PX)


def aligned(rgb: NDArray[np.uint8], points_px: ArrayLike, size: int) -> NDArray[np.uint8]:
    """The face upright in a square: the similarity of least squares onto the template.

    Args:
        rgb: (H, W, 3) uint8.
        points_px: (5, 2) in the order of `TEMPLATE_112`, image pixels.
        size: pixels per side.

    Returns:
        (size, size, 3) uint8; outside of the image, its border goes on.
    """
    source = np.asarray(points_px, np.float64)
    target = (TEMPLATE_112 + 0.5) * (size / 112) - 0.5
    # Umeyama 1991 in the plane, where rotation with scale is one complex number
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    p, q = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    turn = (np.conj(p) * q).sum() / max((np.abs(p) ** 2).sum(), 1e-12)
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    affine = np.column_stack([linear, target.mean(axis=0) - linear @ source.mean(axis=0)])
    shrink = 1.0 / max(abs(turn), 1e-6)
    if shrink > 2.0:  # average before sampling, or it aliases
        square = Crop(source.mean(axis=0), 3.0 * size * shrink, 3 * size)
        rgb = square.extract(rgb)
        affine = affine @ np.vstack([_image_from_crop(square), [0.0, 0.0, 1.0]])
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(rgb, affine, (size, size), borderMode=border), np.uint8)


def _image_from_crop(crop: Crop) -> NDArray[np.float64]:
    return np.asarray(cv2.invertAffineTransform(crop.crop_from_image))


def unlike_the_others(looks: ArrayLike, different: float) -> NDArray[np.intp]:
    """Looks at other people than most looks are at.

    Args:
        looks: (N, D) unit length, see `FaceEmbedder`.
        different: two looks of less similarity (cosine) are of two people.

    Returns:
        Indices of looks whose median similarity to the others is less.
    """
    similar = np.asarray(looks, np.float64)
    if len(similar) < 2:
        return np.zeros(0, np.intp)
    similar = similar @ similar.T
    np.fill_diagonal(similar, np.nan)
    return np.flatnonzero(np.nanmedian(similar, axis=1) < different)


class FaceEmbedder:
    """The recognition network as an ONNX Runtime session.

    Attributes:
        size: S, side of its pictures, pixels.
    """

    def __init__(self, path: str | Path = "", *, threads: int = 2) -> None:
        """Opens the network.

        Args:
            path: the ONNX file; empty takes the shipped one.
            threads: of the CPU; 0 takes all cores.

        Raises:
            ModelError: it is missing, damaged or of another kind.
        """
        file = find_model(path or EMBEDDING)
        options = session_options(threads)
        # Else the weights would be written out as floats again in each run.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = open_on_cpu(file, options, "an ONNX network")
        inputs = {i.name: i for i in self._session.get_inputs()}
        outputs = [o.name for o in self._session.get_outputs()]
        shape = inputs["image"].shape if "image" in inputs else []
        if "embedding" not in outputs or len(shape) != 4 or not isinstance(shape[1], int):
            raise ModelError(
                f"a face embedding network with input image (N, S, S, 3) and output embedding at "
                f"{file}",
                f"inputs {sorted(inputs)}, outputs {outputs}",
                "make one with scripts/build_embedding.py",
            )
        self.size = int(shape[1])

    def __call__(
        self, rgb: NDArray[np.uint8], points_px: Sequence[ArrayLike]
    ) -> NDArray[np.float32]:
        """Embeds faces of one image.

        Args:
            rgb: (H, W, 3) uint8.
            points_px: N times (5, 2), see `FacePoints`; N may be 0.

        Returns:
            (N, D) unit length.
        """
        if not len(points_px):
            return np.zeros((0, 0), np.float32)
        return self.embed(np.stack([aligned(rgb, points, self.size) for points in points_px]))

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, D) unit length, of N `aligned` pictures, (N, S, S, 3) uint8."""
        (embedding,) = self._session.run(["embedding"], {"image": pictures})
        return np.asarray(embedding, np.float32)


class AppearanceStage:
    """The pipeline's part of it: looks at one face after the other, beside the images."""

    def __init__(
        self, embedder: FaceEmbedder, model: MorphableModel, executor: Executor | None = None
    ) -> None:
        """Composes the network and the face model that says where a face's points are.

        Args:
            embedder: of faces.
            model: of them.
            executor: that runs the embedder; None: at once.
        """
        self._embedder = embedder
        self._points = FacePoints(model)
        self._background = Background[NDArray[np.float32]](executor or Inline())
        self._name = ""  # of the track that is looked at

    def warm_up(self) -> None:
        """Runs the network once."""
        self._embedder.embed(np.zeros((1, self._embedder.size, self._embedder.size, 3), np.uint8))

    def look(
        self,
        image: Image,
        wanted: Iterable[str],
        tracks: Sequence[Track],
        crops: Sequence[Crop],
        prediction: Prediction,
    ) -> None:
        """Begins to look at the most urgent face that can be recognised, if it is idle.

        Args:
            image: RGB.
            wanted: ids of tracks, the most urgent first.
            tracks: N, of the image.
            crops: N, in the same order.
            prediction: N rows, in the same order.
        """
        if not (self._points.known and self._background.is_idle):
            return
        index = {track.id: i for i, track in enumerate(tracks)}
        usable, size = prediction.usable, (image.rgb.shape[1], image.rgb.shape[0])
        for i in (index[name] for name in wanted if name in index and usable[index[name]]):
            coefficients = prediction.coefficients[i]
            points = self._points(coefficients, crops[i])
            if is_telling(coefficients, points, size):
                picture = aligned(image.rgb, points, self._embedder.size)
                self._name = tracks[i].id
                self._background.send(image.stamp, self._embedder.embed, picture[None])
                return

    def take(self) -> Result[dict[str, NDArray[np.float32]]] | None:
        """Track id -> (D,) embedding of the last look, if it has ended since the last call."""
        if (result := self._background.take()) is None:
            return None
        return Result(result.stamp, {self._name: result.value[0]})
