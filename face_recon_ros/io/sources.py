"""Where images come from: device, stream, video, folder of pictures, one picture, test pattern.

Every source is an iterator of `Image`. Devices and streams stamp with the clock they are given, at
capture; files with their own time from 0. `paced` plays a file in real time, as if it were a
camera.
Bags are read by `face_recon_ros.io.bag_source`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError, ConfigError, SourceError
from face_recon_ros.core.pattern import PERIOD_S, TurningHead
from face_recon_ros.core.types import Image

Clock = Callable[[], float]
#: Told of what was lost, waits a little and says whether to try again.
Retry = Callable[[SourceError], bool]

TEST_PATTERN = "pattern"
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
DEFAULT_FPS = 30.0
PATTERN_FPS = 15.0

_MAX_FAILURES = 30  # pictures in a row that a device hands over but nobody can decode
_CACHE_BYTES = 128 << 20  # of a looping pattern's pictures; larger ones are rendered each time
_DEVICE = re.compile(r"\d+|/dev/video\d+")
_STREAM = re.compile(r"(rtsps?|rtmp|https?|udp|tcp|srt)://\S+")
_PATIENCE_MS = 2000.0  # with a device or stream that says nothing


class Source(Protocol):
    """Images one after the other.

    Attributes:
        name: what it is, for messages and logs.
        live: whether it goes on by itself (device, stream), so that unread images are lost.
        fps: images a second; 0 when unknown.
        length: number of images; None when unknown or endless.
    """

    name: str
    live: bool
    fps: float
    length: int | None

    def __iter__(self) -> Iterator[Image]:
        """The images, from the start."""
        ...

    def close(self) -> None:
        """Gives back what was opened; twice does no harm."""
        ...


@dataclass(frozen=True)
class SourceConfig:
    """What to read.

    Attributes:
        source: device number or /dev/video*, stream (rtsp://, http:// ...), video, picture,
            folder of pictures, or `pattern`.
        loop: whether files begin again at their end; stamps go on.
        width: pixels; asked of a device, size of the pattern; 0 leaves it to the device.
        height: pixels, as `width`.
        fps: asked of a device, rate of folders and the pattern; 0 takes the source's own, else 30.
        frame: name of the camera's optical frame.
    """

    source: str = TEST_PATTERN
    loop: bool = False
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frame: str = "camera_optical_frame"

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 0 or not (0.0 <= self.fps <= 1000.0):
            raise ConfigError(
                "width, height of at least 0 and fps from 0 to 1000",
                f"{self.width} x {self.height} at {self.fps}",
                "0 takes the source's own",
            )


def _give_up(fault: SourceError) -> bool:
    return False


def open_source(config: SourceConfig, clock: Clock = time.time, retry: Retry = _give_up) -> Source:
    """The source a configuration names.

    Args:
        config: what to read.
        clock: stamps the images of a device or stream, seconds.
        retry: asked when a device or stream is lost; unless it is to be tried again, the source
            ends with SourceError.

    Raises:
        SourceError: there is no such thing, or it cannot be read.
    """
    name = config.source
    if name == TEST_PATTERN:
        return PatternSource(config)
    path = Path(name).expanduser()
    if path.is_char_device():  # also /dev/v4l/by-id/... and other links
        return DeviceSource(replace(config, source=str(path.resolve())), clock, retry)
    if _DEVICE.fullmatch(name):
        return DeviceSource(config, clock, retry)
    if _STREAM.fullmatch(name):
        return StreamSource(config, clock, retry)
    if path.is_dir():
        return FolderSource(config)
    if not path.is_file():
        raise SourceError(
            "a video, a picture, a folder of pictures, a camera device, a stream or `pattern`",
            f"{name!r}, which does not exist",
            "check the path",
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderSource(config)
    return VideoSource(config)


class LiveSource:
    """What goes on by itself. It may be lost, and found again where `retry` says so."""

    live = True

    def __init__(
        self, config: SourceConfig, clock: Clock = time.time, retry: Retry = _give_up
    ) -> None:
        """Opens it.

        Raises:
            SourceError: it cannot be opened; whoever starts with a wrong name wants to know.
        """
        self.name = config.source
        self.length: int | None = None
        self._config, self._clock, self._retry = config, clock, retry
        self._capture = self._open()
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or config.fps

    def __iter__(self) -> Iterator[Image]:
        """Images as they come; ends with SourceError when they cease and `retry` gives up."""
        failures = 0
        while True:
            grabbed, stamp = self._capture.grab(), self._clock()
            ok, bgr = self._capture.retrieve() if grabbed else (False, None)
            failures = 0 if ok else failures + 1
            if not grabbed or failures > _MAX_FAILURES:
                self._reopen()
                failures = 0
            elif ok:
                yield Image(_rgb(bgr), stamp, self._config.frame)

    def close(self) -> None:
        """See `Source`."""
        self._capture.release()

    def _reopen(self) -> None:
        fault = SourceError(f"images from {self.name}", "none", "is it still connected?")
        self._capture.release()  # else the device keeps its old number
        while self._retry(fault):
            try:
                self._capture = self._open()
            except SourceError as still:
                fault = still
            else:
                return
        raise fault

    def _open(self) -> cv2.VideoCapture:
        raise NotImplementedError


class DeviceSource(LiveSource):
    """A camera through V4L2 (or what else OpenCV finds)."""

    def _open(self) -> cv2.VideoCapture:
        """Opens the device and asks for size and rate; it may choose its own."""
        config = self._config
        if not _DEVICE.fullmatch(config.source):
            raise SourceError(
                "a number or /dev/video*", repr(config.source), "give the camera's device"
            )
        index = int(config.source.removeprefix("/dev/video"))
        device = Path(f"/dev/video{index}")
        if not device.exists():
            there = sorted(str(p) for p in Path("/dev").glob("video*"))
            raise SourceError(
                "a camera device",
                f"{device}, which does not exist",
                f"use one of {', '.join(there)}" if there else "connect a camera",
            )
        capture = cv2.VideoCapture(index, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise SourceError(
                f"a camera at {device}",
                "one that cannot be opened",
                "is it in use, and are you in the group `video`?",
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        capture.set(cv2.CAP_PROP_READ_TIMEOUT_MSEC, _PATIENCE_MS)
        if (
            config.width or config.height
        ):  # raw pictures of a size worth asking for are slow on USB
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for key, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, config.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, config.height),
            (cv2.CAP_PROP_FPS, config.fps),
        ):
            if value:
                capture.set(key, value)
        return capture


class StreamSource(LiveSource):
    """A camera on the network, through FFmpeg. Its images are stamped when they are received."""

    def _open(self) -> cv2.VideoCapture:
        patience = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            int(_PATIENCE_MS),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            int(_PATIENCE_MS),
        ]
        capture = cv2.VideoCapture(self.name, cv2.CAP_FFMPEG, patience)
        if not capture.isOpened():
            raise SourceError(
                f"a stream that FFmpeg can read at {self.name}",
                "none",
                "check the address and that the camera is on",
            )
        return capture


class VideoSource:
    """A video file. Stamps are the file's own times, going on from loop to loop."""

    live = False

    def __init__(self, config: SourceConfig) -> None:
        """Opens the file."""
        self.name = config.source
        self._config = config
        self._capture = self._open()
        self.fps = config.fps or self._reported_fps()
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = count if count > 0 and not config.loop else None

    def __iter__(self) -> Iterator[Image]:
        """All images, in order."""
        start, period = 0.0, 1.0 / self.fps
        while True:
            stamp, read = start, 0
            while True:
                ok, bgr = self._capture.read()
                if not ok:
                    break
                at = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
                # Containers without usable times give 0 or nonsense: count then.
                steady = read == 0 or stamp < start + at <= stamp + 1.0
                own = start + at if steady and not self._config.fps else stamp + period
                stamp = start if read == 0 else own
                read += 1
                yield Image(_rgb(bgr), stamp, self._config.frame)
            if read == 0:
                raise SourceError(
                    f"a video with images at {self.name}", "none", "is the file damaged?"
                )
            self._capture.release()
            self._capture = self._open()
            if not self._config.loop:
                return
            start = stamp + period

    def close(self) -> None:
        """See `Source`."""
        self._capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(Path(self.name).expanduser()))
        if not capture.isOpened():
            raise SourceError(
                f"a video that OpenCV can read at {self.name}",
                "something else",
                "convert it: ffmpeg -i IN -c:v libx264 OUT.mp4",
            )
        return capture

    def _reported_fps(self) -> float:
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        return fps if np.isfinite(fps) and 1.0 <= fps <= 1000.0 else DEFAULT_FPS


