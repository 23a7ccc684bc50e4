"""Picture files and compressed images: recognised by content, upright, 8-bit RGB."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ConfigError, ImageError, SourceError
from face_recon_ros.core.models import user_path
from face_recon_ros.io.folders import written
from face_recon_ros.io.intensity import IntensityScale

#: Formats that are read, by content.
PICTURES = (
    "JPEG", "PNG", "BMP", "TIFF", "WebP", "GIF", "PNM", "JPEG 2000", "Sun raster", "AVIF", "HEIC",
)  # fmt: skip
#: Formats that are known and refused -> what helps.
REFUSED = {
    "camera raw": "develop it to JPEG first (its file holds only a small preview besides)",
    "high dynamic range": "convert it to PNG first",
    "Photoshop": "export it as PNG first",
    "PDF": "export the picture in it first",
    "SVG": "render it to PNG first",
    "JPEG XL": "convert it to JPEG or PNG first",
}

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_AVIF_BRANDS = {b"avif", b"avis"}
_BY_PILLOW = ("AVIF", "HEIC")
_MISSING_GREY = 128  # what libjpeg shows where there is no data


class _TooLargeError(ImageError):
    """A picture of more pixels than fit into memory; nothing reads a part of it."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        rgb: (H, W, 3) uint8, upright.
        format: of `PICTURES`.
        warning: what was wrong with it, in a few words; empty when all was well.
        scaled: what of its deep pixels is shown as black and white; empty where it has 8 bits.
    """

    rgb: NDArray[np.uint8]
    format: str
    warning: str = ""
    scaled: str = ""


def picture_format(head: bytes) -> str:
    """What picture a file is by its first bytes: of `PICTURES` or `REFUSED`, else empty."""
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "camera raw" if _is_raw_tiff(head) else "TIFF"
    if head[:2] == b"BM" and len(head) > 18 and struct.unpack_from("<I", head, 14)[0] in (
        12, 40, 52, 56, 64, 108, 124,
    ):  # fmt: skip
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3] in (b" ", b"\n", b"\r", b"\t"):
        return "PNM"
    if head[4:12] == b"jP  \r\n\x87\n" or head[:4] == b"\xff\x4f\xff\x51":
        return "JPEG 2000"
    if head[:4] == b"\x59\xa6\x6a\x95":
        return "Sun raster"
    if head[4:8] == b"ftyp":
        return _iso_format(head)
    if head[:4] in (b"IIU\0", b"IIRO", b"IIRS", b"MMOR") or head[:15] == b"FUJIFILMCCD-RAW":
        return "camera raw"
    if head[:2] in (b"#?", b"PF", b"Pf") or head[:4] == b"\x76\x2f\x31\x01":
        return "high dynamic range"
    if head[:2] == b"\xff\x0a" or head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        return "JPEG XL"
    if head[:4] == b"8BPS":
        return "Photoshop"
    if head[:5] == b"%PDF-":
        return "PDF"
    return "SVG" if b"<svg" in head[:256].lower() else ""


def _iso_format(head: bytes) -> str:
    """Of an ISO base media file (HEIF, AVIF; MP4 is no picture)."""
    end = min(struct.unpack_from(">I", head)[0], len(head))
    brands = {head[i : i + 4] for i in (8, *range(16, end - 3, 4))}
    if b"crx " in brands:
        return "camera raw"
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS or head[8:12] in (b"mif1", b"msf1") else ""


def _is_raw_tiff(head: bytes) -> bool:
    """Whether a TIFF's first picture is only the preview of a raw photograph (DNG, CR2, NEF)."""
    if head[8:10] == b"CR":
        return True
    if len(head) < 8:
        return False
    order = "<" if head[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", head, 4)
    if start + 2 > len(head):
        return False
    (count,) = struct.unpack_from(f"{order}H", head, start)
    for k in range(count):
        at = start + 2 + 12 * k
        if at + 12 > len(head):
            break
        tag, kind, _, value = struct.unpack_from(f"{order}HHII", head, at)
        if kind == 3 and order == ">":
            value >>= 16
        if tag == 50706 or (tag == 254 and value & 1):  # DNGVersion; a reduced-resolution image
            return True
    return False


def decode_picture(
    data: bytes | NDArray[np.uint8],
    scale: IntensityScale | None = None,
    *,
    upright: bool = True,
) -> Picture:
    """A picture of its bytes.

    Args:
        data: the whole file.
        scale: of the stream the picture belongs to, for more than 8 bits; None for one alone.
        upright: whether the orientation that the camera noted (EXIF) is applied.

    Raises:
        ImageError: it is no picture, one of a refused format, or damaged beyond use.
        ConfigError: the package that reads it is not installed.
    """
    raw = bytes(memoryview(data)) if not isinstance(data, bytes) else data
    kind = picture_format(raw[:65536])
    if kind in REFUSED:
        raise ImageError(f"a picture ({', '.join(PICTURES)})", f"{kind}", REFUSED[kind])
    warning = ""
    if kind in _BY_PILLOW:
        pixels: NDArray[np.generic] | None = _by_pillow(raw, kind, upright)
    else:
        pixels = _by_opencv(raw, upright) if raw else None
        if pixels is None or (kind == "JPEG" and not _has_end_marker(raw)):
            pixels, warning = _rescued(raw, kind, upright)
    if not warning and _moves(raw, kind):
        warning = "moves: only its first image is read (a GIF or a video by itself is read whole)"
    if pixels is None:
        raise ImageError(
            f"a picture ({', '.join(PICTURES)})",
            f"{kind or 'something else'}, {len(raw)} bytes that cannot be decoded"
            if raw
            else "an empty file",
            "convert it to JPEG or PNG" if raw and not kind else "replace the file: it is damaged",
        )
    if pixels.dtype == np.uint8:
        return Picture(np.asarray(pixels, np.uint8), kind, warning)
    if pixels.dtype != np.uint16:
        raise ImageError(
            "a picture of 8 or 16 bits a channel", f"{pixels.dtype}", "convert it to PNG first"
        )
    scale = scale or IntensityScale()
    return Picture(scale(pixels), kind, warning, scale.description)


def read_picture(
    path: str | Path, scale: IntensityScale | None = None, *, upright: bool = True
) -> Picture:
    """A picture file; see `decode_picture`.

    Raises:
        SourceError: it is missing or cannot be read as a picture.
    """
    path = user_path(path)
    try:
        data = path.read_bytes()
    except OSError as fault:
        what = "a folder" if path.is_dir() else str(fault.strerror).lower()
        raise SourceError(f"a picture at {path}", what, "check the path") from None
    try:
        return decode_picture(data, scale, upright=upright)
    except ImageError as fault:
        raise SourceError(f"{fault.expected} at {path}", fault.got, fault.remedy) from None


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a picture file, upright.

    Raises:
        SourceError: it is missing or cannot be read as a picture.
    """
    return read_picture(path).rgb


def is_animated(gif: str | Path | BinaryIO) -> bool:
    """Whether a GIF has several images."""
    from PIL import Image

    try:
        with Image.open(gif) as picture:
            return bool(getattr(picture, "is_animated", False))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _moves(raw: bytes, kind: str) -> bool:
    """Whether a GIF, WebP or PNG file has images after its first."""
    if kind == "GIF":
        return is_animated(io.BytesIO(raw))
    if kind == "WebP":
        return raw[12:16] == b"VP8X" and bool(raw[20] & 2)
    return kind == "PNG" and raw.find(b"acTL", 0, raw.find(b"IDAT")) >= 0


def _by_opencv(raw: bytes, upright: bool) -> NDArray[np.generic] | None:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    flags |= 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
    except cv2.error:  # sides beyond its limits
        return None
    if bgr is None or bgr.size == 0:
        return None
    code = cv2.COLOR_GRAY2RGB if bgr.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(bgr, code))


def _has_end_marker(jpeg: bytes) -> bool:
    return jpeg.rfind(b"\xff\xd9", -4096) >= 0


def _rescued(raw: bytes, kind: str, upright: bool) -> tuple[NDArray[np.generic] | None, str]:
    """The part of a file that ends early, and the warning."""
    if kind == "JPEG":
        pixels = _by_opencv(raw + b"\xff\xd9", upright)
        if pixels is None:
            return None, ""
        corners = [pixels[-8:, -8:], pixels[-8:, :8], pixels[:8, -8:], pixels[:8, :8]]
        missing = any((corner == _MISSING_GREY).all() for corner in corners)
        progressive = b"\xff\xc2" in raw[:4096]
        if missing or progressive:
            return pixels, "the JPEG ends early: decoded as far as it goes"
        return pixels, ""  # only its end marker is missing, as cheap cameras' do
    if not kind:
        return None, ""
    for truncated in (False, True):
        try:
            pixels = _by_pillow(raw, kind, upright, truncated=truncated)
        except _TooLargeError:
            raise
        except ImageError:
            continue
        early = f"the {kind} file ends early: decoded as far as it goes"
        return pixels, early if truncated else ""
    return None, ""


def _by_pillow(
    raw: bytes, kind: str, upright: bool, *, truncated: bool = False
) -> NDArray[np.generic]:
    from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

    if kind == "HEIC":
        try:
            import pillow_heif
        except ImportError:
            raise ConfigError(
                f"the package pillow-heif, which reads {kind} photographs",
                "none",
                "pip install 'face_recon_ros[heif]', or convert them to JPEG",
            ) from None
        pillow_heif.register_heif_opener()
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = truncated or before
    try:
        with Image.open(io.BytesIO(raw)) as picture:
            turned = ImageOps.exif_transpose(picture) if upright else picture
            if turned.mode == "F":
                return np.asarray(turned)
            if turned.mode.startswith("I;16") or turned.mode == "I":
                return np.repeat(np.asarray(turned).astype(np.uint16)[..., None], 3, axis=2)
            return np.asarray(turned.convert("RGB"))
    except (Image.DecompressionBombError, MemoryError):
        raise _TooLargeError(
            f"a {kind} picture that fits into memory", "one with too many pixels", "scale it down"
        ) from None
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, EOFError) as fault:
        what = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise ImageError(f"a {kind} picture", what, "replace the file: it is damaged") from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def png_bytes(rgb: NDArray[np.uint8]) -> bytes:
    """An (H, W, 3) RGB or (H, W) grey picture as PNG."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb
    ok, data = cv2.imencode(".png", bgr)
    if not ok:
        raise ImageError("a picture that PNG can hold", f"{rgb.shape} {rgb.dtype}", "report this")
    return bytes(data.tobytes())


def write_image(path: Path, rgb: NDArray[np.uint8], remedy: str = "choose another folder") -> None:
    """Writes an (H, W, 3) RGB picture in the format of its suffix.

    Args:
        path: of the file.
        rgb: the picture.
        remedy: what to do where it cannot be written.

    Raises:
        DataError: there is no right or no room to write there.
    """
    _, content = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    with written(path, remedy):
        path.write_bytes(content.tobytes())
