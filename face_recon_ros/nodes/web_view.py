"""A live page in a browser: rerun's server and web viewer, on a host and port of our own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

from face_recon_ros.core.errors import ConfigError

LOOPBACK = "127.0.0.1"
_ANY = ("0.0.0.0", "::")
WEB_PORT, DATA_PORT = 9090, 9876
_START_S = 30.0
_TRIES = 10
_MEMORY = "256MiB"  # of what a page that comes late gets to see


class WebView:
    """The process that serves the page and the data. It ends with `close`.

    Attributes:
        url: of the page.
        data_url: that the recording goes to.
    """

    def __init__(
        self, host: str = LOOPBACK, web_port: int = WEB_PORT, data_port: int = DATA_PORT
    ) -> None:
        """Starts serving.

        Args:
            host: address of this machine to listen at; other than 127.0.0.1, others may look.
            web_port: of the page.
            data_port: of the data that the page shows.

        Raises:
            ConfigError: an address or a port that cannot be had.
        """
        for port in (web_port, data_port):
            _check_free(host, port)
        program = Path(sys.executable).with_name("rerun")
        command = [str(program), "--serve-web", "--bind", host, "--port", str(data_port)]
        command += ["--web-viewer-port", str(web_port), "--server-memory-limit", _MEMORY]
        try:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # `rerun` is a script with the server as its child
            )
        except OSError as fault:
            raise ConfigError(
                f"the program {program}", str(fault.strerror), "pip install rerun-sdk"
            ) from None
        self.data_url = data_url(LOOPBACK if host in _ANY else host, data_port)
        self.url = page_url(host, web_port, data_port)
        until = time.monotonic() + _START_S
        while not (_answers(host, web_port) and _answers(host, data_port)):
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                raise ConfigError(
                    f"rerun to serve at {host}:{web_port}", "no answer", "try another port"
                )
            time.sleep(0.1)

    def close(self) -> None:
        """Stops serving; twice does no harm."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):  # the group is gone
                os.killpg(self._process.pid, ending)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)


def data_url(host: str, data_port: int) -> str:
    """Where the data are logged to and shown from."""
    return f"rerun+http://{host}:{data_port}/proxy"


def page_url(host: str, web_port: int, data_port: int) -> str:
    """The page that shows them, as a browser asks for it: by this machine's name if all may."""
    host = socket.gethostname() if host in _ANY else host
    return f"http://{host}:{web_port}/?url={quote(data_url(host, data_port), safe='')}"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `PORT` or an empty text (127.0.0.1:9090).

    Raises:
        ConfigError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    try:
        number = int(port or WEB_PORT)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 16:
        raise ConfigError("HOST:PORT or PORT", repr(text), f"try {LOOPBACK}:{WEB_PORT}")
    return host or LOOPBACK, number


def first_free(host: str, port: int) -> int:
    """The first free port from `port` on, of a few: for whom has not asked for one.

    Raises:
        ConfigError: all of them are taken.
    """
    for other in range(port, port + _TRIES - 1):
        with contextlib.suppress(ConfigError):
            _check_free(host, other)
            return other
    _check_free(host, port + _TRIES - 1)
    return port + _TRIES - 1


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as fault:
            raise ConfigError(
                f"a free port at {host}:{port}",
                str(fault.strerror),
                "end what uses it, or name another",
            ) from None


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
