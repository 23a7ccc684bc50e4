"""Photographic skin: textures of MakeHuman's own heads, on the mesh the face model comes from.

A texture is split in two: its colour at each vertex, which takes the place of the face model's
albedo there (and varies with it), and what lies between vertices, a factor map that the head is
wrapped in as in `complexion`. Textures are optional: without them skin is the face model's.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import DataError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.io.images import read_image
from face_recon_ros.training.rasterizer import interpolate, rasterize
from face_recon_ros.training.synthesis.complexion import Paint

#: Regions whose colour comes from a texture; eyes, teeth and the mouth have textures of their own.
_TEXTURED = ("face", "ear", "neck", "lip_upper", "lip_lower", "brow", "eyelid", "nostril")
#: A file holds this part of MakeHuman's 2048 px atlas: the column and row where it begins.
_ATLAS_PX, _OFFSET_PX = 2048, (1270, 330)
#: The textures are shrunk by this; a crop shows no more.
_SHRINK = 2
#: Width and height of the shrunk part, pixels.
ATLAS_SIZE = (778 // _SHRINK, 1460 // _SHRINK)
#: How far a detail may darken or brighten.
_DETAIL = (0.3, 2.5)
#: Skins with hair and make-up painted on.
_PAINTED = "special"


class Skins:
    """Textures of one folder, for one face model.

    Attributes:
        files: that hold them.
        details: what lies between the vertices of each skin.
    """

    def __init__(self, folder: str | Path, model: MorphableModel, fine: MorphableModel) -> None:
        """Reads all textures.

        Args:
            folder: MakeHuman's system assets, or their `skins/textures`.
            model: face model at level `coarse`, whole head.
            fine: the same at level `fine`, which knows texture coordinates.

        Raises:
            DataError: the folder has no textures.
        """
        root = Path(folder)
        inner = root / "skins" / "textures"
        files = sorted((inner if inner.is_dir() else root).glob("*.jpg"))
        files = [f for f in files if _PAINTED not in f.name]
        if not files:
            raise DataError(
                f"skin textures (*.jpg) in {root} or {inner}",
                "none",
                "give the folder of MakeHuman's system assets, or leave the option out",
            )
        regions = [i for i, name in enumerate(model.region_names) if name in _TEXTURED]
        textured = np.isin(model.regions, regions)
        uvs, seam = (a[: model.n_vertices] for a in atlas_coordinates(fine))
        places = atlas_pixels(uvs)
        self._mask = textured
        coordinates = np.column_stack([places, textured & ~seam]).astype(np.float32)
        whole = textured[model.triangles].all(1) & ~seam[model.triangles].any(1)
        triangles = model.triangles[whole]
        self._mean = np.maximum(model.mean_albedo, 0.02)
        self.files = files
        self._skins = [self._read(f, places, triangles, coordinates) for f in files]
        self.details = [detail for _, detail in self._skins]

    def __len__(self) -> int:
        return len(self._skins)

    def _read(
        self,
        path: Path,
        places: NDArray[np.float32],
        triangles: NDArray[np.int32],
        coordinates: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], Paint]:
        rgb = read_image(path)
        size = rgb.shape[1] // _SHRINK, rgb.shape[0] // _SHRINK
        texture = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        texture = np.maximum(texture.astype(np.float32) / 255, 0.01)
        smooth = cv2.GaussianBlur(texture, (0, 0), 1.0)
        x, y = np.ascontiguousarray(places.T)[..., None]  # what is flat is a row in OpenCV 5
        colours = cv2.remap(smooth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        depth = np.ones(len(places), np.float32)
        fragments = rasterize(places, depth, triangles, *size[::-1])
        between = interpolate(fragments, triangles, np.ascontiguousarray(colours))
        known = fragments.triangle >= 0
        factor = np.ones_like(texture)
        factor[known] = np.clip(texture[known] / np.maximum(between[known], 0.01), *_DETAIL)
        return colours, Paint(factor, coordinates)

    def draw(
        self, albedo: NDArray[np.float32], random: np.random.Generator
    ) -> tuple[NDArray[np.float32], Paint]:
        """Some person's skin.

        Args:
            albedo: (V, 3) the face model's, sRGB-encoded, whose deviation from the mean counts.
            random: source of randomness.

        Returns:
            (V, 3) albedo, and what lies between the vertices.
        """
        colours, detail = self.of(int(random.integers(len(self))))
        share = random.uniform(0.2, 1.0)
        varied = colours * np.clip(albedo / self._mean, 0.3, 3.0) ** share
        return self.worn(self.varied(varied, random), albedo), detail

    def of(self, index: int) -> tuple[NDArray[np.float32], Paint]:
        """(V, 3) colours of a skin at the vertices, and what lies between them."""
        return self._skins[index]

    @staticmethod
    def varied(colours: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
        """(V, 3) colours, brighter or darker and of a little other hue."""
        return colours * np.exp(random.normal(0, 0.12) + random.normal(0, 0.04, 3))

    def worn(
        self, colours: NDArray[np.float32], albedo: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(V, 3) colours where there is skin, (V, 3) albedo elsewhere."""
        skin = np.where(self._mask[:, None], np.clip(colours, 0.01, 1), albedo)
        return skin.astype(np.float32)


def atlas_pixels(uvs: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 2) column and row of (N, 2) texture coordinates in the shrunk part of the atlas."""
    places = _ATLAS_PX * np.column_stack([uvs[:, 0], 1 - uvs[:, 1]])
    return ((places - np.array(_OFFSET_PX, np.float32)) / _SHRINK).astype(np.float32)


def atlas_coordinates(
    model: MorphableModel,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where the vertices of a mesh lie in its texture atlas.

    Args:
        model: at level `fine`, with `uvs` and `uv_triangles`.

    Returns:
        (V, 2) UV of each vertex, and (V,) which lie on a seam and have more than one.
    """
    n = model.n_vertices
    first, last = np.zeros((n, 2), np.float32), np.zeros((n, 2), np.float32)
    vertex, uv = model.triangles.ravel(), model.uvs[model.uv_triangles.ravel()]
    last[vertex] = uv
    first[vertex[::-1]] = uv[::-1]
    return first, np.abs(first - last).max(1) > 1e-3
