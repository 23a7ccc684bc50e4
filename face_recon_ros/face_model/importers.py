"""Converts face models of other projects to our file format, units and axes included.

Nothing in a source file is ever executed: MATLAB files hold arrays, pickles are read by an
unpickler that knows arrays and nothing else, OBJ files are text.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.errors import ModelError, reason
from face_recon_ros.core.morphable_model import FORMAT_VERSION
from face_recon_ros.face_model.build import AXES
from face_recon_ros.io.meshes import read_mesh

Array = NDArray[np.float64]

#: (V, 3) metres in face axes and (F, 3) triangles -> (68,) landmark vertices.
LandmarkFinder = Callable[[Array, NDArray[np.int64]], NDArray[np.int64]]

_SELLION_LANDMARK = 27
_EYELIDS = {"right": (37, 38, 40, 41), "left": (43, 44, 46, 47)}
_FLAME_IDENTITIES = 300
_GREY = 0.7  # albedo of models without one


def import_bfm09(source: Path) -> dict[str, NDArray[Any]]:
    """The Basel Face Model 2009 in Deep3DFaceRecon's `BFM_model_front.mat` (Deng et al. 2019).

    Decimetres, x to the subject's left, y up, z out of the face; colours 0 to 255; indices from 1.

    Args:
        source: the `.mat` file.

    Returns:
        Arrays of the model file.

    Raises:
        ModelError: it is not that file.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        data = loadmat(str(source))
        mean = _bfm_points(data["meanshape"])
        n = len(mean)
        faces = np.asarray(data["tri"], np.int64) - 1
        landmarks = np.asarray(data["keypoints"], np.int64).ravel() - 1
        identity = _bfm_basis(data["idBase"], n)
        expression = _bfm_basis(data["exBase"], n)
        albedo = np.asarray(data["meantex"], np.float64).reshape(n, 3) / 255
        albedo_basis = np.asarray(data["texBase"], np.float64).reshape(n, 3, -1) / 255
        skin = np.asarray(data.get("skinmask", np.ones(n)), np.float64).ravel()
    except (OSError, KeyError, ValueError, TypeError, NotImplementedError, MatReadError) as fault:
        raise ModelError(
            f"BFM_model_front.mat of Deep3DFaceRecon at {source}",
            reason(fault),
            "make it with that project's load_mats.transferBFM09",
        ) from None
    return _arrays(
        name="Basel Face Model 2009 (Deep3DFaceRecon's cut)",
        licence="LicenseRef-BFM-2009",
        attribution="Paysan et al. 2009; expressions: Guo et al. 2018; cut: Deng et al. 2019",
        source=source,
        mean=mean,
        triangles=faces,
        identity=identity,
        expression=expression,
        expression_names=None,
        expression_prior="normal",
        albedo=albedo,
        albedo_basis=albedo_basis,
        attention=np.clip(skin, 0, 1),
        landmarks=landmarks,
    )


def import_flame(source: Path, find_landmarks: LandmarkFinder) -> dict[str, NDArray[Any]]:
    """FLAME (Li et al. 2017): metres, x to the subject's left, y up, z out of the face.

    The pose-dependent parts (jaw, neck, eyes) are not linear and are left out.

    Args:
        source: `generic_model.pkl`, or `.npz` with `v_template`, `shapedirs` and `f`.
        find_landmarks: for the template, whose landmarks FLAME keeps in another file.

    Returns:
        Arrays of the model file.

    Raises:
        ModelError: it is not that file, or holds more than arrays.
    """
    try:
        data = _read_flame(source)
        mean = _from_y_up(np.asarray(data["v_template"], np.float64))
        directions = np.asarray(data["shapedirs"], np.float64)
        triangles = np.asarray(data["f"], np.int64)
        basis = _basis_from_y_up(directions)
    except (
        OSError, KeyError, ValueError, TypeError, IndexError, EOFError, AttributeError,
        pickle.UnpicklingError, zipfile.BadZipFile,
    ) as fault:  # fmt: skip
        raise _bad_flame(source, reason(fault)) from None
    identities = min(_FLAME_IDENTITIES, basis.shape[2])
    if basis.shape[:2] != mean.shape or basis.shape[2] <= identities:
        identities = basis.shape[2] * 3 // 4  # smaller releases keep the same proportion
    return _arrays(
        name="FLAME",
        licence="LicenseRef-FLAME",
        attribution="Li, Bolkart, Black, Li and Romero 2017",
        source=source,
        mean=mean,
        triangles=triangles,
        identity=basis[:, :, :identities],
        expression=basis[:, :, identities:],
        expression_names=None,
        expression_prior="normal",
        landmarks=find_landmarks,
    )


