"""Face box <-> crop: a square of the image, resampled to the network's input size.

Pixel centres are at integers. A crop may reach over the border of the image; what lies outside is
black.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import ImageError


@dataclass(frozen=True)
class Crop:
    """A square of an image.

    Attributes:
        centre_px: (2,) x, y in the image.
        side_px: length of the square's side in the image.
        size: pixels of the resampled crop, per side.
        angle: by which the square is turned in the image, radians, clockwise as seen: its x axis
            points to (cos, sin). A face that is rolled by as much stands upright in the crop.
    """

    centre_px: NDArray[np.float64]
    side_px: float
    size: int
    angle: float = 0.0

    @property
    def scale(self) -> float:
        """Crop pixels per image pixel."""
        return self.size / self.side_px

    @property
    def image_from_crop_rotation(self) -> NDArray[np.float64]:
        """(2, 2) rotation of directions in the crop to directions in the image."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        return np.array([[c, -s], [s, c]])

    @property
    def crop_from_image(self) -> NDArray[np.float64]:
        """(2, 3) affine that maps image pixels to crop pixels."""
        linear = self.scale * self.image_from_crop_rotation.T
        return np.column_stack([linear, (self.size - 1) / 2 - linear @ self.centre_px])

    @property
    def image_from_crop(self) -> NDArray[np.float64]:
        """(2, 3) affine that maps crop pixels to image pixels."""
        linear = self.image_from_crop_rotation / self.scale
        middle = np.full(2, (self.size - 1) / 2)
        return np.column_stack([linear, self.centre_px - linear @ middle])

    def to_crop(self, image_px: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) image pixels -> (..., 2) crop pixels."""
        p = np.asarray(image_px, np.float64) - self.centre_px
        return np.asarray(p @ self.image_from_crop_rotation * self.scale + (self.size - 1) / 2)

    def to_image(self, crop_px: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) crop pixels -> (..., 2) image pixels."""
        p = (np.asarray(crop_px, np.float64) - (self.size - 1) / 2) / self.scale
        return np.asarray(p @ self.image_from_crop_rotation.T + self.centre_px)

    def extract(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resamples the square, with low-pass filtering where it shrinks.

        Args:
            image: (H, W, 3) or (H, W) uint8.

        Returns:
            (size, size, 3) or (size, size) uint8.
        """
        if image.ndim not in (2, 3) or image.shape[0] == 0 or image.shape[1] == 0:
            raise ImageError("an image with pixels", f"shape {image.shape}", "check the source")
        height, width = image.shape[:2]
        shrink = self.side_px / self.size
        if shrink <= 2.0:
            return np.asarray(
                cv2.warpAffine(image, self.crop_from_image, (self.size, self.size)), np.uint8
            )
        # Shrinking by more than two would alias: average whole blocks first, then go the rest of
        # the way. Blocks of whole pixels are several times faster than fractional ones.
        block = int(shrink)
        turned = np.abs(self.image_from_crop_rotation[0]).sum()  # its bounding box, in sides
        reach = self.side_px / 2 * turned + 2 * shrink
        x0, y0 = np.floor(self.centre_px - reach).astype(int)
        x1, y1 = np.ceil(self.centre_px + reach).astype(int)
        x0, x1 = int(np.clip(x0, 0, width - 1)), int(np.clip(x1, 1, width))
        y0, y1 = int(np.clip(y0, 0, height - 1)), int(np.clip(y1, 1, height))
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        patch = image[y0 : y1 + (y0 - y1) % block, x0 : x1 + (x0 - x1) % block]
        below, right = -patch.shape[0] % block, -patch.shape[1] % block
        if below or right:  # where the image ends within a block
            edge = cv2.BORDER_REPLICATE
            patch = np.asarray(cv2.copyMakeBorder(patch, 0, below, 0, right, edge), np.uint8)
        blocks = (patch.shape[1] // block, patch.shape[0] // block)
        small = cv2.resize(patch, blocks, interpolation=cv2.INTER_AREA)
        # Pixel u of `small` has its centre at x0 + block u + (block - 1) / 2 of the image.
        affine = self.crop_from_image
        offset = affine[:, :2] @ (np.array([x0, y0]) + (block - 1) / 2) + affine[:, 2]
        small_affine = np.column_stack([affine[:, :2] * block, offset])
        return np.asarray(cv2.warpAffine(small, small_affine, (self.size, self.size)), np.uint8)


@dataclass(frozen=True)
class CropSpec:
    """What crops a network wants.

    Attributes:
        size: pixels of a crop, per side.
        margin: side of the crop over side of the face box.
    """

    size: int
    margin: float

    def crops(self, boxes: Iterable[ArrayLike]) -> list[Crop]:
        """The squares around face boxes (4,), image pixels."""
        return [crop_from_face_box(box, self.margin, self.size) for box in boxes]

    def extract(self, rgb: NDArray[np.uint8], crops: Sequence[Crop]) -> NDArray[np.uint8]:
        """(N, S, S, 3) uint8 pixels of N crops of an (H, W, 3) RGB image; N may be 0."""
        pixels = np.empty((len(crops), self.size, self.size, 3), np.uint8)
        for out, crop in zip(pixels, crops, strict=True):
            out[:] = crop.extract(rgb)
        return pixels


def whole_crop(size: int) -> Crop:
    """The crop that is a picture of `size` x `size` pixels itself."""
    return Crop(np.full(2, (size - 1) / 2), float(size), size)


def crop_from_face_box(box: ArrayLike, margin: float, size: int, angle: float = 0.0) -> Crop:
    """The square crop around a face box.

    Args:
        box: (4,) x0, y0, x1, y1 in image pixels.
        margin: side of the crop over the geometric mean side of the box.
        size: pixels of the crop, per side.
        angle: by which the face is rolled in the image, radians; see `Crop`.
    """
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    if not (np.isfinite([x0, y0, x1, y1]).all() and x1 > x0 and y1 > y0):
        raise ImageError(
            "a finite face box x0 < x1, y0 < y1", f"{[x0, y0, x1, y1]}", "drop this detection"
        )
    side = float(np.sqrt((x1 - x0) * (y1 - y0))) * margin
    return Crop(np.array([(x0 + x1) / 2, (y0 + y1) / 2]), side, size, angle)


def face_box_from_points(points_px: ArrayLike) -> NDArray[np.float64]:
    """The face box of a reconstructed face: the definition every detector's box is mapped to.

    A square centred on the middle of the bounding box of the projected `facial_skin` vertices,
    with the side sqrt(width * height): turning the head changes it less than either side alone.

    Args:
        points_px: (N, 2) projected `facial_skin` vertices, image pixels.

    Returns:
        (4,) x0, y0, x1, y1 in image pixels.
    """
    p = np.asarray(points_px, np.float64)
    return face_boxes_from_extents(p.min(axis=0), p.max(axis=0))


def face_boxes_from_extents(low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """`face_box_from_points` of points of which the extent is known.

    Args:
        low: (..., 2) least x and y, pixels.
        high: (..., 2) greatest.

    Returns:
        (..., 4) x0, y0, x1, y1.
    """
    a, b = np.asarray(low, np.float64), np.asarray(high, np.float64)
    centre, half = (a + b) / 2, np.sqrt(np.prod(b - a, axis=-1, keepdims=True)) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


class Picture(NamedTuple):
    """Where the pixels of a face are.

    Attributes:
        rgb: (H, W, 3) uint8: the image, or the face's crop.
        is_crop: which of the two.
    """

    rgb: NDArray[np.uint8]
    is_crop: bool = False

    def place_of(self, crop: Crop) -> Crop:
        """Where a crop of the image lies in this picture."""
        return whole_crop(len(self.rgb)) if self.is_crop else crop
