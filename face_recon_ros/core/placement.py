"""Placing crops again: face boxes measured on the meshes that they gave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.types import Track

#: Intersection over union of a mesh's box with the one it was made from, if both are one face.
SAME_FACE_IOU = 0.3


def place_again(
    reconstructor: FaceReconstructor, rgb: NDArray[np.uint8], tracks: list[Track]
) -> list[Track]:
    """Tracks of one picture with their boxes measured on the mesh.

    Args:
        reconstructor: makes the meshes.
        rgb: (H, W, 3) uint8.
        tracks: faces of the picture.

    Returns:
        The tracks in their order; one keeps its box where the mesh is unusable or another face.
    """
    crops = reconstructor.crops(tracks)
    pixels = reconstructor.extract(rgb, crops)
    crops, _, prediction = reconstructor.look(tracks, crops, pixels)
    boxes = reconstructor.face_boxes(crops, prediction.coefficients)
    return [
        replace(track, box=box) if ok and iou(track.box, box)[0, 0] > SAME_FACE_IOU else track
        for track, box, ok in zip(tracks, boxes, prediction.usable, strict=True)
    ]
