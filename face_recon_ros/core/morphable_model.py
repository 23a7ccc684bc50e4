"""The 3D morphable face model: coefficients -> vertices, normals, albedo.

Blanz and Vetter 1999; Deng et al. 2019, equation 1. File contract: docs/face_model_format.md.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.models import once_per_file, sha256_of
from face_recon_ros.core.surface_points import SurfacePoints
from face_recon_ros.core.texture_coordinates import coarse_uv_triangles, used_uvs

FORMAT_VERSION = 1
FACE = "face"
FACIAL_SKIN = "facial_skin"

#: Arrays of the file that turn coefficients into vertices and colours, in the order of vertices
#: and triangles that networks know. Names, parts, masks and labels are not among them.
DECODING_KEYS = (
    "albedo_basis",
    "coarse_triangles",
    "expression_basis",
    "identity_basis",
    "mean_albedo",
    "mean_shape",
    "subdivision_data",
    "subdivision_indices",
    "subdivision_indptr",
    "triangles",
)
# SHA-256 of a face model file that was shipped before -> its decoding digest: networks and
# checkpoints of that time name the file.
_SHIPPED_BEFORE = {
    "e0d8c53b806164301e0096b835357f7856b38c97c2f4cf59cbb9582c493bf21c": (
        "d42f03d2c0612f668941f9feb4cb0b7b5fec7de89c0078a96145c3a316c75c95"
    ),
    "02e3888d538118c02f90d6ea13dd1fe610cf3ba6d37a6473078e3706187f4261": (
        "d42f03d2c0612f668941f9feb4cb0b7b5fec7de89c0078a96145c3a316c75c95"
    ),
}

_REMEDY = "build it with `face-recon model build` or convert yours with `face-recon model import`"


@dataclass(frozen=True)
class MorphableModel:
    """A face model at one level of detail, ready to decode. Face frame, metres.

    Attributes:
        name: what it is called.
        licence: SPDX identifier.
        mean_shape: (V, 3) float32.
        identity_basis: (V * 3, K_id) float32 per standard deviation.
        expression_basis: (V * 3, K_exp) float32 at activation 1.
        mean_albedo: (V, 3) float32 sRGB-encoded.
        albedo_basis: (V * 3, K_alb) float32 per standard deviation.
        expression_names: K_exp names.
        expression_prior: `unit_interval` or `normal`.
        triangles: (F, 3) int32.
        regions: (V,) index into `region_names`.
        region_names: R names.
        subsets: name -> (V,) bool.
        skin_attention: (V,) float32 in [0, 1].
        symmetry: (V,) index of the mirror vertex, -1 where it is not part of this mesh.
        landmarks_68: (68,) vertex indices in iBUG order, -1 where not part of this mesh.
        landmarks: (68,) points of the surface where annotators put them; `landmarks_68` are the
            vertices beside them.
        sellion: vertex index.
        interpupillary: (2,) vertex indices, subject's right and left.
        uvs: (T, 2) float32 in [0, 1].
        uv_triangles: (F, 3) indices into `uvs`.
        vertex_ids: (V,) this mesh's vertices in the numbering of the file.
    """

    name: str
    licence: str
    mean_shape: NDArray[np.float32]
    identity_basis: NDArray[np.float32]
    expression_basis: NDArray[np.float32]
    mean_albedo: NDArray[np.float32]
    albedo_basis: NDArray[np.float32]
    expression_names: tuple[str, ...]
    expression_prior: str
    triangles: NDArray[np.int32]
    regions: NDArray[np.uint8]
    region_names: tuple[str, ...]
    subsets: Mapping[str, NDArray[np.bool_]]
    skin_attention: NDArray[np.float32]
    symmetry: NDArray[np.int32]
    landmarks_68: NDArray[np.int32]
    landmarks: SurfacePoints
    sellion: int
    interpupillary: NDArray[np.int32]
    uvs: NDArray[np.float32]
    uv_triangles: NDArray[np.int32]
    vertex_ids: NDArray[np.int32]

    @property
    def n_vertices(self) -> int:
        """V."""
        return len(self.mean_shape)

    @property
    def k_identity(self) -> int:
        """Number of identity coefficients."""
        return int(self.identity_basis.shape[1])

    @property
    def k_expression(self) -> int:
        """Number of expression coefficients."""
        return int(self.expression_basis.shape[1])

    @property
    def k_albedo(self) -> int:
        """Number of albedo coefficients."""
        return int(self.albedo_basis.shape[1])

    def neutral(self, identity: ArrayLike) -> NDArray[np.float32]:
        """Shape without expression; constant for a person, so worth caching.

        Args:
            identity: (K_id,).

        Returns:
            (V, 3) metres, face frame.
        """
        a = np.asarray(identity, np.float32)
        return self.mean_shape + (self.identity_basis @ a).reshape(-1, 3)

    def express(self, neutral: NDArray[np.float32], expression: ArrayLike) -> NDArray[np.float32]:
        """Adds an expression to a neutral shape.

        Args:
            neutral: (V, 3) from `neutral`.
            expression: (K_exp,).

        Returns:
            (V, 3) metres, face frame.
        """
        e = np.asarray(expression, np.float32)
        return neutral + (self.expression_basis @ e).reshape(-1, 3)

    def vertices(self, identity: ArrayLike, expression: ArrayLike) -> NDArray[np.float32]:
        """(V, 3) metres, face frame, of identity (K_id,) and expression (K_exp,)."""
        return self.express(self.neutral(identity), expression)

    def albedo(self, albedo: ArrayLike) -> NDArray[np.float32]:
        """(V, 3) sRGB-encoded reflectance in [0, 1] of albedo coefficients (K_alb,)."""
        t = np.asarray(albedo, np.float32)
        return np.clip(self.mean_albedo + (self.albedo_basis @ t).reshape(-1, 3), 0.0, 1.0)

    def subset(self, name: str) -> MorphableModel:
        """The part of the mesh made of the named subset's vertices (`head`: all of it)."""
        if name == "head":
            return self
        if name not in self.subsets:
            raise ModelError(
                f"a mesh part of head, {', '.join(self.subsets)}",
                repr(name),
                "choose one of these",
            )
        return _restrict(self, np.flatnonzero(self.subsets[name]))


