"""`face-recon evaluate expression`: do faces move on photographs as another observer sees them?

Activations are not annotated. Visible motion can be compared: gaps of lids and
lips, the mouth's width and corners, the brows' heights, measured on 68 landmarks in 3D of another
method (scripts/mediapipe_points.py) and on the reconstructed mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.types import Detections
from face_recon_ros.evaluation.chain import Estimator, associate, box_of_points
from face_recon_ros.evaluation.datasets import Sample, Skipped, list_samples, read_landmarks
from face_recon_ros.evaluation.expression import MEASURES, amplitude, correlation, measures
from face_recon_ros.evaluation.stills import HERE, Execution, Still, StillBenchmark, score_samples

Array = NDArray[np.float64]

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


class ExpressionBenchmark(StillBenchmark[Array]):
    """Expressions of single pictures."""

    def truth(self, sample: Sample) -> Array:
        """(68, 3), x and y in pixels."""
        return read_landmarks(sample.annotations[".xyz"], 3)

    def choose(self, detections: Detections, truth: Array, width: int, height: int) -> int | None:
        """The detection that overlaps the landmarks' box."""
        return associate(detections, box_of_points(truth[:, :2]))

    def score(self, still: Still[Array]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The other method's measures, and our coefficients."""
        if still.estimate is None:
            return {}, {}
        row = still.estimate.coefficients
        return {}, {
            "measures": measures(still.truth),
            "identity": row.identity[0],
            "expression": row.expression[0],
        }


def evaluate_expression(
    folder: str | Path,
    estimator: Estimator,
    model: MorphableModel,
    *,
    execution: Execution = HERE,
) -> dict[str, Any]:
    """Measures expressions over a folder of NAME.jpg + NAME.xyz.

    Args:
        folder: see `datasets.list_samples`.
        estimator: what is measured.
        model: whole head, coarse.
        execution: where pictures are worked on.

    Returns:
        protocol, count, missed and a row for each measure.

    Raises:
        DataError: nothing to evaluate.
    """
    skipped = Skipped()
    samples = list_samples(folder, (".xyz",), skipped)

    scored = score_samples(samples, ExpressionBenchmark(), estimator, skipped, execution)
    found = [s.kept for s in scored if s.found]
    if len(found) < 3:
        raise DataError(
            "three photographs with a found face at least",
            f"{len(found)} of {len(samples)}",
            "let scripts/mediapipe_points.py annotate more of them",
        )
    return {
        "protocol": PROTOCOL,
        "count": len(scored),
        "missed": len(scored) - len(found),
        "measures": _rows(found, model),
        "skipped": skipped.as_json(),
    }


def _rows(found: Sequence[dict[str, Any]], model: MorphableModel) -> dict[str, dict[str, Any]]:
    nobody = np.zeros(model.k_identity)
    whole = [_measured(model, f["identity"], f["expression"]) for f in found]
    alone = [_measured(model, nobody, f["expression"]) for f in found]
    activations = np.stack([f["expression"] for f in found])
    rows = {}
    for name, (meaning, channels) in MEASURES.items():
        seen = [f["measures"][name] for f in found]
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
    return measures(model.landmarks.of(model.vertices(identity, expression)))


def _both_sides(
    model: MorphableModel, activations: NDArray[np.float32], channel: str
) -> NDArray[np.float64]:
    """(N,) mean over a channel's left and right, or the channel itself."""
    names = (channel, f"{channel}Left", f"{channel}Right")
    columns = [i for i, name in enumerate(model.expression_names) if name in names]
    if not columns:
        return np.full(len(activations), np.nan)
    return activations[:, columns].astype(np.float64).mean(axis=1)
