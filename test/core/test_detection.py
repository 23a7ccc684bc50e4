"""Detectors on renderings of our own head: found where it is, whatever the picture around it."""

import itertools
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from face_recon_ros.core.boxes import iou, nms, scattered
from face_recon_ros.core.crop import face_box_from_points
from face_recon_ros.core.detection import (
    BACKENDS,
    BOX_MAPS,
    SMALLEST,
    BoxMap,
    DetectorConfig,
    YuNetDetector,
    make_detector,
)
from face_recon_ros.core.errors import ConfigError, ImageError, ModelError
from face_recon_ros.core.models import DETECTORS, FACE_MODEL, NETWORK, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.pattern import PERIOD_S, TurningHead
from face_recon_ros.core.search import SearchingDetector, tile_boxes
from face_recon_ros.core.types import Detections


@pytest.fixture(scope="module")
def detectors():
    made = {}

    def get(backend, **settings):
        key = (backend, *settings.items())
        if key not in made:
            made[key] = make_detector(DetectorConfig(backend, **{"tiles": 1, **settings}))
        return made[key]

    return get


@pytest.fixture(scope="module")
def pictures():
    """Pictures of turning heads, each somebody else's, with their true face boxes."""
    model = load_morphable_model(find_model(FACE_MODEL), level="coarse")
    skin = model.subsets["facial_skin"]
    out = []
    for seed, t in enumerate(np.linspace(0, PERIOD_S, 16, endpoint=False)):
        head = TurningHead(320, 240, model, seed)
        vertices = model.vertices(head.identity, head.expression(t))[skin]
        pixels = head.camera.project(head.camera_from_face(t).apply(vertices))
        out.append((head.render(t), face_box_from_points(pixels)))
    return out


@pytest.mark.parametrize("backend", BACKENDS)
def test_boxes_are_mapped_to_the_face_box(detectors, pictures, backend):
    """The constants of BOX_MAPS, measured again: no bias beyond a twentieth of a side."""
    errors = []
    for rgb, truth in pictures:
        found = detectors(backend).detect(rgb)
        assert len(found) == 1 and found.scores[0] > 0.5
        box, side = found.boxes[0], truth[2] - truth[0]
        centre = (box[:2] + box[2:] - truth[:2] - truth[2:]) / 2 / side
        errors.append([*centre, np.log((box[2] - box[0]) / side)])
    assert np.abs(np.median(errors, axis=0)).max() < 0.06, np.median(errors, axis=0)
    assert np.abs(errors).max() < 0.3


@pytest.mark.parametrize("backend", BACKENDS)
def test_moving_the_picture_moves_the_box(detectors, pictures, backend):
    rgb, _ = pictures[0]
    before = detectors(backend).detect(rgb).boxes[0]
    moved = np.roll(rgb, (8, 16), axis=(0, 1))
    after = detectors(backend).detect(moved).boxes[0]
    np.testing.assert_allclose(after - before, [16, 8, 16, 8], atol=6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_grey_and_strided_pictures(detectors, pictures, backend):
    rgb, _ = pictures[0]
    wide = np.zeros((240, 640, 3), np.uint8)
    wide[:, ::2] = rgb
    for picture in (cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), wide[:, ::2]):
        assert len(detectors(backend).detect(picture)) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (240, 320, 3), (7, 500, 3)])
def test_nothing_is_found_in_nothing(detectors, backend, shape):
    found = detectors(backend).detect(np.full(shape, 90, np.uint8))
    assert len(found) == 0 and found.boxes.shape == (0, 4)


