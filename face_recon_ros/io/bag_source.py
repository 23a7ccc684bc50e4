"""Images of a bag in the order of their stamps, each with the CameraInfo that goes with it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from face_recon_ros.core.errors import DataError, FaceReconError, ImageError
from face_recon_ros.core.types import Image
from face_recon_ros.io.bag_topics import camera_info_topic, choose_image_topic, content_of
from face_recon_ros.io.bags import CAMERA_INFO, Bag, open_bag
from face_recon_ros.io.messages import ImageStream, seconds_from_stamp
from face_recon_ros.io.video import DEFAULT_FPS

_REORDER = 8  # images held back so that stamps can be put in order


@dataclass
class ImageCounts:
    """How the images of a topic came.

    Attributes:
        read: messages.
        unreadable: with pixels that cannot be used.
        duplicates: with the stamp of another one, left out.
        reordered: put back in order.
        late: too late even for that, left out.
    """

    read: int = 0
    unreadable: int = 0
    duplicates: int = 0
    reordered: int = 0
    late: int = 0


def images_in_order(
    bag: Bag,
    topic: str,
    counts: ImageCounts,
    recorded: dict[float, int] | None = None,
    complain: Callable[[FaceReconError], object] = lambda fault: None,
) -> Iterator[Image]:
    """The images of a topic by rising header stamp, read once and never all at once.

    Args:
        bag: to read.
        topic: of images, raw or compressed.
        counts: filled in along the way.
        recorded: filled in too: stamp -> `log_ns`, to find an image again.
        complain: called for every image that cannot be read; it is left out.
    """
    stream = ImageStream()
    held: list[tuple[float, int, Image]] = []
    newest = last = -np.inf

    def release() -> Iterator[Image]:
        nonlocal last
        stamp, _, image = heapq.heappop(held)
        if stamp == last:
            counts.duplicates += 1
        elif stamp < last:
            counts.late += 1
        else:
            last = stamp
            yield image

    for raw, msg in bag.messages(topic):
        counts.read += 1
        try:
            image = stream.read(msg)
        except ImageError as fault:
            counts.unreadable += 1
            complain(fault)
            continue
        if stream.warning:
            bag.note(f"{topic}: {stream.warning}")
        if image.stamp == 0.0:  # a driver that does not stamp: the recorder did
            image = replace(image, stamp=raw.log_ns * 1e-9)
        if recorded is not None:
            recorded.setdefault(image.stamp, raw.log_ns)
        counts.reordered += int(last < image.stamp < newest)
        newest = max(newest, image.stamp)
        heapq.heappush(held, (image.stamp, counts.read, image))
        if len(held) > _REORDER:
            yield from release()
    while held:
        yield from release()
    if stream.scale.used:
        bag.note(f"{topic} has deep pixels, scaled to 8 bits: {stream.scale.description}")


class CameraHistory:
    """The CameraInfo that goes with an image: the latest one not after it, else the first."""

    def __init__(self, bag: Bag, image_topic: str, topic: str = "") -> None:
        """Reads the bag's CameraInfo.

        Args:
            bag: to read.
            image_topic: whose camera is sought.
            topic: of CameraInfo; found beside the images without one.

        Raises:
            DataError: there is no such topic.
        """
        beside = camera_info_topic(bag.topics, image_topic)
        self.topic = bag.require(topic, CAMERA_INFO) if topic else beside
        entries: list[tuple[float, int, Any]] = []
        for raw, msg in bag.messages(self.topic) if self.topic else ():
            stamp = seconds_from_stamp(msg.header.stamp) or raw.log_ns * 1e-9
            entries.append((stamp, len(entries), msg))
        entries.sort(key=lambda entry: entry[:2])
        self._stamps = [stamp for stamp, _, _ in entries]
        self._messages = [msg for _, _, msg in entries]

    def at(self, stamp: float) -> Any:
        """The message for an image of this stamp, seconds; None without any."""
        if not self._messages:
            return None
        index = max(int(np.searchsorted(self._stamps, stamp, "right")) - 1, 0)
        return self._messages[index]


class BagSource:
    """Images of one topic of a bag, with their own stamps; see `sources.Source`.

    Attributes:
        bag: that is read.
        topic: of the images.
        choice: what was chosen and why, in words.
        camera_info: sensor_msgs/CameraInfo of the image last given out; None without one.
        counts: how the images came.
        recorded: stamp of an image -> when it was recorded, nanoseconds.
    """

    live = False

    def __init__(
        self,
        source: str,
        frame: str,
        loop: bool = False,
        complain: Callable[[FaceReconError], object] = lambda fault: None,
        topic: str = "",
        info_topic: str = "",
    ) -> None:
        """Looks what is in the bag.

        Args:
            source: path of the bag.
            frame: name of the camera's frame where the images have none.
            loop: begin again at the end; stamps go on.
            complain: called for every message that cannot be read; it is left out.
            topic: of the images; empty takes the one that shows most.
            info_topic: of CameraInfo; empty takes the one beside the images.

        Raises:
            DataError: it cannot be read or has no images, or none on this topic.
            ConfigError: the package that reads bags is not installed.
        """
        self.name = source
        self.bag = open_bag(source)
        self._frame, self._loop, self._complain = frame, loop, complain
        self.topic = choose_image_topic(self.bag, topic)
        why = "as asked" if topic else content_of(self.bag, self.topic).why
        self.choice = f"images of {self.topic} ({why}; {self.bag.counts[self.topic]} of them)"
        self.history = CameraHistory(self.bag, self.topic, info_topic)
        self.camera_info: Any = self.history.at(-np.inf)
        self.counts = ImageCounts()
        self.recorded: dict[float, int] = {}
        count, span = self.bag.counts[self.topic], self.bag.span_ns
        seconds = (span[1] - span[0]) * 1e-9 if span else 0.0
        self.fps = (count - 1) / seconds if count > 1 and seconds > 0 else DEFAULT_FPS
        self.length = None if loop else count

    @property
    def warnings(self) -> list[str]:
        """What was wrong with the bag so far."""
        return self.bag.problems

    def __iter__(self) -> Iterator[Image]:
        """The images that can be read, by their stamps.

        Raises:
            DataError: none of them can be read.
        """
        offset, last = 0.0, 0.0
        while True:
            first, fault = True, None

            def note(bad: FaceReconError) -> None:
                nonlocal fault
                fault = bad
                self._complain(bad)

            self.counts = ImageCounts()
            images = images_in_order(self.bag, self.topic, self.counts, self.recorded, note)
            for image in images:
                if first and last:
                    offset = last + 1.0 / self.fps - image.stamp
                self.camera_info = self.history.at(image.stamp)
                first, last = False, image.stamp + offset
                yield replace(image, stamp=last, frame=image.frame or self._frame)
            if first:
                raise fault or DataError(
                    f"usable images on {self.topic} in {self.name}",
                    "; ".join(self.bag.problems) or "none",
                    "choose another topic with --image-topic (camera.topic), or record it again",
                )
            if not self._loop:
                return

    def close(self) -> None:
        """Nothing stays open between images of different runs."""
