"""Video files and network streams through FFmpeg (PyAV): true times, upright, square pixels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ConfigError, DataError, SourceError

DEFAULT_FPS = 30.0
_RATE_FRAMES = 32  # looked at to measure the rate
_REORDERED = 16  # images at most that a codec stores before one that is shown earlier
_TICKS = 90_000  # a second, of the videos that we write
_NO_VIDEOS = ("tty", "bin", "idf", "xbin", "adf")  # text, which FFmpeg would draw
_STREAM_OPTIONS = {"fflags": "nobuffer", "flags": "low_delay", "rtsp_transport": "tcp"}


@dataclass(frozen=True)
class VideoFrame:
    """A decoded image.

    Attributes:
        rgb: (H, W, 3) uint8, upright, deinterlaced, square pixels.
        time_s: of the file, seconds; None where the file does not say.
    """

    rgb: NDArray[np.uint8]
    time_s: float | None


class VideoReader:
    """One video, read from its start to its end.

    Attributes:
        fps: images a second on average over its beginning; 0 when the file does not say.
        length: number of images; None when the file does not say.
        warnings: what was done about it or is wrong with it, in words.
    """

    def __init__(self, name: str, *, live: bool = False, timeout_s: float | None = None) -> None:
        """Opens it.

        Args:
            name: path or address.
            live: whether the newest images matter more than all of them.
            timeout_s: patience with an address that says nothing; None for paths.

        Raises:
            SourceError: there is none, or it has no images.
            ConfigError: PyAV is not installed.
        """
        self._av = _import_av()
        self.name = name
        self.warnings: list[str] = []
        self._live = live
        self._timeout_s = timeout_s
        self._container = self._open()
        self._stream = self._video_stream(self._container)
        self._stream.thread_type = "SLICE" if self._live else "AUTO"
        self._deinterlacer: Any = None
        self._orientation: tuple[float, float, float, float] | None = None
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        if self._live:
            self.fps, self.length = float(self._stream.average_rate or 0.0), None
        else:
            self.fps = self._measured_rate()
            self.length = self._stream.frames or None

    def __iter__(self) -> Iterator[VideoFrame]:
        """The images, once.

        Raises:
            SourceError: there is none.
        """
        read = broken = 0
        packets = self._packets()
        for packet in packets:
            try:
                frames = packet.decode()
            except (self._av.error.FFmpegError, ValueError):
                broken += 1
                continue
            for frame in frames:
                for done in self._progressive(frame):
                    read += 1
                    yield self._converted(done)
        for done in self._progressive(None):
            read += 1
            yield self._converted(done)
        if broken:
            self._warn(f"{broken} parts of the video are damaged and left out")
        if not read and not self._live:
            raise SourceError(
                f"a video or a picture at {self.name}",
                "a file that shows no image",
                "is the file damaged or cut off, or of another kind?"
                if self._timeout_s is None
                else "download it, and give the file: not every server lets its files be searched",
            )

    def close(self) -> None:
        """Gives the file back; twice does no harm."""
        self._container.close()

    @property
    def recorded(self) -> bool:
        """Whether it is a file that has an end, by what its container and its server say."""
        container, kinds = self._container, self._container.format.name.split(",")
        if "mpjpeg" in kinds:  # of cameras, some of which invent a length
            return False
        if "hls" in kinds or "dash" in kinds:  # the size is that of the list of files
            return container.duration is not None
        if container.size > 0:
            return True
        # Of a fragmented MP4, which may be live, the duration is that of what is there so far.
        return bool(self._stream.frames if "mp4" in kinds else container.duration)

    # --- opening ---------------------------------------------------------------------------------

    def _open(self) -> Any:
        av = self._av
        options = _STREAM_OPTIONS if self._live else {}
        try:
            address = f"file:{self.name}" if self._timeout_s is None else self.name
            container = av.open(address, options=options, timeout=self._timeout_s)
            if container.format.name in _NO_VIDEOS:
                raise ValueError(f"a file of format {container.format.name}")
            return container
        except (av.error.FFmpegError, OSError, ValueError) as fault:
            what = getattr(fault, "strerror", None) or str(fault)
            if self._live:
                raise SourceError(
                    f"a stream that FFmpeg can read at {self.name}",
                    f"none ({what})",
                    "check the address and that the camera or server is on",
                ) from None
            raise SourceError(
                f"a video or a picture at {self.name}",
                f"something else ({what})",
                "check the file: it may be damaged, cut off or of another kind",
            ) from None

    def _video_stream(self, container: Any) -> Any:
        streams = [s for s in container.streams.video if not _is_cover(s)]
        if not streams:
            kinds = sorted({s.type for s in container.streams}) or ["nothing"]
            container.close()
            raise SourceError(
                f"a video with images at {self.name}",
                f"only {', '.join(kinds)}",
                "give a file with a video track",
            )
        # FFmpeg reports nothing else of an unknown codec or a damaged header.
        known = [s for s in streams if s.codec_context is not None]
        stream = max(known, key=lambda s: (s.width or 0) * (s.height or 0), default=None)
        if stream is None:
            container.close()
            raise SourceError(
                f"a video codec that FFmpeg knows in {self.name}",
                "another one",
                "convert it: ffmpeg -i IN -c:v libx264 OUT.mp4",
            )
        return stream

    def _measured_rate(self) -> float:
        """Of the first images: what files state is wrong for DV, slow and uneven videos."""
        times: list[int] = []
        with contextlib.suppress(SourceError, self._av.error.FFmpegError), self._open() as peek:
            stream = self._video_stream(peek)
            for packet in peek.demux(stream):
                if packet.pts is not None:
                    times.append(packet.pts)
                if len(times) >= _RATE_FRAMES + _REORDERED:
                    break
            times = sorted(times)[:_RATE_FRAMES]  # between later ones some may still be missing
            if len(times) > 1 and times[-1] > times[0]:
                return float((len(times) - 1) / ((times[-1] - times[0]) * stream.time_base))
        stated = float(self._stream.average_rate or 0.0)
        return stated if 0.01 <= stated <= 1000.0 else 0.0

    # --- decoding --------------------------------------------------------------------------------

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except (self._av.error.FFmpegError, OSError) as fault:
            if self._live:
                return
            self._warn(f"the video breaks off: {getattr(fault, 'strerror', None) or fault}")
            last = self._av.Packet()  # an empty one: the decoder gives what it has held back
            last.stream, last.time_base = self._stream, self._stream.time_base
            yield last

    def _progressive(self, frame: Any) -> Iterator[Any]:
        """Whole images of an interlaced one's two half images; None flushes."""
        if frame is not None and frame.pts is None and frame.dts is not None:
            frame.pts = frame.dts
        if self._deinterlacer is None:
            if frame is None:
                return
            if not frame.interlaced_frame:
                yield frame
                return
            self._warn("the video is interlaced: deinterlaced")
            self._deinterlacer = self._make_deinterlacer(frame)
        if frame is not None and not self._fits(frame):
            yield from self._drain(flush=True)
            self._deinterlacer = self._make_deinterlacer(frame)
        if frame is not None:
            self._deinterlacer.push(frame)
        yield from self._drain(flush=frame is None)

    def _fits(self, frame: Any) -> bool:
        return bool(self._filtered == (frame.width, frame.height, frame.format.name))

    def _make_deinterlacer(self, frame: Any) -> Any:
        """One image out per image in, with its own time; progressive ones pass through."""
        self._filtered = (frame.width, frame.height, frame.format.name)
        graph = self._av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format.name,
            time_base=self._stream.time_base,
        )
        bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        sink = graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        graph.configure()
        return graph

    def _drain(self, *, flush: bool) -> Iterator[Any]:
        av = self._av
        if flush:
            with contextlib.suppress(av.error.FFmpegError, ValueError):
                self._deinterlacer.push(None)
        while True:
            try:
                yield self._deinterlacer.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    def _converted(self, frame: Any) -> VideoFrame:
        # One reformatter, one thread: a frame's own starts threads that live until it is freed.
        picture = self._reformatter.reformat(frame, format="rgb24", threads=1)
        rgb = np.asarray(picture.to_ndarray(), np.uint8)
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if aspect > 0 and aspect != 1 and 0.1 < float(aspect) < 10.0:
            width = max(1, round(rgb.shape[1] * float(aspect)))
            rgb = np.asarray(
                cv2.resize(rgb, (width, rgb.shape[0]), interpolation=cv2.INTER_LINEAR), np.uint8
            )
        # Once a video: side data and frame refer to each other, and would keep every image until
        # the garbage collector runs.
        if self._orientation is None:
            self._orientation = _orientation(frame)
        rgb = _upright(rgb, *self._orientation)
        time = None if frame.pts is None else float(frame.pts * frame.time_base)
        return VideoFrame(rgb, time)

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _import_av() -> Any:
    try:
        import av
    except ImportError as fault:
        raise ConfigError(
            "PyAV, which reads and writes videos", str(fault), "pip install av"
        ) from None
    av.logging.set_level(av.logging.PANIC)  # what matters comes as exceptions
    return av


