"""A headless Chromium that shows a page and gives its picture, over the DevTools protocol."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Software rendering: a test's machine has no GPU, and the viewer needs WebGL.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0", "--window-size=900,600", "--mute-audio",
)  # fmt: skip
_START_S = 60.0


class Browser:
    """One page of a browser of its own, which ends with `close`."""

    def __init__(self, folder: Path) -> None:
        """Starts it; skips the test where there is none.

        Args:
            folder: empty, for its profile.
        """
        self._client = pytest.importorskip("tornado.websocket", reason="needs tornado")
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            pytest.skip(f"needs a browser: one of {', '.join(PROGRAMS)}")
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        told, until = folder / "DevToolsActivePort", time.monotonic() + _START_S
        while not (told.is_file() and told.read_text().count("\n")):
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                pytest.skip("the browser does not start here")
            time.sleep(0.1)
        self._port = int(told.read_text().split()[0])

    def look(self, url: str, seen, timeout_s: float) -> np.ndarray:
        """Opens a page and takes its picture until `seen(picture)`, or until the time is over.

        Returns:
            (H, W, 3) uint8 RGB, the last picture.
        """
        return asyncio.run(self._look(url, seen, timeout_s))

    async def _look(self, url: str, seen, timeout_s: float) -> np.ndarray:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/json", timeout=30) as answer:
            (page,) = (p for p in json.load(answer) if p["type"] == "page")
        socket = await self._client.websocket_connect(
            page["webSocketDebuggerUrl"], max_message_size=1 << 28
        )
        count = 0

        async def ask(method: str, **parameters):
            nonlocal count
            count += 1
            message = {"id": count, "method": method, "params": parameters}
            await socket.write_message(json.dumps(message))
            while (answer := json.loads(await socket.read_message())).get("id") != count:
                pass
            return answer.get("result", {})

        await ask("Page.navigate", url=url)
        until = time.monotonic() + timeout_s
        picture = np.zeros((1, 1, 3), np.uint8)
        while not seen(picture) and time.monotonic() < until:
            await asyncio.sleep(0.5)
            told = await ask("Page.captureScreenshot", format="png")  # none while it navigates
            if data := base64.b64decode(told.get("data", "")):
                picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        socket.close()
        return picture

    def close(self) -> None:
        """Ends the browser and its children."""

        for ending in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, ending)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
