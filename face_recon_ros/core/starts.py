"""Where the fit of each face starts: from the regressor's answer, or from the track's last one.

The regressor answers for any crop. On a track whose pose is known the last answer, moved on with
constant velocity, is as near the truth and costs next to nothing. So the regressor runs on the
first images of a track, on every n-th after that, and where the last fit did not settle. What only
the regressor says (albedo, light, the identity of a picture for itself) is kept from its last run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.crop_pose import (
    CROP_FOCAL,
    coefficients_from_crop_pose,
    crop_from_camera_pose,
    crop_from_face,
)
from face_recon_ros.core.crop_pose import camera_from_face as camera_from_crop_pose
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.rigid import Rigid, rotation_from_vector, vector_from_rotation

Array = NDArray[np.float64]

_HORIZON_S = 0.15  # for how long a pose and its velocity are believed
#: How far a still head seems to move from one image to the next: radians; over depth: right,
#: down, away.
_TURN_NOISE, _PLACE_NOISE = 0.01, np.array([0.0015, 0.0015, 0.01])
_FAST_TURN, _FAST_PLACE = 0.1, 0.03  # likewise, of a head whose next pose is hard to guess
_ASIDE = 0.3  # crop sides from its middle, at which an expected sellion is another face's


class Start(NamedTuple):
    """Where a face is expected.

    Attributes:
        prediction: one row, in the crop of now.
        fast: the head moves so fast that the regressor should look, too.
    """

    prediction: Prediction
    fast: bool


class Beside(NamedTuple):
    """How a regressor's answer differs from the fit that started there.

    Starts in between are moved by as much. The dense points take back a part of a regressor's
    errors; from the fit's own answer they would take it back once more, and a still face would
    change from one image to the next.

    Attributes:
        rotation: (3, 3) fit_from_regressed, face frame.
        translation: (3,) camera frame, over depth.
        expression: (K_exp,).
    """

    rotation: Array
    translation: Array
    expression: NDArray[np.floating]

    @staticmethod
    def of(
        camera_from_face: Rigid, prediction: Prediction, crop: Crop, camera: PinholeCamera
    ) -> Beside:
        """Of one row that was regressed and fitted in an image; the head is as it was fitted."""
        c, r, fit = (
            prediction.coefficients,
            prediction.regressed or prediction.coefficients,
            camera_from_face,
        )
        nominal = crop_from_face(r.rotation[0], r.translation[0])
        began = camera_from_crop_pose(nominal, crop, camera)
        return Beside(
            fit.rotation.T @ began.rotation,
            (began.translation - fit.translation) / fit.translation[2],
            r.expression[0] - c.expression[0],
        )


@dataclass(frozen=True)
class LastAnswer:
    """What was found of a track in one image.

    Attributes:
        stamp: seconds, of the image.
        camera_from_face: the head as it was found, before any smoothing.
        turning: (3,) angular velocity about the camera's axes, radians per second.
        moving: (3,) metres per second.
        prediction: one row, as fitted.
        beside: what the regressor's answer differed by from the fit when it ran last.
    """

    stamp: float
    camera_from_face: Rigid
    turning: Array
    moving: Array
    prediction: Prediction
    beside: Beside

    @staticmethod
    def after(
        before: LastAnswer | None,
        stamp: float,
        camera_from_face: Rigid,
        prediction: Prediction,
        crop: Crop,
        camera: PinholeCamera,
    ) -> LastAnswer:
        """What was found next.

        Args:
            before: of the same track; None where nothing is known.
            stamp: seconds, of the image.
            camera_from_face: the head as it was found.
            prediction: one row, as fitted.
            crop: of the track in the image.
            camera: that took it.
        """
        turning, moving = np.zeros(3), np.zeros(3)
        if before is not None and 0.0 < (dt := stamp - before.stamp) <= _HORIZON_S:
            then, now = before.camera_from_face, camera_from_face
            turned = vector_from_rotation(now.rotation @ then.rotation.T)
            moved = now.translation - then.translation
            noise = now.translation[2] * _PLACE_NOISE
            turning = _more_than(_TURN_NOISE, turned) / dt
            moving = _each_more_than(noise, moved) / dt
        if before is not None and prediction.is_carried[0]:
            beside = before.beside
        else:
            beside = Beside.of(camera_from_face, prediction, crop, camera)
        return LastAnswer(stamp, camera_from_face, turning, moving, prediction, beside)

    @property
    def waited(self) -> int:
        """Images of the track since the regressor ran."""
        return 0 if self.prediction.waited is None else int(self.prediction.waited[0])

    def expected(self, stamp: float) -> Rigid:
        """camera_from_face at a later stamp, in seconds."""
        dt, pose = stamp - self.stamp, self.camera_from_face
        turn = rotation_from_vector(dt * self.turning)
        return Rigid(turn @ pose.rotation, pose.translation + dt * self.moving)

    def start(self, stamp: float, crop: Crop, camera: PinholeCamera) -> Start | None:
        """Where the fit of a later image starts.

        Args:
            stamp: seconds, of the image.
            crop: of the track there.
            camera: that took both images.

        Returns:
            None where this answer says nothing of that image: too long ago, or another
            head than the crop's.
        """
        p = self.prediction
        if p.settled is None or not p.settled[0] or not 0.0 < stamp - self.stamp <= _HORIZON_S:
            return None
        pose, beside = self.expected(stamp), self.beside
        if pose.translation[2] <= 0.0:
            return None
        pose = Rigid(
            pose.rotation @ beside.rotation,
            pose.translation + pose.translation[2] * beside.translation,
        )
        rotation, translation = coefficients_from_crop_pose(
            crop_from_camera_pose(pose, crop, camera)
        )
        aside = math.hypot(*(CROP_FOCAL * translation[:2] / translation[2]).tolist())
        if not aside < _ASIDE:
            return None
        c, r = p.coefficients, p.regressed or p.coefficients
        low = min(c.expression.min(initial=0.0), r.expression.min(initial=0.0))
        high = max(c.expression.max(initial=0.0), r.expression.max(initial=0.0))
        expression = np.clip(c.expression + beside.expression, low, high)
        placed = replace(
            r,
            rotation=rotation[None].astype(np.float32),
            translation=translation[None].astype(np.float32),
            expression=expression.astype(np.float32),
        )
        waited = np.array([self.waited + 1], np.intp)
        row = Prediction(placed, p.identity_confidence, regressed=p.regressed, waited=waited)
        dt, depth = stamp - self.stamp, pose.translation[2]
        fast = dt * math.hypot(*self.turning.tolist()) > _FAST_TURN
        across = dt * math.hypot(*self.moving[:2].tolist())
        return Start(row, bool(fast or across > _FAST_PLACE * depth))


def _more_than(noise: float, motion: Array) -> Array:
    """A motion as far as it is more than noise."""
    square = float(motion @ motion)
    return np.asarray(motion * (square / (square + noise**2)))


def _each_more_than(noise: Array, motion: Array) -> Array:
    """Each component of a motion as far as it is more than its noise."""
    square = motion * motion
    return np.asarray(motion * (square / (square + noise * noise)))


def choose_waiting(starts: Sequence[Start | None], every: int) -> list[bool]:
    """Which faces of an image do without the regressor, so that they take turns.

    Args:
        starts: N, where each face is expected (`LastAnswer.start`); None: the regressor has to
            run.
        every: it runs on every n-th image of a track, at least; of many faces that are due at
            once, some wait a little longer, so that they are spread from then on.

    Returns:
        N, true where the regressor need not run.
    """
    waited = {
        i: int(start.prediction.waited[0])
        for i, start in enumerate(starts)
        if start is not None and start.prediction.waited is not None and not start.fast
    }
    due = sorted((i for i, n in waited.items() if n >= every), key=lambda i: (-waited[i], i))
    asked = set(due[: -(-len(waited) // every)])
    return [i in waited and i not in asked for i in range(len(starts))]