@pytest.mark.parametrize("bad", [np.zeros((0, 5, 3), np.uint8), np.zeros((5, 5, 4), np.uint8)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_unusable_images_are_refused(detectors, backend, bad):
    with pytest.raises(ImageError):
        detectors(backend).detect(bad)


@pytest.mark.parametrize("backend", ["short_range", "yunet"])
def test_a_face_over_the_border_is_found(detectors, backend, pictures):
    rgb, truth = pictures[0]
    cut = np.ascontiguousarray(rgb[:, round(truth[0] + 0.3 * (truth[2] - truth[0])) :])
    found = detectors(backend).detect(cut)
    assert len(found) == 1
    assert found.boxes[0][0] < 0  # the face box goes on where the picture ends


@pytest.mark.parametrize("backend, tiles, scale", [("short_range", 4, 0.8), ("yunet", 2, 0.2)])
def test_tiles_find_small_faces(detectors, pictures, backend, tiles, scale):
    """A face of a sixteenth of the width of the picture, and one of 20 pixels."""
    rgb, truth = pictures[0]
    picture = np.full((720, 1280, 3), 90, np.uint8)
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture[300 : 300 + small.shape[0], 900 : 900 + small.shape[1]] = small
    expected = scale * truth + [900, 300, 900, 300]
    assert len(detectors(backend).detect(picture)) == 0
    found = detectors(backend, tiles=tiles).detect(picture)
    assert len(found) == 1
    assert iou(found.boxes, expected)[0, 0] > 0.4  # twenty pixels are no certain measure


@pytest.mark.parametrize("turn", [cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180])
def test_turned_search_finds_lying_heads(detectors, pictures, turn):
    rgb, truth = pictures[0]
    turned = cv2.rotate(rgb, turn)
    (x, y), side = (truth[:2] + truth[2:]) / 2, truth[2] - truth[0]
    height, width = rgb.shape[:2]
    x, y = (
        (height - 1 - y, x) if turn == cv2.ROTATE_90_CLOCKWISE else (width - 1 - x, height - 1 - y)
    )
    expected = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
    found = detectors("short_range", rotations_deg=(-90.0, 90.0, 180.0)).detect(turned)
    assert len(found) == 1
    # The box map knows only upright heads: the centre is off along the turned vertical.
    assert iou(found.boxes, expected)[0, 0] > 0.5


class Spots:
    """A detector that finds single white pixels."""

    def detect(self, rgb):
        rows, columns = np.nonzero(rgb[..., 0] > 128)
        centres = np.stack([columns, rows], 1)
        boxes = np.concatenate([centres - 5, centres + 5], 1).astype(np.float32)
        return Detections(boxes, np.ones(len(boxes), np.float32))


@pytest.mark.parametrize("tiles", [2, 3, 5])
@pytest.mark.parametrize("x, y", [(0, 0), (99, 49), (37, 21), (50, 25)])
def test_a_spot_is_found_once_wherever_it_is(tiles, x, y):
    picture = np.zeros((50, 100, 3), np.uint8)
    picture[y, x] = 255
    found = SearchingDetector(Spots(), tiles, smallest=0.1).detect(picture)
    np.testing.assert_array_equal(found.boxes, [[x - 5, y - 5, x + 5, y + 5]])


@pytest.mark.parametrize("angle", [90.0, 180.0, -90.0])
def test_turning_there_and_back_is_exact(angle):
    picture = np.zeros((50, 100, 3), np.uint8)
    picture[12, 70] = 255
    found = SearchingDetector(Spots(), 1, (angle,)).detect(picture)
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes, [[65, 7, 75, 17]], atol=1e-3)


@pytest.mark.parametrize("size", [(1280, 720), (64, 64), (100, 900), (3, 2)])
@pytest.mark.parametrize("tiles", [2, 3, 8])
@pytest.mark.parametrize("overlap", [0.0, 0.05, 0.3])
def test_tiles_cover_the_picture_and_overlap(size, tiles, overlap):
    width, height = size
    count = np.zeros((height, width), int)
    boxes = tile_boxes(width, height, tiles, overlap)
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        count[y0:y1, x0:x1] += 1
    assert count.min() >= 1
    rows = sorted({(y0, y1) for _, y0, _, y1 in boxes})
    for (_, end), (start, _) in itertools.pairwise(rows):
        assert end - start >= np.floor(overlap * max(size)) - 1
    assert tile_boxes(width, height, 1, overlap) == []


class TestScan:
    """A video searched in parts: `Spots` sees all, so what is found says where was looked."""

    picture = np.full((360, 640, 3), 255, np.uint8)

    def looks(self, stamps, tiles=2, **settings):
        where = []
        detector = SimpleNamespace(
            detect=lambda rgb: where.append(rgb.shape[1::-1]) or Detections.empty()
        )
        search = SearchingDetector(detector, tiles, smallest=0.1, **settings)
        for stamp in stamps:
            where.clear()
            found = search.detect_next(self.picture, stamp)
            yield list(where), found

    def test_everything_has_its_turn_within_the_period(self):
        everywhere = np.array(
            [[x, y, x + 60, y + 60] for x in (0, 290, 580) for y in (0, 150, 300)]
        )
        for fps in (3.0, 10.0, 30.0, 100.0):
            seen = np.full(len(everywhere), -np.inf)
            for k, (_, found) in enumerate(self.looks(np.arange(300) / fps)):
                seen[found.looked_at(everywhere)] = k / fps
                if k / fps > 1.0:
                    assert k / fps - seen.min() <= max(1.0 + 2 / fps, 8 / fps)

    def test_an_image_costs_few_runs_at_camera_rate_and_no_more_than_all_ever(self):
        whole = (640, 360)
        first, *rest = self.looks(np.arange(61) / 10.0)
        assert len(first[0]) == 5  # the first image of all is searched everywhere
        assert all(where.count(whole) == 1 and len(where) <= 2 for where, _ in rest)
        assert sum(len(where) - 1 for where, _ in rest) == pytest.approx(24, abs=1)
        _, *rest = self.looks(np.arange(61) / 30.0)
        assert all(1 <= len(where) <= 2 for where, _ in rest)
        assert sum(whole in where for where, _ in rest) == pytest.approx(30, abs=1)
        for where, _ in self.looks([0.0, 50.0, 20.0, 20.0]):
            assert len(where) <= 5

    def test_a_face_that_a_part_cuts_is_left_to_the_others(self):
        """Of a face on the border of two parts each shows half, which makes a smaller face."""

        def detect(rgb):
            rows, columns = np.nonzero(rgb[..., 0] > 128)
            if len(rows) == 0 or rgb.shape[0] == 360:  # too small for the whole
                return Detections.empty()
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            return Detections(np.array([box], np.float32), np.ones(1, np.float32))

        search = SearchingDetector(SimpleNamespace(detect=detect), 2, smallest=0.1)
        for x, y in [(300, 190), (290, 100), (320, 160), (350, 170), (0, 0), (600, 330)]:
            picture = np.zeros((360, 640, 3), np.uint8)
            picture[y : y + 30, x : x + 30] = 255
            np.testing.assert_array_equal(search.detect(picture).boxes, [[x, y, x + 30, y + 30]])

    def test_what_is_large_counts_as_looked_for_in_the_whole_only_from_its_size_on(self):
        _, (where, found) = self.looks([0.0, 0.1])
        assert where == [(640, 360)]  # no part is due yet
        large, small = [100, 100, 180, 180], [100, 100, 150, 150]
        assert found.looked_at([large, small]).tolist() == [True, False]

    def test_pictures_in_full_detail_are_not_searched_in_parts(self):
        for where, found in self.looks([0.0, 0.1], native_px=640):
            assert where == [(640, 360)] and found.views is None

    def test_the_same_images_are_searched_the_same_way(self):
        stamps = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.4, 100))
        first, second = ([w for w, _ in self.looks(stamps)] for _ in range(2))
        assert first == second


