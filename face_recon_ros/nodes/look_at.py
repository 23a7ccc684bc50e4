"""Look-at node: turns a neck to people; works with all who publish REP-155 face_<id> frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PointStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, String
from tf2_msgs.msg import TFMessage

from face_recon_ros.core.errors import ConfigError, FaceReconError, FrameError
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.transform_buffer import TransformBuffer
from face_recon_ros.nodes import conversions, robot_conversions
from face_recon_ros.nodes.neck_config import NeckConfig
from face_recon_ros.nodes.robot_conversions import FaceTransform
from face_recon_ros.nodes.runtime import LATCHED_QOS, RESULT_QOS, FaceNode, run
from face_recon_ros.robot import gaze_controller
from face_recon_ros.robot.gaze_controller import Command, LookAtState
from face_recon_ros.robot.head_tracks import SeenHead
from face_recon_ros.robot.motion import JointReading
from face_recon_ros.robot.neck import Neck

_WAIT_FOR_TF_S = 0.3  # a face may arrive before the robot says where its camera was
_MAX_WAITING = 256  # faces, the newest: not used before there is a neck
_POINT_HEAD_PERIOD_S = 0.2  # goals of an action are no stream
_STATIC_TF_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)

#: Why a neck stands, where that is worth saying: what was expected, what came, what to do.
_FAULTS = {
    gaze_controller.NO_LIMITS: (
        "limits of every neck joint",
        "{unknown} unknown",
        "add them to the URDF, or set neck.max_velocity and neck.max_acceleration",
    ),
    gaze_controller.NO_JOINTS: (
        "all neck joints on /joint_states",
        "none lately",
        "check the driver",
    ),
    gaze_controller.NOT_OBEYING: (
        "joints that follow their commands",
        "joints far from them",
        "check that their controller is active and that nothing blocks the neck",
    ),
    gaze_controller.CLOCK_JUMP: (
        "a steady clock",
        "a jump",
        "check use_sim_time and clock synchronisation",
    ),
}


def seconds_now(node: Node) -> float:
    """The node's clock, seconds."""
    return float(node.get_clock().now().nanoseconds) * 1e-9


class RobotFrames:
    """Where the robot's frames were, and the faces that came in; from /tf and /tf_static.

    Attributes:
        waiting: faces that `heads` has not placed yet, with the time they came in.
    """

    def __init__(self, node: Node, max_step_back_s: float) -> None:
        """Subscribes.

        Args:
            node: that listens.
            max_step_back_s: stamps further back than this mean that the clock jumped.
        """
        self._node = node
        self._buffer = TransformBuffer(max_step_back_s=max_step_back_s)
        self.waiting: deque[tuple[float, FaceTransform]] = deque(maxlen=_MAX_WAITING)
        node.create_subscription(TFMessage, "/tf", self.receive, 100)
        node.create_subscription(TFMessage, "/tf_static", self._receive_static, _STATIC_TF_QOS)

    def lookup(self, target: str, source: str) -> Rigid:
        """target_from_source, newest."""
        return self._buffer.lookup(target, source, None)

    def heads(
        self, fixed_frame: str, complain: Callable[[FaceReconError], None]
    ) -> list[SeenHead]:
        """The faces that came in since last asked, placed where the robot was when it saw them."""
        now, waiting, heads = seconds_now(self._node), list(self.waiting), []
        self.waiting.clear()
        for received, face in waiting:
            try:
                fixed_from_camera = self._buffer.lookup(fixed_frame, face.camera, face.stamp)
            except FrameError as fault:
                if 0.0 <= now - received < _WAIT_FOR_TF_S:
                    self.waiting.append((received, face))
                else:
                    complain(fault)
                continue
            position = fixed_from_camera.apply(face.camera_from_face.translation)
            heads.append(SeenHead(face.id, face.stamp, position, face.attention_angle))
        return heads

    def receive(self, msg: TFMessage) -> None:
        """Takes in transforms; faces wait for `heads`, the oldest make room."""
        transforms = robot_conversions.transforms_from_msg(msg)
        now = seconds_now(self._node)
        faces = robot_conversions.faces_of_transforms(transforms)
        self.waiting.extend((now, face) for face in faces)
        for t in transforms:
            if not robot_conversions.is_face_frame(t.child):
                self._buffer.set(t.parent, t.child, t.parent_from_child, t.stamp)

    def _receive_static(self, msg: TFMessage) -> None:
        for t in robot_conversions.transforms_from_msg(msg):
            self._buffer.set(t.parent, t.child, t.parent_from_child)


