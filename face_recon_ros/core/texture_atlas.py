"""A person's texture: one picture for the whole mesh, filled from views of the face.

The face model's texture coordinates keep MakeHuman's layout of a whole body; here their islands
get a new layout, the head upright and as large as possible. What a view shows is compared with the
model as in `core.texture_sampler`, texel by texel, and the sharpest and most frontal views win.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.colour_ratios import agreement, log_ratio, sample
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.morphable_model import FACE, MorphableModel
from face_recon_ros.core.rasterizer import rasterize
from face_recon_ros.core.rigid import Rigid, angle_between
from face_recon_ros.core.texture import SeenColours, View, without_hues
from face_recon_ros.core.texture_sampler import TextureSampler
from face_recon_ros.core.types import Float32

_GAP = 0.012  # between islands, as a share of the picture
_ENLARGED = {"eyeball": 3.0, "teeth": 2.0, "tongue": 1.5}  # islands that are looked at closely
_TALLEST = 0.9  # the largest island, as a share: the others need room below it
_BESIDE = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)
_BLEED_PX = 6  # islands grow over their edges, so that filters find no ground there
#: Log of a person's hue over the model's, red, green, blue: percentiles 2, 98 of 87 portraits.
_SKIN_HUES = np.array([[-0.09, -0.08, -0.2], [0.21, 0.05, 0.12]], np.float32)
_NEW_VIEW = np.radians(4.0)  # another attitude than those before, by so much, is a new view
_BETTER = 1.1  # so much sharper than those before is a new view too
_MOST_VIEWS = 40


class TextureAtlas:
    """Which texel shows which point of the mesh.

    Attributes:
        size: pixels per side.
        uvs: (T, 2) in [0, 1], v upwards; indices as in the model's `uv_triangles`.
        corners: (M, 3) vertices of the triangle that each texel with surface lies in.
        weights: (M, 3) float32 barycentric.
        texels: (M,) their places, row by row from the top.
    """

    def __init__(self, model: MorphableModel, size: int = 1024) -> None:
        """Lays out the texture of a mesh.

        Args:
            model: the mesh, at any level, of any part.
            size: pixels per side.

        Raises:
            ModelError: the model has no texture coordinates.
        """
        if len(model.uv_triangles) == 0:
            raise ModelError(
                "texture coordinates in the face model",
                "none",
                "use the default face model",
            )
        self.size = size
        self.uvs = texture_layout(model)
        points = np.stack([self.uvs[:, 0], 1 - self.uvs[:, 1]], axis=1) * size - 0.5
        drawn = rasterize(points, np.ones(len(points)), model.uv_triangles, size, size)
        self.texels = np.flatnonzero(drawn.triangle.ravel() >= 0)
        self.corners = model.triangles[drawn.triangle.ravel()[self.texels]].astype(np.intp)
        self.weights = drawn.weights.reshape(-1, 3)[self.texels]

    def spread(self, values: NDArray[np.floating], some: NDArray[np.intp] | slice) -> Float32:
        """(m, K) values (V, K) of the vertices, at some of the M texels."""
        corners, weights = self.corners[some], self.weights[some]
        out = weights[:, :1] * values[corners[:, 0]]
        for k in (1, 2):
            out += weights[:, k : k + 1] * values[corners[:, k]]
        return np.asarray(out, np.float32)

    def picture(self, colours: Float32) -> NDArray[np.uint8]:
        """(size, size, 3) uint8 of (M, 3) colours in [0, 1], bled over the islands' edges."""
        flat = np.zeros((self.size**2, 3), np.float32)
        known = np.zeros(self.size**2, np.float32)
        flat[self.texels], known[self.texels] = colours, 1.0
        image, mask = flat.reshape(self.size, self.size, 3), known.reshape(self.size, self.size)
        for _ in range(_BLEED_PX):
            total, count = cv2.filter2D(image, -1, _BESIDE), cv2.filter2D(mask, -1, _BESIDE)
            grown = (mask == 0) & (count > 0)
            image[grown] = total[grown] / count[grown, None]
            mask[grown] = 1.0
        image[mask == 0] = colours.mean(axis=0) if len(colours) else 0.0
        return np.asarray(np.clip(np.rint(255 * image), 0, 255), np.uint8)