def load_morphable_model(path: str | Path, *, level: str = "fine") -> MorphableModel:
    """Reads a face model file.

    Args:
        path: the `.npz`.
        level: `fine` or `coarse`.

    Raises:
        ModelError: the file is missing, is no model file, or contradicts itself.
    """
    if level not in ("fine", "coarse"):
        raise ModelError("level fine or coarse", repr(level), "choose one of these")
    data = _read(Path(path))
    try:
        return _model_from_arrays(data, level)
    except KeyError as missing:
        raise ModelError(f"the key {missing} in {path}", "none", _REMEDY) from None
    except (ValueError, IndexError) as fault:
        raise ModelError(f"consistent arrays in {path}", str(fault), _REMEDY) from None


def decoding_sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of what a face model file makes of coefficients (`DECODING_KEYS`).

    Two files with the same digest make the same meshes of the same coefficients, so a network for
    the one is a network for the other.

    Args:
        path: the `.npz`.

    Raises:
        ModelError: the file is missing or is no model file.
    """
    return _decoding_sha256(_existing(Path(path)))


@once_per_file
def _decoding_sha256(path: Path) -> str:
    data = _read(path)
    digest = hashlib.sha256()
    for key in DECODING_KEYS:
        if key in data:
            array = np.ascontiguousarray(data[key])
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def same_decoding(sha256: str, path: str | Path) -> bool:
    """Whether a network or checkpoint that names a digest was trained for a face model file.

    Args:
        sha256: `decoding_sha256` of the face model it was trained for, or, as older ones have it,
            SHA-256 of that file.
        path: the `.npz`.

    Raises:
        ModelError: the file is missing or is no model file.
    """
    return _SHIPPED_BEFORE.get(sha256, sha256) in (decoding_sha256(path), sha256_of(Path(path)))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"a face model at {path}", "no such file", _REMEDY)
    return path


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(_existing(path), allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as fault:
        # of any other file numpy says how to unpickle it
        other = isinstance(fault, ValueError) and not zipfile.is_zipfile(path)
        got = "another kind of file" if other else str(fault)
        raise ModelError(f"a plain .npz face model at {path}", got, _REMEDY) from None
    version = int(data.get("format_version", np.int32(0)))
    if version != FORMAT_VERSION:
        raise ModelError(f"format version {FORMAT_VERSION} in {path}", f"{version}", _REMEDY)
    return data


def _model_from_arrays(data: dict[str, NDArray[Any]], level: str) -> MorphableModel:
    n_fine = len(data["mean_shape"])
    n_control = len(data["identity_basis"])
    n = n_fine if level == "fine" else n_control
    subdivided = "subdivision_indptr" in data

    def basis(key: str) -> NDArray[np.float32]:
        control = data[key].astype(np.float32)
        k = control.shape[2]
        if control.shape != (n_control, 3, k):
            raise ValueError(f"{key} has shape {control.shape}, not ({n_control}, 3, K)")
        if not np.isfinite(control).all():
            raise ValueError(f"{key} holds values that are not finite")
        if subdivided:
            control = _subdivide(data, control.reshape(n_control, -1), n)
        return np.ascontiguousarray(control.reshape(n * 3, k))

    def per_vertex(key: str, dtype: type) -> NDArray[Any]:
        if len(data[key]) != n_fine:
            raise ValueError(f"{key} has {len(data[key])} rows, not {n_fine}")
        if not np.isfinite(data[key]).all():
            raise ValueError(f"{key} holds values that are not finite")
        return data[key][:n].astype(dtype)

    fine = level == "fine"
    triangles = data["triangles" if fine else "coarse_triangles"].astype(np.int32)
    if triangles.size and not (triangles.min() >= 0 and triangles.max() < n):
        raise ValueError("triangles point outside the vertices")
    names = tuple(str(s) for s in data["subset_names"])
    symmetry = per_vertex("symmetry", np.int32)
    uv_triangles = data["uv_triangles"] if fine else coarse_uv_triangles(data)
    uvs, uv_triangles = used_uvs(data["uvs"].astype(np.float32), uv_triangles)
    return MorphableModel(
        name=str(data["name"]),
        licence=str(data["licence"]),
        mean_shape=per_vertex("mean_shape", np.float32),
        identity_basis=basis("identity_basis"),
        expression_basis=basis("expression_basis"),
        mean_albedo=per_vertex("mean_albedo", np.float32),
        albedo_basis=basis("albedo_basis"),
        expression_names=tuple(str(s) for s in data["expression_names"]),
        expression_prior=str(data["expression_prior"]),
        triangles=triangles,
        regions=per_vertex("regions", np.uint8),
        region_names=tuple(str(s) for s in data["region_names"]),
        subsets={k: data["subsets"][i, :n].astype(bool) for i, k in enumerate(names)},
        skin_attention=per_vertex("skin_attention", np.float32),
        symmetry=np.where(symmetry < n, symmetry, -1).astype(np.int32),
        landmarks_68=data["landmarks_68"].astype(np.int32),
        landmarks=_landmarks(data, n),
        sellion=int(data["sellion"]),
        interpupillary=data["interpupillary"].astype(np.int32),
        uvs=uvs,
        uv_triangles=uv_triangles,
        vertex_ids=np.arange(n, dtype=np.int32),
    )


def _landmarks(data: dict[str, NDArray[Any]], n: int) -> SurfacePoints:
    """Where the file says that annotators put them, else the vertices."""
    if "landmark_corners" not in data:
        return SurfacePoints.of_vertices(data["landmarks_68"])
    points = SurfacePoints.checked(data["landmark_corners"], data["landmark_weights"])
    if len(points.corners) != len(data["landmarks_68"]) or not (points.corners < n).all():
        raise ValueError(f"landmark_corners are not those of landmarks_68 among {n} vertices")
    return points


def _subdivide(
    data: dict[str, NDArray[Any]], control: NDArray[np.float32], n: int
) -> NDArray[np.float32]:
    """First n rows of S @ control, for CSR S and control (C, K)."""
    indptr = data["subdivision_indptr"][: n + 1].astype(np.int64)
    indices = data["subdivision_indices"][: indptr[-1]].astype(np.int64)
    weights = data["subdivision_data"][: indptr[-1]].astype(np.float32)
    counts = np.diff(indptr)
    out = np.zeros((n, control.shape[1]), np.float32)
    for k in range(int(counts.max(initial=0))):  # k-th entry of every row that has one
        rows = np.flatnonzero(counts > k)
        entry = indptr[rows] + k
        out[rows] += weights[entry, None] * control[indices[entry]]
    return out


def _restrict(model: MorphableModel, keep: NDArray[np.intp]) -> MorphableModel:
    n = model.n_vertices
    new_index = np.full(n + 1, -1, np.int32)  # the last entry lets -1 map to -1
    new_index[keep] = np.arange(len(keep), dtype=np.int32)
    whole = (new_index[model.triangles] >= 0).all(axis=1)
    uv_triangles = model.uv_triangles[whole] if len(model.uv_triangles) else model.uv_triangles
    uvs, uv_triangles = used_uvs(model.uvs, uv_triangles)

    def rows(basis: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(basis.reshape(n, 3, -1)[keep].reshape(len(keep) * 3, -1))

    return replace(
        model,
        mean_shape=model.mean_shape[keep],
        identity_basis=rows(model.identity_basis),
        expression_basis=rows(model.expression_basis),
        mean_albedo=model.mean_albedo[keep],
        albedo_basis=rows(model.albedo_basis),
        triangles=new_index[model.triangles[whole]],
        regions=model.regions[keep],
        subsets={name: mask[keep] for name, mask in model.subsets.items()},
        skin_attention=model.skin_attention[keep],
        symmetry=new_index[model.symmetry[keep]],
        landmarks_68=new_index[model.landmarks_68],
        landmarks=model.landmarks.renumbered(new_index),
        sellion=int(new_index[model.sellion]),
        interpupillary=new_index[model.interpupillary],
        uvs=uvs,
        uv_triangles=uv_triangles,
        vertex_ids=model.vertex_ids[keep],
    )


class VertexNormals:
    """Area-weighted vertex normals of one fixed topology, fast: the incidence is laid out once.

    Attributes:
        incidence: (valence, V) the triangles around each vertex; F where a vertex has fewer.
    """

    def __init__(self, triangles: NDArray[np.int32], n_vertices: int) -> None:
        """Prepares the incidence.

        Args:
            triangles: (F, 3).
            n_vertices: V.
        """
        self._triangles = triangles.astype(np.intp)
        corners = triangles.ravel()
        by_vertex = np.argsort(corners, kind="stable") // 3
        counts = np.bincount(corners, minlength=n_vertices)
        first = np.cumsum(counts) - counts
        # Vertices of the most triangles first: the k-th triangle of each is asked of a front part.
        self._order = order = np.argsort(-counts, kind="stable")
        self._place = np.argsort(order)
        self._faces = [
            by_vertex[first[some] + k]
            for k in range(int(counts.max(initial=0)))
            if len(some := order[counts[order] > k])
        ]

    @property
    def incidence(self) -> NDArray[np.intp]:
        """(valence, V) triangle of each vertex's k-th corner; F where it has fewer."""
        table = np.full((len(self._faces), len(self._order)), len(self._triangles), np.intp)
        for row, faces in zip(table, self._faces, strict=True):
            row[self._order[: len(faces)]] = faces
        return table

    def __call__(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """(V, 3) unit normals of (V, 3) vertices, same frame; zero for a vertex without a face."""
        return np.ascontiguousarray(self.of_all(vertices[None])[0].T)

    def of_all(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normals of several meshes at once: eight cost twice as much as one.

        Args:
            vertices: (N, V, 3).

        Returns:
            (N, 3, V) unit normals, each in the frame of its mesh.
        """
        # Meshes last: what is fetched for a triangle is then one piece of memory for all of them.
        points = np.ascontiguousarray(vertices.transpose(2, 1, 0), np.float32)
        origin, a, b = (points.take(corner, axis=1) for corner in self._triangles.T)
        a -= origin
        b -= origin
        faces = np.empty_like(a)
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            np.multiply(a[j], b[k], out=faces[i])
            faces[i] -= a[k] * b[j]
        out = np.zeros_like(points)
        for face in self._faces:
            out[:, : len(face)] += faces.take(face, axis=1)
        out /= np.maximum(np.sqrt((out * out).sum(axis=0)), 1e-20)
        return np.ascontiguousarray(out.take(self._place, axis=1).transpose(2, 0, 1))
