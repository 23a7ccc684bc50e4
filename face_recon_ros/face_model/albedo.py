"""The albedo prior: skin, brows, lips, beard and eyes of all people, procedurally.

No free statistical albedo exists. Skin tone is a plane of melanin and haemoglobin (Tsumura et
al. 1999) with regional masks, then Laplace-Beltrami eigenfunctions with falling variance.
sRGB-encoded throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray

from face_recon_ros.face_model import annotations
from face_recon_ros.face_model.anny_source import AnnyData
from face_recon_ros.face_model.expressions import UPPER_LID_RIM
from face_recon_ros.face_model.head_mesh import (
    BODY,
    EYE_LEFT,
    EYE_RIGHT,
    LIMBUS_RING,
    PUPIL_RING,
    TEETH,
    TONGUE,
    HeadMesh,
)
from face_recon_ros.face_model.topology import cotangent_laplacian

# The mean of the melanin axis and its direction: at -2.2 the darkest skin, at +2 the palest.
_SKIN = np.array([0.655, 0.500, 0.425])
_MELANIN = np.array([0.146, 0.127, 0.118])
_HAEMOGLOBIN = np.array([0.009, -0.015, -0.016])
_CAROTENE = np.array([0.000, 0.006, -0.024])
_HAIR = np.array([0.24, 0.185, 0.150])
_LIPS = np.array([0.600, 0.350, 0.325])
_SCLERA = np.array([0.84, 0.81, 0.785])
_IRIS = np.array([0.30, 0.215, 0.150])
_PUPIL = np.array([0.035, 0.03, 0.03])
_TEETH = np.array([0.70, 0.64, 0.56])
_TONGUE = np.array([0.52, 0.27, 0.26])
_MOUTH = np.array([0.40, 0.18, 0.165])
_LASH = np.array([0.16, 0.12, 0.10])


@dataclass(frozen=True)
class AlbedoModel:
    """Mean and components, sRGB-encoded.

    Attributes:
        mean: (V, 3) on the fine mesh.
        basis: (C, 3, K) per standard deviation, on the control mesh.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]


def build_albedo(
    data: AnnyData,
    head: HeadMesh,
    control: NDArray[np.float64],
    regions: NDArray[np.uint8],
    matrix: sp.csr_matrix,
    k: int,
) -> AlbedoModel:
    """Builds the albedo prior.

    Args:
        data: the source.
        head: the control mesh.
        control: (C, 3) mean shape, metres, origin at the sellion.
        regions: (C,) index into `annotations.REGIONS`.
        matrix: (V, C) subdivision.
        k: number of components.
    """
    masks = _masks(data, head, control, regions)
    fine_shape = matrix @ control

    fine_masks = {name: np.clip(matrix @ value, 0, 1) for name, value in masks.items()}
    body = np.asarray(matrix @ (head.parts == BODY).astype(float)) > 0.5
    fine_masks["brow"] = annotations.brow_hair(fine_shape) * body
    fine_masks["lips"] = _sharpen(fine_masks["lips"])
    mean = _paint(fine_masks)

    named: dict[str, NDArray[np.float64]] = {
        "melanin": (
            np.outer(masks["skin"] * (1 - 0.15 * masks["brow"] - 0.15 * masks["hair"]), _MELANIN)
            + np.outer(masks["lips"] * masks["skin"], [-0.020, -0.045, -0.030])
            + np.outer(masks["iris"], [0.066, 0.072, 0.076])
        ),
        "haemoglobin": (
            np.outer(
                masks["skin"]
                * (0.8 + 0.3 * masks["blush"] + 0.2 * masks["nose"] + 0.6 * masks["lips"]),
                0.45 * _HAEMOGLOBIN,
            )
        ),
        "carotene": np.outer(masks["skin"], 0.36 * _CAROTENE),
        "brow density": np.outer(masks["brow"], [-0.070, -0.060, -0.052]),
        "brow colour": np.outer(masks["brow"], [0.028, 0.018, 0.006]),
        "lip redness": np.outer(masks["lips"], [0.004, -0.026, -0.018]),
        "lip darkness": np.outer(masks["lips"], [-0.045, -0.032, -0.027]),
        "beard": np.outer(masks["beard"], [-0.075, -0.058, -0.044]),
        "moustache": np.outer(masks["moustache"], [-0.060, -0.048, -0.038]),
        "iris lightness": np.outer(masks["iris"], [0.026, 0.032, 0.033]),
        "iris hue": np.outer(masks["iris"], [-0.020, 0.003, 0.024]),
        "eye shadow": np.outer(masks["socket"], [-0.030, -0.030, -0.022]),
        "blush": np.outer(masks["blush"], 0.35 * _HAEMOGLOBIN),
        "red nose": np.outer(masks["nose"], 0.35 * _HAEMOGLOBIN),
        "hair lightness": np.outer(masks["hair"], [0.050, 0.040, 0.028]),
        "hairline": np.outer(masks["hair"] * (1 - masks["hair"]) * 4, [-0.04, -0.034, -0.028]),
        "sclera": np.outer(masks["eye"] * (1 - masks["iris"]), [0.030, 0.034, 0.040]),
    }
    basis = list(named.values())
    waves = _eigenfunctions(head, control, 48)
    directions = {
        "light": _MELANIN / np.linalg.norm(_MELANIN),
        "red": _HAEMOGLOBIN / np.linalg.norm(_HAEMOGLOBIN),
    }
    order = [("light", i) for i in range(47)] + [("red", i) for i in range(16)]
    for kind, i in order[: k - len(basis)]:
        deviation = (0.018 if kind == "light" else 0.005) / (1 + i / 7)
        field = (waves[:, i] * masks["skin"] * deviation)[:, None] * directions[kind]
        basis.append(field)
    return AlbedoModel(np.clip(mean, 0, 1), np.stack(basis, axis=2))