class JointListener:
    """The newest complete reading of the neck's joints, from /joint_states."""

    def __init__(self, node: Node) -> None:
        """Subscribes."""
        self._node = node
        self._joints: dict[str, tuple[float, float]] = {}
        node.create_subscription(JointState, "/joint_states", self._receive, 10)

    def reading(self, names: tuple[str, ...]) -> JointReading | None:
        """Positions of these joints, as old as the oldest of them; None until all are known."""
        if not all(name in self._joints for name in names):
            return None
        positions, stamps = zip(*(self._joints[name] for name in names), strict=True)
        return JointReading(min(stamps), np.array(positions))

    def _receive(self, msg: JointState) -> None:
        stamp = conversions.seconds_from_stamp(msg.header.stamp) or seconds_now(self._node)
        for name, position in robot_conversions.joint_positions_from_msg(msg).items():
            self._joints[name] = (position, stamp)


class NeckOutput:
    """Publishes commands by the neck's interface."""

    def __init__(self, node: FaceNode, neck: Neck, config: NeckConfig, period_s: float) -> None:
        """Creates the publishers.

        Raises:
            ConfigError: the messages of this output are not installed.
        """
        self._neck, self._period_s = neck, period_s
        try:
            make = {
                "trajectory": self._trajectory,
                "commands": self._commands,
                "joints": self._per_joint,
                "point_head": self._point_head,
                "none": lambda _: lambda *_: None,
            }[config.output]
            self.publish: Callable[[Command, PointStamped | None], None] = make(node)
        except ImportError as missing:
            package = str(missing.name).partition(".")[0]
            raise ConfigError(
                f"the package {package} for neck.output {config.output!r}",
                "none",
                f"apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, or "
                f"scripts/setup_env.sh {package}",
            ) from None

    def _trajectory(self, node: Node) -> Callable[[Command, PointStamped | None], None]:
        from trajectory_msgs.msg import JointTrajectory

        publisher = node.create_publisher(JointTrajectory, "neck/joint_trajectory", RESULT_QOS)
        names, reach_s = self._neck.joint_names, self._period_s

        def publish(command: Command, _: PointStamped | None) -> None:
            if command.positions is not None:
                positions = command.positions
                msg = robot_conversions.trajectory_to_msg(names, positions, reach_s)
                publisher.publish(msg)

        return publish

    def _commands(self, node: Node) -> Callable[[Command, PointStamped | None], None]:
        publisher = node.create_publisher(Float64MultiArray, "neck/commands", RESULT_QOS)

        def publish(command: Command, _: PointStamped | None) -> None:
            if command.positions is not None:
                publisher.publish(robot_conversions.commands_to_msg(command.positions))

        return publish

    def _per_joint(self, node: Node) -> Callable[[Command, PointStamped | None], None]:
        publishers = [
            node.create_publisher(Float64, f"neck/{name}/command", RESULT_QOS)
            for name in self._neck.joint_names
        ]

        def publish(command: Command, _: PointStamped | None) -> None:
            if command.positions is not None:
                for publisher, position in zip(publishers, command.positions, strict=True):
                    publisher.publish(Float64(data=float(position)))

        return publish

    def _point_head(self, node: FaceNode) -> Callable[[Command, PointStamped | None], None]:
        from control_msgs.action import PointHead
        from rclpy.action import ActionClient

        client = ActionClient(node, PointHead, "neck/point_head")
        neck, last = self._neck, [-np.inf]
        sent: list[Future] = []  # the goal under way

        def publish(_: Command, point: PointStamped | None) -> None:
            now = seconds_now(node)
            if point is None:  # no person to look at, or a fault: the head stops
                while sent:
                    sent.pop().add_done_callback(_cancel)
                return
            if not client.server_is_ready() or 0.0 <= now - last[0] < _POINT_HEAD_PERIOD_S:
                return
            last[0] = now
            speed = float(neck.limits.velocity.min())
            goal = robot_conversions.point_head_goal(
                point, neck.look_frame, neck.look_axis, speed, _POINT_HEAD_PERIOD_S
            )
            sent[:] = [client.send_goal_async(goal)]  # it takes the place of the one before

        def stop() -> None:
            while sent:
                sent.pop().add_done_callback(_cancel)
            client.destroy()

        node.at_stop(stop)
        return publish


