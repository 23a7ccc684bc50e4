"""Eight people of the scripted room who walk, cross, turn away, leave and return keep their ids.

Only events, no pictures: what detector, network and embeddings would say of the true faces.
"""

import numpy as np
import pytest

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.tracking import Tracker
from face_recon_ros.core.types import Detections
from face_recon_ros.evaluation.mot import FoundFace, MotAccumulator, TrueFace
from face_recon_ros.evaluation.room_script import RoomConfig, random_path

WIDTH, HEIGHT = 1280, 720
SIDE_M = 0.165  # of a face box
#: Left, top, right and bottom of what covers others, metres from the sellion: head, shoulders.
SILHOUETTE = np.array([[-0.095, -0.12, 0.095, 0.13], [-0.2, 0.16, 0.2, 9.0]])
FOCAL_PX = PinholeCamera.from_fov(WIDTH, HEIGHT, 70.0).focal_px


class Crowd:
    """People and their true faces: rows of `boxes`, `turns` to the camera, `visible` shares."""

    def __init__(self, people, seconds, seed):
        rng = np.random.default_rng(seed)
        config = RoomConfig(people, seconds, seed=seed)
        depths = rng.permutation(np.linspace(*config.depths_m, people))
        starts = rng.permutation(np.linspace(-1, 1, people))
        pairs = zip(depths, starts, strict=True)
        self.paths = sorted((random_path(config, z, x, rng) for z, x in pairs), key=lambda p: p.z)
        self.looks = np.linalg.qr(rng.standard_normal((64, people)))[0].T

    def at(self, stamp):
        z = np.array([path.z for path in self.paths])
        x, yaw = np.array([path.at(stamp) for path in self.paths]).T
        y = np.array([path.y for path in self.paths])
        middle = np.column_stack([WIDTH / 2 + FOCAL_PX * x / z, HEIGHT / 2 + FOCAL_PX * y / z])
        scale = (FOCAL_PX / z)[:, None]
        half = np.tile(SIDE_M / 2 * scale, 2)
        boxes = np.hstack([middle - half, middle + half])
        boxes_in = np.hstack([boxes[:, :2].clip(0), np.minimum(boxes[:, 2:], [WIDTH, HEIGHT])])
        visible = area(boxes_in)
        for i, _ in enumerate(self.paths):
            for part in SILHOUETTE:  # of those nearer, who come first
                front = np.tile(middle[:i], 2) + scale[:i] * part
                low, high = np.maximum(front, boxes_in[i]), np.minimum(front, boxes_in[i])
                visible[i] -= area(np.hstack([low[:, :2], high[:, 2:]])).sum()
        turns = np.abs((yaw + np.pi) % (2 * np.pi) - np.pi)
        return boxes, turns, (visible / area(boxes)).clip(0)


def area(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)


def follow(crowd, stamps, rng, noise, late):
    """The figures of a tracker that is told of each image by parts that work.

    It is told of one face at a time who that is, `late` images after the face was seen.
    """
    tracker, figures = Tracker(), MotAccumulator()
    tracker.set_image_size(WIDTH, HEIGHT)
    looks, looked, waits = {}, None, 0
    for stamp in stamps:
        waits -= 1
        if looks and waits <= 0:
            tracker.identify(looks, looked)
            looks = {}
        boxes, turns, visible = crowd.at(stamp)
        there = (visible > 0.3) & (turns < np.radians(80))
        found = there & (visible > 0.6) & (rng.random(len(boxes)) >= noise)
        moved = boxes + noise * rng.normal(0, 1, (len(boxes), 1)) * (boxes[:, 2:3] - boxes[:, :1])
        tracks = tracker.update(
            Detections(moved[found].astype(np.float32), np.full(found.sum(), 0.9, np.float32)),
            stamp,
        )
        shown = iou(np.array([t.box for t in tracks]).reshape(-1, 4), boxes) * there
        whose = {t.id: int(row.argmax()) for t, row in zip(tracks, shown, strict=True)}
        face = {t.id: bool(row.max() > 0.2) for t, row in zip(tracks, shown, strict=True)}
        wanted = [
            name
            for name in tracker.wants_appearance()
            if face[name] and turns[whose[name]] < np.radians(55) and visible[whose[name]] > 0.8
        ]
        if not looks:
            looks = {name: crowd.looks[whose[name]] for name in wanted[:1]}
            looked, waits = stamp, late
        renamed = {}
        if looks and waits == 0:
            renamed = tracker.identify(looks)
            looks = {}
        meshes = {
            renamed.get(t.id, t.id): boxes[whose[t.id]] if face[t.id] else t.box for t in tracks
        }
        tracker.confirm(meshes, {renamed.get(name, name): float(face[name]) for name in face})
        figures.add(
            stamp,
            [
                TrueFace(str(i), boxes[i], bool(turns[i] < np.radians(60) and visible[i] > 0.7))
                for i in np.flatnonzero((turns < np.radians(100)) & (visible > 0.1))
            ],
            [FoundFace(t.id, meshes[t.id]) for t in tracker.visible if t.id in meshes],
        )
    return figures.figures()


@pytest.mark.parametrize(
    ("seed", "rate_hz", "lost", "noise", "late"),
    [
        (1, 10.0, 0.0, 0.0, 0),
        (2, 5.0, 0.0, 0.0, 0),
        (3, 10.0, 0.0, 0.03, 0),
        (4, 10.0, 0.25, 0.0, 0),
        (6, 10.0, 0.0, 0.03, 1),
    ],
    ids=["10 Hz", "5 Hz", "noise", "a quarter of the images lost", "late looks"],
)
def test_a_crowd_keeps_its_ids(seed, rate_hz, lost, noise, late):
    seconds, rng = 40.0, np.random.default_rng(seed)
    crowd = Crowd(8, seconds, seed)
    stamps = np.arange(int(seconds * rate_hz)) / rate_hz
    stamps = stamps[rng.random(len(stamps)) >= lost]
    figures = follow(crowd, stamps, rng, noise, late)
    assert figures["faces"] > 2 * len(stamps) and figures["people"] == 8
    assert figures["id_switches"] == figures["ghosts"] == 0
    assert figures["returns"]["wrong"] == figures["returns"]["new"] == 0
    assert figures["idf1"] > 0.96 and figures["recall"] > 0.94 and figures["precision"] > 0.98
