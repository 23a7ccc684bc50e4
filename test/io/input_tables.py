# ruff: noqa: E501 (tables)
"""What cameras, bags and phones send, row by row: what is read, what is refused, what is right.

The tests of this folder try every row; docs/inputs.md is made of them:
`python test/io/input_tables.py > docs/inputs.md`.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

W, H = 64, 48
START_NS = 10**18
PERIOD_NS = 33_333_333


@cache
def scene(width: int = W, height: int = H) -> np.ndarray:
    """(H, W, 3) RGB that tells up from down, left from right, and its colours from others."""
    y, x = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    red, green, blue = 60 + 150 * x, 40 + 160 * y, 200 - 120 * x
    picture = np.stack([red, green, blue], -1)
    picture[: height // 4, : width // 4] = (230, 40, 30)  # top left: a red patch
    return picture.astype(np.uint8)


def grey(width: int = W, height: int = H) -> np.ndarray:
    """(H, W) of the scene."""
    return np.asarray(cv2.cvtColor(scene(width, height), cv2.COLOR_RGB2GRAY))


# --- messages ------------------------------------------------------------------------------------


@cache
def store() -> Any:
    """Types of ROS without ROS."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.LATEST)


def make(kind: str, *fields: Any) -> Any:
    """A message."""
    return store().types[kind](*fields)


def header(ns: int, frame: str = "cam") -> Any:
    """std_msgs/Header."""
    stamp = make("builtin_interfaces/msg/Time", ns // 10**9, ns % 10**9)
    return make("std_msgs/msg/Header", stamp, frame)


def image_message(
    pixels: np.ndarray,
    encoding: str,
    ns: int = START_NS,
    *,
    size: tuple[int, int] | None = None,
    big_endian: bool = False,
) -> Any:
    """sensor_msgs/Image of an array whose rows are those of the message."""
    height, width = size or pixels.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    step = pixels.strides[0]
    return make(
        "sensor_msgs/msg/Image", header(ns), height, width, encoding, int(big_endian), step, data
    )


def compressed_message(data: bytes, text: str, ns: int = START_NS) -> Any:
    """sensor_msgs/CompressedImage."""
    return make("sensor_msgs/msg/CompressedImage", header(ns), text, np.frombuffer(data, np.uint8))


def info_message(
    k: Sequence[float],
    d: Sequence[float] = (),
    model: str = "plumb_bob",
    p: Sequence[float] | None = None,
    *,
    width: int = W,
    height: int = H,
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    binning: tuple[int, int] = (0, 0),
    ns: int = START_NS,
) -> Any:
    """sensor_msgs/CameraInfo; `roi` is x, y, width, height; without `p` it is K."""
    x, y, w, h = roi
    region = make("sensor_msgs/msg/RegionOfInterest", x, y, h, w, False)
    if p is None:
        p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0]
    return make(
        "sensor_msgs/msg/CameraInfo",
        header(ns),
        height,
        width,
        model,
        np.array(d, np.float64),
        np.array(k, np.float64),
        np.eye(3).ravel(),
        np.array(p, np.float64),
        *binning,
        region,
    )


