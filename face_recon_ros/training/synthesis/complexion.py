"""What is on the skin finer than vertices: brows, lashes, folds, shades, spots.

Drawn in a flat map of the mean face (left and up, millimetres from the sellion) that every head is
wrapped in, so that it moves with identity and expression. Places are measured on the mean face's
regions; how strong and wide things are is drawn for each person. Brows hang from the line where
annotators put them, which is their upper edge: the broader, the nearer to the eye.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.training.synthesis.expressions import Mood

Map = NDArray[np.float32]

_PIXEL_MM = 1.25
_REACH_MM = ((-80.0, 80.0), (-130.0, 85.0))  # to the left, and up
#: Regions that define places.
NEEDED = ("eyelid", "eyeball", "nostril", "lip_upper", "lip_lower")
#: Regions that wear the map; ears, scalp and the inside of the mouth do not.
_PAINTED = ("face", "eyelid", "brow", "nostril", "lip_upper", "lip_lower")
#: Vertices farther behind the sellion lie on the side of the head, where the map is stretched.
_BACK_M = -0.085
#: Upper edge of a brow, from its inner end to its tail: mm from the midline, mm above the eye.
_BROW = np.array([[9.0, 23.0, 36.0, 48.0, 58.0], [16.0, 20.5, 23.0, 20.5, 14.0]])
#: Its half width there, over the largest.
_BROW_WIDTH = np.array([0.8, 1.0, 0.9, 0.6, 0.25])

#: Height of an eye's opening over its width.
_OPENING = 0.37

#: What stubble takes of red, green and blue.
_STUBBLE = np.array([1.0, 0.9, 0.8], np.float32)


def map_coordinates(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 3) points of the mean face, metres -> (N, 2) column and row in the map."""
    (low_y, _), (_, high_z) = _REACH_MM
    left_up = 1e3 * np.asarray(points, np.float64)[:, 1:]
    return (left_up - [low_y, high_z]) * [1, -1] / _PIXEL_MM


