"""Stamps of images beside a node's clock."""

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.clock import ROSClock
from rclpy.time import Time

from face_recon_ros.nodes.stamps import AHEAD_S, BEHIND_S, Stamps

NOW_S = 1_700_000_000.0


def stamps_at(now_s):
    return Stamps(SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=int(now_s * 1e9))))


@pytest.mark.parametrize("lag_s", [-0.01, 0.0, 0.05, 3.0])
def test_images_of_the_nodes_clock_have_a_latency(lag_s):
    stamps = stamps_at(NOW_S)
    stamps.arrived(NOW_S - lag_s)
    assert stamps.warning == ""
    assert stamps.latency(NOW_S - lag_s)["latency"] == pytest.approx(lag_s, abs=1e-6)


@pytest.mark.parametrize(
    ("stamp", "says"),
    [
        (0.0, "stamped 0"),
        (NOW_S - 1.2 * BEHIND_S, "12.0 s before"),
        (NOW_S - 10 * 86400, "10.0 days before"),
        (NOW_S + 1.2 * AHEAD_S, "0.6 s after"),
    ],
)
def test_images_of_another_clock_are_said_and_have_no_latency(stamp, says):
    stamps = stamps_at(NOW_S)
    stamps.arrived(stamp)
    assert says in stamps.warning
    assert stamps.latency(stamp) == {}
    stamps.arrived(NOW_S)
    assert stamps.warning == "" and stamps.latency(NOW_S)


def test_nothing_is_said_of_images_that_come_no_more(monkeypatch):
    stamps = stamps_at(NOW_S)
    stamps.arrived(0.0)
    assert stamps.warning
    later_s = time.monotonic() + 60.0
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    assert stamps.warning == ""


def test_simulated_time_that_nobody_publishes_is_said():
    clock = ROSClock()
    stamps = Stamps(clock)
    assert stamps.warning == ""
    clock._set_ros_time_is_active(True)
    assert "/clock" in stamps.warning
    clock.set_ros_time_override(Time(seconds=5, clock_type=clock.clock_type))
    assert stamps.warning == ""
