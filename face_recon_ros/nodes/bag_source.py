"""Images of a rosbag2 (sqlite3 or mcap), read without ROS by the package `rosbags`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from face_recon_ros.core.errors import ConfigError, FaceReconError, SourceError
from face_recon_ros.core.sources import DEFAULT_FPS
from face_recon_ros.core.types import Image
from face_recon_ros.nodes.camera_messages import compressed_image_from_msg, image_from_msg

#: type -> reader
IMAGE_TYPES = {
    "sensor_msgs/msg/Image": image_from_msg,
    "sensor_msgs/msg/CompressedImage": compressed_image_from_msg,
}


def is_bag(source: str) -> bool:
    """Whether a path is a rosbag2: its folder (with metadata.yaml) or its one file."""
    path = Path(source).expanduser()
    return (path / "metadata.yaml").is_file() or path.suffix in (".mcap", ".db3")


class BagSource:
    """Images of a bag's first image topic, with their own stamps; see `core.sources.Source`."""

    live = False

    def __init__(
        self,
        source: str,
        frame: str,
        loop: bool = False,
        complain: Callable[[FaceReconError], None] = lambda fault: None,
    ) -> None:
        """Looks what is in the bag.

        Args:
            source: path of the bag.
            frame: name of the camera's frame where the images have none.
            loop: begin again at the end; stamps go on.
            complain: told of every image that cannot be read; it is left out.

        Raises:
            SourceError: it cannot be read or has no images.
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
                images = [c for c in reader.connections if c.msgtype in IMAGE_TYPES]
                seconds = reader.duration * 1e-9
                topics = sorted({c.topic for c in reader.connections})
        except (AnyReaderError, OSError, ValueError, KeyError) as fault:
            raise SourceError(f"a rosbag2 at {source}", str(fault), "check the path") from None
        if not images:
            raise SourceError(
                f"a topic of {' or '.join(IMAGE_TYPES)} in {source}",
                f"{topics}",
                "record the camera's topic",
            )
        self.topic = images[0].topic
        count = sum(c.msgcount for c in images if c.topic == self.topic)
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
            connections = [c for c in reader.connections if c.topic == self.topic]
            messages = reader.messages(connections)
            while True:
                try:
                    connection, _, raw = next(messages)
                except StopIteration:
                    break
                except Exception as bug:  # whatever the reader meets in a damaged file
                    raise self._damaged(bug) from bug
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

    def _decode(self, reader: Any, connection: Any, raw: bytes) -> Any:
        try:
            return reader.deserialize(raw, connection.msgtype)
        except Exception as bug:  # rosbags raises what its decoder stumbles over
            raise self._damaged(bug) from bug

    def _damaged(self, what: object) -> SourceError:
        return SourceError(
            f"images on {self.topic} in {self.name}", f"{what!r}", "is the bag damaged?"
        )

    def close(self) -> None:
        """Nothing stays open between images of different runs."""
