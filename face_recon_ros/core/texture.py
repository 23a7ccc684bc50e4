"""A person's own colours over a track: what images showed of them, the face model's elsewhere.

Images are compared with the model by `core.texture_sampler`; their ratios are averaged over a
track and multiplied onto the model's colours of any frame.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.arrays import Float32
from face_recon_ros.core.crop import Picture
from face_recon_ros.core.crop_pose import CROP_FOCAL
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.texture_sampler import Comparison, TextureSampler

_MINORITY = 0.3  # a share of views that counts for nothing
_FORGETTING = 0.98  # a frame, of the weight of what was seen before
_EVERYWHERE = slice(None)
_FULL_RESOLUTION = 1.5  # pixels a millimetre at which an image is as sharp as need be


class View(NamedTuple):
    """One look at a face.

    Attributes:
        rgb: (H, W, 3) uint8.
        pixels: (V, 2) where the vertices lie in it.
        comparison: with the model's colours, of the same vertices.
        model_colours: (V, 3) sRGB-encoded, as lit.
        px_per_mm: resolution on the face.
        pose: crop_from_face, in the nominal crop camera.
        quality: by which views of one pose compete.
        calm: (V,) in [0, 1], how little the expression moves the vertices; None: not told.
    """

    rgb: NDArray[np.uint8]
    pixels: NDArray[np.floating]
    comparison: Comparison
    model_colours: Float32
    px_per_mm: float
    pose: Rigid
    quality: float
    calm: Float32 | None = None


def look_at(
    sampler: TextureSampler,
    picture: Picture,
    camera: NormalisedCamera,
    crop_from_face: Rigid,
    vertices: Float32,
    normals: Float32,
    model_colours: Float32,
    shown: Float32 | None = None,
) -> View:
    """How a picture shows a face.

    Args:
        sampler: of the mesh.
        picture: the image, or the crop.
        camera: of the face's crop.
        crop_from_face: pose in the nominal crop camera.
        vertices: (V, 3) metres, face frame.
        normals: (V, 3) unit vectors, crop camera frame.
        model_colours: (V, 3) sRGB-encoded, as lit.
        shown: (V,) in [0, 1], how far nothing hides the vertices; None: nothing does.
    """
    points, pixels, px_per_mm = seen_at(picture, camera, crop_from_face, vertices)
    compared = sampler.compare(picture.rgb, pixels, points, normals, model_colours, shown)
    return View(picture.rgb, pixels, compared, model_colours, px_per_mm, crop_from_face, px_per_mm)


class SeenColours:
    """What several views have shown of N places of a face, against the model's colours.

    Attributes:
        ratio: (N, 3) mean of the log ratios.
        field: (10, 3) mean of the views' smooth fields.
        empty: whether there was no view.
        grey: whether no view had hues.
    """

    def __init__(self, n: int, forgetting: float = 1.0) -> None:
        """Begins with nothing seen.

        Args:
            n: how many places.
            forgetting: share of their weight that earlier views keep at each new one.
        """
        self.ratio = np.zeros((n, 3), np.float32)
        self.field = np.zeros((10, 3), np.float32)
        self.empty, self.grey = True, True
        self._forgetting = forgetting
        self._weight = np.zeros(n, np.float32)
        self._agreed = np.zeros(n, np.float32)
        self._visible = np.zeros(n, np.float32)
        self._best = np.zeros(n, np.float32)
        self._field_weight = 0.0

    def add(
        self,
        comparison: Comparison,
        gain: Float32,
        sharpness: float,
        field_gain: float,
        some: NDArray[np.intp] | slice = _EVERYWHERE,
    ) -> None:
        """Takes in a view.

        Args:
            comparison: of M of the places.
            gain: (M,) weight of its ratios in their mean.
            sharpness: of the view.
            field_gain: weight of its field.
            some: which M places; all.
        """
        if self._forgetting < 1.0:
            for sums in (self._weight, self._visible, self._agreed):
                sums *= self._forgetting
        visible, agreed = comparison.visible, comparison.weight
        self._weight[some] += gain
        share = (gain / np.maximum(self._weight[some], 1e-12))[:, None]
        self.ratio[some] += share * (comparison.ratio - self.ratio[some])
        self._visible[some] += visible * visible * sharpness**2
        self._agreed[some] += visible * agreed * sharpness**2
        self._best[some] = np.maximum(self._best[some], visible)
        self._field_weight = self._field_weight * self._forgetting + field_gain
        step = field_gain / self._field_weight
        self.field += step * (comparison.field - self.field).astype(np.float32)
        self.empty, self.grey = False, self.grey and comparison.grey

    def believed(self) -> Float32:
        """(N,) in [0, 1]: how far the mean ratio is believed; hair agrees now and then."""
        share = self._agreed / np.maximum(self._visible, 1e-12)
        low, high = _MINORITY, 1 - _MINORITY
        return np.asarray(self._best * np.clip((share - low) / (high - low), 0, 1), np.float32)


class Appearance:
    """What a track has shown of a person's colours. The sharpest and most frontal views win."""

    def __init__(self, sampler: TextureSampler) -> None:
        """Begins with nothing seen."""
        self._sampler = sampler
        self._seen = SeenColours(len(sampler.sampled), _FORGETTING)
        self._factor: Float32 | None = None  # (V, 3) of the model's colours, until the next look

    @property
    def coverage(self) -> float:
        """Share of the face's vertices that were seen, in [0, 1]."""
        seen = self._seen.believed()
        return float(seen @ self._sampler.sampled / max(self._sampler.sampled.sum(), 1))

    def add(self, comparison: Comparison, px_per_mm: float) -> None:
        """Takes in a frame.

        Args:
            comparison: with the model's colours under this frame's light.
            px_per_mm: resolution of the image on the face.
        """
        if comparison.empty:
            return
        sharpness = min(px_per_mm / _FULL_RESOLUTION, 1.0)
        gain = (comparison.weight * sharpness) ** 2
        self._seen.add(comparison, gain, sharpness, sharpness**2)
        self._factor = None

    def colours(self, model_colours: Float32) -> Float32:
        """(V, 3) a frame's model colours (V, 3), sRGB-encoded, with the person's own over them."""
        seen = self._seen
        if seen.empty:
            return model_colours
        if self._factor is None:
            smooth = self._sampler.extended(seen.field)
            self._factor = np.exp(smooth + seen.believed()[:, None] * (seen.ratio - smooth))
        colours = np.clip(model_colours * self._factor, 0, 1)
        return np.asarray(without_hues(colours) if seen.grey else colours, np.float32)


