"""What a network's answers say of who is shown, and of a neutral face: measured on known people.

People whom no training has seen are rendered, several pictures of each in the same skin, hair and
clothes, and the exported network looks at them. `core.identity_posterior.IdentityAnswers` and
`core.neutral_expression.NeutralAnswers` say what is done with the measurement.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.mirror import identity_mirror, mirrored_names
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import MorphableModel, load_morphable_model
from face_recon_ros.core.point_network import DensePointNetwork
from face_recon_ros.core.rectification import Rectifier
from face_recon_ros.io.jobs import PerProcess, Pool, run_jobs
from face_recon_ros.training.config import PointConfig
from face_recon_ros.training.data import held_out_faces
from face_recon_ros.training.point_calibration import look
from face_recon_ros.training.point_examples import ExampleMaker, PointBatch

Array = NDArray[np.float64]

#: Pictures of each person, and the share of them without occluders, noise and blur.
PICTURES, _PLAIN = 6, 0.5
#: Few people say little of so many numbers: the response leans to its mean diagonal, and
#: covariances to their diagonals, as if so many people more had shown that.
_LEANING = 30
_LEAST_VARIANCE = 1e-4
#: A channel whose person's error has less than this share of its answers' variance is left alone.
_WORTH_NORMALISING = 0.1
#: People take so long that a process pays for this many.
_WORTH_A_PROCESS = 40


@dataclass(frozen=True)
class PersonPictures:
    """Answers for N usable pictures of one person.

    Attributes:
        identity: (K_id,) true.
        answers: (N, K_id) of each picture for itself.
        expression: (N, K_exp) true.
        seen: (N, K_exp) of the fits.
    """

    identity: NDArray[np.float32]
    answers: NDArray[np.float32]
    expression: NDArray[np.float32]
    seen: NDArray[np.float32]


class _Looker:
    """Renders people and has the network look at them."""

    def __init__(self, points: Path, config: PointConfig) -> None:
        cv2.setNumThreads(0)
        self._model = load_morphable_model(find_model(config.face_model), level="coarse")
        self._network = DensePointNetwork(points, provider="cpu", threads=1)
        self._fitter = self._network.fitter(self._model)
        self._rectifier = Rectifier(self._model)
        self._faces = held_out_faces(config, self._model)
        self._make = ExampleMaker(self._model, str(find_model(config.regressor)), config.seed)
        self._seed = config.seed

    def __call__(self, number: int) -> PersonPictures:
        shown = self._faces.held_out(number, PICTURES, self._seed)
        random = np.random.default_rng((self._seed, number))
        examples = self._make(shown, random, plain=_PLAIN, flips=False)
        batch = PointBatch(*(v.numpy() for v in examples))
        start, seen, sigma = look(self._network, self._rectifier, self._fitter, batch)
        if self._model.expression_prior == "unit_interval":
            start = replace(start, expression=np.clip(start.expression, 0.0, 1.0))
        fit = self._fitter.fit(start, seen, sigma)
        usable = fit.converged & (batch.present > 0.5)
        return PersonPictures(
            batch.identity[0],
            fit.state.identity[usable].astype(np.float32),
            batch.expression[usable],
            fit.state.expression[usable].astype(np.float32),
        )


@dataclass(frozen=True)
class _Work:
    looker: PerProcess[_Looker]

    def __call__(self, number: int) -> PersonPictures:
        return self.looker.value(number)


def look_at_people(
    points: Path, config: PointConfig, count: int, pool: Pool | None = None
) -> list[PersonPictures]:
    """Has an exported network look at people whom no training draws.

    Args:
        points: the ONNX file.
        config: of its run: face model, regressor, skins, seed.
        count: how many people.
        pool: where they are rendered; None: on all cores.

    Raises:
        DataError: fewer than two people have two usable pictures.
    """
    work = _Work(PerProcess(functools.partial(_Looker, points, config)))
    numbers = {f"person {number}": number for number in range(count)}
    outcomes = run_jobs(work, numbers, pool or Pool(), what="people", worth=_WORTH_A_PROCESS)
    people = [o.value for o in outcomes if o.value is not None and len(o.value.answers) > 1]
    if len(people) < 2:
        faults = {o.fault for o in outcomes if o.fault} or {"no face was found"}
        raise DataError(
            "two people with two usable pictures each",
            f"{len(people)} of {count}",
            f"train for longer, or look at more people; {sorted(faults)[0]}",
        )
    return people


def identity_answers(
    people: list[PersonPictures], model: MorphableModel, population: NDArray[np.floating]
) -> dict[str, Any]:
    """The first four arguments of `core.identity_posterior.IdentityAnswers`, as lists.

    Args:
        people: two at least; each counts once more in the mirror.
        model: coarse level, whole head.
        population: (K_id,) identity for whom the mean answer is said.
    """
    answers = [p.answers.astype(np.float64) for p in people]
    truth = np.array([p.identity for p in people], np.float64)
    if (model.symmetry >= 0).any():
        mirror = identity_mirror(model).astype(np.float64)
        answers += [a @ mirror.T for a in answers]
        truth = np.concatenate([truth, truth @ mirror.T])
    count, k = len(people), truth.shape[1]
    pictures = np.array([len(a) for a in answers])
    means = np.array([a.mean(0) for a in answers])
    picture = sum(_scatter(a) for a in answers) / (pictures - 1).sum()
    x = truth - population
    mean_x, mean_y = x.mean(0), means.mean(0)
    xx, xy = _scatter(x), (x - mean_x).T @ (means - mean_y)
    usual = np.trace(xy) / np.trace(xx) * np.eye(k)
    response = np.linalg.solve(xx + _LEANING * np.eye(k), xy + _LEANING * usual).T
    mean = mean_y - response @ mean_x
    left = means - mean - x @ response.T
    freedom = len(left) * max(1 - k / (2 * count), 0.5)
    person = _scatter(left) / freedom - picture * (1 / pictures).mean()
    return {
        "mean": mean.round(4).tolist(),
        "response": response.round(4).tolist(),
        "person": _positive(_leaning(person, count)).round(5).tolist(),
        "picture": _positive(_leaning(picture, count)).round(5).tolist(),
    }


def neutral_answers(people: list[PersonPictures], model: MorphableModel) -> dict[str, Any]:
    """The fields of `core.neutral_expression.NeutralAnswers`, as lists.

    An answer is a mean, a response to the true activation, an error of the person and one of the
    picture. A channel whose errors hardly differ from person to person is left alone.

    Args:
        people: two at least; each counts once more in the mirror.
        model: coarse level, whole head, whose activations lie in [0, 1].
    """
    swap = mirrored_names(model.expression_names)
    truth = [p.expression[:, order] for p in people for order in (slice(None), swap)]
    seen = [p.seen[:, order] for p in people for order in (slice(None), swap)]
    all_true, all_seen = (np.concatenate(v).astype(np.float64) for v in (truth, seen))
    mean, mean_true = all_seen.mean(0), all_true.mean(0)
    shown = np.maximum(all_true.var(0), _LEAST_VARIANCE)
    response = ((all_seen - mean) * (all_true - mean_true)).mean(0) / shown
    errors = [s - mean - response * (t - mean_true) for s, t in zip(seen, truth, strict=True)]
    pictures = np.array([len(e) for e in errors])
    left = (pictures - 1).sum()
    picture = sum(np.square(e - e.mean(0)).sum(0) for e in errors) / left
    answers = sum(np.square(s - s.mean(0)).sum(0) for s in seen) / left
    person = np.array([e.mean(0) for e in errors]).var(0) - picture * (1 / pictures).mean()
    ratio = person / np.maximum(answers, 1e-12)
    ratio = np.where(ratio < _WORTH_NORMALISING, 0.0, ratio)
    return {"mean": mean.round(4).tolist(), "error_ratio": ratio.round(4).tolist()}


def _scatter(rows: Array) -> Array:
    centred = rows - rows.mean(0)
    return np.asarray(centred.T @ centred)


def _leaning(covariance: Array, people: int) -> Array:
    """Towards its diagonal, the farther the fewer people it comes from."""
    share = _LEANING / (people + _LEANING)
    return np.asarray((1 - share) * covariance + share * np.diag(np.diag(covariance)))


def _positive(covariance: Array) -> Array:
    """The nearest covariance without directions that never err."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.asarray((vectors * np.maximum(values, _LEAST_VARIANCE)) @ vectors.T)
