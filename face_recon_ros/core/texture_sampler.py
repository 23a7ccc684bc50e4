"""A person's own colours: sampled from images where skin is seen, the face model's elsewhere.

What is kept is not colour but the logarithm of how much brighter the image is than the face model
under the estimated light. That ratio has the light divided out, as far as the fit knows it; it is
averaged over a track, extended smoothly to where nothing was seen, and multiplied onto the model's
colours of any frame. So there is no seam, and the shading goes with the head.

A sample counts where the surface faces the camera, nothing of the face lies before it (z-buffer),
no dense point is in doubt (`core.occlusion`), and the ratio is not far from a smooth field over
the face, nor are those around it: hair, hands and background are. Near the edge of the face, on
the forehead and on plain skin the field is held tightly, at brows, eyes, lips and beard loosely,
because there people differ from the model; skin may shine. Where a dark line crosses the bridge of
the nose the person wears glasses (`core.glasses`), and the field is held tightly around the eyes,
too.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.arrays import Float32
from face_recon_ros.core.colour_ratios import (
    agreement,
    combine,
    extremes,
    log_ratio,
    median,
    sample,
)
from face_recon_ros.core.glasses import Erosion, GlassesOnBridge
from face_recon_ros.core.morphable_model import FACE, MorphableModel

_LEAST_FACING, _FULL_FACING = 0.25, 0.6  # cosine to the viewing ray: no trust, full trust
_CELLS = 40  # of the z-buffer across the face
_OCCLUDED_M = 0.010  # behind the foremost point of its cell by more, a vertex is hidden
_TOLERANCE_RIM, _TOLERANCE_SKIN = 0.15, 0.3  # of log ratios
_TOLERANCE_FEATURE = (2.0, 1.2)  # darker, brighter: beards and brows
_TOLERANCE_HUE = (0.6, 2.0)  # between the log ratios of two channels: of skin, of eyes
_TOLERANCE_FOREHEAD = (0.2, 0.3, 0.6)  # all three: strands of hair lie there
_STRANGE_HUE = 1.0  # likewise, over the model's: beside skin, that is none
_RIM_M, _FEATURE_M = 0.03, 0.010  # metres over which tolerances change
_FEATURES = ("brow", "eyelid", "eyeball", "lip_upper", "lip_lower", "nostril")
_OWN_COLOUR = ("eyeball", "teeth", "tongue", "mouth_interior")
_HAIRLINE_M = 0.04  # above this, face frame, the model may have painted hair ...
_HAIR, _BARE = 0.85, 0.97  # ... which is darker than the median of the face by these shares
_BEARD_BELOW_M = -0.052  # below this, face frame, a beard may grow
_CELL_M = 0.006  # over the face, in which samples are asked whether they agree
_DISPUTED, _SETTLED = 0.55, 0.8  # shares of agreement around a sample: not believed, believed
_SURE = 0.95  # ... on the forehead
_FOREHEAD_M = 0.024  # above this, face frame, there are no brows
_RIDGE = 1e-2
_FEWEST, _SAMPLES = 30, 300  # samples that a fit needs, and takes
_TIGHTER = (0.8, 0.35)  # tolerances of the smooth fit's rounds
_REACH_M = 0.03  # outside the face the smooth field fades to its mean over this distance
_LARGEST = 1.2  # of log ratios
_GREY = 0.02  # between channels: of images without hues
_MINORITY = 0.3  # a share of samples too small to go by
_FRAMED_M = (-0.05, 0.03)  # heights between which glasses lie, face frame
_LASHES_M = 0.003  # nearer to eyes and brows things are dark by nature
_TOLERANCE_FRAMED = (0.26, 0.34, 0.5)


class TextureSampler:
    """Compares images with the face model, vertex by vertex of one mesh."""

    def __init__(self, model: MorphableModel) -> None:
        """Prepares what depends on the mesh only.

        Args:
            model: the mesh, at any level, of any part.
        """
        mean = model.mean_shape
        members = model.subsets[FACE]
        rim, features = _rim(model), _of_regions(model, _FEATURES)
        inwards = np.clip(_distance(mean, mean[rim]) / _RIM_M, 0, 1)
        to_feature = np.full(len(mean), np.inf)
        to_feature[members] = _distance(mean[members], mean[features & members])
        near_feature = np.clip(1 - to_feature / _FEATURE_M, 0, 1)
        beard = np.clip((_BEARD_BELOW_M - mean[:, 2]) / _FEATURE_M, 0, 1)
        loose = np.maximum(near_feature, beard * inwards)
        skin = _TOLERANCE_RIM + (_TOLERANCE_SKIN - _TOLERANCE_RIM) * inwards
        darker, brighter = (skin + (most - skin) * loose * inwards for most in _TOLERANCE_FEATURE)
        shine = brighter * (1 + inwards**2)
        hue = np.where(_of_regions(model, _OWN_COLOUR), _TOLERANCE_HUE[1], _TOLERANCE_HUE[0])
        #: (V, 3) log ratio: how much darker and brighter than the smooth field a sample may be,
        #: and of how much another hue.
        self.tolerance = np.stack([darker, shine, hue], 1).astype(np.float32)
        above = np.clip((mean[:, 2:] - _FOREHEAD_M) / _FEATURE_M, 0, 1)
        narrow = np.minimum(self.tolerance, _TOLERANCE_FOREHEAD)
        self.tolerance += (above * (narrow - self.tolerance)).astype(np.float32)
        #: (V, 3) likewise, of people with glasses: frames and glare lie around the eyes.
        self.tolerance_glasses = self.tolerance.copy()
        framed = (mean[:, 2] > _FRAMED_M[0]) & (mean[:, 2] < _FRAMED_M[1])
        framed &= to_feature > _LASHES_M
        self.tolerance_glasses[framed] = np.minimum(self.tolerance[framed], _TOLERANCE_FRAMED)
        self._bridge = GlassesOnBridge(model)
        self._erosion = Erosion(model, framed)
        #: (V,) whether a vertex takes colours of the image at all.
        self.sampled = (members * _bare(model, members)).astype(np.float32)
        self._core = (self.sampled * (inwards >= 1) * (1 - near_feature)).astype(np.float32)
        across = (mean[:, 1:] - mean[:, 1:].min(axis=0)) / _CELL_M
        whole = np.floor(across).astype(np.intp)
        part, width = across - whole, int(whole[:, 0].max()) + 2
        self._grid = (int(whole[:, 1].max()) + 2, width)
        cell = whole[:, 1] * width + whole[:, 0]
        #: (4, V) the cells around a vertex, and its bilinear weights in them.
        self._cells = np.stack([cell, cell + 1, cell + width, cell + width + 1])
        left, below = (1 - part).T
        right, above_it = part.T
        shares = [left * below, right * below, left * above_it, right * above_it]
        self._shares = np.stack(shares).astype(np.float32)
        self._cell = self._cells[np.argmax(self._shares, axis=0), np.arange(len(mean))]
        self._brows = max(0, int(np.rint((_FOREHEAD_M - mean[:, 2].min()) / _CELL_M)))
        #: (V, 10) values of the smooth field's basis at the vertices.
        self.basis = _polynomials(mean, mean[members])
        outside = np.where(members, 0.0, _distance(mean, mean[rim]))
        fade = np.exp(-outside / _REACH_M).astype(np.float32)[:, None]
        #: (V, 10) likewise, of the field that fades to its mean; none of it on eyes and teeth.
        self._faded_basis = fade * self.basis
        self._faded_basis[:, 0] += 1 - fade[:, 0]
        self._faded_basis[_of_regions(model, _OWN_COLOUR)] = 0.0

    def compare(
        self,
        rgb: NDArray[np.uint8],
        pixels: NDArray[np.floating],
        points: Float32,
        normals: Float32,
        model_colours: Float32,
        shown: Float32 | None = None,
    ) -> Comparison:
        """Compares an image with the model's colours.

        Args:
            rgb: (H, W, 3) uint8.
            pixels: (V, 2) where the vertices lie in it.
            points: (V, 3) metres, the camera that `pixels` are of.
            normals: (V, 3) unit vectors, same frame.
            model_colours: (V, 3) sRGB-encoded, as lit.
            shown: (V,) in [0, 1], how far nothing hides the vertices; None: nothing does.

        Returns:
            Log ratios with weights, and their smooth field; a comparison without any weight where
            too little of the face is seen.
        """
        visible = self._seen(rgb, pixels, points, normals)
        weight = visible if shown is None else visible * shown
        colours = sample(rgb, pixels)
        ratio = log_ratio(colours, model_colours)
        core = weight * self._core
        if np.count_nonzero(core > 0.1) < _FEWEST:
            nothing = np.zeros_like(weight)
            return Comparison(np.zeros_like(ratio), nothing, np.zeros((10, 3)), nothing)
        field = self._fit(ratio, core)
        glasses = self._bridge(rgb, pixels, model_colours) if visible.any() else 0.0
        smooth = combine(self.basis, field)
        alike = agreement(ratio, smooth, self.tolerance)
        agreed = weight * alike * self._consensus(weight * alike, visible)
        if glasses:
            bare = self._erosion(agreement(ratio, smooth, self.tolerance_glasses))
            agreed *= 1 + np.float32(glasses) * (bare - 1)
        most, least = extremes(colours)
        return Comparison(
            ratio, agreed, field, weight, glasses, bool((most - least).max() < _GREY)
        )

    def extended(self, field: NDArray[np.floating]) -> Float32:
        """(V, 3) a smooth field (10, 3) at the vertices, fading to its mean outside the face.

        It is that of skin: eyes and teeth that were not seen keep the model's colours.
        """
        values = combine(self._faded_basis, field)
        return np.clip(values, -_LARGEST, _LARGEST, out=values)

    def _seen(
        self,
        rgb: NDArray[np.uint8],
        pixels: NDArray[np.floating],
        points: Float32,
        normals: Float32,
    ) -> Float32:
        """(V,) in [0, 1]: how well the image shows a vertex."""
        height, width = rgb.shape[:2]
        length = np.sqrt(np.einsum("xv,xv->v", points.T, points.T))
        facing = np.einsum("xv,xv->v", normals.T, points.T) / -np.maximum(length, 1e-9)
        trust = np.clip((facing - _LEAST_FACING) / (_FULL_FACING - _LEAST_FACING), 0, 1)
        x, y = pixels.T
        inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1) & (points[:, 2] > 0)
        return np.asarray(trust * self.sampled * inside * _foremost(pixels, points), np.float32)

    def _consensus(self, agreed: Float32, weight: Float32) -> Float32:
        """(V,) in [0, 1]: whether the surroundings agree, too: between strands they do not.

        Hair hangs from above: what is higher on the forehead than disputed skin is disputed.
        """
        cells = self._grid[0] * self._grid[1]
        known, asked = (
            cv2.blur(np.bincount(self._cell, w, cells).reshape(self._grid), (3, 3))
            for w in (agreed, weight)
        )
        share = np.where(asked > 0, known / np.maximum(asked, 1e-6), 1)
        level = np.clip((share - _DISPUTED) / (_SETTLED - _DISPUTED), 0, 1)
        forehead = np.clip((share[self._brows :] - _DISPUTED) / (_SURE - _DISPUTED), 0, 1)
        level[self._brows :] = np.minimum.accumulate(forehead, axis=0)
        around = np.take(level.astype(np.float32), self._cells)
        return np.asarray(np.einsum("kv,kv->v", around, self._shares), np.float32)

    def _fit(self, ratio: Float32, weight: Float32) -> Float32:
        """(10, 3) least squares of the smooth field, outliers left out."""
        used = np.flatnonzero(weight > 0.1)
        used = used[:: max(1, len(used) // _SAMPLES)]
        basis, values = self.basis[used], ratio[used]
        most, least = extremes(values)
        skin, start = most - least < _STRANGE_HUE, weight[used]
        if skin.mean() > _MINORITY:  # else it is the light that is strange
            start = start * skin
        field = np.zeros((10, 3), np.float32)
        field[0] = median(values[start > 0])
        ridge = np.diag(np.array([0.0] + 9 * [_RIDGE * start.sum()], np.float32) + 1e-6)
        both = np.hstack([basis, values])
        for tolerance in _TIGHTER:
            w = start * agreement(values, combine(basis, field), tolerance)
            normal = (basis * w[:, None]).T @ both
            field = np.linalg.solve(normal[:, :10] + ridge, normal[:, 10:])
        return field


@dataclass(frozen=True)
class Comparison:
    """An image against the model's colours.

    Attributes:
        ratio: (V, 3) log of image over model.
        weight: (V,) in [0, 1], how far the ratio is believed.
        field: (10, 3) coefficients of the smooth field through it.
        visible: (V,) in [0, 1], how well the image shows a vertex, whatever its ratio.
        glasses: in [0, 1], how sure it is that the person wears some.
        grey: whether the image has no hues.
    """

    ratio: Float32
    weight: Float32
    field: NDArray[np.floating]
    visible: Float32
    glasses: float = 0.0
    grey: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing of the face was seen."""
        return not self.weight.any()


