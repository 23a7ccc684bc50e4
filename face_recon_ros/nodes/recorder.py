"""Recorder nodes of the demo: separate processes that listen to the topics.

`meshes` receives the meshes and writes summary.json and mesh.ply; `overlay` receives the overlay
picture and writes overlay.mp4 and preview.png. Two processes, so that encoding video does not
delay the reception that is measured.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import PointCloud2
from shape_msgs.msg import Mesh as MeshMsg

from face_recon_ros.core.errors import FaceReconError
from face_recon_ros.core.types import Mesh
from face_recon_ros.io.images import png_bytes
from face_recon_ros.io.meshes import write_ply
from face_recon_ros.io.video import VideoWriter
from face_recon_ros.nodes import conversions
from face_recon_ros.nodes.runtime import LATCHED_QOS, RESULT_QOS, WAKE_PERIOD_S, leave, spin
from face_recon_ros.nodes.synchronizer import ExactTimeSynchronizer

#: As SENSOR_QOS, but deep enough to count every message even where this process is late.
COUNTING_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
_PERCENTILES = (50, 95, 99)
_VIDEO_HZ = 30.0
_LOW_PRIORITY = 10
#: Whose memory counts: those that make the meshes, not those that look at them.
_MEASURED = ("pipeline", "camera", "detector", "reconstruction", "visualization")


class MeshRecorder(Node):
    """Counts and times the meshes, keeps the best one and what the nodes say of themselves."""

    def __init__(self, folder: Path) -> None:
        """Subscribes."""
        super().__init__("mesh_recorder", namespace="face")
        self._folder = folder
        self._latencies: list[float] = []
        self._arrivals: list[float] = []
        self._health: dict[str, dict[str, str]] = {}
        self._triangles: NDArray[np.int32] | None = None
        self._best: tuple[float, Mesh] | None = None
        self._matcher = ExactTimeSynchronizer(("vertices", "poses"))
        self.create_subscription(PointCloud2, "mesh/vertices", self._receive, COUNTING_QOS)
        self.create_subscription(MeshMsg, "mesh/topology", self._receive_topology, LATCHED_QOS)
        self.create_subscription(PoseArray, "head_poses", self._receive_poses, RESULT_QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._receive_health, 50)
        self.create_timer(WAKE_PERIOD_S, lambda: None)  # see `spin`
        # A recorder that is killed while it shuts down leaves what it had a second before.
        self.create_timer(1.0, self._write_summary)

    def _receive(self, msg: PointCloud2) -> None:
        now = self.get_clock().now().nanoseconds * 1e-9
        if msg.height:
            self._arrivals.append(now)
            self._latencies.append(now - conversions.seconds_from_stamp(msg.header.stamp))
            self._consider(self._matcher.add("vertices", msg))

    def _receive_poses(self, msg: PoseArray) -> None:
        self._consider(self._matcher.add("poses", msg))

    def _receive_topology(self, msg: MeshMsg) -> None:
        try:
            self._triangles = conversions.topology_from_msg(msg)[0]
        except FaceReconError as fault:
            self.get_logger().error(str(fault))

    def _receive_health(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name.startswith("face_recon: "):
                name = status.name.removeprefix("face_recon: ")
                self._health[name] = {v.key: v.value for v in status.values}

    def _consider(self, parts: dict | None) -> None:
        """Keeps the mesh of the face that looked most straight into the camera."""
        if parts is None or self._triangles is None or not parts["poses"].poses:
            return
        poses = [conversions.rigid_from_pose_msg(p) for p in parts["poses"].poses]
        frontal = [
            -float(p.rotation[:, 0] @ p.translation) / float(np.linalg.norm(p.translation))
            for p in poses
        ]
        i = int(np.argmax(frontal))
        if self._best is None or frontal[i] > self._best[0]:
            cloud = conversions.cloud_from_msg(parts["vertices"])
            vertices = poses[i].inverse().apply(cloud.vertices[i])
            colours = cloud.colours[i].astype(np.float32) / 255.0
            self._best = frontal[i], Mesh(vertices, self._triangles, colours)

    def write(self) -> None:
        """Writes summary.json and, if there was a face, mesh.ply (face frame, metres)."""
        if self._best:
            write_ply(self._folder / "mesh.ply", self._best[1])
        self._write_summary()

    def _write_summary(self) -> None:
        text = json.dumps(self.summary(), indent=2)
        (self._folder / "summary.json").write_text(text + "\n")

    def summary(self) -> dict[str, object]:
        """The figures of the run, as the design lists them."""
        first = self._health.get("pipeline") or self._health.get("camera", {})
        faces = self._health.get("pipeline") or self._health.get("reconstruction", {})
        stages: dict[str, dict[str, float]] = {}
        for name, values in sorted(self._health.items()):
            for key, value in values.items():
                if key.endswith("_ms") and key != "latency_ms":
                    words = value.split()
                    stage = key.removesuffix("_ms")
                    stage = stage if name == "pipeline" else f"{name}.{stage}"
                    stages[stage] = {
                        k: float(v) for k, v in zip(words[::2], words[1::2], strict=True)
                    }
        seconds = self._arrivals[-1] - self._arrivals[0] if len(self._arrivals) > 1 else 0.0
        return {
            "frames_in": int(first.get("frames_in", 0)),
            "frames_processed": int(faces.get("processed", 0)),
            "frames_with_face": int(faces.get("frames_with_face", 0)),
            "faces_detected": int(faces.get("faces", 0)),
            "mesh_messages_received": len(self._latencies),
            "mesh_hz": round((len(self._arrivals) - 1) / seconds, 2) if seconds else 0.0,
            "latency_ms": _percentiles(self._latencies),
            "stage_ms": stages,
            "providers": [faces["providers"]] if "providers" in faces else [],
            "model": faces.get("model", ""),
            "face_model": faces.get("face_model", ""),
            "camera_calibrated": faces.get("camera_calibrated", "false") == "true",
            "peak_rss_mb": sum(
                float(self._health[name].get("peak_rss_mb", 0))
                for name in _MEASURED
                if name in self._health
            ),
            "composed": "pipeline" in self._health,
        }


class OverlayRecorder(Node):
    """Writes the overlay pictures as a video that runs as fast as the run did."""

    def __init__(self, folder: Path) -> None:
        """Subscribes."""
        super().__init__("overlay_recorder", namespace="face")
        self.create_timer(WAKE_PERIOD_S, lambda: None)  # see `spin`
        self._folder = folder
        self._video = VideoWriter(folder / "overlay.mp4", _VIDEO_HZ)
        self._received = 0
        self.create_subscription(ImageMsg, "mesh/image", self._receive, COUNTING_QOS)

    def _receive(self, msg: ImageMsg) -> None:
        image = conversions.image_from_msg(msg)
        self._video.write(image.rgb, image.stamp)
        self._received += 1
        if self._received & (self._received - 1) == 0:  # 1, 2, 4 ...: the last is from past half
            (self._folder / "preview.png").write_bytes(png_bytes(image.rgb))

    def write(self) -> None:
        """Finishes the video."""
        self._video.close()


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    values = np.percentile(np.array(seconds) * 1e3, _PERCENTILES)
    return {f"p{p}": round(float(v), 2) for p, v in zip(_PERCENTILES, values, strict=True)}


def main() -> None:
    """Says `listening` when it does, records until it is asked to stop (SIGTERM), then writes."""
    recorders = {"meshes": MeshRecorder, "overlay": OverlayRecorder}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=sorted(recorders))
    parser.add_argument("--out", type=Path, required=True, help="folder of the files, must exist")
    arguments = parser.parse_args(remove_ros_args()[1:])
    recorder = None
    try:
        rclpy.init()
        if arguments.what == "overlay":
            os.nice(_LOW_PRIORITY)  # what is looked at later must not delay what it shows
        recorder = recorders[arguments.what](arguments.out)
        print("listening", flush=True)
        spin(recorder, Future())
    except Exception:
        if recorder or rclpy.ok():
            raise  # else it was asked to stop while it was starting
    finally:
        if recorder:
            recorder.write()
    leave(0, recorder)


if __name__ == "__main__":
    main()
