#!/usr/bin/env python3
"""Skins for synthetic people from photographs: each person's, as the face model wears it.

The largest face of each photograph is reconstructed; what it shows is written into the head's part
of MakeHuman's texture atlas (PERSON.jpg), with the coefficients that it was found at (PERSON.npz).
Where the photograph shows no skin the face model's colours go on, in the photograph's hue.

    scripts/portrait_skins.py PHOTOGRAPHS --out SKINS
    face-recon train --points --config config/train_points.yaml --set portrait_skins=SKINS
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import MorphableModel, VertexNormals, load_morphable_model
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.types import Face, Image
from face_recon_ros.io.folders import make_folder
from face_recon_ros.io.images import read_image
from face_recon_ros.training.photographs import list_photographs
from face_recon_ros.training.synthesis.skins import ATLAS_SIZE, atlas_pixels

#: Faces that are narrower or less surely faces are left out.
_LEAST_PX, _LEAST_PRESENCE = 68, 0.98
_REGIONS = ("face", "neck", "lip_upper", "lip_lower", "brow", "eyelid", "nostril")
#: Cosine to the viewing ray from which skin is believed, and by how much more wholly.
_GRAZING, _SURE = 0.3, 0.35
_BEHIND_M = 0.006  # the nearest surface, and a vertex is hidden
_SMOOTH_PX, _LIGHT_PX = 25.0, 35.0  # of colours that go on, and of the light
_EVENED = 0.6  # exponent of the light that is taken out

Map = NDArray[np.float32]


class SkinMaker:
    """Lays photographs into the atlas of one face model."""

    def __init__(self, model: MorphableModel) -> None:
        """Finds the atlas's texels; `model`: fine level, whole head."""
        self._model = model
        width, height = ATLAS_SIZE
        ones = np.ones(len(model.uvs), np.float32)
        places = atlas_pixels(model.uvs)
        self._texels = rasterize(places, ones, model.uv_triangles, height, width)
        self._drawn = self._texels.triangle >= 0
        names = [i for i, name in enumerate(model.region_names) if name in _REGIONS]
        self._skin = np.isin(model.regions, names)
        self._normals = VertexNormals(model.triangles, model.n_vertices)

    def __call__(self, rgb: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 atlas of a face in its picture."""
        pixels, seen = self._seen(rgb, face)
        weight = self._spread(seen[:, None])[..., 0]
        column, row = (np.ascontiguousarray(c) for c in np.moveaxis(self._spread(pixels), 2, 0))
        shown = cv2.remap(rgb.astype(np.float32) / 255, column, row, cv2.INTER_CUBIC)
        surely = (weight > 0.8) & self._drawn
        own = self._spread(self._model.albedo(face.coefficients.albedo[0]))
        own = np.clip(own * np.median(shown[surely], 0) / np.median(own[surely], 0), 0, 1)
        ratio = np.log(np.maximum(shown, 0.02) / np.maximum(own, 0.02))
        around = _mean_around(ratio, weight, _SMOOTH_PX)
        skin = weight[..., None] * shown + (1 - weight[..., None]) * own * np.exp(around)
        light = _mean_around(skin, self._drawn.astype(np.float32), _LIGHT_PX)
        light = np.maximum(light.mean(axis=2, keepdims=True), 0.05)
        skin = np.clip(skin * (light[surely].mean() / light) ** _EVENED, 0, 1)
        skin[~self._drawn] = skin[surely].mean(axis=0)
        return np.asarray(np.rint(255 * skin), np.uint8)

    def _spread(self, values: NDArray[np.floating]) -> Map:
        """(H, W, C) of values (V, C) at the vertices, at the texels."""
        return interpolate(self._texels, self._model.triangles, values)

    def _seen(self, rgb: NDArray[np.uint8], face: Face) -> tuple[Map, Map]:
        """(V, 2) where vertices lie in the picture, and (V,) how far their skin is seen there."""
        # not TextureSampler's: that one stops at the jaw, and its z-buffer has 40 coarse cells
        height, width = rgb.shape[:2]
        c, pose = face.coefficients, face.camera_from_face
        vertices = self._model.vertices(c.identity[0], c.expression[0])
        points = pose.apply(vertices)
        pixels = PinholeCamera.from_fov(width, height).project(points).astype(np.float32)
        normals = self._normals(vertices) @ pose.rotation.T.astype(np.float32)
        facing = -(normals * points).sum(axis=1) / np.linalg.norm(points, axis=1)
        front = rasterize(pixels, points[:, 2], self._model.triangles, height, width).depth
        x, y = np.clip(np.rint(pixels), 0, [width - 1, height - 1]).astype(int).T
        open_to = points[:, 2] < front[y, x] + _BEHIND_M
        weight = np.clip((facing - _GRAZING) / _SURE, 0, 1) * open_to * self._skin
        return pixels, weight.astype(np.float32)


def _mean_around(values: Map, weight: Map, reach_px: float) -> Map:
    """(H, W, C) weighted means around each texel; towards zero far from all weight."""
    total = cv2.GaussianBlur(values * weight[..., None], (0, 0), reach_px)
    return np.asarray(total / (cv2.GaussianBlur(weight, (0, 0), reach_px)[..., None] + 0.05))


def main() -> None:
    """Writes the skins."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder; nothing is annotated")
    parser.add_argument("--out", type=Path, required=True, help="folder of the skins")
    arguments = parser.parse_args()
    make_folder(arguments.out)
    pipeline = FacePipeline.from_config()
    maker, made = SkinMaker(load_morphable_model(find_model(FACE_MODEL))), 0
    for path in tqdm(list_photographs(arguments.photographs), "photographs", disable=None):
        try:
            rgb = read_image(path)
        except FaceReconError as fault:
            tqdm.write(f"left out: {fault}")
            continue
        faces = pipeline.process_still(Image(rgb, 0.0)).faces
        face = max(faces, key=lambda f: f.box[2] - f.box[0], default=None)
        if face is None or face.box[2] - face.box[0] < _LEAST_PX:
            continue
        if face.presence is not None and face.presence < _LEAST_PRESENCE:
            continue
        bgr = maker(rgb, face)[..., ::-1]
        double = cv2.resize(bgr, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(arguments.out / f"{path.stem}.jpg"), double)
        c = face.coefficients
        found = arguments.out / f"{path.stem}.npz"
        np.savez(found, identity=c.identity[0], expression=c.expression[0])
        made += 1
    if not made:
        raise SystemExit(
            f"expected faces of {_LEAST_PX} pixels in {arguments.photographs}, got none"
        )
    print(f"{made} skins in {arguments.out}")


if __name__ == "__main__":
    try:
        main()
    except FaceReconError as fault:
        raise SystemExit(f"portrait_skins: {fault}") from None
