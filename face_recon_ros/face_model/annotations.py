"""What was placed by hand on MakeHuman's mesh, in its numbering: landmarks, measures, regions."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from face_recon_ros.core.surface import Surface
from face_recon_ros.core.surface_points import SurfacePoints
from face_recon_ros.face_model.anny_source import AnnyData
from face_recon_ros.face_model.head_mesh import BODY, EYE_LEFT, EYE_RIGHT, TEETH, TONGUE, HeadMesh
from face_recon_ros.face_model.identity import Measure

SELLION = 132
_CANTHUS = 7770  # the bottom of the fold at the inner corner of the left eye
_NOSTRIL = 7155  # the roof of the subject's left nostril
_NOSTRIL_RADII = (0.0040, 0.0026)  # metres: along it, across

# Where faces differ most from a smooth map of the mean: place (|y|) and reach, millimetres.
_FINE_PLACES_MM = (
    ((14.0, 0.0, -36.0), (14.0, 14.0, 13.0)),  # nose tip and bridge
    ((4.0, 15.0, -40.0), (10.0, 8.0, 9.0)),  # nose wings
    ((0.0, 0.0, -71.0), (16.0, 24.0, 11.0)),  # lips
    ((-6.0, 31.0, -3.0), (16.0, 17.0, 10.0)),  # eyes
    ((0.0, 28.0, 16.0), (14.0, 24.0, 8.0)),  # brow ridge
    ((-8.0, 0.0, -104.0), (18.0, 20.0, 14.0)),  # chin
    ((-52.0, 56.0, -82.0), (22.0, 16.0, 18.0)),  # jaw angle
)

# iBUG / Multi-PIE points on the subject's left and the midline; the others are mirror images.
# Where on brows, lids and lips: as 300-W's annotators put them (inner ends of the brows below
# their upper edge, 45 where the lids seem to meet, 44 and 46 a third of the eye's width from its
# corner, 64 well inside the corner of the mouth).
_LANDMARKS = {
    **dict(
        zip(range(8, 17), (5296, 7616, 7619, 7595, 11849, 11851, 7039, 7573, 12366), strict=True)
    ),
    **dict(zip(range(22, 27), (6984, 6980, 6996, 6999, 7023), strict=True)),
    **dict(zip(range(27, 31), (132, 131, 201, 5054), strict=True)),
    **dict(zip(range(33, 36), (317, 7076, 7082), strict=True)),
    **dict(zip(range(42, 48), (6850, 11483, 6786, 11470, 6825, 6831), strict=True)),
    **dict(zip(range(51, 58), (455, 7215, 11943, 7185, 7239, 7241, 492), strict=True)),
    **dict(zip(range(62, 67), (474, 7228, 7198, 7242, 493), strict=True)),
}
# From these vertices to where 300-W's annotators put the points, millimetres to the left and up on
# the mean face: the mean differences on the frontal ones of 337 faces of AFW, left and right taken
# together, less those common to all points. What half of them say makes the other half's distances
# smaller by 5 %, and MediaPipe's points on photographs of LFW agree.
_TO_ANNOTATED_MM = {
    22: (0.5, 2.3),
    23: (-2.5, 0.5),
    24: (2.0, -0.8),
    25: (-0.7, 0.6),
    26: (0.2, 1.1),
    27: (0.0, -0.9),
    28: (0.0, -0.3),
    29: (0.0, 2.3),
    30: (0.0, 0.3),
    33: (0.0, -0.4),
    34: (0.6, -1.1),
    35: (-0.4, -0.8),
    42: (0.5, -1.0),
    43: (-0.3, 0.4),
    44: (-0.3, -0.8),
    45: (-1.8, -1.4),
    46: (-0.1, 1.1),
    47: (-1.9, 0.4),
    51: (0.0, -1.3),
    52: (-1.3, -0.4),
    53: (-2.6, -1.9),
    54: (-0.3, 0.7),
    55: (1.6, -0.5),
    56: (1.2, 0.1),
    57: (0.0, 0.2),
    62: (0.0, -0.8),
    63: (0.5, -0.2),
    64: (0.5, 1.8),
    65: (0.8, 0.3),
    66: (0.0, 0.2),
}
# Regions that the point of a region may lie in.
_WITHIN = {
    "face": ("face", "brow", "nostril", "eyelid", "lip_upper"),
    "brow": ("face", "brow"),
    "eyelid": ("eyelid", "face", "brow"),
    "lip_upper": ("lip_upper", "face"),
    "lip_lower": ("lip_lower", "face"),
}
_NEAR_MM = 16.0
_DEPTH_COUNTS = 0.4
# Vertices slid along the surface, brow (inner end, top) and bridge: metres to the left, metres up.
SLIDES = {7001: (0.0045, -0.0020), 6996: (0.0, -0.0030), 131: (0.0, 0.0018)}
_MIRROR_LANDMARK = {
    **{8 + i: 8 - i for i in range(1, 9)},
    **{22 + i: 21 - i for i in range(5)},
    34: 32,
    35: 31,
    42: 39,
    43: 38,
    44: 37,
    45: 36,
    46: 41,
    47: 40,
    52: 50,
    53: 49,
    54: 48,
    55: 59,
    56: 58,
    63: 61,
    64: 60,
    65: 67,
}

# Adults of both sexes pooled, millimetres: mean, standard deviation.
# Zhuang and Bradtmiller 2005 (NIOSH survey of 3,997 US workers, J. Occup. Environ. Hyg.
# 2:567-576): bizygomatic, face length, subnasale-sellion, nose breadth and protrusion, lip length,
# bigonial, head breadth and length, interpupillary. Farkas 1994 (Anthropometry of the Head and
# Face): the others but head height, which follows US Army surveys.
_MEASURES_MM = (
    ("interpupillary", "pupil", "pupil mirror", 63.0, 3.6),
    ("bizygomatic breadth", 11844, "mirror", 139.0, 7.6),
    ("bigonial breadth", 7596, "mirror", 115.0, 9.2),
    ("head breadth", 7565, "mirror", 151.0, 6.5),
    ("head length", 227, 962, 194.0, 8.8),
    ("face length (sellion-menton)", 132, 5296, 118.5, 7.9),
    ("nose length (sellion-subnasale)", 132, 317, 50.3, 4.2),
    ("nose protrusion (subnasale-pronasale)", 317, 297, 20.3, 2.5),
    ("nose breadth", 11672, "mirror", 35.8, 4.2),
    ("lip length", 7185, "mirror", 49.8, 4.2),
    ("inner canthi", 11487, "mirror", 32.8, 2.8),
    ("outer canthi", 11472, "mirror", 90.5, 4.8),
    ("upper lip (subnasale-stomion)", 317, 474, 21.5, 2.5),
    ("upper vermilion", 455, 474, 8.6, 1.8),
    ("lower vermilion", 492, 493, 10.0, 1.9),
    ("head height (sellion-vertex, upright)", 132, 881, 106.0, 7.0),
    ("palpebral fissure height", 11466, 6825, 10.6, 1.2),
)

# The middle line of the brows' region in front view. The hair grows lower: 300-W's points lie on
# its upper edge, and so does the average photograph have it.
_BROW_LATERAL_MM = (8.0, 12.0, 18.0, 25.0, 32.0, 38.5, 45.0, 51.5, 56.0, 60.0)
_BROW_HEIGHT_MM = (12.4, 13.6, 15.8, 17.6, 18.9, 19.2, 18.2, 15.6, 12.2, 8.2)
_HAIR_LOWER_MM = 3.0

REGIONS = [
    "face",
    "ear",
    "scalp",
    "neck",
    "lip_upper",
    "lip_lower",
    "brow",
    "eyelid",
    "nostril",
    "eyeball",
    "mouth_interior",
    "teeth",
    "tongue",
]


def landmarks_68(head: HeadMesh) -> NDArray[np.int32]:
    """(68,) control vertices in iBUG order, symmetric."""
    out = np.full(68, -1, np.int32)
    for number, base_vertex in _LANDMARKS.items():
        control = head.control(base_vertex)
        out[number] = control
        if number in _MIRROR_LANDMARK:
            out[_MIRROR_LANDMARK[number]] = head.mirror[control]
    return out


def landmark_points(
    head: HeadMesh, regions: NDArray[np.uint8], mean: NDArray[np.float64]
) -> SurfacePoints:
    """Where annotators put the 68 landmarks, symmetric.

    Args:
        head: the control mesh.
        regions: (C,).
        mean: (C, 3) metres.
    """
    corners, weights = SurfacePoints.of_vertices(landmarks_68(head))
    for number, shift_mm in _TO_ANNOTATED_MM.items():
        vertex = corners[number, 0]
        own = REGIONS[regions[vertex]]
        allowed = [REGIONS.index(name) for name in _WITHIN.get(own, (own,))]
        near = np.isin(regions, allowed) & (
            np.linalg.norm(mean - mean[vertex], axis=1) < 1e-3 * _NEAR_MM
        )
        triangles = head.triangles[near[head.triangles].all(axis=1)]
        wanted = mean[vertex] + 1e-3 * np.array([0.0, *shift_mm])
        place, shares = _nearest_in_front_view(wanted, mean[triangles])
        corners[number], weights[number] = triangles[place], shares
        if number in _MIRROR_LANDMARK:
            other = _MIRROR_LANDMARK[number]
            corners[other], weights[other] = head.mirror[corners[number]], weights[number]
    return SurfacePoints(corners, weights)


def _nearest_in_front_view(
    point: NDArray[np.float64], triangles: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64]]:
    """Which of (F, 3, 3) triangles is nearest to a point (3,), and barycentric weights there.

    Depth counts for less: surfaces curve away, but inner sides of lids and lips lie behind.
    """
    a, b, c = np.moveaxis(triangles[..., 1:], 1, 0)
    sides = np.stack([b - a, c - a], axis=2)
    flat = np.abs(np.linalg.det(sides)) < 1e-12  # seen edge on
    sides[flat] = np.eye(2)
    inner = np.linalg.solve(sides, (point[1:] - a)[..., None])[..., 0]
    shares = np.clip(np.column_stack([1 - inner.sum(axis=1), inner]), 0.0, None)
    shares /= shares.sum(axis=1, keepdims=True)
    away = (shares[..., None] * triangles).sum(axis=1) - point
    away = np.linalg.norm(away * [_DEPTH_COUNTS, 1.0, 1.0], axis=1)
    nearest = int(np.where(flat, np.inf, away).argmin())
    return nearest, shares[nearest]


def lower_jaw(data: AnnyData, head: HeadMesh) -> NDArray[np.bool_]:
    """(C,) what goes down with the jaw: lower lip, chin, lower teeth."""
    jaw = data.targets["expression/jawOpen"]
    drop = np.zeros(len(data.vertices))
    drop[jaw.indices] = jaw.displacement[:, 2]
    lower = drop[np.maximum(head.base_index, 0)] < -0.010
    return np.asarray(lower | lower[head.mirror])


def lip_closing(
    data: AnnyData, head: HeadMesh, regions: NDArray[np.uint8], mean: NDArray[np.float64]
) -> sp.csr_matrix:
    """(C, C) half the opening between the lips, spread over them: `field - K field` closes it.

    Args:
        data: the source.
        head: the control mesh.
        regions: (C,).
        mean: (C, 3) metres, origin at the sellion.
    """
    lips = np.isin(regions, [REGIONS.index("lip_upper"), REGIONS.index("lip_lower")])
    lower = lower_jaw(data, head)
    x, y, z = mean.T
    edge = {}  # the contact line: lowest vertices of the upper lip, highest of the lower
    bins = np.round(np.abs(y) / 0.0025).astype(int)
    for below in (False, True):
        members = np.flatnonzero(lips & (lower == below) & (y >= -1e-6))
        height = z[members] * (-1 if below else 1)
        chosen = [
            members[bins[members] == b][np.argmin(height[bins[members] == b])]
            for b in range(10)
            if (bins[members] == b).any()
        ]
        edge[below] = np.array(sorted(chosen, key=lambda v: y[v]))
    contact = {below: np.interp(np.abs(y), y[e], z[e]) for below, e in edge.items()}
    near = (head.parts == BODY) & (np.abs(y) < 0.027) & (x > -0.015)
    distance = np.abs(z - np.where(lower, contact[True], contact[False]))
    taper = np.clip((0.0265 - np.abs(y)) / 0.006, 0, 1)
    weight = np.where(near, np.exp(-((distance / 0.0055) ** 2)) * taper, 0.0)
    rows, columns, values = [], [], []
    for v in np.flatnonzero(weight > 1e-3):
        sign = -0.5 if lower[v] else 0.5
        for below, direction in ((False, 1.0), (True, -1.0)):
            e = edge[below]
            place = np.interp(np.abs(y[v]), y[e], np.arange(len(e)))
            i = min(int(place), len(e) - 2)
            for j, share in ((i, 1 - (place - i)), (i + 1, place - i)):
                source = e[j] if y[v] >= 0 else head.mirror[e[j]]
                # On the midline both sides count alike, so that mirror fields stay mirror fields.
                sources = (e[j], head.mirror[e[j]]) if abs(y[v]) < 1e-6 else (source,)
                for s in sources:
                    rows.append(v)
                    columns.append(s)
                    values.append(sign * direction * share * weight[v] / len(sources))
    n = head.n_control
    return sp.csr_matrix((values, (rows, columns)), shape=(n, n))


def mouth_followers(
    data: AnnyData, head: HeadMesh, regions: NDArray[np.uint8]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(members, leaders): control vertices that go, as one, where the leaders go on average."""
    upper = np.flatnonzero(regions == REGIONS.index("lip_upper"))
    lower = np.flatnonzero(regions == REGIONS.index("lip_lower"))
    jaw = lower_jaw(data, head)
    teeth, tongue = head.parts == TEETH, head.parts == TONGUE
    return [
        (np.flatnonzero(teeth & ~jaw), upper),
        (np.flatnonzero(teeth & jaw), lower),
        (np.flatnonzero(tongue), np.concatenate([upper, lower])),
    ]


