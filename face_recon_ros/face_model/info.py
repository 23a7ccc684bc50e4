"""What a face model file holds, in words and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from face_recon_ros.core.models import sha256_of
from face_recon_ros.core.morphable_model import load_morphable_model

_SAMPLES = 1000
_SEED = 0


def describe(path: Path) -> dict[str, Any]:
    """Facts about a face model file.

    Args:
        path: the `.npz`.

    Raises:
        ModelError: it is missing or is no face model.
    """
    fine = load_morphable_model(path)
    coarse = load_morphable_model(path, level="coarse")
    with np.load(path, allow_pickle=False) as archive:
        text = {key: str(archive[key]) for key in ("attribution", "source", "units", "axes")}
    right, left = coarse.interpupillary
    rows = np.ravel(np.array([[right], [left]]) * 3 + np.arange(3))
    draws = np.random.default_rng(_SEED).standard_normal((_SAMPLES, coarse.k_identity))
    moved = (draws @ coarse.identity_basis[rows].T).reshape(-1, 2, 3)
    pupils = coarse.mean_shape[[right, left]] + moved
    distance = np.linalg.norm(pupils[:, 0] - pupils[:, 1], axis=1) * 1e3
    return {
        "file": str(path),
        "size": f"{path.stat().st_size / 1e6:.2f} MB",
        "sha256": sha256_of(path),
        "name": fine.name,
        "licence": fine.licence,
        **text,
        "identity": f"{fine.k_identity} coefficients, standard normal",
        "expression": f"{fine.k_expression} coefficients, {fine.expression_prior}",
        "albedo": f"{fine.k_albedo} coefficients, standard normal",
        "fine level": f"{fine.n_vertices} vertices, {len(fine.triangles)} triangles",
        "coarse level": f"{coarse.n_vertices} vertices, {len(coarse.triangles)} triangles",
        **{f"subset {k}": f"{int(v.sum())} fine vertices" for k, v in fine.subsets.items()},
        "regions": " ".join(fine.region_names),
        "interpupillary distance": f"{distance.mean():.1f} +- {distance.std():.1f} mm "
        f"over {_SAMPLES} samples",
        "expressions": " ".join(fine.expression_names),
    }
