"""`face-recon evaluate shape`: shape of people whom no training has seen, with known faces.

Every picture is scored for itself and all pictures of a person as one track, beside the mean
face, which is what an answer that knows nothing says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import scattered
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import face_box_from_points
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.placement import place_again
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.types import Face
from face_recon_ros.evaluation.chain import (
    PICTURE_INTERVAL_S,
    new_tracks,
    reconstruct,
)
from face_recon_ros.evaluation.datasets import Skipped
from face_recon_ros.evaluation.expression import channel_table
from face_recon_ros.evaluation.metrics import (
    bootstrap,
    point_to_plane_mm,
    shape_distance_mm,
    skill,
)
from face_recon_ros.evaluation.stills import HERE, Execution, Item, run_stills
from face_recon_ros.io.jobs import PerProcess

Array = NDArray[np.float64]

#: Standard deviations of a detector's boxes, of the box's side: their middle, their size.
BOX_SHIFT, BOX_ZOOM = 0.04, 0.06
CROP_SIDE_PX = 96
#: What is said of each person, of each kind first of the mean face.
ERRORS = (
    *("mean_face_mm", "one_view_mm", "track_mm"),
    *("mean_face_point_to_plane_mm", "one_view_point_to_plane_mm", "track_point_to_plane_mm"),
)
#: A track has seen the person in so many pictures, and its identity is known.
_KNOWN = 6
#: People take so long to render and to reconstruct, picture by picture.
_WORTH_A_PROCESS = 4

PROTOCOL = {
    "name": "shape of rendered people",
    "people": "rendered from the face model, by seeds that training never uses; their shapes are "
    "random, or those of `identities`",
    "shape_mm": "mean distance of the facial skin's vertices of the neutral face, place and size "
    "aligned (a crop does not show them), at the true size; mean over people",
    "point_to_plane_mm": "the part of shape_mm across the true surface; the rest slides along it",
    "one_view": "each picture for itself; its crop placed once more by the mesh",
    "track": "all pictures of a person one after the other under one track, as it ends",
    "mean_face": "the same distance of the face model's mean",
    "skill": "(mean_face - ours) / mean_face: 0 the mean face, 1 the truth (the model's floor is "
    "zero for its own people)",
    "rank": "share of the other people whose faces are farther from the answer: 1 when always "
    "the right person is nearest, 0.5 by chance",
    "identity_rms": "root mean square of the coefficients; far below the truth's: shrunk",
    "vertices_px": f"vertices in the picture, pixels of a crop {CROP_SIDE_PX} px wide",
    "camera": "0.35 to 6 m away, up to 18 degrees aside; known, or not (`uncalibrated`)",
    "box": f"the true one, moved as a detector's by {BOX_SHIFT:g} and {BOX_ZOOM:g} of its side",
    "interval": "bootstrap over people",
    "expression": "per channel over all pictures: correlation of the answers with the truth; "
    "amplitude, the slope of the answers over the truth (1: the full motion)",
    "expression_in_track": f"the same of the track's answers from picture {_KNOWN + 1} on: whose "
    "brows lie high is known by then",
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


@dataclass(frozen=True)
class ShapeScorer(Generic[Item]):
    """Scores the pictures of one person, for `run_stills`.

    Attributes:
        views: makes the pictures of an item.
        reconstructor: what is measured, with its aggregation.
        seed: of the boxes.
    """

    views: Callable[[Item], Sequence[KnownView]]
    reconstructor: PerProcess[FaceReconstructor]
    seed: int = 0

    def __call__(self, person: tuple[int, Item]) -> dict[str, Any]:
        """Truth and answers beside each other, of one or more pictures with a usable answer.

        Args:
            person: number and item; both say who it is.
        """
        number, item = person
        views, reconstructor = self.views(item), self.reconstructor.value
        random = np.random.default_rng((self.seed, number))
        singles, along = _answers(views, reconstructor, random)
        last = next((face for face in reversed(along) if face), None)
        found = [(v, f) for v, f in zip(views, singles, strict=True) if f is not None]
        counts = {"views": len(views), "unusable": len(views) - len(found)}
        if last is None or not found:
            return counts
        model, identity = reconstructor.model, views[0].identity.astype(np.float64)
        skin, truth = np.flatnonzero(model.subsets[FACIAL_SKIN]), _neutral(model, identity)
        answers = [f.coefficients.identity[0].astype(np.float64) for _, f in found]
        end = last.coefficients.identity[0].astype(np.float64)
        normals = VertexNormals(model.triangles, model.n_vertices)(model.neutral(identity))[skin]

        def errors(shape: Array) -> Array:
            across = point_to_plane_mm(shape, truth, normals)
            return np.array([shape_distance_mm(shape, truth), across])

        mean, track = errors(model.mean_shape[skin]), errors(_neutral(model, end))
        one = np.mean([errors(_neutral(model, answer)) for answer in answers], axis=0)
        return {
            **counts,
            **dict(
                zip(ERRORS, np.stack([mean, one, track], axis=1).ravel().tolist(), strict=True)
            ),
            "identity": identity,
            "one_view": np.stack(answers),
            "track": end,
            "vertices_px": [_pixels(model, view, face) for view, face in found],
            "expression": np.stack([f.coefficients.expression[0] for _, f in found]),
            "true_expression": np.stack([v.expression for v, _ in found]),
            "track_expression": np.array(
                [
                    [f.coefficients.expression[0], v.expression]
                    for v, f in list(zip(views, along, strict=True))[_KNOWN:]
                    if f is not None
                ]
            ).reshape(-1, 2, model.k_expression),
        }


def evaluate_shape(
    people: Iterable[Item],
    scorer: ShapeScorer[Item],
    model: MorphableModel,
    execution: Execution = HERE,
) -> dict[str, Any]:
    """Measures shape, expression and vertices on pictures of known people.

    Args:
        people: what the scorer makes pictures of.
        scorer: of each person.
        model: of the scorer's reconstructor.
        execution: where people are worked on.

    Returns:
        The result, see `PROTOCOL`.

    Raises:
        DataError: no picture, or none with a usable answer.
    """
    skipped = Skipped()
    named = {f"person {k}": (k - 1, item) for k, item in enumerate(people, 1)}
    scores = run_stills(named, scorer, skipped, execution, what="people", worth=_WORTH_A_PROCESS)
    known = {name: s for name, s in scores.items() if "track" in s}
    views, unusable = (sum(s[key] for s in scores.values()) for key in ("views", "unusable"))
    if not known:
        raise DataError(
            "pictures of people with a usable answer",
            f"{views} pictures, {unusable} without",
            "; ".join(["check the network", *list(skipped.reasons.values())[:1]]),
        )
    rows = list(known.values())
    truths = [s["identity"] for s in rows]
    each = [(k, answer) for k, s in enumerate(rows) for answer in s["one_view"]]
    ends = [(k, s["track"]) for k, s in enumerate(rows)]
    px = np.concatenate([s["vertices_px"] for s in rows])
    means = [float(np.mean([s[key] for s in rows])) for key in ERRORS]
    mean, one, track = means[:3]
    ours, true = (
        np.concatenate([s[key] for s in rows]).astype(np.float64)
        for key in ("expression", "true_expression")
    )
    known_well = np.concatenate([s["track_expression"] for s in rows]).astype(np.float64)
    in_track = channel_table(model.expression_names, known_well[:, 0], known_well[:, 1])
    return {
        "protocol": PROTOCOL,
        "people": len(known),
        "views": views,
        "unusable": unusable,
        "shape_mm": {
            "mean_face": mean,
            "one_view": one,
            "one_view_interval_95": bootstrap([s["one_view_mm"] for s in rows]),
            "track": track,
            "track_interval_95": bootstrap([s["track_mm"] for s in rows]),
        },
        "point_to_plane_mm": dict(zip(("mean_face", "one_view", "track"), means[3:], strict=True)),
        "skill": {"one_view": skill(mean, one, 0.0), "track": skill(mean, track, 0.0)},
        "rank": {"one_view": _rank(model, truths, each), "track": _rank(model, truths, ends)},
        "identity_rms": {
            "one_view": _rms([answer for _, answer in each]),
            "track": _rms([answer for _, answer in ends]),
            "truth": _rms(truths),
        },
        "vertices_px": {"mean": float(np.mean(px)), "median": float(np.median(px))},
        "expression": channel_table(model.expression_names, ours, true),
        "expression_in_track": in_track,
        "per_person": [
            {"name": name, **{key: s[key] for key in ERRORS}} for name, s in known.items()
        ],
        "skipped": skipped.as_json(),
    }


def _answers(
    views: Sequence[KnownView],
    reconstructor: FaceReconstructor,
    random: np.random.Generator,
) -> tuple[list[Face | None], list[Face | None]]:
    """Each picture for itself, and as the next one of a track."""
    model = reconstructor.model
    skin = model.subsets[FACIAL_SKIN]
    singles: list[Face | None] = []
    along: list[Face | None] = []
    (person,) = new_tracks([np.zeros(4)])
    for i, view in enumerate(views):
        vertices = model.vertices(view.identity, view.expression)[skin]
        true_px = view.camera.project(view.camera_from_face.apply(vertices))
        (box,) = scattered(face_box_from_points(true_px), 1, BOX_SHIFT, BOX_ZOOM, random)
        (alone,) = new_tracks([box])
        (alone,) = place_again(reconstructor, view.rgb, [alone])
        together = replace(alone, id=person.id, stamp=i * PICTURE_INTERVAL_S)
        faces, so_far = (
            reconstruct(reconstructor, view.rgb, [track], view.camera, mirrored=True)
            for track in (alone, together)
        )
        singles += faces or [None]
        along += so_far or [None]
    return singles, along


def _neutral(model: MorphableModel, identity: Array) -> Array:
    """(V, 3) facial skin without expression, metres."""
    skin = np.flatnonzero(model.subsets[FACIAL_SKIN])
    return model.neutral(identity)[skin].astype(np.float64)


def _pixels(model: MorphableModel, view: KnownView, face: Face) -> float:
    """Mean distance of the skin's vertices in the picture, pixels of the crop."""
    skin = np.flatnonzero(model.subsets[FACIAL_SKIN])
    true = model.vertices(view.identity, view.expression)[skin]
    seen = view.camera.project(view.camera_from_face.apply(true))
    ours = view.camera.project(face.camera_from_face.apply(face.mesh.vertices[skin]))
    return float(np.linalg.norm(ours - seen, axis=1).mean() / face.crop.side_px * CROP_SIDE_PX)


def _rank(
    model: MorphableModel, truths: Sequence[Array], answers: Iterable[tuple[int, Array]]
) -> float:
    """Share of other people who are farther from an answer than the right person.

    Args:
        model: of the coefficients.
        truths: (K_id,) of each person.
        answers: number of the right person, and (K_id,).
    """
    if len(truths) < 2:
        return float("nan")
    known = np.stack([_normalised(_neutral(model, truth)).ravel() for truth in truths])
    shares = []
    for k, identity in answers:
        distance = np.square(known - _normalised(_neutral(model, identity)).ravel()).sum(axis=1)
        shares.append((distance > distance[k]).sum() / (len(known) - 1))
    return float(np.mean(shares))


def _normalised(points: Array) -> Array:
    centred = points - points.mean(axis=0)
    return np.asarray(centred / np.linalg.norm(centred))


def _rms(vectors: list[Array]) -> float:
    return float(np.sqrt(np.mean(np.square(vectors))))
