"""Laws of `face-recon evaluate detection`: figures of detectors of which all is known."""

import json

import cv2
import numpy as np
import pytest

from face_recon_ros.cli.main import main
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.types import Detections
from face_recon_ros.evaluation.datasets import Skipped
from face_recon_ros.evaluation.detection import (
    Composer,
    DetectionScorer,
    Scene,
    evaluate_detection,
    list_scenes,
    match,
    read_boxes,
)
from face_recon_ros.io.jobs import PerProcess

NOTHING = np.zeros((0, 4))


def square(x, y, side):
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float64)


def scene(*boxes, ignored=NOTHING):
    picture = np.zeros((200, 300, 3), np.uint8)
    return Scene(picture, np.array(boxes).reshape(-1, 4), np.asarray(ignored).reshape(-1, 4))


class Scripted:
    """Answers with the given detections, picture by picture."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    def detect(self, rgb):
        boxes, scores = next(self.answers)
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.float32(scores))


def measured(scenes, detector):
    """Figures of a detector at the threshold 0.5."""
    scorer = DetectionScorer(scenes.__getitem__, PerProcess(lambda: detector), 0.5)
    return evaluate_detection({f"{k}": k for k in range(len(scenes))}, scorer, Skipped())


A, B, SMALL = square(60, 60, 40), square(200, 100, 80), square(150, 30, 12)


def test_a_detector_that_finds_all_and_nothing_else_is_perfect():
    result = measured([scene(A, B), scene(B)], Scripted(([B, A], [0.9, 0.8]), ([B], [0.7])))
    assert (result["recall"], result["precision"], result["false_positives"]) == (1.0, 1.0, 0)
    assert result["faces"] == 3 and result["pictures"] == 2 and result["reliable_px"] == 32
    curve = {row["min_score"]: row for row in result["curve"]}
    assert curve[0.8]["recall"] == pytest.approx(2 / 3) and curve[0.8]["precision"] == 1.0


def test_a_detector_that_finds_nothing_has_no_precision():
    result = measured([scene(A)], Scripted(([], [])))
    assert result["recall"] == 0.0 and np.isnan(result["precision"])
    assert np.isnan(result["reliable_px"])


def test_a_face_found_twice_is_once_wrong():
    result = measured([scene(A)], Scripted(([A, A + 2], [0.9, 0.8])))
    assert (result["recall"], result["precision"]) == (1.0, 0.5)


def test_a_box_beside_its_face_finds_nothing():
    result = measured([scene(A)], Scripted(([A + 20], [0.9])))
    assert (result["recall"], result["precision"]) == (0.0, 0.0)


def test_small_faces_and_ignored_parts_count_neither_way():
    answers = ([A, SMALL, square(250, 150, 30)], [0.9, 0.9, 0.9])
    part = square(250, 150, 90)
    result = measured([scene(A, SMALL, ignored=part)], Scripted(answers))
    assert (result["faces"], result["recall"], result["precision"]) == (1, 1.0, 1.0)
    assert [row["from_px"] for row in result["by_size"]] == [12, 32]


def test_what_scores_below_the_threshold_is_not_there():
    answers = ([A, square(250, 150, 30)], [0.9, 0.4])
    result = measured([scene(A)], Scripted(answers))
    assert result["precision"] == 1.0
    assert {c["min_score"]: c["precision"] for c in result["curve"]}[0.4] == 0.5


def test_the_better_detection_gets_the_face():
    found = match(scene(A), Detections(np.float32([A + 3, A]), np.float32([0.6, 0.9])))
    assert found.found.tolist() == [1] and found.wrong.tolist() == [True, False]
    nothing = match(scene(), Detections.empty())
    assert len(nothing.found) == len(nothing.wrong) == 0


def test_without_faces_there_is_nothing_to_measure():
    with pytest.raises(DataError, match="min-side"):
        measured([scene(SMALL)], Scripted(([], [])))


def test_composed_pictures_are_what_they_say():
    """The faces are white squares on black portraits: each box must lie on its square."""
    portrait = scene(B)
    portrait.rgb[60:140, 160:240] = 255
    portrait = Scene(portrait.rgb, np.array([[159.5, 59.5, 239.5, 139.5]]), NOTHING)
    grey = np.full((90, 160, 3), 60, np.uint8)
    compose = Composer([(portrait.rgb, portrait.boxes[0])], [grey], (640, 360), (10, 60), seed=3)
    first = [compose(k) for k in range(5)]
    again = [compose(k) for k in reversed(range(5))][::-1]  # in any order
    assert len(first) == 5 and sum(len(s.boxes) for s in first) > 25
    for s, t in zip(first, again, strict=True):
        assert np.array_equal(s.rgb, t.rgb) and np.array_equal(s.boxes, t.boxes)
        assert s.rgb.shape == (360, 640, 3)
        for box, part in zip(s.boxes, s.ignored, strict=True):
            assert (box[:2] >= part[:2]).all() and (box[2:] <= part[2:]).all()
            x0, y0, x1, y1 = np.round(part).astype(int)
            columns = np.flatnonzero((s.rgb[y0:y1, x0:x1, 0] > 128).any(axis=0)) + x0
            assert 9 <= box[2] - box[0] <= 61
            assert abs(columns[0] - 0.5 - box[0]) < 1.01 and abs(columns[-1] + 0.5 - box[2]) < 1.01


def test_composing_needs_a_face():
    with pytest.raises(DataError, match="portraits with a face"):
        Composer([])


def test_boxes_are_read_and_bad_lines_named(tmp_path):
    path = tmp_path / "a.boxes"
    path.write_text("# faces\n1 2 30 40\n\n5, 6, 50, 60 ignore\n")
    boxes, ignored = read_boxes(path)
    assert boxes.tolist() == [[1, 2, 30, 40]] and ignored.tolist() == [[5, 6, 50, 60]]
    path.write_text("")
    assert read_boxes(path)[0].shape == (0, 4)  # a picture without faces
    for bad in ("1 2 3", "1 2 3 x", "3 2 1 4", "1 2 nan 4", "1 2 30 40 maybe"):
        path.write_text(f"1 2 30 40\n{bad}\n")
        with pytest.raises(DataError, match=r"line 2 of a\.boxes"):
            read_boxes(path)


def test_folders_without_annotation_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        list_scenes(tmp_path / "none", Skipped())
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 40, 3), np.uint8))
    skipped = Skipped()
    with pytest.raises(DataError, match="no usable one"):
        list_scenes(tmp_path, skipped)
    assert "a" in skipped.reasons


def test_the_command_measures_the_shipped_detector(tmp_path, capsys):
    out, shown = tmp_path / "out.json", tmp_path / "shown"
    command = [
        "evaluate",
        "detection",
        "--compose",
        "1",
        "--size",
        "640x360",
        "--sides",
        "30",
        "90",
    ]
    assert main([*command, "--out", str(out), "--preview", str(shown)]) == 0
    result = json.loads(out.read_text())
    assert result["recall"] > 0.9 and result["precision"] > 0.9 and result["faces"] >= 5
    assert "face_detection_yunet.onnx" in result["provenance"]["models"]
    assert [path.name for path in shown.iterdir()] == ["0000.png"]
    for wrong in (["--compose", "0"], ["--size", "big"], ["--sides", "9", "3"]):
        assert main(["evaluate", "detection", "--out", str(out), *wrong]) != 0
        assert "expected" in capsys.readouterr().err
