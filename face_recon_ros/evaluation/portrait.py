"""`face-recon fit`: one portrait, fitted by analysis by synthesis."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import camera_from_face, crop_camera, crop_from_face
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.illumination import shade
from face_recon_ros.core.morphable_model import FACE, MorphableModel, VertexNormals
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.types import COEFFICIENT_NAMES, Coefficients, Mesh
from face_recon_ros.evaluation.chain import Estimator, View, largest
from face_recon_ros.fitting.photo import PhotometricFitter
from face_recon_ros.fitting.photo_config import FROM_SCRATCH
from face_recon_ros.io.folders import written
from face_recon_ros.io.images import read_image, write_image
from face_recon_ros.io.meshes import write_ply

FIT_SIZE = 224


def fit_portrait(
    path: Path,
    out: Path,
    estimator: Estimator,
    model: MorphableModel,
    *,
    from_scratch: bool,
    camera_of: Callable[[int, int], PinholeCamera],
) -> dict[str, Any]:
    """Fits the largest face of a picture and writes mesh and picture.

    Args:
        path: of the picture.
        out: folder, is made.
        estimator: finds the face, and starts the fit.
        model: whole head, coarse.
        from_scratch: start from the mean face at several yaws instead.
        camera_of: the camera of a picture of given width and height.

    Returns:
        Seconds, photometric difference before and after, coefficients, pose.

    Raises:
        DataError: no face, or nothing can be written.
    """
    rgb = read_image(path)
    detections = estimator.detect(rgb)
    index = largest(detections)
    if index is None:
        raise DataError(f"a face in {path.name}", "none", "try --tiles 3 or --min-score 0.3")
    camera = camera_of(rgb.shape[1], rgb.shape[0])
    # The fit works in the nominal crop camera, so it starts with an answer for that one.
    nominal = replace(camera, calibrated=False, whole=False)
    estimate = estimator.estimate([View(rgb, detections.boxes[index], nominal)])
    crop = Crop(estimate.crop.centre_px, estimate.crop.side_px, FIT_SIZE)
    pixels = crop.extract(rgb)
    fitter = PhotometricFitter(model, FROM_SCRATCH if from_scratch else None)
    starts = fitter.from_scratch(FIT_SIZE) if from_scratch else [estimate.coefficients]
    began = time.perf_counter()
    fit = fitter.fit(pixels, starts)
    seconds = time.perf_counter() - began
    c = fit.coefficients
    pose = camera_from_face(crop_from_face(c.rotation[0], c.translation[0]), crop, camera)
    mesh = lit_mesh(model.subset(FACE), c)
    with written(out):
        out.mkdir(parents=True, exist_ok=True)
        write_ply(out / f"{path.stem}_fit.ply", mesh)
    views = [pixels, over(pixels, model, starts[0]), over(pixels, model, c)]
    write_image(out / f"{path.stem}_fit.png", np.concatenate(views, axis=1))
    return {
        "image": path.name,
        "start": "scratch" if from_scratch else "network",
        "seconds": seconds,
        "iterations": sum(len(costs) for costs in fit.history),
        "photometric_start": fit.photometric_start,
        "photometric_end": fit.photometric_end,
        "coefficients": {name: getattr(c, name)[0] for name in COEFFICIENT_NAMES},
        "camera_from_face": {"rotation": pose.rotation, "translation_m": pose.translation},
        "camera_calibrated": camera.calibrated,
    }


def lit_mesh(model: MorphableModel, c: Coefficients) -> Mesh:
    """The face of one row of coefficients, face frame, with colours as lit."""
    vertices = model.vertices(c.identity[0], c.expression[0])
    pose = crop_from_face(c.rotation[0], c.translation[0])
    normals = VertexNormals(model.triangles, model.n_vertices)(vertices)
    turned = normals @ pose.rotation.T.astype(np.float32)
    colours = shade(model.albedo(c.albedo[0]), turned, c.illumination[0]).astype(np.float32)
    return Mesh(vertices, model.triangles, colours)


def over(crop: NDArray[np.uint8], model: MorphableModel, c: Coefficients) -> NDArray[np.uint8]:
    """A crop (S, S, 3) with its rendered face over it, in full."""
    size = len(crop)
    mesh = lit_mesh(model.subset(FACE), c)
    assert mesh.colours is not None
    q = crop_from_face(c.rotation[0], c.translation[0]).apply(mesh.vertices)
    px = crop_camera(size).project(q)
    fragments = rasterize(px, q[:, 2], mesh.triangles, size, size)
    face = interpolate(fragments, mesh.triangles, 255 * mesh.colours)
    seen = fragments.triangle[..., None] >= 0
    return np.asarray(np.where(seen, np.rint(face), crop), np.uint8)
