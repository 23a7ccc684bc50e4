"""Annotated images on disk: found, paired, checked.

Unusable files are named and counted, the rest is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import DataError
from face_recon_ros.io.images import read_picture
from face_recon_ros.io.landmarks import read_landmarks as read_landmarks

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass
class Skipped:
    """What was left out, and why.

    Attributes:
        reasons: file name -> reason.
    """

    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        """Notes one file."""
        self.reasons[name] = reason

    def as_json(self) -> dict[str, Any]:
        """Count and list, in the order they were met."""
        return {
            "count": len(self.reasons),
            "files": [{"name": name, "reason": why} for name, why in self.reasons.items()],
        }


@dataclass(frozen=True)
class Sample:
    """One image with its annotation.

    Attributes:
        name: file name without suffix.
        image: path.
        annotations: suffix -> path.
    """

    name: str
    image: Path
    annotations: dict[str, Path]


def images_by_name(root: Path, skipped: Skipped) -> dict[str, Path]:
    """Images of a folder, by file name without suffix, in that order.

    Args:
        root: an existing folder.
        skipped: receives images whose name another one has: the first by file name is used.
    """
    images: dict[str, Path] = {}
    for p in sorted(root.iterdir()):
        is_image = p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
        if is_image and images.setdefault(p.stem, p) != p:
            skipped.add(p.name, f"second image of one name, {images[p.stem].name} is used")
    return images


def list_samples(folder: str | Path, suffixes: tuple[str, ...], skipped: Skipped) -> list[Sample]:
    """Images that have a file of each suffix beside them, by name.

    Args:
        folder: flat folder of NAME.jpg (png, ...) with NAME + suffix.
        suffixes: annotation suffixes, each required, e.g. `.pts`.
        skipped: receives images without annotation, annotations without image, and what
            `images_by_name` leaves out.

    Raises:
        DataError: there is no such folder, or no complete sample in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"a folder of images at {root}", "no such folder", "check the path")
    files = sorted(p for p in root.iterdir() if p.is_file())
    images = images_by_name(root, skipped)
    annotated: dict[str, dict[str, Path]] = {}
    for p in files:
        if p.suffix in suffixes:
            annotated.setdefault(p.stem, {})[p.suffix] = p
    samples = []
    for name in sorted(images.keys() | annotated.keys()):
        own = annotated.get(name, {})
        missing = [s for s in suffixes if s not in own]
        if name not in images:
            skipped.add("".join([name, *list(own)[:1]]), "annotation without image")
        elif missing:
            skipped.add(images[name].name, f"image without annotation {', '.join(missing)}")
        else:
            samples.append(Sample(name, images[name], own))
    if not samples:
        wanted = " and ".join(f"NAME{s}" for s in suffixes)
        raise DataError(
            f"NAME.jpg with {wanted} in {root}",
            f"{len(images)} images, {len(annotated)} annotated names, none complete",
            "put annotations beside their images under the same name",
        )
    return samples


def read_stored_image(path: str | Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, not turned upright: annotations are made on the stored pixels.

    Raises:
        SourceError: it is no readable image.
    """
    return read_picture(path, upright=False).rgb


def camera_beside(image: Path, width: int, height: int) -> PinholeCamera | None:
    """The `camera` of a NAME.json beside a picture; None where there is none.

    Args:
        image: the picture.
        width: of it, pixels.
        height: likewise.

    Raises:
        DataError: it cannot be read, or is of a picture of another size.
    """
    path = image.with_suffix(".json")
    if not path.is_file():
        return None
    expected = f"`camera` in {path.name} as `evaluate synthetic` writes it, {width} x {height}"
    remedy = "restore or remove the file"
    try:
        values = json.loads(path.read_text())
        known = values.get("camera") if isinstance(values, dict) else None
        camera = None if known is None else camera_of_json(known)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise DataError(expected, f"{fault!r}", remedy) from None
    if camera is not None and (camera.width, camera.height) != (width, height):
        raise DataError(expected, f"{camera.width} x {camera.height}", remedy)
    return camera


def camera_of_json(values: dict[str, Any]) -> PinholeCamera:
    """A camera as `evaluate synthetic` writes it: size, matrix, distortion and its model."""
    return PinholeCamera(
        values["width"],
        values["height"],
        np.array(values["matrix"]),
        np.array(values["distortion"]),
        values["distortion_model"],
    )