def import_ict(source: Path, find_landmarks: LandmarkFinder) -> dict[str, NDArray[Any]]:
    """ICT-FaceKit (Li et al. 2020): a folder of OBJ files, centimetres, y up, z out of the face.

    Args:
        source: the folder with `generic_neutral_mesh.obj`, `identity*.obj` and expressions.
        find_landmarks: for folders without `vertex_indices.json`.

    Returns:
        Arrays of the model file.

    Raises:
        ModelError: files are missing or do not match.
    """
    neutral_path = source / "generic_neutral_mesh.obj"
    if not neutral_path.is_file():
        raise ModelError(
            f"generic_neutral_mesh.obj in {source}", "none", "give ICT-FaceKit's folder FaceXModel"
        )
    metres = 0.01
    neutral = read_mesh(neutral_path)
    mean = _from_y_up(neutral.vertices.astype(np.float64)) * metres

    def offsets(paths: list[Path]) -> Array:
        columns = []
        for path in paths:
            vertices = read_mesh(path).vertices
            if vertices.shape != neutral.vertices.shape:
                raise ModelError(
                    f"{len(neutral.vertices)} vertices in {path.name}",
                    f"{len(vertices)}",
                    "take all files from one release",
                )
            columns.append(_from_y_up(vertices.astype(np.float64)) * metres - mean)
        return np.stack(columns, axis=2) if columns else np.zeros((*mean.shape, 0))

    files = sorted(p for p in source.glob("*.obj") if p != neutral_path)
    identities = [p for p in files if p.stem.startswith("identity")]
    expressions = [p for p in files if not p.stem.startswith("identity")]
    if not identities or not expressions:
        raise ModelError(
            "identity*.obj and expressions beside the neutral mesh",
            f"{len(identities)} and {len(expressions)}",
            "give ICT-FaceKit's folder FaceXModel",
        )
    listed = _ict_landmarks(source, len(mean))
    return _arrays(
        name="ICT-FaceKit",
        licence="MIT",
        attribution="Li et al. 2020; USC Institute for Creative Technologies",
        source=source,
        mean=mean,
        triangles=neutral.triangles.astype(np.int64),
        identity=offsets(identities),
        expression=offsets(expressions),
        expression_names=[_arkit_name(p.stem) for p in expressions],
        expression_prior="unit_interval",
        landmarks=find_landmarks if listed is None else listed,
    )


def _arkit_name(stem: str) -> str:
    for suffix, side in (("_L", "Left"), ("_R", "Right")):
        if stem.endswith(suffix):
            return stem[: -len(suffix)] + side
    return stem


def _ict_landmarks(source: Path, n: int) -> NDArray[np.int64] | None:
    path = source / "vertex_indices.json"
    if not path.is_file():
        return None
    try:
        lists = json.loads(path.read_text())
        candidates = [v for k, v in lists.items() if "68" in k or "landmark" in k.lower()]
    except (ValueError, AttributeError) as fault:
        raise ModelError(f"vertex lists in {path}", str(fault), "restore the file") from None
    for values in candidates:
        indices = np.asarray(values)
        if indices.shape == (68,) and indices.dtype.kind == "i" and indices.min() >= 0:
            return indices if indices.max() < n else None
    return None


# --- FLAME's pickle ------------------------------------------------------------------------------


class _Opaque:
    """Stands for an object whose class is not known here; keeps its state, runs nothing."""

    def __init__(self, *_: object) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays out of a pickle; other classes become an `_Opaque`, no function is called."""

    _ARRAYS = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("_codecs", "encode"),
        }
    )

    #: How older protocols make an object of any class; here they make an `_Opaque`.
    _OBJECTS = frozenset(
        {
            ("copy_reg", "_reconstructor"),
            ("copyreg", "_reconstructor"),
            ("__builtin__", "object"),
            ("builtins", "object"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Only what builds arrays is looked up."""
        if (module, name) in self._ARRAYS:
            return super().find_class(module, name)
        if (module, name) in self._OBJECTS or module.startswith(("chumpy", "scipy.sparse")):
            return _Opaque
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}")


def _read_flame(source: Path) -> dict[str, Any]:
    if source.suffix == ".npz":
        with np.load(source, allow_pickle=False) as archive:
            return {key: archive[key] for key in ("v_template", "shapedirs", "f")}
    data = _ArrayUnpickler(io.BytesIO(source.read_bytes()), encoding="latin1").load()
    return {key: _array_of(data[key]) for key in ("v_template", "shapedirs", "f")}


def _array_of(value: Any) -> NDArray[Any]:
    """An array, or the one inside a chumpy object."""
    if isinstance(value, _Opaque):
        state = value.state if isinstance(value.state, Mapping) else {}
        value = state.get("x", state.get("_cached_value"))
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError("an array of numbers is missing")
    return array


def _bad_flame(source: Path, got: str) -> ModelError:
    return ModelError(
        f"FLAME's generic_model.pkl, or the same arrays as .npz, at {source}",
        got,
        "fetch it from flame.is.tue.mpg.de",
    )


