"""Simulated neck: takes the commands of the look-at node, publishes joint states and transforms.

With `neck_simulator.person` it also publishes a person, as a camera on this neck would see one.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from tf2_msgs.msg import TFMessage

from face_recon_ros.core.attention import FACE_FROM_STRAIGHT_GAZE
from face_recon_ros.core.neck_simulator import NeckSimulator
from face_recon_ros.core.pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.rigid import Rigid, rotation_between
from face_recon_ros.nodes import conversions, robot_conversions
from face_recon_ros.nodes.look_at import seconds_now
from face_recon_ros.nodes.neck_config import NeckConfig, SimulatedNeckConfig
from face_recon_ros.nodes.runtime import LATCHED_QOS, RESULT_QOS, FaceNode, run

Array = NDArray[np.float64]

_REACH = np.radians(40.0)  # how far to each side the simulated person goes
_DISTANCE_M, _HEIGHT_M = 1.5, 0.6
_OPTICAL_AXIS = np.array([0.0, 0.0, 1.0])


class PanTiltSimulatorNode(FaceNode):
    """A neck that is not there."""

    def __init__(self) -> None:
        """Reads the URDF of parameter neck.urdf and publishes it as /robot_description."""
        super().__init__("neck_simulator", ("neck", "neck_simulator"), namespace="")
        self.rate_of = "states"
        self._config: SimulatedNeckConfig = self.config("neck_simulator")
        neck_config: NeckConfig = self.config("neck")
        urdf = neck_config.read_urdf()
        self._neck = neck_config.neck(urdf)
        self._simulator = NeckSimulator(self._neck, self._config)
        self._joint_states = self.create_publisher(JointState, "/joint_states", RESULT_QOS)
        self._transforms = self.create_publisher(TFMessage, "/tf", 100)
        self.create_publisher(String, "/robot_description", LATCHED_QOS).publish(String(data=urdf))
        self.create_subscription(
            Float64MultiArray, "neck/commands", lambda m: self._command(m.data), RESULT_QOS
        )
        self._listen_to_trajectories()
        self._exposed: deque[tuple[float, Rigid]] = deque()
        self._start = self._next_image = seconds_now(self)
        self.create_timer(1.0 / self._config.rate_hz, self._step)

    def _listen_to_trajectories(self) -> None:
        try:
            from trajectory_msgs.msg import JointTrajectory
        except ImportError:
            return  # then nobody can send one either
        names = self._neck.joint_names

        def receive(msg: JointTrajectory) -> None:
            positions = robot_conversions.positions_from_trajectory(msg, names)
            if positions is not None:
                self._command(positions)

        self.create_subscription(JointTrajectory, "neck/joint_trajectory", receive, RESULT_QOS)

    def _command(self, positions: Array) -> None:
        self.meter.count("commands")
        self._simulator.command(positions, seconds_now(self))

    def _step(self) -> None:
        now = seconds_now(self)
        reading = self._simulator.read(now)
        header = conversions.header_of(now, self._neck.base_frame)
        names = self._neck.joint_names
        self._joint_states.publish(
            robot_conversions.joint_state_to_msg(names, reading.positions, header)
        )
        if self._config.publish_tf:
            frames = {self._neck.look_frame: self._neck.base_from_look(reading.positions)}
            self._transforms.publish(conversions.transforms_to_msg(frames, header))
        if self._config.person:
            self._see(now)
        self.meter.count("states")
        self.meter.fact("limits_hit", str(self._simulator.limits_hit))

    def _see(self, now: float) -> None:
        """Exposes an image, and shows what was exposed a latency ago."""
        person = self._person_at(now - self._start)
        base_from_camera = self._neck.base_from_look(self._simulator.positions)
        error = np.linalg.norm(self._neck.bearing(self._simulator.positions, person))
        self.meter.fact("gaze_error_deg", f"{np.degrees(error):.2f}")
        if now >= self._next_image:
            self._next_image = max(self._next_image, now - 1.0) + 1.0 / self._config.camera_rate_hz
            seen = base_from_camera.inverse().apply(person)
            looking_here = rotation_between(_OPTICAL_AXIS, seen) @ CAMERA_FROM_FRONTAL_FACE
            self._exposed.append((now, Rigid(looking_here, seen)))
        while self._exposed and now - self._exposed[0][0] >= self._config.camera_latency_s:
            stamp, camera_from_face = self._exposed.popleft()
            gaze = Rigid(
                camera_from_face.rotation @ FACE_FROM_STRAIGHT_GAZE, camera_from_face.translation
            )
            header = conversions.header_of(stamp, self._neck.look_frame)
            frames = {"face_demo": camera_from_face, "gaze_demo": gaze}
            self._transforms.publish(conversions.transforms_to_msg(frames, header))

    def _person_at(self, elapsed: float) -> Array:
        """(3,) sellion in the neck's base frame, metres."""
        speed = np.radians(self._config.person_speed_deg)
        sweep = 4.0 * _REACH / max(speed, 1e-6)  # seconds for once to and fro
        phase = (elapsed / sweep + 0.25) % 1.0
        angle = {
            "still": 0.3,
            "walking": _REACH * (4.0 * abs(phase - 0.5) - 1.0),
            "jumping": np.radians(15.0) * (1.0 if elapsed % 4.0 < 2.0 else -1.0),
        }[self._config.person]
        return np.array([_DISTANCE_M * np.cos(angle), _DISTANCE_M * np.sin(angle), _HEIGHT_M])


def main() -> None:
    """Entry point."""
    run(PanTiltSimulatorNode)


if __name__ == "__main__":
    main()
