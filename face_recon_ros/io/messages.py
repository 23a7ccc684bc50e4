"""What messages say, read from any object that has their fields.

Those of rclpy, and those of the rosbags package, which reads bags where there is no ROS at all: so
nothing of ROS is imported here.
"""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np

from face_recon_ros.core.errors import ImageError
from face_recon_ros.core.rigid import Rigid, rotation_from_quaternion
from face_recon_ros.core.types import Image
from face_recon_ros.io.encodings import ENCODINGS, rgb_from_pixels
from face_recon_ros.io.images import decode_picture
from face_recon_ros.io.intensity import IntensityScale

_PACKED = ("jpeg", "jpg", "mjpeg", "png")  # encodings by which some drivers put files into Image
_NO_PICTURE = re.compile(r"compresseddepth|(^|;)\s*(8S|16S|32S|32F|64F)C\d", re.IGNORECASE)
_VIDEO = re.compile(r"h\.?26[45]|hevc|avc|vp[89]|av1|theora", re.IGNORECASE)


class ImageStream:
    """Images of one topic, raw or compressed.

    It remembers of the images before what one image alone does not say: how many bits are in use.

    Attributes:
        scale: of more than 8 bits.
        warning: what was wrong with the last image that could be read; empty when all was well.
    """

    def __init__(self) -> None:
        """Knows nothing of the stream yet."""
        self.scale = IntensityScale()
        self.warning = ""

    def read(self, msg: Any) -> Image:
        """A sensor_msgs/Image or CompressedImage as RGB.

        Raises:
            ImageError: it is no picture, or its fields do not fit together.
        """
        if hasattr(msg, "encoding"):
            image, self.warning = _raw(msg, self.scale), ""
        else:
            image, self.warning = _compressed(msg, self.scale)
        return image


def image_from_msg(msg: Any) -> Image:
    """A sensor_msgs/Image or CompressedImage on its own; see `ImageStream.read`."""
    return ImageStream().read(msg)


def seconds_from_stamp(stamp: Any) -> float:
    """Seconds of a builtin_interfaces/Time."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def _raw(msg: Any, scale: IntensityScale) -> Image:
    data = np.frombuffer(msg.data, np.uint8)
    if msg.encoding.lower() in _PACKED:
        rgb = decode_picture(data, scale).rgb
    else:
        rgb = rgb_from_pixels(
            data,
            msg.encoding,
            int(msg.width),
            int(msg.height),
            int(msg.step),
            scale,
            big_endian=bool(msg.is_bigendian),
        )
    return Image(rgb, seconds_from_stamp(msg.header.stamp), msg.header.frame_id)


def _compressed(msg: Any, scale: IntensityScale) -> tuple[Image, str]:
    data = np.frombuffer(msg.data, np.uint8)
    if _NO_PICTURE.search(msg.format):
        raise ImageError(
            "a compressed picture", f"format {msg.format!r}: depth", "choose the colour topic"
        )
    if data.size == 0:
        raise ImageError("a compressed image", "no bytes", "check the camera driver")
    try:
        picture = decode_picture(data, scale, upright=False)
    except ImageError as fault:
        if _VIDEO.search(msg.format):
            raise ImageError(
                "images compressed one by one (JPEG, PNG)",
                f"format {msg.format!r}: a video",
                "republish them: ros2 run image_transport republish",
            ) from None
        raise ImageError(
            f"{fault.expected} as CompressedImage",
            f"format {msg.format!r}, {data.size} bytes",
            fault.remedy,
        ) from None
    rgb = picture.rgb
    mosaic = msg.format.split(";")[0].strip().lower()
    layout = ENCODINGS.get(mosaic)
    if mosaic.startswith("bayer_") and layout is not None and layout.code is not None:
        rgb = np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb[..., 0]), layout.code), np.uint8)
    image = Image(rgb, seconds_from_stamp(msg.header.stamp), msg.header.frame_id)
    return image, picture.warning


def rigid_from_pose_msg(msg: Any) -> Rigid:
    """`frame_from_body` of a geometry_msgs/Pose, metres."""
    return _rigid(msg.position, msg.orientation)


def rigid_from_transform_msg(msg: Any) -> Rigid:
    """`parent_from_child` of a geometry_msgs/Transform, metres."""
    return _rigid(msg.translation, msg.rotation)


def _rigid(position: Any, quaternion: Any) -> Rigid:
    xyzw = np.array([quaternion.x, quaternion.y, quaternion.z, quaternion.w], np.float64)
    return Rigid(
        rotation_from_quaternion(xyzw), np.array([position.x, position.y, position.z], np.float64)
    )
