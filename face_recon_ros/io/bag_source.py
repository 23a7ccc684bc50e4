"""Images of a rosbag2 (sqlite3 or mcap), read without ROS by the package `rosbags`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ConfigError, FaceReconError, SourceError
from face_recon_ros.core.types import Image
from face_recon_ros.io.camera_messages import (
    camera_from_msg,
    compressed_image_from_msg,
    image_from_msg,
)
from face_recon_ros.io.sources import DEFAULT_FPS

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"

#: type -> reader
IMAGE_TYPES = {IMAGE: image_from_msg, COMPRESSED_IMAGE: compressed_image_from_msg}

OWN_NAMESPACE = "/face/"  # what the pipeline itself publishes is no input


def is_bag(source: str) -> bool:
    """Whether a path is a rosbag2: its folder (with metadata.yaml) or its one file."""
    path = Path(source).expanduser()
    return (path / "metadata.yaml").is_file() or path.suffix in (".mcap", ".db3")


def choose_image_topic(types: Mapping[str, str], counts: Mapping[str, int]) -> str:
    """The topic with the most colour images, raw ones before compressed ones; empty without any.

    What this package publishes itself is no input.

    Args:
        types: topic -> message type, of all topics.
        counts: topic -> number of messages.
    """
    colour = [
        topic
        for topic, kind in sorted(types.items())
        if kind in IMAGE_TYPES
        and not topic.startswith(OWN_NAMESPACE)
        and "depth" not in topic.lower()
    ]
    return max(colour, key=lambda t: (counts[t], types[t] == IMAGE), default="")


def camera_info_topic(types: Mapping[str, str], image_topic: str) -> str:
    """The topic of the CameraInfo beside an image topic, else the only one, if it is nobody's.

    Empty without any.
    """
    there = [topic for topic, kind in types.items() if kind == CAMERA_INFO]

    def beside(topic: str) -> str:
        parts = topic.split("/")
        names = ("/".join([*parts[:n], "camera_info"]) for n in range(len(parts) - 1, 0, -1))
        return next((name for name in names if name in there), "")

    claimed = {beside(topic) for topic, kind in types.items() if kind in IMAGE_TYPES}
    only = there[0] if len(there) == 1 and there[0] not in claimed else ""
    return beside(image_topic) or only


class BagSource:
    """Images of one topic of a bag, with their own stamps; see `core.sources.Source`.

    Attributes:
        topic: of the images.
        camera: that took the image last given out, by the bag's CameraInfo; None without one.
    """

    live = False

    def __init__(
        self,
        source: str,
        frame: str,
        loop: bool = False,
        complain: Callable[[FaceReconError], None] = lambda fault: None,
        topic: str = "",
    ) -> None:
        """Looks what is in the bag.

        Args:
            source: path of the bag.
            frame: name of the camera's frame where the images have none.
            loop: begin again at the end; stamps go on.
            complain: told of every message that cannot be read; it is left out.
            topic: of the images; empty takes that with the most colour images.

        Raises:
            SourceError: it cannot be read or has no images, or none on this topic.
            ConfigError: the package that reads bags is not installed.
        """
        try:
            from rosbags.highlevel import AnyReader, AnyReaderError
            from rosbags.typesys import Stores, get_typestore
        except ImportError as fault:
            raise ConfigError(
                "the package rosbags, which reads bags", str(fault), "pip install rosbags"
            ) from None

        self.name = source
        self._frame, self._loop, self._complain = frame, loop, complain
        path = Path(source).expanduser()
        self._path = path if path.is_dir() else path.parent
        if not (self._path / "metadata.yaml").is_file():
            raise SourceError(
                "a rosbag2's folder with its metadata.yaml",
                f"{source}, without one beside it",
                "give the bag's folder (with metadata.yaml; `ros2 bag reindex` makes one)",
            )
        self._open = lambda: AnyReader(
            [self._path], default_typestore=get_typestore(Stores.LATEST)
        )
        try:
            with self._open() as reader:
                types = {c.topic: c.msgtype for c in reader.connections}
                counts: Counter[str] = Counter()
                for connection in reader.connections:
                    counts[connection.topic] += connection.msgcount
                seconds = reader.duration * 1e-9
        except (AnyReaderError, OSError, ValueError, KeyError) as fault:
            raise SourceError(f"a rosbag2 at {source}", str(fault), "check the path") from None
        self.topic = topic or choose_image_topic(types, counts)
        if types.get(self.topic) not in IMAGE_TYPES:
            there = ", ".join(f"{name} ({kind})" for name, kind in sorted(types.items()))
            raise SourceError(
                f"a topic {topic or 'of colour images'} ({' or '.join(IMAGE_TYPES)}) in {source}",
                f"only {there or 'nothing'}",
                "name one of these as the image topic" if topic else "record the camera's topic",
            )
        self._info_topic = camera_info_topic(types, self.topic)
        self.camera: PinholeCamera | None = None
        self._read_first_camera()
        count = counts[self.topic]
        self.fps = (count - 1) / seconds if count > 1 and seconds > 0 else DEFAULT_FPS
        self.length = None if loop else count

    def __iter__(self) -> Iterator[Image]:
        """The images that can be read, in the order they were recorded.

        Raises:
            SourceError: none of them can be read, or the file is damaged.
        """
        offset, last = 0.0, 0.0
        while True:
            first = True
            for image in self._readable():
                if first and last:
                    offset = last + 1.0 / self.fps - image.stamp
                first, last = False, image.stamp + offset
                yield replace(image, stamp=last, frame=image.frame or self._frame)
            if not self._loop:
                return

    def _readable(self) -> Iterator[Image]:
        read, fault = 0, None
        with self._open() as reader:
            topics = (self.topic, self._info_topic)
            connections = [c for c in reader.connections if c.topic in topics]
            messages = reader.messages(connections)
            while True:
                try:
                    connection, _, raw = next(messages)
                except StopIteration:
                    break
                except Exception as bug:  # whatever the reader meets in a damaged file
                    raise self._damaged(bug) from bug
                if connection.topic == self._info_topic:
                    self._take_camera(reader, connection, raw)
                    continue
                try:
                    image = IMAGE_TYPES[connection.msgtype](self._decode(reader, connection, raw))
                except FaceReconError as bad:
                    fault = bad
                    self._complain(bad)
                    continue
                read += 1
                yield image
        if not read:
            raise fault or self._damaged("no image")

    def _read_first_camera(self) -> None:
        """The first images may come before it."""
        with self._open() as reader:
            connections = [c for c in reader.connections if c.topic == self._info_topic]
            try:  # of no connections rosbags would read all
                first = next(reader.messages(connections), None) if connections else None
            except Exception:  # a damaged file; that comes out where the images are read
                return
            if first is not None:
                connection, _, raw = first
                self._take_camera(reader, connection, raw)

    def _take_camera(self, reader: Any, connection: Any, raw: bytes) -> None:
        try:
            msg = self._decode(reader, connection, raw)
            # sensor_msgs/CameraInfo: zeros say "uncalibrated"
            self.camera = camera_from_msg(msg) if msg.k[0] else None
        except FaceReconError as bad:
            self._complain(bad)

    def _decode(self, reader: Any, connection: Any, raw: bytes) -> Any:
        try:
            return reader.deserialize(raw, connection.msgtype)
        except Exception as bug:  # rosbags raises what its decoder stumbles over
            raise self._damaged(bug) from bug

    def _damaged(self, what: object) -> SourceError:
        return SourceError(
            f"messages of {self.topic} in {self.name}", f"{what!r}", "is the bag damaged?"
        )

    def close(self) -> None:
        """Nothing stays open between images of different runs."""
