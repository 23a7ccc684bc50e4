"""Pixels as camera drivers name and lay them out (sensor_msgs/image_encodings) -> RGB."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ImageError
from face_recon_ros.io.intensity import IntensityScale

COLOUR, GREY, DEPTH = "colour", "grey", "depth"


@dataclass(frozen=True)
class Encoding:
    """How one encoding lies in memory.

    Attributes:
        content: `colour`, `grey` or `depth`; depth (and labels) is no picture of a face.
        channels: a pixel, as laid out in a row.
        depth_bytes: a channel.
        code: OpenCV's conversion to RGB, None when it is RGB.
        planes: rows of the whole over rows of the image; above 1 for planar formats.
        to_rgb: for layouts that OpenCV has no code for: (rows, width) uint8 planes -> RGB.
    """

    content: str
    channels: int
    depth_bytes: int
    code: int | None = None
    planes: float = 1.0
    to_rgb: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]] | None = None

    @property
    def subsampled(self) -> bool:
        """Whether neighbouring pixels share their colour, so that sides must be even."""
        return self.channels == 2 or self.planes > 1.0


def _from_yuyv(y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> NDArray:
    """RGB of (H, W) luma and (H, W / 2) chroma."""
    packed = np.empty((*y.shape, 2), np.uint8)
    packed[..., 0] = y
    packed[:, 0::2, 1] = u
    packed[:, 1::2, 1] = v
    return np.asarray(cv2.cvtColor(packed, cv2.COLOR_YUV2RGB_YUYV), np.uint8)


def _nv16(order: int) -> Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]:
    def convert(rows: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
        chroma = rows[height:].reshape(height, -1, 2)
        return _from_yuyv(rows[:height], chroma[..., order], chroma[..., 1 - order])

    return convert


def _nv24(order: int) -> Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]:
    def convert(rows: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
        width = rows.shape[1]
        pairs = rows[height:].reshape(height, width // 2, 2, 2).astype(np.uint16)
        chroma = ((pairs.sum(axis=2) + 1) // 2).astype(np.uint8)
        return _from_yuyv(rows[:height], chroma[..., order], chroma[..., 1 - order])

    return convert


def _colour(code: int | None, channels: int = 3, depth_bytes: int = 1) -> Encoding:
    return Encoding(COLOUR, channels, depth_bytes, code)


_GREY = cv2.COLOR_GRAY2RGB
#: OpenCV names a pattern after the second and third pixel of its second row: its BG is RGGB.
#: (Its names like BayerRGGB are not in every version.)
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}

ENCODINGS: dict[str, Encoding] = {
    "rgb8": _colour(None),
    "bgr8": _colour(cv2.COLOR_BGR2RGB),
    "8UC3": _colour(cv2.COLOR_BGR2RGB),
    "rgba8": _colour(cv2.COLOR_RGBA2RGB, 4),
    "bgra8": _colour(cv2.COLOR_BGRA2RGB, 4),
    "8UC4": _colour(cv2.COLOR_BGRA2RGB, 4),
    "rgb16": _colour(None, 3, 2),
    "bgr16": _colour(cv2.COLOR_BGR2RGB, 3, 2),
    "16UC3": _colour(cv2.COLOR_BGR2RGB, 3, 2),
    "rgba16": _colour(cv2.COLOR_RGBA2RGB, 4, 2),
    "bgra16": _colour(cv2.COLOR_BGRA2RGB, 4, 2),
    "16UC4": _colour(cv2.COLOR_BGRA2RGB, 4, 2),
    "mono8": Encoding(GREY, 1, 1, _GREY),
    "8UC1": Encoding(GREY, 1, 1, _GREY),
    **{f"mono{bits}": Encoding(GREY, 1, 2, _GREY) for bits in (10, 12, 14, 16)},
    "16UC1": Encoding(GREY, 1, 2, _GREY),  # depth cameras use it too: distinguished by content
    "yuv422": _colour(cv2.COLOR_YUV2RGB_UYVY, 2),
    "uyvy": _colour(cv2.COLOR_YUV2RGB_UYVY, 2),
    "yuv422_yuy2": _colour(cv2.COLOR_YUV2RGB_YUYV, 2),
    "yuyv": _colour(cv2.COLOR_YUV2RGB_YUYV, 2),
    "yvyu": _colour(cv2.COLOR_YUV2RGB_YVYU, 2),
    "nv12": Encoding(COLOUR, 1, 1, cv2.COLOR_YUV2RGB_NV12, 1.5),
    "nv21": Encoding(COLOUR, 1, 1, cv2.COLOR_YUV2RGB_NV21, 1.5),
    "i420": Encoding(COLOUR, 1, 1, cv2.COLOR_YUV2RGB_I420, 1.5),
    "yv12": Encoding(COLOUR, 1, 1, cv2.COLOR_YUV2RGB_YV12, 1.5),
    "nv16": Encoding(COLOUR, 1, 1, None, 2.0, _nv16(0)),
    "nv61": Encoding(COLOUR, 1, 1, None, 2.0, _nv16(1)),
    "nv24": Encoding(COLOUR, 1, 1, None, 3.0, _nv24(0)),
    "nv42": Encoding(COLOUR, 1, 1, None, 3.0, _nv24(1)),
    **{f"bayer_{p}8": _colour(code, 1) for p, code in _BAYER.items()},
    **{
        f"bayer_{p}{b}": _colour(code, 1, 2)
        for p, code in _BAYER.items()
        for b in (10, 12, 14, 16)
    },
}
_ALIASES = {
    "yuv420": "i420",
    "yu12": "i420",
    "yuy2": "yuyv",
    "yuv422_uyvy": "uyvy",
    "yuv422_yuyv": "yuyv",
    "rgb": "rgb8",
    "bgr": "bgr8",
    "rgba": "rgba8",
    "bgra": "bgra8",
    "mono": "mono8",
    "grey": "mono8",
    "gray": "mono8",
    "y8": "mono8",
    "y16": "mono16",
}
_BY_LOWER = {name.lower(): name for name in ENCODINGS}
_NO_PICTURE = re.compile(r"(8S|16S|32S|32F|64F)C\d+|16UC2|8UC2|.*disp.*|.*depth.*", re.IGNORECASE)

_REMEDY = "set the camera driver to rgb8, bgr8 or mono8"


def find_encoding(name: str) -> tuple[str, Encoding]:
    """The encoding of a name in any case, with its usual spelling.

    Raises:
        ImageError: it is no picture (depth, labels), or unknown.
    """
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    if key in _BY_LOWER:
        spelled = _BY_LOWER[key]
        return spelled, ENCODINGS[spelled]
    if _NO_PICTURE.fullmatch(name.strip()):
        raise ImageError(
            "pixels of a picture",
            f"{name!r}, as depth, disparity and label images have",
            "choose the camera's colour or grey topic",
        )
    raise ImageError(f"an encoding of {', '.join(ENCODINGS)}", repr(name), _REMEDY)


def rgb_from_pixels(
    data: NDArray[np.uint8],
    encoding: str,
    width: int,
    height: int,
    step: int,
    scale: IntensityScale,
    *,
    big_endian: bool = False,
) -> NDArray[np.uint8]:
    """RGB of a driver's pixels.

    Args:
        data: (N,) bytes.
        encoding: its name.
        width: pixels.
        height: pixels; for planar formats some drivers count the rows of the colour planes too.
        step: bytes a row; 0 is read as rows without padding if the size agrees.
        scale: of the stream, for more than 8 bits.
        big_endian: of 16-bit values.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: unknown encoding, no pixels, or a step or size that does not fit.
    """
    name, layout = find_encoding(encoding)
    row = width * layout.channels * layout.depth_bytes
    if step == 0 and data.size == round(height * layout.planes) * row:
        step = row  # a driver that does not say, and nothing to mistake
    height = _image_height(layout, height, step, row, data.size)
    if height <= 0 or width <= 0:
        raise ImageError("an image with pixels", f"{width} x {height}", "check the camera driver")
    odd = width % 2 or (layout.planes == 1.5 and height % 2)
    if layout.subsampled and odd:
        raise ImageError(
            f"even sides for {name}: neighbouring pixels share their colour",
            f"{width} x {height}",
            "check the camera driver",
        )
    rows = round(height * layout.planes)
    if step < row or data.size < step * (rows - 1) + row:
        raise ImageError(
            f"step >= {row} and data of step * {rows} bytes for {width} x {height} {name}",
            f"step {step} and {data.size} bytes",
            "check the camera driver",
        )
    if data.size >= step * rows:
        lines = data[: step * rows].reshape(rows, step)[:, :row]
    else:  # the last row may lack its padding
        lines = np.lib.stride_tricks.as_strided(data, (rows, row), (step, 1))
    lines = np.ascontiguousarray(lines)
    if layout.to_rgb is not None:
        return layout.to_rgb(lines, height)
    if layout.depth_bytes == 2:
        lines = scale(lines.view(">u2" if big_endian else "<u2").astype(np.uint16, copy=False))
    pixels = lines.reshape(rows, width, layout.channels) if layout.channels > 1 else lines
    if layout.code is None:
        return pixels
    return np.asarray(cv2.cvtColor(pixels, layout.code), np.uint8)


def _image_height(layout: Encoding, height: int, step: int, row: int, size: int) -> int:
    """Rows of the image, where a driver of a planar format may have counted all rows."""
    rows = round(height * layout.planes)
    if layout.planes == 1.0 or size >= step * (rows - 1) + row:
        return height
    whole = height / layout.planes
    return round(whole) if abs(whole - round(whole)) < 1e-9 else height
