"""What a node tells in /diagnostics, without a node."""

from types import SimpleNamespace

import pytest

from face_recon_ros.nodes.reconstruction import report_presence
from face_recon_ros.nodes.status import Meter


def faces(*presence):
    return [SimpleNamespace(presence=p) for p in presence]


@pytest.mark.parametrize("nobody", [[], faces(None, None)], ids=["no face", "no such output"])
def test_without_presence_none_is_told(nobody):
    meter = Meter()
    report_presence(meter, nobody)
    assert "presence" not in meter.values("processed")


def test_presence_is_that_of_the_faces_since_the_last_message():
    meter = Meter()
    report_presence(meter, faces(0.9, 0.7, None))
    report_presence(meter, faces(0.96))
    assert meter.values("processed")["presence"] == "min 0.70 p50 0.90"
    assert "presence" not in meter.values("processed")
    report_presence(meter, faces(0.55))
    assert meter.values("processed")["presence"] == "min 0.55 p50 0.55"
