"""Detector node: images -> /face/detections and /face/crops."""

from __future__ import annotations

import time
from functools import partial

from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg

from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.inference import find_network, read_crop_spec
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.enable import EnableService
from face_recon_ros.nodes.image_subscriber import ImageSubscriber
from face_recon_ros.nodes.outputs import DetectionOutputs
from face_recon_ros.nodes.runtime import FaceNode, run
from face_recon_ros.nodes.status import Meter


class DetectorNode(FaceNode):
    """Finds and follows faces."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("detector", ("camera", "detector", "tracker", "reconstructor", "output"))

    def set_up(self) -> None:
        """Loads the detector."""
        detector = self.config("detector")
        self.loaded.finder = FaceFinder.from_config(detector, self.config("tracker").seeded())
        self.loaded.finder.warm_up()
        wanted = self.config("reconstructor")
        self.loaded.crop_spec = read_crop_spec(find_network(wanted.network, wanted.provider))
        self.meter.fact("model", detector.backend)

    def begin(self) -> None:
        """Subscribes while the results have a subscriber."""
        self.live.outputs = DetectionOutputs(self)
        self.live.slot = self.start_worker("detector", self._work)
        self.watch(partial(report_tracks, self.meter, self.loaded.finder))
        self.live.switch = EnableService(self)
        self.live.images = ImageSubscriber(
            self,
            lambda: (
                self.live.switch.enabled
                and (self.live.outputs.wanted() or self.config("output").always)
            ),
            self._receive,
            self.config("camera").transport,
        )

    def _receive(self, msg: ImageMsg | CompressedImage) -> None:
        self.arrived(conversions.seconds_from_stamp(msg.header.stamp))
        self.live.slot.put(msg)

    def _work(self, msg: ImageMsg | CompressedImage) -> None:
        start = time.perf_counter()
        image = self.live.images.read(msg)
        converted = time.perf_counter()
        self.loaded.finder.tune(self.config("detector"))
        self.loaded.finder.find(image)
        tracks = self.loaded.finder.visible()
        found = time.perf_counter()
        crops = self.loaded.crop_spec.crops(t.box for t in tracks)
        pixels = self.loaded.crop_spec.extract(image.rgb, crops)
        cut = time.perf_counter()
        self.live.outputs.publish(tracks, pixels, msg.header)
        self.meter.count("processed")
        self.meter.count("faces", len(tracks))
        self.meter.time(
            {
                "convert": converted - start,
                "detect": found - converted,
                "crop": cut - found,
                "publish": time.perf_counter() - cut,
                **self.stamps.latency(image.stamp),
            }
        )


def report_tracks(meter: Meter, finder: FaceFinder) -> str:
    """Says in /diagnostics whom the tracker follows; it warns of faces that it may not follow."""
    tracks, left_out = list(finder.tracks), finder.left_out
    meter.fact("tracks", str(len(tracks)))
    meter.fact("track_ids", " ".join(t.id for t in tracks))
    if not left_out:
        return ""
    seen = len(tracks) + left_out
    return f"{seen} faces are seen and {len(tracks)} followed: raise tracker.max_faces"


def main() -> None:
    """Entry point."""
    run(DetectorNode)


if __name__ == "__main__":
    main()
