"""Every row of `input_tables`: what is right is read, what is not is refused in one line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import cv2
import input_tables as t
import numpy as np
import pytest
from fuzz_inputs import run

from face_recon_ros.core.errors import FaceReconError, SourceError
from face_recon_ros.core.types import Image
from face_recon_ros.io.bag_files import SQLITE, check_whole, scan
from face_recon_ros.io.bag_topics import choose_image_topic
from face_recon_ros.io.bags import is_bag, open_bag
from face_recon_ros.io.calibration import CameraResolver
from face_recon_ros.io.encodings import ENCODINGS
from face_recon_ros.io.images import picture_format, read_picture
from face_recon_ros.io.intensity import IntensityScale
from face_recon_ros.io.messages import ImageStream
from face_recon_ros.io.picture_sources import FolderSource
from face_recon_ros.io.sources import SourceConfig, open_source, with_cameras

ROOT = Path(__file__).resolve().parents[2]


def difference(rgb: np.ndarray, expected: np.ndarray) -> float:
    """Mean absolute difference; a grey truth is compared with each channel."""
    if expected.ndim == 2:
        expected = np.dstack([expected] * 3)
    assert rgb.shape == expected.shape
    return float(np.abs(rgb.astype(int) - expected).mean())


def assert_shows(rgb: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """The picture, or with a tolerance below zero its light and shade."""
    if tolerance >= 0:
        assert difference(rgb, expected) <= tolerance
        return
    shades = expected if expected.ndim == 2 else expected.mean(axis=2)
    assert np.corrcoef(rgb.mean(axis=2).ravel(), shades.ravel())[0, 1] > 0.995
    assert rgb.std() > 20  # not black


def assert_refused(act, says: str) -> None:
    with pytest.raises(FaceReconError) as fault:
        act()
    text = str(fault.value)
    assert "\n" not in text and says in text, text
    assert fault.value.expected and fault.value.got and fault.value.remedy


@pytest.mark.parametrize("row", t.PICTURES, ids=lambda r: r.name)
def test_pictures(row, tmp_path):
    path = tmp_path / f"picture{row.suffix}"
    row.write(path)
    if row.result == t.REFUSED:
        assert_refused(lambda: list(open_source(SourceConfig(str(path)))), row.says)
        return
    truth = t.scene(*row.size) if row.tolerance >= 0 else t.grey()
    picture = read_picture(path)
    assert_shows(picture.rgb, truth, row.tolerance)
    (image,) = open_source(SourceConfig(str(path)))
    np.testing.assert_array_equal(image.rgb, picture.rgb)
    assert bool(picture.warning) == (row.result == t.WARNED)
    assert row.result == t.READ or row.says in picture.warning


def test_a_folder_names_and_counts_what_it_leaves_out(tmp_path):
    for k, row in enumerate(t.PICTURES):
        row.write(tmp_path / f"{k:02}{row.suffix}")
    (tmp_path / "notes.txt").write_text("no picture, and not named")
    source = open_source(SourceConfig(str(tmp_path)))
    images = list(source)
    assert len(images) == sum(row.result != t.REFUSED for row in t.PICTURES)
    left_out = {path.name for path in source.skipped}
    assert left_out == {
        f"{k:02}{row.suffix}" for k, row in enumerate(t.PICTURES) if row.result == t.REFUSED
    }
    assert any("ends early" in warning for warning in source.warnings)
    assert sum(warning.startswith("left out: ") for warning in source.warnings) == len(left_out)


def test_deep_pixels_are_told_of_the_pictures_that_have_them_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(9):
        pixels = rng.integers(0, 65536, (8, 8), np.uint16)
        cv2.imwrite(
            str(tmp_path / f"{k}.png"), pixels if k < 7 else (pixels >> 8).astype(np.uint8)
        )
    source = FolderSource(SourceConfig(str(tmp_path)))
    for _ in range(2):
        assert len(list(source.readable())) == 9
        assert source.warnings == [
            "0.png, 1.png, 2.png, 3.png, 4.png and 2 more: deep pixels scaled to 8 bits: 16 bits"
        ]


def test_what_is_no_bag_is_told_how_it_becomes_one(tmp_path):
    (tmp_path / "talk.mp4").write_bytes(b"a video")
    assert_refused(lambda: open_bag(tmp_path / "talk.mp4"), "face-recon record")


def test_folders_below_a_folder_without_pictures_are_named(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(SourceError, match=f"got none; .* give {tmp_path / 'holiday'}$"):
        open_source(SourceConfig(str(tmp_path)))


def test_a_gif_that_moves_is_told_where_only_its_first_image_is_read(tmp_path):
    (row,) = (row for row in t.VIDEOS if row.name == "animated GIF")
    row.write(tmp_path / "moves.gif")
    source = open_source(SourceConfig(str(tmp_path)))
    assert len(list(source)) == 1
    assert "only its first image" in source.warnings[0]


@pytest.mark.parametrize("row", t.VIDEOS, ids=lambda r: r.name)
def test_videos(row, tmp_path):
    path = tmp_path / f"video{row.suffix}"
    row.write(path)
    if row.result == t.REFUSED:
        assert_refused(lambda: list(open_source(SourceConfig(str(path)))), row.says)
        return
    source = open_source(SourceConfig(str(path)))
    images = list(source)
    stamps = [image.stamp for image in images]
    np.testing.assert_allclose(stamps, row.times_s, atol=1e-3)
    assert [w for w in source.warnings if row.says in w] or row.result == t.READ
    assert not source.warnings or row.result == t.WARNED
    for k in (0, len(images) - 1):
        rgb = images[k].rgb
        height = rgb.shape[0] if rgb.shape[0] in (t.H, t.W, 576) else 0
        assert height, rgb.shape
        size = (720, 576) if height == 576 else (t.W, t.H)
        truth = row.turn(t.moving(k, *size)).astype(np.uint8)
        if row.aspect != 1.0:
            assert rgb.shape[1] == pytest.approx(size[0] * row.aspect, abs=1)
            rgb = rgb[:, np.linspace(0, rgb.shape[1] - 1, truth.shape[1]).round().astype(int)]
        assert difference(rgb, truth) <= row.tolerance


@pytest.mark.parametrize("times_s", [t.STEADY, t.SLOW, t.PAUSES])
def test_what_is_recorded_keeps_its_times(times_s, tmp_path):
    from face_recon_ros.cli.main import main

    video = t.write_video(tmp_path / "v.mp4", times_s=times_s, ticks=1000)
    assert main(["record", str(video), "--out", str(tmp_path / "bag")]) == 0
    stamps = np.array([image.stamp for image in open_source(SourceConfig(str(tmp_path / "bag")))])
    np.testing.assert_allclose(stamps - stamps[0], times_s, atol=1e-3)


@pytest.mark.parametrize("row", t.ENCODING_ROWS, ids=lambda r: f"{r.name}, {r.note}")
def test_encodings(row, tmp_path):
    msg = t.image_message(row.pixels(), row.name, size=row.size, big_endian=row.big_endian)
    path = t.write_bag(tmp_path / "bag", [("/cam/image_raw", t.START_NS, msg)])
    if row.result == t.REFUSED:
        assert_refused(lambda: ImageStream().read(msg), row.says)
        assert_refused(lambda: list(open_source(SourceConfig(str(path)))), "")
        return
    expected = t.grey() if row.is_grey else t.scene()
    rgb = ImageStream().read(msg).rgb
    if "bayer" in row.name:
        rgb, expected = rgb[2:-2, 2:-2], expected[2:-2, 2:-2]
        clear = np.ones(expected.shape[:2], bool)  # a mosaic is unsure at edges: leave them out
        clear[: t.H // 4 + 2, : t.W // 4 + 2] = False
        assert np.abs(rgb.astype(int) - expected)[clear].mean() <= row.tolerance
    else:
        assert_shows(rgb, expected, row.tolerance)
    (image,) = open_source(SourceConfig(str(path)))
    np.testing.assert_array_equal(image.rgb, ImageStream().read(msg).rgb)


def test_every_encoding_has_its_row():
    tried = {row.name for row in t.ENCODING_ROWS}
    missing = {name for name in ENCODINGS if name not in tried}
    assert all(name.startswith("bayer_") and name[-2:] in ("10", "12", "14") for name in missing)


@pytest.mark.parametrize("row", t.COMPRESSED_ROWS, ids=lambda r: r.name)
def test_compressed_images(row):
    msg = t.compressed_message(row.data(), row.text)
    stream = ImageStream()
    if row.result == t.REFUSED:
        assert_refused(lambda: stream.read(msg), row.says)
        return
    rgb = stream.read(msg).rgb
    if row.tolerance < 255:
        truth = t.scene() if row.tolerance >= 0 else t.grey()
        assert_shows(rgb, truth, row.tolerance)
    assert bool(stream.warning) == (row.result == t.WARNED) and row.says in stream.warning


@pytest.mark.parametrize("row", t.INFO_ROWS, ids=lambda r: r.name)
def test_camera_info(row):
    """The same message says the same to a node, a bag and a command: there is one reader."""
    fields = {"k": t.K, **row.fields}
    resolver = CameraResolver(image_topic=row.topic)
    resolver.update(t.info_message(**fields))
    image = Image(t.scene(), 0.0)
    camera = resolver(image)
    assert (camera.width, camera.height) == (t.W, t.H)
    if row.k is None:
        assert not camera.calibrated
    else:
        m = camera.matrix
        assert camera.calibrated
        np.testing.assert_allclose([m[0, 0], m[1, 1], m[0, 2], m[1, 2]], row.k)
        np.testing.assert_array_equal(camera.distortion, row.d)
        assert not len(row.d) or camera.distortion_model == row.model
    said = "; ".join(resolver.warnings)
    assert bool(said) == bool(row.warning) and row.warning in said, said
    assert resolver.problems == list(resolver.warnings)
    for _ in range(3):  # it warns while it lasts
        resolver.update(t.info_message(**fields))
        resolver(image)
        assert "; ".join(resolver.warnings) == said


def test_a_warning_ends_with_what_it_is_about():
    resolver = CameraResolver()
    resolver.update(t.info_message(t.K, t.WIDE))
    resolver.camera(t.W, t.H)
    assert resolver.warnings
    resolver.update(t.info_message(t.K, t.BENT))
    resolver.camera(t.W, t.H)
    assert not resolver.warnings and resolver.problems
    for width, height, warned, noted in (
        (t.H, t.W, True, False),  # of another view
        (2 * t.W, 2 * t.H, False, True),  # of the same, larger
        (t.W, t.H, False, False),
    ):
        resolver.camera(width, height)
        assert (bool(resolver.warnings), bool(resolver.notes)) == (warned, noted)


@pytest.mark.parametrize("row", t.BAGS, ids=lambda r: r.name)
def test_bags(row, tmp_path):
    path = row.write(tmp_path)
    assert is_bag(path)
    if row.result == t.REFUSED:
        assert_refused(lambda: open_source(SourceConfig(str(path))), row.says)
        assert_refused(lambda: open_bag(path), row.says)
        return
    source = open_source(SourceConfig(str(path)))
    images = list(source)
    expected = len(images) if row.images < 0 else row.images
    assert len(images) == expected > 2
    stamps = np.array([image.stamp for image in images])
    truth = (t.START_NS + np.arange(expected) * t.PERIOD_NS) * 1e-9
    np.testing.assert_allclose(stamps, truth, atol=1e-3)
    np.testing.assert_array_equal(images[-1].rgb, t.scene())
    said = "; ".join(source.warnings)
    assert bool(said) == (row.result == t.WARNED) and row.says in said, said


@pytest.mark.parametrize("row", t.TOPICS, ids=lambda r: r.name)
def test_the_topic_that_shows_most_is_taken(row, tmp_path):
    path = t.write_bag(tmp_path / "bag", t.topic_messages(row))
    bag = open_bag(path)
    if not row.chosen:
        assert_refused(lambda: choose_image_topic(bag), "only")
        return
    assert choose_image_topic(bag) == row.chosen
    for topic in row.topics:
        if "image" in topic and "info" not in topic:
            assert choose_image_topic(bag, topic) == topic
    assert row.chosen in open_source(SourceConfig(str(path))).choice


@pytest.mark.parametrize("row", t.INFO_ROWS, ids=lambda r: r.name)
def test_camera_info_in_a_bag(row, tmp_path):
    """Distances are right in a bag too: the source tells the resolver in time."""
    messages = []
    place = row.topic.split("/")[1]
    for ns in t.stamps_ns(2):
        shown = (
            t.compressed_message(t.jpeg(), "jpeg", ns)
            if row.topic.endswith("compressed")
            else t.image_message(t.scene(), "rgb8", ns)
        )
        messages.append((row.topic, ns, shown))
        info = t.info_message(**{"k": t.K, **row.fields}, ns=ns)
        messages.append((f"/{place}/camera_info", ns, info))
    source = open_source(SourceConfig(str(t.write_bag(tmp_path / "bag", messages))))
    resolver = CameraResolver(image_topic=source.topic)
    for _, camera in with_cameras(source, resolver):
        assert camera.calibrated == (row.k is not None)
        if row.k is not None:
            assert camera.matrix[0, 0] == pytest.approx(row.k[0])
    assert bool(resolver.problems) == bool(row.warning)


def test_deep_pixels_do_not_flicker():
    """A bright spot, hot pixels and a passing shadow change nothing; the range is kept."""
    rng = np.random.default_rng(0)
    scale = IntensityScale()
    base = (t.grey(160, 120).astype(np.float64) * 4).astype(np.uint16)
    means = []
    for k in range(30):
        values = base.copy()
        values[rng.integers(0, 120, 30), rng.integers(0, 160, 30)] = 65535  # hot pixels
        if k == 10:
            values = values // 3
        means.append(scale(values).mean())
    steady = np.delete(np.array(means), 10)
    assert scale.description == "10 bits" and np.ptp(steady) < 1.0


def test_thermal_pixels_do_not_flicker():
    scale, means = IntensityScale(), []
    base = t.grey(160, 120).astype(np.float64)
    for k in range(60):
        drift = 28000 + 5 * np.sin(k)
        means.append(scale((base * 6 + drift).astype(np.uint16)).mean())
    assert np.ptp(means[1:]) < 6 and "stretched" in scale.description


def test_a_thermal_stream_that_begins_with_an_empty_image_is_seen_all_the_same():
    scale, base = IntensityScale(), t.grey(160, 120).astype(np.uint16)
    scale(np.zeros((120, 160), np.uint16))
    scale((base * 250).astype(np.uint16))
    for _ in range(8):
        rgb = scale(base * 6 + 28000)
    assert rgb.std() > 30


def test_nothing_is_wrong_without_a_word():
    """A few hundred of the 5,000 random inputs that `fuzz_inputs.py` tries."""
    counts, wrong = run(300)
    assert not wrong, wrong
    assert counts["right"] > 100 and counts["warned"] > 50 and counts["refused"] > 20


def test_the_page_is_what_is_tested():
    remedy = "python test/io/input_tables.py > docs/inputs.md"
    assert (ROOT / "docs" / "inputs.md").read_text() == t.page(), remedy


@pytest.mark.parametrize("share", np.linspace(0.15, 0.999, 40).round(3).tolist())
def test_a_database_cut_off_anywhere_gives_whole_messages_or_none(tmp_path, share):
    """What is read are the first messages, byte for byte; never one with a hole in it."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (60, 80, 3), np.uint8) for _ in range(5)]
    rows = [
        ("/image", t.START_NS + k * 10**8, t.image_message(p, "rgb8", t.START_NS + k * 10**8))
        for k, p in enumerate(pictures)
    ]
    path = t.write_bag(tmp_path / "bag", rows, "sqlite3")
    (file,) = path.glob("*.db3")
    whole = list(scan(file, SQLITE))
    assert len(whole) == len(pictures)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    got = []
    with pytest.raises((ValueError, sqlite3.Error)):
        for message in scan(file, SQLITE):
            got.append(message)
    assert [bytes(m.data) for m in got] == [bytes(m.data) for m in whole[: len(got)]]
    try:
        bag = open_bag(path)
    except FaceReconError:
        return  # too little is left
    read = [raw for raw, _ in bag.messages("/image")]
    assert [bytes(m.data) for m in read] == [bytes(m.data) for m in whole[: len(read)]]
    assert bag.problems