def _foremost(pixels: NDArray[np.floating], points: Float32) -> NDArray[np.bool_]:
    """(V,) whether no other vertex lies before one, in a z-buffer of coarse cells."""
    x, y = pixels.astype(np.float32).T
    left, top = x.min(), y.min()
    side = max(float(x.max() - left), float(y.max() - top), 1e-6)
    if not np.isfinite(side):
        return np.zeros(len(pixels), bool)
    column, row = (
        ((v - low) * (_CELLS / side)).astype(np.intp) for v, low in ((x, left), (y, top))
    )
    index, depth = row * (_CELLS + 1) + column, np.ascontiguousarray(points[:, 2])
    nearest = np.full((_CELLS + 1) ** 2, np.inf, np.float32)
    np.minimum.at(nearest, index, depth)
    return np.asarray(depth < nearest[index] + _OCCLUDED_M)


def _polynomials(points: Float32, within: Float32) -> Float32:
    """(N, 10) quadratic polynomials of points (N, 3), scaled and held to the box of `within`."""
    low, high = within.min(axis=0), within.max(axis=0)
    x, y, z = np.clip((points - (low + high) / 2) / np.maximum((high - low) / 2, 1e-9), -1, 1).T
    terms = [np.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - 1, y * y - 1, z * z - 1]
    return np.ascontiguousarray(np.stack(terms, axis=1), np.float32)


