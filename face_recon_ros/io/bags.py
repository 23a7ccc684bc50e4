"""rosbag2 recordings read without ROS: sqlite3 and mcap, whole or cut off, in one file or many.

The content decides what a file is. Files that `rosbags` can open are read by their index,
others message by message up to the break; either way `problems` says what was wrong.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from face_recon_ros.core.errors import ConfigError, DataError
from face_recon_ros.core.models import user_path
from face_recon_ros.io.bag_files import (
    EMPTY,
    MCAP,
    ROS1,
    SQLITE,
    ZSTD,
    RawMessage,
    check_whole,
    in_split_order,
    scan,
    storage_of,
    unpack_zstd,
    unpacked_message,
    with_journal,
)

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSE = "geometry_msgs/msg/PoseStamped"
TF = "tf2_msgs/msg/TFMessage"
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)

OWN_NAMESPACE = "/face/"  # what the pipeline itself publishes is no input

_SUFFIXES = (".mcap", ".db3", ".zstd", ".zst")
Spans = Sequence[tuple[int | None, int | None]]


def is_bag(source: str | Path) -> bool:
    """Whether a path is a recording, by its content: a folder with storage files, or one file."""
    path = user_path(source)
    if path.is_file():
        return (
            path.suffix == ".bag"
            or storage_of(path) in (MCAP, SQLITE, ROS1)
            or (path.suffix in _SUFFIXES)
        )
    return path.is_dir() and ((path / "metadata.yaml").is_file() or bool(_storage_files(path)))


class Bag:
    """A recording.

    Attributes:
        path: as given.
        topics: topic -> type, of all topics.
        counts: topic -> number of messages.
        problems: what was wrong with the files, in words.
        span_ns: when the first and the last message were recorded, nanoseconds; None if unknown.
    """

    def __init__(self, path: Path) -> None:
        """Use `open_bag`."""
        self.path = path
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.span_ns: tuple[int, int] | None = None
        self._files: list[_StorageFile] = []

    def messages(
        self, *topics: str, at: Iterable[int] | None = None, since_ns: int | None = None
    ) -> Iterator[tuple[RawMessage, Any]]:
        """Messages of some topics with their decoded form, in recorded order; stops at a break.

        Args:
            topics: to read.
            at: only what was recorded at these times (`log_ns`).
            since_ns: only what was recorded then or later.
        """
        spans: Spans = [(since_ns, None)]
        if at is not None:
            spans = [(ns, ns + 1) for ns in sorted(set(at))]
        typestore = _typestore()
        for file in self._files:
            try:
                for raw in file.read(set(topics), spans):
                    try:
                        decoded = typestore.deserialize_cdr(raw.data, raw.type)
                    except Exception as fault:  # rosbags lets struct and value errors through
                        self.note(f"a message of {raw.topic} cannot be decoded: {_line(fault)}")
                        continue
                    yield raw, decoded
            except BREAKS as fault:
                self.note(f"{file.path.name} breaks off: {_line(fault)}")

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
        raise DataError(
            f"topic {topic} of {' or '.join(types)} in {self.path}",
            f"only {self.listing()}",
            "choose one of these topics",
        )

    def listing(self) -> str:
        """All topics with their types, in words."""
        return ", ".join(f"{t} ({kind})" for t, kind in sorted(self.topics.items())) or "nothing"

    def note(self, problem: str) -> None:
        """Adds to `problems`, once."""
        if problem not in self.problems:
            self.problems.append(problem)

    def _add(self, file: _StorageFile) -> None:
        self._files.append(file)
        for topic, kind, count in file.open():
            self.topics[topic] = kind
            self.counts[topic] += count
        if file.span_ns is not None:
            low, high = self.span_ns or file.span_ns
            self.span_ns = min(low, file.span_ns[0]), max(high, file.span_ns[1])


class _StorageFile:
    """One file of a bag: by its index where `rosbags` can, else from start to break."""

    def __init__(self, bag: Bag, path: Path) -> None:
        self.path = path
        self._bag = bag
        self._storage = storage_of(path)
        self._indexed = True
        self.span_ns: tuple[int, int] | None = None

    def open(self) -> list[tuple[str, str, int]]:
        """Topics with their types and numbers of messages."""
        try:
            check_whole(self.path, self._storage)
            with self._reader() as reader:
                if reader.message_count:
                    self.span_ns = reader.start_time, reader.end_time
                return [(c.topic, c.msgtype, c.msgcount) for c in reader.connections]
        except BREAKS as fault:
            self._indexed = False
            counts: Counter[tuple[str, str]] = Counter()
            problem = ""
            try:
                for raw in scan(self.path, self._storage):
                    counts[raw.topic, raw.type] += 1
                    low, high = self.span_ns or (raw.log_ns, raw.log_ns)
                    self.span_ns = min(low, raw.log_ns), max(high, raw.log_ns)
            except BREAKS as broken:
                problem = f"{self.path.name} is damaged, read up to the break: {_line(broken)}"
            self._bag.note(
                problem or f"{self.path.name} is read without its index: {_line(fault)}"
            )
            return [(topic, kind, n) for (topic, kind), n in counts.items()]

    def read(self, topics: set[str], spans: Spans) -> Iterator[RawMessage]:
        """Messages of some topics recorded in some spans of time."""
        if not self._indexed:
            for raw in scan(self.path, self._storage):
                if raw.topic in topics and any(_within(raw.log_ns, span) for span in spans):
                    yield raw
            return
        with self._reader() as reader:
            wanted = [c for c in reader.connections if c.topic in topics]
            for span in spans if wanted else ():  # of no connections rosbags would read all
                for connection, log_ns, data in reader.messages(wanted, *span):
                    message = unpacked_message(bytes(data))
                    yield RawMessage(connection.topic, connection.msgtype, log_ns, message)

    def _reader(self) -> Any:
        from rosbags.rosbag2 import Reader

        class ByContent(Reader):  # rosbags decides by the suffix
            STORAGE_PLUGINS: ClassVar = {
                self.path.suffix: Reader.STORAGE_PLUGINS[_SUFFIX_OF[self._storage]]
            }

        return ByContent(self.path)


#: Storage -> suffix by which rosbags knows it.
_SUFFIX_OF = {MCAP: ".mcap", SQLITE: ".db3"}


def open_bag(path: str | Path) -> Bag:
    """Opens a rosbag2 folder, or one storage file.

    Raises:
        DataError: there is no bag, it is one of ROS 1, or nothing can be read of it.
        ConfigError: the package rosbags is not installed.
    """
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as fault:
        raise ConfigError(
            "the package rosbags, which reads bags", str(fault), "pip install rosbags"
        ) from None
    place = user_path(path)
    files = [place] if place.is_file() else _storage_files(place)
    if any(storage_of(f) == ROS1 for f in files) or (place.is_file() and place.suffix == ".bag"):
        raise DataError(
            f"a rosbag2 at {place}",
            "a bag of ROS 1",
            f"convert it: rosbags-convert --src {place.name} --dst {place.stem}",
        )
    wanted = f"a rosbag2 (folder, .mcap or .db3) at {place}"
    if not files:
        raise DataError(wanted, "no such thing", "check the path")
    if place.is_file() and place.suffix not in _SUFFIXES and not storage_of(place):
        raise DataError(
            wanted, "another kind of file", "`face-recon record` makes a bag of a video"
        )
    bag = Bag(place)
    if place.is_dir() and not (place / "metadata.yaml").is_file():
        bag.note(f"{place.name} has no metadata.yaml")
    for file in files:
        _add_file(bag, file)
    if not bag.topics:
        raise DataError(
            f"messages in {place}", "; ".join(bag.problems) or "none", "record it again"
        )
    return bag


def _add_file(bag: Bag, path: Path) -> None:
    storage = storage_of(path)
    if storage == ZSTD:
        folder = tempfile.TemporaryDirectory()
        weakref.finalize(bag, folder.cleanup)
        try:
            path = unpack_zstd(path, Path(folder.name))
        except BREAKS as fault:
            bag.note(f"{path.name} cannot be unpacked: {_line(fault)}")
            return
        storage = storage_of(path)
    journal = path.with_name(f"{path.name}-wal")
    if storage == SQLITE and journal.is_file() and journal.stat().st_size:
        folder = tempfile.TemporaryDirectory()
        weakref.finalize(bag, folder.cleanup)
        try:
            path = with_journal(path, Path(folder.name))
        except BREAKS as fault:
            bag.note(f"the journal of {path.name} cannot be read: {_line(fault)}")
        else:
            bag.note(f"{path.name} was not closed by its recorder: read with its journal")
    if storage == EMPTY:
        bag.note(f"{path.name} is empty")
    elif storage in (MCAP, SQLITE):
        bag._add(_StorageFile(bag, path))
    else:
        bag.note(f"{path.name} is neither mcap nor sqlite3")


def _storage_files(folder: Path) -> list[Path]:
    """The storage files of a folder in the order they were written."""
    return in_split_order([p for p in folder.glob("*") if p.suffix in _SUFFIXES and p.is_file()])


def _within(log_ns: int, span: tuple[int | None, int | None]) -> bool:
    start, stop = span
    return (start is None or log_ns >= start) and (stop is None or log_ns < stop)


def _typestore() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.LATEST)


#: What libraries raise on a damaged file: errors of struct, SQLite, zstd, lz4, CDR, files ...
BREAKS = Exception


def _line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]
