"""The camera of an image from a sensor_msgs/CameraInfo, and the faults of it.

An invalid field is ignored alone: a distortion that cannot be read leaves K in use, a region of
interest that does not fit is left out, and each such thing is a warning for as long as it lasts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError

PLUMB_BOB, RATIONAL, EQUIDISTANT = "plumb_bob", "rational_polynomial", "equidistant"

#: Names of distortion models in use, lower case -> ours. A pinhole has no distortion.
DISTORTION_MODELS = {
    **dict.fromkeys(("plumb_bob", "plumbbob", "brown", "brown_conrady", "radtan"), PLUMB_BOB),
    **dict.fromkeys(("rational_polynomial", "rational"), RATIONAL),
    **dict.fromkeys(("equidistant", "fisheye", "kannala_brandt", "kannala_brandt4"), EQUIDISTANT),
    **dict.fromkeys(("kb4", "opencv_fisheye", "equi"), EQUIDISTANT),
    **dict.fromkeys(("", "none", "pinhole", "perspective", "ideal", "rectified"), ""),
}
#: Model -> numbers of coefficients that it may have.
COEFFICIENTS = {PLUMB_BOB: (4, 5), RATIONAL: (8, 12, 14), EQUIDISTANT: (4,)}

_RECTIFIED = re.compile(r"(^|[/_])(rect|rectified|undistorted)([/_]|$)")


@dataclass(frozen=True)
class CameraReading:
    """The camera of an image by its CameraInfo.

    Attributes:
        camera: None where the message says nothing that can be used.
        warnings: what is wrong with the message, in words; what the camera is without.
        notes: what was done that is in order, in words.
    """

    camera: PinholeCamera | None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_rectified(topic: str) -> bool:
    """Whether a topic's name says that its images are rectified: image_rect, image_rect_color."""
    return _RECTIFIED.search(topic.lower()) is not None


def read_camera_info(
    msg: Any, width: int = 0, height: int = 0, *, rectified: bool = False
) -> CameraReading:
    """The camera that took an image.

    Args:
        msg: sensor_msgs/CameraInfo, of any library that has its fields.
        width: of the image, pixels; 0 where no image was seen: the message's own.
        height: of the image, pixels; as `width`.
        rectified: whether the image is rectified: then P counts and there is no distortion.
    """
    warnings: list[str] = []
    notes: list[str] = []
    matrix = _matrix(msg, rectified, warnings)
    if matrix is None:
        return CameraReading(None, tuple(warnings))
    if rectified:
        name, distortion, problem = PLUMB_BOB, np.zeros(0), ""
        notes.append("rectified: P without distortion")
    else:
        name, distortion, problem = usable_distortion(msg.distortion_model, msg.d)
    warnings += [problem] if problem else []
    full = int(msg.width), int(msg.height)
    if not all(full):
        if not (width and height):
            return CameraReading(None, (*warnings, "CameraInfo is of an image of 0 x 0"))
        notes.append(f"CameraInfo without a size: taken as that of the image, {width} x {height}")
        off_px = np.abs(matrix[:2, 2] - np.array([width, height]) / 2)
        if (off_px > np.array([width, height]) / 4).any():
            warnings.append("CameraInfo without a size, and its K is hardly of this one")
        full = width, height
    try:
        camera = PinholeCamera(*full, matrix, distortion, name)
        warnings += doubts(camera)
        return _at_size(camera, msg, width, height, warnings, notes)
    except CameraError as fault:
        return CameraReading(None, (*warnings, f"CameraInfo not used: {fault.got}"))


def camera_from_msg(msg: Any) -> PinholeCamera:
    """The camera of a CameraInfo of its own images; see `read_camera_info`.

    Raises:
        CameraError: it has no intrinsics that can be used.
    """
    reading = read_camera_info(msg)
    if reading.camera is None:
        raise CameraError(
            "intrinsics in CameraInfo",
            "; ".join(reading.warnings) or "K of zeros: uncalibrated",
            "calibrate the camera",
        )
    return reading.camera


