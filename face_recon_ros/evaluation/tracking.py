"""`face-recon evaluate tracking`: does every face keep its id, and has every mesh a face?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError, FaceReconError, reason
from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.pipeline import Frame
from face_recon_ros.core.types import Image
from face_recon_ros.evaluation.datasets import read_stored_image
from face_recon_ros.evaluation.mot import (
    DEFINITIONS,
    FoundFace,
    MotAccumulator,
    MotConfig,
    TrueFace,
)
from face_recon_ros.evaluation.room import Person, dressed

#: An image, the camera that took it, and all its faces.
Annotated = tuple[Image, PinholeCamera | None, Sequence[TrueFace]]

_COLOURS = np.random.default_rng(3).integers(60, 256, (97, 3))


class Pipeline(Protocol):
    """What is measured: `core.pipeline.FacePipeline`, fresh, with nothing seen yet."""

    def process(self, image: Image, camera: PinholeCamera | None = None) -> Frame:
        """The next image."""
        ...


def evaluate_tracking(
    frames: Iterable[Annotated],
    pipeline: Pipeline,
    config: MotConfig | None = None,
    *,
    show: Callable[[Image, Sequence[TrueFace], Frame], None] | None = None,
) -> dict[str, Any]:
    """Measures ids over a sequence.

    Args:
        frames: by rising stamp.
        pipeline: to be measured.
        config: what counts.
        show: called with each image, its truth and what was found.

    Returns:
        The figures of `MotAccumulator`, their definitions, and the time per frame.
    """
    counts = MotAccumulator(config or MotConfig())
    seconds: list[float] = []
    for image, camera, truth in frames:
        start = time.perf_counter()
        frame = pipeline.process(image, camera)
        seconds.append(time.perf_counter() - start)
        found = [FoundFace(f.track.id, np.asarray(f.box, np.float64)) for f in frame.faces]
        counts.add(image.stamp, truth, found)
        if show:
            show(image, truth, frame)
    if not seconds:
        raise DataError("at least one image", "none", "check the source")
    return {
        "definitions": DEFINITIONS,
        "settings": vars(counts.config),
        **counts.figures(),
        "ms_per_frame": {
            "p50": 1e3 * float(np.percentile(seconds, 50)),
            "p99": 1e3 * float(np.percentile(seconds, 99)),
        },
    }


def read_mot(path: str | Path) -> dict[int, list[TrueFace]]:
    """Truth in MOTChallenge's text format.

    Args:
        path: of lines `frame,id,left,top,width,height[,consider[,class,visibility]]`; frames
            count from 1, pixels; `consider` 0 makes a face that counts neither way.

    Returns:
        Frame number -> faces.

    Raises:
        DataError: no file, or a line of another form.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"a truth file at {path}", reason(fault), "check the path") from None
    faces: dict[int, list[TrueFace]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            frame, person, *rest = line.split(",")
            left, top, width, height, *more = (float(v) for v in rest)
            if not (np.isfinite([left, top, width, height]).all() and width > 0 and height > 0):
                raise ValueError("a box without area")
            if int(frame) < 1:
                raise ValueError("frames count from 1")
            box = np.array([left, top, left + width, top + height])
            clear = not more or more[0] != 0
            faces.setdefault(int(frame), []).append(TrueFace(person.strip(), box, clear))
        except ValueError as fault:
            raise DataError(
                f"frame,id,left,top,width,height in line {number} of {path}",
                f"{line[:60]!r} ({fault})",
                "write it as MOTChallenge's gt.txt",
            ) from None
    return faces


def mot_lines(number: int, truth: Sequence[TrueFace]) -> Iterator[str]:
    """Lines of MOTChallenge's gt.txt for the faces of a frame, which counts from 1."""
    for face in truth:
        x0, y0, x1, y1 = face.box
        share = getattr(face, "visible", 1.0)
        yield (
            f"{number},{face.person},{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},"
            f"{int(face.clear)},1,{share:.3f}"
        )


def with_truth(
    images: Iterable[tuple[Image, PinholeCamera]], truth: Mapping[int, Sequence[TrueFace]]
) -> Iterator[Annotated]:
    """Images of a source and their cameras, each with the faces of its number."""
    for number, (image, camera) in enumerate(images, 1):
        yield image, camera, truth.get(number, ())


def portrait_people(
    folder: Path,
    reconstruct: Callable[[NDArray[np.uint8]], Frame],
    model: MorphableModel,
    count: int,
    seed: int = 0,
) -> list[Person]:
    """People who wear the colours of portraits, for a room in which faces differ as real ones do.

    Args:
        folder: of portraits, one person each.
        reconstruct: picture -> its faces, whole heads of `model` with colours of the picture.
        model: face model, whole head.
        count: how many people.
        seed: of the choice, and of clothes.

    Raises:
        DataError: not enough portraits in which a face is found.
    """
    if not folder.is_dir():
        raise DataError(f"a folder of portraits at {folder}", "no such folder", "check the path")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    rng = np.random.default_rng(seed)
    people: list[Person] = []
    for i in rng.permutation(len(paths)):
        if len(people) == count:
            break
        try:
            rgb = read_stored_image(paths[i])
        except FaceReconError:
            continue
        faces = reconstruct(rgb).faces
        if len(faces) != 1 or faces[0].mesh.colours is None:
            continue
        face = faces[0]
        hair = np.asarray(_above(rgb, face.box) / np.float32(255), np.float32)
        mesh = face.mesh
        people.append(
            dressed(model, paths[i].stem, mesh.vertices, face.mesh.colours, rng, hair=hair)
        )
    if len(people) < count:
        raise DataError(
            f"{count} portraits with one face in {folder}",
            f"{len(people)} of {len(paths)}",
            "add portraits, or ask for fewer people",
        )
    return people


def _above(rgb: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float64]:
    """(3,) middle colour of the hair: right above the face box."""
    x0, y0, x1, _ = np.asarray(box, np.float64)
    side = x1 - x0
    top, bottom = max(int(y0 - 0.12 * side), 0), max(int(y0 + 0.02 * side), 1)
    left, right = max(int(x0 + 0.35 * side), 0), max(int(x0 + 0.65 * side), 1)
    return np.asarray(np.median(rgb[top:bottom, left:right].reshape(-1, 3), axis=0))


def draw(image: Image, truth: Sequence[TrueFace], frame: Frame) -> NDArray[np.uint8]:
    """The picture with true faces (thin, grey where unclear) and found ones, coloured by id."""
    rgb = image.rgb.copy()
    for face in truth:
        x0, y0, x1, y1 = np.rint(face.box).astype(int)
        colour = (255, 255, 255) if face.clear else (110, 110, 110)
        cv2.rectangle(rgb, (x0, y0), (x1, y1), colour, 1)
        cv2.putText(rgb, face.person, (x0, y1 + 14), 0, 0.4, colour, 1, cv2.LINE_AA)
    for found in frame.faces:
        x0, y0, x1, y1 = np.rint(found.box).astype(int)
        number = int.from_bytes(found.track.id.encode(), "big")
        red, green, blue = (int(v) for v in _COLOURS[number % len(_COLOURS)])
        cv2.rectangle(rgb, (x0 - 2, y0 - 2), (x1 + 2, y1 + 2), (red, green, blue), 2)
        at = (x0, y0 - 6)
        cv2.putText(rgb, found.track.id, at, 0, 0.55, (red, green, blue), 2, cv2.LINE_AA)
    return rgb