def slide_matrix(head: HeadMesh, mean: NDArray[np.float64]) -> sp.csr_matrix:
    """(C, C) that moves the vertices of SLIDES, and their mirror images, along the surface.

    Applied to the mean and to every displacement field it leaves the surface where it is.

    Args:
        head: the control mesh.
        mean: (C, 3) mean shape, metres.
    """
    skin = head.triangles[(head.parts[head.triangles] == BODY).all(axis=1)]
    surface = Surface(mean, skin)
    matrix = sp.identity(head.n_control, format="lil")
    for base_vertex, (left, up) in SLIDES.items():
        vertex = head.control(base_vertex)
        hit = surface.nearest(mean[[vertex]] + np.array([[0.0, left, up]]))
        for v, corners in (
            (vertex, skin[hit.triangle[0]]),
            (int(head.mirror[vertex]), head.mirror[skin[hit.triangle[0]]]),
        ):
            if v == vertex == head.mirror[vertex]:  # the midline stays the midline
                corners = np.concatenate([corners, head.mirror[corners]])
                weights = np.tile(hit.barycentric[0], 2) / 2
            else:
                weights = hit.barycentric[0]
            matrix[v] = 0
            for corner, weight in zip(corners, weights, strict=True):
                matrix[v, corner] += weight
    return matrix.tocsr()


