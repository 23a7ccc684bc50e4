"""rosbag2 files read for measuring: sqlite3 and mcap, whole or cut off, with or without ROS.

The package `rosbags` reads what is whole. A recorder that was killed leaves no index; then the
messages up to the break are read one by one. Either way `problems` says what was wrong.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import CameraError, DataError, ImageError
from face_recon_ros.core.types import Image
from face_recon_ros.io import bag_source
from face_recon_ros.io.bag_source import CAMERA_INFO, IMAGE_TYPES, OWN_NAMESPACE
from face_recon_ros.io.camera_messages import camera_from_msg, seconds_from_stamp

POSE = "geometry_msgs/msg/PoseStamped"
TF = "tf2_msgs/msg/TFMessage"

_REORDER = 8  # images held back so that stamps can be put in order


class RawMessage(NamedTuple):
    """A message as recorded.

    Attributes:
        topic: name.
        type: e.g. `sensor_msgs/msg/Image`.
        log_ns: when it was recorded, nanoseconds.
        data: CDR.
    """

    topic: str
    type: str
    log_ns: int
    data: bytes


@dataclass
class Bag:
    """A recording.

    Attributes:
        path: as given.
        topics: topic -> type, of all topics.
        counts: topic -> number of messages.
        problems: what was wrong with the file, in words.
    """

    path: Path
    topics: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    _read: Callable[[set[str], set[int] | None], Iterator[RawMessage]] = lambda *_: iter(())

    def messages(
        self, *topics: str, at: Iterable[int] | None = None
    ) -> Iterator[tuple[RawMessage, Any]]:
        """Messages of some topics with their decoded form, in recorded order; stops at a break.

        Args:
            topics: to read.
            at: only what was recorded at these times (`log_ns`), found by the bag's index.
        """
        typestore = _typestore()
        try:
            for raw in self._read(set(topics), None if at is None else set(at)):
                try:
                    decoded = typestore.deserialize_cdr(raw.data, raw.type)
                except Exception as fault:  # rosbags lets struct, index and value errors through
                    self.note(f"a message of {raw.topic} cannot be decoded: {_line(fault)}")
                    continue
                yield raw, decoded
        except _BREAKS as fault:
            self.note(f"{self.path.name} breaks off: {_line(fault)}")

    def of_type(self, *types: str) -> list[str]:
        """Topics of some message types, by name, the pipeline's own left out."""
        return sorted(
            t
            for t, kind in self.topics.items()
            if kind in types and not t.startswith(OWN_NAMESPACE)
        )

    def require(self, topic: str, *types: str) -> str:
        """The topic, if it is there.

        Raises:
            DataError: it is not; says which are.
        """
        if self.topics.get(topic) in types:
            return topic
        there = ", ".join(f"{t} ({kind})" for t, kind in sorted(self.topics.items())) or "none"
        raise DataError(
            f"topic {topic} of {' or '.join(types)} in {self.path}",
            f"only {there}",
            "choose one of these topics",
        )

    def note(self, problem: str) -> None:
        """Adds to `problems`, once."""
        if problem not in self.problems:
            self.problems.append(problem)


def open_bag(path: str | Path) -> Bag:
    """Opens a rosbag2 folder, or one .mcap or .db3 file.

    Raises:
        DataError: there is no bag, or nothing can be read of it.
    """
    place = Path(path).expanduser()
    files = _storage_files(place)
    if not files:
        raise DataError(
            f"a rosbag2 (folder, .mcap or .db3) at {place}",
            "no such thing",
            "check the path",
        )
    bag = Bag(place)
    try:
        _open_whole(bag)
    except _BREAKS as fault:
        bag.note(f"{place.name} is damaged, read up to the break: {_line(fault)}")
        _open_broken(bag, files)
    if not bag.topics:
        raise DataError(f"messages in {place}", "; ".join(bag.problems) or "none", "record anew")
    return bag


def _storage_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place] if place.suffix in (".mcap", ".db3") else []
    return sorted([*place.glob("*.mcap"), *place.glob("*.db3")])


def _open_whole(bag: Bag) -> None:
    from rosbags.rosbag2 import Reader

    folder = bag.path.is_dir()
    if folder and not (bag.path / "metadata.yaml").is_file():
        files = _storage_files(bag.path)
        bag.note(f"{bag.path.name} has no metadata.yaml")
        sources = files
    else:
        sources = [bag.path]
    for source in sources:
        with Reader(source) as reader:
            for connection in reader.connections:
                bag.topics[connection.topic] = connection.msgtype
                bag.counts[connection.topic] += connection.msgcount

    def read(topics: set[str], at: set[int] | None) -> Iterator[RawMessage]:
        spans = [(None, None)] if at is None else [(ns, ns + 1) for ns in sorted(at)]
        for source in sources:
            with Reader(source) as reader:
                wanted = [c for c in reader.connections if c.topic in topics]
                for span in spans if wanted else ():  # of no connections rosbags would read all
                    for connection, log_ns, data in reader.messages(wanted, *span):
                        yield RawMessage(connection.topic, connection.msgtype, log_ns, bytes(data))

    bag._read = read