def test_suppression_keeps_the_best_of_each_face():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10]], np.float32)
    assert nms(boxes, np.float32([0.5, 0.9, 0.7])).tolist() == [1, 2]
    assert nms(boxes[:0], np.zeros(0, np.float32)).tolist() == []


def test_scattered_boxes_differ_by_what_was_asked_for():
    box, random = [100.0, 50.0, 140.0, 90.0], np.random.default_rng(0)
    assert (scattered(box, 3, 0.0, 0.0, random) == np.float32(box)).all()
    boxes = scattered(box, 2000, 0.1, 0.05, random)
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_allclose(middles.mean(axis=0), [120, 70], atol=0.4)
    np.testing.assert_allclose(middles.std(axis=0), 0.1 * 40, rtol=0.1)
    np.testing.assert_allclose(np.log(sides / 40).std(axis=0), 0.05, rtol=0.1)


def test_overlap_is_symmetric_and_one_with_itself():
    boxes = np.random.default_rng(0).uniform(0, 50, (6, 2))
    boxes = np.concatenate([boxes, boxes + np.random.default_rng(1).uniform(1, 30, (6, 2))], 1)
    shared = iou(boxes, boxes)
    np.testing.assert_allclose(shared, shared.T)
    np.testing.assert_allclose(np.diag(shared), 1)
    assert iou([0, 0, 2, 2], [1, 0, 3, 2])[0, 0] == pytest.approx(1 / 3)


