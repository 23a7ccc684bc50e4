"""Pictures whose truth is known: the face model, or any coloured mesh, rendered.

Written in the very formats the benchmarks read: NAME.png, NAME.pts (projected landmarks),
NAME.ply and NAME.pts3d (true neutral face and its landmarks, millimetres), and NAME.json (camera
and pose).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.alignment import align_points
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.illumination import N_BANDS, shade
from face_recon_ros.core.morphable_model import MorphableModel, VertexNormals
from face_recon_ros.core.rasterizer import interpolate, rasterize
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Float32, Mesh
from face_recon_ros.evaluation.datasets import camera_of_json, read_landmarks
from face_recon_ros.evaluation.landmarks import LandmarkProjector
from face_recon_ros.evaluation.metrics import INNER
from face_recon_ros.io.images import write_image
from face_recon_ros.io.meshes import UNITS_M, read_mesh, write_ply

Array = NDArray[np.float64]

_SUPERSAMPLING = 2
_FOV_DEG = 40.0
_MM = 1000.0


@dataclass(frozen=True)
class Scene:
    """One face before one camera, all of it known.

    Attributes:
        name: of its files.
        camera: that takes the picture.
        camera_from_face: the head.
        mesh: face frame, metres; colours as seen (lit), sRGB-encoded.
        landmarks_px: (68, 2) pixels, contour as annotators place it.
        neutral: the same face without expression, metres, face frame.
        neutral_landmarks: (68, 3) metres, face frame, on the neutral face.
    """

    name: str
    camera: PinholeCamera
    camera_from_face: Rigid
    mesh: Mesh
    landmarks_px: Array
    neutral: Mesh
    neutral_landmarks: Array

    def render(self, background: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, anti-aliased.

        Args:
            background: (H, W, 3) picture; mid grey without one.
        """
        k = _SUPERSAMPLING
        camera = self.camera
        large = camera.resized(k * camera.width, k * camera.height)
        vertices = self.camera_from_face.apply(self.mesh.vertices)
        fragments = rasterize(
            large.project(vertices), vertices[:, 2], self.mesh.triangles, large.height, large.width
        )
        if self.mesh.colours is None:
            raise DataError("a mesh with vertex colours", "none", "add colours to the mesh")
        if background is None:
            background = np.full((camera.height, camera.width, 3), 128, np.uint8)
        behind = background.repeat(k, axis=0).repeat(k, axis=1).astype(np.float32)
        face = interpolate(fragments, self.mesh.triangles, self.mesh.colours * np.float32(255))
        picture = np.where((fragments.triangle >= 0)[..., None], face, behind)
        small = picture.reshape(camera.height, k, camera.width, k, 3).mean(axis=(1, 3))
        return np.asarray(np.clip(np.rint(small), 0, 255), np.uint8)

    def write(self, folder: Path, background: NDArray[np.uint8] | None = None) -> None:
        """Writes picture and truth into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / self.name
        write_image(stem.with_suffix(".png"), self.render(background))
        _write_points(stem.with_suffix(".pts"), self.landmarks_px)
        _write_points(stem.with_suffix(".pts3d"), self.neutral_landmarks * _MM)
        neutral = Mesh((self.neutral.vertices * np.float32(_MM)), self.neutral.triangles)
        write_ply(stem.with_suffix(".ply"), neutral)
        truth = {
            "camera": {
                "width": self.camera.width,
                "height": self.camera.height,
                "matrix": self.camera.matrix.tolist(),
                "distortion": self.camera.distortion.tolist(),
                "distortion_model": self.camera.distortion_model,
            },
            "camera_from_face": {
                "rotation": self.camera_from_face.rotation.tolist(),
                "translation_m": self.camera_from_face.translation.tolist(),
            },
        }
        stem.with_suffix(".json").write_text(json.dumps(truth, indent=1) + "\n")


def read_truth(path: str | Path) -> tuple[PinholeCamera, Rigid]:
    """Camera and camera_from_face of a NAME.json written with a scene.

    Raises:
        DataError: it is no such file.
    """
    try:
        truth: dict[str, Any] = json.loads(Path(path).read_text())
        camera, pose = camera_of_json(truth["camera"]), truth["camera_from_face"]
        rotation = np.array(pose["rotation"], np.float64).reshape(3, 3)
        return camera, Rigid(rotation, np.array(pose["translation_m"], np.float64).reshape(3))
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise DataError(
            f"camera and pose in {Path(path).name}", f"{fault!r}", "restore the file"
        ) from None


class ModelScenes:
    """Scenes of the face model itself."""

    def __init__(self, model: MorphableModel, *, size_px: int = 480) -> None:
        """Prepares the model.

        Args:
            model: whole head; fine looks better, coarse is faster.
            size_px: side of the square pictures.
        """
        self.model = model
        self.projector = LandmarkProjector(model)
        self._normals = VertexNormals(model.triangles, model.n_vertices)
        guess = PinholeCamera.from_fov(size_px, size_px, _FOV_DEG)
        self.camera = PinholeCamera(size_px, size_px, guess.matrix)

    def scene(
        self,
        name: str,
        camera_from_face: Rigid,
        *,
        identity: NDArray[np.floating] | None = None,
        expression: NDArray[np.floating] | None = None,
        albedo: NDArray[np.floating] | None = None,
        illumination: NDArray[np.floating] | None = None,
    ) -> Scene:
        """A face of the model; what is not given is the mean, neutral, in soft light from above.

        Args:
            name: of the scene.
            camera_from_face: the head.
            identity: (K_id,).
            expression: (K_exp,).
            albedo: (K_alb,).
            illumination: (9, 3) in the camera's frame.
        """
        model = self.model
        a = np.zeros(model.k_identity, np.float32) if identity is None else identity
        e = np.zeros(model.k_expression, np.float32) if expression is None else expression
        t = np.zeros(model.k_albedo, np.float32) if albedo is None else albedo
        neutral = model.neutral(a)
        vertices = model.express(neutral, e)
        normals = self._normals(vertices) @ camera_from_face.rotation.T.astype(np.float32)
        light = soft_light() if illumination is None else illumination.astype(np.float32)
        colours = shade(model.albedo(t), normals, light).astype(np.float32)
        return Scene(
            name,
            self.camera,
            camera_from_face,
            Mesh(vertices, model.triangles, colours),
            self.projector.project(a, e, camera_from_face, self.camera),
            Mesh(neutral, model.triangles),
            model.landmarks.of(neutral).astype(np.float64),
        )

    def turntable(self, count: int, *, yaw_deg: float = 60.0, seed: int = 0) -> Iterator[Scene]:
        """One person turning from one side to the other, `count` views.

        Args:
            count: of views.
            yaw_deg: to each side.
            seed: of the person; 0 is the mean face.
        """
        person = _person(self.model, np.random.default_rng(seed)) if seed else {}
        for i, yaw in enumerate(np.radians(np.linspace(-yaw_deg, yaw_deg, count))):
            yield self.scene(f"turn_{i:03d}", facing([0.0, 0.0, 0.55], yaw=yaw), **person)

    def random(self, count: int, *, seed: int = 0) -> Iterator[Scene]:
        """Different people in ordinary poses and light, with mild expressions."""
        rng = np.random.default_rng(seed)
        for i in range(count):
            person = _person(self.model, rng)
            expression = np.zeros(self.model.k_expression)
            if self.model.expression_prior == "unit_interval":
                active = rng.choice(self.model.k_expression, 3, replace=False)
                expression[active] = rng.uniform(0, 0.5, 3)
            else:
                expression = 0.5 * rng.standard_normal(self.model.k_expression)
            light = (
                soft_light()
                + rng.normal(0, 0.06, (N_BANDS, 1)) * (np.arange(N_BANDS) > 0)[:, None]
            )
            z = rng.uniform(0.45, 0.9)
            reach = 0.2 * z
            pose = facing(
                [rng.uniform(-reach, reach), rng.uniform(-reach, reach), z],
                yaw=rng.normal(0, 0.4),
                pitch=rng.normal(0, 0.18),
                roll=rng.normal(0, 0.15),
            )
            yield self.scene(
                f"face_{i:04d}", pose, expression=expression, illumination=light, **person
            )


def read_coloured_mesh(mesh_path: Path, landmarks_path: Path, unit: str) -> tuple[Mesh, Array]:
    """A mesh with vertex colours and its landmarks (68, 3), in metres, any frame.

    Args:
        mesh_path: OBJ or PLY.
        landmarks_path: `.pts3d`, same unit and frame.
        unit: of `UNITS_M`.

    Raises:
        DataError: unreadable, or no colours.
    """
    metres = UNITS_M[unit]
    mesh = read_mesh(mesh_path)
    if mesh.colours is None or len(mesh.triangles) == 0:
        raise DataError(
            f"triangles with vertex colours in {mesh_path.name}",
            "none",
            "export the texture as vertex colours",
        )
    scaled = Mesh(mesh.vertices * np.float32(metres), mesh.triangles, mesh.colours)
    return scaled, read_landmarks(landmarks_path, 3) * metres


def scene_of_mesh(
    name: str,
    mesh: Mesh,
    landmarks: Array,
    model: MorphableModel,
    camera: PinholeCamera,
    camera_from_face: Rigid,
) -> Scene:
    """A scene of a given mesh: a scan with vertex colours.

    The face frame is taken over from the face model by aligning the 51 inner landmarks, size kept.

    Args:
        name: of the scene.
        mesh: any frame, metres, neutral, with colours as seen.
        landmarks: (68, 3) of the mesh, same frame.
        model: the face model.
        camera: that takes the picture.
        camera_from_face: the head.
    """
    model_marks = model.landmarks.of(model.mean_shape)[INNER]
    face_from_mesh = align_points(landmarks[INNER], model_marks, with_scale=False)
    moved = Mesh(
        face_from_mesh.apply(mesh.vertices).astype(np.float32), mesh.triangles, mesh.colours
    )
    marks = face_from_mesh.apply(landmarks)
    pixels = camera.project(camera_from_face.apply(marks))
    return Scene(name, camera, camera_from_face, moved, pixels, moved, marks)


def write_scenes(scenes: Iterable[Scene], folder: str | Path, *, seed: int = 0) -> int:
    """Writes pictures before smooth random backgrounds, with their truth; returns how many."""
    rng = np.random.default_rng(seed)
    count = 0
    for scene in scenes:
        scene.write(Path(folder), smooth_background(scene.camera, background_colours(rng)))
        count += 1
    return count


def facing(
    sellion_m: Iterable[float], *, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0
) -> Rigid:
    """A head at a place in the camera frame, turned from looking against the optical axis.

    Args:
        sellion_m: (3,) metres, camera frame.
        yaw: radians about the face's vertical; positive turns the nose to the image's right.
        pitch: positive raises the nose.
        roll: positive lowers the subject's left side in the image.
    """
    turn = (
        rotation_from_vector([0, 0, roll])
        @ rotation_from_vector([0, -yaw, 0])
        @ rotation_from_vector([-pitch, 0, 0])
    )
    return Rigid(turn @ CAMERA_FROM_FRONTAL_FACE, np.array(list(sellion_m), np.float64))


def soft_light() -> Float32:
    """(9, 3) white light, mostly ambient, some from above and the front."""
    light = np.zeros((N_BANDS, 3), np.float32)
    light[0], light[1], light[2] = 0.75, -0.12, -0.16
    return light


def background_colours(rng: np.random.Generator) -> NDArray[np.uint8]:
    """(6, 6, 3) random colours for `smooth_background`."""
    return rng.integers(30, 226, (6, 6, 3), dtype=np.uint8)


def smooth_background(camera: PinholeCamera, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, a few colours blended over the whole picture."""
    size = (camera.width, camera.height)
    return np.asarray(cv2.resize(colours, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _person(model: MorphableModel, rng: np.random.Generator) -> dict[str, NDArray[np.floating]]:
    return {
        "identity": 0.8 * rng.standard_normal(model.k_identity),
        "albedo": 0.6 * rng.standard_normal(model.k_albedo),
    }


def _write_points(path: Path, points: Array) -> None:
    lines = [" ".join(f"{x:.4f}" for x in point) for point in points]
    path.write_text("\n".join(lines) + "\n")
