"""Laws of image sources: what is in comes out, in order, with honest stamps."""

import contextlib
import gc
import http.server
import io
import json
import shutil
import threading
from pathlib import Path
from typing import ClassVar

import av
import cv2
import numpy as np
import pytest

from face_recon_ros.core.errors import CameraError, ConfigError, SourceError
from face_recon_ros.core.models import sha256_of
from face_recon_ros.core.types import Image
from face_recon_ros.io import sources
from face_recon_ros.io.calibration import calibration_for, read_calibration_file
from face_recon_ros.io.images import read_image
from face_recon_ros.io.portrait import MovingPortrait
from face_recon_ros.io.sources import SourceConfig, open_source, paced
from face_recon_ros.io.video import VideoFrame, VideoReader

N, FPS = 12, 25.0
OST = """image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [530.5, 0.0, 322.25, 0.0, 531.5, 239.5, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.05, -0.1, 0.001, 0.002, 0.0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [530.5, 0, 322.25, 0, 0, 531.5, 239.5, 0, 0, 0, 1, 0]
"""


def picture(k):
    """A plain colour that tells its index even after lossy coding."""
    return np.full((48, 64, 3), (20 * k, 100, 250 - 20 * k), np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (64, 48))
    for k in range(N):
        writer.write(picture(k)[..., ::-1])
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), picture(k)[..., ::-1])
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def first(source, n):
    images = []
    for image in source:
        images.append(image)
        if len(images) == n:
            break
    return images


def test_a_video_gives_its_frames_with_its_own_times(video):
    source = open_source(SourceConfig(str(video)))
    images = list(source)
    assert (source.length, source.fps, source.live) == (N, FPS, False)
    np.testing.assert_allclose([i.stamp for i in images], np.arange(N) / FPS, atol=1e-3)
    for k, image in enumerate(images):
        assert np.abs(image.rgb.mean(axis=(0, 1)) - picture(k)[0, 0]).max() < 6
    assert len(list(source)) == N  # it can be read again
    source.close()
    source.close()


def test_a_looped_video_goes_on_without_a_jump(video):
    images = first(open_source(SourceConfig(str(video), loop=True)), 3 * N)
    np.testing.assert_allclose(np.diff([i.stamp for i in images]), 1 / FPS, atol=1e-3)
    np.testing.assert_array_equal(images[1].rgb, images[1 + 2 * N].rgb)


def test_a_rate_given_overrides_the_files(video):
    images = list(open_source(SourceConfig(str(video), fps=10.0)))
    np.testing.assert_allclose([i.stamp for i in images], np.arange(N) / 10)


def test_a_folder_gives_its_pictures_by_name(folder):
    source = open_source(SourceConfig(str(folder), fps=10.0, frame="lens"))
    images = list(source)
    assert source.length == 3
    for k, image in enumerate(images):
        np.testing.assert_array_equal(image.rgb, picture(k))
        assert (image.stamp, image.frame) == (pytest.approx(k / 10), "lens")


def test_one_picture_looped_is_a_still_camera(folder):
    images = first(open_source(SourceConfig(str(folder / "2.png"), loop=True)), 5)
    assert len(images) == 5 and (np.diff([i.stamp for i in images]) > 0).all()


