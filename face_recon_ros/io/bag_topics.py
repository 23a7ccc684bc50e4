"""Which topic of a bag holds the camera's images, recognised by content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import DataError, FaceReconError
from face_recon_ros.io.bags import CAMERA_INFO, IMAGE, IMAGE_TYPES, OWN_NAMESPACE, Bag
from face_recon_ros.io.encodings import COLOUR, DEPTH, GREY
from face_recon_ros.io.messages import ImageStream

_DOUBTFUL = "doubtful"  # may be a picture; taken where nothing better is
_RANK = {COLOUR: 3, GREY: 2, _DOUBTFUL: 1}
_LOOKS = (0.0, 0.5, 0.9)  # of the bag's time: an image is looked at there
_FLAT = 2  # grey levels between channels that coding alone makes
_MASK_LEVELS = 8  # a picture has more
_NAMED_DEPTH = re.compile(r"depth|dispar|range_image", re.IGNORECASE)
_NAMED_MASK = re.compile(r"mask|segment|label|semantic|confidence|heatmap", re.IGNORECASE)
_NAMED_DRAWING = re.compile(
    r"debug|overlay|annot|result|visuali[sz]|marker|detect|plot|mosaic|preview|thumb|stitch",
    re.IGNORECASE,
)
_USUAL = re.compile(r"image(_raw|_color|_colour|_rect|_rect_color|_mono)?(/compressed)?$")


@dataclass(frozen=True)
class TopicContent:
    """What a topic's images show.

    Attributes:
        topic: name.
        content: `colour`, `grey`, `doubtful`, `depth` (and masks); empty where none was readable.
        why: in words, for messages.
    """

    topic: str
    content: str
    why: str


def choose_image_topic(bag: Bag, topic: str = "") -> str:
    """The topic asked for, else the one that shows most: colour, then grey; never depth or masks.

    Among equals a camera's own topic goes before drawings (by name and CameraInfo beside it), then
    the one with most images, raw before compressed. What this package publishes is no input.

    Raises:
        DataError: no such topic; says which there are and what they show.
    """
    if topic:
        return bag.require(topic, *IMAGE_TYPES)
    candidates = bag.of_type(*IMAGE_TYPES)
    contents = [content_of(bag, name) for name in candidates]
    usable = {c.topic: c for c in contents if c.content in _RANK}
    if not usable:
        shown = ", ".join(f"{c.topic} ({c.why})" for c in contents)
        raise DataError(
            f"a topic of colour or grey images ({' or '.join(IMAGE_TYPES)}) in {bag.path}",
            f"only {shown or bag.listing()}",
            "record the camera's image topic, or name one with --image-topic (camera.topic)",
        )

    most = max(bag.counts[name] for name in usable)

    def rank(name: str) -> tuple[object, ...]:
        return (
            _RANK[usable[name].content],
            not _NAMED_DRAWING.search(name),
            2 * bag.counts[name] >= most,
            bool(_info_beside(bag.topics, name)),
            bool(_USUAL.search(name)),
            bag.counts[name],
            bag.topics[name] == IMAGE,
        )

    return max(sorted(usable), key=rank)


def content_of(bag: Bag, topic: str) -> TopicContent:
    """What the images of a topic show, by a few of them and the topic's name."""
    if _NAMED_DEPTH.search(topic):
        return TopicContent(topic, DEPTH, "depth by its name")
    if _NAMED_MASK.search(topic):
        return TopicContent(topic, DEPTH, "a mask by its name")
    stream, faults, seen = ImageStream(), [], []
    doubtful = False
    for msg in _samples(bag, topic):
        if getattr(msg, "encoding", "") == "16UC1":
            doubtful = True
            if _like_depth(msg):
                return TopicContent(topic, DEPTH, "depth: 16UC1 with holes")
        try:
            seen.append(stream.read(msg).rgb)
        except FaceReconError as fault:
            faults.append(fault)
    if not seen:
        return TopicContent(topic, "", faults[0].got if faults else "no image")
    if doubtful or all(_is_mask(rgb) for rgb in seen):
        return TopicContent(topic, _DOUBTFUL, "16UC1" if doubtful else "a few levels only")
    if any(_is_coloured(rgb) for rgb in seen):
        return TopicContent(topic, COLOUR, "colour")
    return TopicContent(topic, GREY, "grey")


def _samples(bag: Bag, topic: str) -> Iterator[object]:
    for share in _LOOKS:
        since = None
        if share and bag.span_ns is not None:
            low, high = bag.span_ns
            since = low + round(share * (high - low))
        first = next(bag.messages(topic, since_ns=since), None)
        if first is not None:
            yield first[1]


def _is_coloured(rgb: NDArray[np.uint8]) -> bool:
    small = rgb[:: max(1, rgb.shape[0] // 120), :: max(1, rgb.shape[1] // 120)].astype(np.int16)
    spread = small.max(axis=2) - small.min(axis=2)
    return bool((spread > _FLAT).mean() > 0.002)


def _is_mask(rgb: NDArray[np.uint8]) -> bool:
    """A few levels and large areas of each: labels. A plain picture has one level and is none."""
    small = rgb[:: max(1, rgb.shape[0] // 240), :: max(1, rgb.shape[1] // 240)].reshape(-1, 3)
    levels = len(np.unique(small, axis=0))
    return 1 < levels <= _MASK_LEVELS


def _like_depth(msg: Any) -> bool:
    """Whether 16-bit values are distances: holes (zero), and nothing nearer than sensors see.

    Those of a camera's light go down to zero without a gap.
    """
    values = np.frombuffer(msg.data, ">u2" if msg.is_bigendian else "<u2")
    seen = values[values > 0]
    if seen.size == 0 or seen.min() == seen.max():
        return True
    low, high = np.percentile(seen, [0.1, 99.5])
    return bool((values == 0).mean() > 0.005 and low > 0.02 * high)


def camera_info_topic(types: Mapping[str, str], image_topic: str) -> str:
    """The topic of the CameraInfo beside an image topic, else the only free one.

    Empty without any.
    """
    there = [topic for topic, kind in types.items() if kind == CAMERA_INFO]
    images = [t for t, kind in types.items() if kind in IMAGE_TYPES]
    images = [t for t in images if not t.startswith(OWN_NAMESPACE)]
    claimed = {_info_beside(types, topic) for topic in images}
    only = there[0] if len(there) == 1 and there[0] not in claimed else ""
    return _info_beside(types, image_topic) or only


def _info_beside(types: Mapping[str, str], topic: str) -> str:
    parts = topic.split("/")
    names = ("/".join([*parts[:n], "camera_info"]) for n in range(len(parts) - 1, 0, -1))
    return next((name for name in names if types.get(name) == CAMERA_INFO), "")
