"""`face-recon evaluate expression`: do faces move on photographs as another observer sees them?

Nobody annotates activations. What can be compared is what a face visibly does: gaps of lids and
lips, the mouth's width and corners, the brows' heights, measured on 68 landmarks in 3D of another
method (scripts/mediapipe_points.py) and on the reconstructed mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.types import Coefficients
from face_recon_ros.evaluation.chain import (
    Estimator,
    associate,
    batches,
    box_of_points,
    prefetched,
)
from face_recon_ros.evaluation.datasets import (
    Sample,
    Skipped,
    list_samples,
    read_image,
    read_landmarks,
    readable,
)
from face_recon_ros.evaluation.expression import MEASURES, amplitude, correlation, measures
from face_recon_ros.evaluation.output import Progress, no_progress

BATCH = 8

PROTOCOL = {
    "name": "expressions on photographs",
    "truth": "measures on NAME.xyz, 68 landmarks in 3D of another method: an opinion, no truth",
    "lengths": "over the distance of the outer eye corners; heights along the face",
    "mesh": "correlation and amplitude (slope) of the same measure on the reconstructed face",
    "expression_alone": "the same on the mean face with this expression: without identity",
    "channels": "correlation of an expression channel, both sides' mean, with the measure; its "
    "sign is the one expected",
    "association": "detection that overlaps the landmarks' box",
}


def evaluate_expression(
    folder: str | Path,
    estimator: Estimator,
    model: MorphableModel,
    *,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measures expressions over a folder of NAME.jpg + NAME.xyz.

    Args:
        folder: see `datasets.list_samples`.
        estimator: what is measured.
        model: whole head, coarse.
        progress: called as images are done.

    Returns:
        protocol, count, missed and a row for each measure.

    Raises:
        DataError: nothing to evaluate.
    """
    skipped = Skipped()
    samples = list_samples(folder, (".xyz",), skipped)

    def load(sample: Sample) -> tuple[Any, ...]:
        points = read_landmarks(sample.annotations[".xyz"], 3)
        rgb = read_image(sample.image)
        detections = estimator.detect(rgb)
        index = associate(detections, box_of_points(points[:, :2]))
        box = None if index is None else detections.boxes[index]
        return points, rgb, box, PinholeCamera.from_fov(rgb.shape[1], rgb.shape[0])

    theirs: list[dict[str, float]] = []
    answers: list[Coefficients] = []
    done = 0
    loaded = prefetched(readable(samples, load, skipped), lambda pair: pair[1], ahead=2 * BATCH)
    for batch in batches(loaded, BATCH):
        found = [item for item in batch if item[2] is not None]
        done += len(batch)
        theirs += [measures(points) for points, *_ in found]
        estimates = estimator.estimate([(rgb, box, camera) for _, rgb, box, camera in found])
        answers += [e.coefficients for e in estimates]
        progress(done + len(skipped.reasons), len(samples))
    if len(answers) < 3:
        raise DataError(
            "three photographs with a found face at least",
            f"{len(answers)} of {len(samples)}",
            "let scripts/mediapipe_points.py annotate more of them",
        )
    return {
        "protocol": PROTOCOL,
        "count": done,
        "missed": done - len(answers),
        "measures": _rows(theirs, answers, model),
        "skipped": skipped.as_json(),
    }


def _rows(
    theirs: Sequence[dict[str, float]], answers: Sequence[Coefficients], model: MorphableModel
) -> dict[str, dict[str, Any]]:
    nobody = np.zeros(model.k_identity)
    whole = [_measured(model, c.identity[0], c.expression[0]) for c in answers]
    alone = [_measured(model, nobody, c.expression[0]) for c in answers]
    activations = np.stack([c.expression[0] for c in answers])
    rows = {}
    for name, (meaning, channels) in MEASURES.items():
        seen = [m[name] for m in theirs]
        sides = {
            side: {
                "correlation": correlation([m[name] for m in ours], seen),
                "amplitude": amplitude([m[name] for m in ours], seen),
            }
            for side, ours in (("mesh", whole), ("expression_alone", alone))
        }
        rows[name] = {
            "measure": meaning,
            **sides,
            "channels": {
                channel: correlation(_both_sides(model, activations, channel[1:]), seen)
                for channel in channels
            },
        }
    return rows


def _measured(
    model: MorphableModel, identity: NDArray[np.floating], expression: NDArray[np.floating]
) -> dict[str, float]:
    return measures(model.vertices(identity, expression)[model.landmarks_68])


def _both_sides(
    model: MorphableModel, activations: NDArray[np.float32], channel: str
) -> NDArray[np.float64]:
    """(N,) mean over a channel's left and right, or the channel itself."""
    names = (channel, f"{channel}Left", f"{channel}Right")
    columns = [i for i, name in enumerate(model.expression_names) if name in names]
    if not columns:
        return np.full(len(activations), np.nan)
    return activations[:, columns].astype(np.float64).mean(axis=1)
