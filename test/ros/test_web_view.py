"""Where the page of the viewer may be served, and what is said where it may not."""

import socket

import cv2
import numpy as np
import pytest
from browser import Browser

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.nodes.web_view import WebView, parse_address


@pytest.mark.parametrize(
    "text, address",
    [
        ("", ("127.0.0.1", 9090)),
        ("8000", ("127.0.0.1", 8000)),
        ("0.0.0.0:8000", ("0.0.0.0", 8000)),
        ("robot.local:80", ("robot.local", 80)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["here", "127.0.0.1:here", "70000", "0"])
def test_what_is_no_address(text):
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9090"):
        parse_address(text)


def test_a_taken_port_is_told_before_anything_starts():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="a free port"):
            WebView(web_port=taken.getsockname()[1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_browser_shows_what_is_logged(tmp_path):
    """The page, opened: an image goes from here to the server and to the browser's pixels."""
    rerun = pytest.importorskip("rerun", reason="needs rerun-sdk (requirements/view.txt)")
    browser = Browser(tmp_path)
    view = WebView(web_port=free_port(), data_port=free_port())
    magenta = np.array([230, 20, 220], np.uint8)
    try:
        recording = rerun.RecordingStream("face_recon_test")
        recording.connect_grpc(view.data_url)
        recording.log("overlay", rerun.Image(np.tile(magenta, (120, 160, 1))), static=True)
        recording.flush()

        def share(picture):
            return (np.abs(picture.astype(int) - magenta).max(axis=-1) < 12).mean()

        picture = browser.look(view.url, lambda picture: share(picture) > 0.05, timeout_s=240)
        cv2.imwrite(str(tmp_path / "page.png"), picture[..., ::-1])
        assert share(picture) > 0.05
        recording.disconnect()
    finally:
        browser.close()
        view.close()
