"""Photographs as examples for the dense-point network: what several looks of a teacher agree on.

Self-training. The teacher is an exported dense-point network behind its regressor. It looks at
each photograph in several crops, at each in the mirror, too; the mean of the fits is the label.
The network that learns it sees one crop, made worse.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_recon_ros.core.boxes import scattered
from face_recon_ros.core.crop import Picture, whole_crop
from face_recon_ros.core.placement import place_again
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import angle_between, rotation_from_vector
from face_recon_ros.core.types import Track
from face_recon_ros.io.jobs import Pool
from face_recon_ros.training.config import PointConfig
from face_recon_ros.training.photographs import PhotographCache, cache_of, check_kept
from face_recon_ros.training.synthesis.augment import CropChange, Mirror
from face_recon_ros.training.synthesis.faces import Label

#: Looks at each photograph, and how their boxes scatter: middle and size, in sides.
_LOOKS, _SHIFT, _ZOOM = 6, 0.03, 0.06
#: A photograph is left out where a look is less sure of a face, or turned from the mean by more.
_PRESENT, _MAX_TURN = 0.9, np.radians(8)


def open_labelled(config: PointConfig) -> PhotographCache:
    """The run's photographs with a teacher's answers; what is not there yet is made.

    Args:
        config: of the run; `backgrounds` are the photographs.

    Raises:
        DataError: none of them shows a face that the teacher is sure of.
        ModelError: the teacher is missing or of another face model.
    """
    cache = PhotographCache(cache_of(config.out))
    if cache.labelled():
        return cache
    counts = cache.build(config.backgrounds, config, skip_grey=False, pool=Pool())
    settings = ReconstructorConfig(
        face_model=config.face_model, network=config.regressor, points=config.teacher, threads=1
    )
    teacher = FaceReconstructor.from_config(settings)
    pictures = cache.pictures()
    bar = tqdm((pictures[i] for i in range(len(pictures))), "photographs", len(pictures))
    labels = answers(bar, teacher, config.seed)
    known = sum(label is not None for label in labels)
    check_kept({**counts, "kept": known}, config.backgrounds)
    tqdm.write(f"photographs: the teacher is sure of {known} of {len(labels)}")
    cache.write_labels(labels)
    return PhotographCache(cache_of(config.out))


def answers(
    pictures: Iterable[NDArray[np.uint8]], teacher: FaceReconstructor, seed: int
) -> list[Label | None]:
    """What a teacher says of pictures with one face each.

    Args:
        pictures: (P, P, 3) uint8 each, `CONTEXT` crops wide.
        teacher: with dense points.
        seed: of the looks.

    Returns:
        A label for each picture taken as a crop; None where its looks do not agree on a face.
    """
    mirror = Mirror(teacher.model)
    return [
        _answer(picture, teacher, mirror, f"{i}", np.random.default_rng((seed, i)))
        for i, picture in enumerate(pictures)
    ]


def _answer(
    picture: NDArray[np.uint8],
    teacher: FaceReconstructor,
    mirror: Mirror,
    name: str,
    random: np.random.Generator,
) -> Label | None:
    whole = whole_crop(len(picture))
    middle, half = whole.centre_px, len(picture) / 4  # a face fills about half of its picture
    box = np.concatenate([middle - half, middle + half]).astype(np.float32)
    face = Track(name, box, 1.0, 0.0)
    for _ in range(2):
        (face,) = place_again(teacher, picture, [face])
    boxes = scattered(face.box, _LOOKS, _SHIFT, _ZOOM, random)
    tracks = [Track(f"{name}.{k}", box, 1.0, 0.0) for k, box in enumerate(boxes)]
    crops = teacher.crops(tracks)
    seen = teacher.predict(teacher.extract(picture, crops))
    if not seen.usable.all():
        return None
    seen = teacher.fit([Picture(picture)] * _LOOKS, tracks, crops, seen, mirrored=True)
    labels = []
    for k, crop in enumerate(crops):
        label = Label(*(getattr(seen.coefficients, field)[k] for field in Label._fields))
        right, down = (whole.centre_px - crop.centre_px) / crop.side_px
        change = CropChange((float(right), float(down)), whole.side_px / crop.side_px)
        labels.append(change.move(label, mirror))
    mean = Label(
        *(np.mean(values, axis=0, dtype=np.float32) for values in zip(*labels, strict=True))
    )
    turned = [
        angle_between(rotation_from_vector(label.rotation), rotation_from_vector(mean.rotation))
        for label in labels
    ]
    presence = np.zeros(1) if seen.presence is None else seen.presence
    return mean if presence.min() >= _PRESENT and max(turned) < _MAX_TURN else None