class Paint(NamedTuple):
    """A map and how heads are wrapped in it.

    Attributes:
        factor: (H, W, 3) what the skin's sRGB-encoded colour is multiplied by.
        coordinates: (V, 3) column and row of each vertex of the head, and 1 where it is painted.
    """

    factor: Map
    coordinates: Map

    def look_up(self, coordinates: Map) -> Map:
        """(H', W', 3) factors at (H', W', 3) interpolated `coordinates`."""
        column, row, painted = (np.ascontiguousarray(c) for c in np.moveaxis(coordinates, 2, 0))
        found = cv2.remap(
            self.factor, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(1 + painted[..., None] * (found - 1), np.float32)


class Complexion:
    """Draws maps for one face model.

    Attributes:
        coordinates: of the head's vertices, as in `Paint`.
        shape: (H, W) of the maps.
    """

    def __init__(self, model: MorphableModel) -> None:
        """Finds eyes, nose and mouth of the mean face.

        Args:
            model: face model with the regions `NEEDED`, coarse level, whole head.
        """
        shape_mm = 1e3 * model.mean_shape.astype(np.float64)
        lids, eyes, nostrils, upper, lower = (
            shape_mm[model.regions == model.region_names.index(name)] for name in NEEDED
        )
        aside = np.abs(lids[:, 1])
        self._canthi = (aside.min(), aside.max())
        self._eye = (np.abs(eyes[:, 1]).mean(), lids[:, 2].mean())
        self._wing = (np.abs(nostrils[:, 1]).max() + 4.5, nostrils[:, 2].min() - 5.5)
        lips = np.concatenate([upper, lower])
        widest = np.abs(lips[:, 1]).argmax()
        self._corner = (abs(lips[widest, 1]), lips[widest, 2])
        self._lips = (upper[:, 2].max(), lower[:, 2].min())
        (low_y, high_y), (low_z, high_z) = _REACH_MM
        y, z = np.arange(low_y, high_y, _PIXEL_MM), np.arange(high_z, low_z, -_PIXEL_MM)
        self._y, self._z = (g.astype(np.float32) for g in np.meshgrid(y, z))
        self.shape = self._y.shape
        self._to_lids = self._lid_distance()
        regions = [i for i, name in enumerate(model.region_names) if name in _PAINTED]
        painted = np.isin(model.regions, regions) & (model.mean_shape[:, 0] > _BACK_M)
        self.coordinates = np.column_stack([map_coordinates(model.mean_shape), painted]).astype(
            np.float32
        )

    def _lid_distance(self) -> Map:
        """(H, W) millimetres to the edges of the lids, which two almonds stand for."""
        (inner, outer), (_, height) = self._canthi, self._eye
        half = (outer - inner) / 2
        across = (np.abs(self._y) - inner) / half - 1
        down = (self._z - height) / (_OPENING * half * np.sqrt(np.clip(1 - across**2, 0.02, 1)))
        inside = ((np.abs(across) < 1) & (np.abs(down) < 1)).astype(np.uint8)
        out, within = (
            cv2.distanceTransform(mask, cv2.DIST_L2, 5) for mask in (1 - inside, inside)
        )
        return np.asarray(np.maximum(out, within) * _PIXEL_MM, np.float32)

    def draw(
        self, hair_over_skin: NDArray[np.floating], mood: Mood, random: np.random.Generator
    ) -> Paint:
        """One person's.

        Args:
            hair_over_skin: (3,) colour of the hair over that of the skin.
            mood: how deep smiles fold the cheeks, and brows the forehead.
            random: source of randomness.
        """
        brush = _Brush(self._y + self._wobble(random), self._z + self._wobble(random), random)
        self._draw_eyes(brush)
        self._draw_nose(brush)
        self._draw_mouth(brush, mood.smile)
        self._draw_forehead(brush, mood)
        brush.shade *= 1 + self._mottled(random)
        factor = np.repeat(brush.shade[..., None], 3, 2)
        if random.random() < 0.25:
            factor *= 1 - self._stubble(brush)[..., None] * _STUBBLE
        brow = self._brow(brush.y, brush.z, random)[..., None]
        factor = factor * (1 + brow * (np.asarray(hair_over_skin, np.float32) - 1))
        return Paint(np.clip(factor, 0.05, 3).astype(np.float32), self.coordinates)

    def _draw_eyes(self, brush: _Brush) -> None:
        """Sockets, the crease of the lid, lashes, bags, crow's feet."""
        random, u = brush.random, brush.random.uniform
        (y, z), (inner, outer) = self._eye, self._canthi
        brush.blob((y - 4, z + 8), (15, 5), 0.35)
        brush.blob((inner - 3, z + 7), (5, 8), 0.45)
        brush.blob((inner, z - 7), (6, 5), 0.25)
        if random.random() < 0.7:
            top = z + u(6.5, 10)
            arch = [(inner, top - 5), (y, top), (outer + 1, top - 5)]
            brush.line(arch, u(0.8, 2), 0.5 * random.random())
        above = brush.z > z - 1.5
        lashes = np.where(above, u(0.1, 0.9), u(0, 0.45))
        reach = np.where(above, u(0.8, 2.4), u(0.7, 1.4))
        brush.shade *= 1 - lashes * np.exp(-np.square(self._to_lids / reach))
        bag = [(inner + 1, z - 7), (y, z - u(10, 15)), (outer - 2, z - 8)]
        brush.line(bag, u(1.5, 4), 0.4 * random.random() ** 2)
        if random.random() < 0.25:
            for slope in (-0.5, 0.0, 0.5):
                brush.line([(outer + 4, z), (outer + 14, z + 14 * slope)], 1.0, u(0, 0.25))

    def _draw_nose(self, brush: _Brush) -> None:
        """Wings, nostrils, the shadow below, and the sides."""
        y, z = self._wing
        rim = [(y - 1, z + 9), (y + 3, z + 3), (y, z - 2)]
        brush.line(rim, brush.random.uniform(1, 2.5), 0.5 * brush.random.random())
        brush.blob((y * 0.4, z - 1.5), (4.5, 2.5), 0.6)
        brush.blob((0, z - 6), (12, 5), 0.35)
        brush.blob((y * 0.7, z + 26), (4, 14), 0.25)

    def _draw_mouth(self, brush: _Brush, smile: float) -> None:
        """Folds from nose to mouth, cheeks, corners, the line between the lips, the chin's."""
        random = brush.random
        (wing_y, wing_z), (y, z), (top, bottom) = self._wing, self._corner, self._lips
        fold = [
            (wing_y + 3, wing_z + 5),
            (wing_y + 8, wing_z - 6),
            (y + 9 + 5 * smile, z + 6 * smile),
            (y + 8 + 6 * smile, z - 9),
        ]
        brush.line(fold, random.uniform(1.5, 3.5), (0.15 + 0.35 * smile) * random.random())
        brush.blob((self._eye[0] + 4, wing_z + 12), (13, 10), -0.15 - 0.1 * smile)
        brush.blob((y + 2, z - 0.5), (3, 3), 0.5)
        if random.random() < 0.6:
            between = [(0.0, z + 1), (y - 3, z + 0.5), (y, z)]
            brush.line(between, random.uniform(0.7, 1.5), 0.5 * random.random())
        brush.blob((0, bottom - 5), (13, 4), 0.5)
        brush.blob((0, (wing_z + top) / 2), (3, 5), 0.15)

    def _draw_forehead(self, brush: _Brush, mood: Mood) -> None:
        """Creases across, deeper with raised brows; between the brows, deeper with a frown.

        All is drawn whatever the mood, so that a person keeps everything else.
        """
        random, z = brush.random, self._eye[1]
        creased, depths = random.random(), random.random(3)
        heights = z + random.uniform(26, 65, 3)
        if creased < 0.25 + 0.6 * mood.raised:
            most = 0.3 + 0.4 * mood.raised
            for height, depth in zip(heights, depths, strict=True):
                brush.line([(0, height), (45, height - 4)], 1.2, most * depth)
        frowns, at, depth = random.random(), random.uniform(4, 8), random.random()
        if frowns < 0.15 + 0.7 * mood.frown:
            most = 0.15 + 0.4 * mood.frown
            brush.line([(at, z + 12), (at - 1, z + 26)], 1.3, most * depth)

    def _stubble(self, brush: _Brush) -> Map:
        """(H, W) how dark the unshaven are, lips and above the nose left out."""
        (y, z), low, high = self._corner, self._lips[1] - 60, self._wing[1] - 8
        q = np.clip((high - brush.z) / 12, 0, 1) * (brush.z > low)
        q *= 1 - np.exp(-np.square(brush.y / y) - np.square((brush.z - z) / 9))
        return np.asarray(brush.random.uniform(0, 0.3) * q, np.float32)

    def _brow(self, y: Map, z: Map, random: np.random.Generator) -> Map:
        """(H, W) how much of the hair's colour shows."""
        along, height = _BROW
        along = along + np.linspace(random.normal(0, 2.5), random.normal(0, 3), len(along))
        chord = np.linspace(height[0], height[-1], len(height))
        height = chord + random.uniform(0.4, 1.4) * (height - chord)
        height = height + np.linspace(random.normal(0, 0.8), random.normal(0, 0.8), len(height))
        half = random.uniform(2.0, 5.0) * _BROW_WIDTH
        height = height + self._eye[1] + random.normal(0, 0.8) - half
        half = np.interp(y, along, half)
        away = np.abs(z - np.interp(y, along, height)) / half
        ends = np.clip((y - along[0]) / 2 + 1, 0, 1) * np.clip((along[-1] - y) / 3 + 0.5, 0, 1)
        weight = np.clip(1.4 - 1.2 * away, 0, 1) * ends
        hairs = 1 - random.uniform(0, 0.7) * random.random(y.shape)
        return np.asarray(random.uniform(0.08, 1.0) * weight * hairs, np.float32)

    def _wobble(self, random: np.random.Generator) -> Map:
        """(H, W) millimetres by which no face is like its mirror image."""
        coarse = random.normal(0, 0.8, (6, 5)).astype(np.float32)
        return self._spread(coarse)

    def _mottled(self, random: np.random.Generator) -> Map:
        coarse = random.standard_normal((9, 7)).astype(np.float32)
        fine = random.standard_normal((self._y.shape[0] // 2, self._y.shape[1] // 2))
        out = random.uniform(0, 0.06) * self._spread(coarse)
        out += random.uniform(0, 0.04) * self._spread(fine.astype(np.float32))
        if random.random() < 0.15:  # freckles
            spots = random.random(self._y.shape) > random.uniform(0.9, 0.995)
            out -= random.uniform(0.1, 0.4) * spots
        return np.asarray(out, np.float32)

    def _spread(self, coarse: Map) -> Map:
        height, width = self._y.shape
        return np.asarray(
            cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32
        )


class _Brush:
    """Darkens a map, alike on both sides of the face.

    Attributes:
        y, z: (H, W) what each pixel shows, millimetres from the midline and up.
        shade: (H, W) what the skin is multiplied by.
        random: source of randomness.
    """

    def __init__(self, y: Map, z: Map, random: np.random.Generator) -> None:
        self.y, self.z, self.random = np.abs(y), z, random
        self.shade = np.ones_like(z)

    def blob(self, at: tuple[float, float], reach: tuple[float, float], most: float) -> None:
        """Around a point, by up to `most` (below 0: lighter), mostly less."""
        depth = most * self.random.random() ** 1.5
        if abs(depth) >= 0.02:
            q = ((self.y - at[0]) / reach[0]) ** 2 + ((self.z - at[1]) / reach[1]) ** 2
            self.shade *= 1 - depth * np.exp(-q)

    def line(self, points: list[tuple[float, float]], width: float, depth: float) -> None:
        """Along a polyline."""
        q = np.square(_distance_to_line(self.y, self.z, points) / width)
        self.shade *= 1 - depth * np.exp(-q)


def _distance_to_line(y: Map, z: Map, points: list[tuple[float, float]]) -> Map:
    """(H, W) distance of each (y, z) to the polyline through points."""
    nearest = np.full_like(y, np.inf)
    for (y0, z0), (y1, z1) in itertools.pairwise(points):
        dy, dz = y1 - y0, z1 - z0
        t = np.clip(((y - y0) * dy + (z - z0) * dz) / (dy * dy + dz * dz), 0, 1)
        np.minimum(nearest, np.hypot(y - y0 - t * dy, z - z0 - t * dz), out=nearest)
    return nearest