def write_bag(
    path: Path,
    rows: Sequence[tuple[str, int, Any]],
    storage: str = "mcap",
    **options: Any,
) -> Path:
    """A bag of (topic, recorded ns, message)."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    writer = Writer(path, version=9, storage_plugin=plugin)
    for name, value in options.items():
        getattr(writer, name)(*value)
    connections: dict[str, Any] = {}
    with writer:
        for topic, ns, msg in rows:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, msg.__msgtype__, typestore=store()
                )
            writer.write(connections[topic], ns, store().serialize_cdr(msg, msg.__msgtype__))
    return path


def stamps_ns(n: int = 4) -> list[int]:
    """Stamps of a steady camera."""
    return [START_NS + i * PERIOD_NS for i in range(n)]


def jpeg(rgb: np.ndarray | None = None, *flags: int) -> bytes:
    """The scene as JPEG."""
    bgr = cv2.cvtColor(scene() if rgb is None else rgb, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95, *flags])[1].tobytes())


def half(data: bytes) -> bytes:
    """The first half."""
    return data[: len(data) // 2]


# --- picture files -------------------------------------------------------------------------------


def _opencv(suffix: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        bgr = cv2.cvtColor(scene(), cv2.COLOR_RGB2BGR)
        path.write_bytes(cv2.imencode(suffix, bgr)[1].tobytes())

    return write


def _pillow(
    kind: str, orientation: int = 1, size: tuple[int, int] = (W, H)
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from PIL import Image

        if kind == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        turned = scene(*size)
        if orientation == 6:  # stored lying: to be turned clockwise
            turned = np.ascontiguousarray(np.rot90(turned, 1))
        exif = Image.Exif()
        exif[0x0112] = orientation
        out = io.BytesIO()
        options: dict[str, Any] = {} if orientation == 1 else {"exif": exif}
        Image.fromarray(turned).save(out, kind, **options)
        path.write_bytes(out.getvalue())

    return write


def _bytes(data: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data()) and None


def _bomb() -> bytes:
    """A small PNG that says that it is 60000 pixels wide and high."""
    shape = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", shape), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def _deep_png(bits: int) -> bytes:
    values = grey().astype(np.uint16) << (bits - 8)
    return bytes(cv2.imencode(".png", values)[1].tobytes())


def _dng() -> bytes:
    """The head of a raw photograph: a TIFF whose first picture is a preview."""
    entries = [(254, 4, 1, 1), (256, 3, 1, 64), (50706, 1, 4, 0x00000401)]
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(200)


def _png_bytes() -> bytes:
    bgr = cv2.cvtColor(scene(), cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".png", bgr)[1].tobytes())


READ, WARNED, REFUSED = "read", "read, with a warning", "refused"


@dataclass(frozen=True)
class PictureRow:
    """A picture file.

    Attributes:
        name: of the format, for people.
        suffix: that the file has, right or wrong.
        write: makes it.
        result: `READ`, `WARNED` or `REFUSED`.
        note: for people: what is done, or what helps.
        tolerance: mean difference from the scene.
        size: of the scene in it.
        says: in the warning or refusal.
    """

    name: str
    suffix: str
    write: Callable[[Path], None]
    result: str = READ
    note: str = ""
    tolerance: float = 4.0
    size: tuple[int, int] = (W, H)
    says: str = ""


def _animated(kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from PIL import Image

        frames = [Image.fromarray(np.roll(scene(), 5 * k, 1)) for k in range(3)]
        frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=500)

    return write


PICTURES = (
    PictureRow("JPEG", ".jpg", _bytes(jpeg)),
    PictureRow("JPEG, turned by EXIF", ".jpg", _pillow("JPEG", 6), note="upright"),
    PictureRow(
        "JPEG, progressive", ".jpg", _bytes(lambda: jpeg(None, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    ),
    PictureRow(
        "JPEG without its last two bytes",
        ".jpg",
        _bytes(lambda: jpeg()[:-2]),
        note="whole: only the end marker is missing, as in streams of cheap cameras",
    ),
    PictureRow(
        "JPEG cut off",
        ".jpg",
        _bytes(lambda: half(jpeg(scene(320, 240)))),
        WARNED,
        "as far as it goes; the rest is grey",
        255.0,
        (320, 240),
        "ends early",
    ),
    PictureRow("PNG", ".png", _bytes(_png_bytes), tolerance=0.0),
    PictureRow(
        "PNG, 16 bits a pixel of which 10 are used",
        ".png",
        _bytes(lambda: _deep_png(10)),
        note="scaled by what it shows",
        tolerance=-1.0,
    ),
    PictureRow(
        "PNG, 16 bits a pixel of which 14 are used",
        ".png",
        _bytes(lambda: _deep_png(14)),
        note="scaled by what it shows",
        tolerance=-1.0,
    ),
    PictureRow(
        "PNG cut off",
        ".png",
        _bytes(lambda: _png_bytes()[: len(_png_bytes()) * 3 // 4]),
        WARNED,
        "as far as it goes",
        255.0,
        says="ends early",
    ),
    PictureRow("PNG named .jpg", ".jpg", _bytes(_png_bytes), note="content counts", tolerance=0.0),
    PictureRow("JPEG without a suffix", "", _bytes(jpeg), note="content counts"),
    PictureRow("BMP", ".bmp", _opencv(".bmp"), tolerance=0.0),
    PictureRow("TIFF", ".tiff", _opencv(".tiff"), tolerance=0.0),
    PictureRow("WebP", ".webp", _opencv(".webp")),
    PictureRow("WebP, turned by EXIF", ".webp", _pillow("WEBP", 6), note="upright", tolerance=8.0),
    *(
        PictureRow(
            f"{name}, animated",
            suffix,
            _animated(name.upper()),
            WARNED,
            "its first image; GIF is read whole",
            tolerance=8.0,
            says="only its first image",
        )
        for name, suffix in (("PNG", ".png"), ("WebP", ".webp"))
    ),
    PictureRow("PPM, PGM, PBM (PNM)", ".ppm", _opencv(".ppm"), tolerance=0.0),
    PictureRow("JPEG 2000", ".jp2", _opencv(".jp2")),
    PictureRow("Sun raster", ".ras", _opencv(".ras"), tolerance=0.0),
    PictureRow(
        "GIF",
        ".gif",
        _opencv(".gif"),
        tolerance=20.0,
        note="of many images: a video, in a folder its first image with a warning",
    ),
    PictureRow("AVIF", ".avif", _pillow("AVIF"), note="by Pillow 11.3 or later", tolerance=8.0),
    PictureRow(
        "HEIC",
        ".heic",
        _pillow("HEIF", 1, (320, 240)),
        note="whole, upright; needs `pip install 'face_recon_ros[heif]'`",
        tolerance=8.0,
        size=(320, 240),
    ),
    PictureRow(
        "HEIC named .jpg",
        ".jpg",
        _pillow("HEIF", 1, (320, 240)),
        note="content counts",
        tolerance=8.0,
        size=(320, 240),
    ),
    PictureRow(
        "camera raw (DNG, CR2, NEF ...)",
        ".dng",
        _bytes(_dng),
        REFUSED,
        "its file holds only a small preview besides: develop it to JPEG",
        says="JPEG",
    ),
    PictureRow(
        "high dynamic range (HDR, EXR, PFM)",
        ".hdr",
        lambda p: (
            p.write_bytes(cv2.imencode(".hdr", scene().astype(np.float32))[1].tobytes()) and None
        ),
        REFUSED,
        says="PNG",
    ),
    PictureRow(
        "JPEG XL",
        ".jxl",
        _bytes(lambda: b"\xff\x0a" + bytes(100)),
        REFUSED,
        "convert it to JPEG or PNG",
        says="JPEG",
    ),
    PictureRow(
        "Photoshop",
        ".psd",
        _bytes(lambda: b"8BPS" + bytes(100)),
        REFUSED,
        "export it as PNG",
        says="PNG",
    ),
    PictureRow(
        "PDF",
        ".pdf",
        _bytes(lambda: b"%PDF-1.7\n" + bytes(100)),
        REFUSED,
        "export the picture in it",
        says="export",
    ),
    PictureRow(
        "SVG", ".svg", _bytes(lambda: b"<svg xmlns='http://x'></svg>"), REFUSED, says="PNG"
    ),
    PictureRow("an empty file", ".jpg", _bytes(bytes), REFUSED, says="replace"),
    PictureRow("a size beyond all memory", ".png", _bytes(_bomb), REFUSED, says="scale it down"),
    PictureRow(
        "something else named .jpg", ".jpg", _bytes(lambda: b"hello" * 20), REFUSED, says="file"
    ),
)


# --- videos --------------------------------------------------------------------------------------


def moving(k: int, width: int = W, height: int = H) -> np.ndarray:
    """The k-th image of a video: its brightness tells k."""
    return np.clip(scene(width, height).astype(int) // 2 + 10 * k, 0, 255).astype(np.uint8)


def write_video(
    path: Path,
    codec: str = "libx264",
    times_s: Sequence[float] = tuple(k / 25 for k in range(8)),
    *,
    container: str | None = None,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (W, H),
    options: dict[str, str] | None = None,
    rate: Fraction = Fraction(25),
    ticks: int | None = None,
    **context: Any,
) -> Path:
    """A video with images at given times."""
    import av

    av.logging.set_level(av.logging.PANIC)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        if ticks:
            stream.codec_context.time_base = Fraction(1, ticks)
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        base = Fraction(1, ticks) if ticks else 1 / Fraction(rate)
        for k, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(moving(k, *size), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = round(time_s / float(base)), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def _turned(matrix: tuple[int, ...]) -> Callable[[Path], None]:
    """An MP4 with a display matrix, as phones write it."""

    def write(path: Path) -> None:
        write_video(path)
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
        data[at : at + 36] = struct.pack(">9i", *matrix)
        path.write_bytes(data)

    return write


ONE = 65536
STEADY = tuple(k / 25 for k in range(8))
SLOW = tuple(2.0 * k for k in range(8))
PAUSES = (0.0, 0.04, 0.08, 3.08, 3.12, 3.16, 6.16, 6.2)


def as_stored(rgb: np.ndarray) -> np.ndarray:
    """An image that is stored upright."""
    return rgb


@dataclass(frozen=True)
class VideoRow:
    """A video file.

    Attributes:
        name: for people.
        suffix: of the file.
        write: makes it.
        times_s: of its images from the first on.
        result: `READ`, `WARNED` or `REFUSED`.
        note: for people.
        turn: what makes an upright image of one as stored.
        says: in the warning or refusal.
        tolerance: mean difference.
        aspect: of a pixel.
    """

    name: str
    suffix: str
    write: Callable[[Path], Any]
    times_s: Sequence[float] = STEADY
    result: str = READ
    note: str = ""
    turn: Callable[[np.ndarray], np.ndarray] = as_stored
    says: str = ""
    tolerance: float = 8.0
    aspect: float = 1.0


def _cut(path: Path) -> None:
    write_video(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _sound(path: Path) -> None:
    import av

    with av.open(str(path), "w", format="wav") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))


VIDEOS = (
    VideoRow("MP4, H.264", ".mp4", write_video),
    VideoRow("MOV, H.265 of 10 bits", ".mov",
             lambda p: write_video(p, "libx265", pixels="yuv420p10le", options={"x265-params": "log-level=none"})),
    VideoRow("WebM, VP9", ".webm", lambda p: write_video(p, "libvpx-vp9"), tolerance=12.0),
    VideoRow("AVI, Motion JPEG", ".avi", lambda p: write_video(p, "mjpeg", pixels="yuvj420p")),
    VideoRow("MKV, FFV1", ".mkv", lambda p: write_video(p, "ffv1")),
    VideoRow("named .jpg", ".jpg", lambda p: write_video(p, container="mp4"), note="content counts"),
    VideoRow("interlaced MPEG-2 (TS, MTS)", ".ts",
             lambda p: write_video(p, "mpeg2video", options={"flags": "+ildct+ilme", "b": "4M"}),
             result=WARNED, note="deinterlaced, an image for each pair of fields", says="interlaced"),
    VideoRow("DV (PAL)", ".dv",
             lambda p: write_video(p, "dvvideo", container="dv", size=(720, 576)),
             result=WARNED, note="deinterlaced; pixels made square", says="interlaced", aspect=16 / 15),
    VideoRow("half an image a second", ".mp4",
             lambda p: write_video(p, times_s=SLOW, rate=Fraction(1, 2)), SLOW,
             note="its own times"),
    VideoRow("variable rate, with pauses of 3 s", ".mp4",
             lambda p: write_video(p, times_s=PAUSES, ticks=1000), PAUSES, note="its own times"),
    VideoRow("H.264 without times (.h264)", ".h264", lambda p: write_video(p, container="h264"),
             note="25 a second unless the stream says"),
    VideoRow("turned by 90 degrees (phones)", ".mp4",
             _turned((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)), note="upright",
             turn=lambda rgb: np.rot90(rgb, -1)),
    VideoRow("turned by 180 degrees", ".mp4",
             _turned((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30)), note="upright",
             turn=lambda rgb: np.rot90(rgb, 2)),
    VideoRow("turned by 270 degrees", ".mp4",
             _turned((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30)), note="upright",
             turn=lambda rgb: np.rot90(rgb, 1)),
    VideoRow("mirrored", ".mp4", _turned((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)),
             note="as players show it", turn=lambda rgb: rgb[:, ::-1]),
    VideoRow("pixels that are not square", ".mp4",
             lambda p: write_video(p, sample_aspect_ratio=Fraction(4, 3)), aspect=4 / 3,
             note="made square"),
    VideoRow("animated GIF", ".gif", _animated("GIF"), (0.0, 0.5, 1.0), note="its own times", tolerance=255.0),
    VideoRow("MP4 cut off (no index)", ".mp4", _cut, result=REFUSED, says="cut off"),
    VideoRow("sound only", ".wav", _sound, result=REFUSED, says="video track"),
    VideoRow("text", ".txt", lambda p: p.write_text("hello\n" * 50), result=REFUSED, says="another kind"),
)  # fmt: skip


# --- encodings of sensor_msgs/Image --------------------------------------------------------------


def _yuv() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Limited-range BT.601 planes of the scene: (H, W) luma, (H, W) chroma each."""
    r, g, b = (scene()[..., k].astype(float) for k in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    return tuple(np.rint(p).clip(0, 255).astype(np.uint8) for p in (y, u, v))  # type: ignore[return-value]


def _packed(order: str) -> np.ndarray:
    y, u, v = _yuv()
    out = np.empty((H, W, 2), np.uint8)
    luma = order.index("y") % 2
    out[..., luma] = y
    chroma = [c for c in order if c != "y"]
    planes = {"u": u, "v": v}
    out[:, 0::2, 1 - luma] = planes[chroma[0]][:, 0::2]
    out[:, 1::2, 1 - luma] = planes[chroma[1]][:, 0::2]
    return out


def _planar(name: str) -> np.ndarray:
    """Rows of luma and chroma below one another."""
    y, u, v = _yuv()
    if name in ("nv24", "nv42"):
        pair = np.stack([u, v] if name == "nv24" else [v, u], -1).reshape(2 * H, W)
        return np.vstack([y, pair])
    if name in ("nv16", "nv61"):
        half = [p[:, ::2] for p in ((u, v) if name == "nv16" else (v, u))]
        return np.vstack([y, np.stack(half, -1).reshape(H, W)])
    quarter = [p[::2, ::2] for p in ((u, v) if name in ("nv12", "i420") else (v, u))]
    if name in ("nv12", "nv21"):
        return np.vstack([y, np.stack(quarter, -1).reshape(H // 2, W)])
    return np.vstack([y, *(p.reshape(H // 4, W) for p in quarter)])


def _mosaic(pattern: str) -> np.ndarray:
    index = {"r": 0, "g": 1, "b": 2}
    out = np.empty((H, W), np.uint8)
    for k, colour in enumerate(pattern):
        out[k // 2 :: 2, k % 2 :: 2] = scene()[k // 2 :: 2, k % 2 :: 2, index[colour]]
    return out


@dataclass(frozen=True)
class EncodingRow:
    """An encoding of sensor_msgs/Image.

    Attributes:
        name: as messages say it.
        pixels: makes them, rows as in the message.
        size: height and width that the message says; None takes those of the array.
        result: `READ` or `REFUSED`.
        note: for people.
        is_grey: whether it has no colour.
        tolerance: mean difference from the scene.
        big_endian: of 16-bit values.
        says: in the refusal.
    """

    name: str
    pixels: Callable[[], np.ndarray]
    size: tuple[int, int] | None = None
    result: str = READ
    note: str = ""
    is_grey: bool = False
    tolerance: float = 0.0
    big_endian: bool = False
    says: str = ""


def _alpha(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full_like(rgb[..., :1], rgb.max())])


def _deep(rgb: np.ndarray, bits: int) -> np.ndarray:
    return rgb.astype(np.uint16) << (bits - 8)


_BGR = lambda: scene()[..., ::-1].copy()  # noqa: E731
ENCODING_ROWS = (
    EncodingRow("rgb8", scene),
    EncodingRow("bgr8", _BGR),
    EncodingRow("8UC3", _BGR, note="as bgr8"),
    EncodingRow("rgba8", lambda: _alpha(scene())),
    EncodingRow("bgra8", lambda: _alpha(_BGR())),
    EncodingRow("8UC4", lambda: _alpha(_BGR()), note="as bgra8"),
    EncodingRow("rgb16", lambda: _deep(scene(), 16), tolerance=1.0),
    EncodingRow("bgr16", lambda: _deep(_BGR(), 12), note="here 12 bits in use", tolerance=1.0),
    EncodingRow("16UC3", lambda: _deep(_BGR(), 16), tolerance=1.0, note="as bgr16"),
    EncodingRow("rgba16", lambda: _alpha(_deep(scene(), 16)), tolerance=1.0),
    EncodingRow("bgra16", lambda: _alpha(_deep(_BGR(), 16)), tolerance=1.0),
    EncodingRow("16UC4", lambda: _alpha(_deep(_BGR(), 16)), tolerance=1.0, note="as bgra16"),
    EncodingRow("mono8", grey, is_grey=True),
    EncodingRow("8UC1", grey, is_grey=True, note="as mono8"),
    *(
        EncodingRow(
            "mono16", lambda b=b: _deep(grey(), b), is_grey=True, tolerance=1.0,
            note=f"{b} bits in use: scaled by what the stream shows",
        )
        for b in (8, 10, 12, 14, 16)
    ),
    EncodingRow("mono16", lambda: _deep(grey(), 12).byteswap(), is_grey=True, tolerance=1.0,
                big_endian=True, note="big endian"),
    EncodingRow("mono16", lambda: (grey().astype(np.uint16) * 8 + 28000), is_grey=True,
                tolerance=-1.0, note="far from zero (thermal): stretched"),
    EncodingRow("16UC1", lambda: _deep(grey(), 10), is_grey=True, tolerance=1.0,
                note="as mono16; in a bag its holes distinguish depth from pictures"),
    *(EncodingRow(f"mono{b}", lambda b=b: _deep(grey(), b), is_grey=True, tolerance=1.0,
                  note="of some drivers, two bytes a pixel") for b in (10, 12, 14)),
    EncodingRow("yuv422", lambda: _packed("uyvy"), tolerance=3.0, note="as uyvy"),
    EncodingRow("uyvy", lambda: _packed("uyvy"), tolerance=3.0),
    EncodingRow("yuv422_yuy2", lambda: _packed("yuyv"), tolerance=3.0),
    EncodingRow("yuyv", lambda: _packed("yuyv"), tolerance=3.0),
    EncodingRow("yvyu", lambda: _packed("yvyu"), tolerance=3.0),
    *(
        EncodingRow(n, lambda n=n: _planar(n), size, tolerance=3.0, note=note)
        for n in ("nv12", "nv21", "i420", "yv12", "nv16", "nv61", "nv24", "nv42")
        for size, note in (((H, W), ""), (None, "where the height counts the colour rows too"))
    ),
    *(EncodingRow(f"bayer_{p}8", lambda p=p: _mosaic(p), tolerance=6.0)
      for p in ("rggb", "bggr", "gbrg", "grbg")),
    *(EncodingRow(f"bayer_{p}16", lambda p=p: _deep(_mosaic(p), 12), tolerance=6.0,
                  note="here 12 bits in use") for p in ("rggb", "bggr", "gbrg", "grbg")),
    *(EncodingRow(f"bayer_rggb{b}", lambda b=b: _deep(_mosaic("rggb"), b), tolerance=6.0,
                  note="of some drivers, two bytes a pixel") for b in (10, 12, 14)),
    EncodingRow("RGB8", scene, note="any case"),
    EncodingRow("yuv420", lambda: _planar("i420"), (H, W), tolerance=3.0, note="as i420"),
    EncodingRow("jpeg", lambda: np.frombuffer(jpeg(), np.uint8)[None], (H, W), tolerance=3.0,
                note="a file in place of pixels, as some drivers have it"),
    EncodingRow("32FC1", lambda: np.ones((H, W), np.float32), result=REFUSED,
                says="colour or grey topic"),
    EncodingRow("16SC1", lambda: np.ones((H, W), np.int16), result=REFUSED,
                says="colour or grey topic"),
    EncodingRow("fancy", scene, result=REFUSED, says="rgb8"),
)  # fmt: skip


# --- CameraInfo ----------------------------------------------------------------------------------

K = (60.0, 0.0, 31.0, 0.0, 61.0, 22.0, 0.0, 0.0, 1.0)
P = (50.0, 0.0, 30.0, 0.0, 0.0, 50.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0)
BENT = (0.05, -0.02, 0.001, 0.002, 0.01)
WIDE = (0.05, -0.02, 0.001, 0.002, 0.01, 0.02, 0.01, 0.003)
FISHEYE = (0.01, 0.002, 0.001, 0.0005)


@dataclass(frozen=True)
class InfoRow:
    """A CameraInfo of an image of W x H.

    Attributes:
        name: for people.
        fields: of `info_message`, beside K.
        k: fx, fy, cx, cy of the image that is right; None where the field of view is assumed.
        d: coefficients that are right.
        model: of them.
        warning: in the warning; empty where there is none.
        note: for people.
        topic: of the images.
    """

    name: str
    fields: dict[str, Any]
    k: tuple[float, float, float, float] | None = (60.0, 61.0, 31.0, 22.0)
    d: Sequence[float] = ()
    model: str = "plumb_bob"
    warning: str = ""
    note: str = ""
    topic: str = "/camera/image_raw"


def _row(name: str, **fields: Any) -> InfoRow:
    own = {
        f: fields.pop(f) for f in ("k", "d", "model", "warning", "note", "topic") if f in fields
    }
    return InfoRow(name, fields, **own)


def _models() -> list[InfoRow]:
    rows = [
        InfoRow("plumb_bob, 5 coefficients", {"d": BENT}, d=BENT),
        InfoRow("plumb_bob, 4", {"d": BENT[:4]}, d=BENT[:4]),
        InfoRow("plumb_bob, 8 of which the last are 0", {"d": (*BENT, 0, 0, 0)}, d=BENT,
                note="zeros dropped"),
        InfoRow("plumb_bob, 8 zeros", {"d": [0.0] * 8}, note="no distortion"),
        InfoRow("plumb_bob, 8", {"d": WIDE}, warning="plumb_bob with 8", note="K is kept"),
        InfoRow("plumb_bob, 2", {"d": (0.1, 0.1)}, warning="plumb_bob with 2", note="K is kept"),
        InfoRow("rational_polynomial, 8", {"d": WIDE, "model": "rational_polynomial"},
                d=WIDE, model="rational_polynomial"),
        InfoRow("rational_polynomial, 5", {"d": BENT, "model": "rational_polynomial"},
                d=(*BENT, 0, 0, 0), model="rational_polynomial", note="the rest are 0"),
        InfoRow("equidistant, 4", {"d": FISHEYE, "model": "equidistant"}, d=FISHEYE,
                model="equidistant"),
        InfoRow("equidistant, 5 of which the last is 0",
                {"d": (*FISHEYE, 0.0), "model": "equidistant"}, d=FISHEYE, model="equidistant"),
        InfoRow("equidistant, 5", {"d": (*FISHEYE, 0.1), "model": "equidistant"},
                warning="equidistant with 5", note="K is kept"),
        InfoRow("equidistant, zeros", {"d": [0.0] * 4, "model": "equidistant"},
                note="no distortion, as image_geometry has it"),
    ]  # fmt: skip
    for alias in ("fisheye", "kannala_brandt", "kannala_brandt4", "Equidistant", "KB4"):
        rows.append(InfoRow(f"{alias}, 4", {"d": FISHEYE, "model": alias}, d=FISHEYE,
                            model="equidistant", note="as equidistant"))  # fmt: skip
    for alias in ("PLUMB_BOB", "Plumb Bob", "radtan", "brown_conrady", ""):
        rows.append(InfoRow(f"{alias or 'no name'}, 5", {"d": BENT, "model": alias}, d=BENT,
                            note="as plumb_bob"))  # fmt: skip
    for alias in ("pinhole", "none", "fisheye", "something", "perspective"):
        rows.append(InfoRow(f"{alias}, zeros", {"d": [0.0] * 5, "model": alias},
                            note="no distortion"))  # fmt: skip
    return [
        *rows,
        InfoRow("pinhole with coefficients", {"d": BENT, "model": "pinhole"}, warning="'pinhole'",
                note="K is kept"),
        InfoRow("an unknown model", {"d": BENT, "model": "double_sphere"},
                warning="'double_sphere'", note="K is kept"),
        InfoRow("coefficients that are not finite", {"d": (np.nan, 0, 0, 0, 0)},
                warning="nan", note="K is kept"),
        InfoRow("coefficients of no lens", {"d": (50.0, 0, 0, 0, 0)}, d=(50.0, 0, 0, 0, 0),
                warning="hardly any lens", note="used, and doubted"),
    ]  # fmt: skip


INFO_ROWS = (
    *_models(),
    InfoRow("another size of the same view", {"width": 2 * W, "height": 2 * H},
            (30.0, 30.5, 15.25, 10.75), note="scaled to the image; said in diagnostics"),
    InfoRow("another view (aspect)", {"width": W, "height": 2 * H}, None, warning="64 x 96",
            note="field of view assumed"),
    InfoRow("no size", {"width": 0, "height": 0}, note="that of the image"),
    InfoRow("region of interest", {"width": 2 * W, "height": 2 * H, "roi": (10, 20, W, H)},
            (60.0, 61.0, 21.0, 2.0)),
    InfoRow("binning", {"width": 2 * W, "height": 2 * H, "binning": (2, 2)},
            (30.0, 30.5, 15.25, 10.75)),
    InfoRow("region of interest outside", {"roi": (50, 0, W, H)}, warning="region of interest",
            note="left out"),
    InfoRow("region of interest of another image", {"width": W, "height": H, "roi": (0, 0, 20, 20)},
            warning="region of interest", note="left out"),
    InfoRow("binning of a driver that bins already", {"binning": (2, 2)}, warning="binning",
            note="left out: the image is the whole"),
    InfoRow("K of zeros", {"k": [0.0] * 9}, None, note="uncalibrated: field of view assumed"),
    InfoRow("K not finite", {"k": [np.nan] * 9}, None, warning="nan",
            note="field of view assumed"),
    InfoRow("K written column by column", {"k": np.reshape(K, (3, 3)).T.ravel()},
            warning="column by column", note="transposed"),
    InfoRow("K with 0 in place of its last 1", {"k": (*K[:8], 0.0)}, warning="odd entries",
            note="taken as 1"),
    InfoRow("K in other units", {"k": (0.9, 0, 0.5, 0, 0.9, 0.5, 0, 0, 1)},
            (0.9, 0.9, 0.5, 0.5), warning="focal length", note="used, and doubted"),
    InfoRow("rectified topic (image_rect)", {"d": BENT, "p": P}, (50.0, 50.0, 30.0, 20.0),
            note="P counts, no D", topic="/camera/image_rect"),
    InfoRow("rectified topic, compressed", {"d": BENT, "p": P}, (50.0, 50.0, 30.0, 20.0),
            note="P counts, no D", topic="/camera/image_rect_color/compressed"),
    InfoRow("rectified topic without P", {"d": BENT, "p": [0.0] * 12}, warning="without P",
            note="K is used", topic="/camera/image_rect"),
    InfoRow("rectified topic, K of zeros", {"k": [0.0] * 9, "p": P}, (50.0, 50.0, 30.0, 20.0),
            note="P counts", topic="/camera/image_rect"),
)  # fmt: skip


# --- compressed images ---------------------------------------------------------------------------


@dataclass(frozen=True)
class CompressedRow:
    """A sensor_msgs/CompressedImage.

    Attributes:
        name: for people.
        data: of the message.
        text: its `format`.
        result: `READ`, `WARNED` or `REFUSED`.
        note: for people.
        tolerance: mean difference from the scene; below 0: from its grey, by correlation.
        says: in the warning or refusal.
    """

    name: str
    data: Callable[[], bytes]
    text: str
    result: str = READ
    note: str = ""
    tolerance: float = 4.0
    says: str = ""


def _grey_png(values: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", values)[1].tobytes())


COMPRESSED_ROWS = (
    CompressedRow("JPEG", jpeg, "rgb8; jpeg compressed bgr8"),
    CompressedRow("JPEG, format not said", jpeg, "", note="content counts"),
    CompressedRow("JPEG without its last two bytes", lambda: jpeg()[:-2], "jpeg", note="whole"),
    CompressedRow("JPEG cut off", lambda: half(jpeg(scene(320, 240))), "jpeg", WARNED,
                  "as far as it goes", 255.0, "ends early"),
    CompressedRow("PNG", _png_bytes, "bgr8; png compressed bgr8", tolerance=0.0),
    CompressedRow("PNG of 16 bits, 12 in use", lambda: _deep_png(12),
                  "mono16; png compressed mono16", note="scaled by what the stream shows",
                  tolerance=-1.0),
    CompressedRow("a mosaic as JPEG", lambda: _grey_png(_mosaic("rggb")),
                  "bayer_rggb8; png compressed", note="colours made of it", tolerance=6.0),
    CompressedRow("compressedDepth", lambda: bytes(12) + _png_bytes(),
                  "16UC1; compressedDepth png", REFUSED, says="colour topic"),
    CompressedRow("H.264", lambda: bytes((0, 0, 0, 1, 103)) * 9, "h264", REFUSED,
                  says="republish"),
    CompressedRow("nothing", bytes, "jpeg", REFUSED, says="no bytes"),
)  # fmt: skip


# --- bags ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BagRow:
    """A recording.

    Attributes:
        name: for people.
        write: makes it in a folder and says what to open.
        images: how many are read.
        result: `READ`, `WARNED` or `REFUSED`.
        note: for people.
        says: in the warning or refusal.
    """

    name: str
    write: Callable[[Path], Path]
    images: int = 4
    result: str = READ
    note: str = ""
    says: str = ""


def plain_rows(n: int = 4) -> list[tuple[str, int, Any]]:
    """Images and CameraInfo of one camera."""
    rows: list[tuple[str, int, Any]] = []
    for ns in stamps_ns(n):
        rows.append(("/camera/image_raw", ns, image_message(scene(), "rgb8", ns)))
        rows.append(("/camera/camera_info", ns, info_message(K, ns=ns)))
    return rows


def _plain(storage: str = "mcap", **options: Any) -> Callable[[Path], Path]:
    return lambda folder: write_bag(folder / "bag", plain_rows(), storage, **options)


def _lone(storage: str, suffix: str | None = None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_bag(folder / "bag", plain_rows(), storage)
        (file,) = [p for p in (folder / "bag").iterdir() if p.suffix in (".mcap", ".db3")]
        target = folder / f"alone{file.suffix if suffix is None else suffix}"
        shutil.move(file, target)
        return target

    return write


def _without_metadata(folder: Path) -> Path:
    write_bag(folder / "bag", plain_rows())
    (folder / "bag" / "metadata.yaml").unlink()
    return folder / "bag"


def _edited(*changes: tuple[str, str]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_bag(folder / "bag", plain_rows())
        meta = folder / "bag" / "metadata.yaml"
        text = meta.read_text()
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        meta.write_text(text)
        return folder / "bag"

    return write


def _empty_last_split(folder: Path) -> Path:
    write_bag(folder / "bag", plain_rows())
    (folder / "bag" / "bag_1.mcap").write_bytes(b"")
    meta = folder / "bag" / "metadata.yaml"
    meta.write_text(meta.read_text().replace("  - bag.mcap\n", "  - bag.mcap\n  - bag_1.mcap\n"))
    return folder / "bag"


def _splits(folder: Path) -> Path:
    """Twelve files: 2 before 10."""
    (folder / "bag").mkdir()
    for k, ns in enumerate(stamps_ns(12)):
        rows = [("/camera/image_raw", ns, image_message(scene(), "rgb8", ns))]
        write_bag(folder / f"part{k}", rows)
        (file,) = (folder / f"part{k}").glob("*.mcap")
        shutil.move(file, folder / "bag" / f"bag_{k}.mcap")
    return folder / "bag"


def _with_journal(folder: Path) -> Path:
    """A database whose recorder was killed before its journal was written back."""
    import sqlite3

    path = _lone("sqlite3")(folder)
    recorder = sqlite3.connect(path)
    recorder.execute("PRAGMA journal_mode=WAL")
    recorder.execute("PRAGMA wal_autocheckpoint=0")
    rows = recorder.execute("SELECT topic_id, timestamp, data FROM messages").fetchall()
    recorder.execute("DELETE FROM messages")
    recorder.commit()
    recorder.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    recorder.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    recorder.commit()
    killed = folder / "killed.db3"
    shutil.copy(path, killed)
    shutil.copy(f"{path}-wal", f"{killed}-wal")
    recorder.close()
    return killed


def _of_ros1(folder: Path) -> Path:
    path = _with_json(folder)
    path.write_bytes(path.read_bytes().replace(mcap_text("cdr"), mcap_text("xml")))
    return path


def _cut_off(folder: Path) -> Path:
    write_bag(folder / "bag", plain_rows(40))
    (file,) = (folder / "bag").glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: int(0.8 * len(data))])
    return folder / "bag"


def mcap_record(kind: int, body: bytes) -> bytes:
    """A record of the mcap format."""
    return bytes([kind]) + struct.pack("<Q", len(body)) + body


def mcap_text(text: str) -> bytes:
    """A string of the mcap format."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _with_json(folder: Path) -> Path:
    """An mcap file with a JSON channel beside the camera's, as Foxglove and others write."""
    text = mcap_text
    out = [b"\x89MCAP0\r\n", mcap_record(1, text("") + text("test"))]
    out.append(
        mcap_record(3, struct.pack("<H", 1) + text("note") + text("jsonschema") + text("{}"))
    )
    kind = "sensor_msgs/msg/Image"
    out.append(mcap_record(3, struct.pack("<H", 2) + text(kind) + text("ros2msg") + text("")))
    for key, topic, coding in ((1, "/notes", "json"), (2, "/camera/image_raw", "cdr")):
        body = struct.pack("<HH", key, key) + text(topic) + text(coding) + struct.pack("<I", 0)
        out.append(mcap_record(4, body))
    for k, ns in enumerate(stamps_ns()):
        note = json.dumps({"k": k}).encode()
        image = bytes(store().serialize_cdr(image_message(scene(), "rgb8", ns), kind))
        for key, data in ((1, note), (2, image)):
            out.append(mcap_record(5, struct.pack("<HIQQ", key, k, ns, ns) + data))
    out.append(mcap_record(15, struct.pack("<I", 0)))
    out.append(mcap_record(2, struct.pack("<QQI", 0, 0, 0)))
    path = folder / "mixed.mcap"
    path.write_bytes(b"".join([*out, b"\x89MCAP0\r\n"]))
    return path


def _zstd(folder: Path) -> Path:
    from face_recon_ros.io.bag_files import zstd_module

    write_bag(folder / "bag", plain_rows(), "sqlite3")
    (file,) = (folder / "bag").glob("*.db3")
    target = folder / "bag.db3.zstd"
    target.write_bytes(zstd_module().compress(file.read_bytes()))
    return target


def _written(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


def _compression(mode: str) -> dict[str, Any]:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode

    return {"set_compression": (getattr(CompressionMode, mode), CompressionFormat.ZSTD)}


BAGS = (
    BagRow("rosbag2 folder, mcap", _plain()),
    BagRow("rosbag2 folder, sqlite3", _plain("sqlite3")),
    BagRow("compressed by message (zstd)", lambda d: _plain("sqlite3", **_compression("MESSAGE"))(d)),
    BagRow("compressed by file (zstd)", lambda d: _plain("sqlite3", **_compression("FILE"))(d)),
    BagRow("one .mcap file by itself", _lone("mcap")),
    BagRow("one .db3 file by itself", _lone("sqlite3")),
    BagRow("one .db3.zstd file by itself", _zstd),
    BagRow("one mcap file without its suffix", _lone("mcap", ""), note="content counts"),
    BagRow("folder without metadata.yaml", _without_metadata, result=WARNED, says="metadata.yaml"),
    BagRow("reindexed: no storage_identifier", _edited(("storage_identifier: mcap", "storage_identifier: ''"))),
    BagRow("metadata of a later version", _edited(("version: 9", "version: 12")), note="the files count"),
    BagRow("an empty last split", _empty_last_split, result=WARNED, says="is empty"),
    BagRow("twelve splits", _splits, 12, result=WARNED, note="in the order of their numbers", says="metadata.yaml"),
    BagRow("a JSON channel beside ROS ones", _with_json, result=WARNED, note="read without the index", says="index"),
    BagRow("cut off by a crash", _cut_off, -1, WARNED, "up to the break", "break"),
    BagRow("sqlite3 with a journal (-wal): its recorder was killed", _with_journal, result=WARNED, says="journal"),
    BagRow("mcap of other encodings only (ROS 1, Protobuf ...)", _of_ros1, 0, REFUSED, says="not ROS 2"),
    BagRow("ROS 1 .bag", _written("old.bag", b"#ROSBAG V2.0\n" + bytes(64)), 0, REFUSED, says="rosbags-convert"),
    BagRow("an empty .mcap", _written("none.mcap", b""), 0, REFUSED, says="empty"),
    BagRow("something else named .db3", _written("junk.db3", b"x" * 999), 0, REFUSED, says="neither"),
)  # fmt: skip


# --- topics of a bag -----------------------------------------------------------------------------


def _depth(flat: bool = False) -> np.ndarray:
    values = np.full((H, W), 1500, np.uint16)
    values[:10, :10] = 0
    values[20:] = np.linspace(600, 4000, W).astype(np.uint16)
    return np.full((H, W), 1500, np.uint16) if flat else values


@dataclass(frozen=True)
class TopicRow:
    """What a bag holds, and which topic is the camera's.

    Attributes:
        name: for people.
        topics: topic -> message of each stamp (a function of ns), and how many a stamp.
        chosen: the topic that is right; empty where there is none.
    """

    name: str
    topics: dict[str, tuple[Callable[[int], Any], int]]
    chosen: str


def _rgb(ns: int) -> Any:
    return image_message(scene(), "rgb8", ns)


def _mono(ns: int) -> Any:
    return image_message(grey(), "mono8", ns)


def _info(ns: int) -> Any:
    return info_message(K, ns=ns)


TOPICS = (
    TopicRow("depth of a stereo camera (16UC1), many", {
        "/oak/stereo/image_raw": (lambda ns: image_message(_depth(), "16UC1", ns), 3),
        "/oak/rgb/image_raw": (_rgb, 1)}, "/oak/rgb/image_raw"),
    TopicRow("depth alone", {
        "/oak/stereo/image_raw": (lambda ns: image_message(_depth(), "16UC1", ns), 1)}, ""),
    TopicRow("depth in metres (32FC1) alone", {
        "/d/image": (lambda ns: image_message(np.ones((H, W), np.float32), "32FC1", ns), 1)}, ""),
    TopicRow("depth by name, in colours", {"/camera/depth/image": (_rgb, 3), "/cam/image": (_mono, 1)},
             "/cam/image"),
    TopicRow("infrared, many", {"/camera/infra1/image_raw": (_mono, 3),
                                "/camera/color/image_raw": (_rgb, 1)}, "/camera/color/image_raw"),
    TopicRow("infrared as rgb8", {
        "/ir/image_raw": (lambda ns: image_message(np.dstack([grey()] * 3), "rgb8", ns), 3),
        "/rgb/image_raw": (_rgb, 1)}, "/rgb/image_raw"),
    TopicRow("infrared alone", {"/camera/infra1/image_raw": (_mono, 1)}, "/camera/infra1/image_raw"),
    TopicRow("a debug image, many", {"/a/debug_image": (_rgb, 2), "/camera/image_raw": (_rgb, 1)},
             "/camera/image_raw"),
    TopicRow("a drawing without CameraInfo", {
        "/a/image": (_rgb, 1), "/zed/left/image": (_rgb, 1), "/zed/left/camera_info": (_info, 1)},
        "/zed/left/image"),
    TopicRow("a mask", {
        "/x/out": (lambda ns: image_message((grey() > 100).astype(np.uint8) * 255, "mono8", ns), 3),
        "/y/image": (_mono, 1)}, "/y/image"),
    TopicRow("what the pipeline itself publishes", {"/face/mesh/image": (_rgb, 3), "/c/image": (_mono, 1)},
             "/c/image"),
    TopicRow("raw and compressed", {
        "/c/image_raw/compressed": (lambda ns: compressed_message(jpeg(), "jpeg", ns), 1),
        "/c/image_raw": (_rgb, 1)}, "/c/image_raw"),
    TopicRow("only compressed", {
        "/c/image_raw/compressed": (lambda ns: compressed_message(jpeg(), "jpeg", ns), 1)},
        "/c/image_raw/compressed"),
    TopicRow("16-bit pictures alone", {
        "/flir/image_raw": (lambda ns: image_message(_deep(grey(), 12), "16UC1", ns), 1)},
        "/flir/image_raw"),
    TopicRow("thermal and colour", {
        "/flir/image_raw": (lambda ns: image_message(grey().astype(np.uint16) + 28000, "mono16", ns), 3),
        "/rgb/image_raw": (_rgb, 1)}, "/rgb/image_raw"),
)  # fmt: skip


def topic_messages(row: TopicRow, n: int = 6) -> list[tuple[str, int, Any]]:
    """The messages of a row's bag."""
    return [
        (topic, ns + k, message(ns + k))
        for ns in stamps_ns(n)
        for topic, (message, times) in row.topics.items()
        for k in range(times)
    ]


# --- the page ------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    seen = set()
    for row in rows:
        line = "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        if line not in seen:
            lines.append(line)
        seen.add(line)
    return "\n".join(lines)


def page() -> str:
    """docs/inputs.md."""
    parts = [
        "# Supported input",
        "This page is generated from the tables that the tests of `test/io` run, row by row:\n"
        "`python test/io/input_tables.py > docs/inputs.md`. One reader serves all commands and the nodes: what holds for a\n"
        "file holds for `reconstruct`, `evaluate`, `record` and `camera.source` alike. Refused input gives a one-line error\n"
        "with what was expected, what was found, and the remedy.",
        "## Pictures\n\nRecognised by content, not by name. In a folder, unreadable files are named and counted.",
        _table(
            ("picture", "result", "how"),
            [
                (r.name, r.result, r.note or (r.says and f"the remedy names: {r.says}"))
                for r in PICTURES
            ],
        ),
        "## Videos\n\nThrough FFmpeg (PyAV). Stamps are the file's own times, from its first image on. At a web address\n"
        "(`http://`, `https://`) what states a duration or a size is such a file; anything else is a live stream.",
        _table(
            ("video", "result", "how"),
            [(r.name, r.result, r.note) for r in VIDEOS],
        ),
        "## Encodings of sensor_msgs/Image\n\nMore than 8 bits a channel are scaled by the content of the stream, steadily\n"
        "from image to image; diagnostics and reports show the scale (`pixel_range`).",
        _table(
            ("encoding", "result", "how"),
            [
                (f"`{r.name}`", r.result, r.note or (r.says and f"the remedy names: {r.says}"))
                for r in ENCODING_ROWS
            ],
        ),
        "## sensor_msgs/CompressedImage",
        _table(
            ("content", "result", "how"),
            [
                (r.name, r.result, r.note or (r.says and f"the remedy names: {r.says}"))
                for r in COMPRESSED_ROWS
            ],
        ),
        "## CameraInfo and calibration files\n\nAn invalid field is ignored alone. While it lasts it is a warning in\n"
        "diagnostics, reports and on the console. Without usable intrinsics the field of view is assumed (`camera.fov_deg`,\n"
        "`--fov`), and poses are marked as uncalibrated. Images of a topic named `image_rect...` or `..._rect` are rectified:\n"
        "P counts and there is no distortion (`camera.rectified`, `--rectified`).",
        _table(
            ("CameraInfo", "used", "how"),
            [
                (
                    r.name,
                    (
                        "field of view assumed"
                        if r.k is None
                        else "K"
                        if not len(r.d)
                        else f"K, {r.model}"
                    )
                    + (", with a warning" if r.warning else ""),
                    r.note,
                )
                for r in INFO_ROWS
            ],
        ),
        "## Bags\n\nBy the package `rosbags`, without ROS; a file that it refuses is read message by message.",
        _table(
            ("recording", "result", "how"),
            [(r.name, r.result, r.note or (r.says and f"says: {r.says}")) for r in BAGS],
        ),
        "## Which topic of a bag\n\nThe content of images decides: colour, then grey; never depth and masks. The choice is printed;\n"
        "`--image-topic` (`camera.topic`) overrides it.",
        _table(
            ("bag with", "taken"),
            [(r.name, f"`{r.chosen}`" if r.chosen else "refused: no picture") for r in TOPICS],
        ),
        "## Live topics\n\n`camera.transport` is `auto`, `raw` or `compressed`: auto takes raw images where they are published,\n"
        "else `.../compressed`. After 5 s without an image the console names the topic, its\n"
        "publishers, and the other image topics. CameraInfo is read as above.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
