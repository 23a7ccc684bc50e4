"""Simulated neck: follows the look-at node, publishes joint states and transforms.

With `neck_simulator.person` it also publishes a person, as a camera on this neck would see one.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from numpy.typing import NDArray
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, String
from tf2_msgs.msg import TFMessage

from face_recon_ros.core.attention import FACE_FROM_STRAIGHT_GAZE
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import FrameError
from face_recon_ros.core.rigid import Rigid, rotation_between
from face_recon_ros.nodes import conversions, robot_conversions
from face_recon_ros.nodes.look_at import seconds_now
from face_recon_ros.nodes.neck_config import NeckConfig, SimulatedNeckConfig
from face_recon_ros.nodes.runtime import LATCHED_QOS, RESULT_QOS, FaceNode, run
from face_recon_ros.robot.neck import Neck
from face_recon_ros.robot.neck_simulator import NeckSimulator

Array = NDArray[np.float64]

_REACH = np.radians(40.0)  # how far to each side the simulated person goes
_DISTANCE_M, _HEIGHT_M = 1.5, 0.6
_OPTICAL_AXIS = np.array([0.0, 0.0, 1.0])
_THERE = 0.02  # radians off that are good enough for an action


class NeckInput:
    """All command interfaces of a neck; the counterpart of `look_at.NeckOutput`."""

    def __init__(self, node: FaceNode, neck: Neck, config: NeckConfig, simulator: NeckSimulator):
        """Subscribes to every output there are messages for."""
        self._node, self._neck, self._simulator = node, neck, simulator
        self._servo_goals = neck.rest
        node.create_subscription(
            Float64MultiArray, "neck/commands", lambda m: self._command(m.data), RESULT_QOS
        )
        for j, name in enumerate(neck.joint_names):
            receive: Callable[[Float64], None] = partial(self._command_joint, j)
            node.create_subscription(Float64, f"neck/{name}/command", receive, RESULT_QOS)
        if config.output == "none":  # then there is no other command
            node.create_subscription(PointStamped, "/look_at", self._look, RESULT_QOS)
        # A message type that is not installed cannot be sent, either.
        for listen in (self._listen_to_trajectories, self._serve_point_head):
            with contextlib.suppress(ImportError):
                listen()

    def _listen_to_trajectories(self) -> None:
        from trajectory_msgs.msg import JointTrajectory

        def receive(msg: JointTrajectory) -> None:
            names = self._neck.joint_names
            positions = robot_conversions.positions_from_trajectory(msg, names)
            if positions is not None:
                self._command(positions)

        topic = "neck/joint_trajectory"
        self._node.create_subscription(JointTrajectory, topic, receive, RESULT_QOS)

    def _serve_point_head(self) -> None:
        from control_msgs.action import PointHead
        from rclpy.action import ActionServer, CancelResponse, GoalResponse

        under_way: list[Future] = []

        def judge(goal: Any) -> GoalResponse:
            knows = self._knows(goal.target) and goal.pointing_frame == self._neck.look_frame
            return GoalResponse.ACCEPT if knows else GoalResponse.REJECT

        async def execute(handle: Any) -> PointHead.Result:
            """Ends at the goal, when it is cancelled, or when another takes its place."""
            while under_way:
                under_way.pop().set_result("replaced")
            ended = Future(executor=self._node.executor)
            under_way.append(ended)
            self._look(handle.request.target)
            target = _position(handle.request.target)

            def check() -> None:
                bearing = self._neck.bearing(self._simulator.positions, target)
                if ended.done():
                    return
                if handle.is_cancel_requested:
                    self._simulator.stop(seconds_now(self._node))
                    ended.set_result("cancelled")
                elif np.linalg.norm(bearing) < _THERE:
                    ended.set_result("there")

            timer = self._node.create_timer(0.02, check)
            how = await ended
            self._node.destroy_timer(timer)
            if ended in under_way:
                under_way.remove(ended)
            ends = {
                "there": handle.succeed,
                "cancelled": handle.canceled,
                "replaced": handle.abort,
            }
            ends[how]()
            return PointHead.Result()

        server = ActionServer(
            self._node,
            PointHead,
            "neck/point_head",
            execute,
            goal_callback=judge,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )
        self._node.at_stop(server.destroy)

    def _command(self, positions: Array) -> None:
        self._node.meter.count("commands")
        self._simulator.command(positions, seconds_now(self._node))

    def _command_joint(self, j: int, msg: Float64) -> None:
        self._servo_goals = self._servo_goals.copy()
        self._servo_goals[j] = msg.data
        self._command(self._servo_goals)

    def _look(self, msg: PointStamped) -> None:
        if self._knows(msg):
            self._node.meter.count("commands")
            self._simulator.go_to(self._neck.aim(_position(msg)), seconds_now(self._node))

    def _knows(self, msg: PointStamped) -> bool:
        frame = msg.header.frame_id
        if frame != self._neck.base_frame:
            self._node.complain(
                FrameError(
                    f"points in {self._neck.base_frame}",
                    f"{frame!r}",
                    "leave neck.fixed_frame empty: a simulated neck knows no other frame",
                )
            )
            return False
        return bool(np.isfinite(_position(msg)).all())


def _position(msg: PointStamped) -> Array:
    return np.array([msg.point.x, msg.point.y, msg.point.z])


class PanTiltSimulatorNode(FaceNode):
    """A simulated neck."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("neck_simulator", ("neck", "neck_simulator"), namespace="")
        self.rate_of = "states"

    def set_up(self) -> None:
        """Reads the URDF of parameter neck.urdf."""
        neck_config: NeckConfig = self.config("neck")
        self.loaded.urdf = neck_config.read_urdf()
        self.loaded.neck = neck_config.neck(self.loaded.urdf)

    def begin(self) -> None:
        """Publishes the URDF as /robot_description, and moves."""
        self.live.config: SimulatedNeckConfig = self.config("neck_simulator")
        self.live.simulator = NeckSimulator(self.loaded.neck, self.live.config)
        self.live.random = np.random.default_rng(self.live.config.seed)
        self.live.joint_states = self.create_publisher(JointState, "/joint_states", RESULT_QOS)
        self.live.transforms = self.create_publisher(TFMessage, "/tf", 100)
        self.live.person = self.create_publisher(PointStamped, "~/person", RESULT_QOS)
        description = self.create_publisher(String, "/robot_description", LATCHED_QOS)
        description.publish(String(data=self.loaded.urdf))
        self.live.input = NeckInput(
            self, self.loaded.neck, self.config("neck"), self.live.simulator
        )
        self.live.exposed: deque[tuple[float, Rigid]] = deque()
        self.live.start = self.live.next_image = seconds_now(self)
        self.create_timer(1.0 / self.live.config.rate_hz, self._step)

    def _step(self) -> None:
        now = seconds_now(self)
        reading = self.live.simulator.read(now)
        header = conversions.header_of(now, self.loaded.neck.base_frame)
        names = self.loaded.neck.joint_names
        self.live.joint_states.publish(
            robot_conversions.joint_state_to_msg(names, reading.positions, header)
        )
        if self.live.config.publish_tf:
            frames = {
                self.loaded.neck.look_frame: self.loaded.neck.base_from_look(reading.positions)
            }
            self.live.transforms.publish(conversions.transforms_to_msg(frames, header))
        if self.live.config.person:
            person = self._person_at(now - self.live.start)
            self.live.person.publish(robot_conversions.point_to_msg(person, header))
            self._see(person, now)
        self.meter.count("states")
        self.meter.fact("limits_hit", str(self.live.simulator.limits_hit))

    def _see(self, person: Array, now: float) -> None:
        """Exposes an image, and shows what was exposed a latency ago."""
        base_from_camera = self.loaded.neck.base_from_look(self.live.simulator.positions)
        error = np.linalg.norm(self.loaded.neck.bearing(self.live.simulator.positions, person))
        self.meter.fact("gaze_error_deg", f"{np.degrees(error):.2f}")
        if self.live.next_image - now > 1.0:  # the clock jumped back
            self.live.exposed.clear()
            self.live.next_image = now
        if now >= self.live.next_image:
            self.live.next_image = (
                max(self.live.next_image, now - 1.0) + 1.0 / self.live.config.camera_rate_hz
            )
            seen = self._noisy(base_from_camera.inverse().apply(person))
            looking_here = rotation_between(_OPTICAL_AXIS, seen) @ CAMERA_FROM_FRONTAL_FACE
            self.live.exposed.append((now, Rigid(looking_here, seen)))
        while (
            self.live.exposed
            and now - self.live.exposed[0][0] >= self.live.config.camera_latency_s
        ):
            stamp, camera_from_face = self.live.exposed.popleft()
            gaze = Rigid(
                camera_from_face.rotation @ FACE_FROM_STRAIGHT_GAZE, camera_from_face.translation
            )
            header = conversions.header_of(stamp, self.loaded.neck.look_frame)
            frames = {"face_demo": camera_from_face, "gaze_demo": gaze}
            self.live.transforms.publish(conversions.transforms_to_msg(frames, header))

    def _noisy(self, seen: Array) -> Array:
        aside = (
            self.live.config.camera_noise * np.linalg.norm(seen) * self.live.random.normal(size=3)
        )
        farther = 1.0 + self.live.config.range_noise * self.live.random.normal()
        return np.asarray((seen + aside) * farther)

    def _person_at(self, elapsed: float) -> Array:
        """(3,) sellion in the neck's base frame, metres."""
        speed = np.radians(self.live.config.person_speed_deg)
        sweep = 4.0 * _REACH / max(speed, 1e-6)  # seconds for once to and fro
        phase = (elapsed / sweep + 0.25) % 1.0
        angle = {
            "still": 0.3,
            "walking": _REACH * (4.0 * abs(phase - 0.5) - 1.0),
            "jumping": np.radians(15.0) * (1.0 if elapsed % 4.0 < 2.0 else -1.0),
        }[self.live.config.person]
        return np.array([_DISTANCE_M * np.cos(angle), _DISTANCE_M * np.sin(angle), _HEIGHT_M])


def main() -> None:
    """Entry point."""
    run(PanTiltSimulatorNode)


if __name__ == "__main__":
    main()
