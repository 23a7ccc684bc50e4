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
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.rigid import Rigid, rotation_from_vector, vector_from_rotation

Array = NDArray[np.float64]

_HORIZON_S = 0.15  # for how long a pose and its velocity are believed
#: How far a still head seems to move from one image to the next: radians; over depth: right,
#: down, away.
_TURN_NOISE, _PLACE_NOISE = 0.01, np.array([0.0015, 0.0015, 0.01])
_FAST_TURN, _FAST_PLACE = 0.1, 0.03  # likewise, of a head whose next pose is hard to guess
_TRUST = 0.4  # share of the regressor's pose where another one is expected
_ELSEWHERE = 0.2  # radians, or depths: so far apart are the two only if one is wrong
_ASIDE = 0.3  # crop sides from its middle, at which an expected sellion is another face's


class Start(NamedTuple):
    """Where a face is expected.

    Attributes:
        prediction: one row, in the crop of now.
        fast: the head moves so fast that the regressor should look, too.
    """

    prediction: Prediction
    fast: bool


@dataclass(frozen=True)
class LastAnswer:
    """What was found of a track in one image.

    Attributes:
        stamp: seconds, of the image.
        camera_from_face: the head as it was found, before any smoothing.
        turning: (3,) angular velocity about the camera's axes, radians per second.
        moving: (3,) metres per second.
        prediction: one row, as fitted.
    """

    stamp: float
    camera_from_face: Rigid
    turning: Array
    moving: Array
    prediction: Prediction

    @staticmethod
    def after(
        before: LastAnswer | None, stamp: float, camera_from_face: Rigid, prediction: Prediction
    ) -> LastAnswer:
        """What was found next.

        Args:
            before: of the same track; None where nothing is known.
            stamp: seconds, of the image.
            camera_from_face: the head as it was found.
            prediction: one row, as fitted.
        """
        turning, moving = np.zeros(3), np.zeros(3)
        if before is not None and 0.0 < (dt := stamp - before.stamp) <= _HORIZON_S:
            then, now = before.camera_from_face, camera_from_face
            turned = vector_from_rotation(now.rotation @ then.rotation.T)
            moved = now.translation - then.translation
            noise = now.translation[2] * _PLACE_NOISE
            turning = _more_than(_TURN_NOISE, turned) / dt
            moving = np.array([_more_than(n, m) for n, m in zip(noise, moved, strict=True)]) / dt
        return LastAnswer(stamp, camera_from_face, turning, moving, prediction)

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
        pose = self.expected(stamp)
        if pose.translation[2] <= 0.0:
            return None
        rotation, translation = coefficients_from_crop_pose(
            crop_from_camera_pose(pose, crop, camera)
        )
        aside = math.hypot(*(CROP_FOCAL * translation[:2] / translation[2]).tolist())
        if not aside < _ASIDE:
            return None
        c = p.coefficients
        placed = replace(
            c if p.regressed is None else p.regressed,
            rotation=rotation[None].astype(np.float32),
            translation=translation[None].astype(np.float32),
            expression=c.expression,
        )
        waited = np.array([self.waited + 1], np.intp)
        row = Prediction(placed, p.identity_confidence, regressed=p.regressed, waited=waited)
        dt, depth = stamp - self.stamp, pose.translation[2]
        fast = dt * np.linalg.norm(self.turning) > _FAST_TURN
        return Start(row, bool(fast or dt * np.linalg.norm(self.moving[:2]) > _FAST_PLACE * depth))


def _more_than(noise: float, motion: Array) -> Array:
    """A motion as far as it is more than noise."""
    square = np.square(motion).sum()
    return np.asarray(motion * (square / (square + noise**2)))


def between(regressed: Prediction, expected: Start | None) -> Prediction:
    """One row between a regressor's answer and what was expected, both in one crop.

    Their errors are independent. Where they are far apart, or where it is hard to say what to
    expect, the regressor is believed.
    """
    if expected is None or expected.fast:
        return regressed
    r, e = regressed.coefficients, expected.prediction.coefficients
    there, here = (crop_from_face(c.rotation[0], c.translation[0]) for c in (r, e))
    turn = vector_from_rotation(there.rotation @ here.rotation.T)
    away = (there.translation - here.translation) / here.translation[2]
    if np.linalg.norm(turn) > _ELSEWHERE or np.abs(away).max() > _ELSEWHERE:
        return regressed
    rotation, translation = coefficients_from_crop_pose(
        Rigid(
            rotation_from_vector(_TRUST * turn) @ here.rotation,
            here.translation + _TRUST * (there.translation - here.translation),
        )
    )
    middle = replace(
        r,
        rotation=rotation[None].astype(np.float32),
        translation=translation[None].astype(np.float32),
    )
    return replace(regressed, coefficients=middle)


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
