"""The identity prior: who people are, as a Gaussian over control vertices; its 80 components.

Four sources of variation are stacked as columns of one factor matrix L (covariance L L^T):
MakeHuman's macro targets (sex, age, ancestry, weight, muscle), its local head targets,
asymmetries, and smooth corrective fields (a Gaussian-process morphable model, Luethi et al.
2018). The whole is then moved to the means and standard deviations of published anthropometry by
a linear map (moment matching), and reduced by a principal component analysis weighted towards the
face.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import norm, qmc

from face_recon_ros.face_model.anny_source import AnnyData
from face_recon_ros.face_model.head_mesh import (
    EYE_LEFT,
    EYE_RIGHT,
    TEETH,
    HeadMesh,
    smooth_boundary,
)

HEAD_SCALE = 1.08  # MakeHuman's heads are too small by this factor
SIDE_CORRELATION = 0.86
_SEXES, _AGES = ("female", "male"), ("young", "old")
_RACES = ("caucasian", "asian", "african")
_MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
_WEIGHTS = ("minweight", "averageweight", "maxweight")
_MEAN_RACES = (0.5, 0.25, 0.25)
_MEAN_AGE = 0.3  # 0: MakeHuman's 25 years, 1: 90 years
_MACRO_SAMPLES = 512

_OPPOSITES = {
    "incr": "decr",
    "up": "down",
    "out": "in",
    "forward": "backward",
    "convex": "concave",
    "compress": "uncompress",
    "pointed": "triangle",
    "square": "round",
}
# Standard deviation of a target's slider, by folder: about half the naive spread.
_SLIDER_SD = {
    "head": 0.18,
    "forehead": 0.22,
    "eyebrows": 0.20,
    "eyes": 0.24,
    "nose": 0.23,
    "mouth": 0.22,
    "cheek": 0.25,
    "chin": 0.22,
    "ears": 0.25,
    "neck": 0.15,
    "asym": 0.10,
}
_LIP_CLOSING = 0.6  # of MakeHuman's opening between the lips
_TEETH_NARROWING = 0.78
_TEETH_SET_BACK = 0.004  # metres: MakeHuman's show at the corners of closed lips
_LOPSIDED = 0.35  # of a deviation, for targets that move the midline sideways
# Smooth corrections: correlation length (m), standard deviation (m) per axis on open skin, what is
# added to it at nose, lips, eyes, brows and jaw, number of columns.
_CORRECTIONS = (
    (0.045, 0.0012, 0.0, 60),
    (0.024, 0.0008, 0.00025, 110),
    (0.013, 0.0003, 0.0004, 150),
)


@dataclass(frozen=True)
class Measure:
    """A distance between two vertices and its distribution among adults. Metres."""

    name: str
    from_vertex: int
    to_vertex: int
    mean: float
    standard_deviation: float
    axis: int | None = None  # measured along this axis only; None: the distance


@dataclass(frozen=True)
class IdentityModel:
    """Mean and principal components. Metres, face axes, origin at the mean's sellion.

    Attributes:
        mean: (C, 3).
        basis: (C, 3, K) per standard deviation.
        explained: share of the face's variance in the K components.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    explained: float


def mean_base_shape(data: AnnyData) -> NDArray[np.float64]:
    """(N, 3) MakeHuman's average adult, both sexes, three ancestries. Metres, its origin."""
    weights = _macro_weights(
        np.array([0.5]), np.array([_MEAN_AGE]), np.array([_MEAN_RACES]), np.zeros(1), np.zeros(1)
    )[0]
    shape = data.vertices.copy()
    for name, weight in zip(_macro_names(), weights, strict=True):
        target = data.targets[name]
        shape[target.indices] += weight * target.displacement
    return shape


