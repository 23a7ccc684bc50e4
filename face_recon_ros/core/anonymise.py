"""Pixelation of faces in pictures.

A face becomes a mosaic of few cells: what is finer than a cell is gone from the picture, not only
hard to see. The mesh that is drawn over it still shows the shape that was reconstructed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.types import Drawable

#: Cells across a hidden square.
CELLS = 6
#: Side of the hidden square over the side of the face box: hair, ears and chin too.
REACH = 1.8
#: Seconds that the place of a face stays hidden after it was last seen.
REMEMBERED_S = 1.0


def hide_faces(rgb: NDArray[np.uint8], boxes: Iterable[ArrayLike]) -> None:
    """Makes mosaics of faces, in place.

    Args:
        rgb: (H, W, 3) uint8.
        boxes: (4,) each, face boxes in image pixels. One that is not finite hides everything:
            the face may be anywhere.
    """
    height, width = rgb.shape[:2]
    for box in boxes:
        corners = np.asarray(box, np.float64).reshape(2, 2)
        low, high = np.zeros(2, int), np.array([width, height])
        side = float(max(width, height))
        if np.isfinite(corners).all():
            centre = corners.mean(axis=0)
            side = REACH * float(np.abs(corners[1] - corners[0]).max())
            low = np.clip(np.floor(centre - side / 2), 0, high).astype(int)
            high = np.clip(np.ceil(centre + side / 2), 0, high).astype(int)
        hidden = rgb[low[1] : high[1], low[0] : high[0]]
        if hidden.size == 0:
            continue
        h, w = hidden.shape[:2]
        cells = [max(1, round(CELLS * length / max(side, 1.0))) for length in (w, h)]
        mosaic = cv2.resize(hidden, cells, interpolation=cv2.INTER_AREA)
        hidden[:] = cv2.resize(mosaic, (w, h), interpolation=cv2.INTER_NEAREST)


class LostFaces:
    """Remembers faces for a moment after they were last seen.

    A detector misses a face now and then that is there all the time; it must not show meanwhile.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, NDArray[np.float64]]] = {}

    def boxes(
        self, faces: Sequence[Drawable], width: int, height: int, stamp: float
    ) -> list[NDArray[np.float64]]:
        """Boxes of those that were seen a moment ago and are not now.

        Args:
            faces: of this image.
            width: of this image, pixels.
            height: likewise.
            stamp: of this image, seconds; one long before the last forgets everything, too.

        Returns:
            (4,) each, pixels of this image.
        """
        scale = np.array([width, height, width, height], np.float64)
        self._seen = {
            name: (seen, box)
            for name, (seen, box) in self._seen.items()
            if abs(stamp - seen) <= REMEMBERED_S
        }
        self._seen.update({face.id: (stamp, face.boxes[-1] / scale) for face in faces})
        return [box * scale for seen, box in self._seen.values() if seen != stamp]
