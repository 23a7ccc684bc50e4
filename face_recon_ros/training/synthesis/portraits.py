"""Photographed people as synthetic ones: their skin on the face model, seen from any side.

`scripts/portrait_skins.py` takes the skin of each from one photograph. A head that wears it has
brows, lips and folds where the photograph had them on the face model, so they need no drawing, and
mostly the person's own face and expression, changed by chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.training.synthesis.complexion import Map, Paint
from face_recon_ros.training.synthesis.skins import Skins

#: Share of those who have the photograph's face, and of those who have its expression.
_OWN = 0.6
#: Share of those on whose skin nothing else is drawn.
_PLAIN = 0.8


class Portrait(NamedTuple):
    """What a head takes from a photograph.

    Attributes:
        identity: (K_id,) in standard deviations; None: any.
        expression: (K_exp,) activations; None: any.
        colours: (V, 3) albedo, sRGB-encoded; the face model's mean where there is no skin.
        detail: what lies between the vertices.
        plain: whether nothing else is drawn on the skin.
    """

    identity: NDArray[np.float32] | None
    expression: NDArray[np.float32] | None
    colours: Map
    detail: Paint
    plain: bool

    def mixed(self, other: NDArray[np.float32], random: np.random.Generator) -> Map:
        """(K_exp,) the photograph's expression, stronger or weaker, half the time with another."""
        if self.expression is None:
            return other
        own = random.uniform(0.6, 1.25) * self.expression
        more = random.uniform(0, 0.5) * other if random.random() < 0.5 else 0.0
        return np.clip(own + more, 0, 1).astype(np.float32)


class Portraits:
    """Skins of photographs in one folder, for one face model."""

    def __init__(self, folder: str | Path, model: MorphableModel, fine: MorphableModel) -> None:
        """Reads all.

        Args:
            folder: written by `scripts/portrait_skins.py`.
            model: face model at level `coarse`, whole head.
            fine: the same at level `fine`.

        Raises:
            DataError: the folder has no skins, or skins whose coefficients are missing or of
                another face model.
        """
        self._skins = Skins(folder, model, fine)
        self._model = model
        self._known = [self._coefficients(path.with_suffix(".npz")) for path in self._skins.files]

    def __len__(self) -> int:
        return len(self._known)

    def _coefficients(self, path: Path) -> tuple[Map, Map]:
        wanted = self._model.k_identity, self._model.k_expression
        got = "no file"
        if path.is_file():
            with np.load(path) as data:
                identity, expression = data["identity"], data["expression"]
            if (*identity.shape, *expression.shape) == wanted:
                return identity, expression
            got = f"identity {identity.shape}, expression {expression.shape}"
        raise DataError(
            f"{wanted[0]} and {wanted[1]} coefficients in {path}",
            got,
            "make the folder again with scripts/portrait_skins.py",
        )

    def draw(self, random: np.random.Generator) -> Portrait:
        """A portrait drawn at random."""
        index = int(random.integers(len(self)))
        identity, expression = self._known[index]
        colours, detail = self._skins.of(index)
        spread = random.normal(0, random.uniform(0.3, 0.9), len(identity))
        other = np.clip(random.uniform(0.8, 1.3) * identity + spread, -3, 3).astype(np.float32)
        return Portrait(
            other if random.random() < _OWN else None,
            expression if random.random() < _OWN else None,
            self._skins.worn(self._skins.varied(colours, random), self._model.mean_albedo),
            detail,
            random.random() < _PLAIN,
        )
