"""Bags: written, cut off, out of order, replayed, measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from fixtures import DiscDetector, draw_discs
from recordings import CAMERA, NAMES, STAMPS, Scripted, head, pictures, write_mocap_bag

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.depth_fusion import RangeReading
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.finder import FaceFinder
from face_recon_ros.core.inference import FaceNetwork
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.pipeline import FacePipeline
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.tracker_config import TrackerConfig
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Image
from face_recon_ros.evaluation.ground_truth import head_truth
from face_recon_ros.evaluation.output import write_json
from face_recon_ros.evaluation.record import COMPRESSED_TOPIC, IMAGE_TOPIC, BagWriter, record
from face_recon_ros.evaluation.replay import ReplayConfig, replay
from face_recon_ros.io.bag_source import CameraHistory, ImageCounts, images_in_order
from face_recon_ros.io.bag_topics import choose_image_topic
from face_recon_ros.io.bags import COMPRESSED_IMAGE, IMAGE, open_bag
from face_recon_ros.io.camera_info import camera_from_msg

STORAGES = ["mcap", "sqlite3"]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compressed", [False, True])
def test_record_and_read_back(tmp_path, storage, compressed):
    images = pictures([0.1, 0.2, 1234.5])
    count = record(images, tmp_path / "bag", storage=storage, compressed=compressed, camera=CAMERA)
    assert count == 3
    bag = open_bag(tmp_path / "bag")
    topic = choose_image_topic(bag)
    assert topic == (COMPRESSED_TOPIC if compressed else IMAGE_TOPIC)
    assert bag.topics[topic] == (COMPRESSED_IMAGE if compressed else IMAGE)
    counts = ImageCounts()
    back = list(images_in_order(bag, topic, counts))
    assert [b.stamp for b in back] == [i.stamp for i in images]
    assert counts == ImageCounts(read=3) and back[0].frame == "cam"
    for a, b in zip(images, back, strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb).max() <= (2 if compressed else 0)
    camera = camera_from_msg(CameraHistory(bag, topic).at(back[0].stamp))
    np.testing.assert_allclose(camera.matrix, CAMERA.matrix)
    assert bag.problems == []


def test_a_file_inside_the_bag_and_a_bag_without_metadata_are_read_too(tmp_path):
    record(pictures([1.0, 2.0]), tmp_path / "bag")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    assert open_bag(file).counts[IMAGE_TOPIC] == 2
    (tmp_path / "bag" / "metadata.yaml").unlink()
    bag = open_bag(tmp_path / "bag")
    assert bag.counts[IMAGE_TOPIC] == 2 and "metadata.yaml" in bag.problems[0]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metadata", [True, False])
def test_a_bag_cut_off_is_read_up_to_the_break_and_says_so(tmp_path, storage, metadata):
    record(pictures(np.arange(1, 60) / 30), tmp_path / "bag", storage=storage)
    (file,) = [p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3")]
    data = file.read_bytes()
    file.write_bytes(data[: int(0.7 * len(data))])
    if not metadata:
        (tmp_path / "bag" / "metadata.yaml").unlink()
    result = replay(open_bag(tmp_path / "bag"), Scripted(), NAMES).result
    assert 5 < result["sequence"]["frames"] < 59
    assert result["bag"]["problems"]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("whole", [True, False])
def test_messages_of_some_times_are_found_again(tmp_path, storage, whole):
    record(pictures(np.arange(1, 60) / 30), tmp_path / "bag", storage=storage, camera=CAMERA)
    if not whole:
        (file,) = [p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3")]
        file.write_bytes(file.read_bytes()[: int(0.7 * file.stat().st_size)])
    bag, recorded = open_bag(tmp_path / "bag"), {}
    images = {i.stamp: i for i in images_in_order(bag, IMAGE_TOPIC, ImageCounts(), recorded)}
    assert recorded.keys() == images.keys() and bool(bag.problems) != whole
    wanted = [stamp for k, stamp in enumerate(images) if k in (3, 4, 20)]
    found = [raw for raw, _ in bag.messages(IMAGE_TOPIC, at=[recorded[s] for s in wanted])]
    assert [raw.log_ns for raw in found] == [recorded[s] for s in wanted]
    assert list(bag.messages(IMAGE_TOPIC, at=[5])) == []


def test_what_is_no_bag(tmp_path):
    with pytest.raises(DataError, match="no such thing"):
        open_bag(tmp_path / "nothing")
    (tmp_path / "empty.mcap").write_bytes(b"")
    with pytest.raises(DataError):
        open_bag(tmp_path / "empty.mcap")
    (tmp_path / "junk.db3").write_bytes(b"x" * 5000)
    with pytest.raises(DataError):
        open_bag(tmp_path / "junk.db3")
    with pytest.raises(DataError):
        BagWriter(tmp_path, "mcap")


def test_a_missing_topic_is_answered_with_those_there_are(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.pose(head(0), 1.0, "world", "/mocap/head")
    bag = open_bag(tmp_path / "bag")
    with pytest.raises(DataError, match="/mocap/head"):
        choose_image_topic(bag)
    with pytest.raises(DataError, match="/mocap/head"):
        choose_image_topic(bag, "/camera/other")
    with pytest.raises(DataError, match="frames none"):
        head_truth(bag, "cam", tf_frame="head")


def test_stamps_out_of_order_twice_and_far_too_late(tmp_path):
    stamps = [1.0, 3.0, 2.0, 3.0, *np.arange(4.0, 20.0), 0.5]
    record(pictures(stamps), tmp_path / "bag")
    counts = ImageCounts()
    back = [i.stamp for i in images_in_order(open_bag(tmp_path / "bag"), IMAGE_TOPIC, counts)]
    # rosbags reads by log time, and `record` logs at the stamp: order survives only in arrival.
    assert back == sorted(set(back))
    assert counts.duplicates == 1


def test_arrival_order_differs_from_stamps(tmp_path, monkeypatch):
    arrival = [1.0, 3.0, 2.0, 3.0, *np.arange(4.0, 20.0), 0.5]
    clock = iter(range(100))
    real = BagWriter.write

    def logged_on_arrival(self, topic, kind, stamp, **fields):
        return real(self, topic, kind, float(next(clock)), **fields)

    monkeypatch.setattr(BagWriter, "write", logged_on_arrival)
    record(pictures(arrival), tmp_path / "bag")
    counts = ImageCounts()
    back = [i.stamp for i in images_in_order(open_bag(tmp_path / "bag"), IMAGE_TOPIC, counts)]
    assert back == [1.0, 2.0, 3.0, *np.arange(4.0, 20.0)]
    assert (counts.duplicates, counts.late) == (1, 1) and counts.reordered >= 1


def test_an_unusable_image_is_counted_and_the_rest_used(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        for image in pictures([1.0, 2.0]):
            bag.image(image)
        bag.write(
            IMAGE_TOPIC,
            IMAGE,
            3.0,
            header=bag.header(3.0, "cam"),
            height=5,
            width=5,
            encoding="strange",
            is_bigendian=0,
            step=5,
            data=np.zeros(25, np.uint8),
        )
    counts = ImageCounts()
    assert len(list(images_in_order(open_bag(tmp_path / "bag"), IMAGE_TOPIC, counts))) == 2
    assert counts.unreadable == 1


# Ground truth ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tf", [False, True])
@pytest.mark.parametrize("error_deg", [0.0, 3.0])
def test_accuracy_against_motion_capture_in_other_frames_and_clock(tmp_path, tf, error_deg):
    rng = np.random.default_rng(5)
    x = Rigid(rotation_from_vector(rng.normal(size=3)), np.array([0.02, -0.05, 0.1]))
    y = Rigid(rotation_from_vector(rng.normal(size=3)), rng.normal(size=3))
    write_mocap_bag(tmp_path / "bag", 0.25, tf=tf, x=x, y=y)
    config = ReplayConfig(truth_frame="head_marker" if tf else "")
    result = replay(open_bag(tmp_path / "bag"), Scripted(error_deg), NAMES, config).result
    truth = result["ground_truth"]
    # The offset is as uncertain as frame noise over turning speed allows.
    assert truth["time_offset_s"] == pytest.approx(0.25, abs=0.005 if error_deg == 0 else 0.02)
    assert truth["aligned"]["rotation_deg"]["rmse"] == pytest.approx(error_deg, abs=0.05)
    assert "unaligned" not in truth and truth["warnings"] == []
    assert truth["matched_frames"] == len(STAMPS)


def test_truth_in_the_camera_frame_measures_a_constant_error(tmp_path):
    """The marker-only alignment may not hide it in `unaligned`."""
    turn = Rigid(rotation_from_vector(np.radians([0, 0, 4.0])), np.zeros(3))
    write_mocap_bag(tmp_path / "bag", frame="cam", x=turn)
    truth = replay(open_bag(tmp_path / "bag"), Scripted(), NAMES).result["ground_truth"]
    assert truth["same_camera"]
    assert truth["unaligned"]["rotation_deg"]["mean"] == pytest.approx(4.0, abs=0.05)
    assert truth["alignment"]["face_from_marker_deg"] == pytest.approx(4.0, abs=0.05)
    assert truth["aligned"]["rotation_deg"]["mean"] < 0.05


def add_depth(bag, stamp, metres, **fields):
    values = np.full((24, 32), metres, np.float32)
    known = {"height": 24, "width": 32, "encoding": "32FC1", "is_bigendian": 0, "step": 4 * 32}
    bag.write(
        "/depth",
        IMAGE,
        stamp,
        header=bag.header(stamp, "cam"),
        data=values.view(np.uint8).reshape(-1),
        **{**known, **fields},
    )


def test_depth_goes_with_its_image_and_its_use_is_told(tmp_path):
    """Every second image has a depth image, stamped a little later; one of them is damaged."""

    class Asked(Scripted):
        def __init__(self):
            super().__init__()
            self.depths = {}

        def process(self, image, camera=None, depth=None):
            self.depths[round(image.stamp, 4)] = depth
            frame = super().process(image, camera)
            reading = None if depth is None else RangeReading(0.7, 0.01, 1.0)
            covariance = np.diag([0.01] * 3 + [0.02] * 3) ** 2
            face = replace(frame.faces[0], depth_reading=reading, covariance=covariance)
            return replace(frame, faces=[face])

    stamps = STAMPS[:12]
    with BagWriter(tmp_path / "bag") as bag:
        for i, image in enumerate(pictures(stamps)):
            bag.image(image)
            bag.pose(head(image.stamp), image.stamp, "cam", "/mocap/head")
            if i % 2 == 0:
                encoding = "strange" if i == 4 else "32FC1"
                add_depth(bag, image.stamp + 0.004, 0.5 + i, encoding=encoding)
    pipeline = Asked()
    config = ReplayConfig(depth_topic="/depth", max_offset_s=0.0)
    result = replay(open_bag(tmp_path / "bag"), pipeline, NAMES, config).result
    for i, stamp in enumerate(stamps):
        depth = pipeline.depths[round(stamp, 4)]
        assert (depth is not None) == (i % 2 == 0 and i != 4)
        assert depth is None or (depth.shape == (24, 32) and np.all(depth == 0.5 + i))
    assert result["bag"]["frames_with_depth"] == 5
    truth = result["ground_truth"]
    assert truth["frames_with_depth_reading"] == 5
    assert truth["covariance_unaligned"]["position"]["within_68"] == 1.0  # there is no error
    with pytest.raises(DataError, match="/nowhere"):
        replay(open_bag(tmp_path / "bag"), Asked(), NAMES, ReplayConfig(depth_topic="/nowhere"))


def test_a_still_head_gives_a_warning_and_no_offset(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        for image in pictures(STAMPS[:60]):
            bag.image(image)
            bag.pose(Rigid.identity(), image.stamp, "cam", "/mocap/head")
    truth = replay(open_bag(tmp_path / "bag"), Scripted(1.0), NAMES).result["ground_truth"]
    assert truth["time_offset_s"] == 0 or truth["time_offset_contrast"] >= 1.5


class Untouchable:
    """A pipeline that must not be reached."""

    def process(self, image, camera=None):
        raise AssertionError("replayed although the ground truth is wrong")


@pytest.mark.parametrize(
    "config", [ReplayConfig(truth_topic="/mocap/hed"), ReplayConfig(truth_frame="hed")]
)
def test_a_wrong_name_of_ground_truth_is_told_before_the_replay(tmp_path, config):
    with BagWriter(tmp_path / "bag") as bag:
        for image in pictures(STAMPS[:5]):
            bag.image(image)
            bag.pose(head(image.stamp), image.stamp, "cam", "/mocap/head")
    with pytest.raises(DataError, match="hed"):
        replay(open_bag(tmp_path / "bag"), Untouchable(), NAMES, config)


def test_truth_in_two_frames_costs_the_truth_and_not_the_figures(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        for i, image in enumerate(pictures(STAMPS[:20])):
            bag.image(image)
            bag.pose(head(image.stamp), image.stamp, ("map", "odom")[i % 2], "/mocap/head")
    result = replay(open_bag(tmp_path / "bag"), Scripted(), NAMES).result
    assert result["sequence"]["frames"] == 20 and result["ground_truth"] is None
    (problem,) = result["bag"]["problems"]
    assert "/mocap/head" in problem and "odom" in problem
    with pytest.raises(DataError, match="one frame"):  # named, it is a fault of the command
        config = ReplayConfig(truth_topic="/mocap/head")
        replay(open_bag(tmp_path / "bag"), Untouchable(), NAMES, config)


def test_several_pose_topics_are_named(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        for image in pictures(STAMPS[:20]):
            bag.image(image)
            for topic in ("/mocap/head", "/robot/pose"):
                bag.pose(head(image.stamp), image.stamp, "cam", topic)
    result = replay(open_bag(tmp_path / "bag"), Scripted(), NAMES).result
    assert result["ground_truth"] is None
    (problem,) = result["bag"]["problems"]
    assert "/mocap/head, /robot/pose" in problem and "--truth-topic" in problem
    config = ReplayConfig(truth_topic="/mocap/head")
    chosen = replay(open_bag(tmp_path / "bag"), Scripted(), NAMES, config).result
    assert chosen["ground_truth"]["same_camera"] and chosen["bag"]["problems"] == []


# Replay ------------------------------------------------------------------------------------------


def disc_pipeline(face_model_path, network_path):
    model = load_morphable_model(face_model_path, level="coarse")
    reconstructor = FaceReconstructor(FaceNetwork(network_path, threads=1), model)
    finder = FaceFinder(DiscDetector(), Tracker(TrackerConfig()))
    return FacePipeline(finder, reconstructor), model.expression_names


def test_two_replays_give_identical_bytes(tmp_path, face_model_path, network_path):
    images = [
        Image(
            draw_discs(
                320, 240, (80 + 3 * i, 120, 40, (200, 120, 60)), (240, 100, 35, (90, 200, 120))
            ),
            10 + i / 30,
            "cam",
        )
        for i in range(40)
    ]
    record(images, tmp_path / "bag")
    for name in "ab":
        pipeline, names = disc_pipeline(face_model_path, network_path)
        result = replay(open_bag(tmp_path / "bag"), pipeline, names).result
        write_json(tmp_path / name, result)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    figures = json.loads((tmp_path / "a").read_text())
    assert figures["sequence"]["frames"] == 40
    assert figures["sequence"]["track_count"] == 2
    assert figures["sequence"]["id_switches"] == 0
    assert figures["ground_truth"] is None


def test_figures_do_not_depend_on_the_storage_or_the_place(
    tmp_path, face_model_path, network_path
):
    images = [
        Image(draw_discs(200, 150, (100, 70 + i, 30, (200, 120, 60))), i / 30, "cam")
        for i in range(12)
    ]
    results = []
    for storage in STORAGES:
        record(images, tmp_path / storage, storage=storage)
        moved = tmp_path / f"moved_{storage}" / "bag"
        shutil.move(tmp_path / storage, moved)
        pipeline, names = disc_pipeline(face_model_path, network_path)
        results.append(replay(open_bag(moved), pipeline, names).result["per_frame"])
    np.testing.assert_equal(results[0], results[1])


class Watching(Scripted):
    """Remembers the cameras it was given."""

    def process(self, image, camera=None):
        self.cameras = [*getattr(self, "cameras", []), camera]
        return super().process(image, camera)


def test_cameras_come_from_calibration_then_bag_then_field_of_view(tmp_path):
    record(pictures([1.0, 2.0]), tmp_path / "bare")
    record(pictures([1.0, 2.0]), tmp_path / "told", camera=CAMERA)
    calibration = tmp_path / "ost.yaml"
    calibration.write_text(
        "image_width: 128\nimage_height: 96\n"
        "camera_matrix: {data: [200, 0, 63.5, 0, 200, 47.5, 0, 0, 1]}\n"
        "distortion_coefficients: {data: [0, 0, 0, 0, 0]}\n"
    )
    given = ReplayConfig(calibration=calibration)
    wide = ReplayConfig(fov_deg=90.0)
    for name, config, focal, words, calibrated in (
        ("bare", ReplayConfig(), PinholeCamera.from_fov(64, 48, 60.0).matrix[0, 0], "60", 0),
        ("bare", wide, PinholeCamera.from_fov(64, 48, 90.0).matrix[0, 0], "90", 0),
        ("bare", given, 100.0, "ost.yaml", 0),
        ("told", wide, 60.0, "CameraInfo", 2),
        ("told", given, 100.0, "ost.yaml", 0),
    ):
        pipeline = Watching()
        facts = replay(open_bag(tmp_path / name), pipeline, NAMES, config).result["bag"]
        assert [c.matrix[0, 0] for c in pipeline.cameras] == pytest.approx([focal, focal])
        assert words in facts["camera"] and facts["frames_with_camera_info"] == calibrated


def test_missed_frames_and_limits(tmp_path):
    stamps = np.arange(30) / 30
    record(pictures(stamps), tmp_path / "bag")
    bag = open_bag(tmp_path / "bag")
    result = replay(bag, Scripted(missing=[0.0, stamps[5], stamps[6]]), NAMES).result
    assert result["sequence"]["frames"] == 30
    assert result["sequence"]["missed_frames"] == 2  # the first frame comes before the face
    short = replay(bag, Scripted(), NAMES, ReplayConfig(max_frames=7)).result
    assert short["sequence"]["frames"] == 7