def _matrix(msg: Any, rectified: bool, warnings: list[str]) -> NDArray[np.float64] | None:
    """K, or for rectified images the left part of P; None where there is none."""
    k = np.array(msg.k, np.float64).reshape(3, 3)
    p = np.array(msg.p, np.float64).reshape(3, 4)[:, :3]
    if rectified and _usable(p):
        return _in_order(p, "P", warnings)
    if _usable(k):
        if rectified:
            warnings.append("CameraInfo of rectified images without P: K is used")
        return _in_order(k, "K", warnings)
    if k[0, 0]:  # sensor_msgs/CameraInfo: K[0] = 0 means uncalibrated
        warnings.append(f"CameraInfo not used: K = {k.ravel().tolist()}")
    return None


def _usable(matrix: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0)


def _in_order(k: NDArray[np.float64], name: str, warnings: list[str]) -> NDArray[np.float64]:
    """The matrix as it should be written: rows first, last row 0 0 1."""
    if k[2, :2].all() and not k[:2, 2].any():
        warnings.append(f"CameraInfo's {name} is written column by column: transposed")
        k = k.T
    right = np.array([[k[0, 0], k[0, 1], k[0, 2]], [0.0, k[1, 1], k[1, 2]], [0.0, 0.0, 1.0]])
    if np.allclose(k, right):
        return k
    warnings.append(f"CameraInfo's {name} has odd entries, taken as zero: {k.ravel().tolist()}")
    return right


def usable_distortion(
    stated: str, coefficients: ArrayLike
) -> tuple[str, NDArray[np.float64], str]:
    """Model and coefficients of a lens, as far as they can be read.

    Coefficients that are all zero are no distortion under any name, as image_geometry has it;
    zeros at the end that a model has no place for are dropped.

    Args:
        stated: name of the model as it was given.
        coefficients: (D,) as they were given.

    Returns:
        Model, coefficients, and why the distortion was left out, empty when it was not.
    """
    d = np.asarray(coefficients, np.float64).ravel()
    none = PLUMB_BOB, np.zeros(0)
    if not d.any():
        return *none, ""
    if not np.isfinite(d).all():
        return *none, f"distortion left out: coefficients {d.tolist()}"
    key = re.sub(r"[\s-]+", "_", stated.strip().lower())
    model = DISTORTION_MODELS.get(key)
    if model is None:
        return *none, f"distortion left out: the model {stated!r} is unknown"
    if model == "" and key:
        return *none, f"distortion left out: {stated!r} with coefficients {d.tolist()}"
    model = model or PLUMB_BOB
    sizes = COEFFICIENTS[model]
    if model == RATIONAL and len(d) in COEFFICIENTS[PLUMB_BOB]:
        d = np.pad(d, (0, 8 - len(d)))  # the same polynomial, without denominator
    used = len(np.trim_zeros(d, "b"))
    fitting = [n for n in sizes if used <= n <= len(d)]
    size = len(d) if len(d) in sizes else min(fitting, default=None)
    if size is not None:
        return model, d[:size], ""
    wanted = " or ".join(map(str, sizes))
    return *none, f"distortion left out: {stated} with {len(d)} coefficients in place of {wanted}"


def doubts(camera: PinholeCamera) -> list[str]:
    """What makes intrinsics improbable, though they can be used; mostly wrong units."""
    k, side = camera.matrix, max(camera.width, camera.height)
    found = []
    if not 0.15 * side < min(k[0, 0], k[1, 1]) < 50 * side:
        found.append("a focal length")
    if not (-side < k[0, 2] < 2 * side and -side < k[1, 2] < 2 * side):
        found.append("a principal point")
    if not 1 / 3 < k[0, 0] / k[1, 1] < 3:
        found.append("an aspect ratio of pixels")
    if found:
        values = f"K = {k.ravel().round(3).tolist()} of {camera.width} x {camera.height}"
        return [f"{' and '.join(found)} that hardly any camera has: {values}"]
    if _is_odd_lens(camera):
        values = f"{camera.distortion_model}, {camera.distortion.tolist()}"
        return [f"distortion that hardly any lens has: {values}"]
    return []


