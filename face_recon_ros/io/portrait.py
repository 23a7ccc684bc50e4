"""A clip of a real person that is free to ship: NASA's portrait of Eileen Collins, moving.

The photograph (public domain) moves through a 720p picture, turns in it and comes closer. It is
flat: heads do not turn sideways. `core.pattern` renders a head that does.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.io.images import read_image

PORTRAIT = Path(__file__).with_name("portrait.jpg")
PERIOD_S = 10.0
FPS = 30.0

_FACE_PX = np.array([222.0, 118.0])  # the middle of the face in the photograph
_FACE_SIDE_PX = 100.0
_NEAR, _FAR = 0.34, 0.17  # side of the face over the height of the picture
_ROLL = np.radians(12.0)


class MovingPortrait:
    """Shows the photograph at any time; the motion repeats after `PERIOD_S`."""

    def __init__(self, width: int, height: int) -> None:
        """Prepares pictures of a size in pixels."""
        self._photograph = read_image(PORTRAIT)
        self._size = width, height
        colours = cv2.resize(self._photograph, (8, 8), interpolation=cv2.INTER_AREA)
        ground = cv2.resize(colours, self._size, interpolation=cv2.INTER_CUBIC)
        self._ground = np.asarray(ground // 3 + 50, np.uint8)

    def image_from_photograph(self, time_s: float) -> NDArray[np.float64]:
        """(2, 3) affine map of the photograph's pixels to the picture's."""
        phase = 2 * np.pi * time_s / PERIOD_S
        width, height = self._size
        nearness = (1 - np.cos(phase)) / 2
        scale = height * (_FAR + (_NEAR - _FAR) * nearness) / _FACE_SIDE_PX
        roll = _ROLL * np.sin(2 * phase)
        turn = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        place = np.array(
            [width * (0.5 + 0.14 * np.sin(phase)), height * (0.42 + 0.05 * np.sin(2 * phase))]
        )
        return np.column_stack([turn, place - turn @ _FACE_PX])

    def render(self, time_s: float) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB picture at a time in seconds."""
        out = self._ground.copy()
        affine = self.image_from_photograph(time_s)
        return np.asarray(
            cv2.warpAffine(
                self._photograph, affine, self._size, out, borderMode=cv2.BORDER_TRANSPARENT
            ),
            np.uint8,
        )