@pytest.mark.parametrize("missing", [1, 100, 4095, 4096, 9000])
def test_a_database_says_how_long_it_is(tmp_path, missing):
    """SQLite itself opens one that lacks a part of its last page, and takes that for zeros."""
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    rows = [("/image", t.START_NS, t.image_message(picture, "rgb8", t.START_NS))]
    (file,) = t.write_bag(tmp_path / "bag", rows, "sqlite3").glob("*.db3")
    check_whole(file, SQLITE)
    data = file.read_bytes()
    file.write_bytes(data[:-missing])
    with pytest.raises(ValueError, match="shorter"):
        check_whole(file, SQLITE)


@pytest.mark.parametrize(
    "magic",
    [b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"P5", b"RIFF", b"GIF89a", b"\0\0\0\x20ftyp"],
)
def test_no_beginning_of_a_file_is_too_short_to_be_asked(magic):
    random = np.random.default_rng(0)
    for n in range(40):
        for tail in (bytes(n), random.integers(0, 255, n, np.uint8).tobytes()):
            assert isinstance(picture_format((magic + tail)[: max(n, 1)]), str)


def test_a_spoilt_camera_info_does_not_undo_the_last_usable_one():
    resolver = CameraResolver()
    k = [300.0, 0, 32, 0, 300, 24, 0, 0, 1]
    size = {"width": 64, "height": 48}
    resolver.update(t.info_message(k=k, d=[0.0] * 5, model="plumb_bob", p=[0.0] * 12, **size))
    good = resolver.camera(64, 48)
    resolver.update(
        t.info_message(k=[np.nan] * 9, d=[0.0] * 5, model="plumb_bob", p=[0.0] * 12, **size)
    )
    assert resolver.camera(64, 48).matrix.tolist() == good.matrix.tolist()
    assert any("not used" in warning for warning in resolver.warnings)
    resolver.update(t.info_message(k=[0.0] * 9, d=[], model="", p=[0.0] * 12, **size))
    assert not resolver.camera(64, 48).calibrated  # it says itself that nothing is known


def test_a_long_video_starts_no_threads_and_keeps_no_memory(tmp_path):
    times = np.arange(90) / 30
    path = t.write_video(
        tmp_path / "v.mp4", "libx264", times, size=(64, 48), ticks=1000,
        options={"preset": "ultrafast"}, pixels="yuv420p",
    )  # fmt: skip
    threads = [
        len(list(Path("/proc/self/task").iterdir())) for _ in open_source(SourceConfig(str(path)))
    ]
    assert len(threads) == 90
    assert max(threads[30:]) <= max(threads[:30]) + 2
