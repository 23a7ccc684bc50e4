"""`face-recon evaluate detection`: which faces a detector finds, by their size, and what else.

Pictures with known faces come from annotated photographs, or are composed: portraits shrunk to
random sizes and pasted on a picture without faces. A detection is right where it overlaps a face
box; a second one of the same face is wrong. Portraits may show people without annotation, so
what is found within one, away from its face, counts neither way.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.boxes import iou
from face_recon_ros.core.crop import face_box_from_points
from face_recon_ros.core.detection import BoxMap
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.pattern import PERIOD_S, TurningHead
from face_recon_ros.core.types import Detections, Detector
from face_recon_ros.evaluation.datasets import (
    Skipped,
    images_by_name,
    read_landmarks,
    read_stored_image,
)
from face_recon_ros.evaluation.stills import HERE, Execution, Item, run_stills
from face_recon_ros.io.images import write_image
from face_recon_ros.io.jobs import PerProcess

MIN_IOU = 0.4  # with square boxes of like size: off by less than 0.3 of a side
SIZES_PX = (12, 16, 20, 24, 32, 48, 80, 130, 200, 400, 4000)
THRESHOLDS = tuple(round(0.1 * k, 1) for k in range(1, 10))
RELIABLE = 0.95

PROTOCOL = {
    "name": "face detection",
    "association": f"best first, IoU >= {MIN_IOU} of face boxes (core.crop.face_box_from_points)",
    "recall": "found faces / faces, of those with a side of min_side_px and more",
    "precision": "right / all detections; what lies on a smaller face or in an ignored part of a "
    "picture counts neither way, a second detection of one face is wrong",
    "curve": "the same for other score thresholds",
    "reliable_px": f"from this side on at least {RELIABLE:.0%} of every size are found",
    "ms": "median time of one picture, on one thread",
}

#: From the box of the 68 landmarks to the face box, medians over renderings of the face model.
_FACE_FROM_LANDMARKS = BoxMap(0.0, -0.24, 1.23)
_CONTEXT = 2.2  # side of a pasted portrait over that of its face
_PER_PICTURE = 8
_RENDERED = 24  # portraits, at most


@dataclass(frozen=True)
class Scene:
    """A picture and the faces in it.

    Attributes:
        rgb: (H, W, 3) uint8.
        boxes: (N, 4) face boxes, pixels.
        ignored: (M, 4) parts where faces may be that are not among `boxes`.
        name: of its preview.
    """

    rgb: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    ignored: NDArray[np.float64]
    name: str = ""


def read_boxes(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Face boxes of a `.boxes` file: lines "x0 y0 x1 y1", pixels, and `ignore` after some.

    Returns:
        (N, 4) boxes and (M, 4) parts to ignore.

    Raises:
        DataError: a line says something else.
    """
    kept: dict[bool, list[list[float]]] = {False: [], True: []}
    for number, line in enumerate(Path(path).read_text(errors="replace").splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            box = [float(word) for word in words[:4]]
            valid = box[2] > box[0] and box[3] > box[1] and words[4:] in ([], ["ignore"])
        except (ValueError, IndexError):
            valid = False
        if not valid or not np.isfinite(box).all():
            raise DataError(
                'lines "x0 y0 x1 y1" with x0 < x1, y0 < y1, and perhaps `ignore`',
                f"{line.strip()!r} in line {number} of {Path(path).name}",
                "correct the line",
            )
        kept[len(words) > 4].append(box)
    return np.array(kept[False]).reshape(-1, 4), np.array(kept[True]).reshape(-1, 4)


def list_scenes(folder: str | Path, skipped: Skipped) -> dict[str, Path]:
    """Pictures of a folder with NAME.boxes, or NAME.pts (68 landmarks of one face), beside them.

    Args:
        folder: flat.
        skipped: receives pictures without annotation.

    Returns:
        Name -> picture, for `read_scene`.

    Raises:
        DataError: there is no such folder, or no annotated picture in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"a folder of pictures at {root}", "no such folder", "check the path")
    annotated = {}
    for name, path in images_by_name(root, skipped).items():
        if any(path.with_suffix(suffix).is_file() for suffix in (".boxes", ".pts")):
            annotated[name] = path
        else:
            skipped.add(name, "picture without NAME.boxes or NAME.pts")
    if not annotated:
        raise DataError(
            f"NAME.jpg with NAME.boxes or NAME.pts in {root}",
            f"no usable one ({len(skipped.reasons)} left out)",
            "put annotations beside the pictures under the same name",
        )
    return annotated


def read_scene(path: Path) -> Scene:
    """A picture of `list_scenes`.

    With landmarks, where other faces may be as well, all the rest of the picture is ignored.

    Raises:
        FaceReconError: picture or annotation cannot be used.
    """
    rgb, boxes = read_stored_image(path), path.with_suffix(".boxes")
    if boxes.is_file():
        return Scene(rgb, *read_boxes(boxes), path.stem)
    box = face_box_from_points(read_landmarks(path.with_suffix(".pts"), 2))
    everywhere = np.array([[0.0, 0.0, rgb.shape[1], rgb.shape[0]]])
    return Scene(rgb, _FACE_FROM_LANDMARKS(box).astype(np.float64), everywhere, path.stem)


def rendered_portraits(pictures: int) -> Iterator[Scene]:
    """Renderings of the shipped face model, each of another person.

    Args:
        pictures: that are to be composed of them.
    """
    for seed in range(min(_RENDERED, _PER_PICTURE * pictures)):
        head = TurningHead(480, 360, seed=seed)
        t = PERIOD_S * seed / _RENDERED
        skin = head.model.subsets["facial_skin"]
        points = head.camera_from_face(t).apply(
            head.model.vertices(head.identity, head.expression(t))[skin]
        )
        box = face_box_from_points(head.camera.project(points))
        yield Scene(head.render(t), box[None], np.zeros((0, 4)))


@dataclass(frozen=True)
class Composer:
    """Composes pictures of up to eight people each, of random sizes, evenly over their logarithm.

    Attributes:
        faces: (H, W, 3) uint8 portraits, each with the (4,) box of a face in it, which the
            pictures take in turn.
        backgrounds: (H, W, 3) uint8 pictures without faces; none: procedural ones.
        size: width and height, pixels.
        sides_px: least and greatest side of the face boxes. No face is blown up.
        seed: of the random numbers.
    """

    faces: Sequence[tuple[NDArray[np.uint8], NDArray[np.float64]]]
    backgrounds: Sequence[NDArray[np.uint8]] = ()
    size: tuple[int, int] = (1280, 720)
    sides_px: tuple[float, float] = (16.0, 200.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.faces:
            raise DataError(
                "portraits with a face", "none", "annotate some, or leave --images out"
            )

    def __call__(self, number: int) -> Scene:
        """The picture of this number."""
        random = np.random.default_rng((self.seed, number))
        rgb = _background(self.size, self.backgrounds, random)
        boxes: list[NDArray[np.float64]] = []
        pasted: list[NDArray[np.float64]] = []
        for taken in range(number * _PER_PICTURE, (number + 1) * _PER_PICTURE):
            face = self.faces[taken % len(self.faces)]
            patch, box = _portrait(*face, self.sides_px, random)
            room = np.array(self.size) - patch.shape[1::-1]
            for x, y in random.integers(0, room, (20, 2)) if (room > 0).all() else ():
                place = np.array([x, y, x + patch.shape[1], y + patch.shape[0]], np.float64)
                if not pasted or iou(place, pasted).max() == 0.0:
                    rgb[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
                    boxes.append(box + np.array([x, y, x, y]))
                    pasted.append(place)
                    break
        parts = (np.array(some).reshape(-1, 4) for some in (boxes, pasted))
        return Scene(rgb, *parts, f"{number:04d}")


def _portrait(
    rgb: NDArray[np.uint8],
    box: NDArray[np.float64],
    sides_px: tuple[float, float],
    random: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A face with its surroundings, shrunk to a random size, and its box therein."""
    side = float(np.sqrt(np.prod(box[2:] - box[:2])))
    low, high = np.log(sides_px)
    scale = min(float(np.exp(random.uniform(low, high))) / side, 1.0)
    centre, reach = (box[:2] + box[2:]) / 2, _CONTEXT * side / 2
    x0, y0 = np.maximum(np.floor(centre - reach), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(centre + reach), rgb.shape[1::-1]).astype(int)
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    patch = cv2.resize(rgb[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA)
    stretch = np.array([size[0] / (x1 - x0), size[1] / (y1 - y0)] * 2)
    # Boxes count from pixel centres, a picture's edge lies half a pixel before the first.
    return np.asarray(patch, np.uint8), (box - [x0, y0, x0, y0] + 0.5) * stretch - 0.5


def _background(
    size: tuple[int, int], given: Sequence[NDArray[np.uint8]], random: np.random.Generator
) -> NDArray[np.uint8]:
    """One of the given pictures, filling the size, or clouds of noise with rectangles."""
    if given:
        picture = given[int(random.integers(len(given)))]
        scale = max(size[0] / picture.shape[1], size[1] / picture.shape[0])
        whole = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return np.array(cv2.resize(whole[: size[1], : size[0]], size), np.uint8)
    image = np.full((size[1], size[0], 3), random.uniform(40, 200, 3), np.float32)
    for cells in (3, 8, 20, 60, 160):
        noise = random.standard_normal((cells, cells, 3)).astype(np.float32)
        image += random.uniform(4, 30) * cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(30):
        corner, extent = random.integers(0, size), random.integers(8, 160, 2)
        colour = random.uniform(0, 255, 3).tolist()
        cv2.rectangle(image, corner.tolist(), (corner + extent).tolist(), colour, -1)
    return np.asarray(np.clip(image, 0, 255), np.uint8)


@dataclass(frozen=True)
class Match:
    """What became of the faces and the detections of one scene.

    Attributes:
        found: (N,) index of each face's detection, -1 where it was missed.
        wrong: (D,) whether a detection shows no face, or one that was found already.
    """

    found: NDArray[np.intp]
    wrong: NDArray[np.bool_]


def match(scene: Scene, detections: Detections) -> Match:
    """Assigns detections to faces, best first, each to the one it overlaps most."""
    shared = iou(scene.boxes, detections.boxes)
    found = np.full(len(scene.boxes), -1, np.intp)
    wrong = np.zeros(len(detections), np.bool_)
    for j in np.argsort(-detections.scores, kind="stable"):
        i = int(np.argmax(shared[:, j])) if len(scene.boxes) else -1
        if i < 0 or shared[i, j] < MIN_IOU:
            centre = (detections.boxes[j, :2] + detections.boxes[j, 2:]) / 2
            inside = (scene.ignored[:, :2] <= centre) & (centre <= scene.ignored[:, 2:])
            wrong[j] = not inside.all(axis=1).any()
        elif found[i] >= 0:
            wrong[j] = True
        else:
            found[i] = j
    return Match(found, wrong)


@dataclass(frozen=True)
class DetectionScorer(Generic[Item]):
    """Scores the detections of one picture, for `run_stills`.

    Attributes:
        scene: makes the picture of an item, with its faces.
        detector: made to report all that scores `THRESHOLDS[0]` and more.
        min_score: threshold of the main figures.
        min_side_px: smaller faces count neither as missed nor as wrong.
        preview: where to write the picture as `draw` makes it; None: nowhere.
    """

    scene: Callable[[Item], Scene]
    detector: PerProcess[Detector]
    min_score: float
    min_side_px: float = 24.0
    preview: Path | None = None

    def __call__(self, item: Item) -> dict[str, Any]:
        """Sides of faces, scores that found them (0: missed), scores of right and wrong ones."""
        scene, detector = self.scene(item), self.detector.value
        start = time.perf_counter()
        detections = detector.detect(scene.rgb)
        ms = 1e3 * (time.perf_counter() - start)
        matched = match(scene, detections)
        side = np.sqrt(np.maximum(scene.boxes[:, 2:] - scene.boxes[:, :2], 0.0).prod(axis=1))
        scores = np.append(detections.scores, np.float32(0.0))[matched.found]
        if self.preview is not None:
            picture = draw(scene, matched, detections, self.min_score)
            write_image(self.preview / f"{scene.name}.png", picture, "choose another --preview")
        return {
            "side": side,
            "best": scores,
            "right": scores[(side >= self.min_side_px) & (matched.found >= 0)],
            "wrong": detections.scores[matched.wrong],
            "ms": ms,
        }


def evaluate_detection(
    items: Mapping[str, Item],
    scorer: DetectionScorer[Item],
    skipped: Skipped,
    execution: Execution = HERE,
) -> dict[str, Any]:
    """Measures a detector.

    Args:
        items: name -> what `scorer` makes a picture of.
        scorer: of each picture.
        skipped: receives what cannot be used.
        execution: where pictures are worked on.

    Raises:
        DataError: no picture can be used, or there is no face at all.
    """
    scores = run_stills(
        items, scorer, skipped, execution, wanted="readable picture with its boxes"
    )
    side, score, right, wrong = (
        np.concatenate([s[key] for s in scores.values()]).astype(np.float64)
        for key in ("side", "best", "right", "wrong")
    )
    large = side >= scorer.min_side_px
    if not large.any():
        raise DataError(
            f"faces of {scorer.min_side_px:g} pixels and more",
            f"{len(side)} faces",
            "set --min-side",
        )

    def figures(threshold: float) -> dict[str, float]:
        hits, misses = (right >= threshold).sum(), (wrong >= threshold).sum()
        return {
            "recall": float((score[large] >= threshold).mean()),
            "precision": float(hits / max(hits + misses, 1)) if hits + misses else float("nan"),
            "false_positives": int(misses),
        }

    by_size = _by_size(side, score >= scorer.min_score)
    return {
        "protocol": {
            **PROTOCOL,
            "min_score": scorer.min_score,
            "min_side_px": scorer.min_side_px,
        },
        "pictures": len(scores),
        "faces": int(large.sum()),
        **figures(scorer.min_score),
        "reliable_px": _reliable_from(by_size),
        "by_size": by_size,
        "curve": [{"min_score": t, **figures(t)} for t in THRESHOLDS],
        "ms": float(np.median([s["ms"] for s in scores.values()])),
        "skipped": skipped.as_json(),
    }


def _by_size(side: NDArray[np.float64], found: NDArray[np.bool_]) -> list[dict[str, Any]]:
    rows = []
    for low, high in itertools.pairwise(SIZES_PX):
        some = (side >= low) & (side < high)
        if some.any():
            recall = float(found[some].mean())
            rows.append(
                {"from_px": low, "to_px": high, "faces": int(some.sum()), "recall": recall}
            )
    return rows


def _reliable_from(by_size: list[dict[str, Any]]) -> float:
    """Least size from which on all rows are found reliably; NaN where not even the largest is."""
    reliable = float("nan")
    for row in reversed(by_size):
        if row["recall"] < RELIABLE:
            break
        reliable = row["from_px"]
    return reliable


def draw(
    scene: Scene, matched: Match, detections: Detections, min_score: float
) -> NDArray[np.uint8]:
    """The picture with its faces: found green, missed yellow; wrong detections red."""
    picture = scene.rgb.copy()
    scores = np.append(detections.scores, np.float32(0.0))[matched.found]
    colours = np.where(scores[:, None] >= min_score, [60, 220, 60], [255, 220, 0])
    wrong = matched.wrong & (detections.scores >= min_score)
    boxes = np.concatenate([scene.boxes, detections.boxes[wrong]])
    colours = np.concatenate([colours, np.tile([255, 40, 40], (int(wrong.sum()), 1))])
    for box, colour in zip(boxes.round().astype(int).tolist(), colours.tolist(), strict=True):
        cv2.rectangle(picture, box[:2], box[2:], colour, 2)
    return picture
