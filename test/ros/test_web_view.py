"""Where the page of the viewer may be served, and what is said where it may not."""

import socket

import pytest

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
