"""Mesh connectivity: symmetric triangulation, Loop subdivision, Laplacians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


def triangulate(
    quads: NDArray[np.intp], vertices: NDArray[np.float64], mirror: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Splits quads along their shorter diagonal, mirror quads alike.

    Args:
        quads: (F, 4), each counter-clockwise seen from outside.
        vertices: (V, 3).
        mirror: (V,) mirror vertex.

    Returns:
        (2F, 3); the triangles of quad q are rows q and F + q, first corner: quad corner 0 or 1.
    """
    flip = flipped_diagonals(quads, vertices, mirror)
    order = np.where(flip[:, None], [1, 2, 3, 0], [0, 1, 2, 3])
    turned = np.take_along_axis(quads, order, axis=1)
    return np.vstack([turned[:, [0, 1, 2]], turned[:, [0, 2, 3]]])


def flipped_diagonals(
    quads: NDArray[np.intp], vertices: NDArray[np.float64], mirror: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """(F,) True where the quad is split from corner 1 to 3 instead of 0 to 2."""
    # The lengths of a quad and its mirror image are averaged, so both get the same answer.
    symmetric = vertices + vertices[mirror] * np.array([1.0, -1.0, 1.0])

    def length(i: int, j: int) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(symmetric[quads[:, i]] - symmetric[quads[:, j]], axis=1))

    margin = length(0, 2) - length(1, 3)
    flip = margin > 0
    tie = np.abs(margin) < 1e-9
    if (
        tie.any()
    ):  # symmetric coordinates do not decide: split so that the lowest pair {v, mirror v} leads
        lowest = np.argmin(np.minimum(quads, mirror[quads]), axis=1)
        flip = np.where(tie, lowest % 2 == 1, flip)
    return flip


@dataclass(frozen=True)
class Subdivision:
    """One Loop step.

    Attributes:
        matrix: (V, C) `fine = matrix @ control`; the first C rows are the control vertices' own.
        triangles: (4F, 3) fine triangles.
        edges: (V - C, 2) the control edge each new vertex sits on.
    """

    matrix: sp.csr_matrix
    triangles: NDArray[np.intp]
    edges: NDArray[np.intp]


def loop_subdivision(triangles: NDArray[np.intp], n_control: int) -> Subdivision:
    """One step of Loop's scheme (Loop 1987, Warren's weights; boundaries are cubic B-splines).

    Args:
        triangles: (F, 3).
        n_control: C.
    """
    edges, edge_of_side = unique_edges(triangles)
    n_edges = len(edges)
    boundary = np.bincount(edge_of_side, minlength=n_edges) == 1
    opposite = np.concatenate([triangles[:, 2], triangles[:, 0], triangles[:, 1]])
    new = n_control + np.arange(n_edges)
    end_weight = np.where(boundary, 0.5, 3 / 8)
    inner_side = ~boundary[edge_of_side]
    entries = [
        (new, edges[:, 0], end_weight),
        (new, edges[:, 1], end_weight),
        (n_control + edge_of_side[inner_side], opposite[inner_side], 1 / 8),
    ]
    on_boundary = np.zeros(n_control, bool)
    on_boundary[edges[boundary]] = True
    valence = np.bincount(edges.ravel(), minlength=n_control)
    beta = np.where(valence == 3, 3 / 16, 3 / (8 * np.maximum(valence, 1)))
    own = np.arange(n_control)
    entries.append((own, own, np.where(on_boundary, 0.75, 1 - valence * beta)))
    for a, b in ((0, 1), (1, 0)):
        inner = ~on_boundary[edges[:, a]]
        entries.append((edges[inner, a], edges[inner, b], beta[edges[inner, a]]))
        entries.append((edges[boundary, a], edges[boundary, b], 1 / 8))
    rows = np.concatenate([e[0] for e in entries])
    columns = np.concatenate([e[1] for e in entries])
    weights = np.concatenate([np.broadcast_to(e[2], len(e[0])) for e in entries])
    matrix = sp.csr_matrix((weights, (rows, columns)), shape=(n_control + n_edges, n_control))
    matrix.sort_indices()
    return Subdivision(matrix, split_triangles(triangles, n_control, edge_of_side), edges)


def unique_edges(triangles: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(E, 2) undirected edges; (3F,) the edge of sides 01, then 12, then 20 of the triangles."""
    sides = np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges, index = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True)
    return edges.astype(np.intp), np.asarray(index).ravel().astype(np.intp)


def split_triangles(
    triangles: NDArray[np.intp], first_new: int, edge_of_side: NDArray[np.intp]
) -> NDArray[np.intp]:
    """(4F, 3) each triangle in four, midpoints numbered from `first_new`."""
    a, b, c = triangles.T
    ab, bc, ca = (first_new + edge_of_side).reshape(3, len(triangles))
    return np.vstack(
        [np.stack(t, 1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))]
    )


def graph_laplacian(triangles: NDArray[np.intp], n_vertices: int) -> sp.csr_matrix:
    """(V, V) random-walk graph Laplacian: row v is v minus the mean of its neighbours."""
    edges, _ = unique_edges(triangles)
    ones = np.ones(len(edges))
    adjacency = sp.coo_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(n_vertices, n_vertices))
    adjacency = (adjacency + adjacency.T).tocsr()
    degree = np.maximum(np.asarray(adjacency.sum(axis=1)).ravel(), 1)
    return sp.csr_matrix(sp.identity(n_vertices) - sp.diags(1 / degree) @ adjacency)


def cotangent_laplacian(
    vertices: NDArray[np.float64], triangles: NDArray[np.intp]
) -> tuple[sp.csr_matrix, NDArray[np.float64]]:
    """The Laplace-Beltrami operator of a mesh (Meyer et al. 2003).

    Returns:
        (V, V) stiffness matrix, positive semi-definite, and (V,) barycentric vertex areas.
    """
    n = len(vertices)
    area = np.zeros(n)
    rows, columns, values = [], [], []
    for i in range(3):
        a, b, c = triangles[:, i], triangles[:, (i + 1) % 3], triangles[:, (i + 2) % 3]
        u, v = vertices[b] - vertices[a], vertices[c] - vertices[a]
        twice_area = np.maximum(np.linalg.norm(np.cross(u, v), axis=1), 1e-14)
        # Clipped: needle-shaped triangles must not make negative or huge weights.
        weight = 0.5 * np.clip((u * v).sum(axis=1) / twice_area, 0.02, 20.0)
        rows += [b, c, b, c]
        columns += [c, b, b, c]
        values += [-weight, -weight, weight, weight]
        np.add.at(area, a, twice_area / 6)
    stiffness = sp.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n)
    )
    return stiffness, area


def vertex_areas(
    vertices: NDArray[np.float64], triangles: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(V,) a third of the area of each vertex's triangles."""
    corners = vertices[triangles]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    out = np.zeros(len(vertices))
    for i in range(3):
        np.add.at(out, triangles[:, i], area / 6)
    return out