def _open_broken(bag: Bag, files: list[Path]) -> None:
    def read(topics: set[str] | None, at: set[int] | None = None) -> Iterator[RawMessage]:
        for path in files:
            scan = _scan_mcap if path.suffix == ".mcap" else _scan_sqlite
            try:
                for raw in scan(path):
                    wanted = topics is None or raw.topic in topics
                    if wanted and (at is None or raw.log_ns in at):
                        yield raw
            except _BREAKS as fault:
                bag.note(f"{path.name} breaks off: {_line(fault)}")

    for raw in read(None):
        bag.topics[raw.topic] = raw.type
        bag.counts[raw.topic] += 1
    bag._read = read


def _scan_sqlite(path: Path) -> Iterator[RawMessage]:
    """All messages of a database, up to the first page that is missing."""
    with tempfile.TemporaryDirectory() as folder:
        # SQLite refuses a file shorter than its header says: lengthen a copy by (sparse) zeros.
        copy = Path(shutil.copy(path, Path(folder) / "copy.db3"))
        head = _head(copy, 100)
        if len(head) < 100 or head[:16] != b"SQLite format 3\0":
            raise ValueError("no SQLite database")
        page, pages = struct.unpack(">H", head[16:18])[0], struct.unpack(">I", head[28:32])[0]
        size = (65536 if page == 1 else page) * pages
        if copy.stat().st_size < size:
            os.truncate(copy, size)
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            rows = connection.execute("SELECT id, name, type FROM topics")
            topics = {key: (name, kind) for key, name, kind in rows}
            query = "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
            for topic, log_ns, data in connection.execute(query):
                if topic in topics:
                    yield RawMessage(*topics[topic], log_ns, data)
        if path.stat().st_size < size:
            raise ValueError("the file is shorter than it should be")


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


_MCAP_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F


def _scan_mcap(path: Path) -> Iterator[RawMessage]:
    """All messages of an mcap file from its start, without its index (mcap.dev/spec)."""
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, int]] = {}
    with path.open("rb") as file:
        if file.read(8) != _MCAP_MAGIC:
            raise ValueError("no mcap file")
        yield from _scan_records(file, schemas, channels)


def _scan_records(
    stream: BinaryIO, schemas: dict[int, str], channels: dict[int, tuple[str, int]]
) -> Iterator[RawMessage]:
    while head := stream.read(9):
        if len(head) < 9:
            raise ValueError("cut off in the middle of a record")
        kind, size = head[0], struct.unpack("<Q", head[1:])[0]
        if kind == _DATA_END:
            return
        body = stream.read(size)
        if len(body) < size:
            if kind == _CHUNK and len(body) > 32 and not _chunk_compression(body):
                yield from _scan_records(BytesIO(_unpack_chunk(body)), schemas, channels)
            raise ValueError("cut off in the middle of a record")
        if kind == _SCHEMA:
            key, length = struct.unpack_from("<HI", body)
            schemas[key] = body[6 : 6 + length].decode()
        elif kind == _CHANNEL:
            key, schema, length = struct.unpack_from("<HHI", body)
            channels[key] = (body[8 : 8 + length].decode(), schema)
        elif kind == _MESSAGE:
            key, _, log_ns, _ = struct.unpack_from("<HIQQ", body)
            if key in channels:
                topic, schema = channels[key]
                yield RawMessage(topic, schemas.get(schema, ""), log_ns, body[22:])
        elif kind == _CHUNK:
            yield from _scan_records(BytesIO(_unpack_chunk(body)), schemas, channels)


def _chunk_compression(body: bytes) -> str:
    (length,) = struct.unpack_from("<I", body, 28)
    return body[32 : 32 + length].decode()


def _unpack_chunk(body: bytes) -> bytes:
    (size,) = struct.unpack_from("<Q", body, 16)
    compression = _chunk_compression(body)
    records = body[32 + len(compression) + 8 :]
    if compression == "":
        return records
    from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

    if compression not in DECOMPRESSORS:
        raise ValueError(f"chunks compressed with {compression}")
    return bytes(DECOMPRESSORS[compression](records, size))


