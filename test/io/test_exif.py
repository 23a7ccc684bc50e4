"""Focal lengths that cameras note in photographs: read, doubted, and never a reason to fail."""

import math
import struct

import cv2
import numpy as np
import pytest

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.exif import focal_length_px

W, H = 400, 300
JPEG = cv2.imencode(".jpg", np.full((H, W, 3), 90, np.uint8))[1].tobytes()
FOCAL_PX = 26 / math.hypot(36, 24) * math.hypot(W, H)


def notes(order="<", focal=26, width=4000, height=3000, **more):
    """A JPEG segment of EXIF: a directory that leads to the camera's notes."""
    tags = {0xA405: (3, focal), 0xA002: (4, width), 0xA003: (4, height), **more}

    def directory(entries):
        out = struct.pack(f"{order}H", len(entries))
        for tag, (kind, value) in entries.items():
            packed = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value).ljust(4, b"\0")
            out += struct.pack(f"{order}HHI", tag, kind, 1) + packed
        return out + struct.pack(f"{order}I", 0)

    first = directory({0x0112: (3, 1), 0x8769: (4, 8 + 2 + 24 + 4)})
    magic = b"II*\0" if order == "<" else b"MM\0*"
    tiff = magic + struct.pack(f"{order}I", 8) + first + directory(tags)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body


def written(path, segment):
    path.write_bytes(JPEG[:2] + segment + JPEG[2:])
    return path


@pytest.mark.parametrize("order", "<>")
def test_a_focal_length_is_read_in_pixels_of_the_picture(tmp_path, order):
    path = written(tmp_path / "a.jpg", notes(order))
    assert focal_length_px(path, W, H) == pytest.approx(FOCAL_PX)
    assert focal_length_px(path, H, W) == pytest.approx(FOCAL_PX)  # turned upright
    assert focal_length_px(path, 2 * W, 2 * H) == pytest.approx(2 * FOCAL_PX)  # resized


@pytest.mark.parametrize("size", [(300, 300), (400, 250), (399, 290)])
def test_a_picture_that_was_cut_out_says_nothing(tmp_path, size):
    assert focal_length_px(written(tmp_path / "a.jpg", notes()), *size) is None


@pytest.mark.parametrize("missing", [{"focal": 0}, {"focal": 65535}, {"width": 0}, {"height": 0}])
def test_what_a_camera_does_not_know_is_not_known(tmp_path, missing):
    assert focal_length_px(written(tmp_path / "a.jpg", notes(**missing)), W, H) is None


def test_without_notes_or_file_nothing_is_known(tmp_path):
    path = tmp_path / "a.jpg"
    assert focal_length_px(path, W, H) is None
    for data in (b"", b"\xff\xd8", JPEG, b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(100)):
        path.write_bytes(data)
        assert focal_length_px(path, W, H) is None


def test_damaged_notes_are_no_fault(tmp_path):
    whole = JPEG[:2] + notes(">") + JPEG[2:]
    random, path = np.random.default_rng(0), tmp_path / "a.jpg"
    for end in range(0, 160, 3):
        path.write_bytes(whole[:end])
        assert focal_length_px(path, W, H) in (None, pytest.approx(FOCAL_PX))
    for _ in range(300):
        data = bytearray(whole)
        for at in random.integers(2, 130, 4):
            data[at] = random.integers(256)
        path.write_bytes(data)
        found = focal_length_px(path, W, H)
        assert found is None or found > 0


def test_the_resolver_believes_it_where_nothing_else_is_known(tmp_path):
    path = written(tmp_path / "a.jpg", notes())
    unknown = CameraResolver(whole=False)
    camera = unknown.of_picture(path, W, H)
    assert camera.focal_px == pytest.approx(FOCAL_PX)
    assert camera.shows_perspective and not camera.calibrated
    assert unknown.source == "EXIF"
    cut = unknown.of_picture(path, W, W)
    assert not cut.shows_perspective
    assert unknown.source.startswith("EXIF; without it, field of view assumed")
    stated = CameraResolver(fov_deg=30.0, whole=True).of_picture(path, W, H)
    assert stated.focal_px == pytest.approx(PinholeCamera.from_fov(W, H, 30.0).focal_px)
    known = PinholeCamera(W, H, np.diag([321.0, 321.0, 1.0]))
    assert CameraResolver(known, whole=False).of_picture(path, W, H).focal_px == 321.0
