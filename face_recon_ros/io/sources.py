"""Where images come from: device, stream, video, folder, picture, bag, test pattern.

The content decides what a file is, also on a web server. Every source is an iterator of `Image`.
Devices and streams stamp with the clock they are given, at capture; files with their own time
from 0; bags with the stamps of their messages. `paced` plays a file in real time, as if it were
a camera.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import FaceReconError, SourceError, reason
from face_recon_ros.core.models import user_path
from face_recon_ros.core.pattern import PERIOD_S, TurningHead
from face_recon_ros.core.types import Image
from face_recon_ros.io import portrait
from face_recon_ros.io.bag_source import BagSource
from face_recon_ros.io.bags import is_bag
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.images import is_animated, picture_format
from face_recon_ros.io.picture_sources import FolderSource, RenderedSource
from face_recon_ros.io.source_config import TEST_PATTERN as TEST_PATTERN
from face_recon_ros.io.source_config import SourceConfig as SourceConfig
from face_recon_ros.io.video import DEFAULT_FPS, VideoFrame, VideoReader

Clock = Callable[[], float]
#: Called with what was lost; waits a little and returns whether to try again.
Retry = Callable[[SourceError], bool]

PORTRAIT = "portrait"
PATTERN_FPS = 15.0

_MAX_FAILURES = 30  # pictures in a row of a device that cannot be decoded
_DEVICE = re.compile(r"\d+|/dev/video\d+")
_PROTOCOLS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
_STREAM = re.compile(rf"({'|'.join(_PROTOCOLS)})://\S+")
_KINDS = "a video, a picture, a folder, a bag, a camera, a stream, `pattern` or `portrait`"
_PATIENCE_S = 2.0  # with a device or stream that says nothing
_SERVER_PATIENCE_S = 10.0  # with the server of a file


class Source(Protocol):
    """Images one after the other.

    Attributes:
        name: what it is, for messages and logs.
        live: whether it goes on by itself (device, stream), so that unread images are lost.
        fps: images a second; 0 when unknown.
        length: number of images; None when unknown or endless.
        camera_info: sensor_msgs/CameraInfo of the image last given out; None without one.
        warnings: what was done about the images so far, or is wrong with them.
    """

    name: str
    live: bool
    fps: float
    length: int | None

    @property
    def camera_info(self) -> Any:
        """See above."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """See above."""
        ...

    def __iter__(self) -> Iterator[Image]:
        """The images, from the start."""
        ...

    def close(self) -> None:
        """Gives back what was opened; twice does no harm."""
        ...


def _give_up(fault: SourceError) -> bool:
    return False


def open_source(
    config: SourceConfig,
    clock: Clock = time.time,
    retry: Retry = _give_up,
    complain: Callable[[FaceReconError], object] = lambda fault: None,
) -> Source:
    """The source a configuration names.

    Args:
        config: what to read.
        clock: stamps the images of a device or stream, seconds.
        retry: asked when a device or stream is lost; unless it is to be tried again, the source
            ends with SourceError.
        complain: called for every image of a bag that cannot be read; it is left out.

    Raises:
        SourceError: there is no such thing, or it cannot be read.
    """
    name = config.source
    if not name:
        raise SourceError(_KINDS, "an empty name", "give one")
    if name == TEST_PATTERN:
        head = TurningHead(config.width or 640, config.height or 480)
        return RenderedSource(config, head.render, PERIOD_S, PATTERN_FPS)
    if name == PORTRAIT:
        person = portrait.MovingPortrait(config.width or 1280, config.height or 720)
        return RenderedSource(config, person.render, portrait.PERIOD_S, portrait.FPS)
    path = user_path(name)
    if path.is_char_device():  # also /dev/v4l/by-id/... and other links
        return DeviceSource(replace(config, source=str(path.resolve())), clock, retry)
    if _DEVICE.fullmatch(name):
        return DeviceSource(config, clock, retry)
    if _STREAM.fullmatch(name):
        stream = StreamSource(config, clock, retry)
        if not stream.recorded:
            return stream
        stream.close()
        return VideoSource(config, timeout_s=_SERVER_PATIENCE_S)
    if is_bag(path):
        return BagSource(
            name, config.frame, config.loop, complain, config.topic, config.info_topic
        )
    if path.is_dir():
        return FolderSource(config)
    if not path.is_file():
        if "://" in name:
            raise SourceError(
                f"a stream of {', '.join(_PROTOCOLS)}", repr(name), "use one of these, or a file"
            )
        if path.exists():
            raise SourceError(_KINDS, f"{name!r}, a pipe or socket", "write it to a file first")
        raise SourceError(_KINDS, f"{name!r}, which does not exist", "check the path")
    with path.open("rb") as file:
        kind = picture_format(file.read(4096))
    if kind == "GIF":
        return VideoSource(config) if is_animated(path) else FolderSource(config)
    return FolderSource(config) if kind or path.stat().st_size == 0 else VideoSource(config)


class LiveSource:
    """What goes on by itself. It may be lost, and found again where `retry` says so."""

    live = True
    camera_info = None

    def __init__(
        self, config: SourceConfig, clock: Clock = time.time, retry: Retry = _give_up
    ) -> None:
        """Opens it.

        Raises:
            SourceError: it cannot be opened.
        """
        self.name = config.source
        self.length: int | None = None
        self.warnings: list[str] = []
        self._config, self._clock, self._retry = config, clock, retry
        self.fps = self._open() or config.fps

    def __iter__(self) -> Iterator[Image]:
        """Images as they come; ends with SourceError when they cease and `retry` gives up."""
        while True:
            for rgb, stamp in self._images():
                yield Image(rgb, stamp, self._config.frame)
            self._reopen()

    def close(self) -> None:
        """See `Source`."""
        raise NotImplementedError

    def _reopen(self) -> None:
        fault = SourceError(f"images from {self.name}", "none", "is it still connected?")
        self.close()  # else a device keeps its old number
        while self._retry(fault):
            try:
                self._open()
            except SourceError as still:
                fault = still
            else:
                return
        raise fault

    def _open(self) -> float:
        """Opens it; its rate, 0 when it does not say."""
        raise NotImplementedError

    def _images(self) -> Iterator[tuple[NDArray[np.uint8], float]]:
        """Images with their stamps, until it is lost."""
        raise NotImplementedError


class DeviceSource(LiveSource):
    """A camera through V4L2 (or what else OpenCV finds)."""

    def close(self) -> None:
        """See `Source`."""
        self._capture.release()

    def _images(self) -> Iterator[tuple[NDArray[np.uint8], float]]:
        failures = 0
        while failures <= _MAX_FAILURES:
            grabbed, stamp = self._capture.grab(), self._clock()
            if not grabbed:
                return
            ok, bgr = self._capture.retrieve()
            failures = 0 if ok else failures + 1
            if ok:
                yield _rgb(bgr), stamp

    def _open(self) -> float:
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
        capture.set(cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000 * _PATIENCE_S)
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
        self._capture = capture
        return float(capture.get(cv2.CAP_PROP_FPS))


class StreamSource(LiveSource):
    """A camera on the network, through FFmpeg. Its images are stamped when they are received."""

    @property
    def recorded(self) -> bool:
        """Whether it is no camera but a file on a web server."""
        return self.name.startswith("http") and self._reader.recorded

    def close(self) -> None:
        """See `Source`."""
        self._reader.close()

    def _images(self) -> Iterator[tuple[NDArray[np.uint8], float]]:
        for frame in self._reader:
            yield frame.rgb, self._clock()

    def _open(self) -> float:
        self._reader = VideoReader(self.name, live=True, timeout_s=_PATIENCE_S)
        self.warnings = self._reader.warnings
        return self._reader.fps


class VideoSource:
    """A video file. Stamps are the file's own times from its first image on."""

    live = False
    camera_info = None

    def __init__(self, config: SourceConfig, *, timeout_s: float | None = None) -> None:
        """Opens the file.

        Args:
            config: path or address of the file.
            timeout_s: patience with the server of an address; None for paths.
        """
        self.name = config.source
        self._timeout_s = timeout_s
        self._fetched: IO[bytes] | None = None
        self._config = config
        self._reader, self._begun = self._open(), False
        self.fps = config.fps or self._reader.fps or DEFAULT_FPS
        self.length = None if config.loop else self._reader.length

    @property
    def warnings(self) -> list[str]:
        """What was done about the video or is wrong with it."""
        return self._reader.warnings

    def __iter__(self) -> Iterator[Image]:
        """All images, in order."""
        stamp, period = -1.0 / self.fps, 1.0 / self.fps
        while True:
            self._rewind()
            offset: float | None = None  # of stamps over the file's times
            for frame in self._frames():
                due = stamp + period
                time_s = None if self._config.fps else frame.time_s
                if time_s is None:
                    stamp = due
                else:
                    if offset is None or time_s + offset <= stamp:  # times that go back: count
                        offset = due - time_s
                    stamp = time_s + offset
                yield Image(frame.rgb, stamp, self._config.frame)
            self._reader.close()
            if not self._config.loop:
                return

    def close(self) -> None:
        """See `Source`."""
        self._reader.close()
        if self._fetched is not None:
            self._fetched.close()

    def _frames(self) -> Iterator[VideoFrame]:
        """Those of the file, which is fetched whole where its server sends no parts of it."""
        try:
            yield from self._reader
        except SourceError:
            if self._timeout_s is None or self._fetched is not None:
                raise
            self._reader.close()
            self._fetched = _fetched(self.name, self._timeout_s)
            self._reader = self._open()
            yield from self._reader

    def _rewind(self) -> None:
        """Opens the file again unless nothing was read of it yet."""
        if self._begun:
            warnings = self._reader.warnings
            self._reader.close()
            self._reader = self._open()
            self._reader.warnings += warnings
        self._begun = True

    def _open(self) -> VideoReader:
        if self._fetched is not None:
            return VideoReader(self._fetched.name)
        name = str(user_path(self.name)) if self._timeout_s is None else self.name
        return VideoReader(name, timeout_s=self._timeout_s)