class TextureBuilder:
    """Gathers a person's texture from views; reflectance, the light is divided out."""

    def __init__(
        self, atlas: TextureAtlas, sampler: TextureSampler, model: MorphableModel
    ) -> None:
        """Begins with nothing seen.

        Args:
            atlas: of the mesh.
            sampler: of the same mesh.
            model: the mesh.
        """
        eyes = model.regions == _region(model, "eyeball")  # gaze is too rough to paint irises
        takes = (model.subsets[FACE] & ~eyes)[atlas.corners].all(axis=1)
        self._atlas, self._sampler = atlas, sampler
        self._triangles = model.triangles.astype(np.intp)
        valence = np.bincount(self._triangles.ravel(), minlength=model.n_vertices)
        self._valence = np.maximum(valence, 1).astype(np.float32)
        self._face = np.flatnonzero(takes)
        self._tolerance = atlas.spread(sampler.tolerance, self._face)
        self._tolerance_glasses = atlas.spread(sampler.tolerance_glasses, self._face)
        self._seen = SeenColours(len(self._face))
        self._views: list[tuple[Rigid, float]] = []

    @property
    def coverage(self) -> float:
        """Share of the face's texels that were seen, in [0, 1]."""
        seen = self._seen.believed()
        return float(seen.mean()) if len(seen) else 0.0

    def wants(self, pose: Rigid, quality: float) -> bool:
        """Whether a view of this pose and `View.quality` adds to those before."""
        if len(self._views) >= _MOST_VIEWS:
            return False
        alike = [s for p, s in self._views if angle_between(p.rotation, pose.rotation) < _NEW_VIEW]
        return quality > _BETTER * max(alike, default=0.0)

    def add(self, view: View) -> None:
        """Takes in a view."""
        self._views.append((view.pose, view.quality))
        if view.comparison.empty:
            return
        told = np.stack([self._settled(view.comparison.weight), view.comparison.visible], axis=1)
        weight, visible = self._atlas.spread(told, self._face).T
        near = np.flatnonzero(visible > 0.01)
        face, weight, visible = self._face[near], weight[near], visible[near]
        colours = sample(view.rgb, self._atlas.spread(view.pixels, face))
        ratio = log_ratio(colours, self._atlas.spread(view.model_colours, face))
        smooth = self._atlas.spread(self._sampler.extended(view.comparison.field), face)
        tolerance = self._tolerance[near]
        if glasses := view.comparison.glasses:
            tolerance += np.float32(glasses) * (self._tolerance_glasses[near] - tolerance)
        weight = weight * agreement(ratio, smooth, tolerance)
        gain = (weight**2 * view.px_per_mm) ** 2  # squared: the best views win, others hardly blur
        if view.calm is not None:  # what a smile folds is no part of the face at rest
            gain *= self._atlas.spread(view.calm[:, None], face)[:, 0]
        compared = replace(view.comparison, ratio=ratio, weight=weight, visible=visible)
        self._seen.add(compared, gain, view.px_per_mm, view.px_per_mm, near)

    def _settled(self, weight: Float32) -> Float32:
        """(V,) weights without specks: the mean of each triangle's least, over its triangles."""
        total = np.zeros(len(weight) + 1, np.float32)
        least = weight[self._triangles].min(axis=1)
        for k in range(3):
            np.add.at(total, self._triangles[:, k], least)
        return np.asarray(total[:-1] / self._valence, np.float32)

    def texture(self, albedo: Float32) -> NDArray[np.uint8]:
        """(size, size, 3) uint8: albedo (V, 3) of the model with what was seen over it."""
        seen = self._seen.believed()
        cast, field = self._cast(seen), self._seen.field.copy()
        field[0] -= cast
        ratio = self._atlas.spread(self._sampler.extended(field), slice(None))
        smooth = ratio[self._face]
        ratio[self._face] = smooth + seen[:, None] * (self._seen.ratio - cast - smooth)
        colours = self._atlas.spread(albedo, slice(None)) * np.exp(ratio)
        if self._seen.grey and not self._seen.empty:
            colours = without_hues(colours)
        return self._atlas.picture(np.clip(colours, 0, 1).astype(np.float32))

    def _cast(self, seen: Float32) -> Float32:
        """(3,) log of the light's hue: what no skin has, beside the model's, is not the skin's."""
        if self._seen.grey or not seen.any():
            return np.zeros(3, np.float32)
        mean = seen @ self._seen.ratio / seen.sum()
        hue = mean - mean.mean()
        return np.asarray(hue - np.clip(hue, *_SKIN_HUES), np.float32)