def _is_cover(stream: Any) -> bool:
    """Whether it is the picture on a piece of music, not a video."""
    return bool("attached_pic" in str(getattr(stream, "disposition", "")).lower())


def _orientation(frame: Any) -> tuple[float, float, float, float]:
    """a, b, c, d of the file's display matrix: x' = a x + c y, y' = b x + d y."""
    data = next((d for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return 1.0, 0.0, 0.0, 1.0
    a, b, _, c, d = np.frombuffer(bytes(data), "<i4")[:5] / 65536.0
    return float(a), float(b), float(c), float(d)


def _upright(rgb: NDArray[np.uint8], a: float, b: float, c: float, d: float) -> NDArray[np.uint8]:
    """The image as players show it: turned and mirrored by the file's display matrix."""
    if (a, b, c, d) == (1.0, 0.0, 0.0, 1.0):
        return rgb
    if abs(b) + abs(c) > abs(a) + abs(d):
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    if a < 0:
        rgb = rgb[:, ::-1]
    if d < 0:
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)


class VideoWriter:
    """An MP4 (H.264) of images with their own times; use as a context manager."""

    def __init__(self, path: str | Path, fps: float = DEFAULT_FPS) -> None:
        """Names it; the first image starts the file.

        Args:
            path: of the file.
            fps: nominal rate, for images without times.
        """
        self._av = _import_av()
        self._path, self._fps = Path(path), fps if fps > 0 else DEFAULT_FPS
        self._container: Any = None
        self._first, self._last = 0.0, -1

    def __enter__(self) -> VideoWriter:
        """Nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Completes the file."""
        self.close()

    def close(self) -> None:
        """Completes the file; twice does no harm."""
        if self._container is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
            self._container = None

    def write(self, rgb: NDArray[np.uint8], stamp: float | None = None) -> None:
        """Adds an image.

        Args:
            rgb: (H, W, 3) uint8; all of the first one's size, others are resized to it.
            stamp: seconds, rising; None follows the nominal rate.

        Raises:
            DataError: the file cannot be written.
        """
        if self._container is None:
            self._start(rgb, stamp)
        width, height = self._stream.width, self._stream.height
        if rgb.shape[:2] == (height + self._cut[0], width + self._cut[1]):
            rgb = rgb[:height, :width]
        else:
            rgb = np.asarray(cv2.resize(rgb, (width, height)), np.uint8)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        after = self._last + max(1, round(_TICKS / self._fps)) if self._last >= 0 else 0
        ticks = after if stamp is None else round((stamp - self._first) * _TICKS)
        frame.pts = self._last = max(ticks, self._last + 1)
        frame.time_base = Fraction(1, _TICKS)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def _start(self, rgb: NDArray[np.uint8], stamp: float | None) -> None:
        av = self._av
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {"q:v": "3"}
        height, width = rgb.shape[:2]
        self._cut = (height % 2 if height > 1 else 0, width % 2 if width > 1 else 0)
        try:
            self._container = av.open(str(self._path), "w", format="mp4")
            rate = Fraction(self._fps).limit_denominator(1000)
            self._stream = self._container.add_stream(codec, rate=rate, options=options)
        except (av.error.FFmpegError, OSError) as fault:
            what = getattr(fault, "strerror", None) or str(fault)
            raise DataError(
                f"to write a video to {self._path}", what, "choose another folder"
            ) from None
        self._stream.width, self._stream.height = width - self._cut[1], height - self._cut[0]
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._first = stamp if stamp is not None and math.isfinite(stamp) else 0.0