def _fetched(address: str, timeout_s: float) -> IO[bytes]:
    """A copy of a web server's file; closing it removes it."""
    file = tempfile.NamedTemporaryFile(prefix="face_recon_")  # noqa: SIM115
    try:
        with urllib.request.urlopen(address, timeout=timeout_s) as answer:
            shutil.copyfileobj(answer, file)
        file.flush()
    except (OSError, HTTPException) as fault:
        file.close()
        raise SourceError(
            f"the whole file at {address}", reason(fault), "download it, and give the file"
        ) from None
    return file


def with_cameras(
    source: Source, resolver: CameraResolver, images: Iterable[Image] | None = None
) -> Iterator[tuple[Image, PinholeCamera]]:
    """The images of a source, each with the camera that took it; `images`: the same, `paced`."""
    for image in source if images is None else images:
        if source.camera_info is not None:
            resolver.update(source.camera_info)
        yield image, resolver(image)


def image_topic_of(source: Source) -> str:
    """The topic that a bag's images are of; empty for other sources."""
    return source.topic if isinstance(source, BagSource) else ""


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
        fps: only for the limit of lateness.
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


def _rgb(bgr: Any) -> NDArray[np.uint8]:
    code = cv2.COLOR_GRAY2RGB if bgr.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(bgr, code), np.uint8)
