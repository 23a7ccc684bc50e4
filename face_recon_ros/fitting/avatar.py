"""A person's avatar from what a track has shown: fused head, texture, the clip's motion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import Picture
from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, crop_from_face
from face_recon_ros.core.dense_points import DensePointStage
from face_recon_ros.core.errors import DataError
from face_recon_ros.core.illumination import shade
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.occlusion import OcclusionSense
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.texture import View, look_at, seen_at
from face_recon_ros.core.texture_atlas import TextureAtlas, TextureBuilder
from face_recon_ros.core.texture_sampler import TextureSampler
from face_recon_ros.core.types import Coefficients, Face, Float32
from face_recon_ros.io.gltf import Animation, TexturedHead

TEXTURE_SIZES = (256, 512, 1024, 2048)
LITTLE_SEEN = 0.05  # of the face's texels: below, an avatar has the model's colours only

_MOVED_M = 0.003  # by an expression: a vertex counts half
_EVERY = 40  # vertices of the skin, to find out how calm a face is


class AvatarMaker:
    """Gathers people over the images of a source, and makes heads of them."""

    def __init__(
        self,
        model: MorphableModel,
        texture_size: int = 1024,
        points: DensePointStage | None = None,
    ) -> None:
        """Begins without a person.

        Args:
            model: the whole head, fine level.
            texture_size: pixels per side.
            points: that the faces were fitted to.

        Raises:
            ModelError: the model has no texture coordinates.
        """
        self.model = model
        self._atlas = TextureAtlas(model, texture_size)
        self._sampler = TextureSampler(model)
        self._normals = VertexNormals(model.triangles, model.n_vertices)
        self._occlusion = OcclusionSense(points.mean if points else None, model.mean_shape)
        self._moves = model.expression_basis.reshape(model.n_vertices, 3, -1)
        self._some = np.flatnonzero(model.subsets[FACIAL_SKIN])[::_EVERY]
        self._people: dict[str, _Person] = {}

    def forget(self) -> None:
        """Forgets all people; what depends on the mesh only is kept."""
        self._people.clear()

    @property
    def images(self) -> dict[str, int]:
        """Person -> in how many images, the most seen first."""
        counts = {name: len(person.stamps) for name, person in self._people.items()}
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def first_place(self, name: str) -> NDArray[np.float32]:
        """(2,) image pixels: the middle of a person's face where it was first seen."""
        return self._people[name].place

    def add(self, rgb: NDArray[np.uint8], face: Face, name: str | None = None) -> None:
        """Takes in a face.

        Args:
            rgb: (H, W, 3) uint8 image that shows it.
            face: reconstructed from it.
            name: of the person; None takes the track's id.
        """
        name = face.track.id if name is None else name
        if name not in self._people:
            builder = TextureBuilder(self._atlas, self._sampler, self.model)
            self._people[name] = _Person(builder, (face.box[:2] + face.box[2:]) / 2)
        person = self._people[name]
        c = face.coefficients
        person.identities.append(c.identity[0])
        person.albedos.append(c.albedo[0])
        person.stamps.append(face.stamp)
        person.expressions.append(c.expression[0])
        person.poses.append(face.camera_from_face)
        pose = crop_from_face(c.rotation[0], c.translation[0])
        _, _, px_per_mm = seen_at(Picture(rgb), _camera(face), pose, self.model.mean_shape[:1])
        quality = px_per_mm * float(_calm(self._moves[self._some], c.expression[0]).mean())
        if person.texture.wants(pose, quality):
            person.texture.add(self._view(rgb, face, pose)._replace(quality=quality))

    def head(
        self,
        name: str,
        *,
        animate: bool = False,
        fused: bool = True,
        shown: Coefficients | None = None,
    ) -> TexturedHead:
        """The head of a person, with texture and every expression.

        Args:
            name: of the person.
            animate: with the motion over the images.
            fused: images of one track, whose identity the pipeline has fused already: the last
                counts. Otherwise the mean over the images.
            shown: a row of coefficients, whose expression the head has at rest; None: neutral.

        Raises:
            DataError: there is no such person.
        """
        if name not in self._people:
            raise DataError(
                f"one of {', '.join(self._people) or 'none'}", repr(name), "choose one of these"
            )
        person = self._people[name]
        last = slice(-1, None) if fused else slice(None)
        identity = np.mean(person.identities[last], axis=0)
        albedo = self.model.albedo(np.mean(person.albedos[last], axis=0))
        expression = np.zeros(self.model.k_expression, np.float32)
        if shown is not None:
            expression = shown.expression[0]
        return TexturedHead(
            vertices=self.model.vertices(identity, expression),
            triangles=self.model.triangles,
            uvs=self._atlas.uvs,
            uv_triangles=self.model.uv_triangles,
            texture=person.texture.texture(albedo),
            targets={
                key: np.ascontiguousarray(self._moves[:, :, k])
                for k, key in enumerate(self.model.expression_names)
            },
            animation=person.animation() if animate else None,
            extras=self._extras(person),
        )

    def coverage(self, name: str) -> float:
        """Share of a person's face that its texture has seen, in [0, 1]."""
        return self._people[name].texture.coverage

    def _extras(self, person: _Person) -> dict[str, Any]:
        return {
            "face_model": self.model.name,
            "images": len(person.stamps),
            "texture_coverage": round(person.texture.coverage, 3),
        }

    def _view(self, rgb: NDArray[np.uint8], face: Face, pose: Rigid) -> View:
        c = face.coefficients
        vertices = self.model.vertices(c.identity[0], c.expression[0])
        normals = self._normals(vertices) @ pose.rotation.T.astype(np.float32)
        lit = shade(self.model.albedo(c.albedo[0]), normals, c.illumination[0]).astype(np.float32)
        shown = self._occlusion(face.point_sigma, face.presence)
        picture = Picture(rgb)
        view = look_at(self._sampler, picture, _camera(face), pose, vertices, normals, lit, shown)
        return view._replace(calm=_calm(self._moves, c.expression[0]))


def _camera(face: Face) -> NormalisedCamera:
    return NormalisedCamera.of(face.crop, face.camera)


def _calm(moves: Float32, expression: Float32) -> Float32:
    """(V,) in [0, 1]: how little an expression (K,) moves vertices, by `moves` (V, 3, K)."""
    moved = np.linalg.norm(moves @ expression, axis=1)
    return np.asarray(1 / (1 + (moved / _MOVED_M) ** 2), np.float32)


@dataclass
class _Person:
    """What was seen of a person, image by image."""

    texture: TextureBuilder
    place: NDArray[np.float32]
    identities: list[NDArray[np.float32]] = field(default_factory=list)
    albedos: list[NDArray[np.float32]] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    expressions: list[NDArray[np.float32]] = field(default_factory=list)
    poses: list[Rigid] = field(default_factory=list)

    def animation(self) -> Animation:
        """Expression and head pose over time; images without a step in time are left out."""
        times = np.array(self.stamps) - self.stamps[0]
        kept = np.concatenate([[True], np.diff(np.maximum.accumulate(times)) > 0])
        positions = np.array([pose.translation for pose in self.poses])
        frontal = CAMERA_FROM_FRONTAL_FACE.T
        return Animation(
            times=times[kept],
            weights=np.clip(np.array(self.expressions)[kept], 0, 1),
            rotations=np.array([frontal @ pose.rotation for pose in self.poses])[kept],
            translations=((positions - positions.mean(axis=0)) @ frontal.T)[kept],
        )