def _from_y_up(points: Array) -> Array:
    """From x left, y up, z out of the face to x out, y left, z up."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points of shape {points.shape}")
    return points[:, [2, 0, 1]]


def _basis_from_y_up(basis: Array) -> Array:
    if basis.ndim != 3 or basis.shape[1] != 3:
        raise ValueError(f"a basis of shape {basis.shape}")
    return basis[:, [2, 0, 1]]


def _bfm_points(flat: Any) -> Array:
    return _from_y_up(np.asarray(flat, np.float64).reshape(-1, 3)) * 0.1


def _bfm_basis(flat: Any, n: int) -> Array:
    return _basis_from_y_up(np.asarray(flat, np.float64).reshape(n, 3, -1)) * 0.1


def _arrays(
    *,
    name: str,
    licence: str,
    attribution: str,
    source: Path,
    mean: Array,
    triangles: NDArray[np.int64],
    identity: Array,
    expression: Array,
    expression_names: list[str] | None,
    expression_prior: str,
    landmarks: NDArray[np.int64] | LandmarkFinder,
    albedo: Array | None = None,
    albedo_basis: Array | None = None,
    attention: Array | None = None,
) -> dict[str, NDArray[Any]]:
    """The file's arrays of a model without subdivision. Metres, face axes, any origin."""
    n = len(mean)
    if (
        triangles.ndim != 2
        or triangles.shape[1] != 3
        or not (len(triangles) and triangles.min() >= 0 and triangles.max() < n)
    ):
        raise ModelError(f"triangles among {n} vertices", "others", "check the source file")
    if callable(landmarks):
        landmarks = landmarks(mean, triangles)
    elif landmarks.shape != (68,) or landmarks.min() < 0 or landmarks.max() >= n:
        raise ModelError("68 landmark vertices", f"{landmarks.shape}", "check the source file")
    triangles = _outward(mean, triangles, landmarks)
    sellion = int(landmarks[_SELLION_LANDMARK])
    mean = mean - mean[sellion]
    ones = np.ones(n)
    attention = ones if attention is None else attention
    uvs = np.stack(
        [
            0.5 + np.arctan2(mean[:, 1], mean[:, 0] + 0.1) / (2 * np.pi),
            (mean[:, 2] - mean[:, 2].min()) / max(np.ptp(mean[:, 2]), 1e-9),
        ],
        axis=1,
    )
    return {
        "format_version": np.int32(FORMAT_VERSION),
        "name": np.str_(name),
        "licence": np.str_(licence),
        "attribution": np.str_(attribution),
        "source": np.str_(source.name),
        "units": np.str_("metre"),
        "axes": np.str_(AXES),
        "mean_shape": mean.astype(np.float32),
        "identity_basis": identity.astype(np.float16),
        "expression_basis": expression.astype(np.float16),
        "expression_names": np.array(
            expression_names or [f"expression_{i:03d}" for i in range(expression.shape[2])]
        ),
        "expression_prior": np.str_(expression_prior),
        "mean_albedo": (
            np.full((n, 3), _GREY) if albedo is None else np.clip(albedo, 0, 1)
        ).astype(np.float16),
        "albedo_basis": (np.zeros((n, 3, 0)) if albedo_basis is None else albedo_basis).astype(
            np.float16
        ),
        "triangles": triangles.astype(np.int32),
        "coarse_triangles": triangles.astype(np.int32),
        "uvs": uvs.astype(np.float16),
        "uv_triangles": triangles.astype(np.int32),
        "region_names": np.array(["face"]),
        "regions": np.zeros(n, np.uint8),
        "subset_names": np.array(["face", "facial_skin"]),
        "subsets": np.stack([ones > 0, attention > 0]),
        "skin_attention": attention.astype(np.float16),
        "symmetry": mirror_vertices(mean).astype(np.int32),
        "landmarks_68": landmarks.astype(np.int32),
        "sellion": np.int32(sellion),
        "interpupillary": _pupils(mean, landmarks),
    }


def mirror_vertices(mean: Array) -> NDArray[np.intp]:
    """(V,) the vertex nearest to each mirror image where that is mutual, else the vertex."""
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(mean).query(mean * np.array([1.0, -1.0, 1.0]))
    own = np.arange(len(mean))
    return np.where(nearest[nearest] == own, nearest, own)


def _outward(
    mean: Array, triangles: NDArray[np.int64], landmarks: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Turns all triangles if those around the nose tip face into the head."""
    near = np.linalg.norm(mean[triangles].mean(axis=1) - mean[landmarks[30]], axis=1) < 0.02
    corners = mean[triangles[near]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return triangles[:, [0, 2, 1]] if normal[:, 0].sum() < 0 else triangles


def _pupils(mean: Array, landmarks: NDArray[np.int64]) -> NDArray[np.int32]:
    centres = [mean[landmarks[list(_EYELIDS[side])]].mean(axis=0) for side in ("right", "left")]
    return np.array([np.argmin(((mean - c) ** 2).sum(axis=1)) for c in centres], np.int32)
