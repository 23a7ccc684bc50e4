"""`face-recon evaluate shape`: shape of people whom no training has seen, with known faces.

Every picture is scored for itself and all pictures of a person as one track, beside the mean
face, which is what an answer that knows nothing says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import face_box_from_points
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.placement import place_again
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.types import Face
from face_recon_ros.evaluation.chain import (
    PICTURE_INTERVAL_S,
    new_tracks,
    reconstruct,
)
from face_recon_ros.evaluation.expression import channel_table
from face_recon_ros.evaluation.metrics import bootstrap, shape_distance_mm, skill
from face_recon_ros.evaluation.output import Progress, no_progress

Array = NDArray[np.float64]

#: Standard deviations of a detector's boxes, of the box's side: their middle, their size.
BOX_SHIFT, BOX_ZOOM = 0.04, 0.06
CROP_SIDE_PX = 96

PROTOCOL = {
    "name": "shape of rendered people",
    "people": "rendered from the face model, by seeds that training never uses",
    "shape_mm": "mean distance of the facial skin's vertices of the neutral face, place and size "
    "aligned (a crop does not show them), at the true size; mean over people",
    "one_view": "each picture for itself; its crop placed once more by the mesh",
    "track": "all pictures of a person one after the other under one track, as it ends",
    "mean_face": "the same distance of the face model's mean",
    "skill": "(mean_face - ours) / mean_face: 0 the mean face, 1 the truth (the model's floor is "
    "zero for its own people)",
    "rank": "share of the other people whose faces are farther from the answer: 1 when always "
    "the right person is nearest, 0.5 by chance",
    "identity_rms": "root mean square of the coefficients; far below the truth's: shrunk",
    "vertices_px": f"vertices in the picture, pixels of a crop {CROP_SIDE_PX} px wide",
    "box": f"the true one, moved as a detector's by {BOX_SHIFT:g} and {BOX_ZOOM:g} of its side",
    "interval": "bootstrap over people",
    "expression": "per channel over all pictures: correlation of the answers with the truth; "
    "amplitude, the slope of the answers over the truth (1: the full motion)",
}


@dataclass(frozen=True)
class KnownView:
    """A picture of a face of the model, all of it known.

    Attributes:
        rgb: (H, W, 3) uint8.
        camera: that took it.
        camera_from_face: the head.
        identity: (K_id,).
        expression: (K_exp,).
    """

    rgb: NDArray[np.uint8]
    camera: PinholeCamera
    camera_from_face: Rigid
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]


def evaluate_shape(
    people: Iterable[Sequence[KnownView]],
    reconstructor: FaceReconstructor,
    *,
    seed: int = 0,
    total: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures shape, expression and vertices on pictures of known people.

    Args:
        people: the pictures of one person after the other.
        reconstructor: what is measured, with its aggregation.
        seed: of the boxes.
        total: how many people are to come, for the progress.
        progress: called as people are done.

    Returns:
        The result, see `PROTOCOL`.

    Raises:
        DataError: no picture, or none with a usable answer.
    """
    judge = _Judge(reconstructor.model)
    for k, views in enumerate(people):
        judge.add(views, *_answers(views, reconstructor, np.random.default_rng((seed, k))))
        progress(k + 1, total)
    return judge.result()


def _answers(
    views: Sequence[KnownView],
    reconstructor: FaceReconstructor,
    random: np.random.Generator,
) -> tuple[list[Face | None], Face | None]:
    """Each picture for itself, and the last answer of the track that saw them all."""
    model = reconstructor.model
    skin = model.subsets[FACIAL_SKIN]
    singles: list[Face | None] = []
    last: Face | None = None
    (person,) = new_tracks([np.zeros(4)])
    for i, view in enumerate(views):
        vertices = model.vertices(view.identity, view.expression)[skin]
        true_px = view.camera.project(view.camera_from_face.apply(vertices))
        box = scattered_box(face_box_from_points(true_px), random)
        (alone,) = new_tracks([box])
        (alone,) = place_again(reconstructor, view.rgb, [alone])
        together = replace(alone, id=person.id, stamp=i * PICTURE_INTERVAL_S)
        singles += reconstruct(reconstructor, view.rgb, [alone], view.camera) or [None]
        so_far = reconstruct(reconstructor, view.rgb, [together], view.camera)
        last = so_far[0] if so_far else last
    return singles, last


def scattered_box(
    box: ArrayLike,
    random: np.random.Generator,
    *,
    shift: float = BOX_SHIFT,
    zoom: float = BOX_ZOOM,
) -> NDArray[np.float32]:
    """A box such as a detector gives for a face whose true one is known.

    Args:
        box: (4,) x0, y0, x1, y1.
        random: source of randomness.
        shift: standard deviation of its middle, in sides.
        zoom: standard deviation of the logarithm of its size.

    Returns:
        (4,) pixels.
    """
    low, high = np.asarray(box, np.float64).reshape(2, 2)
    middle = (low + high) / 2 + random.normal(0, shift, 2) * (high[0] - low[0])
    half = (high - low) / 2 * np.exp(random.normal(0, zoom))
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


