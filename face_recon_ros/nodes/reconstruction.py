"""Reconstruction node: /face/crops and /face/detections -> meshes, poses, expressions."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMsg
from vision_msgs.msg import Detection2DArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError, ImageError
from face_recon_ros.core.pipeline import FaceReconstructor
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.matching import StampMatcher
from face_recon_ros.nodes.outputs import FaceOutputs
from face_recon_ros.nodes.runtime import (
    CAMERA_INFO_TOPIC,
    IMAGE_TOPIC,
    NEWEST_QOS,
    RESULT_QOS,
    SENSOR_QOS,
    FaceNode,
    run,
)

_LOOK_AGAIN_S = 2.0


class CameraListener:
    """The camera of the images on the topic: from CameraInfo, else guessed from their size.

    Attributes:
        calibrated: from CameraInfo; None while there is none, or one without calibration.
    """

    def __init__(self, node: FaceNode, fov_deg: float) -> None:
        """Subscribes."""
        self._node, self._fov_deg = node, fov_deg
        self.calibrated: PinholeCamera | None = None
        self._guess: PinholeCamera | None = None
        self._images: Subscription | None = None
        self._looked_s = -np.inf
        node.create_subscription(CameraInfo, CAMERA_INFO_TOPIC, self._receive_info, SENSOR_QOS)

    def get(self) -> PinholeCamera | None:
        """The camera, for nodes that get no images; None while nothing is known of it.

        Without calibration it is guessed from an image. They cost much to receive, so one is
        looked at every two seconds, in case their size changes.
        """
        if self.calibrated is not None:
            return self.calibrated
        now = time.monotonic()
        if self._images is None and now - self._looked_s >= _LOOK_AGAIN_S:
            self._looked_s = now
            self._images = self._node.create_subscription(
                ImageMsg, IMAGE_TOPIC, self._receive_image, NEWEST_QOS
            )
        return self._guess

    def _receive_info(self, msg: CameraInfo) -> None:
        if msg.k[0] == 0.0:  # sensor_msgs/CameraInfo: that says "uncalibrated"
            self.calibrated = None
            return
        try:
            self.calibrated = conversions.camera_from_msg(msg)
        except CameraError as fault:
            self._node.complain(fault)

    def _receive_image(self, msg: ImageMsg) -> None:
        if not (msg.width and msg.height) or self._images is None:
            return
        self._guess = PinholeCamera.from_fov(msg.width, msg.height, self._fov_deg)
        self._node.destroy_subscription(self._images)
        self._images = None


class ReconstructionNode(FaceNode):
    """Reconstructs the faces of the crops."""

    def __init__(self) -> None:
        """Loads the network and the face model."""
        super().__init__("reconstruction", ("camera", "reconstructor", "output"))
        self._reconstructor = FaceReconstructor.from_config(self.config("reconstructor"))
        self._outputs = FaceOutputs(self, self._reconstructor.model)
        self._slot = self.start_worker("reconstruction", self._work)
        self._camera = CameraListener(self, self.config("camera").fov_deg)
        self._matcher = StampMatcher(("detections", "crops"))
        describe(self, self._reconstructor)
        self.listen_while(lambda: self._outputs.wanted(self.config("output")), self._listen)

    def _listen(self) -> list[Subscription]:
        return [
            self.create_subscription(kind, topic, partial(self._receive, topic), qos)
            for topic, kind, qos in (
                ("detections", Detection2DArray, RESULT_QOS),
                ("crops", ImageMsg, SENSOR_QOS),
            )
        ]

    def _receive(self, topic: str, msg: Detection2DArray | ImageMsg) -> None:
        if (parts := self._matcher.add(topic, msg)) is None:
            return
        self.meter.count("frames_in")
        if camera := self._camera.get():
            self._slot.put((parts["detections"], parts["crops"], camera))

    def _work(self, item: tuple[Detection2DArray, ImageMsg, PinholeCamera]) -> None:
        detections, stacked, camera = item
        start = time.perf_counter()
        tracks = conversions.tracks_from_msg(detections)
        size = self._reconstructor.network.size
        pixels = np.zeros((0, size, size, 3), np.uint8)
        if tracks:
            rgb = conversions.image_from_msg(stacked).rgb
            if rgb.shape != (len(tracks) * size, size, 3):
                raise ImageError(
                    f"{len(tracks)} crops of {size} x {size} in one column",
                    f"{rgb.shape[1]} x {rgb.shape[0]}",
                    "give detector and reconstruction the same reconstructor.network",
                )
            pixels = rgb.reshape(len(tracks), size, size, 3)
        converted = time.perf_counter()
        prediction = self._reconstructor.predict(pixels)
        inferred = time.perf_counter()
        crops = self._reconstructor.crops(tracks)
        faces = self._reconstructor.decode(tracks, crops, prediction, camera)
        decoded = time.perf_counter()
        self._outputs.publish(
            faces, camera, stacked.header, self.config("output"), pixels=lambda i: pixels[i]
        )
        now = self.get_clock().now().nanoseconds * 1e-9
        self.meter.fact("camera_calibrated", str(camera.calibrated).lower())
        self.meter.count("processed")
        self.meter.count("faces", len(faces))
        self.meter.count("frames_with_face", bool(faces))
        self.meter.time(
            {
                "convert": converted - start,
                "infer": inferred - converted,
                "decode": decoded - inferred,
                "publish": time.perf_counter() - decoded,
                "latency": now - conversions.seconds_from_stamp(stacked.header.stamp),
            }
        )


def describe(node: FaceNode, reconstructor: FaceReconstructor) -> None:
    """Says in /diagnostics which network and face model are at work, and on what."""
    network = reconstructor.network
    node.meter.fact("model", network.path.name)
    node.meter.fact("face_model", reconstructor.model.name)
    node.meter.fact("providers", network.provider)


def main() -> None:
    """Entry point."""
    run(ReconstructionNode)


if __name__ == "__main__":
    main()
