"""The heads a robot sees: a constant-velocity Kalman filter each, in a fixed frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.rigid import Rigid
from face_recon_ros.robot.look_at_config import LookAtConfig

Array = NDArray[np.float64]

_CONTESTED = 3.0
_CONTRADICTION_DECAY_S = 1.0
_GATE_SIGMAS = 6.0
_GATE_BEARING = 0.12  # radians: no head jumps that far between two images
_GATE_RANGE = 0.4  # share of the distance
_INITIAL_SPEED = 0.3  # m/s, standard deviation of a new head's
_MIN_RANGE_M = 0.3


@dataclass(frozen=True)
class SeenHead:
    """One head in one image.

    Attributes:
        id: whose.
        stamp: seconds, of the image.
        position: (3,) sellion in the fixed frame, metres, placed with the robot's posture at
            `stamp`.
        attention_angle: between gaze and the direction to the robot, radians; NaN when unknown.
    """

    id: str
    stamp: float
    position: Array
    attention_angle: float = np.nan


@dataclass(frozen=True)
class Head:
    """What is known of one person's head. Fixed frame, metres, seconds.

    Attributes:
        id: whose.
        stamp: of the last image that showed it.
        position: (3,) then.
        velocity: (3,) then, m/s.
        covariance: (2, 2) of position and velocity, the same on every axis.
        attention_angle: of the last image, radians.
        contradictions: leaky count of sightings that cannot be the same head.
    """

    id: str
    stamp: float
    position: Array
    velocity: Array
    covariance: Array
    attention_angle: float
    contradictions: float = 0.0

    @property
    def contested(self) -> bool:
        """Whether this id seems to be published by two sources at once."""
        return self.contradictions > _CONTESTED

    def predicted(self, time: float, horizon_s: float) -> Array:
        """(3,) position at a time, no further ahead than the horizon."""
        return np.asarray(self.position + self.velocity * min(time - self.stamp, horizon_s))


def _stale(config: LookAtConfig, head: Head, time: float) -> bool:
    return not -config.max_gap_s <= time - head.stamp <= config.stale_s


def see(
    config: LookAtConfig,
    heads: Mapping[str, Head],
    seen: Sequence[SeenHead],
    time: float,
    base_from_fixed: Rigid,
) -> Mapping[str, Head]:
    """Takes in new sightings; forgets heads that stayed away."""
    known = dict(heads)
    origin = base_from_fixed.inverse().translation
    for sighting in sorted(seen, key=lambda s: s.stamp):
        ray = sighting.position - origin
        if not np.isfinite(ray).all():
            continue
        before = known.get(sighting.id)
        known[sighting.id] = (
            _first_seen(config, sighting, ray)
            if before is None
            else _corrected(config, before, sighting, ray)
        )
    kept = {k: head for k, head in known.items() if not _stale(config, head, time)}
    return MappingProxyType(kept)


def _first_seen(
    config: LookAtConfig, seen: SeenHead, ray: Array, contradictions: float = 0.0
) -> Head:
    noise = config.bearing_noise * _distance(ray)
    return Head(
        seen.id,
        seen.stamp,
        seen.position,
        np.zeros(3),
        np.diag([noise**2, _INITIAL_SPEED**2]),
        seen.attention_angle,
        contradictions,
    )


def _corrected(config: LookAtConfig, head: Head, seen: SeenHead, ray: Array) -> Head:
    """One step of a constant-velocity Kalman filter; a jump restarts it at rest."""
    distance = _distance(ray)
    dt = seen.stamp - head.stamp
    if dt <= 0.0:
        moved = float(np.linalg.norm(seen.position - head.position)) / distance
        if moved <= _GATE_BEARING:
            return head  # the same news again, or late news
        return replace(head, contradictions=head.contradictions + 1.0)
    transition = np.array([[1.0, dt], [0.0, 1.0]])
    unforeseen = config.head_acceleration**2 * np.array(
        [[dt**4 / 4, dt**3 / 2], [dt**3 / 2, dt**2]]
    )
    covariance = transition @ head.covariance @ transition.T + unforeseen
    spread = covariance[0, 0] + (config.bearing_noise * distance) ** 2
    innovation = seen.position - head.position - head.velocity * dt
    calmed = head.contradictions * float(np.exp(-dt / _CONTRADICTION_DECAY_S))
    along = float(innovation @ ray) / distance  # known far less well than the direction
    across = float(np.linalg.norm(innovation - along * ray / distance))
    gate = max(_GATE_SIGMAS * np.sqrt(spread), _GATE_BEARING * distance)
    if across > gate or abs(along) > _GATE_RANGE * distance:
        return _first_seen(config, seen, ray, calmed + 1.0)
    gain = covariance[:, 0] / spread
    return replace(
        head,
        stamp=seen.stamp,
        position=head.position + head.velocity * dt + gain[0] * innovation,
        velocity=head.velocity + gain[1] * innovation,
        covariance=covariance - np.outer(gain, covariance[0]),
        attention_angle=seen.attention_angle,
        contradictions=calmed,
    )


def _distance(ray: Array) -> float:
    return max(float(np.linalg.norm(ray)), _MIN_RANGE_M)