def _typestore() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.LATEST)


def _breaks() -> tuple[type[Exception], ...]:
    kinds: tuple[type[Exception], ...] = (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        IndexError,
        TypeError,
        struct.error,
        sqlite3.Error,
        RuntimeError,
    )
    try:
        from rosbags.rosbag2.errors import ReaderError
    except ImportError:
        return kinds
    return (*kinds, ReaderError)


_BREAKS = _breaks()


def _line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]


# What is in it -----------------------------------------------------------------------------------


@dataclass
class ImageCounts:
    """How the images of a topic came.

    Attributes:
        read: messages.
        unreadable: with pixels that cannot be used.
        duplicates: with the stamp of another one, left out.
        reordered: put back in order.
        late: too late even for that, left out.
    """

    read: int = 0
    unreadable: int = 0
    duplicates: int = 0
    reordered: int = 0
    late: int = 0


def choose_image_topic(bag: Bag, topic: str = "") -> str:
    """The topic asked for, else the one with most colour images.

    Raises:
        DataError: no such topic; says which there are.
    """
    if topic:
        return bag.require(topic, *IMAGE_TYPES)
    chosen = bag_source.choose_image_topic(bag.topics, bag.counts)
    if not chosen:
        there = ", ".join(f"{t} ({kind})" for t, kind in sorted(bag.topics.items()))
        raise DataError(
            f"an image topic ({' or '.join(IMAGE_TYPES)}) in {bag.path}",
            f"only {there}",
            "record the camera's image topic",
        )
    return chosen


def images_in_order(
    bag: Bag, topic: str, counts: ImageCounts, recorded: dict[float, int] | None = None
) -> Iterator[Image]:
    """The images of a topic by rising header stamp, read once and never all at once.

    Args:
        bag: to read.
        topic: of images, raw or compressed.
        counts: filled in along the way.
        recorded: filled in too: stamp -> `log_ns`, to find an image again.
    """
    decode = IMAGE_TYPES[bag.topics[topic]]
    held: list[tuple[float, int, Image]] = []
    newest = last = -np.inf

    def release() -> Iterator[Image]:
        nonlocal last
        stamp, _, image = heapq.heappop(held)
        if stamp == last:
            counts.duplicates += 1
        elif stamp < last:
            counts.late += 1
        else:
            last = stamp
            yield image

    for raw, msg in bag.messages(topic):
        counts.read += 1
        try:
            image = decode(msg)
        except ImageError:
            counts.unreadable += 1
            continue
        if image.stamp == 0.0:  # a driver that does not stamp: the recorder did
            image = Image(image.rgb, raw.log_ns * 1e-9, image.frame)
        if recorded is not None:
            recorded.setdefault(image.stamp, raw.log_ns)
        counts.reordered += int(last < image.stamp < newest)
        newest = max(newest, image.stamp)
        heapq.heappush(held, (image.stamp, counts.read, image))
        if len(held) > _REORDER:
            yield from release()
    while held:
        yield from release()


class CameraHistory:
    """The CameraInfo that goes with an image: the latest one not after it, else the first."""

    def __init__(self, bag: Bag, image_topic: str, topic: str = "") -> None:
        """Reads the bag's CameraInfo.

        Args:
            bag: to read.
            image_topic: whose camera is sought.
            topic: of CameraInfo; found beside the images without one.
        """
        beside = bag_source.camera_info_topic(bag.topics, image_topic)
        self.topic = bag.require(topic, CAMERA_INFO) if topic else beside
        self.problem = "" if self.topic else "no CameraInfo in the bag"
        self._stamps: list[float] = []
        self._cameras: list[PinholeCamera] = []
        entries: list[tuple[float, PinholeCamera]] = []
        for _, msg in bag.messages(self.topic) if self.topic else ():
            try:
                entries.append((seconds_from_stamp(msg.header.stamp), camera_from_msg(msg)))
            except CameraError as fault:
                self.problem = f"{self.topic}: {fault.got}"
        for stamp, camera in sorted(entries, key=lambda entry: entry[0]):
            self._stamps.append(stamp)
            self._cameras.append(camera)

    def at(self, image: Image) -> PinholeCamera | None:
        """The camera of an image, None without one of its size."""
        if not self._cameras:
            return None
        index = max(int(np.searchsorted(self._stamps, image.stamp, "right")) - 1, 0)
        camera = self._cameras[index]
        if (camera.height, camera.width) != image.rgb.shape[:2]:
            self.problem = f"{self.topic} is {camera.width} x {camera.height}, the image is not"
            return None
        return camera