def _rim(model: MorphableModel) -> NDArray[np.intp]:
    """Vertices of the outer edge of the face, not those around eyes and mouth."""
    triangles = model.triangles[model.subsets[FACE][model.triangles].all(axis=1)]
    sides = np.sort(np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]))
    edges, count = np.unique(sides, axis=0, return_counts=True)
    border = np.unique(edges[count == 1])
    if len(border) == 0:
        return border.astype(np.intp)
    low, high = model.mean_shape[border].min(axis=0), model.mean_shape[border].max(axis=0)
    across = (model.mean_shape[border] - (low + high) / 2) / np.maximum((high - low) / 2, 1e-9)
    return np.asarray(border[np.linalg.norm(across[:, 1:], axis=1) > 0.75], np.intp)


def _bare(model: MorphableModel, members: NDArray[np.bool_]) -> Float32:
    """(V,) in [0, 1]: 0 above the forehead where the model paints hair: no skin to be compared."""
    if not members.any():
        return np.zeros(len(members), np.float32)
    brightness = model.mean_albedo.mean(axis=1)
    relative = brightness / max(float(np.median(brightness[members])), 1e-6)
    bare = np.clip((relative - _HAIR) / (_BARE - _HAIR), 0, 1)
    return np.where(model.mean_shape[:, 2] > _HAIRLINE_M, bare, 1.0).astype(np.float32)


def _of_regions(model: MorphableModel, names: tuple[str, ...]) -> NDArray[np.bool_]:
    numbers = [i for i, name in enumerate(model.region_names) if name in names]
    return np.isin(model.regions, numbers)


def _distance(points: Float32, to: Float32) -> NDArray[np.float64]:
    """(N,) metres to the nearest of (M, 3) points; infinite where there is none."""
    square = np.full(len(points), np.inf)
    for start in range(0, len(to), 256):
        some = to[start : start + 256]
        squares = (some**2).sum(axis=1) - 2 * points @ some.T
        np.minimum(square, squares.min(axis=1) + (points**2).sum(axis=1), out=square)
    return np.asarray(np.sqrt(np.maximum(square, 0)))