class _Judge:
    """Collects answers beside the truth."""

    def __init__(self, model: MorphableModel) -> None:
        self._model = model
        self._skin = np.flatnonzero(model.subsets[FACIAL_SKIN])
        self._mean: list[float] = []
        self._one: list[float] = []
        self._track: list[float] = []
        self._px: list[float] = []
        self._identities: list[tuple[int, Array]] = []
        self._ends: list[tuple[int, Array]] = []
        self._truths: list[Array] = []
        self._expressions: list[tuple[Array, Array]] = []
        self._people = self._views = self._unusable = 0
        self._names: list[str] = []

    def add(
        self, views: Sequence[KnownView], singles: Sequence[Face | None], last: Face | None
    ) -> None:
        """One person."""
        self._people += 1
        self._views += len(views)
        self._unusable += sum(face is None for face in singles)
        if last is None:
            return
        identity = views[0].identity.astype(np.float64)
        k, truth = len(self._truths), self._neutral(identity)
        found = [(v, f) for v, f in zip(views, singles, strict=True) if f is not None]
        answers = [f.coefficients.identity[0].astype(np.float64) for _, f in found]
        end = last.coefficients.identity[0].astype(np.float64)
        self._names.append(f"person {self._people}")
        self._truths.append(identity)
        self._identities += [(k, a) for a in answers]
        self._ends.append((k, end))
        self._mean.append(shape_distance_mm(self._model.mean_shape[self._skin], truth))
        self._one.append(
            float(np.mean([shape_distance_mm(self._neutral(a), truth) for a in answers]))
        )
        self._track.append(shape_distance_mm(self._neutral(end), truth))
        self._px += [self._pixels(view, face) for view, face in found]
        self._expressions += [
            (f.coefficients.expression[0].astype(np.float64), v.expression.astype(np.float64))
            for v, f in found
        ]

    def _neutral(self, identity: Array) -> Array:
        return self._model.neutral(identity)[self._skin].astype(np.float64)

    def _pixels(self, view: KnownView, face: Face) -> float:
        """Mean distance of the skin's vertices in the picture, pixels of the crop."""
        true = self._model.vertices(view.identity, view.expression)[self._skin]
        seen = view.camera.project(view.camera_from_face.apply(true))
        ours = view.camera.project(face.camera_from_face.apply(face.mesh.vertices[self._skin]))
        return float(np.linalg.norm(ours - seen, axis=1).mean() / face.crop.side_px * CROP_SIDE_PX)

    def _rank(self, answers: list[tuple[int, Array]]) -> float:
        """Share of other people who are farther from an answer than the right person."""
        if len(self._truths) < 2:
            return float("nan")
        known = np.stack([_normalised(self._neutral(t)).ravel() for t in self._truths])
        shares = []
        for k, identity in answers:
            distance = np.square(known - _normalised(self._neutral(identity)).ravel()).sum(axis=1)
            shares.append((distance > distance[k]).sum() / (len(known) - 1))
        return float(np.mean(shares))

    def result(self) -> dict[str, Any]:
        """All figures."""
        if not self._truths:
            raise DataError(
                "pictures of people with a usable answer",
                f"{self._views} pictures, {self._unusable} without",
                "check the network",
            )
        mean, one, track = (float(np.mean(x)) for x in (self._mean, self._one, self._track))
        table = channel_table(
            self._model.expression_names,
            np.stack([ours for ours, _ in self._expressions]),
            np.stack([true for _, true in self._expressions]),
        )
        return {
            "protocol": PROTOCOL,
            "people": len(self._truths),
            "views": self._views,
            "unusable": self._unusable,
            "shape_mm": {
                "mean_face": mean,
                "one_view": one,
                "one_view_interval_95": bootstrap(self._one),
                "track": track,
                "track_interval_95": bootstrap(self._track),
            },
            "skill": {"one_view": skill(mean, one, 0.0), "track": skill(mean, track, 0.0)},
            "rank": {"one_view": self._rank(self._identities), "track": self._rank(self._ends)},
            "identity_rms": {
                "one_view": _rms([a for _, a in self._identities]),
                "track": _rms([a for _, a in self._ends]),
                "truth": _rms(self._truths),
            },
            "vertices_px": {
                "mean": float(np.mean(self._px)),
                "median": float(np.median(self._px)),
            },
            "expression": table,
            "per_person": [
                {"name": name, "mean_face_mm": mean, "one_view_mm": one, "track_mm": track}
                for name, mean, one, track in zip(
                    self._names, self._mean, self._one, self._track, strict=True
                )
            ],
        }


def _normalised(points: Array) -> Array:
    centred = points - points.mean(axis=0)
    return np.asarray(centred / np.linalg.norm(centred))


def _rms(vectors: list[Array]) -> float:
    return float(np.sqrt(np.mean(np.square(vectors))))
