"""Storage files of bags: what they are by content, and their messages without an index.

The package `rosbags` reads what is whole and all ROS. Here is what it refuses: recordings that
were cut off, and mcap files with channels of other encodings (JSON, Protobuf) beside ROS ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

#: What stands where a database was cut off: no page of SQLite begins like this, and no picture
#: holds so many of these bytes in a row by chance.
_NO_PAGE = b"\xa5\x5a\xc3\x3c" * 32
_LONGEST_GAP = 1 << 28  # bytes that are written so; beyond them zeros will do
MCAP, SQLITE, ZSTD, ROS1, EMPTY = "mcap", "sqlite3", "zstd", "ROS 1 bag", "empty"

_MCAP_MAGIC = b"\x89MCAP0\r\n"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F


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


def storage_of(path: Path) -> str:
    """What storage file it is: `mcap`, `sqlite3`, `zstd`, `ROS 1 bag`, `empty`; else nothing."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return ""
    if not head:
        return EMPTY
    if head.startswith(_MCAP_MAGIC):
        return MCAP
    if head.startswith(b"SQLite format 3\0"):
        return SQLITE
    if head.startswith(_ZSTD_MAGIC):
        return ZSTD
    return ROS1 if head.startswith(b"#ROSBAG V") else ""


def in_split_order(paths: list[Path]) -> list[Path]:
    """By name, numbers by value: bag_2 before bag_10."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]

    return sorted(paths, key=key)


def unpack_zstd(path: Path, folder: Path) -> Path:
    """A file unpacked into a folder."""
    target = folder / path.stem
    with path.open("rb") as packed, target.open("wb") as out:
        shutil.copyfileobj(zstd_module().open(packed, "rb"), out)
    return target


def with_journal(path: Path, folder: Path) -> Path:
    """A database with what a recorder that crashed left in its journal (-wal), in a folder."""
    copy = Path(shutil.copy(path, folder))
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    return copy


def unpacked_message(data: bytes) -> bytes:
    """A message, unpacked if it was compressed by itself; CDR never begins like that."""
    return bytes(zstd_module().decompress(data)) if data[:4] == _ZSTD_MAGIC else data


def zstd_module() -> Any:
    """Zstandard of the standard library, or of the package that rosbags brings."""
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd


def scan(path: Path, storage: str) -> Iterator[RawMessage]:
    """All ROS messages of a storage file in the order of the file, up to where it breaks.

    Raises:
        ValueError, struct.error, sqlite3.Error: it breaks off there, or is no such file.
    """
    yield from _scan_mcap(path) if storage == MCAP else _scan_sqlite(path)


def _scan_sqlite(path: Path) -> Iterator[RawMessage]:
    """All messages of a database, up to the first page that is missing."""
    with tempfile.TemporaryDirectory() as folder:
        # SQLite refuses a file shorter than its header says: a copy gets pages that are none.
        copy = Path(shutil.copy(path, Path(folder) / "copy.db3"))
        page, size = _database_size(copy)
        there = copy.stat().st_size
        if there < size:
            _lengthen(copy, there // page * page, size)
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            rows = connection.execute("SELECT id, name, type FROM topics")
            topics = {key: (name, kind) for key, name, kind in rows}
            query = "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
            for topic, log_ns, data in connection.execute(query):
                if there < size and _NO_PAGE[:32] in data:
                    break
                if topic in topics:
                    yield RawMessage(*topics[topic], log_ns, unpacked_message(data))
        if there < size:
            raise ValueError("the file is shorter than it should be")


def check_whole(path: Path, storage: str) -> None:
    """Raises ValueError for a database that was cut off: SQLite takes half a page for zeros."""
    if storage == SQLITE and path.stat().st_size < _database_size(path)[1]:
        raise ValueError("the file is shorter than it should be")


def _database_size(path: Path) -> tuple[int, int]:
    """Bytes of a page, and of the whole database as its header says (sqlite.org/fileformat)."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or head[:16] != b"SQLite format 3\0":
        raise ValueError("no SQLite database")
    page, pages = struct.unpack(">H", head[16:18])[0], struct.unpack(">I", head[28:32])[0]
    page = 65536 if page == 1 else page
    return page, page * pages


def _lengthen(path: Path, start: int, size: int) -> None:
    """Writes pages that SQLite cannot take for any of its own from `start` on, up to `size`."""
    os.truncate(path, start)
    with path.open("ab") as file:
        end = min(size, start + _LONGEST_GAP)
        while start < end:
            start += file.write(_NO_PAGE * (min(1 << 20, end - start) // len(_NO_PAGE)))
    os.truncate(path, size)


def _scan_mcap(path: Path) -> Iterator[RawMessage]:
    """All ROS messages of an mcap file from its start, without its index (mcap.dev/spec)."""
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, int]] = {}
    others: set[str] = set()
    with path.open("rb") as file:
        if file.read(8) != _MCAP_MAGIC:
            raise ValueError("no mcap file")
        yield from _scan_records(file, schemas, channels, others)
    if others and not channels:
        raise ValueError(f"its messages are {', '.join(sorted(others))}, not ROS 2 (cdr)")


def _scan_records(
    stream: BinaryIO,
    schemas: dict[int, str],
    channels: dict[int, tuple[str, int]],
    others: set[str],
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
                yield from _scan_records(BytesIO(_unpack_chunk(body)), schemas, channels, others)
            raise ValueError("cut off in the middle of a record")
        if kind == _SCHEMA:
            key, length = struct.unpack_from("<HI", body)
            schemas[key] = body[6 : 6 + length].decode()
        elif kind == _CHANNEL:
            key, schema, length = struct.unpack_from("<HHI", body)
            topic = body[8 : 8 + length].decode()
            (words,) = struct.unpack_from("<I", body, 8 + length)
            encoding = body[12 + length : 12 + length + words].decode()
            if encoding == "cdr":
                channels[key] = (topic, schema)
            else:
                others.add(encoding)
        elif kind == _MESSAGE:
            key, _, log_ns, _ = struct.unpack_from("<HIQQ", body)
            if key in channels:
                topic, schema = channels[key]
                yield RawMessage(topic, schemas.get(schema, ""), log_ns, body[22:])
        elif kind == _CHUNK:
            yield from _scan_records(BytesIO(_unpack_chunk(body)), schemas, channels, others)


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
