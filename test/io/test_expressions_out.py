"""What animation tools receive, read by code that is not ours where there is some (python-osc)."""

import csv
import socket
import struct
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import ConfigError, DataError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.io.expressions_out import (
    ARKIT_NAMES,
    CsvRecorder,
    LiveLinkEncoder,
    Neutral,
    Performance,
    UdpSender,
    VmcEncoder,
    live_link_values,
)

VALUES = np.random.default_rng(3).uniform(size=52)


def performance(stamp=12.5, values=VALUES, turn=(0.0, 0.0, 0.0)):
    """`turn` is about the face's own axes: out, left, up."""
    rotation = CAMERA_FROM_FRONTAL_FACE @ rotation_from_vector(turn)
    return Performance.of(stamp, ARKIT_NAMES, values, Rigid(rotation, np.array([0.1, 0.2, 0.6])))


def test_names_are_the_face_models():
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    assert set(ARKIT_NAMES) == set(model.expression_names)
    assert len(set(ARKIT_NAMES)) == 52


@pytest.fixture
def osc():
    """python-osc's server on a free port, and what it has received."""
    dispatcher = pytest.importorskip("pythonosc.dispatcher").Dispatcher()
    server_module = pytest.importorskip("pythonosc.osc_server")
    received, done = [], threading.Event()

    def take(address, *arguments):
        received.append((address, arguments))
        if address == "/VMC/Ext/Blend/Apply":
            done.set()

    dispatcher.set_default_handler(take)
    server = server_module.BlockingOSCUDPServer(("127.0.0.1", 0), dispatcher)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(port=server.server_address[1], received=received, done=done)
    server.shutdown()
    thread.join()
    server.server_close()


def test_vmc_arrives_at_a_receiver_nobody_here_wrote(osc):
    sender = UdpSender("127.0.0.1", osc.port)
    sender.send(VmcEncoder()(performance()))
    assert osc.done.wait(20)
    sender.close()
    values = {a[0]: a[1] for address, a in osc.received if address == "/VMC/Ext/Blend/Val"}
    assert set(values) == set(ARKIT_NAMES)
    for name, value in zip(ARKIT_NAMES, VALUES, strict=True):
        assert values[name] == pytest.approx(value, abs=1e-6)
    (bone,) = [a for address, a in osc.received if address == "/VMC/Ext/Bone/Pos"]
    assert bone[0] == "Head"
    np.testing.assert_allclose(bone[4:], [0, 0, 0, 1], atol=1e-6)
    assert ("/VMC/Ext/OK", (1,)) in osc.received
    assert osc.received[-1][0] == "/VMC/Ext/Blend/Apply"


def test_vmc_packets_fit_the_network():
    packets = VmcEncoder()(performance())
    assert 1 < len(packets) < 4
    assert max(map(len, packets)) <= 1472
    assert all(packet.startswith(b"#bundle\0") and len(packet) % 4 == 0 for packet in packets)


@pytest.mark.parametrize(
    "turn, quaternion",
    [
        # Unity: x right, y up, z forward, left-handed; clockwise seen along the axis is positive.
        ((0.0, 0.0, 0.4), (0.0, -np.sin(0.2), 0.0, np.cos(0.2))),  # to the subject's left
        ((0.0, 0.4, 0.0), (np.sin(0.2), 0.0, 0.0, np.cos(0.2))),  # down
        ((0.4, 0.0, 0.0), (0.0, 0.0, -np.sin(0.2), np.cos(0.2))),  # left ear up
    ],
)
def test_heads_turn_the_right_way_in_unity(turn, quaternion):
    packet = VmcEncoder()(performance(turn=turn))[0]
    start = packet.index(b"Head\0\0\0\0") + 8
    np.testing.assert_allclose(
        struct.unpack(">7f", packet[start : start + 28])[3:], quaternion, atol=1e-6
    )


def test_live_link_packet_is_as_documented():
    """Version, device, subject, time code, count, values; all big-endian."""
    (packet,) = LiveLinkEncoder("Ada")(performance(stamp=2.5))
    version, length = struct.unpack(">Bi", packet[:5])
    assert (version, length) == (6, 36)
    at = 5 + 36
    (length,) = struct.unpack(">i", packet[at : at + 4])
    assert packet[at + 4 : at + 4 + length] == b"Ada"
    at += 4 + length
    frame, sub, rate, per, count = struct.unpack(">ifiiB", packet[at : at + 17])
    assert (frame, sub, rate, per, count) == (150, 0.0, 60, 1, 61)
    values = struct.unpack(">61f", packet[at + 17 :])
    np.testing.assert_allclose(values[:52], VALUES, atol=1e-6)


def test_angles_are_those_of_the_head_and_the_eyes():
    still = dict.fromkeys(ARKIT_NAMES, 0.0)
    assert np.abs(live_link_values(performance(values=np.zeros(52)))).max() < 1e-9
    for turn, angle in (((0, 0, 0.3), 52), ((0, 0.3, 0), 53), ((0.3, 0, 0), 54)):
        values = live_link_values(performance(values=np.zeros(52), turn=turn))
        assert values[angle] == pytest.approx(0.3, abs=1e-9)
        assert np.abs(np.delete(values, angle)).max() < 1e-9
    to_left = still | {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}
    p = performance()
    left, right = np.array(live_link_values(Performance(0.0, to_left, np.eye(3), p.position)))[
        [55, 58]
    ]
    assert left == right == pytest.approx(np.radians(28))


def test_csv_has_a_row_a_moment(tmp_path):
    table = CsvRecorder(tmp_path / "new" / "a.csv")
    table.add(performance(stamp=3661.5))
    table.close()
    header, row = list(csv.reader((tmp_path / "new" / "a.csv").open()))
    assert header[:3] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft"]
    assert len(header) == len(row) == 63
    assert row[:2] == ["01:01:01:30.000", "61"]
    np.testing.assert_allclose([float(v) for v in row[2:54]], VALUES, atol=1e-6)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError):
        CsvRecorder(tmp_path / "file" / "a.csv")
    written = (tmp_path / "new" / "a.csv").read_bytes()
    CsvRecorder(tmp_path / "new" / "a.csv").close()  # a run without a face loses nothing
    assert (tmp_path / "new" / "a.csv").read_bytes() == written


def test_the_face_at_rest_is_taken_off():
    neutral = Neutral(1.0)
    rest = np.full(52, 0.2)
    before = [neutral(performance(stamp=t, values=rest)) for t in (0.0, 0.5, 0.9)]
    assert before[0].expression["jawOpen"] == pytest.approx(0.2)
    assert not neutral.done
    after = neutral(performance(stamp=1.0, values=rest))
    assert neutral.done and max(after.expression.values()) < 1e-9
    full = neutral(performance(stamp=1.1, values=np.ones(52)))
    assert min(full.expression.values()) == pytest.approx(1.0)
    assert Neutral(0.0)(before[1]) is before[1]
    with pytest.raises(ConfigError):
        Neutral(-1.0)


def test_nobody_listening_harms_nothing():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    sender = UdpSender("127.0.0.1", port)
    for _ in range(5):
        sender.send(VmcEncoder()(performance()))
    sender.close()
    with pytest.raises(ConfigError, match="65535"):
        UdpSender("127.0.0.1", 70000)
    with pytest.raises(ConfigError, match="host"):
        UdpSender("no.such.host.invalid", 39539)
