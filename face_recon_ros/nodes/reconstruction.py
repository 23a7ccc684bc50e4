"""Reconstruction node: /face/crops and /face/detections -> meshes, poses, expressions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image as ImageMsg
from vision_msgs.msg import Detection2DArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Picture
from face_recon_ros.core.errors import ImageError, ModelError
from face_recon_ros.core.head_state import HeadStateEstimator
from face_recon_ros.core.inference import FaceNetwork
from face_recon_ros.core.models import find_model, sha256_of
from face_recon_ros.core.onnx_session import clashing_builds
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.types import Face
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.camera_info import CameraInfoSubscriber
from face_recon_ros.nodes.depth import DepthSubscriber
from face_recon_ros.nodes.outputs import FaceOutputs
from face_recon_ros.nodes.runtime import RESULT_QOS, SENSOR_QOS, FaceNode, run
from face_recon_ros.nodes.status import Meter
from face_recon_ros.nodes.synchronizer import ExactTimeSynchronizer


class ReconstructionNode(FaceNode):
    """Reconstructs the faces of the crops."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("reconstruction", ("camera", "reconstructor", "output"))

    def set_up(self) -> None:
        """Loads the network and the face model."""
        self.loaded.reconstructor = FaceReconstructor.from_config(self.config("reconstructor"))
        self.loaded.reconstructor.warm_up()
        self.loaded.head_state = HeadStateEstimator(
            self.loaded.reconstructor.model, self.config("output")
        )
        describe(self, self.loaded.reconstructor)

    def begin(self) -> None:
        """Subscribes while the results have a subscriber."""
        self.live.outputs = FaceOutputs(self, self.loaded.reconstructor)
        self.live.depth = DepthSubscriber(self) if self.config("output").depth else None
        self.live.slot = self.start_worker("reconstruction", self._work)
        self.live.camera = CameraInfoSubscriber(self, self.config("camera"))
        self.live.matcher = ExactTimeSynchronizer(("detections", "crops"))
        self.watch(partial(report_provider, self.meter, self.loaded.reconstructor.network))
        self.listen_while(lambda: self.live.outputs.wanted(self.config("output")), self._listen)

    def _listen(self) -> list[Subscription]:
        return [
            self.create_subscription(kind, topic, partial(self._receive, topic), qos)
            for topic, kind, qos in (
                ("detections", Detection2DArray, RESULT_QOS),
                ("crops", ImageMsg, SENSOR_QOS),
            )
        ]

    def _receive(self, topic: str, msg: Detection2DArray | ImageMsg) -> None:
        if (parts := self.live.matcher.add(topic, msg)) is None:
            return
        self.arrived(conversions.seconds_from_stamp(msg.header.stamp))
        if camera := self.live.camera.get():
            self.live.slot.put((parts["detections"], parts["crops"], camera))

    def _work(self, item: tuple[Detection2DArray, ImageMsg, PinholeCamera]) -> None:
        detections, stacked, camera = item
        start = time.perf_counter()
        tracks = conversions.tracks_from_msg(detections)
        size = self.loaded.reconstructor.network.size
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
        self.loaded.reconstructor.tune(self.config("reconstructor"))
        crops = self.loaded.reconstructor.crops(tracks)
        crops, pixels, prediction = self.loaded.reconstructor.look(tracks, crops, pixels, camera)
        inferred = time.perf_counter()
        pictures = [Picture(crop, is_crop=True) for crop in pixels]
        prediction = self.loaded.reconstructor.fit(pictures, tracks, crops, prediction, camera)
        fitted = time.perf_counter()
        faces = self.loaded.reconstructor.decode(tracks, crops, prediction, camera, pictures)
        decoded = time.perf_counter()
        stamp = conversions.seconds_from_stamp(stacked.header.stamp)
        self.loaded.head_state.tune(self.config("output"))
        seen = self.live.depth
        depth = seen.at(stamp, camera) if seen and faces else None
        faces = self.loaded.head_state(faces, camera, stamp, depth)
        estimated = time.perf_counter()
        usable = pixels[prediction.usable]
        self.live.outputs.publish(faces, usable, camera, stacked.header, self.config("output"))
        self.meter.fact("camera_calibrated", str(camera.calibrated).lower())
        self.meter.count("processed")
        self.meter.count("faces", len(faces))
        count_unusable(self, len(tracks) - len(faces))
        if seen:
            seen.count(faces)
        report_presence(self.meter, faces)
        self.meter.count("frames_with_face", bool(faces))
        self.meter.time(
            {
                "convert": converted - start,
                "infer": inferred - converted,
                "fit": fitted - inferred,
                "decode": decoded - fitted,
                "head_state": estimated - decoded,
                "publish": time.perf_counter() - estimated,
                **self.stamps.latency(stamp),
            }
        )


def describe(node: FaceNode, reconstructor: FaceReconstructor) -> None:
    """Says in /diagnostics which network and face model are at work."""
    network, face_model = reconstructor.network, find_model(reconstructor.config.face_model)
    node.meter.fact("model", network.path.name)
    node.meter.fact("model_sha256", sha256_of(network.path))
    node.meter.fact("decoder", reconstructor.decoder)
    node.meter.fact("face_model", reconstructor.model.name)
    node.meter.fact("face_model_sha256", sha256_of(face_model))


def report_provider(meter: Meter, network: FaceNetwork) -> str:
    """Says in /diagnostics what the network runs on; it warns when that is not what was wanted."""
    meter.fact("providers", network.provider)
    meter.fact("provider_wanted", network.wanted_provider)
    return network.session.trouble or clashing_builds()


def report_presence(meter: Meter, faces: Sequence[Face]) -> None:
    """Says in /diagnostics how sure the network is that what is shown are faces."""
    meter.score("presence", (f.presence for f in faces if f.presence is not None))


def count_unusable(node: FaceNode, n: int) -> None:
    """Counts and complains of faces that the network gave no usable answer for."""
    node.meter.count("faces_unusable", n)
    if n:
        network = node.config("reconstructor").network
        node.complain(
            ModelError(
                "finite coefficients in front of the camera",
                f"others from {network} for {n} faces",
                "use FP32 or the CPU provider, or another network",
            )
        )


def main() -> None:
    """Entry point."""
    run(ReconstructionNode)


if __name__ == "__main__":
    main()
