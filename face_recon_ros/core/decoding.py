"""Coefficients of all faces of an image -> their meshes, in one pass.

The bases are read once for all faces (one matrix product each), and what is done for each vertex
is done for all meshes at once, so that eight faces take about twice as long as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import face_boxes_from_extents
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.illumination import shade_all
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.types import Face, Float32


class MeshDecoder:
    """Decodes one mesh topology. N may be 0 everywhere."""

    def __init__(self, model: MorphableModel) -> None:
        """Prepares the normals.

        Args:
            model: at its level and cut to its part.

        Raises:
            ModelError: it has no facial skin.
        """
        self._model = model
        self._normals = VertexNormals(model.triangles, model.n_vertices)
        self.skin = np.flatnonzero(model.subsets[FACIAL_SKIN])
        if len(self.skin) == 0:
            raise ModelError("facial skin in the mesh", "none", "use reconstructor.part face")

    def neutral(self, identity: Float32) -> Float32:
        """(N, V, 3) metres, face frame, of identities (N, K_id)."""
        m = self._model
        return m.mean_shape + (identity @ m.identity_basis.T).reshape(-1, m.n_vertices, 3)

    def reflectance(self, albedo: Float32) -> Float32:
        """(N, 3, V) sRGB-encoded, in [0, 1], of albedo coefficients (N, K_alb)."""
        m = self._model
        colours = m.mean_albedo + (albedo @ m.albedo_basis.T).reshape(-1, m.n_vertices, 3)
        return np.ascontiguousarray(np.clip(colours, 0.0, 1.0).transpose(0, 2, 1))

    def express(self, neutral: Float32, expression: Float32) -> Float32:
        """(N, V, 3) metres, face frame, of neutral shapes (N, V, 3) and expressions (N, K_exp)."""
        return neutral + (expression @ self._model.expression_basis.T).reshape(neutral.shape)

    def boxes(
        self, vertices: Float32, poses: Sequence[Rigid], cameras: Sequence[NormalisedCamera]
    ) -> Float32:
        """Where meshes lie in the image.

        Args:
            vertices: (N, V, 3) metres, face frame.
            poses: N, of the faces in the cameras.
            cameras: N, of the faces' crops, in the same order.

        Returns:
            (N, 4) face boxes, image pixels.
        """
        if not cameras:
            return np.zeros((0, 4), np.float32)
        rotation = _stacked([p.rotation for p in poses])
        translation = _stacked([p.translation for p in poses])
        x, y, z = np.moveaxis(
            rotation @ vertices.take(self.skin, axis=1).transpose(0, 2, 1)
            + translation[..., None],
            1,
            0,
        )
        x, y = x / z, y / z
        low = np.stack([x.min(axis=1), y.min(axis=1)], axis=1)
        high = np.stack([x.max(axis=1), y.max(axis=1)], axis=1)
        crops = [camera.crop for camera in cameras]
        focal = np.array([camera.focal for camera in cameras])[:, None]
        in_crop = focal * face_boxes_from_extents(low, high)  # crop sides from its middle
        sides = np.array([crop.side_px for crop in crops])[:, None]
        turn = np.array([crop.image_from_crop_rotation for crop in crops])
        middle = (turn @ (in_crop[:, :2] + in_crop[:, 2:])[..., None])[..., 0] / 2
        centre = np.array([crop.centre_px for crop in crops]) + sides * middle
        half = sides * (in_crop[:, 2:] - in_crop[:, :2]) / 2
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)

    def normals(self, vertices: Float32, poses: Sequence[Rigid]) -> Float32:
        """(N, 3, V) unit normals, crop camera frame, of vertices (N, V, 3) in N poses."""
        rotations = _stacked([p.rotation for p in poses]).reshape(-1, 3, 3)
        return np.asarray(rotations @ self._normals.of_all(vertices))

    def colours(self, normals: Float32, reflectance: Float32, illumination: Float32) -> Float32:
        """Shaded skin.

        Args:
            normals: (N, 3, V) of `normals`.
            reflectance: (N, 3, V) of `reflectance`.
            illumination: (N, 9, 3); see `core.illumination`.

        Returns:
            (N, V, 3) sRGB-encoded, in [0, 1].
        """
        shaded = shade_all(reflectance, normals, illumination)
        return np.ascontiguousarray(shaded.transpose(0, 2, 1))


class LinearSize:
    """Size of a head by its identity, to first order: mean radius of the facial skin, metres."""

    def __init__(self, model: MorphableModel, skin: NDArray[np.intp]) -> None:
        """Of the vertices `skin` of a model."""
        points = model.mean_shape[skin]
        radial = points - points.mean(axis=0)
        radius = np.linalg.norm(radial, axis=1, keepdims=True)
        outward = radial / np.maximum(radius, 1e-9)
        basis = model.identity_basis.reshape(-1, 3, model.k_identity)[skin]
        moved = basis - basis.mean(axis=0)
        self._mean = float(radius.mean())
        self._slope = np.einsum("vx,vxk->k", outward, moved) / len(skin)

    def __call__(self, identity: Float32) -> float:
        """Metres, of an identity (K_id,)."""
        return max(self._mean + float(self._slope @ identity), 0.5 * self._mean)


def as_known(face: Face, identity: Float32, model: MorphableModel) -> Face:
    """The same face of a person who is known better by now.

    Args:
        face: of one picture; its mesh is of `model`.
        identity: (K_id,) of the person.
        model: at its level and cut to its part.

    Returns:
        With that neutral shape under the picture's own expression, as large in the picture as
        before.
    """
    c, pose = face.coefficients, face.camera_from_face
    size = LinearSize(model, np.flatnonzero(model.subsets[FACIAL_SKIN]))
    ratio = size(identity) / size(c.identity[0])
    coefficients = replace(
        c, identity=identity[None], translation=(ratio * c.translation).astype(np.float32)
    )
    return replace(
        face,
        coefficients=coefficients,
        camera_from_face=Rigid(pose.rotation, ratio * pose.translation),
        mesh=replace(face.mesh, vertices=model.vertices(identity, c.expression[0])),
    )


def _stacked(arrays: Sequence[object]) -> Float32:
    return np.asarray(arrays, np.float32)
