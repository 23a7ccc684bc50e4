"""The scripted room is what its truth says, and the evaluation takes bad input by its word."""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from face_recon_ros.cli.main import main
from face_recon_ros.core.errors import ConfigError, DataError
from face_recon_ros.core.models import FACE_MODEL, find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.types import Image, Mesh
from face_recon_ros.evaluation.mot import TrueFace
from face_recon_ros.evaluation.room import Room
from face_recon_ros.evaluation.room_script import RoomConfig
from face_recon_ros.evaluation.tracking import (
    evaluate_tracking,
    mot_lines,
    portrait_people,
    read_mot,
    with_truth,
)
from face_recon_ros.io.images import write_image


@pytest.fixture(scope="module")
def model():
    return load_morphable_model(find_model(FACE_MODEL), level="coarse")


@pytest.fixture(scope="module")
def small(model):
    return Room(
        RoomConfig(people=2, seconds=40, rate_hz=2, width=320, height=180, seed=1, away_s=(8.0,)),
        model,
    )


def test_a_room_is_the_same_again(model, small):
    again = Room(small.config, model)
    for k in (0, 33):
        a, b = small.frame(k), again.frame(k)
        np.testing.assert_array_equal(a.image.rgb, b.image.rgb)
        assert [f.person for f in a.faces] == [f.person for f in b.faces]


def test_another_seed_is_another_room(model, small):
    other = Room(RoomConfig(people=2, width=320, height=180, seed=2), model)
    assert (other.frame(0).image.rgb != small.frame(0).image.rgb).any()


def test_truth_says_what_is_drawn(small):
    """A frontal face is skin, not wall, and its pose projects into the middle of its box."""
    seen = 0
    for k in range(len(small)):
        frame = small.frame(k)
        assert frame.image.stamp == pytest.approx(k / 2)
        for face in frame.faces:
            if not face.clear or abs(face.yaw) > 0.3:
                continue
            seen += 1
            sellion = small.camera.project(face.camera_from_face.translation[None])[0]
            x0, y0, x1, y1 = face.box
            assert x0 < sellion[0] < x1 and y0 < sellion[1] < y1
            empty = small.background[int(sellion[1]), int(sellion[0])]
            assert np.abs(frame.image.rgb[int(sellion[1]), int(sellion[0])] - empty).max() > 10
    assert seen > 20


def test_people_leave_turn_away_and_come_back(small):
    there = [{f.person for f in small.frame(k).faces} for k in range(len(small))]
    for person in set.union(*there):
        present = [person in faces for faces in there]
        gaps = sum(a and not b for a, b in pairwise(present))
        assert gaps >= 1 and any(present[-20:])


def test_nobody_in_the_room(model):
    room = Room(RoomConfig(people=0, seconds=1, rate_hz=4, width=64, height=48), model)
    assert [f.faces for f in room] == [[]] * 4


@pytest.mark.parametrize("wrong", [{"people": -1}, {"seconds": 0.0}, {"rate_hz": -1.0}])
def test_a_room_without_sense_is_refused(wrong):
    with pytest.raises(ConfigError):
        RoomConfig(**wrong)


def test_truth_files_read_as_written(tmp_path):
    faces = [
        TrueFace("7", np.array([1.0, 2.0, 11.0, 22.0])),
        TrueFace("8", np.array([5.0, 5.0, 9.0, 9.0]), clear=False),
    ]
    path = tmp_path / "gt.txt"
    path.write_text("\n".join(mot_lines(3, faces)) + "\n\n")
    read = read_mot(path)
    assert list(read) == [3]
    for a, b in zip(faces, read[3], strict=True):
        assert (a.person, a.clear) == (b.person, b.clear)
        np.testing.assert_allclose(a.box, b.box)


@pytest.mark.parametrize(
    "line", ["1,2,3", "1,2,a,b,c,d", "1,2,0,0,0,5", "x,1,0,0,5,5", "1,2,0,0,inf,5", "0,1,0,0,5,5"]
)
def test_a_bad_truth_line_is_named(tmp_path, line):
    path = tmp_path / "gt.txt"
    path.write_text(f"1,1,0,0,5,5\n{line}\n")
    with pytest.raises(DataError, match="line 2"):
        read_mot(path)


def test_no_truth_file(tmp_path):
    with pytest.raises(DataError, match="truth file"):
        read_mot(tmp_path / "none.txt")


class Oracle:
    """Finds what it is told to: the id of each true face, or nothing."""

    def __init__(self, answers):
        self._answers = iter(answers)

    def process(self, image, camera=None):
        found = next(self._answers)
        faces = [SimpleNamespace(track=SimpleNamespace(id=n), box=box) for n, box in found]
        return SimpleNamespace(faces=faces)


def test_a_portrait_that_cannot_be_read_is_passed_over(tmp_path, model):
    write_image(tmp_path / "good.png", np.full((64, 64, 3), 90, np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    mesh = Mesh(model.mean_shape, model.triangles, model.mean_albedo)
    face = SimpleNamespace(mesh=mesh, box=np.float32([16, 16, 48, 48]))

    def people(count):
        found = SimpleNamespace(faces=[face])
        return portrait_people(tmp_path, lambda rgb: found, model, count)

    assert len(people(1)) == 1
    with pytest.raises(DataError, match="got 1 of 2"):
        people(2)


def test_a_sequence_is_scored():
    image = Image(np.zeros((8, 8, 3), np.uint8), 0.0)
    here = np.array([0.0, 0.0, 4.0, 4.0])
    truth = {1: [TrueFace("a", here)], 3: [TrueFace("a", here)]}
    images = [(Image(image.rgb, k / 10), None) for k in range(3)]
    oracle = Oracle([[("x", here)], [], [("y", here)]])
    result = evaluate_tracking(with_truth(images, truth), oracle)
    assert (result["faces"], result["id_switches"]) == (2, 1)


def test_no_images_is_an_error():
    with pytest.raises(DataError):
        evaluate_tracking([], Oracle([]))


@pytest.mark.parametrize(
    "arguments", [["video.mp4"], ["--truth", "gt.txt"], ["--min-iou", "0"], ["--people", "-1"]]
)
def test_the_command_refuses_what_makes_no_sense(tmp_path, arguments, capsys):
    try:
        status = main(["evaluate", "tracking", *arguments, "--out", str(tmp_path / "out.json")])
    except SystemExit as end:
        status = end.code
    assert status != 0 and "expected" in capsys.readouterr().err


def test_the_command_measures_a_short_room_and_its_written_form(tmp_path):
    out, written = tmp_path / "room.json", tmp_path / "room"
    room = ["--people", "1", "--seconds", "2", "--rate", "4", "--write", str(written)]
    preview = ["--preview", str(tmp_path / "shown")]
    assert main(["evaluate", "tracking", *room, *preview, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["faces"] > 0 and result["id_switches"] == 0 and result["recall"] > 0.5
    assert len(list(written.glob("*.png"))) == 8 and list((tmp_path / "shown").glob("*.png"))
    again = tmp_path / "again.json"
    source = [str(written), "--truth", str(written / "gt.txt"), "--fov", "70", "--rate", "4"]
    assert main(["evaluate", "tracking", *source, "--out", str(again)]) == 0
    once_more = json.loads(again.read_text())
    assert {k: once_more[k] for k in ("faces", "duration_s", "mota", "idf1", "tracks")} == {
        k: pytest.approx(result[k]) for k in ("faces", "duration_s", "mota", "idf1", "tracks")
    }
