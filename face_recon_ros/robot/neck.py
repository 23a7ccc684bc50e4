"""A robot's neck, read from its URDF: kinematics, aiming, limits."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.rigid import Rigid, rotation_from_vector

Array = NDArray[np.float64]

LOOK_AXES = {"x": np.array([1.0, 0.0, 0.0]), "z": np.array([0.0, 0.0, 1.0])}

_ITERATIONS = 60
_MAX_STEP = 0.7  # radians a joint moves in one iteration
_DAMPING = 1e-6
_LEVI_CIVITA = np.cross(np.eye(3)[:, None], np.eye(3)[None]).transpose(2, 0, 1)


@dataclass(frozen=True)
class Limits:
    """What the joints may do, (J,) each. NaN says unknown: such a neck is not moved.

    Attributes:
        lower: smallest position, radians; -inf for a continuous joint.
        upper: largest position, radians; inf for a continuous joint.
        velocity: largest speed, radians/s.
        acceleration: largest acceleration, radians/s^2.
    """

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array

    def unknown(self, joint_names: Sequence[str]) -> str:
        """What is not known, in words; empty when everything is."""
        return ", ".join(
            f"{name} {what}"
            for what in ("lower", "upper", "velocity", "acceleration")
            for name, value in zip(joint_names, getattr(self, what), strict=True)
            if np.isnan(value)
        )


@dataclass(frozen=True)
class Neck:
    """A serial chain of rotary joints from a base link to what is pointed at things.

    Attributes:
        joint_names: J names, base first.
        base_frame: link the first joint hangs on.
        look_frame: frame whose axis is pointed.
        look_axis: (3,) unit vector in the look frame.
        axes: (J, 3) unit joint axes, each in its joint's frame.
        offsets: J + 1 motions: parent joint's moving frame from the next joint's resting frame,
            the last one to the look frame.
        limits: of the joints.
    """

    joint_names: tuple[str, ...]
    base_frame: str
    look_frame: str
    look_axis: Array
    axes: Array
    offsets: tuple[Rigid, ...]
    limits: Limits

    @property
    def rest(self) -> Array:
        """(J,) positions closest to zero that the limits allow, radians."""
        lower, upper = self._position_limits()
        return np.clip(np.zeros(len(self.joint_names)), lower, upper)

    def base_from_look(self, positions: ArrayLike) -> Rigid:
        """Forward kinematics of joint positions (J,) in radians."""
        return self._kinematics(positions)[0]

    def bearing(self, positions: ArrayLike, point: ArrayLike) -> Array:
        """How far from the look axis a point is seen.

        Args:
            positions: (J,) radians.
            point: (3,) base frame, metres.

        Returns:
            (3,) rotation vector in the look frame that turns the look axis to the point, radians.
        """
        return self._bearing_and_jacobian(positions, np.asarray(point, np.float64))[0]

    def aim(self, point: ArrayLike) -> Array:
        """Joint positions that look at a point, or as near to it as the limits allow.

        Levenberg-Marquardt on the bearing, from the resting posture: one target has one answer,
        and joints that are not needed stay near rest.

        Args:
            point: (3,) base frame, metres.

        Returns:
            (J,) radians.
        """
        lower, upper = self._position_limits()
        positions, target, damping = self.rest, np.asarray(point, np.float64), _DAMPING
        bearing, jacobian = self._bearing_and_jacobian(positions, target)
        for _ in range(_ITERATIONS):
            change = _step_within(jacobian, bearing, damping, lower - positions, upper - positions)
            if float(np.abs(change).max()) < 1e-7:
                break
            new_bearing, new_jacobian = self._bearing_and_jacobian(positions + change, target)
            if new_bearing @ new_bearing < bearing @ bearing:
                positions, bearing, jacobian = positions + change, new_bearing, new_jacobian
                damping = max(damping / 3.0, _DAMPING)
            else:
                damping *= 10.0
        return np.clip(positions, lower, upper)

    def _kinematics(self, positions: ArrayLike) -> tuple[Rigid, Array, Array]:
        """base_from_look; (J, 3) joint axes and (J, 3) joint origins, base frame."""
        rotation, origin = self.offsets[0].rotation, self.offsets[0].translation
        axes, origins = [], []
        for axis, angle, skew, offset in zip(
            self.axes,
            np.asarray(positions, np.float64),
            self._skews,
            self.offsets[1:],
            strict=True,
        ):
            axes.append(rotation @ axis)
            origins.append(origin)
            turn = np.eye(3) + np.sin(angle) * skew + (1.0 - np.cos(angle)) * (skew @ skew)
            rotation = rotation @ turn
            origin = origin + rotation @ offset.translation
            rotation = rotation @ offset.rotation
        return Rigid(rotation, origin), np.array(axes), np.array(origins)

    def _bearing_and_jacobian(self, positions: ArrayLike, point: Array) -> tuple[Array, Array]:
        """The bearing (3,), and (3, J) how the joints turn it; J^T bearing is exact."""
        base_from_look, axes, origins = self._kinematics(positions)
        look_from_base = base_from_look.rotation.T
        seen = look_from_base @ (point - base_from_look.translation)
        distance = max(float(np.linalg.norm(seen)), 1e-9)
        cross = _cross(self.look_axis, seen / distance)
        sine, cosine = float(np.linalg.norm(cross)), float(self.look_axis @ seen) / distance
        if sine < 1e-9 and cosine < 0.0:  # straight behind: any way round is as good
            cross, sine = 1e-9 * np.roll(self.look_axis, 2), 1e-9
        angle_per_sine = np.arctan2(sine, cosine) / sine if sine > 1e-12 else 1.0
        motion = -_cross(axes, point - origins) @ look_from_base.T / distance  # (J, 3) of seen
        return cross * angle_per_sine, -_cross(motion, seen / distance).T

    @cached_property
    def _skews(self) -> list[Array]:
        return [np.asarray(_LEVI_CIVITA @ axis).T.copy() for axis in self.axes]

    def _position_limits(self) -> tuple[Array, Array]:
        lower = np.where(np.isnan(self.limits.lower), -np.pi, self.limits.lower)
        upper = np.where(np.isnan(self.limits.upper), np.pi, self.limits.upper)
        return lower, upper


def _cross(a: Array, b: Array) -> Array:
    """Cross product on the last axis; np.cross takes five times as long on one vector."""
    return np.asarray(np.einsum("ijk,...j,...k->...i", _LEVI_CIVITA, a, b))


def _step_within(
    jacobian: Array, residual: Array, damping: float, low: Array, high: Array
) -> Array:
    """Levenberg-Marquardt step between bounds: what one joint may not do is left to the others."""
    change = np.zeros(jacobian.shape[1])
    free = np.ones(len(change), bool)
    while free.any():
        j = jacobian[:, free]
        rest = residual + jacobian[:, ~free] @ change[~free]
        normal = j.T @ j + damping * np.eye(j.shape[1])
        change[free] = np.clip(-np.linalg.solve(normal, j.T @ rest), -_MAX_STEP, _MAX_STEP)
        beyond = free & ((change < low) | (change > high))
        if not beyond.any():
            break
        change = np.clip(change, low, high)
        free &= ~beyond
    return change


def neck_from_urdf(
    urdf: str,
    joint_names: Sequence[str],
    look_frame: str,
    *,
    look_axis: str = "z",
    max_velocity: float = np.inf,
    max_acceleration: float = np.nan,
    limit_margin: float = 0.0,
) -> Neck:
    """Reads a neck from a robot description.

    Args:
        urdf: text of the URDF.
        joint_names: the joints to move, in any order.
        look_frame: link to point; a camera's optical frame, or a head link.
        look_axis: `z` for optical frames, `x` for body frames (REP-103).
        max_velocity: cap on the URDF's velocity limits, radians/s.
        max_acceleration: radians/s^2; a URDF does not say it.
        limit_margin: distance to keep from the position limits, radians.

    Raises:
        ConfigError: the text is no URDF, or does not have these joints on the way to that link.
    """
    if look_axis not in LOOK_AXES:
        raise ConfigError("look_axis x or z", repr(look_axis), "z for optical frames, else x")
    if not joint_names:
        raise ConfigError("the names of the neck's joints", "none", "set `joints`")
    joints = _joints_by_child(urdf)
    chain = _chain(joints, joint_names, look_frame)
    moving = [joint for joint in chain if joint.get("name") in joint_names]
    offsets, pending = [], Rigid.identity()
    for joint in chain:
        pending = pending @ _origin(joint)
        if joint.get("name") in joint_names:
            offsets.append(pending)
            pending = Rigid.identity()
    parent = chain[0].find("parent")
    return Neck(
        joint_names=tuple(str(joint.get("name")) for joint in moving),
        base_frame=str(parent.get("link") if parent is not None else ""),
        look_frame=look_frame,
        look_axis=LOOK_AXES[look_axis],
        axes=np.array([_axis(joint) for joint in moving]),
        offsets=(*offsets, pending),
        limits=_limits(moving, max_velocity, max_acceleration, limit_margin),
    )


def _joints_by_child(urdf: str) -> dict[str, ElementTree.Element]:
    try:
        robot = ElementTree.fromstring(urdf)
    except ElementTree.ParseError as fault:
        raise ConfigError(
            "a URDF", f"text that is no XML ({fault})", "give the output of xacro, not the xacro"
        ) from None
    joints = {}
    for joint in robot.findall("joint"):
        child = joint.find("child")
        if child is not None and joint.find("parent") is not None:
            joints[str(child.get("link"))] = joint
    return joints


def _chain(
    joints: dict[str, ElementTree.Element], joint_names: Sequence[str], look_frame: str
) -> list[ElementTree.Element]:
    """Joints from the base link to the look frame, base first."""
    remaining = set(joint_names)
    chain: list[ElementTree.Element] = []
    link = look_frame
    while remaining:
        if link not in joints or len(chain) > len(joints):
            raise ConfigError(
                f"the joints {', '.join(sorted(remaining))} between the robot's root and "
                f"{look_frame}",
                f"a chain that reaches {link}",
                "check `joints` and `look_frame` against the URDF",
            )
        joint = joints[link]
        name, kind = str(joint.get("name")), joint.get("type")
        if name in remaining and kind not in ("revolute", "continuous"):
            raise ConfigError(f"a rotary joint {name}", f"{kind}", "leave it out of `joints`")
        if name not in remaining and kind != "fixed":
            raise ConfigError(
                f"only fixed joints besides {', '.join(joint_names)} up to {look_frame}",
                f"the {kind} joint {name}",
                "add it to `joints`, or choose another `look_frame`",
            )
        remaining.discard(name)
        chain.insert(0, joint)
        link = str(getattr(joint.find("parent"), "attrib", {}).get("link"))
    return chain


def _origin(joint: ElementTree.Element) -> Rigid:
    origin = joint.find("origin")
    xyz = _numbers(joint, origin, "xyz", "0 0 0")
    roll, pitch, yaw = _numbers(joint, origin, "rpy", "0 0 0")
    turns = [np.array([0.0, 0.0, yaw]), np.array([0.0, pitch, 0.0]), np.array([roll, 0.0, 0.0])]
    return Rigid(reduce(np.matmul, map(rotation_from_vector, turns)), xyz)


def _axis(joint: ElementTree.Element) -> Array:
    axis = _numbers(joint, joint.find("axis"), "xyz", "1 0 0")
    length = float(np.linalg.norm(axis))
    if length == 0.0:
        raise ConfigError(f"an axis for {joint.get('name')}", "0 0 0", "correct the URDF")
    return np.asarray(axis / length)


def _limits(
    moving: Sequence[ElementTree.Element],
    max_velocity: float,
    max_acceleration: float,
    margin: float,
) -> Limits:
    rows = []
    for joint in moving:
        limit = joint.find("limit")
        if joint.get("type") == "continuous":
            lower, upper = -np.inf, np.inf
        else:
            lower = _numbers(joint, limit, "lower", "nan")[0] + margin
            upper = _numbers(joint, limit, "upper", "nan")[0] - margin
            if lower > upper:
                raise ConfigError(
                    f"room between the limits of {joint.get('name')}",
                    f"{lower:.3f} to {upper:.3f} rad with a margin of {margin:.3f}",
                    "correct the URDF, or lower limit_margin",
                )
        velocity = _numbers(joint, limit, "velocity", "nan")[0]
        rows.append([lower, upper, np.fmin(velocity, max_velocity), max_acceleration])
    table = np.array(rows, np.float64)
    table[np.isposinf(table[:, 2]), 2] = np.nan
    return Limits(*(np.ascontiguousarray(column) for column in table.T))


def _numbers(
    joint: ElementTree.Element, element: ElementTree.Element | None, key: str, default: str
) -> Array:
    text = default if element is None else element.get(key, default)
    try:
        numbers = np.array([float(word) for word in text.split()])
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) != len(default.split()) or np.isinf(numbers).any():
        raise ConfigError(
            f"{len(default.split())} numbers in {key} of joint {joint.get('name')}",
            repr(text),
            "correct the URDF",
        )
    return numbers
