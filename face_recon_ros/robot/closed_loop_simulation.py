"""How well the neck follows a head, measured in closed loop: camera, latency, controller, servo.

The controller's input is what a robot provides: heads in the camera's frame with
noise, late; encoder readings; no truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import FrameError
from face_recon_ros.core.transform_buffer import TransformBuffer
from face_recon_ros.robot.gaze_controller import LookAtState, step
from face_recon_ros.robot.head_tracks import SeenHead
from face_recon_ros.robot.look_at_config import LookAtConfig
from face_recon_ros.robot.neck import Neck
from face_recon_ros.robot.neck_simulator import NeckSimulator, NeckSimulatorConfig

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What is simulated.

    Attributes:
        rate_hz: of camera and controller.
        latency_s: from exposure to the controller.
        bearing_noise: standard deviation of the head's direction in the image, radians.
        range_noise: standard deviation of its distance, as a share.
        capture_time: place heads with the neck as it was at exposure; False takes the newest.
        seed: of the noise.
    """

    rate_hz: float = 30.0
    latency_s: float = 0.1
    bearing_noise: float = 0.004
    range_noise: float = 0.03
    capture_time: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Following:
    """What happened, N samples at 50 Hz. Seconds, radians.

    Attributes:
        times: (N,).
        positions: (N, J) true joint positions.
        wanted: (N, J) joint positions that would look straight at the head.
        errors: (N,) angle between look axis and head.
        commands: (M, J) and `command_times` (M,): what the controller said.
        command_times: (M,).
        limits_hit: how often the simulated neck ran into its stops.
    """

    times: Array
    positions: Array
    wanted: Array
    errors: Array
    commands: Array
    command_times: Array
    limits_hit: int


def follow(
    neck: Neck,
    head_at: Callable[[float], Array],
    duration_s: float,
    config: LookAtConfig | None = None,
    scene: Scene | None = None,
    servo: NeckSimulatorConfig | None = None,
) -> Following:
    """Simulates the closed loop.

    Args:
        neck: whose look frame is the camera.
        head_at: seconds -> (3,) sellion in the neck's base frame, metres.
        duration_s: how long.
        config: of the controller.
        scene: of camera and latency.
        servo: of the neck.
    """
    config, scene = config or LookAtConfig(), scene or Scene()
    simulator = NeckSimulator(neck, servo)
    random = np.random.default_rng(scene.seed)
    frames = TransformBuffer()
    on_the_way: list[tuple[float, Array]] = []
    state = LookAtState()
    samples: list[tuple[float, Array, Array, float]] = []
    commands: list[tuple[float, Array]] = []
    every = 2 * round(500 / scene.rate_hz)  # milliseconds between images
    joints = None
    for ms in range(0, round(duration_s * 1000), 2):
        time = ms / 1000
        true = simulator.advance(time)
        if ms % 20 == 0:
            joints = simulator.read(time)
            frames.set("base", "camera", neck.base_from_look(joints.positions), time)
            head = head_at(time)
            error = float(np.linalg.norm(neck.bearing(true, head)))
            samples.append((time, true, neck.aim(head), error))
        if ms % every == 0:
            seen = neck.base_from_look(true).inverse().apply(head_at(time))
            distance = np.linalg.norm(seen)
            seen = seen + distance * scene.bearing_noise * random.normal(size=3)
            seen = seen * (1.0 + scene.range_noise * random.normal())
            on_the_way.append((time, seen))
            arrived = [s for s in on_the_way if s[0] + scene.latency_s <= time]
            on_the_way = on_the_way[len(arrived) :]
            heads = []
            for stamp, camera_point in arrived:
                try:
                    when = stamp if scene.capture_time else None
                    placed = frames.lookup("base", "camera", when).apply(camera_point)
                except FrameError:
                    continue
                heads.append(SeenHead("a", stamp, placed))
            state, command = step(config, neck, state, heads, joints, time)
            if command.positions is not None:
                simulator.command(command.positions, time)
                commands.append((time, command.positions))
    times, positions, wanted, errors = zip(*samples, strict=True)
    return Following(
        np.array(times),
        np.array(positions),
        np.array(wanted),
        np.array(errors),
        np.array([c for _, c in commands]).reshape(-1, len(neck.joint_names)),
        np.array([t for t, _ in commands]),
        simulator.limits_hit,
    )


def step_figures(following: Following, at_s: float, band_rad: float) -> tuple[float, float]:
    """Settling time in seconds and overshoot in radians, of the first joint after a step.

    Args:
        following: a run in which the head jumps at `at_s` and stays.
        at_s: seconds.
        band_rad: settled means within this of the goal, for good.
    """
    after = following.times >= at_s
    times, joint = following.times[after], following.positions[after, 0]
    start, goal = joint[0], following.wanted[-1, 0]
    outside = np.flatnonzero(np.abs(joint - goal) > band_rad)
    settled = times[min(outside[-1] + 1, len(times) - 1)] - at_s if len(outside) else 0.0
    return float(settled), float(max(0.0, (np.sign(goal - start) * (joint - goal)).max()))


def around(angle_rad: float, distance_m: float = 1.5, height_m: float = 0.6) -> Array:
    """(3,) point at an angle to the left of straight ahead, base frame, metres."""
    return np.array([distance_m * np.cos(angle_rad), distance_m * np.sin(angle_rad), height_m])