class FolderSource:
    """The pictures of a folder by name, or a single picture. Unreadable ones are left out.

    Attributes:
        skipped: file -> what is wrong with it.
    """

    live = False

    def __init__(self, config: SourceConfig) -> None:
        """Lists the pictures."""
        self.name = config.source
        self._config = config
        path = Path(config.source).expanduser()
        self.paths = [path] if path.is_file() else image_paths(path)
        self.fps = config.fps or DEFAULT_FPS
        self.length = None if config.loop else len(self.paths)
        self.skipped: dict[Path, SourceError] = {}

    def __iter__(self) -> Iterator[Image]:
        """All pictures, a frame period apart.

        Raises:
            SourceError: none of them can be read.
        """
        index = 0
        while True:
            for _, rgb in self.readable():
                yield Image(rgb, index / self.fps, self._config.frame)
                index += 1
            if not self._config.loop:
                return

    def readable(self) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
        """Each picture that can be read, once, with its path; see `__iter__`."""
        for path in self.paths:
            try:
                rgb = read_image(path)
            except SourceError as fault:
                self.skipped[path] = fault
                if len(self.skipped) == len(self.paths):
                    raise
                continue
            yield path, rgb

    def close(self) -> None:
        """See `Source`."""


class PatternSource:
    """A head that turns and talks, rendered from our own face model: needs no camera, no video.

    Loops show the pictures of the first round again, if they are not too large to keep: rendering
    one takes about 50 ms.
    """

    live = False

    def __init__(self, config: SourceConfig) -> None:
        """Prepares the head."""
        self.name = config.source
        self._config = config
        self.fps = config.fps or PATTERN_FPS
        self._head = TurningHead(config.width or 640, config.height or 480)
        self._round = max(1, round(PERIOD_S * self.fps))
        self.length = None if config.loop else self._round

    def __iter__(self) -> Iterator[Image]:
        """One round of the motion, or without end."""
        pictures: dict[int, NDArray[np.uint8]] = {}
        index = 0
        while self.length is None or index < self.length:
            phase = index % self._round
            picture = pictures.get(phase)
            if picture is None:
                picture = self._head.render(phase / self.fps)
                if self.length is None and self._round * picture.nbytes <= _CACHE_BYTES:
                    pictures[phase] = picture
            yield Image(picture, index / self.fps, self._config.frame)
            index += 1

    def close(self) -> None:
        """See `Source`."""


