"""Meshes to and from files: PLY (binary and ASCII) and OBJ, with vertex colours.

Read strictly: what contradicts itself raises DataError and nothing else. Polygons become fans of
triangles.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import DataError, reason
from face_recon_ros.core.types import Float32, Mesh

MESH_SUFFIXES = (".ply", ".obj")
#: Units that meshes of other programs are in -> metres.
UNITS_M = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}

_PLY_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_BYTE_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_COLOURS = ("red", "green", "blue")
_REMEDY = "export it again, for instance with MeshLab"


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Writes a mesh as its suffix says: `.ply` (binary) or `.obj`.

    Raises:
        DataError: another suffix.
    """
    path = Path(path)
    _by_suffix(path, {".ply": write_ply, ".obj": write_obj})(path, mesh)


def read_mesh(path: str | Path) -> Mesh:
    """Reads a mesh as its suffix says.

    Raises:
        DataError: another suffix, no such file, or a damaged one.
    """
    path = Path(path)
    read = _by_suffix(path, {".ply": _parse_ply, ".obj": _parse_obj})
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise DataError(f"a mesh at {path}", str(fault.strerror), "check the path") from None
    try:
        return _checked(*read(content))
    except (ValueError, IndexError, KeyError, OverflowError, TypeError) as fault:
        raise DataError(f"a well-formed mesh at {path}", reason(fault), _REMEDY) from None


