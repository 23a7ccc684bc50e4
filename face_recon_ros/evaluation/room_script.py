"""What happens in the scripted room: where people walk, turn away, leave and come back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ConfigError

Array = NDArray[np.float64]
_FADE_M = 0.3  # beyond the picture's edge, where a person is gone


@dataclass(frozen=True)
class RoomConfig:
    """What happens.

    Attributes:
        people: how many.
        seconds: for how long.
        rate_hz: images a second.
        width: of the images, pixels.
        height: likewise.
        fov_deg: horizontal field of view.
        depths_m: of the nearest and the farthest lane.
        away_s: how long people are away who leave, one or the other.
        clear_yaw_deg: faces turned away from the camera farther than this count neither way.
        no_face_yaw_deg: beyond this there is no face to be seen.
        clear_share: of a face's pixels that must not be covered for it to be asked for.
        clear_side_px: of the face box, likewise.
        seed: of everything.
    """

    people: int = 8
    seconds: float = 120.0
    rate_hz: float = 30.0
    width: int = 1280
    height: int = 720
    fov_deg: float = 70.0
    depths_m: tuple[float, float] = (1.2, 4.5)
    away_s: tuple[float, ...] = (10.0, 20.0)
    clear_yaw_deg: float = 60.0
    no_face_yaw_deg: float = 100.0
    clear_share: float = 0.7
    clear_side_px: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.people < 0 or self.seconds <= 0 or self.rate_hz <= 0:
            raise ConfigError(
                "people of at least 0, seconds and rate_hz above 0",
                f"{self.people}, {self.seconds}, {self.rate_hz}",
                "8, 120 and 30 make the room of the figures",
            )


@dataclass(frozen=True)
class Path:
    """Where a person is and looks, between keys with smooth starts and stops.

    Attributes:
        z: depth of the lane, metres.
        y: height of the sellion below the camera's axis, metres.
        keys: (K, 3) seconds, metres to the right of the camera, yaw to the camera in radians.
    """

    z: float
    y: float
    keys: Array

    def at(self, t: float) -> tuple[float, float]:
        """Place and yaw at a time in seconds."""
        times = self.keys[:, 0]
        k = int(np.clip(np.searchsorted(times, t, "right") - 1, 0, len(times) - 2))
        share = np.clip((t - times[k]) / max(times[k + 1] - times[k], 1e-9), 0.0, 1.0)
        eased = share * share * (3.0 - 2.0 * share)
        x, yaw = self.keys[k, 1:] + eased * (self.keys[k + 1, 1:] - self.keys[k, 1:])
        return float(x), float(yaw)


def random_path(config: RoomConfig, z: float, start: float, rng: np.random.Generator) -> Path:
    """Two minutes of a person who looks about, walks, turns away, leaves and returns.

    Args:
        config: of the room.
        z: depth of the lane, metres.
        start: place, -1 at the left edge of the picture and 1 at the right.
        rng: of everything.
    """
    reach = z * np.tan(np.radians(config.fov_deg) / 2)
    keys = [(0.0, 0.8 * reach * start, 0.0)]

    def go(seconds: float, x: float, yaw_deg: float) -> None:
        keys.append((keys[-1][0] + seconds, x, np.radians(yaw_deg)))

    def walk(x: float, yaw_deg: float) -> None:
        side = np.sign(x - keys[-1][1])
        go(0.5, keys[-1][1], side * yaw_deg)
        go(max(abs(x - keys[-1][1]) / rng.uniform(0.6, 1.1), 0.3), x, side * yaw_deg)
        go(0.5, x, 0.0)

    def look_about(times: int) -> None:
        for _ in range(times):
            go(rng.uniform(1.0, 2.0), keys[-1][1], rng.uniform(-30, 30))

    look_about(3)
    last_left = 0.0
    while keys[-1][0] < config.seconds:
        x = keys[-1][1]
        action = rng.choice(["look", "walk", "turn", "leave"], p=[0.25, 0.4, 0.15, 0.2])
        if keys[-1][0] - last_left > config.seconds / 2:
            action = "leave"
        if action == "look":
            look_about(2)
        elif action == "walk":
            walk(rng.uniform(-0.8, 0.8) * reach, 45.0)
        elif action == "turn":
            away = rng.choice([-180.0, 180.0])
            go(1.5, x, away)
            go(rng.uniform(2.0, 5.0), x, away)
            go(1.5, x, 0.0)
        else:
            side = rng.choice([-1.0, 1.0])
            outside = side * (reach + _FADE_M)
            walk(outside, 50.0)
            go(float(rng.choice(config.away_s)), outside, 0.0)
            walk(rng.uniform(-0.7, 0.7) * reach, 45.0)
            look_about(1)
            last_left = keys[-1][0]
    return Path(z, float(rng.uniform(-0.1, 0.15)), np.array(keys))