def test_box_maps_are_square_and_scale_with_the_box():
    boxes = np.array([[10, 20, 50, 80]], float)
    mapped = BoxMap(0.1, -0.2, 1.5)(boxes)[0]
    assert mapped[2] - mapped[0] == pytest.approx(mapped[3] - mapped[1])
    np.testing.assert_allclose(BoxMap(0.1, -0.2, 1.5)(3 * boxes)[0], 3 * mapped, rtol=1e-6)
    assert BoxMap(0, 0, 1)(np.zeros((0, 4))).shape == (0, 4)
    assert set(BOX_MAPS) == set(SMALLEST) == set(BACKENDS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"backend": "haar"},
        {"min_score": 0.0},
        {"tiles": 0},
        {"max_side_px": 1},
        {"scan_period_s": -1.0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        DetectorConfig(**wrong)


def test_model_faults_are_said_in_one_line(tmp_path):
    (tmp_path / "bad.tflite").write_bytes(b"no model")
    for config in (
        DetectorConfig("short_range", str(tmp_path / "bad.tflite")),
        DetectorConfig("short_range", str(tmp_path / "none.tflite")),
        DetectorConfig("yunet", str(tmp_path / "bad.tflite")),
        DetectorConfig("yunet", str(find_model(NETWORK))),  # a network, but no detector
    ):
        with pytest.raises(ModelError) as fault:
            make_detector(config)
        assert "\n" not in str(fault.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_native_is_written_to_stderr(backend, capfd):
    make_detector(DetectorConfig(backend)).detect(np.zeros((10, 10, 3), np.uint8))
    assert capfd.readouterr().err == ""


def test_yunet_shrinks_large_pictures(pictures):
    rgb, truth = pictures[0]
    large = cv2.resize(rgb, None, fx=4, fy=4)
    found = YuNetDetector(max_side_px=320).detect(large)
    assert iou(found.boxes, 4 * truth)[0, 0] > 0.6


def test_a_yunet_file_of_fixed_size_does_as_well(pictures, tmp_path):
    """As the OpenCV Zoo has them."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(find_model(DETECTORS["yunet"])))
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 320
    onnx.save(model, str(tmp_path / "fixed.onnx"))
    fixed, free = YuNetDetector(tmp_path / "fixed.onnx"), YuNetDetector()
    rgb, truth = pictures[0]
    np.testing.assert_allclose(fixed.detect(rgb).boxes, free.detect(rgb).boxes, atol=0.2)
    large = cv2.resize(rgb, None, fx=4, fy=4)
    assert iou(fixed.detect(large).boxes, 4 * truth)[0, 0] > 0.6