def _is_odd_lens(camera: PinholeCamera) -> bool:
    """Whether half way to the borders coefficients double or halve rays' slopes, or leave none.

    The model without coefficients stands beside it: an ideal fisheye is no odd lens.
    """
    size = np.array([camera.width, camera.height], np.float64)
    steps = np.array([[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]) / 4
    pixels = (size - 1) / 2 + steps * size
    ideal = replace(camera, distortion=np.zeros(0)).rays_from_pixels(pixels)
    rays = camera.rays_from_pixels(pixels)
    off = np.linalg.norm(rays - ideal, axis=1)
    shorter = np.minimum(*(np.linalg.norm(r[:, :2], axis=1) for r in (rays, ideal)))
    off_px = np.linalg.norm(camera.project(rays) - pixels, axis=1)
    return not ((off <= shorter + 0.02) & (off_px < 0.02 * size.max())).all()


def _at_size(
    camera: PinholeCamera,
    msg: Any,
    width: int,
    height: int,
    warnings: list[str],
    notes: list[str],
) -> CameraReading:
    """The camera with region of interest and binning applied, as far as they fit the image."""
    full, part = camera, _cropped(camera, msg, warnings)
    meant = _binned(part, msg)
    size = (width, height) if width and height else (meant.width, meant.height)
    for candidate in (meant, part, _binned(full, msg), full):
        if (candidate.width, candidate.height) == size:
            if candidate is not meant:
                warnings.append(
                    "CameraInfo's region of interest or binning left out: they give "
                    f"{meant.width} x {meant.height}, the image is {width} x {height}"
                )
            return CameraReading(candidate, tuple(warnings), tuple(notes))
    if same_view(full, *size):
        if part is full:
            notes.append(f"CameraInfo of {meant.width} x {meant.height} scaled to the image")
        else:
            warnings.append(
                f"CameraInfo's region of interest left out: it is {part.width} x {part.height}, "
                f"the image {width} x {height}, as the whole"
            )
        return CameraReading(full.resized(*size), tuple(warnings), tuple(notes))
    if same_view(part, *size):
        warnings.append(
            f"CameraInfo's region of interest is {part.width} x {part.height}, the image "
            f"{width} x {height}: scaled"
        )
        return CameraReading(part.resized(*size), tuple(warnings), tuple(notes))
    warnings.append(
        f"CameraInfo not used: it is of {meant.width} x {meant.height}, "
        f"the image of {width} x {height}"
    )
    return CameraReading(None, tuple(warnings))


def _cropped(camera: PinholeCamera, msg: Any, warnings: list[str]) -> PinholeCamera:
    roi = msg.roi
    x, y, w, h = int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)
    if not w and not h:
        return camera
    if not (w and h) or x + w > camera.width or y + h > camera.height:
        warnings.append(
            f"CameraInfo's region of interest left out: {w} x {h} at {x}, {y} "
            f"of {camera.width} x {camera.height}"
        )
        return camera
    return camera.cropped(x, y, w, h)


def _binned(camera: PinholeCamera, msg: Any) -> PinholeCamera:
    bin_x, bin_y = max(int(msg.binning_x), 1), max(int(msg.binning_y), 1)
    if bin_x == bin_y == 1:
        return camera
    return camera.resized(max(camera.width // bin_x, 1), max(camera.height // bin_y, 1))


def same_view(camera: PinholeCamera, width: int, height: int) -> bool:
    """Whether an image of this size has the camera's aspect ratio, to a pixel."""
    return abs(camera.width * height - camera.height * width) <= max(width, height)