def pupils(head: HeadMesh) -> NDArray[np.int32]:
    """(2,) control vertices of the subject's right and left pupil."""
    return np.array([head.eye_ring(p, -1)[0] for p in (EYE_RIGHT, EYE_LEFT)], np.int32)


def canthi(head: HeadMesh) -> NDArray[np.intp]:
    """(2,) control vertices in the folds at the inner corners of the eyes."""
    left = head.control(_CANTHUS)
    return np.array([head.mirror[left], left])


def measures(head: HeadMesh) -> list[Measure]:
    """The anthropometric measures on control vertices, metres."""
    right, left = pupils(head)
    out = []
    for name, start, end, mean, deviation in _MEASURES_MM:
        a = int(left) if start == "pupil" else head.control(start)
        if end == "mirror":
            b = int(head.mirror[a])
        else:
            b = int(right) if end == "pupil mirror" else head.control(end)
        out.append(
            Measure(name, a, b, mean * 1e-3, deviation * 1e-3, 2 if "upright" in name else None)
        )
    return out


def mask(data: AnnyData, head: HeadMesh, name: str) -> NDArray[np.float64]:
    """(C,) one of MPFB2's region textures, left and right averaged, 0 off the body."""
    values = data.masks[name][np.maximum(head.base_index, 0)] * (head.parts == BODY)
    return np.asarray((values + values[head.mirror]) / 2)