def _cancel(sent: Future) -> None:
    """Cancels an action's goal that was sent, once the server has answered."""
    if not sent.exception() and (goal := sent.result()) is not None and goal.accepted:
        goal.cancel_goal_async()


class LookAtNode(FaceNode):
    """Follows people with a neck."""

    def __init__(self) -> None:
        """Declares the parameters."""
        super().__init__("look_at", ("neck", "look_at"), namespace="")
        self.rate_of = "steps"

    def set_up(self) -> None:
        """Reads the URDF, if it is a file's."""
        self.loaded.config: NeckConfig = self.config("neck")
        self.loaded.urdf = self.loaded.config.read_urdf() if self.loaded.config.urdf else ""

    def begin(self) -> None:
        """Follows people, once it knows the neck."""
        self.live.period_s = self.config("look_at").period_s
        self.live.neck: Neck | None = None
        self.live.no_neck: FaceReconError = ConfigError(
            "a URDF on /robot_description", "none", "publish it, or set neck.urdf"
        )
        self.live.output: NeckOutput | None = None
        self.live.state = LookAtState()
        self.live.frames = RobotFrames(self, self.config("look_at").max_gap_s)
        self.live.joints = JointListener(self)
        self.live.point = self.create_publisher(PointStamped, "/look_at", RESULT_QOS)
        if self.loaded.urdf:
            self._use(self.loaded.urdf)
        else:
            self.create_subscription(
                String, "/robot_description", lambda msg: self._describe(msg.data), LATCHED_QOS
            )
        self.create_timer(self.live.period_s, self._step)

    def _describe(self, urdf: str) -> None:
        try:
            self._use(urdf)
        except ConfigError as fault:
            self.live.no_neck = fault  # reported at each step

    def _use(self, urdf: str) -> None:
        if self.live.neck is not None:
            return  # a neck does not change under way
        neck = self.loaded.config.neck(urdf)
        self.live.output = NeckOutput(self, neck, self.loaded.config, self.live.period_s)
        self.live.neck = neck
        self.meter.fact("joints", ", ".join(neck.joint_names))

    def _step(self) -> None:
        neck, output, config = self.live.neck, self.live.output, self.config("look_at")
        if neck is None or output is None:
            self.meter.fact("status", "waiting for a robot description")
            self.complain(self.live.no_neck)
            return
        fixed_frame = self.loaded.config.fixed_frame or neck.base_frame
        try:
            base_from_fixed = self.live.frames.lookup(neck.base_frame, fixed_frame)
        except FrameError as fault:
            self.complain(fault)
            base_from_fixed = None
        heads = self.live.frames.heads(fixed_frame, self.complain) if base_from_fixed else []
        joints, now = self.live.joints.reading(neck.joint_names), seconds_now(self)
        for head in heads:
            self.meter.time({"latency": now - head.stamp})
        self.live.state, command = gaze_controller.step(
            config, neck, self.live.state, heads, joints, now, base_from_fixed
        )
        point = None
        if command.point is not None:
            header = conversions.header_of(now, fixed_frame)
            point = robot_conversions.point_to_msg(command.point, header)
            self.live.point.publish(point)
        output.publish(command, point)
        self._report(command, neck)

    def _report(self, command: Command, neck: Neck) -> None:
        self.meter.count("steps")
        self.meter.count("following", command.status == gaze_controller.FOLLOWING)
        self.meter.count("clock_jumps", command.status == gaze_controller.CLOCK_JUMP)
        self.meter.fact("status", command.status)
        self.meter.fact("target", command.target or "none")
        if command.status in _FAULTS:
            expected, got, remedy = _FAULTS[command.status]
            unknown = neck.limits.unknown(neck.joint_names)
            self.complain(FaceReconError(expected, got.format(unknown=unknown), remedy))
        if command.contested:
            self.complain(
                FaceReconError(
                    "one publisher for each face id",
                    f"contradicting transforms of {', '.join(command.contested)}",
                    "stop the second face detector, or remap its /tf",
                )
            )


def main() -> None:
    """Entry point."""
    run(LookAtNode)


if __name__ == "__main__":
    main()
