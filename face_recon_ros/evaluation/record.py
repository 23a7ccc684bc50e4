"""`face-recon record`: a video, folder of pictures or camera into a rosbag2, without ROS.

Messages are built from the types of the package `rosbags`, which writes sqlite3 and mcap by
itself. With ROS `ros2 bag record` does the same for live topics (docs/evaluation.md has
the line).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.rigid import Rigid, quaternion_from_rotation
from face_recon_ros.core.types import Image
from face_recon_ros.evaluation.output import Progress, no_progress

STORAGES = ("mcap", "sqlite3")
IMAGE_TOPIC = "/camera/image_raw"
COMPRESSED_TOPIC = "/camera/image_raw/compressed"
INFO_TOPIC = "/camera/camera_info"
_JPEG_QUALITY = 90


class BagWriter:
    """Writes images, cameras and head poses; use as a context manager."""

    def __init__(self, path: str | Path, storage: str = "mcap") -> None:
        """Starts a bag.

        Args:
            path: folder to make; must not exist yet.
            storage: `mcap` or `sqlite3`.

        Raises:
            DataError: the place is taken, or the storage unknown.
        """
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        if storage not in STORAGES:
            raise DataError(f"storage {' or '.join(STORAGES)}", repr(storage), "choose one")
        if Path(path).exists():
            raise DataError(f"a new folder at {path}", "one that exists", "choose another --out")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
        self._path = Path(path)
        self._writer = Writer(self._path, version=8, storage_plugin=plugin)
        self._types = get_typestore(Stores.LATEST)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        """Opens the file."""
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes the index; a bag into which nothing was written because of a fault is removed."""
        self._writer.close()
        if fault is not None and not self._connections:
            shutil.rmtree(self._path)

    def image(self, image: Image, topic: str = IMAGE_TOPIC) -> None:
        """Adds an image as rgb8."""
        height, width = image.rgb.shape[:2]
        self.write(
            topic,
            "sensor_msgs/msg/Image",
            image.stamp,
            header=self.header(image.stamp, image.frame),
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(image.rgb).reshape(-1),
        )

    def compressed(self, image: Image, topic: str = COMPRESSED_TOPIC) -> None:
        """Adds an image as JPEG."""
        bgr = cv2.cvtColor(image.rgb, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        self.write(
            topic,
            "sensor_msgs/msg/CompressedImage",
            image.stamp,
            header=self.header(image.stamp, image.frame),
            format="rgb8; jpeg compressed bgr8",
            data=np.asarray(jpeg, np.uint8).reshape(-1),
        )

    def camera(
        self, camera: PinholeCamera, stamp: float, frame: str, topic: str = INFO_TOPIC
    ) -> None:
        """Adds a CameraInfo."""
        roi = self._types.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        projection = np.column_stack([camera.matrix, np.zeros(3)])
        self.write(
            topic,
            "sensor_msgs/msg/CameraInfo",
            stamp,
            header=self.header(stamp, frame),
            height=camera.height,
            width=camera.width,
            distortion_model=camera.distortion_model,
            d=camera.distortion,
            k=camera.matrix.ravel(),
            r=np.eye(3).ravel(),
            p=projection.ravel(),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def pose(self, frame_from_body: Rigid, stamp: float, frame: str, topic: str) -> None:
        """Adds a PoseStamped."""
        make = self._types.types
        pose = make["geometry_msgs/msg/Pose"](
            make["geometry_msgs/msg/Point"](*frame_from_body.translation.tolist()),
            self._quaternion(frame_from_body),
        )
        self.write(
            topic,
            "geometry_msgs/msg/PoseStamped",
            stamp,
            header=self.header(stamp, frame),
            pose=pose,
        )

    def transform(
        self,
        parent_from_child: Rigid,
        stamp: float,
        parent: str,
        child: str,
        topic: str = "/tf",
    ) -> None:
        """Adds a transform to TF."""
        make = self._types.types
        transform = make["geometry_msgs/msg/TransformStamped"](
            self.header(stamp, parent),
            child,
            make["geometry_msgs/msg/Transform"](
                make["geometry_msgs/msg/Vector3"](*parent_from_child.translation.tolist()),
                self._quaternion(parent_from_child),
            ),
        )
        self.write(topic, "tf2_msgs/msg/TFMessage", stamp, transforms=[transform])

    def _quaternion(self, motion: Rigid) -> Any:
        xyzw = quaternion_from_rotation(motion.rotation).tolist()
        return self._types.types["geometry_msgs/msg/Quaternion"](*xyzw)

    def header(self, stamp: float, frame: str) -> Any:
        """A std_msgs/Header."""
        seconds, nanoseconds = divmod(max(round(stamp * 1e9), 0), 1_000_000_000)
        time = self._types.types["builtin_interfaces/msg/Time"](seconds, nanoseconds)
        return self._types.types["std_msgs/msg/Header"](time, frame)

    def write(self, topic: str, kind: str, stamp: float, **fields: Any) -> None:
        """Adds a message of any kind, made of its fields."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._types
            )
        message = self._types.types[kind](**fields)
        self._writer.write(
            self._connections[topic],
            max(round(stamp * 1e9), 0),
            self._types.serialize_cdr(message, kind),
        )


def record(
    images: Iterable[Image],
    path: str | Path,
    *,
    storage: str = "mcap",
    compressed: bool = False,
    camera: PinholeCamera | Callable[[Image], PinholeCamera | None] | None = None,
    total: int = 0,
    progress: Progress = no_progress,
) -> int:
    """Writes images into a bag.

    Args:
        images: with stamps in seconds.
        path: folder to make.
        storage: `mcap` or `sqlite3`.
        compressed: JPEG instead of raw pixels.
        camera: calibration, written beside each image; or a resolver of it, asked right
            after the image was read.
        total: number of images, for progress; 0 when unknown.
        progress: called as images are written.

    Returns:
        Number of images.
    """
    count = 0
    with BagWriter(path, storage) as bag:
        for image in images:
            (bag.compressed if compressed else bag.image)(image)
            taken_by = camera(image) if callable(camera) else camera
            if taken_by is not None:
                bag.camera(taken_by, image.stamp, image.frame)
            count += 1
            progress(count, total)
    return count