def without_hues(colours: Float32) -> Float32:
    """(N, 3) colours of a person whom only grey images show, without the hues of the model."""
    return np.repeat(colours.mean(axis=1, keepdims=True), 3, axis=1)


def seen_at(
    picture: Picture, camera: NormalisedCamera, crop_from_face: Rigid, vertices: Float32
) -> tuple[Float32, Float32, float]:
    """Where a picture shows vertices (V, 3) of the face frame.

    Returns:
        (V, 3) points in the camera, metres; (V, 2) pixels of the picture; pixels a millimetre on
        the face.
    """
    crop = picture.place_of(camera.crop)
    px_per_mm = 1e-3 * CROP_FOCAL * crop.side_px / crop_from_face.translation[2]
    pose = camera.from_crop_pose(crop_from_face)
    # A row for each coordinate: numpy works along rows several times faster than down columns.
    points = pose.rotation.astype(np.float32) @ vertices.T
    points += pose.translation.astype(np.float32)[:, None]
    linear = crop.side_px * crop.image_from_crop_rotation
    if camera.matrix is None:
        pixels = camera.project(points.T) @ linear.T + crop.centre_px
        return points.T, pixels.astype(np.float32), float(px_per_mm)
    matrix = camera.matrix.astype(np.float32)
    seen = matrix @ points
    pixels = linear.astype(np.float32) @ (seen[:2] / seen[2])
    pixels += crop.centre_px.astype(np.float32)[:, None]
    return points.T, pixels.T, float(px_per_mm)
