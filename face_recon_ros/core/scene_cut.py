"""Detection of cuts between scenes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SIZE = (32, 18)  # columns, rows of the thumbnails that are compared
_ALIKE = 0.3  # correlation below which nothing is left of the picture before
_CHANGED = 20.0  # grey levels: a picture hardly changed is no cut, whatever its contrast


class SceneCut:
    """Compares each image's thumbnail with the one before.

    Correlation does not see lights that are switched on or off. A person who walks by, or a camera
    that turns, leaves enough of the picture where it was.
    """

    def __init__(self) -> None:
        """Starts with no image."""
        self._last: NDArray[np.float64] | None = None

    def __call__(self, rgb: NDArray[np.uint8]) -> bool:
        """Whether an (H, W, 3) or (H, W) uint8 image begins another scene; never the first."""
        rows, columns = rgb.shape[:2]
        # Every n-th pixel first: averaging a whole large image would cost milliseconds.
        step = max(1, min(rows // (4 * _SIZE[1]), columns // (4 * _SIZE[0])))
        small = cv2.resize(rgb[::step, ::step], _SIZE, interpolation=cv2.INTER_AREA)
        now = np.asarray(small, np.float64).reshape(_SIZE[1], _SIZE[0], -1).mean(axis=-1)
        before, self._last = self._last, now
        if before is None:
            return False
        a, b = now - now.mean(), before - before.mean()
        if np.abs(a - b).mean() < _CHANGED:
            return False
        return bool((a * b).sum() < _ALIKE * np.sqrt((a * a).sum() * (b * b).sum()))

    def reset(self) -> None:
        """Forgets the last image."""
        self._last = None