def _paint(m: dict[str, NDArray]) -> NDArray[np.float64]:
    """(V, 3) reflectance of the mean person, of weights (V,) by name."""

    def mix(colour: NDArray, weight: NDArray, out: NDArray) -> NDArray[np.float64]:
        return np.asarray(out + weight[:, None] * (colour - out))

    out = np.broadcast_to(_SKIN, (len(m["skin"]), 3)).copy()
    out += np.outer(m["blush"] * 0.8 + m["ear"] * 0.7 + m["nose"] * 0.6 - 0.25, _HAEMOGLOBIN)
    out -= np.outer(0.18 * m["socket"] + 0.06 * m["beard"], _MELANIN)
    out = mix(_LIPS, 0.85 * m["lips"], out)
    out = mix(_HAIR, 0.62 * m["hair"], out)
    out = mix(_HAIR, 0.62 * m["brow"], out)
    out = mix(_LASH, 0.55 * m["lash"], out)
    out = mix(out * 0.35, m["nostril"], out)
    for name, colour in (("mouth", _MOUTH), ("teeth", _TEETH), ("tongue", _TONGUE)):
        out = mix(colour, m[name], out)
    out = mix(out * 0.3, m["molars"], out)  # hardly any light gets there
    for name, colour in (("eye", _SCLERA), ("iris", _IRIS), ("pupil", _PUPIL)):
        out = mix(colour, m[name], out)
    return out


def _sharpen(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.clip((weight - 0.5) * 1.5 + 0.5, 0, 1))


def _bump(
    points: NDArray[np.float64],
    centre_mm: tuple[float, float, float],
    radius_mm: tuple[float, ...],
) -> NDArray[np.float64]:
    """(V,) Gaussian bump at mirror-symmetric places; centre and radii along x, y, z."""
    at = np.stack([points[:, 0], np.abs(points[:, 1]), points[:, 2]], axis=1) * 1e3
    return np.asarray(np.exp(-0.5 * (((at - centre_mm) / np.asarray(radius_mm)) ** 2).sum(axis=1)))


