"""One person's performance to animation tools: choice of the person, calibration at rest, output.

The command `face-recon stream` and the expression bridge node both use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.io.expressions_out import (
    LIVE_LINK,
    PORTS,
    LiveLinkEncoder,
    Neutral,
    Performance,
    UdpSender,
    VmcEncoder,
)

PROTOCOLS = tuple(PORTS)
LOOPBACK = "127.0.0.1"

_GONE_S = 1.0  # unseen for so long, a person makes place for another
_NOW_S = 0.2  # people seen within this time are seen together
_REMEMBERED_PEOPLE = 32


@dataclass(frozen=True)
class StreamConfig:
    """Whose expressions are sent, and where to.

    Attributes:
        to: Packets follow this protocol: `vmc` is VMC over OSC (VSeeFace, Warudo, Unity,
            Godot), `livelink` is that of Epic's Live Link Face app (Unreal, Blender add-ons).
        host: Packets go to this host; 127.0.0.1 is this machine.
        port: Packets go to this UDP port; 0 takes the protocol's own, 39539 for VMC and 11111
            for Live Link.
        subject: Live Link shows the face by this name.
        id: Packets show the person of this track id; empty takes the nearest one, and stays with
            them while they are seen.
        calibrate_s: The person's face at rest is measured over this time in seconds at first
            sight, and taken off from then on; 0 leaves expressions as they are.
    """

    to: str = PROTOCOLS[0]
    host: str = LOOPBACK
    port: int = ranged(0, 0, 65535)
    subject: str = "face"
    id: str = ""
    calibrate_s: float = ranged(0.0, 0.0, 60.0)

    def __post_init__(self) -> None:
        """Checks what can be checked without a network.

        Raises:
            ConfigError: a value out of its range.
        """
        if self.to not in PROTOCOLS:
            raise ConfigError(f"to {' or '.join(PROTOCOLS)}", repr(self.to), "choose one")
        check_ranges(self)


class Sink(Protocol):
    """What takes performances."""

    def add(self, p: Performance) -> None:
        """Takes one."""

    def close(self) -> None:
        """Ends."""


class UdpSink:
    """Packets of a protocol to one receiver.

    Attributes:
        receiver: host and port, for people.
    """

    def __init__(self, config: StreamConfig) -> None:
        """Finds the receiver's address.

        Raises:
            ConfigError: there is no such host.
        """
        port = config.port or PORTS[config.to]
        self._encode = LiveLinkEncoder(config.subject) if config.to == LIVE_LINK else VmcEncoder()
        self._sender = UdpSender(config.host, port)
        self.receiver = f"{config.host}:{port}"

    @property
    def lost(self) -> int:
        """Packets that were not received, as far as the network reports."""
        return self._sender.lost

    def add(self, p: Performance) -> None:
        """Sends it."""
        self._sender.send(self._encode(p))

    def close(self) -> None:
        """Gives the socket back."""
        self._sender.close()


class ExpressionStream:
    """Takes what several people do, and passes one person's performance on.

    Attributes:
        person: whose it is; empty before the first.
        count: performances passed on.
    """

    def __init__(self, config: StreamConfig, sinks: Sequence[Sink]) -> None:
        """Begins without a person."""
        self._config, self._sinks = config, sinks
        self._neutral: dict[str, Neutral] = {}
        self._seen: dict[str, tuple[float, float]] = {}  # person -> stamp, distance in metres
        self.person, self.count = config.id, 0

    @property
    def calibrated(self) -> bool:
        """Whether the face at rest of the person shown is known, or was not asked for."""
        neutral = self._neutral.get(self.person)
        return self._config.calibrate_s == 0 or (neutral is not None and neutral.done)

    def offer(self, person: str, p: Performance) -> bool:
        """Takes one moment of a performance.

        Args:
            person: track id. Offer the people of one image nearest first.
            p: their performance.

        Returns:
            Whether it was passed on: they are the one.
        """
        if not self._is_shown(person, p):
            return False
        neutral = self._neutral.pop(person, None) or Neutral(self._config.calibrate_s)
        self._neutral[person] = neutral
        while len(self._neutral) > _REMEMBERED_PEOPLE:
            del self._neutral[next(iter(self._neutral))]
        p = neutral(p)
        for sink in self._sinks:
            sink.add(p)
        self.count += 1
        return True

    def close(self) -> None:
        """Ends all sinks."""
        for sink in self._sinks:
            sink.close()

    def _is_shown(self, person: str, p: Performance) -> bool:
        if self._config.id:
            return person == self._config.id
        self._seen[person] = (p.stamp, float(np.linalg.norm(p.position)))
        self._seen = {
            name: seen for name, seen in self._seen.items() if abs(p.stamp - seen[0]) < _GONE_S
        }
        if self.person not in self._seen:
            near = {n: d for n, (stamp, d) in self._seen.items() if abs(p.stamp - stamp) < _NOW_S}
            self.person = min(near, key=lambda name: near[name])
        return person == self.person
