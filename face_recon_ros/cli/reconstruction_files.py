"""What `face-recon reconstruct` writes of the faces it found: meshes, portraits, JSON, NPZ."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.models import find_model
from face_recon_ros.core.morphable_model import load_morphable_model
from face_recon_ros.core.overlay import render_mesh
from face_recon_ros.core.reconstructor import FaceReconstructor
from face_recon_ros.core.types import COEFFICIENT_NAMES, Coefficients, Face
from face_recon_ros.fitting.avatar import AvatarMaker
from face_recon_ros.io.folders import write_whole
from face_recon_ros.io.gltf import write_glb
from face_recon_ros.io.images import png_bytes
from face_recon_ros.io.meshes import MESH_SUFFIXES, write_mesh
from face_recon_ros.io.textured_obj import write_textured_obj

#: --mesh -> suffixes.
MESHES: dict[str, tuple[str, ...]] = {
    "ply": (".ply",),
    "obj": (".obj",),
    "glb": (".glb",),
    "both": MESH_SUFFIXES,
    "all": (*MESH_SUFFIXES, ".glb"),
    "none": (),
}
_TEXTURE_PX = 1024


@dataclass(frozen=True)
class Sighting:
    """One face in one image, without its mesh."""

    frame: int
    face: Face
    camera: PinholeCamera


def write_results(
    args: argparse.Namespace,
    name: str,
    reconstructor: FaceReconstructor,
    sightings: list[Sighting],
    people: list[Face],
    heads: AvatarMaker | None,
    files: Sequence[str],
    **more: Any,
) -> str:
    """Writes meshes and portraits of `people`, JSON with `more`, and NPZ of all sightings.

    They take the place of those of an earlier run under the same name.

    Args:
        args: of the command.
        name: of the picture, or `faces`.
        reconstructor: that made them.
        sightings: of all people in all images.
        people: each once.
        heads: their textures.
        files: that the command writes besides, in the same folder.
        more: for the JSON.

    Returns:
        What a user should know of an earlier run's results; empty where there is nothing.
    """
    suffixes = MESHES[args.mesh]
    described, files = [], list(files)
    for face in people:
        stem = f"{name}_{face.track.id}"
        for suffix in suffixes:
            files += _write_mesh(args.out / f"{stem}{suffix}", face, heads)
        views = [render_mesh(face.mesh, 320, yaw) for yaw in (0.0, -45.0, 90.0)]
        (args.out / f"{stem}_views.png").write_bytes(png_bytes(np.concatenate(views, axis=1)))
        files.append(f"{stem}_views.png")
        seen = [s for s in sightings if s.face.track.id == face.track.id]
        described.append(
            {
                "id": face.track.id,
                "images": len(seen),
                "first_stamp": seen[0].face.stamp,
                "last_stamp": seen[-1].face.stamp,
                "meshes": [f"{stem}{suffix}" for suffix in suffixes],
                **_described(seen[-1], reconstructor.model.expression_names),
            }
        )
    summary = {
        "source": args.source,
        "network": reconstructor.network.path.name,
        "face_model": reconstructor.model.name,
        "units": "metres, seconds, radians, pixels",
        **more,
        "faces": described,
        "files": files,
    }
    np.savez_compressed(args.out / f"{name}.npz", **_table(sightings, reconstructor))
    before = _remove_others(args.out / f"{name}.json", files)
    write_whole(args.out / f"{name}.json", json.dumps(summary, indent=1) + "\n")
    replaced = before and before != args.source
    return f"{args.out / name}: replaced the results of {before}" if replaced else ""


def _remove_others(summary: Path, files: Sequence[str]) -> str:
    """Deletes the files of an earlier run, named by its JSON, that this one does not have.

    Args:
        summary: the JSON, of this command or of another program.
        files: of this run.

    Returns:
        The source of that run; empty where there was none.
    """
    try:
        told = json.loads(summary.read_text())
        source, old = str(told["source"]), [Path(name).name for name in told["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    for name in set(old) - set(files):
        (summary.parent / name).unlink(missing_ok=True)
    return source


def _write_mesh(path: Path, face: Face, heads: AvatarMaker | None) -> list[str]:
    """Writes a face in the format of the suffix, textured where there is a texture.

    Returns:
        The names of its files.
    """
    if heads is not None and path.suffix == ".obj":
        head = heads.head(face.track.id, shown=face.coefficients)
        return [file.name for file in write_textured_obj(path, head)]
    if heads is None or path.suffix == ".ply":
        write_mesh(path, face.mesh)
    else:
        write_glb(path, heads.head(face.track.id))
    return [path.name]


def textured_heads(
    args: argparse.Namespace, reconstructor: FaceReconstructor
) -> AvatarMaker | None:
    """What makes the textured heads that `--mesh` asks for; None: it asks for none.

    Raises:
        ModelError: a GLB is asked for, and the face model has no texture coordinates.
    """
    suffixes = set(MESHES[args.mesh]) - {".ply"}
    if not suffixes:
        return None
    maker = _head_maker(args.face_model, reconstructor)
    if maker is None and ".glb" in suffixes:
        raise ModelError(
            "texture coordinates in the face model", "none", "use the default, or --mesh both"
        )
    if maker:
        maker.forget()
    return maker


@functools.lru_cache(maxsize=1)
def _head_maker(face_model: str, reconstructor: FaceReconstructor) -> AvatarMaker | None:
    """For a face model; None if it has no texture coordinates: OBJ has vertex colours then."""
    model = load_morphable_model(find_model(face_model))
    if len(model.uv_triangles) == 0:
        return None
    return AvatarMaker(model, _TEXTURE_PX, reconstructor.points)


def _described(sighting: Sighting, expression_names: Sequence[str]) -> dict[str, Any]:
    face, c = sighting.face, sighting.face.coefficients
    return {
        "box": face.box.tolist(),
        "score": face.track.score,
        "camera_matrix": sighting.camera.matrix.tolist(),
        "camera_calibrated": sighting.camera.calibrated,
        "camera_from_face": {
            "rotation": face.camera_from_face.rotation.tolist(),
            "translation": face.camera_from_face.translation.tolist(),
        },
        "expression": dict(zip(expression_names, c.expression[0].tolist(), strict=True)),
        "identity": c.identity[0].tolist(),
        "albedo": c.albedo[0].tolist(),
        "illumination": c.illumination[0].tolist(),
    }


def _table(sightings: list[Sighting], reconstructor: FaceReconstructor) -> dict[str, Any]:
    """All sightings as arrays with one row each."""
    faces = [s.face for s in sightings]
    sizes = reconstructor.network.sizes
    coefficients = [f.coefficients for f in faces] or [Coefficients.zeros(0, *sizes.values())]
    poses = [f.camera_from_face for f in faces]
    return {
        "image": np.array([s.frame for s in sightings], np.int64),
        "stamp": np.array([f.stamp for f in faces], np.float64),
        "id": np.array([f.track.id for f in faces], np.str_),
        "score": np.array([f.track.score for f in faces], np.float32),
        "box": np.array([f.box for f in faces], np.float32).reshape(-1, 4),
        "camera_from_face_rotation": np.array([p.rotation for p in poses]).reshape(-1, 3, 3),
        "camera_from_face_translation": np.array([p.translation for p in poses]).reshape(-1, 3),
        "camera_matrix": np.array([s.camera.matrix for s in sightings]).reshape(-1, 3, 3),
        "expression_names": np.array(reconstructor.model.expression_names, np.str_),
        **{
            key: np.concatenate([getattr(c, key) for c in coefficients])
            for key in COEFFICIENT_NAMES
        },
    }