def _masks(
    data: AnnyData, head: HeadMesh, points: NDArray[np.float64], regions: NDArray[np.uint8]
) -> dict[str, NDArray[np.float64]]:
    """(C,) weights in [0, 1] of everything that has a colour of its own."""
    number = {name: i for i, name in enumerate(annotations.REGIONS)}
    body = (head.parts == BODY).astype(float)
    inside = (regions == number["mouth_interior"]).astype(float)
    x, y, z = points.T * 1e3
    y = np.abs(y)
    lips = np.clip(annotations.mask(data, head, "lips"), 0, 1) * (1 - inside)
    # Hair: above and behind a hairline that dips at the temples and runs down in front of the ear.
    hairline = 66.0 - 0.006 * y**2 - 2.2 * np.maximum(-x - 55.0, 0)
    hair = 1 / (1 + np.exp(-(z - hairline) / 4.0)) * body
    ear = annotations.mask(data, head, "ears")
    hair *= (1 - ear) / (1 + np.exp((-z - 70 - 0.25 * (x + 90)) / 8.0))
    # Beard: jaw, chin and upper lip, up to a line from the mouth's corner to the ear.
    upper_edge = -62.0 + 0.62 * np.maximum(y - 24.0, 0)
    beard = 1 / (1 + np.exp((z - upper_edge) / 4.0)) / (1 + np.exp(-(x + 85) / 5.0))
    beard *= 1 / (1 + np.exp(-(z + 128 + 0.15 * (x + 10)) / 5.0))
    mouth_gap = _bump(points, (0.0, 0.0, -74.0), (60.0, 24.0, 9.0))
    beard = np.clip(beard - 0.3 * mouth_gap, 0, 1) * body * (1 - lips)
    moustache = _bump(points, (8.0, 10.0, -60.0), (20.0, 13.0, 4.5)) * body * (1 - lips)
    lash = np.zeros(head.n_control)
    for base_vertex in UPPER_LID_RIM[1:-1]:
        control = head.control(base_vertex)
        lash[[control, head.mirror[control]]] = 1.0
    iris, pupil = np.zeros(head.n_control), np.zeros(head.n_control)
    for part in (EYE_RIGHT, EYE_LEFT):
        for ring in range(-1, LIMBUS_RING + 1):
            iris[head.eye_ring(part, ring)] = 1.0
        for ring in range(-1, PUPIL_RING + 1):
            pupil[head.eye_ring(part, ring)] = 1.0
    return {
        "skin": body * (1 - inside),
        "lips": lips,
        "hair": hair * (1 - inside),
        "ear": ear,
        "brow": annotations.brow_hair(points) * body,
        "beard": beard * (1 - inside),
        "moustache": moustache,
        "blush": _bump(points, (-12.0, 38.0, -36.0), (40.0, 15.0, 13.0)) * body,
        "nose": _bump(points, (16.0, 0.0, -40.0), (14.0, 11.0, 9.0)) * body,
        "socket": _bump(points, (-5.0, 26.0, -8.0), (30.0, 14.0, 8.0)) * body,
        "lash": lash,
        "nostril": (regions == number["nostril"]).astype(float),
        "mouth": inside,
        "teeth": (head.parts == TEETH).astype(float),
        "molars": (head.parts == TEETH) * np.clip((y - 7.0) / 9.0, 0, 1),
        "tongue": (head.parts == TONGUE).astype(float),
        "eye": np.isin(head.parts, (EYE_RIGHT, EYE_LEFT)).astype(float),
        "iris": iris,
        "pupil": pupil,
    }


def _eigenfunctions(
    head: HeadMesh, points: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """(C, count) Laplace-Beltrami eigenfunctions of the skin, largest value 1, no constant."""
    body = np.flatnonzero(head.parts == BODY)
    index = np.full(head.n_control, -1, np.intp)
    index[body] = np.arange(len(body))
    inside = index[head.triangles]
    stiffness, area = cotangent_laplacian(points[body], inside[(inside >= 0).all(axis=1)])
    mass = sp.diags(np.maximum(area, 1e-9))
    start = np.ones(len(body))
    values, vectors = spla.eigsh(
        stiffness.tocsc(), k=count + 1, M=mass.tocsc(), sigma=-1.0, v0=start, tol=1e-10
    )
    order = np.argsort(values, kind="stable")[1:]
    out = np.zeros((head.n_control, count))
    out[body] = vectors[:, order]
    peak = np.argmax(np.abs(np.round(out, 9)), axis=0)
    top = out[peak, np.arange(count)]
    return np.asarray(out / top)
