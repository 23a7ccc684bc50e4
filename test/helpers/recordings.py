"""A head that moves as written down, a pipeline that follows it, and a bag of both."""

import numpy as np

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.pipeline import Frame
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Coefficients, Face, Image, Mesh, Track
from face_recon_ros.evaluation.record import BagWriter
from face_recon_ros.evaluation.synthetic import facing

STAMPS = 100 + np.arange(0, 8, 1 / 30)
CAMERA = PinholeCamera(64, 48, np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]))


def picture(i):
    return np.full((48, 64, 3), i % 256, np.uint8)


def pictures(stamps):
    return [Image(picture(i), t, "cam") for i, t in enumerate(stamps)]


def head(t):
    return facing(
        [0.05 * np.sin(t), 0.02 * np.cos(2 * t), 0.7],
        yaw=0.5 * np.sin(1.1 * t),
        pitch=0.3 * np.sin(0.7 * t + 1),
        roll=0.15 * np.sin(1.9 * t),
    )


class Scripted:
    """A pipeline that knows `head` and errs by a frame-wise turn of known size."""

    def __init__(self, error_deg=0.0, delay_s=0.0, missing=()):
        self.error, self.delay, self.missing = np.radians(error_deg), delay_s, missing
        self.rng = np.random.default_rng(0)

    def process(self, image, camera=None):
        if any(abs(image.stamp - m) < 1e-6 for m in self.missing):
            return Frame([], NO_CROPS, None, {})
        axis = self.rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        pose = head(image.stamp - self.delay)
        pose = Rigid(pose.rotation @ rotation_from_vector(self.error * axis), pose.translation)
        track = Track("a", np.float32([10, 10, 30, 30]), 1.0, image.stamp)
        coefficients = Coefficients.zeros(1, 80, 52, 80)
        mesh = Mesh(np.zeros((1, 3), np.float32), np.zeros((0, 3), np.int32))
        crop = Crop(np.zeros(2), 10.0, 10)
        face = Face(track, crop, coefficients, pose, mesh, track.box, image.stamp)
        return Frame([face], NO_CROPS, None, {})


NO_CROPS = np.zeros((0, 1, 1, 3), np.uint8)
NAMES = ("eyeBlinkLeft", "eyeBlinkRight", *(f"e{i}" for i in range(50)))


def write_mocap_bag(path, offset_s=0.0, *, frame="mocap", tf=False, x=None, y=None):
    """Images at STAMPS; the head's marker in another frame, by a clock that is `offset_s`
    behind."""
    with BagWriter(path) as bag:
        for image in pictures(STAMPS):
            bag.image(image)
        for t in np.arange(99, 109.5, 0.01):
            motion = head(t) if y is None else y @ head(t)
            motion = motion if x is None else motion @ x
            if tf:
                bag.transform(motion, t - offset_s, frame, "head_marker")
            else:
                bag.pose(motion, t - offset_s, frame, "/mocap/head")
