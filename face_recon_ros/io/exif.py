"""The focal length that a camera noted in a photograph: EXIF (CIPA DC-008) of a JPEG file."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path

#: Tags: where the camera's own notes are, the focal length on 35 mm film, the picture's size.
_NOTES, _FOCAL_35_MM, _WIDTH, _HEIGHT = 0x8769, 0xA405, 0xA002, 0xA003
_SHORT, _LONG = 3, 4
_FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
_HEAD = 1 << 18  # bytes of a file in which its notes are
_SAME_SHAPE = 0.01
#: Of lenses, from fisheyes to telescopes; cameras that do not know theirs note 0.
_LENSES_MM = (5, 3000)


def focal_length_px(path: str | Path, width: int, height: int) -> float | None:
    """The focal length of a picture, if its camera noted it and the picture is whole.

    Args:
        path: of the file.
        width: of the picture as it is shown, pixels.
        height: likewise.

    Returns:
        Pixels. None where it is not noted, or the picture has other proportions than its camera
        noted: it was cut out.
    """
    with contextlib.suppress(OSError, struct.error), Path(path).open("rb") as file:
        noted = dict(_camera_notes(file.read(_HEAD)))
        focal_mm = noted.get(_FOCAL_35_MM, 0)
        sides = sorted((noted.get(_WIDTH, 0), noted.get(_HEIGHT, 0)))
        shown = sorted((width, height))
        low, high = _LENSES_MM
        if low <= focal_mm <= high and sides[0] > 0:
            proportion = shown[0] * sides[1] / (shown[1] * sides[0])
            if abs(proportion - 1.0) < _SAME_SHAPE:
                return focal_mm / _FILM_DIAGONAL_MM * math.hypot(width, height)
    return None


def _camera_notes(data: bytes) -> Iterator[tuple[int, int]]:
    """Tags and whole numbers of a JPEG file's first bytes; nothing where there are none."""
    at = 2
    while data[:2] == b"\xff\xd8" and data[at : at + 1] == b"\xff":
        marker, length = struct.unpack_from(">BH", data, at + 1)
        if marker == 0xDA:  # the picture begins
            return
        segment = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            tiff = segment[6:]
            order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
            if order is None:
                return
            (first,) = struct.unpack_from(f"{order}I", tiff, 4)
            for tag, value in _entries(tiff, order, first):
                if tag == _NOTES:
                    yield from _entries(tiff, order, value)
            return
        at += 2 + length


def _entries(tiff: bytes, order: str, at: int) -> Iterator[tuple[int, int]]:
    """Tags and values of one directory, those of a single whole number."""
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    for i in range(count):
        entry = at + 2 + 12 * i
        tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, entry)
        if values == 1 and kind in (_SHORT, _LONG):
            size = "H" if kind == _SHORT else "I"
            yield tag, struct.unpack_from(f"{order}{size}", tiff, entry + 8)[0]
