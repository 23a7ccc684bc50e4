"""One track: where its face is, how it moves, and when it was last seen there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.types import Float32, Track

_HORIZON_S = 0.25  # how long a velocity is believed without a new measurement
_VELOCITY_S = 0.05  # time in which a velocity follows what is newly seen
_TOUCH_S = 1.0  # how long people who touched may be taken for each other
_PRESENCE_GAIN = 0.6  # share of a new presence score: one that sees no face hides a sure one


@dataclass
class TrackState:
    """What is known of one track. Positions are centre x, y in pixels and log side; per second.

    The `anchor_*` are of the last measurement before this frame: velocity is reckoned from it.
    `sure_stamp` is of the last frame that showed the face for all we know: by a detection, or by a
    mesh while the detector has not looked there since and found nothing. `looked_stamp` is of the
    last frame in which the detector would have found the face (`Detections.looked_at`). `turn` is
    the face's largest angle to the camera since it was detected. `presence` is the network's
    answer to whether this is a face, None where it gives none. `covered`: its mesh is on the face
    of another track. `touched_stamp`: when another one was last so near that either may be taken
    for the other.
    """

    track: Track
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    measured_stamp: float
    anchor_position: NDArray[np.float64]
    anchor_velocity: NDArray[np.float64]
    anchor_stamp: float
    began_stamp: float
    detected_stamp: float
    detected_score: float
    detected_position: NDArray[np.float64]
    sure_stamp: float
    looked_stamp: float
    detections: int = 1
    detected_velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    tentative: bool = False
    closed_loop: bool = False
    presence: float | None = None
    turn: float = 0.0
    covered: bool = False
    touched_stamp: float = -np.inf

    @staticmethod
    def begin(name: str, box: ArrayLike, score: float, stamp: float) -> TrackState:
        """A track of one detection, whose (4,) box is in pixels."""
        position = position_of(box)
        return TrackState(
            Track(name, box_of(position), score, stamp),
            position,
            velocity=np.zeros(3),
            measured_stamp=stamp,
            anchor_position=position,
            anchor_velocity=np.zeros(3),
            anchor_stamp=stamp,
            began_stamp=stamp,
            detected_stamp=stamp,
            detected_score=score,
            detected_position=position,
            sure_stamp=stamp,
            looked_stamp=stamp,
        )

    @property
    def missed(self) -> bool:
        """Whether the detector has looked there since it last found this face."""
        return self.detected_stamp < self.looked_stamp

    def touched(self, stamp: float) -> bool:
        """Whether it was that near another track a moment ago."""
        return stamp - self.touched_stamp <= _TOUCH_S

    def advance(self, before: float, stamp: float, score: float) -> None:
        """Moves on with constant velocity from the frame before to the one of a stamp."""
        # Beyond the horizon a velocity says nothing any more: the box stands still.
        end = self.measured_stamp + _HORIZON_S
        move = max(0.0, min(stamp, end) - min(before, end))
        if self.measured_stamp == before:
            self.anchor_position, self.anchor_velocity = self.position, self.velocity
            self.anchor_stamp = before
        self.position = self.position + self.velocity * move
        self.track = replace(
            self.track,
            box=box_of(self.position),
            stamp=stamp,
            score=score,
            age=self.track.age + 1,
            misses=self.track.misses + 1,
        )

    def measure(self, box: ArrayLike, gain: float) -> None:
        """Corrects position and velocity by a (4,) box; gain 1 takes it as it is."""
        found = position_of(box)
        self.position = self.position + gain * (found - self.position)
        if (dt := self.track.stamp - self.anchor_stamp) > 0:
            seen = (self.position - self.anchor_position) / dt
            followed = 1.0 - math.exp(-dt / _VELOCITY_S)
            gain = 1.0 if self.anchor_stamp == self.began_stamp else followed
            self.velocity = self.anchor_velocity + gain * (seen - self.anchor_velocity)
        self.measured_stamp = self.track.stamp
        self.track = replace(self.track, box=box_of(self.position), misses=0)

    def detect(self, box: ArrayLike, gain: float, score: float, stamp: float) -> None:
        """Corrects by a detection, a (4,) box in pixels, of the current frame."""
        self.detected_stamp = self.sure_stamp = self.looked_stamp = stamp
        self.detected_score = score
        self.detections += 1
        self.measure(box, gain)
        self.detected_position = position_of(box)
        self.detected_velocity = self.velocity
        self.track = replace(self.track, score=score if self.presence is None else self.presence)

    def walked(self, stamp: float) -> NDArray[np.float64]:
        """(3,) where the face is if it walked on as it did when it was last detected."""
        velocity = self.detected_velocity * [1.0, 1.0, 0.0]
        return np.asarray(self.detected_position + velocity * (stamp - self.detected_stamp))

    def may_reactivate(self, stamp: float, within_s: float) -> bool:
        """Whether a track out of sight may be taken up again: not after its first detection."""
        return self.detections > 1 and 0.0 < stamp - self.detected_stamp <= within_s

    def reactivate(self, box: ArrayLike, score: float, stamp: float) -> None:
        """Goes on at the (4,) box, pixels, where the face was found after it was out of sight."""
        found = position_of(box)
        walked = (found - self.detected_position) * [1.0, 1.0, 0.0]
        self.velocity = self.anchor_velocity = walked / (stamp - self.detected_stamp)
        self.detected_velocity = self.velocity
        self.position = self.anchor_position = self.detected_position = found
        self.measured_stamp = self.anchor_stamp = stamp
        self.detected_stamp = self.sure_stamp = self.looked_stamp = stamp
        self.detected_score, self.closed_loop, self.presence = score, False, None
        self.detections += 1
        self.track = replace(self.track, box=box_of(found), score=score, stamp=stamp, misses=0)

    def see_presence(self, presence: float) -> None:
        """Blends in what the network says of this frame."""
        before = presence if self.presence is None else self.presence
        self.presence = before + _PRESENCE_GAIN * (presence - before)
        self.track = replace(self.track, score=self.presence)


def positions_of(boxes: ArrayLike) -> NDArray[np.float64]:
    """(N, 4) boxes -> (N, 3) centre x, centre y, log side."""
    b = np.asarray(boxes, np.float64)
    sides = np.maximum(b[:, 2:] - b[:, :2], 1e-3)
    return np.column_stack([(b[:, :2] + b[:, 2:]) / 2, np.log(sides.prod(axis=1)) / 2])


def position_of(box: ArrayLike) -> NDArray[np.float64]:
    """`positions_of` one box, (4,); in plain numbers, as numpy takes five times as long."""
    x0, y0, x1, y1 = np.asarray(box, np.float64).tolist()
    area = max(x1 - x0, 1e-3) * max(y1 - y0, 1e-3)
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, math.log(area) / 2])


def box_of(position: NDArray[np.float64]) -> Float32:
    """(3,) centre x, centre y, log side -> (4,) square box."""
    x, y, log_side = position.tolist()
    half = math.exp(log_side) / 2
    return np.array([x - half, y - half, x + half, y + half], np.float32)
