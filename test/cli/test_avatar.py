"""`face-recon avatar`, on renderings and on what is no face."""

import json
import struct

import cv2
import numpy as np
import pytest

from face_recon_ros.cli.main import main
from face_recon_ros.core.pattern import TurningHead


@pytest.fixture(scope="module")
def head_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("avatar") / "head.mp4"
    head = TurningHead(320, 240)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    for k in range(8):
        video.write(np.ascontiguousarray(head.render(0.1 * k)[..., ::-1]))
    video.release()
    return path


def content(path):
    data = path.read_bytes()
    size = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + size])


def test_a_video_becomes_a_head_that_moves(head_video, tmp_path, capsys):
    out = tmp_path / "new" / "head.glb"
    options = ["--texture-size", "256", "--animate"]
    assert main(["avatar", str(head_video), "--out", str(out), *options]) == 0
    assert out.stat().st_size < 8e6
    said = capsys.readouterr().out
    assert "52 expressions" in said and str(out) in said
    written = content(out)
    assert len(written["meshes"][0]["extras"]["targetNames"]) == 52
    assert len(written["animations"]) == 1
    assert written["asset"]["extras"]["images"] == 8
    assert written["asset"]["extras"]["texture_coverage"] > 0.1


def test_a_picture_becomes_files_that_others_open(head_video, tmp_path):
    """PLY of the part asked for; OBJ and GLB of the whole head, with a texture."""
    trimesh = pytest.importorskip("trimesh")
    ok, frame = cv2.VideoCapture(str(head_video)).read()
    assert ok
    cv2.imwrite(str(tmp_path / "head.png"), frame)
    out = tmp_path / "out"
    assert (
        main(["reconstruct", str(tmp_path / "head.png"), "--out", str(out), "--mesh", "all"]) == 0
    )
    (face,) = json.loads((out / "head.json").read_text())["faces"]
    ply, obj, glb = (trimesh.load(out / name, force="mesh") for name in face["meshes"])
    assert len(ply.visual.vertex_colors) == len(ply.vertices)
    assert obj.visual.uv.shape[1] == glb.visual.uv.shape[1] == 2
    assert len(obj.faces) == len(glb.faces) > len(ply.faces)
    apart = np.abs(np.sort(obj.vertices[:, 0]) - np.sort(glb.vertices[:, 2]))
    assert apart.max() > 1e-4  # OBJ as it was seen, GLB neutral


def test_one_line_on_what_is_wrong(head_video, tmp_path, capsys):
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((200, 300, 3), 127, np.uint8))
    out = str(tmp_path / "a.glb")
    for arguments, remedy in (
        ([str(blank), "--out", out], "--tiles"),
        ([str(head_video), "--out", str(tmp_path / "a.obj")], ".glb"),
        ([str(head_video), "--out", out, "--id", "nobody"], "choose one of these"),
    ):
        assert main(["avatar", *arguments]) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if "face-recon:" in line]
        assert len(error) == 1 and remedy in error[0]
    assert not (tmp_path / "a.glb").exists()


def test_what_an_avatar_of_pictures_leaves_out_is_told(head_video, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    ok, frame = cv2.VideoCapture(str(head_video)).read()
    assert ok
    (folder / "a.png").write_bytes(b"")
    cv2.imwrite(str(folder / "b.png"), np.full((200, 300, 3), 127, np.uint8))
    cv2.imwrite(str(folder / "c.png"), frame)
    options = ["--texture-size", "256", "--animate"]
    assert main(["avatar", str(folder), "--out", str(tmp_path / "a.glb"), *options]) == 0
    told = capsys.readouterr().err
    assert "no effect on pictures: --animate" in told
    assert "no face in 1 of 2 pictures: b.png" in told


def test_a_video_becomes_a_table_of_expressions(head_video, tmp_path, capsys):
    table = tmp_path / "head.csv"
    useless = ["--host", "10.0.0.1", "--subject", "me"]
    assert main(["stream", str(head_video), "--csv", str(table), *useless]) == 0
    told = capsys.readouterr().err
    assert "no effect on a table alone: --host" in told
    assert "no effect on all but --to livelink: --subject" in told
    rows = table.read_text().splitlines()
    assert len(rows) == 9 and rows[0].startswith("Timecode,BlendShapeCount,EyeBlinkLeft")
    assert (
        main(["stream", str(head_video), "--to", "vmc", "--frames", "2", "--port", "45678"]) == 0
    )
    assert main(["stream", str(head_video)]) == 2
    assert "--to vmc" in capsys.readouterr().err
