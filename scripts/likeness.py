#!/usr/bin/env python3
"""How near a re-rendered face comes to its photograph: with the person's colours and the model's.

    python scripts/likeness.py DIR --count 50

Mean absolute difference (colours from 0 to 1) over facial skin that faces the camera, of the
largest face in each picture; the sheet shows the first faces from 20 degrees aside. With --people
a few pictures are shown instead: each photograph, its mesh in the person's colours, and plain:

    python scripts/likeness.py --people ann.jpg bob.jpg cem.jpg dee.jpg --sheet people.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.morphable_model import FACIAL_SKIN, VertexNormals
from face_recon_ros.core.overlay import render_mesh
from face_recon_ros.core.pipeline import FacePipeline, PipelineConfig
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.reconstructor_config import IMAGE, MODEL, ReconstructorConfig
from face_recon_ros.core.types import Face, Image
from face_recon_ros.io.images import read_picture

_LEAST_FACING = 0.25  # cosine to the viewing ray
_SHEET = 24
_TILE = 260  # pixels


def difference(pipeline: FacePipeline, rgb: np.ndarray, face: Face) -> float:
    """Mean absolute difference of a face's rendering from its picture (H, W, 3)."""
    model = pipeline.reconstructor.model
    height, width = rgb.shape[:2]
    points = face.camera_from_face.apply(face.mesh.vertices)
    pixels = PinholeCamera.from_fov(width, height).project(points)
    normals = VertexNormals(model.triangles, model.n_vertices)(points.astype(np.float32))
    facing = -(normals * points).sum(axis=1) / np.linalg.norm(points, axis=1)
    seen = rasterize(pixels, points[:, 2], model.triangles, height, width)
    counted = (model.subsets[FACIAL_SKIN] & (facing > _LEAST_FACING)).astype(np.float32)[:, None]
    skin = interpolate(seen, model.triangles, counted)[..., 0] > 0.99
    drawn = interpolate(seen, model.triangles, face.mesh.colours)
    return float(np.abs(drawn - rgb / 255.0)[skin].mean())


def people_sheet(paths: list[Path]) -> np.ndarray:
    """A row a picture: the photograph, its mesh from two sides in its colours, and plain."""
    config = ReconstructorConfig(level="fine", colours=IMAGE)
    pipeline, rows = FacePipeline.from_config(PipelineConfig(reconstructor=config)), []
    for path in paths:
        rgb = read_picture(path).rgb
        faces = pipeline.process_still(Image(rgb, 0.0)).faces
        if not faces:
            raise SystemExit(f"expected a face in {path}, got none; choose another picture")
        face = max(faces, key=lambda f: f.box[2] - f.box[0])
        middle, side = (face.box[:2] + face.box[2:]) / 2, 1.9 * (face.box[2] - face.box[0])
        tiles = [Crop(middle.astype(np.float64), float(side), _TILE).extract(rgb)]
        for textured in (True, False):
            tiles += [render_mesh(face.mesh, _TILE, y, textured=textured) for y in (0, 30, -30)]
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def main() -> None:
    """Measures a folder of pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="portraits to measure")
    parser.add_argument("--people", type=Path, nargs="+", help="pictures to show, not to measure")
    parser.add_argument("--count", type=int, default=50, help="pictures, evenly over the folder")
    parser.add_argument("--sheet", type=Path, help="PNG of the first 24 faces from aside")
    options = parser.parse_args()
    if options.people and options.sheet:
        cv2.imwrite(str(options.sheet), people_sheet(options.people)[..., ::-1])
        return
    if options.folder is None:
        parser.error("give a folder, or --people with --sheet")
    paths = sorted(options.folder.glob("*.jpg"))
    paths = paths[:: max(1, len(paths) // options.count)][: options.count]
    pipelines = {
        colours: FacePipeline.from_config(
            PipelineConfig(reconstructor=ReconstructorConfig(level="fine", colours=colours))
        )
        for colours in (IMAGE, MODEL)
    }
    rows, sheet = [], []
    for path in paths:
        rgb = read_picture(path).rgb
        row = []
        for colours, pipeline in pipelines.items():
            faces = pipeline.process_still(Image(rgb, 0.0)).faces
            if not faces:
                break
            face = max(faces, key=lambda f: f.box[2] - f.box[0])
            row.append(difference(pipeline, rgb, face))
            if colours == IMAGE and len(sheet) < _SHEET:
                sheet.append(np.hstack([render_mesh(face.mesh, 150, yaw) for yaw in (20, -20)]))
        if len(row) == len(pipelines):
            rows.append(row)
    own, model = np.mean(rows, axis=0)
    print(f"{len(rows)} faces: own colours {own:.4f}, the model's {model:.4f}, {own / model:.2f}")
    if options.sheet and sheet:
        sheet += [np.zeros_like(sheet[0])] * (-len(sheet) % 6)
        lines = [np.hstack(sheet[i : i + 6]) for i in range(0, len(sheet), 6)]
        cv2.imwrite(str(options.sheet), np.vstack(lines)[..., ::-1])


if __name__ == "__main__":
    main()