def paced(
    images: Iterator[Image],
    fps: float,
    clock: Clock = time.time,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Image]:
    """Plays images in real time, stamped when they come out, as a camera's are when it takes them.

    Keeps to the images' own times; where the reader is late the rest is put off, nothing is lost.
    A clock that jumps puts nothing off.

    Args:
        images: with stamps of a file.
        fps: only to tell how late is late.
        clock: seconds.
        sleep: waits that many seconds.
    """
    offset, before, slack = 0.0, -np.inf, 1.0 / fps
    for image in images:
        wait = image.stamp + offset - clock()
        # The image before is out since it was due: more than the gap to it is the clock's jump.
        if not -slack <= wait <= image.stamp - before + slack or before == -np.inf:
            offset, wait = clock() - image.stamp, 0.0
        before = image.stamp
        if wait > 0:
            sleep(wait)
        yield replace(image, stamp=clock())


def image_paths(folder: Path) -> list[Path]:
    """The pictures of a folder, by name.

    Raises:
        SourceError: there are none.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SourceError(
            f"pictures ({' '.join(IMAGE_SUFFIXES)}) in {folder}", "none", "check the folder"
        )
    return paths


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a picture file.

    Raises:
        SourceError: it is missing or is no picture.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"a picture at {path}", "no such file", "check the path")
    bgr = (
        cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        if path.stat().st_size
        else None
    )
    if bgr is None:
        raise SourceError(f"a picture at {path}", "something else", "is the file damaged?")
    return _rgb(bgr)


def read_calibration(path: str | Path) -> PinholeCamera:
    """The camera of a calibration file as camera_calibration writes it (ost.yaml).

    Raises:
        CameraError: the file is missing, or is no calibration.
    """
    import yaml

    path = Path(path).expanduser()
    remedy = "calibrate with `ros2 run camera_calibration cameracalibrator` and give its ost.yaml"
    try:
        data: dict[str, Any] = yaml.safe_load(path.read_text())
        matrix = np.array(data["camera_matrix"]["data"], np.float64).reshape(3, 3)
        distortion = np.array(data["distortion_coefficients"]["data"], np.float64)
        width, height = int(data["image_width"]), int(data["image_height"])
        model = str(data.get("distortion_model", "plumb_bob"))
    except OSError as fault:
        raise CameraError(f"a calibration at {path}", str(fault.strerror), remedy) from None
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as fault:
        what = str(fault).splitlines()[0]
        raise CameraError(f"a camera calibration (YAML) at {path}", what, remedy) from None
    return PinholeCamera(width, height, matrix, distortion, model)


def calibration_for(camera: PinholeCamera, width: int, height: int) -> PinholeCamera:
    """A calibration made at another resolution of the same sensor, for this image size.

    Raises:
        CameraError: the aspect ratio differs, so it cannot be the same view.
    """
    if (camera.width, camera.height) == (width, height):
        return camera
    if abs(camera.width * height - camera.height * width) > max(width, height):
        raise CameraError(
            f"a calibration of the aspect ratio {width} x {height}",
            f"{camera.width} x {camera.height}",
            "recalibrate at this image size",
        )
    return camera.resized(width, height)


def _rgb(bgr: Any) -> NDArray[np.uint8]:
    if bgr.ndim == 2:
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
