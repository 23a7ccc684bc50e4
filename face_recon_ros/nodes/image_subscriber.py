"""The camera's images on the topic, raw or compressed, and diagnostics while none come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.types import Image
from face_recon_ros.io.messages import ImageStream
from face_recon_ros.nodes.connections import too_many
from face_recon_ros.nodes.runtime import IMAGE_TOPIC, LISTEN_PERIOD_S, NEWEST_QOS, FaceNode

AUTO, RAW, COMPRESSED = "auto", "raw", "compressed"
TRANSPORTS = (AUTO, RAW, COMPRESSED)

_TYPES = {"sensor_msgs/msg/Image": ImageMsg, "sensor_msgs/msg/CompressedImage": CompressedImage}
_PATIENCE_S = 5.0  # without images until the console says what is waited for
_SAY_AGAIN_S = 60.0
_NAMED = 8  # other topics that are listed


def image_topic(node: FaceNode) -> str:
    """The topic of raw images, after remapping."""
    return str(node.resolve_topic_name(IMAGE_TOPIC))


def choose_topic(node: FaceNode, transport: str) -> tuple[str, type]:
    """Where to listen now: topic and message type.

    `auto` takes raw images where there is a publisher, else compressed ones where there is one
    does. A topic that was remapped to compressed images is taken as such.
    """
    raw, compressed = image_topic(node), _compressed_topic(node)
    if transport == COMPRESSED:
        return compressed, CompressedImage
    published = dict(node.get_topic_names_and_types())
    if "sensor_msgs/msg/CompressedImage" in published.get(raw, ()):
        return raw, CompressedImage
    if transport == AUTO and not node.count_publishers(raw) and node.count_publishers(compressed):
        return compressed, CompressedImage
    return raw, ImageMsg


def _compressed_topic(node: FaceNode) -> str:
    beside = f"{IMAGE_TOPIC}/compressed"
    resolved = str(node.resolve_topic_name(beside))
    return f"{image_topic(node)}/compressed" if resolved == beside else resolved


class ImageSubscriber:
    """Subscribes to images while their results have a subscriber.

    Diagnostics: `image_topic`, `image_transport`, `pixel_range` for more than 8 bits.

    Attributes:
        stream: that reads the messages.
    """

    def __init__(
        self,
        node: FaceNode,
        wanted: Callable[[], bool],
        receive: Callable[[Any], object],
        transport: str = AUTO,
    ) -> None:
        """Looks ten times a second whether to listen, and where.

        Args:
            node: that listens.
            wanted: whether images are needed.
            receive: gets each message, in the executor's thread.
            transport: of `TRANSPORTS`.

        Raises:
            ConfigError: no such transport.
        """
        if transport not in TRANSPORTS:
            raise ConfigError(
                f"camera.transport of {', '.join(TRANSPORTS)}", repr(transport), "choose one"
            )
        self._node, self._wanted, self._receive = node, wanted, receive
        self._transport = transport
        self.stream = ImageStream()
        self._subscription: Subscription | None = None
        self._listening: tuple[str, type] | None = None
        self._since = self._said = self._last = 0.0
        self._received = False
        node.watch(self._report)
        node.create_timer(LISTEN_PERIOD_S, self._check, clock=node.steady)

    def read(self, msg: ImageMsg | CompressedImage) -> Image:
        """A message as an image; see `ImageStream.read`."""
        return self.stream.read(msg)

    def _check(self) -> None:
        if not self._wanted():
            self._stop()
            return
        now = time.monotonic()
        target = self._listening  # while images come it stays, even if others begin to publish
        if target is None or not self._received or now - self._last > _PATIENCE_S:
            target = choose_topic(self._node, self._transport)
        if target != self._listening:
            due = self._listening is None
            self._destroy()
            topic, kind = self._listening = target
            self._subscription = self._node.create_subscription(
                kind, topic, self._take, NEWEST_QOS
            )
            if due:
                self._since, self._said = time.monotonic(), 0.0
                self._node.expect_input(True)
        waiting = not self._received and now - self._since > _PATIENCE_S
        if waiting and (self._said == 0.0 or now - self._said > _SAY_AGAIN_S):
            self._said = now
            self._node.get_logger().warning(self._waiting())

    def _take(self, msg: Any) -> None:
        self._received, self._last = True, time.monotonic()
        self._receive(msg)

    def _stop(self) -> None:
        if self._listening is not None:
            self._destroy()
            self._listening, self._received = None, False
            self._node.expect_input(False)

    def _destroy(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _waiting(self) -> str:
        """What is waited for, and what else there is."""
        assert self._listening is not None
        topic, kind = self._listening
        publishers = self._node.count_publishers(topic)
        who = f"{publishers} publisher{'' if publishers == 1 else 's'}"
        own = self._node.get_namespace().rstrip("/") + "/"
        others = sorted(
            f"{name} ({types[0].rpartition('/')[2]})"
            for name, types in self._node.get_topic_names_and_types()
            if name != topic and not name.startswith(own) and set(types) & set(_TYPES)
        )
        there = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        hint = (
            f"other image topics: {there}; remap {IMAGE_TOPIC} to one"
            if others
            else ("there is no other image topic: is the camera driver running?")
        )
        if publishers:
            hint = f"its quality of service may not fit, or nothing is sent; {hint}"
        return f"no image on {topic} ({kind.__name__}, {who}) for {_PATIENCE_S:.0f} s; {hint}"

    def _report(self) -> str:
        meter = self._node.meter
        if self._listening is not None:
            topic, kind = self._listening
            meter.fact("image_topic", topic)
            meter.fact("image_transport", RAW if kind is ImageMsg else COMPRESSED)
        if self.stream.scale.used:
            meter.fact("pixel_range", self.stream.scale.description)
        waiting = self._listening is not None and not self._received
        if waiting and time.monotonic() - self._since > _PATIENCE_S:
            return self._waiting()
        several = too_many(self._node, self._listening[0]) if self._listening is not None else ""
        return "; ".join(text for text in (several, self.stream.warning) if text)
