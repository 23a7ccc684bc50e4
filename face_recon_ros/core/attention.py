"""Where people look, and whether it is at the robot.

Frames of REP-155: `gaze_<id>` lies where `face_<id>` lies; its z axis is the gaze, x points to the
person's right, y down, as in an optical frame. Without any eye movement its z is the face's x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from face_recon_ros.core.alignment import align_points
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.rigid import Rigid, rotation_from_vector, vector_from_rotation

#: The gaze frame in the face frame when the eyes look straight ahead.
FACE_FROM_STRAIGHT_GAZE = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

_EYEBALL = "eyeball"
_LOOKING = "eyeLook"


class Gaze:
    """From expression to gaze: the eyes turn as far as the face model's own eyeballs do."""

    def __init__(self, model: MorphableModel) -> None:
        """Measures how the model's `eyeLook*` units turn its eyeballs.

        Args:
            model: one without eyeballs or such units has people look where their faces point.
        """
        self._turns = np.zeros((model.k_expression, 3))  # rotation vector at activation 1
        units = [k for k, name in enumerate(model.expression_names) if name.startswith(_LOOKING)]
        if _EYEBALL not in model.region_names:
            return
        is_eye = model.regions == model.region_names.index(_EYEBALL)
        basis = model.expression_basis.reshape(model.n_vertices, 3, -1)
        for k in units:
            moved = is_eye & (np.linalg.norm(basis[:, :, k], axis=1) > 0)
            if moved.sum() < 3:
                continue
            before = model.mean_shape[moved].astype(np.float64)
            after = before + basis[moved, :, k]
            after_from_before = align_points(before, after, with_scale=False)
            # Both eyes share one gaze, each with half a say.
            self._turns[k] = 0.5 * vector_from_rotation(after_from_before.rotation)

    def __call__(self, camera_from_face: Rigid, expression: ArrayLike) -> Rigid:
        """The gaze frame.

        Args:
            camera_from_face: head, metres.
            expression: (K_exp,) activations.

        Returns:
            camera_from_gaze, metres.
        """
        turn = rotation_from_vector(np.asarray(expression, np.float64) @ self._turns)
        rotation = camera_from_face.rotation @ turn @ FACE_FROM_STRAIGHT_GAZE
        return Rigid(rotation, camera_from_face.translation)


def attention_angle(camera_from_gaze: Rigid) -> float:
    """Angle between a gaze and the direction to the camera, radians in [0, pi]."""
    # In plain numbers: with arrays of three numpy takes ten times as long.
    x, y, z = (-camera_from_gaze.translation).tolist()
    a, b, c = camera_from_gaze.rotation[:, 2].tolist()
    sine = math.hypot(b * z - c * y, c * x - a * z, a * y - b * x)
    return math.atan2(sine, a * x + b * y + c * z)


@dataclass(frozen=True)
class AttentionConfig:
    """When a person counts as looking at the robot.

    Attributes:
        enter: A person begins to look at the camera below this angle between gaze and
            camera, in radians.
        leave: A person stops looking at the camera beyond this angle, in radians.
        dwell_s: Either must last for this time in seconds.
    """

    enter: float = ranged(0.25, 0.01, 3.1416)
    leave: float = ranged(0.40, 0.01, 3.1416)
    dwell_s: float = ranged(0.2, 0.0, 60.0)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.enter > self.leave:
            raise ConfigError("enter <= leave", f"{self}", "0.25 and 0.40 are the defaults")


@dataclass(frozen=True)
class _Look:
    """Whether a person looks at the robot, and since when the opposite seems true."""

    looking: bool
    doubted_since: float | None = None


class Attention:
    """Who looks at the robot, with hysteresis and dwell. Time is an argument."""

    def __init__(self) -> None:
        """Starts without people."""
        self._looks: dict[str, _Look] = {}

    def update(
        self, angles: Mapping[str, float], stamp: float, config: AttentionConfig | None = None
    ) -> dict[str, float]:
        """Takes in one image.

        Args:
            angles: of each person in it, id -> `attention_angle`, radians. Others are forgotten.
            stamp: seconds.
            config: when a person counts as looking; may change from image to image.

        Returns:
            Those who look at the robot: id -> how directly, 1 for right into the camera, falling
            to 0 at `leave`.
        """
        config = config or AttentionConfig()
        self._looks = {k: _next(config, self._looks.get(k), a, stamp) for k, a in angles.items()}
        return {
            k: max(0.0, 1.0 - angles[k] / config.leave)
            for k, look in self._looks.items()
            if look.looking
        }


def _next(config: AttentionConfig, before: _Look | None, angle: float, stamp: float) -> _Look:
    look = before or _Look(looking=False)
    seems = angle <= (config.leave if look.looking else config.enter)
    if seems == look.looking:
        return _Look(look.looking)
    since = look.doubted_since
    if since is None or since > stamp:  # the clock went back
        since = stamp
    if stamp - since >= config.dwell_s:
        return _Look(seems)
    return _Look(look.looking, since)
