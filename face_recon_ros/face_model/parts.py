"""Where the face ends: a smooth closed loop of edges of the control mesh.

A threshold on coordinates leaves a staircase. Here the edge is the cheapest way along the mesh
from the midline above the forehead to the midline under the chin (Dijkstra over directed edges):
long ways, bends and places far from the wanted edge cost. The other side is its mirror image.
"""

from __future__ import annotations

import heapq

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from face_recon_ros.face_model.head_mesh import BODY, HeadMesh
from face_recon_ros.face_model.topology import unique_edges

_SMOOTHING_STEPS = 8  # of the wanted membership, along the mesh
_BAND = 0.45  # how far from one half the smoothed membership of an edge may be
_WIDTH = 0.5  # that far from one half, a metre costs twice
_BEND_M = 0.04  # metres that a bend costs per radian squared
_END_M = 0.02  # metres that an end costs, at `_WIDTH` from one half
_LEFT = np.array([0.0, 1.0, 0.0])
_MIDLINE_M = 1e-6
_ABOVE_M, _BELOW_M = 0.04, -0.09  # the forehead is above the one, the chin below the other


def within_smooth_edge(
    head: HeadMesh, mean: NDArray[np.float64], wanted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """The part of the body's surface within a smooth loop near the edge of a wanted part.

    Args:
        head: the control mesh.
        mean: (C, 3) mean shape, metres, face frame, symmetric.
        wanted: (C,) the wanted part: symmetric, one piece, around the nose. Holes in it should be
            filled: their edges are wanted edges too.

    Returns:
        (C,) vertices on and within the loop, those behind holes (mouth, eye sockets) included.
    """
    edges, _ = unique_edges(head.triangles[(head.parts[head.triangles] == BODY).all(axis=1)])
    member = _smoothed(mean, edges, wanted)
    loop = np.zeros(len(mean), bool)
    loop[_half_loop(mean, edges, member)] = True
    loop |= loop[head.mirror]
    rest = (head.parts == BODY) & ~loop
    piece = pieces(edges[rest[edges].all(axis=1)], len(mean))
    middle = np.argmax(np.where(head.parts == BODY, mean[:, 0], -np.inf))  # the tip of the nose
    return np.asarray((piece == piece[middle]) | loop)


def pieces(edges: NDArray[np.intp], n_vertices: int) -> NDArray[np.intp]:
    """(V,) number of the connected piece of every vertex of a graph of (E, 2) edges."""
    ones = np.ones(len(edges), bool)
    graph = sp.coo_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(n_vertices, n_vertices))
    return np.asarray(connected_components(graph, directed=False)[1], np.intp)


def covered(triangles: NDArray[np.intp], members: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(V,) those of (V,) members that are corners of a triangle (F, 3) of members only."""
    out = np.zeros_like(members)
    out[triangles[members[triangles].all(axis=1)]] = True
    return out


def _smoothed(
    mean: NDArray[np.float64], edges: NDArray[np.intp], wanted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(C,) membership in [0, 1], averaged over neighbours; one half is the wanted edge."""
    n = len(mean)
    length = np.linalg.norm(mean[edges[:, 0]] - mean[edges[:, 1]], axis=1)
    near = sp.coo_matrix((1 / np.maximum(length, 1e-4), (edges[:, 0], edges[:, 1])), shape=(n, n))
    near = (near + near.T).tocsr()
    total = np.maximum(np.asarray(near.sum(axis=1)).ravel(), 1e-9)
    member = wanted.astype(np.float64)
    for _ in range(_SMOOTHING_STEPS):
        member = (member + (near @ member) / total) / 2
    return member


def _half_loop(
    mean: NDArray[np.float64], edges: NDArray[np.intp], member: NDArray[np.float64]
) -> list[int]:
    """Control vertices of the loop's left half, from the chin up to the forehead."""
    on_midline = np.abs(mean[:, 1]) < _MIDLINE_M
    in_band = np.abs(member - 0.5) < _BAND
    usable = in_band & (mean[:, 1] > -_MIDLINE_M)
    kept = usable[edges].all(axis=1) & ~on_midline[edges].all(axis=1)
    ways = np.vstack([edges[kept], edges[kept][:, ::-1]])  # each edge there and back
    step = mean[ways[:, 1]] - mean[ways[:, 0]]
    length = np.linalg.norm(step, axis=1)
    direction = step / length[:, None]
    astray = (np.abs(member - 0.5) / _WIDTH) ** 2
    cost = length * (1 + astray[ways].mean(axis=1))
    leaving: dict[int, list[int]] = {}
    for way, start in enumerate(ways[:, 0].tolist()):
        leaving.setdefault(start, []).append(way)
    ends = set(np.flatnonzero(on_midline & usable & (mean[:, 2] < _BELOW_M)).tolist())

    best = np.full(len(ways), np.inf)
    before = np.full(len(ways), -1, np.intp)
    queue: list[tuple[float, int]] = []

    def reach(way: int, total: float, origin: int) -> None:
        if total < best[way]:
            best[way], before[way] = total, origin
            heapq.heappush(queue, (total, way))

    for start in np.flatnonzero(on_midline & usable & (mean[:, 2] > _ABOVE_M)).tolist():
        for way in leaving.get(start, []):  # the mirror image comes from the other side
            bend = _bend(_LEFT, direction[way])
            reach(way, cost[way] + bend + _END_M * astray[start], -1)
    cheapest, last = np.inf, -1
    while queue and queue[0][0] < cheapest:
        total, way = heapq.heappop(queue)
        if total > best[way]:
            continue
        at = int(ways[way, 1])
        if at in ends:
            whole = total + _bend(direction[way], -_LEFT) + _END_M * astray[at]
            if whole < cheapest:
                cheapest, last = whole, way
            continue
        for onward in leaving.get(at, []):
            bend = _bend(direction[way], direction[onward])
            reach(onward, total + cost[onward] + bend, way)
    if last < 0:
        raise ValueError("no way along the mesh from the forehead to the chin")
    path = [int(ways[last, 1])]
    while last >= 0:
        path.append(int(ways[last, 0]))
        last = int(before[last])
    return path


def _bend(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Metres that turning from one unit vector to another costs."""
    return float(_BEND_M * np.arccos(np.clip(one @ other, -1.0, 1.0)) ** 2)