def write_ply(path: str | Path, mesh: Mesh, *, ascii: bool = False) -> None:
    """Writes PLY 1.0; colours as uchar red, green, blue.

    Args:
        path: file to write.
        mesh: any unit and frame.
        ascii: text instead of little-endian binary.
    """
    fields = [(axis, "<f4") for axis in "xyz"]
    if mesh.colours is not None:
        fields += [(name, "u1") for name in _COLOURS]
    vertices = np.zeros(len(mesh.vertices), fields)
    for k, axis in enumerate("xyz"):
        vertices[axis] = mesh.vertices[:, k]
    if mesh.colours is not None:
        for k, name in enumerate(_COLOURS):
            vertices[name] = _bytes(mesh.colours)[:, k]
    faces = np.zeros(len(mesh.triangles), [("n", "u1"), ("v", "<i4", 3)])
    faces["n"], faces["v"] = 3, mesh.triangles
    header = [
        "ply",
        f"format {'ascii' if ascii else 'binary_little_endian'} 1.0",
        "comment face_recon_ros",
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {name}" for name in _COLOURS if mesh.colours is not None),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    with Path(path).open("wb") as file:
        file.write(("\n".join(header) + "\n").encode())
        if ascii:
            rows = [" ".join(_text(value) for value in row.tolist()) for row in vertices]
            rows += [f"3 {a} {b} {c}" for a, b, c in mesh.triangles.tolist()]
            file.write(("\n".join(rows) + "\n" if rows else "").encode())
        else:
            file.write(vertices.tobytes() + faces.tobytes())


def write_obj(path: str | Path, mesh: Mesh) -> None:
    """Writes Wavefront OBJ; colours follow each vertex's coordinates, as most tools read it."""
    columns = mesh.vertices.astype(np.float32)
    if mesh.colours is not None:
        columns = np.concatenate([columns, _bytes(mesh.colours) / np.float32(255)], axis=1)
    rows = ["# face_recon_ros"]
    rows += ["v " + " ".join(_text(value) for value in row) for row in columns.tolist()]
    rows += [f"f {a} {b} {c}" for a, b, c in (mesh.triangles + 1).tolist()]
    Path(path).write_text("\n".join(rows) + "\n")


_Parts = tuple[NDArray[Any], list[NDArray[Any]], NDArray[Any] | None]


def _checked(
    vertices: NDArray[Any], polygons: list[NDArray[Any]], colours: NDArray[Any] | None
) -> Mesh:
    """A mesh of parsed parts; each of `polygons` is (M, n) vertex indices."""
    if not np.isfinite(vertices).all():
        raise ValueError("coordinates that are not finite")
    fans = [np.zeros((0, 3), np.int64)]
    for corners in polygons:
        if corners.shape[1] < 3:
            raise ValueError("faces of fewer than three corners")
        fans += [corners[:, [0, k, k + 1]] for k in range(1, corners.shape[1] - 1)]
    triangles = np.concatenate(fans)
    if triangles.size and not (triangles.min() >= 0 and triangles.max() < len(vertices)):
        raise ValueError("faces with corners that are no vertices")
    return Mesh(
        vertices.astype(np.float32),
        triangles.astype(np.int32),
        None if colours is None else np.clip(colours, 0, 1).astype(np.float32),
    )


# --- PLY -----------------------------------------------------------------------------------------


def _parse_ply(content: bytes) -> _Parts:
    end = re.search(rb"end_header\r?\n", content)
    if not content.startswith(b"ply") or end is None:
        raise ValueError("no PLY header")
    lines = [line.split() for line in content[: end.start()].decode("ascii").splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    if not lines or lines[0][0] != "format" or lines[0][1] not in _BYTE_ORDER:
        raise ValueError("no known PLY format")
    elements: list[tuple[str, int, list[list[str]]]] = []
    for words in lines[1:]:
        if words[0] == "element":
            elements.append((words[1], int(words[2]), []))
        elif words[0] == "property":
            elements[-1][2].append(words[1:])
        else:
            raise ValueError(f"header line {' '.join(words)!r}")
    body = content[end.end() :]
    reader: _AsciiReader | _BinaryReader
    if lines[0][1] == "ascii":
        reader = _AsciiReader(body)
    else:
        reader = _BinaryReader(body, _BYTE_ORDER[lines[0][1]])
    vertices: NDArray[Any] = np.zeros((0, 3))
    polygons: list[NDArray[Any]] = []
    colours: NDArray[Any] | None = None
    for name, count, properties in elements:
        if count < 0:
            raise ValueError(f"element {name} with {count} rows")
        if any(p[0] == "list" for p in properties):
            rows = reader.lists(count, properties)
            polygons = rows if name == "face" else polygons
        else:
            table = reader.table(count, [(p[1], _PLY_TYPES[p[0]]) for p in properties])
            if name == "vertex":
                vertices = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
                colours = _ply_colours(table)
    return vertices, polygons, colours


def _ply_colours(table: NDArray[Any]) -> NDArray[Any] | None:
    names = table.dtype.names or ()
    if not all(name in names for name in _COLOURS):
        return None
    columns = np.stack([table[name].astype(np.float64) for name in _COLOURS], axis=1)
    return columns if table[_COLOURS[0]].dtype.kind == "f" else columns / 255.0


class _BinaryReader:
    """Takes elements off a binary PLY body."""

    def __init__(self, body: bytes, order: str) -> None:
        self._body, self._order, self._at = body, order, 0

    def table(self, count: int, fields: list[tuple[str, str]]) -> NDArray[Any]:
        """(count,) structured array."""
        return self._take(np.dtype([(n, self._order + t) for n, t in fields]), count)

    def lists(self, count: int, properties: list[list[str]]) -> list[NDArray[Any]]:
        """The first list property of each row, grouped by length: (M, n) each."""
        start = self._at
        if count == 0:
            return []
        # Nearly all files hold rows of one length: read them at once, and see whether that is so.
        shape = self._row(properties, self._peek_lengths(properties))
        if self._at + shape.itemsize * count <= len(self._body):
            table = self._take(shape, count)
            sizes = [n for n in shape.names or () if n.startswith("n")]
            if all((table[n] == table[n][0]).all() for n in sizes):
                return [table[self._wanted(properties)].astype(np.int64)]
        self._at = start
        by_length: dict[int, list[NDArray[Any]]] = {}
        for _ in range(count):
            row = self._take(self._row(properties, self._peek_lengths(properties)), 1)[0]
            indices = np.asarray(row[self._wanted(properties)]).astype(np.int64)
            by_length.setdefault(len(indices), []).append(indices)
        return [np.stack(rows) for rows in by_length.values()]

    def _peek_lengths(self, properties: list[list[str]]) -> list[int]:
        lengths, start = [], self._at
        for p in properties:
            if p[0] == "list":
                kind = np.dtype(self._order + _PLY_TYPES[p[1]])
                lengths.append(int(self._take(kind, 1)[0]))
                self._at += np.dtype(_PLY_TYPES[p[2]]).itemsize * lengths[-1]
            else:
                self._at += np.dtype(_PLY_TYPES[p[0]]).itemsize
        self._at = start
        return lengths

    def _row(self, properties: list[list[str]], lengths: list[int]) -> np.dtype[Any]:
        fields: list[tuple[Any, ...]] = []
        rest = iter(lengths)
        for k, p in enumerate(properties):
            if p[0] == "list":
                fields.append((f"n{k}", self._order + _PLY_TYPES[p[1]]))
                fields.append((f"v{k}", self._order + _PLY_TYPES[p[2]], (next(rest),)))
            else:
                fields.append((f"s{k}", self._order + _PLY_TYPES[p[0]]))
        return np.dtype(fields)

    @staticmethod
    def _wanted(properties: list[list[str]]) -> str:
        lists = [k for k, p in enumerate(properties) if p[0] == "list"]
        named = [k for k in lists if properties[k][3].startswith("vertex_ind")]
        return f"v{(named or lists)[0]}"

    def _take(self, kind: np.dtype[Any], count: int) -> NDArray[Any]:
        if count < 0 or self._at + kind.itemsize * count > len(self._body):
            raise ValueError("fewer bytes than the header says")
        out = np.frombuffer(self._body, kind, count, self._at)
        self._at += kind.itemsize * count
        return out


class _AsciiReader:
    """Takes elements off an ASCII PLY body, a line a row."""

    def __init__(self, body: bytes) -> None:
        text = body.decode("ascii")
        self._lines = iter([line.split() for line in text.splitlines() if line.strip()])

    def table(self, count: int, fields: list[tuple[str, str]]) -> NDArray[Any]:
        """(count,) structured array."""
        rows = [self._line() for _ in range(count)]
        if any(len(row) != len(fields) for row in rows):
            raise ValueError("a row of another length than its properties")
        out = np.zeros(count, fields)
        for k, (name, _) in enumerate(fields):
            out[name] = np.array([float(row[k]) for row in rows])
        return out

    def lists(self, count: int, properties: list[list[str]]) -> list[NDArray[Any]]:
        """The first list property of each row, grouped by length: (M, n) each."""
        lists = [k for k, p in enumerate(properties) if p[0] == "list"]
        named = [k for k in lists if properties[k][3].startswith("vertex_ind")]
        wanted = (named or lists)[0]
        by_length: dict[int, list[list[int]]] = {}
        for _ in range(count):
            words = iter(self._line())
            try:
                for k, p in enumerate(properties):
                    values = [
                        next(words) for _ in range(int(next(words)) if p[0] == "list" else 1)
                    ]
                    if k == wanted:
                        by_length.setdefault(len(values), []).append([int(v) for v in values])
            except StopIteration:
                raise ValueError("a row shorter than its list says") from None
        return [np.array(rows, np.int64).reshape(len(rows), -1) for rows in by_length.values()]

    def _line(self) -> list[str]:
        try:
            return next(self._lines)
        except StopIteration:
            raise ValueError("fewer rows than the header says") from None


# --- OBJ -----------------------------------------------------------------------------------------


def _parse_obj(content: bytes) -> _Parts:
    vertices: list[list[float]] = []
    by_length: dict[int, list[list[int]]] = {}
    for line in content.decode("utf-8").splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if words[0] == "v":
            vertices.append([float(word) for word in words[1:]])
        elif words[0] == "f":
            corners = [int(word.split("/")[0]) for word in words[1:]]
            if 0 in corners:
                raise ValueError("a corner 0; OBJ counts from 1")
            corners = [c - 1 if c > 0 else len(vertices) + c for c in corners]
            by_length.setdefault(len(corners), []).append(corners)
    lengths = {len(v) for v in vertices}
    if not lengths <= {3, 4, 6, 7}:
        raise ValueError("vertices of other than 3 coordinates, a weight or 3 colours")
    colours = None
    if lengths and lengths <= {6, 7}:
        colours = np.array([v[-3:] for v in vertices])
    positions = np.array([v[:3] for v in vertices], np.float64).reshape(-1, 3)
    return positions, [np.array(rows, np.int64) for rows in by_length.values()], colours


def _by_suffix(path: Path, choices: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    try:
        return choices[path.suffix.lower()]
    except KeyError:
        raise DataError(
            f"a mesh file {' or '.join(choices)}", repr(path.name), "choose one of these formats"
        ) from None


def _bytes(colours: Float32) -> NDArray[np.uint8]:
    return np.clip(np.rint(colours * 255), 0, 255).astype(np.uint8)


def _text(value: float) -> str:
    return f"{value:.9g}"  # enough digits for every float32
