"""How sure the fit to a network's dense points may be: made true on held-out renderings."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel
from face_recon_ros.core.point_fit import FitState, PointFitter
from face_recon_ros.core.point_network import DensePointNetwork
from face_recon_ros.core.rectification import FaceFrame, Rectifier
from face_recon_ros.core.rigid import vector_from_rotation
from face_recon_ros.training.config import PointConfig
from face_recon_ros.training.data import held_out_faces, open_render_cache
from face_recon_ros.training.point_examples import PointBatch, PointExamples
from face_recon_ros.training.point_quantisation import Example
from face_recon_ros.training.synthesis.render_cache import fill_render_cache

#: Wild errors, beyond this share of all, are left out; the rest of squared standard normals have
#: this mean.
_KEPT, _KEPT_MEAN = 0.95, 0.758
#: The variance of one coefficient's errors leans to that of all as if it had so many more errors.
_SHARED = 300


def held_out(
    model: MorphableModel, config: PointConfig, pool: str, count: int
) -> list[PointBatch]:
    """Examples that the run has not seen, all with a face, starts as the regressor answers.

    Args:
        model: coarse level, whole head.
        config: of the run.
        pool: folder of renderings, filled if it is not.
        count: how many at least.

    Returns:
        Batches of numpy arrays.
    """
    slots = max(1, count // 2)
    settings = dataclasses.replace(config, pool=pool, pool_slots=slots, seed=config.seed + 77777)
    sizes = (model.k_identity, model.k_expression, model.k_albedo)
    cache = open_render_cache(settings, sizes)
    if len(cache) < slots:
        fill_render_cache(cache, held_out_faces(config, model), settings.seed)
    examples = PointExamples(
        cache, model, str(find_model(config.regressor)), settings.seed, no_face=0.0, worsen=0.0
    )
    batches: list[PointBatch] = []
    for batch in examples:
        seen = batch.present.numpy() > 0.5
        batches.append(PointBatch(*(v.numpy()[seen] for v in batch)))
        if sum(len(b.present) for b in batches) >= count:
            break
    return batches


def inputs_of(rectifier: Rectifier, batch: PointBatch) -> Example:
    """What the network is told of N examples, numpy arrays."""
    frame = FaceFrame.of(batch.start_rotation, batch.start_translation)
    normals = rectifier.seen_normals(frame)
    return batch.image, normals, batch.coefficients.numpy()


def look(
    network: DensePointNetwork, rectifier: Rectifier, fitter: PointFitter, batch: PointBatch
) -> tuple[FitState, NDArray[np.float64], NDArray[np.float32]]:
    """What a network answers for examples, ready for the fit.

    Args:
        network: as exported.
        rectifier: of its face model.
        fitter: of the network.
        batch: N examples, numpy arrays.

    Returns:
        Start of the fit; (N, P, 2) where the points lie, as `FaceFrame.project`; (N, P) their
        standard deviations, metres.
    """
    frame = FaceFrame.of(batch.start_rotation, batch.start_translation)
    answer = network.predict(*inputs_of(rectifier, batch))
    sizes = [batch.start_identity.shape[1]]
    identity, expression = np.split(answer.coefficients, sizes, axis=1)
    pose = batch.start_rotation, batch.start_translation
    start = FitState(*pose, identity, expression, batch.reach)
    return start, frame.seen(answer.displacement, fitter.mean), np.exp(answer.log_sigma)


def calibrate(
    network: DensePointNetwork, model: MorphableModel, batches: list[PointBatch]
) -> dict[str, Any]:
    """How much wider or narrower the fit's covariance must be to be true.

    Args:
        network: as exported.
        model: coarse level, whole head.
        batches: from `held_out`.

    Returns:
        `pose_scale`: factors of the standard deviations of rotation, of translation across the
        line of sight, and of depth at known head size; `start_information`, see `FitPrior`;
        `rotation_deg` and `depth_percent`, the median errors of the pose.
    """
    rectifier = Rectifier(model)
    fitter = network.fitter(model)
    skin = model.subset(FACIAL_SKIN)
    scores: list[NDArray[np.float64]] = []
    errors: list[tuple[float, float]] = []
    misses: list[NDArray[np.float64]] = []
    for b in batches:
        start, seen, sigma = look(network, rectifier, fitter, b)
        misses.extend(b.identity.astype(np.float64) - start.identity)
        fit = fitter.fit(start, seen, sigma)
        deviation = np.sqrt(np.diagonal(fit.pose_covariance, axis1=1, axis2=2))
        for i in np.flatnonzero(fit.converged):
            turn = vector_from_rotation(b.rotation[i] @ fit.state.rotation[i].T)
            ours, truth = fit.state.translation[i], b.translation[i]
            size = np.log(
                _size(skin.neutral(b.identity[i])) / _size(skin.neutral(fit.state.identity[i]))
            )
            across = (truth[:2] / truth[2] - ours[:2] / ours[2]) * truth[2] / b.reach[i]
            depth = np.log(truth[2] / ours[2]) - size
            error = np.concatenate([turn, across, [depth]])
            scores.append(np.square(error / deviation[i]))
            errors.append((float(np.degrees(np.linalg.norm(turn))), 100 * abs(float(depth))))
    z = np.array(scores)
    groups = (z[:, :3], z[:, 3:5], z[:, 5:])
    rotation, depth = np.median(errors, axis=0)
    start_information = information_of(np.array(misses))
    return {
        "pose_scale": [float(np.sqrt(_trimmed(g) / _KEPT_MEAN)) for g in groups],
        "start_information": start_information.round(3).tolist(),
        "rotation_deg": float(rotation),
        "depth_percent": float(depth),
    }


def information_of(errors: NDArray[np.floating]) -> NDArray[np.float64]:
    """What answers with these errors say of standard normal coefficients beyond their prior.

    Args:
        errors: (N, K_id).

    Returns:
        (K_id,) inverse variances less one, at least 0. Few errors lean to the mean of all
        coefficients.
    """
    n, variance = len(errors), np.square(errors).mean(0)
    variance = (n * variance + _SHARED * variance.mean()) / (n + _SHARED)
    return np.asarray(np.maximum(1 / variance - 1, 0.0))


def _trimmed(squared: NDArray[np.float64]) -> float:
    """Mean of all but the largest."""
    values = np.sort(squared.ravel())
    return float(values[: max(1, int(_KEPT * len(values)))].mean())


def _size(vertices: NDArray[np.floating]) -> float:
    """Root mean square distance of (V, 3) vertices from their middle."""
    return float(np.sqrt(np.square(vertices - vertices.mean(0)).sum(1).mean()))
