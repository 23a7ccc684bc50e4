"""Expressions for animation tools, by their own protocols: VMC over OSC, Live Link Face, CSV.

- VMC (Virtual Motion Capture, https://protocol.vmc.info): OSC 1.0 messages over UDP, usually to
  port 39539. VSeeFace, Warudo, Unity and Godot receive it.
- Live Link Face: the UDP packets of Epic's app, usually to port 11111. Unreal and Blender add-ons
  receive it.
- CSV: the table that Epic's app records.

Names are ARKit's. Bytes only: nothing here opens a socket but `UdpSender`.
"""

from __future__ import annotations

import contextlib
import csv
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.rigid import Rigid, quaternion_from_rotation
from face_recon_ros.io.folders import check_place, written

VMC, LIVE_LINK = "vmc", "livelink"
PORTS = {VMC: 39539, LIVE_LINK: 11111}

#: In the order of Live Link Face's packets, 52 of ARKit's names (ARFaceAnchor.BlendShapeLocation).
ARKIT_NAMES = (
    "eyeBlinkLeft",
    "eyeLookDownLeft",
    "eyeLookInLeft",
    "eyeLookOutLeft",
    "eyeLookUpLeft",
    "eyeSquintLeft",
    "eyeWideLeft",
    "eyeBlinkRight",
    "eyeLookDownRight",
    "eyeLookInRight",
    "eyeLookOutRight",
    "eyeLookUpRight",
    "eyeSquintRight",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawRight",
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthLeft",
    "mouthRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)
_ANGLES = ("HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll",
           "RightEyeYaw", "RightEyePitch", "RightEyeRoll")  # fmt: skip
_EYE_YAW, _EYE_PITCH = np.radians(28.0), np.radians(24.0)  # of a full eyeLook* activation
_LARGEST_PACKET = 1472  # bytes that fit one Ethernet frame
_RATE = 60  # frames a second of Live Link Face's time code
_DEVICE = "00000000-0000-4000-8000-000000000000"  # any UUID does


@dataclass(frozen=True)
class Performance:
    """What a face does at one moment.

    Attributes:
        stamp: seconds.
        expression: ARKit name -> activation in [0, 1].
        head: (3, 3) rotation from facing the camera, face frame (x out, y left, z up).
        position: (3,) metres, same axes, camera's place as origin.
    """

    stamp: float
    expression: Mapping[str, float]
    head: NDArray[np.floating]
    position: NDArray[np.floating]

    @staticmethod
    def of(
        stamp: float, names: Sequence[str], values: Sequence[float], camera_from_face: Rigid
    ) -> Performance:
        """From names, values and a pose in the camera's optical frame."""
        frontal = CAMERA_FROM_FRONTAL_FACE.T
        return Performance(
            stamp,
            dict(zip(names, map(float, values), strict=True)),
            frontal @ camera_from_face.rotation,
            frontal @ camera_from_face.translation,
        )


class Neutral:
    """A person's face at rest, taken off: what they look like is no expression."""

    def __init__(self, seconds: float) -> None:
        """Calibrates over the first seconds; 0 leaves expressions as they are.

        Args:
            seconds: during which the person should look relaxed.
        """
        if not 0 <= seconds <= 60:
            raise ConfigError("0 to 60 seconds of calibration", f"{seconds}", "3 is enough")
        self._seconds = seconds
        self._start: float | None = None
        self._seen: list[Mapping[str, float]] = []
        self._rest: dict[str, float] = {}

    @property
    def done(self) -> bool:
        """Whether the calibration is over."""
        return self._seconds == 0 or (self._start is not None and not self._seen)

    def __call__(self, p: Performance) -> Performance:
        """The performance with the face at rest taken off, as far as it is known by now."""
        if self._seconds == 0:
            return p
        if self._start is None:
            self._start = p.stamp
        if p.stamp - self._start < self._seconds:
            self._seen.append(p.expression)
        elif self._seen:
            columns = {name: [seen[name] for seen in self._seen] for name in self._seen[0]}
            self._rest = {name: float(np.median(values)) for name, values in columns.items()}
            self._seen = []
        moved = {}
        for name, value in p.expression.items():
            rest = min(self._rest.get(name, 0.0), 0.9)
            moved[name] = min(max((value - rest) / (1 - rest), 0.0), 1.0)
        return Performance(p.stamp, moved, p.head, p.position)


class VmcEncoder:
    """Performances as OSC packets."""

    def __call__(self, p: Performance) -> list[bytes]:
        """Bundles for one moment, each small enough for a network packet."""
        messages = [
            _osc("/VMC/Ext/OK", 1),
            _osc("/VMC/Ext/T", float(p.stamp % 86400.0)),
            _osc("/VMC/Ext/Bone/Pos", "Head", *_unity_position(p), *_unity_quaternion(p.head)),
            *(_osc("/VMC/Ext/Blend/Val", name, value) for name, value in p.expression.items()),
            _osc("/VMC/Ext/Blend/Apply"),
        ]
        packets, bundle = [], bytearray(_BUNDLE)
        for message in messages:
            if len(bundle) + 4 + len(message) > _LARGEST_PACKET:
                packets.append(bytes(bundle))
                bundle = bytearray(_BUNDLE)
            bundle += struct.pack(">i", len(message)) + message
        return [*packets, bytes(bundle)]


class LiveLinkEncoder:
    """Performances as the packets of Epic's Live Link Face app, version 6."""

    def __init__(self, subject: str = "face") -> None:
        """Names the sender.

        Args:
            subject: as it shows up in Unreal.
        """
        self._head = b"\x06" + _counted(_DEVICE) + _counted(subject)

    def __call__(self, p: Performance) -> list[bytes]:
        """One packet."""
        frame = p.stamp * _RATE
        values = live_link_values(p)
        time_code = struct.pack(">ifii", int(frame) & 0x7FFFFFFF, float(frame % 1.0), _RATE, 1)
        return [self._head + time_code + struct.pack(f">B{len(values)}f", len(values), *values)]


class CsvRecorder:
    """The table that Epic's app records; its first row replaces an older table."""

    def __init__(self, path: Path) -> None:
        """Looks whether it can be written.

        Raises:
            DataError: it cannot.
        """
        check_place(path, folder=False)
        self._path = path
        self._file: IO[str] | None = None

    def add(self, p: Performance) -> None:
        """A row.

        Raises:
            DataError: the table cannot be written.
        """
        if self._file is None:
            with written(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("w", newline="")
            self._table = csv.writer(self._file)
            names = [name[0].upper() + name[1:] for name in ARKIT_NAMES]
            self._table.writerow(["Timecode", "BlendShapeCount", *names, *_ANGLES])
        seconds, frame = int(p.stamp), (p.stamp % 1.0) * _RATE
        hours, minutes = seconds // 3600 % 24, seconds // 60 % 60
        code = f"{hours:02d}:{minutes:02d}:{seconds % 60:02d}:{frame:06.3f}"
        values = live_link_values(p)
        self._table.writerow([code, len(values), *(f"{value:.6f}" for value in values)])

    def close(self) -> None:
        """Ends the file."""
        if self._file is not None:
            self._file.close()


class UdpSender:
    """Packets to one address. A peer that is gone does no harm, and is found when it is back.

    Attributes:
        lost: packets that were not received, as far as the network reports.
    """

    def __init__(self, host: str, port: int) -> None:
        """Finds the address.

        Raises:
            ConfigError: there is no such host or port.
        """
        if not 0 < port < 1 << 16:
            raise ConfigError("a port from 1 to 65535", f"{port}", "see the receiver's settings")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        except OSError as fault:
            raise ConfigError("a host to send to", f"{host!r}: {fault}", "try 127.0.0.1") from None
        self._address = found[4]
        self._socket = socket.socket(found[0], socket.SOCK_DGRAM)
        self._connected = False
        self.lost = 0

    def send(self, packets: Sequence[bytes]) -> None:
        """Sends what can be sent; what cannot is counted in `lost`."""
        for packet in packets:
            try:
                if not self._connected:  # else the missing receiver is not reported
                    self._socket.connect(self._address)
                    self._connected = True
                self._socket.send(packet)
            except ConnectionRefusedError:  # of a packet before; this one has not been sent
                self.lost += 1
                with contextlib.suppress(OSError):
                    self._socket.send(packet)
            except OSError:  # the network is down: it may come back
                self.lost += 1

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()


def live_link_values(p: Performance) -> list[float]:
    """52 activations and nine angles in radians, in Live Link Face's order."""
    e = p.expression
    shapes = [float(e.get(name, 0.0)) for name in ARKIT_NAMES]
    out, left, up = p.head.T  # where the face's own axes point
    yaw = float(np.arctan2(out[1], out[0]))
    pitch = float(np.arctan2(-out[2], np.hypot(out[0], out[1])))
    roll = float(np.arctan2(left[2], up[2]))
    angles = [yaw, pitch, roll]
    for side, inwards in (("Left", -1.0), ("Right", 1.0)):
        inward = e.get(f"eyeLookIn{side}", 0.0) - e.get(f"eyeLookOut{side}", 0.0)
        down = e.get(f"eyeLookDown{side}", 0.0) - e.get(f"eyeLookUp{side}", 0.0)
        angles += [inwards * inward * _EYE_YAW, down * _EYE_PITCH, 0.0]
    return [*shapes, *map(float, angles)]


_BUNDLE = b"#bundle\0" + struct.pack(">Q", 1)  # to be used at once


def _osc(address: str, *arguments: str | int | float) -> bytes:
    """An OSC 1.0 message."""
    tags, data = ",", b""
    for argument in arguments:
        if isinstance(argument, str):
            tags, data = tags + "s", data + _padded(argument)
        elif isinstance(argument, int):
            tags, data = tags + "i", data + struct.pack(">i", argument)
        else:
            tags, data = tags + "f", data + struct.pack(">f", argument)
    return _padded(address) + _padded(tags) + data


def _padded(text: str) -> bytes:
    raw = text.encode()
    return raw + b"\0" * (4 - len(raw) % 4)


def _counted(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">i", len(raw)) + raw


def _unity_position(p: Performance) -> list[float]:
    """Metres, Unity's axes: x right, y up, z forward, left-handed."""
    x, y, z = map(float, p.position)
    return [-y, z, x]


def _unity_quaternion(rotation: NDArray[np.floating]) -> list[float]:
    """X y z w in Unity's axes: a mirror image turns the other way about the mirrored axis."""
    x, y, z, w = map(float, quaternion_from_rotation(rotation))
    return [y, -z, -x, w]