def test_a_grey_picture_is_read_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "g.png"), np.arange(64, dtype=np.uint8).reshape(8, 8))
    assert (read_image(tmp_path / "g.png") == np.arange(64).reshape(8, 8, 1)).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda d: d / "missing.mp4",
        lambda d: d / "empty",
        lambda d: d / "text.mp4",
        lambda d: d / "broken.png",
        lambda d: "/dev/video99",
        lambda d: "97",
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, make):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(SourceError) as fault:
        list(open_source(SourceConfig(str(make(tmp_path)))))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("wrong", [{"width": -1}, {"fps": -1.0}, {"fps": 1e6}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        SourceConfig(**wrong)


class FakeTime:
    """A clock that only sleeping and working move."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def played(work_s, n=30, fps=10.0):
    time = FakeTime()
    images = (Image(np.zeros((1, 1, 3), np.uint8), k / fps) for k in range(n))
    stamps = []
    for k, image in enumerate(paced(images, fps, time.clock, time.sleep)):
        assert image.stamp == time.now  # stamped when it comes out
        stamps.append(image.stamp)
        time.now += work_s(k)
    return np.array(stamps), time


def test_a_fast_reader_gets_the_files_own_rate():
    stamps, _ = played(lambda k: 0.03)
    np.testing.assert_allclose(np.diff(stamps), 0.1, atol=1e-9)


def test_one_late_frame_does_not_shift_the_rest_unless_it_is_very_late():
    stamps, _ = played(lambda k: 0.15 if k == 5 else 0.01)
    assert stamps[-1] - stamps[0] == pytest.approx(2.9)
    stamps, _ = played(lambda k: 1.0 if k == 5 else 0.01)
    np.testing.assert_allclose(np.diff(stamps)[7:], 0.1, atol=1e-9)


def test_a_slow_reader_is_never_hurried():
    stamps, time = played(lambda k: 0.5)
    assert not time.slept
    np.testing.assert_allclose(np.diff(stamps), 0.5)


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_that_jumps_holds_nothing_up(jump_s):
    stamps, time = played(lambda k: jump_s if k == 5 else 0.03)
    np.testing.assert_allclose(np.delete(np.diff(stamps), [5, 6]), 0.1, atol=1e-9)
    assert sum(time.slept) < 3.0


class Unplugged:
    """cv2.VideoCapture of a camera that is away after its 3rd image, for two tries to open it."""

    opened = 0

    def __init__(self, *args):
        Unplugged.opened += 1
        self.there, self.left = Unplugged.opened not in (2, 3), 3

    def isOpened(self):  # noqa: N802
        return self.there

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, np.zeros((4, 4, 3), np.uint8)

    def get(self, key):
        return 30.0

    def set(self, key, value):
        return True

    def release(self):
        self.there = False


class UnpluggedStream(Unplugged):
    """VideoReader of the same camera on a network."""

    fps, warnings = 30.0, ()

    def __init__(self, *args, **options):
        super().__init__()
        if not self.there:
            raise SourceError("a stream at rtsp://camera/1", "none", "is it still connected?")

    def __iter__(self):
        while self.grab():
            yield VideoFrame(self.retrieve()[1], None)

    def close(self):
        self.release()


@pytest.mark.parametrize("name", ["0", "rtsp://camera/1"])
def test_a_live_source_comes_back_where_it_may(name, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Unplugged)
    monkeypatch.setattr(sources, "VideoReader", UnpluggedStream)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    faults = []

    def retry(fault):
        faults.append(fault)
        return len(faults) < 5

    Unplugged.opened = 0
    clock = iter(range(100)).__next__
    source = open_source(SourceConfig(name), clock, retry)
    images = first(source, 5)
    assert len(faults) == 3 and all(name in str(f) or "/dev/video0" in str(f) for f in faults)
    assert [i.stamp for i in images] == [
        0,
        1,
        2,
        4,
        5,
    ] or name != "0"  # its clock goes on meanwhile
    assert source.live and source.length is None
    with pytest.raises(SourceError, match="still connected"):
        list(source)
    Unplugged.opened = 0
    with pytest.raises(SourceError):  # by default it is not looked for again
        list(open_source(SourceConfig(name)))
    assert Unplugged.opened == 1


class _WebServer(http.server.BaseHTTPRequestHandler):
    """Serves `files`, name -> content, also parts of them."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self):
        content = self.files[self.path[1:]]
        first = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") :].split("-")[0])
        if self.path == "/whole":  # a server that sends no parts
            first = 0
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if self.path == "/camera":  # as cheap ones do, which state a length as well
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=ffmpeg")
        self.end_headers()
        with contextlib.suppress(OSError):  # the reader has gone away
            self.wfile.write(content[first:])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    """The address of a web server, which serves what is put into `_WebServer.files`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _WebServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _encoded(codec, kind, options, picture=picture):
    """A video of 40 pictures in memory; many containers say neither length nor duration."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=options) as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width = picture(0).shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for k in range(40):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(k % 12), format="rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("codec", "kind", "options"),
    [
        ("libx264", "mp4", {}),
        ("libx264", "mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("libx264", "matroska", {"live": "1"}),
        ("libx264", "mpegts", {}),
        ("mjpeg", "avi", {}),
    ],
)
def test_a_file_on_a_web_server_is_read_as_the_file(codec, kind, options, web, tmp_path):
    content = _WebServer.files["talk"] = _encoded(codec, kind, options)
    (tmp_path / "talk").write_bytes(content)
    there, here = (
        open_source(SourceConfig(name)) for name in (f"{web}/talk", str(tmp_path / "talk"))
    )
    assert (there.live, there.fps, there.length) == (False, here.fps, here.length)
    images, expected = list(there), list(here)
    assert len(images) == 40 and there.warnings == []
    for image, other in zip(images, expected, strict=True):
        assert image.stamp == other.stamp
        np.testing.assert_array_equal(image.rgb, other.rgb)
    np.testing.assert_allclose([i.stamp for i in images], np.arange(40) / FPS, atol=1e-3)
    there.close()


def test_a_file_whose_index_is_at_its_end_is_fetched_from_a_server_that_sends_no_parts(web):
    random = np.random.default_rng(0)
    content = _WebServer.files["whole"] = _encoded(
        "mjpeg", "mp4", {}, lambda k: random.integers(0, 255, (96, 128, 3), np.uint8)
    )
    assert len(content) > 100_000 and content.rfind(b"moov") > content.rfind(b"mdat")
    source = open_source(SourceConfig(f"{web}/whole"))
    stamps = [image.stamp for image in source]
    np.testing.assert_allclose(stamps, np.arange(40) / FPS, atol=1e-3)
    assert len(list(source)) == 40 and not source.live and source.warnings == []
    source.close()


def test_a_camera_on_a_web_server_is_live_whatever_length_it_states(web):
    _WebServer.files["camera"] = _encoded("mjpeg", "mpjpeg", {})
    source = open_source(SourceConfig(f"{web}/camera"), iter(range(1000)).__next__)
    assert source.live and source.length is None
    assert [image.stamp for image in first(source, 30)] == list(range(30))
    source.close()


def test_a_calibration_is_read_as_camera_calibration_writes_it(tmp_path):
    (tmp_path / "ost.yaml").write_text(OST)
    camera, _ = read_calibration_file(tmp_path / "ost.yaml")
    assert (camera.width, camera.height, camera.calibrated) == (640, 480, True)
    np.testing.assert_array_equal(camera.matrix[:2, 2], [322.25, 239.5])
    np.testing.assert_array_equal(camera.distortion, [0.05, -0.1, 0.001, 0.002, 0.0])
    half = calibration_for(camera, 320, 240)
    assert half.focal_px == pytest.approx(camera.focal_px / 2)
    assert calibration_for(camera, 640, 480) is camera
    with pytest.raises(CameraError, match="aspect"):
        calibration_for(camera, 1280, 720)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "image_width: 640",
        OST.replace("530.5", "oops"),
        OST.replace("480", "0"),
        OST.replace("640", ".inf"),
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path, text):
    path = Path(tmp_path / "ost.yaml")
    path.write_text(text)
    with pytest.raises(CameraError):
        read_calibration_file(path)


def test_a_missing_calibration_is_refused(tmp_path):
    with pytest.raises(CameraError, match="No such file"):
        read_calibration_file(tmp_path / "none.yaml")


def test_the_pattern_turns_and_repeats(monkeypatch, face_model_path, tmp_path):
    shutil.copy(face_model_path, tmp_path / "face_model.npz")
    entry = {
        "name": "face_model.npz",
        "sha256": sha256_of(tmp_path / "face_model.npz"),
        "licence": "CC0-1.0",
        "origin": "a test",
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [entry]}))
    monkeypatch.setenv("FACE_RECON_MODELS", str(tmp_path))
    config = SourceConfig("pattern", width=80, height=60, fps=2.0)
    once = list(open_source(config))
    assert len(once) == open_source(config).length
    assert once[0].rgb.shape == (60, 80, 3)
    assert (once[0].rgb != once[2].rgb).any()
    looped = first(open_source(SourceConfig("pattern", True, 80, 60, 2.0)), len(once) + 2)
    np.testing.assert_array_equal(looped[len(once) + 1].rgb, once[1].rgb)
    assert (np.diff([i.stamp for i in looped]) > 0).all()


