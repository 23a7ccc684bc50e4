"""What a face model answers for the mirror image of a face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.morphable_model import MorphableModel

#: Of a vertex in the face frame: its left and right change places.
MIRRORED_AXES = np.array([1.0, -1.0, 1.0])


def mirror_matrix(
    model: MorphableModel, basis: NDArray[np.floating], signs: NDArray[np.floating]
) -> NDArray[np.float32]:
    """(K, K) from the coefficients of a face to those of its mirror image, by least squares.

    Args:
        model: whose vertices have mirror vertices.
        basis: (3 V, K) of the model.
        signs: (3,) of the components of a vertex in the mirror: `MIRRORED_AXES` for places, ones
            for colours.
    """
    paired = np.flatnonzero(model.symmetry >= 0)
    b = basis.reshape(model.n_vertices, 3, -1).astype(np.float64)
    here = b[paired].reshape(len(paired) * 3, -1)
    there = (b[model.symmetry[paired]] * signs[:, None]).reshape(len(paired) * 3, -1)
    gram = here.T @ here
    ridge = 1e-9 * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.linalg.solve(gram + ridge, here.T @ there).astype(np.float32)


def identity_mirror(model: MorphableModel) -> NDArray[np.float32]:
    """(K_id, K_id) from the identity of a face to that of its mirror image."""
    return mirror_matrix(model, model.identity_basis, MIRRORED_AXES)


def expression_mirror(model: MorphableModel) -> NDArray[np.float32]:
    """(K_exp, K_exp) likewise; activations of Left and Right change places by their names."""
    if model.expression_prior != "unit_interval":
        return mirror_matrix(model, model.expression_basis, MIRRORED_AXES)
    return np.eye(model.k_expression, dtype=np.float32)[mirrored_names(model.expression_names)]


def mirrored_names(names: Sequence[str]) -> NDArray[np.intp]:
    """(K_exp,) index of each expression's mirror image, by its Left or Right."""
    swap = {"Left": "Right", "Right": "Left"}
    position = {name: i for i, name in enumerate(names)}

    def mirror(name: str) -> str:
        for side, other in swap.items():
            if name.endswith(side):
                return name.removesuffix(side) + other
        return name

    return np.array([position.get(mirror(name), i) for i, name in enumerate(names)], np.intp)


def mirrored_points(
    model: MorphableModel, vertices: NDArray[np.integer]
) -> NDArray[np.intp] | None:
    """Where the mirror vertex of each vertex is.

    Args:
        model: that has the vertices.
        vertices: (P,) indices.

    Returns:
        (P,) positions in `vertices`; None where one is not among them.
    """
    place = {int(v): i for i, v in enumerate(vertices)}
    found = [place.get(int(model.symmetry[v]), -1) for v in vertices]
    return None if -1 in found else np.array(found, np.intp)
