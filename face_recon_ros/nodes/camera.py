"""Camera node: plays a device, video, folder, bag or test pattern as /camera/image_raw."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ConfigError, FaceReconError, SourceError
from face_recon_ros.core.types import Image
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.sources import image_topic_of, open_source, paced
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.parameters import CameraConfig
from face_recon_ros.nodes.runtime import CAMERA_INFO_TOPIC, IMAGE_TOPIC, SENSOR_QOS, FaceNode, run

_RETRY_S = 0.25  # between looks for a device or stream that is lost
#: Until a listener that we see also sees us: in 0.5 s a busy machine lost the first 1.3 s.
_SETTLE_S = 1.5

Taker = Callable[[Image, PinholeCamera, Header], None]


class CameraStream:
    """Plays a source in a thread and hands every image to a taker, with its camera and header."""

    def __init__(self, node: FaceNode, config: CameraConfig, take: Taker) -> None:
        """Opens the source; `start` starts it.

        Raises:
            SourceError, CameraError: it cannot be read, or its calibration cannot.
        """
        self._node, self._config, self._take = node, config, take
        self._stopping = node.live.stopping  # of this activation
        if config.max_frames < 0:
            raise SourceError("max_frames of at least 0", f"{config.max_frames}", "0 plays all")
        self.source = open_source(config, self._now, self._retry, node.complain)
        topic = image_topic_of(self.source)
        self._resolver = CameraResolver(
            config.calibration, config.fov_deg, rectified=config.rectified, image_topic=topic
        )
        node.meter.fact("source", self.source.name)
        if topic:
            node.meter.fact("source_topic", topic)
            node.get_logger().info(f"{self.source.name}: {self.source.choice}")
        node.watch(self._report)

    def start(self, ready: Callable[[], bool], drain: Callable[[], object]) -> None:
        """Starts.

        Args:
            ready: whether there is a subscriber; files wait for one, up to the configured time.
            drain: called after the last image, before the node ends.
        """
        self._ready, self._drain = ready, drain
        self._node.start_thread("camera", self._run)

    def _report(self) -> str:
        self._node.meter.fact("camera_notes", "; ".join(self._resolver.notes))
        return "; ".join([*self._resolver.warnings, *self.source.warnings])

    @property
    def _goes_on(self) -> bool:
        return not self._stopping.is_set() and not self._node.finished.done()

    def _retry(self, fault: SourceError) -> bool:
        """Waits a little for a lost device or stream, for as long as the node is active."""
        self._node.complain(fault)
        self._stopping.wait(_RETRY_S)
        return self._goes_on

    def _now(self) -> float:
        return float(self._node.get_clock().now().nanoseconds) * 1e-9

    def _run(self) -> None:
        try:
            self._wait_for_listener()
            self._node.expect_input(self.source.live)
            for count, image in enumerate(self._images(), 1):
                if not self._goes_on:
                    return
                header = conversions.header_of(image.stamp, image.frame)
                self._take(image, self.camera_of(image), header)
                self._node.arrived(image.stamp)
                if count == self._config.max_frames:
                    break
            self._node.expect_input(False)
            self._drain()
            self._node.meter.fact("source_ended", "true")
            self._node.get_logger().info(f"{self.source.name} has ended")
            if self._config.exit_at_end:
                self._node.end()
        except FaceReconError as fault:
            if not self._goes_on:
                return  # it was given up because of that
            # The source is the node's purpose: without it, it ends.
            self._node.get_logger().fatal(str(fault))
            self._node.exit_status = 1
            self._node.end()
        finally:
            self.source.close()

    def _wait_for_listener(self) -> None:
        until = time.monotonic() + self._config.wait_for_subscriber_s
        while (
            self._goes_on and not (self.source.live or self._ready()) and time.monotonic() < until
        ):
            self._stopping.wait(0.02)
        if self._config.wait_for_subscriber_s:
            self._stopping.wait(_SETTLE_S)

    def _images(self) -> Iterator[Image]:
        images = iter(self.source)
        if self.source.live:
            return images
        if self._config.lockstep:
            return (Image(i.rgb, self._now(), i.frame) for i in images)
        return paced(images, self.source.fps, self._now, self._stopping.wait)

    def camera_of(self, image: Image) -> PinholeCamera:
        """The camera that took the image last read."""
        if self.source.camera_info is not None:
            self._resolver.update(self.source.camera_info)
        return self._resolver(image)


class CameraPublisher:
    """/camera/image_raw and /camera/camera_info."""

    def __init__(self, node: FaceNode) -> None:
        """Creates the publishers."""
        self._image = node.create_publisher(ImageMsg, IMAGE_TOPIC, SENSOR_QOS)
        self._info = node.create_publisher(CameraInfo, CAMERA_INFO_TOPIC, SENSOR_QOS)

    def wanted(self) -> bool:
        """Whether there is a subscriber."""
        return self._image.get_subscription_count() > 0

    def publish(self, image: Image, camera: PinholeCamera, header: Header) -> None:
        """Publishes to subscribers; the camera first, so that it arrives before its image."""
        if self._info.get_subscription_count():
            self._info.publish(conversions.camera_to_msg(camera, header))
        if self.wanted():
            self._image.publish(conversions.image_to_msg(image.rgb, header))


class CameraNode(FaceNode):
    """Publishes a source."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("camera", ("camera",), namespace="camera")
        self.rate_of = "frames_in"

    def begin(self) -> None:
        """Opens the source and plays it."""
        config: CameraConfig = self.config("camera")
        if not config.source:
            raise ConfigError("camera.source", "none", "give a device, video, folder or `pattern`")
        if config.is_topic:  # so that one launch file serves both
            self.get_logger().info(f"nothing to do: another driver publishes {IMAGE_TOPIC}")
            self.end()
            return
        if config.lockstep:
            raise ConfigError(
                "lockstep only in the pipeline node",
                "the camera node, which cannot know when an image was worked off",
                "set camera.lockstep to false",
            )
        publisher = CameraPublisher(self)
        CameraStream(self, config, publisher.publish).start(publisher.wanted, lambda: None)


def main() -> None:
    """Entry point."""
    run(CameraNode)


if __name__ == "__main__":
    main()
