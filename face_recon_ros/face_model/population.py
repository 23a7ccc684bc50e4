"""Where real people stand in the face model: the mean of their identity coefficients.

The model file was built from published breadths and heights (`annotations`). Depths came to light
later, and trained networks answer in that file's mean and basis, so neither is changed: what the
depths say is a mean other than zero of the coefficients. It is the Gaussian conditioning of their
standard normal prior on the published means, `identity.match_moments` in coefficient space.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.face_model.build import NAME

#: Landmark -> vertices of the coarse mesh whose mean it is; those off the midline on the left.
#: Of the tragion, the notch above the tragus, two placements are averaged. The surveys' nasion
#: lies 5 mm above the sellion (nasion-subnasale 55.7 mm, sellion-subnasale 49.8 mm).
LANDMARKS = {
    "sellion": (132,),
    "nasion": (136, 169),
    "pronasale": (297,),
    "subnasale": (317,),
    "stomion": (474,),
    "menton": (1695,),
    "glabella": (227,),
    "back of the head": (942,),
    "tragion": (3920, 3942),
    "alar curvature": (2471,),
    "alare": (3560,),
    "inner canthus": (3525,),
    "outer canthus": (3510,),
    "corner of the mouth": (2599,),
    "zygion": (3732,),
    "gonion": (2993,),
    "side of the head": (2962,),
}
_MIRROR = "mirror"

# Adults of both sexes pooled, millimetres: mean, standard deviation of doubt about what exactly
# was measured. Depths: 3D Facial Norms (Weinberg et al. 2016, Cleft Palate-Craniofac. J.
# 53:e185-e197; summary statistics of FaceBase), soft tissue on 3D photographs, 18 to 40 years,
# some 650 men and 1,190 women, left and right averaged. Bitragion-subnasale arcs of the NIOSH
# survey (Zhuang and Bradtmiller 2005), which are not used, confirm them: 283.6 mm among whites,
# 265 on the model's mean, 280 with these depths. The others hold still what the model's mean
# was built with (`annotations`), while depths change.
_DEPTHS_MM = (
    ("cranial base width", "tragion", _MIRROR, 143.5, 2.0),
    ("upper facial depth", "tragion", "nasion", 122.7, 2.0),
    ("middle facial depth", "tragion", "subnasale", 128.2, 2.0),
    ("lower facial depth", "tragion", "menton", 145.3, 2.0),
    ("nasal bridge length", "nasion", "pronasale", 48.6, 1.5),
    ("nasal ala length", "alar curvature", "pronasale", 33.5, 1.5),
)
_KEPT_MM = (
    ("bizygomatic breadth", "zygion", _MIRROR, 139.0, 1.5),
    ("bigonial breadth", "gonion", _MIRROR, 115.0, 1.5),
    ("head breadth", "side of the head", _MIRROR, 151.0, 1.5),
    ("head length", "glabella", "back of the head", 194.0, 1.5),
    ("face length", "sellion", "menton", 118.5, 1.5),
    ("nose length", "sellion", "subnasale", 50.3, 1.5),
    ("nose protrusion", "subnasale", "pronasale", 20.3, 1.5),
    ("nose breadth", "alare", _MIRROR, 35.8, 1.5),
    ("lip length", "corner of the mouth", _MIRROR, 49.8, 1.5),
    ("inner canthi", "inner canthus", _MIRROR, 32.8, 1.5),
    ("outer canthi", "outer canthus", _MIRROR, 90.5, 1.5),
    ("upper lip", "subnasale", "stomion", 21.5, 1.5),
)
_ROUNDS = 4  # distances are linearised about the mean, which moves


class Distance(NamedTuple):
    """A published distance and what the model says of it, millimetres.

    Attributes:
        name: of the measure.
        published: mean of adults.
        mean_face: of the model's mean.
        population: of the population's mean.
    """

    name: str
    published: float
    mean_face: float
    population: float


def population_mean(model: MorphableModel) -> NDArray[np.float64]:
    """(K_id,) mean identity of real people, in standard deviations of the face model.

    Args:
        model: the default face model at level coarse, whole head.

    Raises:
        ModelError: it is another model.
    """
    _check(model)
    basis = model.identity_basis.reshape(model.n_vertices, 3, -1)
    variance = np.square([row[4] for row in (*_DEPTHS_MM, *_KEPT_MM)])
    published = np.array([row[3] for row in (*_DEPTHS_MM, *_KEPT_MM)])
    out = np.zeros(model.k_identity)
    for _ in range(_ROUNDS):
        shape = model.neutral(out)
        rows = [_measured(model, shape, basis, row[1], row[2]) for row in _DEPTHS_MM + _KEPT_MM]
        lengths, slopes = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
        covariance = slopes @ slopes.T + np.diag(variance)
        out = slopes.T @ np.linalg.solve(covariance, published - lengths + slopes @ out)
    return np.asarray(out)


def distances(model: MorphableModel) -> list[Distance]:
    """Each measure as published, of the model's mean and of the population's mean.

    Args:
        model: as for `population_mean`.

    Raises:
        ModelError: it is another model.
    """
    mean = population_mean(model)
    basis = model.identity_basis.reshape(model.n_vertices, 3, -1)
    out = []
    for name, start, end, published, _ in _DEPTHS_MM + _KEPT_MM:
        shapes = (model.mean_shape, model.neutral(mean))
        values = [_measured(model, shape, basis, start, end)[0] for shape in shapes]
        out.append(Distance(name, published, *values))
    return out


def _check(model: MorphableModel) -> None:
    if model.name != NAME or max(map(max, LANDMARKS.values())) >= model.n_vertices:
        raise ModelError(
            f"the face model {NAME}, level coarse, whole head",
            f"{model.name} with {model.n_vertices} vertices",
            "the population's mean is known for the default face model only",
        )


def _measured(
    model: MorphableModel,
    shape: NDArray[np.floating],
    basis: NDArray[np.floating],
    start: str,
    end: str,
) -> tuple[float, NDArray[np.float64]]:
    """A distance of a shape (V, 3), both sides averaged, and its derivative (K_id,); mm."""
    left = [np.array(LANDMARKS[start]), np.array(LANDMARKS.get(end, LANDMARKS[start]))]
    right = [model.symmetry[v] for v in left]
    pairs = [(left[0], right[1])] if end == _MIRROR else [left, right]
    lengths, slopes = [], []
    for a, b in pairs:
        apart = (shape[b].mean(0) - shape[a].mean(0)).astype(np.float64)
        length = np.linalg.norm(apart)
        moved = basis[b].mean(0) - basis[a].mean(0)
        lengths.append(1e3 * length)
        slopes.append(1e3 * (apart / length) @ moved)
    return float(np.mean(lengths)), np.asarray(np.mean(slopes, axis=0), np.float64)
