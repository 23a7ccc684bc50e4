"""Peers and hardware that fail, for test_reliability.py; each is a process of its own.

faulty.py camera                    publishes a picture at 30 Hz until it is killed
faulty.py subscriber                takes meshes, overlay and detections; prints when
faulty.py pipeline FOLDER           the pipeline node on a machine that obeys files in FOLDER:
                                    `camera` there: /dev/video7 is; `lost` there: the GPU is not
"""

import sys
import time
from pathlib import Path

import numpy as np


def picture():
    from face_recon_ros.core.pattern import TurningHead

    return TurningHead(640, 480).render(0.0)


def camera():
    import rclpy
    from sensor_msgs.msg import Image

    from face_recon_ros.nodes import conversions
    from face_recon_ros.nodes.runtime import SENSOR_QOS

    rgb = picture()
    rclpy.init()
    node = rclpy.create_node("camera_peer")
    publisher = node.create_publisher(Image, "/camera/image_raw", SENSOR_QOS)

    def publish():
        header = conversions.header_of(time.time(), "peer")
        publisher.publish(conversions.image_to_msg(rgb, header))

    node.create_timer(1 / 30, publish)
    rclpy.spin(node)


def subscriber():
    import rclpy
    from sensor_msgs.msg import Image, PointCloud2
    from vision_msgs.msg import Detection2DArray

    from face_recon_ros.nodes.runtime import RESULT_QOS, SENSOR_QOS

    rclpy.init()
    node = rclpy.create_node("slow_peer")
    for topic, kind, qos in (
        ("mesh/vertices", PointCloud2, SENSOR_QOS),
        ("mesh/image", Image, SENSOR_QOS),
        ("detections", Detection2DArray, RESULT_QOS),
    ):
        node.create_subscription(
            kind, f"/face/{topic}", lambda m, t=topic: print(t, time.monotonic(), flush=True), qos
        )
    rclpy.spin(node)


class FakeCamera:
    """cv2.VideoCapture of a device that is there as long as a file is."""

    file: Path
    rgb: np.ndarray

    def __init__(self, *args):
        self._open = self.file.exists()

    def isOpened(self):  # noqa: N802
        return self._open

    def grab(self):
        time.sleep(1 / 30)
        self._open = self._open and self.file.exists()
        return self._open

    def retrieve(self):
        return True, self.rgb[..., ::-1]

    def get(self, key):
        return 30.0

    def set(self, key, value):
        return True

    def release(self):
        self._open = False


def fake_session(real, lost: Path):
    """onnxruntime.InferenceSession whose CUDA is our CPU, until `lost` is there."""

    class Session:
        def __init__(self, path, options, providers, settings=None):
            self._cuda = "CUDA" in providers[0]
            self._session = real(path, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return ["CUDAExecutionProvider"] if self._cuda else self._session.get_providers()

        def run(self, names, feed):
            if self._cuda and lost.exists():
                raise RuntimeError("CUDA failure 719: unspecified launch failure")
            return self._session.run(names, feed)

        def __getattr__(self, name):
            return getattr(self._session, name)

    return Session


def pipeline(folder: Path):
    import cv2
    import onnxruntime as ort

    from face_recon_ros.io import sources
    from face_recon_ros.nodes.pipeline import main

    FakeCamera.file, FakeCamera.rgb = folder / "camera", picture()
    exists = Path.exists

    def faked(path):
        return exists(FakeCamera.file if str(path) == "/dev/video7" else path)

    sources.Path.exists = faked
    cv2.VideoCapture = FakeCamera
    ort.InferenceSession = fake_session(ort.InferenceSession, folder / "lost")
    ort.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    main()


if __name__ == "__main__":
    what, rest = sys.argv[1], sys.argv[2:]
    if what == "pipeline":
        pipeline(Path(rest[0]))
    else:
        {"camera": camera, "subscriber": subscriber}[what]()