def test_the_portrait_is_a_person_that_moves_and_comes_closer():
    source = open_source(SourceConfig("portrait", fps=1.0))
    images = list(source)
    assert len(images) == source.length == 10
    assert images[0].rgb.shape == (720, 1280, 3)
    assert [image.stamp for image in images] == pytest.approx(list(range(10)))
    differences = [np.abs(a.rgb.astype(int) - images[0].rgb).mean() for a in images[1:]]
    assert min(differences) > 2
    person = MovingPortrait(1280, 720)
    scale = [np.linalg.norm(person.image_from_photograph(t)[:, 0]) for t in (0.0, 5.0, 10.0)]
    assert scale[1] == pytest.approx(2 * scale[0])
    assert scale[2] == pytest.approx(scale[0])
    small = next(iter(open_source(SourceConfig("portrait", width=320, height=180))))
    assert small.rgb.shape == (180, 320, 3)


def test_images_of_a_video_are_freed_without_the_garbage_collector(video):
    """A decoded frame in a reference cycle lives until the collector runs: memory grew by that."""
    gc.collect()
    gc.disable()
    try:
        with contextlib.closing(VideoReader(str(video))) as reader:
            left = 0
            for _ in reader:
                left = sum(isinstance(o, av.VideoFrame) for o in gc.get_objects())
    finally:
        gc.enable()
    assert left <= 4  # of 12: what the decoder holds
