"""Config dataclasses -> declared parameters, with description, type, range and read-only flag.

The dataclasses are the one place where a setting is named, described (its docstring), defaulted
and checked. All nodes share one set of names (`detector.min_score`), so one YAML file serves the
composed node and the separate ones. `python -m face_recon_ros.nodes.parameters` prints their page.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from face_recon_ros.core.camera import DEFAULT_HORIZONTAL_FOV_DEG
from face_recon_ros.core.detection import DetectorConfig
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.head_state import HeadStateConfig
from face_recon_ros.core.overlay import OverlayConfig
from face_recon_ros.core.ranges import check_ranges, range_of, ranged
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.io.expression_stream import StreamConfig
from face_recon_ros.io.sources import SourceConfig
from face_recon_ros.nodes.neck_config import NeckConfig, SimulatedNeckConfig
from face_recon_ros.robot.look_at_config import LookAtConfig

#: A `camera.source` for images of another driver: launch files cannot pass an empty word.
TOPIC = "topic"


@dataclass(frozen=True)
class NodeConfig:
    """What every node has.

    Attributes:
        autostart: The node configures and activates itself; if false, it waits for a
            lifecycle manager.
    """

    autostart: bool = True


@dataclass(frozen=True)
class CameraConfig(SourceConfig):
    """Where images come from and what camera took them.

    Attributes:
        source: The source is a device number or /dev/video*, a stream (rtsp://, http://
            ...), a video file, a picture, a folder of pictures, a rosbag2, `pattern` or
            `portrait`; `topic` or empty leaves the camera to another driver's
            /camera/image_raw. A lost device or stream is opened again as soon as it is
            back.
        topic: Images of a bag are read from this topic; empty takes the topic that shows
            most, colour before grey.
        lockstep: Files are not played at their own rate: each image waits until the one
            before was processed (pipeline node only).
        max_frames: The source ends after this number of images; 0 reads all.
        exit_at_end: The node exits with status 0 when its source ends.
        wait_for_subscriber_s: A file waits for a subscriber for up to this time in seconds
            before it starts.
        transport: Images on the topic are taken `raw`, `compressed` (from .../compressed
            beside it), or by `auto`, which takes what is published, raw first.
        rectified: `true` says that images are rectified, so that P of CameraInfo counts
            and not K and D; `auto` decides by the topic's name (image_rect ...).
        calibration: This is the path of a camera_calibration YAML file; without one,
            CameraInfo counts.
        fov_deg: Without calibration, the longer side of an image is assumed to span this number of
            degrees.
    """

    source: str = ""
    topic: str = ""
    lockstep: bool = False
    max_frames: int = ranged(0, 0, 2**31)
    exit_at_end: bool = False
    wait_for_subscriber_s: float = ranged(0.0, 0.0, 3600.0)
    transport: str = "auto"
    rectified: str = "auto"
    calibration: str = ""
    fov_deg: float = ranged(DEFAULT_HORIZONTAL_FOV_DEG, 1.0, 179.0)

    @property
    def is_topic(self) -> bool:
        """Whether images come from another driver."""
        return self.source in ("", TOPIC)


@dataclass(frozen=True)
class NodeTrackerConfig(TrackerConfig):
    """How a node follows faces: people of two cameras, or of two runs, must not share ids.

    Attributes:
        seed: This is the seed of the track ids; -1 takes another one at each start, so
            that no two nodes or runs give the same id to different people.
    """

    seed: int = ranged(-1, -1, 2**62)

    def seeded(self) -> TrackerConfig:
        """The same with a seed in any case."""
        return replace(self, seed=secrets.randbits(62)) if self.seed < 0 else self


@dataclass(frozen=True)
class OutputConfig(HeadStateConfig):
    """What is published beside the meshes, and how the state of heads is estimated.

    Attributes:
        always: Every image is processed, even if no result has a subscriber.
        tf: The node publishes face_<id> and gaze_<id> transforms.
        depth: Distances are corrected by /camera/depth/image_raw, which must be registered
            to the colour image; it takes effect at start.
        humans: The node publishes REP-155's /humans/faces/... if hri_msgs is installed.
        coefficients: The node publishes /face/coefficients; identity coefficients are
            biometric data.
    """

    always: bool = False
    tf: bool = True
    depth: bool = False
    humans: bool = True
    coefficients: bool = False


@dataclass(frozen=True)
class VisualizationConfig:
    """Pictures for people.

    Attributes:
        marker_rate_hz: At most this number of marker messages is published a second.
        overlay_rate_hz: At most this number of overlay pictures is published a second.
        overlay_max_side_px: Larger images are shrunk to this side before faces are drawn
            on them.
        overlay: This belongs to the overlay picture.
    """

    marker_rate_hz: float = ranged(10.0, 0.1, 1000.0)
    overlay_rate_hz: float = ranged(10.0, 0.1, 1000.0)
    overlay_max_side_px: int = ranged(960, 64, 16384)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class ManagerConfig:
    """Of the lifecycle manager.

    Attributes:
        nodes: These nodes are brought up if they exist.
    """

    nodes: tuple[str, ...] = (
        "/camera/camera",
        "/face/detector",
        "/face/reconstruction",
        "/face/visualization",
        "/face/pipeline",
        "/face/viewer",
        "/face/expression_bridge",
        "/look_at",
        "/neck_simulator",
    )


GROUPS: dict[str, type] = {
    "": NodeConfig,
    "camera": CameraConfig,
    "detector": DetectorConfig,
    "tracker": NodeTrackerConfig,
    "reconstructor": ReconstructorConfig,
    "output": OutputConfig,
    "visualization": VisualizationConfig,
    "expression_bridge": StreamConfig,
    "neck": NeckConfig,
    "look_at": LookAtConfig,
    "neck_simulator": SimulatedNeckConfig,
    "manager": ManagerConfig,
}

#: What may change while a node runs; all else is read-only, as it takes effect at start only.
_DYNAMIC = re.compile(
    r"output\..*|visualization\..*|look_at\..*|detector\.min_score|reconstructor\.smooth_.*"
)
_AT_START = ("output.depth", "look_at.period_s")


def is_dynamic(name: str) -> bool:
    """Whether a parameter may change while a node runs."""
    return name not in _AT_START and _DYNAMIC.fullmatch(name) is not None


_FOREIGN = re.compile(r"use_sim_time|start_type_description_service|qos_overrides\..*")
_TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
    tuple: Parameter.Type.DOUBLE_ARRAY,
}


class Parameters:
    """The parameters of a node, as config objects.

    Attributes:
        configs: group name -> config, always complete and valid.
    """

    def __init__(self, node: Node, groups: tuple[str, ...]) -> None:
        """Declares the groups and reads them.

        Args:
            node: that has them.
            groups: of `GROUPS`.

        Raises:
            ConfigError: an unknown parameter was given, or a wrong value.
        """
        _refuse_unknown(node)
        _take_as_meant(node, groups)
        values: dict[str, Any] = {}
        for group in groups:
            for leaf in leaves(group):
                values[leaf.name] = _declare(node, leaf)
        self.configs: dict[str, Any] = {g: _build(GROUPS[g], g, values) for g in groups}
        self._values = values
        node.add_on_set_parameters_callback(self._set)

    def _set(self, parameters: list[Parameter]) -> SetParametersResult:
        values = dict(self._values)
        values.update({p.name: p.value for p in parameters if p.name in values})
        try:
            configs = {g: _build(GROUPS[g], g, values) for g in self.configs}
        except ConfigError as fault:
            return SetParametersResult(successful=False, reason=str(fault))
        self._values, self.configs = values, configs
        return SetParametersResult(successful=True)


class Leaf(NamedTuple):
    """One parameter.

    Attributes:
        name: with its groups, e.g. `detector.min_score`.
        default: of a type of ROS parameters; tuples are arrays.
        description: a sentence or more.
        limits: lowest and highest value; None where there are none.
    """

    name: str
    default: Any
    description: str
    limits: tuple[float, float] | None


def leaves(group: str) -> list[Leaf]:
    """Every parameter of a group, in order."""
    return _leaves(GROUPS[group], group)


def _leaves(config: type, prefix: str) -> list[Leaf]:
    described = _descriptions(config)
    default = config()
    out: list[Leaf] = []
    for item in dataclasses.fields(config):
        name, value = f"{prefix}.{item.name}".lstrip("."), getattr(default, item.name)
        if dataclasses.is_dataclass(value):
            own = described[item.name]
            inner = _leaves(type(value), name)
            out += [leaf._replace(description=f"{leaf.description} {own}") for leaf in inner]
        else:
            out.append(Leaf(name, value, described[item.name], range_of(item)))
    return out


def _descriptions(config: type) -> dict[str, str]:
    """Field -> what its docstring says of it, bases first."""
    out: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.M):
            out[name] = " ".join(text.split())
    return out


def _build(config: type, prefix: str, values: Mapping[str, Any]) -> Any:
    kwargs: dict[str, Any] = {}
    default = config()
    for item in dataclasses.fields(config):
        name, value = f"{prefix}.{item.name}".lstrip("."), getattr(default, item.name)
        if dataclasses.is_dataclass(value):
            kwargs[item.name] = _build(type(value), name, values)
        else:
            given = values[name]
            kwargs[item.name] = tuple(given) if isinstance(value, tuple) else given
    return config(**kwargs)


def _declare(node: Node, leaf: Leaf) -> Any:
    name, default, description, limits = leaf
    texts = isinstance(default, tuple) and any(isinstance(v, str) for v in default)
    kind = Parameter.Type.STRING_ARRAY if texts else _TYPES[type(default)]
    descriptor = ParameterDescriptor(
        description=description,
        type=kind.value,
        read_only=not is_dynamic(name),
    )
    if limits is not None:
        low, high = limits
        if kind is Parameter.Type.INTEGER:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    start = list(default) if isinstance(default, tuple) else default
    example = start if start != [] else [0.5, 1.0]
    try:
        # An empty list has no type: rclpy takes it for bytes.
        node.declare_parameter(name, kind if start == [] else start, descriptor)
    except InvalidParameterTypeException as fault:
        raise ConfigError(
            f"a {kind.name.lower()} for {name}",
            str(fault.parameter.type_.name.lower()) if hasattr(fault, "parameter") else str(fault),
            f"write it like {example!r}",
        ) from None
    except InvalidParameterValueException as fault:
        raise ConfigError(
            f"a {name} from {limits[0]} to {limits[1]}" if limits else f"another {name}",
            str(fault),
            f"the default is {start!r}",
        ) from None
    try:
        value = node.get_parameter(name).value
    except ParameterUninitializedException:
        return start
    return start if value is None else value


#: Their words are `true` and `false`; of all others that YAML reads as bools, `on` and `off`.
_TRUE_OR_FALSE = ("camera.rectified",)


def _take_as_meant(node: Node, groups: tuple[str, ...]) -> None:
    """What YAML reads as another type: `off` is a bool there, a device 0 a number, 60 no 60.0."""
    given = node._parameter_overrides  # rclpy has no public way to see them
    for name, default, _, _ in (leaf for group in groups for leaf in leaves(group)):
        if name in given and (meant := _meant(name, given[name].value, default)) is not None:
            given[name] = Parameter(name, value=meant)


def _meant(name: str, value: Any, default: Any) -> str | float | list[float] | None:
    """A value of the default's type for one of another, None where there is nothing to do."""
    if isinstance(default, str) and isinstance(value, bool):
        words = ("false", "true") if name in _TRUE_OR_FALSE else ("off", "on")
        return words[value]
    if isinstance(default, str) and isinstance(value, int | float):
        return str(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default == () and isinstance(value, Sequence) and {type(v) for v in value} == {int}:
        return [float(v) for v in value]
    return None


def _refuse_unknown(node: Node) -> None:
    known = {leaf.name for group in GROUPS for leaf in leaves(group)}
    for name in node._parameter_overrides:  # rclpy has no public way to see them
        if name in known or _FOREIGN.fullmatch(name):
            continue
        near = difflib.get_close_matches(name, known, 1)
        raise ConfigError(
            "parameters of docs/parameters.md",
            f"{name!r}",
            f"did you mean {near[0]!r}?" if near else "check the YAML file",
        )


_PAGE = """# Parameters

This page is generated: `python -m face_recon_ros.nodes.parameters > docs/parameters.md`.

All nodes use the same names, so one YAML file serves all of them (an example:
`config/demo.yaml`). Each node takes the groups that it needs and ignores the others; a name that
no node has is refused. What is marked *(dynamic)* can be changed while a node runs
(`ros2 param set`) and takes effect with the next image; everything else is read at start.
A range includes both of its ends.
"""


def markdown_page() -> str:
    """All parameters, as docs/parameters.md shows them."""
    rows = ["| parameter | default | range | meaning |", "|---|---|---|---|"]
    for group in GROUPS:
        for name, default, description, limits in leaves(group):
            shown = json.dumps(default)
            low_high = " .. ".join(map(str, limits)) if limits else ""
            star = " *(dynamic)*" if is_dynamic(name) else ""
            rows.append(f"| `{name}` | `{shown}` | {low_high} | {description}{star} |")
    return "\n".join([_PAGE, *rows]) + "\n"


if __name__ == "__main__":
    print(markdown_page(), end="")
