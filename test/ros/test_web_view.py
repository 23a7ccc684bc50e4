"""Where the page of the viewer may be served, and what is said where it may not."""

import re
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from browser import Browser

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from sensor_msgs.msg import Image as ImageMsg

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.nodes.runtime import LATCHED_QOS
from face_recon_ros.nodes.textures import TEXTURE_PX
from face_recon_ros.nodes.viewer import open_window
from face_recon_ros.nodes.web_view import WebView, first_free, page_url, parse_address


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


def test_who_asks_for_no_port_gets_a_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port < 65000:
            assert port < first_free("127.0.0.1", port) < port + 10


def test_a_page_for_others_names_this_machine():
    assert (
        page_url("127.0.0.1", 1, 2)
        == "http://127.0.0.1:1/?url=rerun%2Bhttp%3A%2F%2F127.0.0.1%3A2%2Fproxy"
    )
    assert "0.0.0.0" not in page_url("0.0.0.0", 1, 2)
    assert socket.gethostname() in page_url("0.0.0.0", 1, 2)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def skin(pixels):
    """Share of the pixels (H, W, 3) that have the colour of skin."""
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return ((red > 80) & (red - blue > 25) & (red > green) & (green > blue)).mean()


def shows_a_person(page):
    """Whether there is skin where the meshes are, and where the overlay is."""
    height, width = page.shape[:2]
    if height < 100:
        return False
    meshes, overlay = page[:, : width // 2], page[: height // 3, 3 * width // 5 :]
    return skin(meshes) > 0.03 and skin(overlay) > 0.01


def test_a_browser_shows_a_person(graph, listener, tmp_path):
    """Source, networks, messages, viewer, server, browser: textured mesh, overlay, plots."""
    pytest.importorskip("rerun", reason="needs rerun-sdk (requirements/view.txt)")
    browser = Browser(tmp_path)
    web, data = free_port(), free_port()
    try:
        arguments = ("--web", f"127.0.0.1:{web}", "--data-port", str(data))
        viewer = graph.start("viewer", arguments=arguments)
        source = ["camera.source:=portrait", "camera.width:=640", "camera.height:=480"]
        graph.start("pipeline", *source, "camera.fps:=3.0", "camera.loop:=true")
        topics = []

        def published():
            told = listener.node.get_topic_names_and_types()
            topics[:] = [name for name, _ in told if re.fullmatch(r"/face/\w+/texture", name)]
            return topics

        assert listener.spin_until(published)
        textures = listener.listen(ImageMsg, topics[0], LATCHED_QOS)
        assert listener.spin_until(lambda: textures)
        assert (textures[0].width, textures[0].height) == (TEXTURE_PX, TEXTURE_PX)
        url = page_url("127.0.0.1", web, data)
        picture = browser.look(url, shows_a_person, timeout_s=240)
        cv2.imwrite(str(tmp_path / "page.png"), picture[..., ::-1])
        assert shows_a_person(picture)
        viewer.send_signal(signal.SIGTERM)
        assert viewer.wait(timeout=20) == 0
        with socket.socket() as probe:  # nothing is left behind
            assert probe.connect_ex(("127.0.0.1", web)) != 0
    finally:
        browser.close()


@pytest.mark.parametrize("there", [True, False])
def test_the_window_is_that_of_our_environment_and_else_one_line(there, tmp_path, monkeypatch):
    """`.venv/bin/python` does not put `.venv/bin` on PATH."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    own = tmp_path / "rerun"
    if there:
        own.touch()

    def spawn(executable_path):
        if executable_path is None:
            raise RuntimeError("Failed to find Rerun Viewer executable in PATH.\nmany lines")
        assert Path(executable_path) == own

    rerun = SimpleNamespace(spawn=spawn)
    if there:
        open_window(rerun)
    else:
        with pytest.raises(ConfigError, match="--web or --save") as raised:
            open_window(rerun)
        assert "many lines" not in str(raised.value)