def build_identity(
    data: AnnyData,
    head: HeadMesh,
    base: NDArray[np.float64],
    measures: list[Measure],
    face_weight: NDArray[np.float64],
    correction_mask: NDArray[np.float64],
    fine_places: NDArray[np.float64],
    lip_closing: sp.csr_matrix,
    coupling: Callable[[NDArray[np.float64]], sp.csr_matrix],
    followers: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
    sellion: int,
    k: int,
    smooth: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> IdentityModel:
    """Builds the identity prior.

    Args:
        data: the source.
        head: the control mesh.
        base: (N, 3) from `mean_base_shape`.
        measures: anthropometry on control vertices.
        face_weight: (C,) importance of each vertex in the component analysis.
        correction_mask: (C,) where the smooth corrective fields act.
        fine_places: (C,) where the finer ones of them act more.
        lip_closing: (C, C) `annotations.lip_closing`.
        coupling: of a mean (C, 3) the (C, C) K with which `field - K field` moves what touches
            together (`lips`).
        followers: `annotations.mouth_followers`.
        sellion: control vertex of the origin.
        k: number of components.
        smooth: (C, M) -> (C, M), takes the lumps out of displacement columns.
    """
    mean = head.shape(base) * HEAD_SCALE
    mean = (mean + mean[head.mirror] * np.array([1.0, -1.0, 1.0])) / 2
    mean = smooth_boundary(mean, head)
    mean[head.parts == TEETH] *= np.array([1.0, _TEETH_NARROWING, 1.0])
    mean[head.parts == TEETH, 0] -= _TEETH_SET_BACK
    mean[:, 2] -= _LIP_CLOSING * (lip_closing @ mean[:, 2])
    columns = np.concatenate(
        [
            _macro_columns(data, head, base),
            _local_columns(data, head, base),
        ],
        axis=2,
    )
    columns *= HEAD_SCALE
    n = len(mean)
    columns = smooth(columns.reshape(n, -1)).reshape(n, 3, -1)
    corrections = _side_correlated(
        _correction_columns(mean, correction_mask, fine_places), head.mirror
    )
    columns = np.concatenate([columns, corrections], axis=2)
    columns = _eyes_stay_round(columns, head, mean)
    for members, leaders in followers:
        columns[members] = columns[leaders].mean(axis=0)
    columns = _without_rigid_motion(columns, mean, face_weight)
    # The mirror image of a person is as likely: (c c' + m m') / 2 = s s' + a a' for a column c,
    # its mirror image m, and their even and odd parts s and a. All measures are even.
    image = _mirrored(columns, head.mirror)
    even, odd = (columns + image) / 2, (columns - image) / 2
    apart = coupling(mean)
    even, odd = (c - (apart @ c.reshape(n, -1)).reshape(c.shape) for c in (even, odd))
    mean, even = match_moments(mean, even, measures)
    even = _without_rigid_motion(even, mean, face_weight)
    parts = [_components(c, face_weight, k) for c in (even, odd)]
    variance = np.concatenate([p[1] for p in parts])
    order = np.argsort(-variance, kind="stable")[:k]
    basis = np.concatenate([p[0] for p in parts], axis=2)[:, :, order]
    basis -= basis[sellion][None]  # the origin stays at each person's sellion
    explained = float(variance[order].sum() / sum(p[2] for p in parts))
    return IdentityModel(mean - mean[sellion] * np.array([1, 0, 1]), basis, explained)


def match_moments(
    mean: NDArray[np.float64], columns: NDArray[np.float64], measures: list[Measure]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gives the prior the stated means and standard deviations of the measures.

    For x ~ N(mean, L L^T) and measures m = M x with covariance S = M L L^T M^T, the map
    x -> x + L L^T M^T S^-1 (m' - m) sets the measures to m' along their own regression on shape,
    and leaves what is uncorrelated with them alone. m' keeps the correlations of m.

    Args:
        mean: (C, 3) metres.
        columns: (C, 3, M) factor of the covariance.
        measures: on these vertices.

    Returns:
        Mean and columns with the new moments.
    """
    n, _, m = columns.shape
    factor = columns.reshape(n * 3, m)
    target_mean = np.array([q.mean for q in measures])
    target_sd = np.array([q.standard_deviation for q in measures])
    axes = np.array([np.ones(3) if q.axis is None else np.eye(3)[q.axis] for q in measures])
    ids = np.array([[q.from_vertex, q.to_vertex] for q in measures])
    for _ in range(4):  # the measures are linearised about the mean, which moves
        apart = (mean[ids[:, 1]] - mean[ids[:, 0]]) * axes
        length = np.linalg.norm(apart, axis=1)
        direction = apart / length[:, None]
        measured = np.einsum("jd,jdm->jm", direction, columns[ids[:, 1]] - columns[ids[:, 0]])
        covariance = measured @ measured.T
        regression = (
            factor
            @ np.linalg.solve(
                covariance + 1e-10 * np.trace(covariance) * np.eye(len(measures)), measured
            ).T
        )
        mean = mean + (regression @ (target_mean - length)).reshape(n, 3)
    # A with A S A^T = D C D (D: wanted deviations, C: present correlations).
    scale = target_sd / np.sqrt(np.diag(covariance))
    wanted = scale[:, None] * covariance * scale[None]
    half, wanted_half = np.linalg.cholesky(covariance), np.linalg.cholesky(wanted)
    change = wanted_half @ np.linalg.inv(half) @ measured - measured
    return mean, (factor + regression @ change).reshape(n, 3, m)


def _macro_names() -> list[str]:
    names = [f"macrodetails/{r}-{s}-{a}" for r in _RACES for s in _SEXES for a in _AGES]
    return names + [
        f"macrodetails/universal-{s}-{a}-{m}-{w}"
        for s in _SEXES
        for a in _AGES
        for m in _MUSCLES
        for w in _WEIGHTS
    ]


def _macro_weights(
    male: NDArray, age: NDArray, race: NDArray, muscle: NDArray, weight: NDArray
) -> NDArray[np.float64]:
    """(S, 48) weights of `_macro_names` for S people; muscle and weight in [-1, 1], 0 average."""

    def three(x: NDArray) -> NDArray[np.float64]:
        return np.stack([np.maximum(-x, 0), 1 - np.abs(x), np.maximum(x, 0)], axis=1)

    sex = np.stack([1 - male, male], axis=1)
    years = np.stack([1 - age, age], axis=1)
    first = np.einsum("nr,ns,na->nrsa", race, sex, years)
    second = np.einsum("ns,na,nm,nw->nsamw", sex, years, three(muscle), three(weight))
    n = len(male)
    return np.concatenate([first.reshape(n, -1), second.reshape(n, -1)], axis=1)


def _dense(data: AnnyData, head: HeadMesh, base: NDArray, name: str) -> NDArray[np.float64]:
    """(C, 3) control displacement of a target, MakeHuman's size."""
    full = np.zeros_like(base)
    target = data.targets[name]
    full[target.indices] = target.displacement
    return head.displacement(base, full)


def _macro_columns(data: AnnyData, head: HeadMesh, base: NDArray) -> NDArray[np.float64]:
    """(C, 3, 48) factor of the covariance of people of all sexes, ages, ancestries, weights."""
    sampler = qmc.Sobol(d=7, scramble=False)
    sampler.fast_forward(1)  # the first point is the corner
    draw = sampler.random(_MACRO_SAMPLES)
    normal = norm.ppf(np.clip(draw, 1e-4, 1 - 1e-4))
    male = np.clip(0.5 + 0.36 * np.sign(draw[:, 0] - 0.5) + 0.12 * normal[:, 1], 0, 1)
    age = 0.75 * draw[:, 2]
    share = (
        -np.log(np.clip(draw[:, 3:6], 1e-4, 1 - 1e-4))
    ) ** 1.4  # a little off uniform, to the corners
    share /= share.sum(axis=1, keepdims=True)
    race = 0.75 * share + 0.25 * np.array(_MEAN_RACES)
    weight = np.clip(0.4 * normal[:, 6], -0.9, 0.9)
    muscle = np.clip(0.3 * normal[:, 1] * 0.8 + 0.15 * np.sign(draw[:, 0] - 0.5), -0.9, 0.9)
    weights = _macro_weights(male, age, race, muscle, weight)
    weights = (weights - weights.mean(axis=0)) / np.sqrt(_MACRO_SAMPLES)
    # weights^T weights = R^T R: 48 columns say all that 512 people do.
    factor = np.linalg.qr(weights, mode="r").T
    fields = np.stack([_dense(data, head, base, name) for name in _macro_names()], axis=2)
    return np.asarray(fields @ factor)


def _local_columns(data: AnnyData, head: HeadMesh, base: NDArray) -> NDArray[np.float64]:
    """(C, 3, M) one or three columns per pair of opposite targets."""
    columns = []
    for positive, negative in target_pairs(data):
        folder = positive.split("/")[0]
        side = positive.split("/")[1][:2]
        if side == "r-" or positive.endswith("-r"):
            continue

        def field(name: str) -> NDArray[np.float64]:
            return _dense(data, head, base, name) if name else np.zeros((head.n_control, 3))

        deviation = _SLIDER_SD[folder]
        left = 0.5 * (field(positive) - field(negative)) if negative else 0.7 * field(positive)
        left = left * deviation
        if side == "l-":
            right = _mirrored(left[:, :, None], head.mirror)[:, :, 0]
            common, own = np.sqrt(SIDE_CORRELATION), np.sqrt(1 - SIDE_CORRELATION)
            columns += [common * (left + right), own * left, own * right]
        elif folder == "asym":
            right = _mirrored(left[:, :, None], head.mirror)[:, :, 0]
            columns += [left, right]
        else:
            image = _mirrored(left[:, :, None], head.mirror)[:, :, 0]
            sideways = np.linalg.norm(left + image) < np.linalg.norm(left - image)
            columns.append(left * (_LOPSIDED if sideways else 1.0))
    return np.stack(columns, axis=2)


def target_pairs(data: AnnyData) -> list[tuple[str, str]]:
    """(positive, negative or "") names of the local targets."""
    pairs = []
    negatives = set(_OPPOSITES.values())
    for name in sorted(data.targets):
        folder, _, stem = name.partition("/")
        if folder not in _SLIDER_SD or "breast" in stem or "trunk" in stem:
            continue
        head_of_name, _, last = stem.rpartition("-")
        if folder == "asym":
            pairs.append((name, ""))
        elif last in _OPPOSITES:
            opposite = f"{folder}/{head_of_name}-{_OPPOSITES[last]}"
            pairs.append((name, opposite if opposite in data.targets else ""))
        elif last in negatives and any(
            f"{folder}/{head_of_name}-{p}" in data.targets
            for p, q in _OPPOSITES.items()
            if q == last
        ):
            continue
        else:
            pairs.append((name, ""))
    return pairs


def _correction_columns(
    mean: NDArray[np.float64], mask: NDArray[np.float64], places: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(C, 3, M) Gaussian-process factor: squared-exponential kernels, stronger at places (C,)."""
    blocks = []
    for length, deviation, more, count in _CORRECTIONS:
        centres = _farthest_points(mean, mask > 0.5, int(1.6 * count))

        def kernel(a: NDArray, b: NDArray, length: float = length) -> NDArray[np.float64]:
            square = ((a[:, None] - b[None]) ** 2).sum(-1)
            return np.asarray(np.exp(-0.5 * square / length**2))

        values, vectors = np.linalg.eigh(kernel(mean[centres], mean[centres]))
        best = np.argsort(values)[::-1][:count]
        nystroem = kernel(mean, mean[centres]) @ (vectors[:, best] / np.sqrt(values[best] + 1e-6))
        field = nystroem * ((deviation + more * places) * mask)[:, None]
        for axis in range(3):
            block = np.zeros((len(mean), 3, field.shape[1]))
            block[:, axis] = field
            blocks.append(block)
    return np.concatenate(blocks, axis=2)


def _side_correlated(columns: NDArray, mirror: NDArray[np.intp]) -> NDArray[np.float64]:
    """Columns whose left and right sides correlate by SIDE_CORRELATION instead of not at all."""
    image = _mirrored(columns, mirror)
    even, odd = (columns + image) / 2, (columns - image) / 2
    return np.asarray(np.sqrt(1 + SIDE_CORRELATION) * even + np.sqrt(1 - SIDE_CORRELATION) * odd)


def _farthest_points(points: NDArray, allowed: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    candidates = np.flatnonzero(allowed)
    chosen = [int(candidates[np.argmax(points[candidates, 0])])]
    distance = np.full(len(candidates), np.inf)
    for _ in range(min(count, len(candidates)) - 1):
        distance = np.minimum(
            distance, ((points[candidates] - points[chosen[-1]]) ** 2).sum(axis=1)
        )
        chosen.append(int(candidates[np.argmax(distance)]))
    return np.array(chosen)


def _eyes_stay_round(columns: NDArray, head: HeadMesh, mean: NDArray) -> NDArray[np.float64]:
    """Replaces what moves an eyeball by its translation and scaling."""
    out = columns.copy()
    for part in (EYE_RIGHT, EYE_LEFT):
        eye = np.flatnonzero(head.parts == part)
        at = mean[eye] - mean[eye].mean(axis=0)
        moved = columns[eye]
        shift = moved.mean(axis=0)
        growth = np.einsum("nd,ndm->m", at, moved) / (at * at).sum()
        out[eye] = shift[None] + at[:, :, None] * growth
    return out


def _mirrored(columns: NDArray, mirror: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.asarray(columns[mirror] * np.array([1.0, -1.0, 1.0])[:, None])


def _without_rigid_motion(columns: NDArray, mean: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Takes out of every column the small rigid motion that explains the face's movement best."""
    n = len(mean)
    centred = mean - np.average(mean, axis=0, weights=weight)
    modes = np.zeros((n, 3, 6))
    for axis in range(3):
        unit = np.eye(3)[axis]
        modes[:, axis, axis] = 1.0
        modes[:, :, 3 + axis] = np.cross(unit, centred)
    flat = modes.reshape(n * 3, 6)
    weighted = flat * np.repeat(weight, 3)[:, None]
    amount = np.linalg.solve(weighted.T @ flat, weighted.T @ columns.reshape(n * 3, -1))
    return np.asarray(columns - (flat @ amount).reshape(columns.shape))


def _components(
    columns: NDArray, weight: NDArray, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Weighted principal components of the covariance columns columns^T.

    Returns:
        (C, 3, k) components times their standard deviation, (k,) their variances in the weighted
        metric, and the total variance.
    """
    n, _, m = columns.shape
    flat = columns.reshape(n * 3, m)
    root = np.repeat(np.sqrt(weight / weight.sum()), 3)[:, None]
    weighted = flat * root
    values, vectors = np.linalg.eigh(weighted.T @ weighted)
    order = np.argsort(-values, kind="stable")[:k]
    basis = flat @ vectors[:, order]
    return basis.reshape(n, 3, k), values[order], float(values.sum())