def regions(data: AnnyData, head: HeadMesh, mean: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(C,) index into REGIONS.

    Args:
        data: the source.
        head: the control mesh.
        mean: (C, 3) mean shape, metres, origin at the sellion.
    """
    number = {name: i for i, name in enumerate(REGIONS)}
    x, y, z = mean.T
    y = np.abs(y)
    lower = lower_jaw(data, head)
    out = np.full(head.n_control, number["scalp"], np.uint8)
    face, lips = mask(data, head, "face"), mask(data, head, "lips")
    out[(face > 0.35)] = number["face"]
    # The front of the neck begins under the jaw line, which rises towards the ear.
    jaw_line = -0.112 - 0.02 * (x + 0.01) / 0.05 + 0.9 * np.maximum(y - 0.045, 0)
    below = (out == number["face"]) & (z < np.where(x < -0.02, jaw_line, -0.118)) & (x < -0.015)
    behind = (x < -0.09) & (z < -0.05)
    out[((z < -0.095) & (out == number["scalp"])) | below | behind] = number["neck"]
    out[mask(data, head, "ears") > 0.5] = number["ear"]
    out[brow_weight(mean) > 0.45] = number["brow"]
    out[mask(data, head, "eyelids") > 0.5] = number["eyelid"]
    out[lips > 0.5] = np.where(lower[lips > 0.5], number["lip_lower"], number["lip_upper"])
    out[mask(data, head, "inside-mouth") > 0.5] = number["mouth_interior"]
    out[nostril_weight(head, mean) > 0.45] = number["nostril"]
    for part, name in (
        (EYE_RIGHT, "eyeball"),
        (EYE_LEFT, "eyeball"),
        (TEETH, "teeth"),
        (TONGUE, "tongue"),
    ):
        out[head.parts == part] = number[name]
    return out


def nostril_weight(head: HeadMesh, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,) in [0, 1]: how deep inside a nostril a vertex of the mean (C, 3), metres, lies."""
    centre = mean[head.control(_NOSTRIL)]
    offset = np.stack([mean[:, 0], np.abs(mean[:, 1]), mean[:, 2]], axis=1) - centre
    along = offset[:, 0] - 0.2 * offset[:, 1]
    across = offset[:, 1] + 0.2 * offset[:, 0]
    square = (along / _NOSTRIL_RADII[0]) ** 2 + (across / _NOSTRIL_RADII[1]) ** 2
    inside = (head.parts == BODY) & (offset[:, 2] < 0.0015) & (offset[:, 2] > -0.006)
    return np.asarray(np.exp(-(square**1.5)) * inside)


def fine_places(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,) in [0, 1]: how near a vertex of the mean (C, 3), metres, is to a fine place."""
    at = np.stack([mean[:, 0], np.abs(mean[:, 1]), mean[:, 2]], axis=1) * 1e3
    bumps = [
        np.exp(-0.5 * (((at - place) / np.asarray(reach)) ** 2).sum(axis=1))
        for place, reach in _FINE_PLACES_MM
    ]
    return np.asarray(np.max(bumps, axis=0))


def brow_hair(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(V,) in [0, 1]: how much of a vertex of the mean face is hair of the brows."""
    return brow_weight(mean + np.array([0.0, 0.0, _HAIR_LOWER_MM * 1e-3]))


def brow_weight(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(V,) in [0, 1]: how much of a vertex of the mean face is of the brows' region."""
    x, y, z = mean.T * 1e3
    y = np.abs(y)
    centre = np.interp(y, _BROW_LATERAL_MM, _BROW_HEIGHT_MM)
    half_height = np.interp(y, (8.0, 20.0, 45.0, 62.0), (4.6, 4.4, 3.0, 1.6))
    across = (z - centre) / half_height
    ends = 1 / (1 + np.exp(-(y - 9.5) / 1.2)) / (1 + np.exp((y - 58.0) / 1.6))
    return np.asarray(np.exp(-0.5 * (across / 0.75) ** 4) * ends * (x > -50.0))
