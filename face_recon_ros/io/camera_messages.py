"""What camera messages say, read from any object that has their fields.

Those of rclpy, and those of the rosbags package, which reads bags where there is no ROS at all: so
nothing of ROS is imported here. `conversions` builds on it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError, ImageError
from face_recon_ros.core.types import Image

#: encoding -> (channels, bytes a channel, OpenCV code that makes RGB of it)
_ENCODINGS: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (3, 1, None),
    "bgr8": (3, 1, cv2.COLOR_BGR2RGB),
    "8UC3": (3, 1, cv2.COLOR_BGR2RGB),
    "rgba8": (4, 1, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, 1, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, 1, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, 1, cv2.COLOR_GRAY2RGB),
    "mono16": (1, 2, cv2.COLOR_GRAY2RGB),
    "16UC1": (1, 2, cv2.COLOR_GRAY2RGB),
    "yuv422": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, 1, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": (2, 1, cv2.COLOR_YUV2RGB_YUYV),
    # OpenCV names a pattern after the second and third pixel of its second row: its BG is RGGB.
    # (Its names like BayerRGGB are not in every version.)
    "bayer_rggb8": (1, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, 1, cv2.COLOR_BayerGB2RGB),
}
ENCODINGS = tuple(_ENCODINGS)


def seconds_from_stamp(stamp: Any) -> float:
    """Seconds of a builtin_interfaces/Time."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def image_from_msg(msg: Any) -> Image:
    """A sensor_msgs/Image as RGB.

    Raises:
        ImageError: unknown encoding, no pixels, or a step or size that does not fit.
    """
    if msg.encoding not in _ENCODINGS:
        rgb = _read_by_cv_bridge(msg)
        return Image(rgb, seconds_from_stamp(msg.header.stamp), msg.header.frame_id)
    channels, width_bytes, code = _ENCODINGS[msg.encoding]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    if height == 0 or width == 0:
        raise ImageError("an image with pixels", f"{width} x {height}", "check the camera driver")
    if channels == 2 and width % 2:
        raise ImageError(
            f"an even width for {msg.encoding}: two pixels share their colour",
            f"{width} x {height}",
            "check the camera driver",
        )
    row = width * channels * width_bytes
    data = np.frombuffer(msg.data, np.uint8)
    if step < row or data.size < step * (height - 1) + row:
        raise ImageError(
            f"step >= {row} and data of step * height bytes for {width} x {height} {msg.encoding}",
            f"step {step} and {data.size} bytes",
            "check the camera driver",
        )
    if data.size >= step * height:
        rows = data[: step * height].reshape(height, step)[:, :row]
    else:  # the last row may lack its padding
        rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1))
    if width_bytes == 2:
        pixels16 = np.ascontiguousarray(rows).view(">u2" if msg.is_bigendian else "<u2")
        pixels = np.rint(pixels16 * (255.0 / 65535.0)).astype(np.uint8)
    else:
        pixels = rows.reshape(height, width, channels) if channels > 1 else rows
    rgb = np.ascontiguousarray(pixels)
    if code is not None:
        rgb = np.asarray(cv2.cvtColor(rgb, code), np.uint8)
    return Image(rgb, seconds_from_stamp(msg.header.stamp), msg.header.frame_id)


def _read_by_cv_bridge(msg: Any) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of an encoding that only cv_bridge knows, where it is installed."""
    unknown = ImageError(
        f"an encoding of {', '.join(ENCODINGS)}",
        repr(msg.encoding),
        "convert it first (image_proc), or install cv_bridge",
    )
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        raise unknown from None
    try:
        return np.asarray(CvBridge().imgmsg_to_cv2(msg, "rgb8"), np.uint8)
    except CvBridgeError:
        raise unknown from None


def compressed_image_from_msg(msg: Any) -> Image:
    """A sensor_msgs/CompressedImage (JPEG or PNG) as RGB.

    Raises:
        ImageError: it is neither.
    """
    data = np.frombuffer(msg.data, np.uint8)
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise ImageError(
            "a JPEG or PNG compressed image",
            f"format {msg.format!r}, {data.size} bytes",
            "record the raw images, or use another compression",
        )
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    return Image(rgb, seconds_from_stamp(msg.header.stamp), msg.header.frame_id)


def camera_from_msg(msg: Any) -> PinholeCamera:
    """The camera of the images that go with a CameraInfo: region of interest and binning applied.

    Raises:
        CameraError: no or impossible intrinsics.
    """
    k = np.array(msg.k, np.float64).reshape(3, 3)
    if not k.any():  # sensor_msgs/CameraInfo: K[0] = 0 means uncalibrated
        raise CameraError(
            "intrinsics in CameraInfo", "K of zeros: uncalibrated", "calibrate the camera"
        )
    camera = PinholeCamera(
        int(msg.width), int(msg.height), k, np.array(msg.d), msg.distortion_model or "plumb_bob"
    )
    roi = msg.roi
    if roi.width and roi.height:
        inside = roi.x_offset + roi.width <= msg.width and roi.y_offset + roi.height <= msg.height
        if not inside:
            raise CameraError(
                f"a region of interest inside {msg.width} x {msg.height}",
                f"{roi.width} x {roi.height} at {roi.x_offset}, {roi.y_offset}",
                "check the camera driver",
            )
        camera = camera.cropped(roi.x_offset, roi.y_offset, roi.width, roi.height)
    bin_x, bin_y = max(int(msg.binning_x), 1), max(int(msg.binning_y), 1)
    if bin_x > 1 or bin_y > 1:
        camera = camera.resized(camera.width // bin_x, camera.height // bin_y)
    return camera
