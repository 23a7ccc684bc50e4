"""Pipeline node: camera, detector, reconstruction and visualization composed in one process.

Images are handed over in memory; the topics are those of the separate nodes. One thread reads the
source (or the executor receives images), one works, one draws; each takes the newest there is.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.pipeline import FacePipeline, PipelineConfig
from face_recon_ros.core.types import DrawnFace, Image
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.camera import CameraPublisher, CameraStream
from face_recon_ros.nodes.camera_info import CameraInfoSubscriber
from face_recon_ros.nodes.depth import DepthSubscriber
from face_recon_ros.nodes.detector import report_tracks
from face_recon_ros.nodes.enable import EnableService
from face_recon_ros.nodes.image_subscriber import ImageSubscriber
from face_recon_ros.nodes.outputs import DetectionOutputs, FaceOutputs
from face_recon_ros.nodes.reconstruction import (
    count_unusable,
    describe,
    report_presence,
    report_provider,
)
from face_recon_ros.nodes.runtime import FaceNode, run
from face_recon_ros.nodes.visualization import Scene, Visualizer

_DRAIN_S = 5.0


class PipelineNode(FaceNode):
    """From images to meshes."""

    def __init__(self) -> None:
        """Declares the parameters."""
        groups = ("camera", "detector", "tracker", "reconstructor", "output", "visualization")
        super().__init__("pipeline", groups)

    def set_up(self) -> None:
        """Loads the models."""
        self.loaded.pipeline = FacePipeline.from_config(
            PipelineConfig(
                self.config("detector"),
                self.config("tracker").seeded(),
                self.config("reconstructor"),
                self.config("output"),
            ),
            live=not self._in_lockstep(),
        )
        describe(self, self.loaded.pipeline.reconstructor)

    def begin(self) -> None:
        """With `camera.source` it is its own camera, else it listens to one."""
        camera = self.config("camera")
        stream = None if camera.is_topic else CameraStream(self, camera, self._take)
        self.live.switch = EnableService(self)
        self.live.detections = DetectionOutputs(self)
        self.live.faces = FaceOutputs(self, self.loaded.pipeline.reconstructor)
        self.live.depth = DepthSubscriber(self) if self.config("output").depth else None
        self.live.visualizer = Visualizer(self)
        self.live.slot = self.start_worker("pipeline", self._work)
        self.live.drawing = self.start_worker("drawing", self._draw)
        self.watch(
            partial(report_provider, self.meter, self.loaded.pipeline.reconstructor.network)
        )
        self.watch(partial(report_tracks, self.meter, self.loaded.pipeline.finder))
        if stream:
            self.live.camera_topics = CameraPublisher(self)
            stream.start(ready=self._wanted, drain=self._drain)
        else:
            self.live.listener = CameraInfoSubscriber(self, camera)
            self.live.images = ImageSubscriber(self, self._wanted, self._receive, camera.transport)

    def _wanted(self) -> bool:
        return self.live.switch.enabled and (
            self.live.faces.wanted(self.config("output"))
            or self.live.detections.wanted()
            or self.live.visualizer.wanted()
        )

    def _take(self, image: Image, camera: PinholeCamera, header: Header) -> None:
        """An image of our own source, in its thread."""
        if self._wanted():
            put = self.live.slot.put_when_idle if self._in_lockstep() else self.live.slot.put
            put((image, camera, header))
        self.live.camera_topics.publish(image, camera, header)

    def _in_lockstep(self) -> bool:
        return bool(self.config("camera").lockstep)

    def _receive(self, msg: ImageMsg | CompressedImage) -> None:
        """An image of another node's camera, in the executor's thread."""
        self.arrived(conversions.seconds_from_stamp(msg.header.stamp))
        self.live.slot.put((msg, None, msg.header))

    def _work(self, item: tuple[Any, PinholeCamera | None, Header]) -> None:
        image, camera, header = item
        start = time.perf_counter()
        if not isinstance(image, Image):
            image = self.live.images.read(image)
        if camera is None:
            camera = self.live.listener.of(image)
        converted = time.perf_counter()
        self.loaded.pipeline.finder.tune(self.config("detector"))
        self.loaded.pipeline.reconstructor.tune(self.config("reconstructor"))
        self.loaded.pipeline.head_state.tune(self.config("output"))
        seen = self.live.depth
        depth = partial(seen.at, image.stamp, camera) if seen else None
        frame = self.loaded.pipeline.process(image, camera, depth)
        processed = time.perf_counter()
        if self.live.detections.wanted():
            self.live.detections.publish(frame.tracks, frame.crops, header)
        cloud = self.live.faces.publish(
            frame.faces, frame.crops, camera, header, self.config("output")
        )
        config, hurried = self.config("visualization"), frame.carried > 0
        if self.live.visualizer.due(image.stamp, config, hurried=hurried):
            faces = [DrawnFace.of(face) for face in frame.faces]
            self.live.drawing.put(Scene(header, faces, cloud, camera, image.rgb))
        published = time.perf_counter()
        self.loaded.pipeline.also_took(published - processed)
        self.meter.count("processed")
        self.meter.count("faces", len(frame.faces))
        self.meter.count("faces_carried", frame.carried)
        count_unusable(self, frame.unusable)
        if seen:
            seen.count(frame.faces)
        report_presence(self.meter, frame.faces)
        self.meter.count("frames_with_face", bool(frame.faces))
        self.meter.fact("camera_calibrated", str(camera.calibrated).lower())
        self.meter.time(
            {
                "convert": converted - start,
                **frame.timings,
                "publish": published - processed,
                **self.stamps.latency(image.stamp),
            }
        )

    def _draw(self, scene: Scene) -> None:
        self.live.visualizer.publish(scene, self.config("visualization"))

    def _drain(self) -> None:
        self.live.slot.wait_until_idle(_DRAIN_S)
        self.live.drawing.wait_until_idle(_DRAIN_S)


def main() -> None:
    """Entry point."""
    run(PipelineNode)


if __name__ == "__main__":
    main()