def texture_layout(model: MorphableModel) -> Float32:
    """(T, 2) texture coordinates in [0, 1]; the largest island on top, the others below it."""
    uvs = model.uvs.astype(np.float64)
    island = _islands(model.uv_triangles, len(uvs))
    region = np.zeros(len(uvs), np.intp)
    region[model.uv_triangles.ravel()] = model.regions[model.triangles.ravel()]
    boxes = []
    for number in np.unique(island):
        members = np.flatnonzero(island == number)
        low = uvs[members].min(axis=0)
        boxes.append((members, uvs[members] - low))
    boxes.sort(key=lambda box: -np.prod(np.ptp(box[1], axis=0)))
    out = np.zeros_like(uvs)
    members, place = boxes[0]
    width, height = np.ptp(place, axis=0)
    if height > width:  # lies on its side in MakeHuman's layout, the chin to the right
        place = np.stack([place[:, 1], width - place[:, 0]], axis=1)
        width, height = height, width
    alone = len(boxes) == 1
    scale = (1 - 2 * _GAP) / max(width, height if alone else height / _TALLEST)
    out[members] = place * scale + [_GAP, 1 - _GAP - height * scale]
    names = model.region_names
    others = []
    for members, place in boxes[1:]:
        enlarged = _ENLARGED.get(names[int(np.bincount(region[members]).argmax())], 1.0)
        others.append((members, place * enlarged * scale))
    room = 1 - 3 * _GAP - height * scale
    shrink, places = 1.0, _in_rows([np.ptp(p, axis=0) for _, p in others])
    while others and (places is None or _height(places, others, shrink) > room):
        shrink *= 0.9
        places = _in_rows([np.ptp(p, axis=0) * shrink for _, p in others])
    for (members, place), corner in zip(others, places or [], strict=True):
        out[members] = place * shrink + corner
    return np.asarray(out, np.float32)


def _in_rows(sizes: list[NDArray[np.float64]]) -> list[NDArray[np.float64]] | None:
    """Lower left corners of boxes set side by side, in rows from the bottom; None if too wide."""
    corners: list[NDArray[np.float64]] = [np.zeros(2)] * len(sizes)
    x, y, tallest = _GAP, _GAP, 0.0
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k][1]):
        width, height = sizes[k]
        if width > 1 - 2 * _GAP:
            return None
        if x + width > 1 - _GAP:
            x, y, tallest = _GAP, y + tallest + _GAP, 0.0
        corners[k] = np.array([x, y])
        x, tallest = x + width + _GAP, max(tallest, height)
    return corners


def _height(
    corners: list[NDArray[np.float64]],
    boxes: list[tuple[NDArray[np.intp], NDArray[np.float64]]],
    shrink: float,
) -> float:
    tops = [c[1] + np.ptp(p, axis=0)[1] * shrink for c, (_, p) in zip(corners, boxes, strict=True)]
    return float(max(tops, default=0.0))


def _islands(triangles: NDArray[np.int32], n: int) -> NDArray[np.intp]:
    """(n,) the lowest vertex of the connected piece that a vertex belongs to."""
    label = np.arange(n)
    while True:
        lowest = label[triangles].min(axis=1)
        new = label.copy()
        for k in range(3):
            np.minimum.at(new, triangles[:, k], lowest)
        new = new[new]
        if (new == label).all():
            return label
        label = new


def _region(model: MorphableModel, name: str) -> int:
    return model.region_names.index(name) if name in model.region_names else -1
