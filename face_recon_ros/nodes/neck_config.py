"""Parameters of the nodes that move a neck. The controller's own are in `robot.look_at_config`."""

from __future__ import annotations

from dataclasses import dataclass

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.models import user_path
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.robot.neck import Neck, neck_from_urdf
from face_recon_ros.robot.neck_simulator import NeckSimulatorConfig

OUTPUTS = ("trajectory", "commands", "joints", "point_head", "none")
PERSONS = ("", "still", "walking", "jumping")


@dataclass(frozen=True)
class NeckConfig:
    """The neck and its command interface.

    Attributes:
        joints: These are the names of the joints to move.
        look_frame: This link is pointed at people: the camera's optical frame, or the
            head.
        look_axis: This axis of the link is pointed: z for optical frames, x for others.
        fixed_frame: Heads are tracked in this frame; on a robot that drives, it is the
            odometry frame. Empty takes the link that carries the neck.
        urdf: This is the path of the robot's URDF; empty reads the topic
            /robot_description.
        max_velocity: The URDF's velocity limits are capped at this value, in rad/s.
        max_acceleration: Joints accelerate by at most this value, in rad/s^2; the URDF
            does not say it.
        limit_margin: Joints keep this distance from the URDF's position limits, in rad.
        output: Commands go out as one of trajectory (JointTrajectory on
            neck/joint_trajectory), commands (Float64MultiArray on neck/commands), joints
            (Float64 on neck/JOINT/command), point_head (action neck/point_head) or none;
            /look_at is published in any case.
    """

    joints: tuple[str, ...] = ("pan_joint", "tilt_joint")
    look_frame: str = "camera_optical_frame"
    look_axis: str = "z"
    fixed_frame: str = ""
    urdf: str = ""
    max_velocity: float = ranged(2.0, 0.001, 100.0)
    max_acceleration: float = ranged(8.0, 0.001, 1000.0)
    limit_margin: float = ranged(0.02, 0.0, 1.0)
    output: str = "trajectory"

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise ConfigError(
                f"neck.output of {', '.join(OUTPUTS)}", repr(self.output), "choose one"
            )
        check_ranges(self)

    def neck(self, urdf: str) -> Neck:
        """The neck in the text of a URDF."""
        return neck_from_urdf(
            urdf,
            self.joints,
            self.look_frame,
            look_axis=self.look_axis,
            max_velocity=self.max_velocity,
            max_acceleration=self.max_acceleration,
            limit_margin=self.limit_margin,
        )

    def read_urdf(self) -> str:
        """Text of the file `urdf`.

        Raises:
            ConfigError: none is named, or it cannot be read.
        """
        if not self.urdf:
            raise ConfigError("a URDF file", "no name", "set neck.urdf to its path")
        try:
            return user_path(self.urdf).read_text()
        except (OSError, ValueError) as fault:
            what = getattr(fault, "strerror", None) or "no text"
            raise ConfigError(
                f"a URDF file at neck.urdf {self.urdf!r}", what, "check the path"
            ) from None


@dataclass(frozen=True)
class SimulatedNeckConfig(NeckSimulatorConfig):
    """A neck, and a person to look at.

    Attributes:
        rate_hz: Joint states and transforms are published at this rate.
        publish_tf: The node publishes the look frame in the neck's base frame; false
            leaves that to a robot_state_publisher.
        person: Empty shows no person; `still`, `walking` to and fro, or `jumping` from
            place to place publishes face_demo and gaze_demo as a camera on the simulated
            neck would see them, and where the person truly is as ~/person.
        person_speed_deg: A walking person moves around the neck at this speed, in degrees
            a second.
        camera_rate_hz: The simulated camera has this frame rate.
        camera_latency_s: The simulated camera's transforms come this time in seconds after
            exposure.
        camera_noise: Directions that the simulated camera sees have this standard
            deviation, in radians.
        range_noise: Distances that the simulated camera sees have this standard deviation,
            as a share.
    """

    rate_hz: float = ranged(100.0, 1.0, 1000.0)
    publish_tf: bool = True
    person: str = ""
    person_speed_deg: float = ranged(30.0, 0.0, 360.0)
    camera_rate_hz: float = ranged(30.0, 0.1, 1000.0)
    camera_latency_s: float = ranged(0.1, 0.0, 5.0)
    camera_noise: float = ranged(0.004, 0.0, 1.0)
    range_noise: float = ranged(0.03, 0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.person not in PERSONS:
            raise ConfigError(
                f"neck_simulator.person of {', '.join(map(repr, PERSONS))}",
                repr(self.person),
                "choose one",
            )
