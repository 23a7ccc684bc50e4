"""What a photograph's crop and the rendered face differ by, and how that changes with the face."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from face_recon_ros.core.crop_pose import (
    CROP_FOCAL,
    coefficients_from_crop_pose,
    crop_camera,
    crop_from_face,
)
from face_recon_ros.core.illumination import GAMMA, MIN_SHADING, N_BANDS, sh_basis
from face_recon_ros.core.morphable_model import FACE, FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.rasterizer import rasterize
from face_recon_ros.core.rigid import Rigid, rotation_from_vector
from face_recon_ros.core.types import Coefficients

Array = NDArray[np.float32]

_MIN_ATTENTION = 0.1  # skin that counts


@dataclass(frozen=True)
class State:
    """What is fitted.

    Attributes:
        identity: (K_id,) standard normal.
        expression: (K_exp,) activations.
        albedo: (K_alb,) standard normal.
        crop_from_face: the head in the nominal crop camera, metres.
        light: (9, 3) spherical harmonics per colour channel.
    """

    identity: Array
    expression: Array
    albedo: Array
    crop_from_face: Rigid
    light: Array

    @staticmethod
    def of(coefficients: Coefficients) -> State:
        """The state of one row."""
        c = coefficients
        pose = crop_from_face(c.rotation[0], c.translation[0])
        return State(c.identity[0], c.expression[0], c.albedo[0], pose, c.illumination[0])

    def coefficients(self) -> Coefficients:
        """One row."""
        rotation, translation = coefficients_from_crop_pose(self.crop_from_face)
        rows = (self.identity, self.expression, self.albedo, rotation, translation, self.light)
        return Coefficients(*(np.asarray(row, np.float32)[None] for row in rows))


@dataclass(frozen=True)
class Samples:
    """Points on the mesh.

    Attributes:
        corners: (M, 3) vertices of the triangle of each.
        weights: (M, 3) barycentric, float32.
    """

    corners: NDArray[np.intp]
    weights: Array


class _Seen(NamedTuple):
    """M samples of the rendered face, in the crop camera.

    Attributes:
        turned: (M, 3) points without translation, metres.
        points: (M, 3) points, metres.
        px: (M, 2) where they lie in the crop.
        normals: (M, 3).
        albedo: (M, 3).
        shading: (M, 3) linear light.
        tone: (M, 3) the same, sRGB-encoded: what albedo is multiplied by.
        residual: (M, 3) photograph minus rendering, of [0, 1].
        inside: (M,) whether a sample is in the picture.
    """

    turned: Array
    points: Array
    px: Array
    normals: Array
    albedo: Array
    shading: Array
    tone: Array
    residual: Array
    inside: NDArray[np.bool_]


class PhotometricResidual:
    """Difference between crops and renderings of one face model, with its derivatives."""

    def __init__(self, model: MorphableModel) -> None:
        """Prepares a model.

        Args:
            model: whole head; the coarse level is enough.
        """
        self.model = model
        self._normals = VertexNormals(model.triangles, model.n_vertices)
        n = model.n_vertices
        shape = [model.identity_basis, model.expression_basis]
        self._shape_basis = np.concatenate(shape, axis=1).reshape(n, 3, -1)
        self._albedo_basis = model.albedo_basis.reshape(n, 3, -1)
        rows = np.arange(len(model.triangles))
        ones = np.ones(len(rows), np.float32)
        self._corner_of = [
            csr_matrix((ones, (rows, model.triangles[:, k])), shape=(len(rows), n))
            for k in range(3)
        ]
        self._incidence = sum(m.T for m in self._corner_of).tocsr()  # (V, F)
        skin = model.subsets[FACIAL_SKIN] & (model.skin_attention > _MIN_ATTENTION)
        self._skin = skin[model.triangles].all(axis=1)
        self._face = model.subsets[FACE][model.triangles].all(axis=1)

    def sample(self, state: State, size: int, limit: int, seed: int = 0) -> Samples:
        """Visible pixels: `limit` of the face to fit it, or with 0 all of its skin to judge it.

        The fit needs eyes and lips too, which hold it in place.

        Args:
            state: of the face.
            size: of the crop, pixels.
            limit: how many at most.
            seed: of their choice.
        """
        part = self._face if limit else self._skin
        vertices = self.model.vertices(state.identity, state.expression)
        q = state.crop_from_face.apply(vertices)
        px = crop_camera(size).project(q)
        fragments = rasterize(px, q[:, 2], self.model.triangles, size, size)
        seen = fragments.triangle >= 0
        seen[seen] = part[fragments.triangle[seen]]
        triangle, weights = fragments.triangle[seen], fragments.weights[seen]
        if limit and len(triangle) > limit:
            rng = np.random.default_rng(seed)
            chosen = np.sort(rng.choice(len(triangle), limit, replace=False))
            triangle, weights = triangle[chosen], weights[chosen]
        return Samples(self.model.triangles[triangle].astype(np.intp), weights)

    def _seen(self, state: State, samples: Samples, image: Array) -> _Seen:
        vertices = self.model.vertices(state.identity, state.expression)
        rotation = state.crop_from_face.rotation.astype(np.float32)
        turned = _interpolate(vertices, samples) @ rotation.T
        points = turned + state.crop_from_face.translation.astype(np.float32)
        size = len(image)
        focal = np.float32(CROP_FOCAL * size)
        px = focal * points[:, :2] / points[:, 2:] + np.float32((size - 1) / 2)
        normals = _interpolate(self._normals(vertices), samples) @ rotation.T
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        albedo = _interpolate(self.model.albedo(state.albedo), samples)
        shading = np.maximum(sh_basis(normals) @ state.light, MIN_SHADING)
        tone = shading ** (1 / GAMMA)
        residual = _look_up(image, px) - albedo * tone
        inside = ((px >= 0) & (px <= size - 1)).all(axis=1)
        return _Seen(turned, points, px, normals, albedo, shading, tone, residual, inside)

    def residual(
        self, state: State, samples: Samples, image: Array
    ) -> tuple[Array, NDArray[np.bool_]]:
        """(M, 3) photograph minus rendering, and (M,) whether a sample is in the picture."""
        seen = self._seen(state, samples, image)
        return seen.residual, seen.inside

    def jacobian(
        self, state: State, samples: Samples, image: Array, slopes: Array | None
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """`residual`, with its derivatives (M, 3, P) in the second place.

        Parameters in order: identity, expression, albedo, turn (3, left, radians), shift (3,
        metres), illumination (27). Without `slopes` the first three are left out.
        """
        s = self._seen(state, samples, image)
        m = len(s.points)
        zero = np.zeros(m, np.float32)
        q = s.points
        px_by_q = (np.float32(CROP_FOCAL * len(image)) / q[:, 2])[:, None, None] * np.stack(
            [
                np.stack([zero + 1, zero, -q[:, 0] / q[:, 2]], 1),
                np.stack([zero, zero + 1, -q[:, 1] / q[:, 2]], 1),
            ],
            axis=1,
        )
        gradient = np.stack(
            [_look_up(np.gradient(image, axis=axis), s.px) for axis in (1, 0)], axis=2
        )  # (M, 3 channels, 2)
        colour_by_q = gradient @ px_by_q  # (M, 3, 3)

        lit = (s.albedo * (s.tone / s.shading / GAMMA))[:, :, None]  # d colour / d shading
        basis = sh_basis(s.normals)
        by_light = np.zeros((m, 3, N_BANDS, 3), np.float32)
        for channel in range(3):
            by_light[:, channel, :, channel] = -lit[:, channel] * basis
        shading_by_normal = np.einsum("mbx,bc->mcx", _sh_slope(s.normals), state.light)
        colour_by_normal = -lit * shading_by_normal  # (M, 3, 3)
        by_turn = np.cross(s.turned[:, None, :], colour_by_q) + np.cross(
            s.normals[:, None, :], colour_by_normal
        )
        parts = [by_turn, colour_by_q, by_light.reshape(m, 3, -1)]
        if slopes is not None:
            rotation = state.crop_from_face.rotation.astype(np.float32)
            points = np.einsum("mk,mkxp->mxp", samples.weights, self._shape_basis[samples.corners])
            turns = np.einsum("mk,mkxp->mxp", samples.weights, slopes[samples.corners])
            by_shape = (colour_by_q @ rotation) @ points + (colour_by_normal @ rotation) @ turns
            paint = np.einsum("mk,mkxp->mxp", samples.weights, self._albedo_basis[samples.corners])
            parts = [by_shape, -s.tone[:, :, None] * paint, *parts]
        return s.residual, np.concatenate(parts, axis=2), s.inside

    def normal_slopes(self, state: State) -> Array:
        """(V, 3, K_id + K_exp) derivative of unit vertex normals, face frame."""
        vertices = self.model.vertices(state.identity, state.expression)
        corners = vertices[self.model.triangles]  # (F, 3, 3)
        # n = (b - a) x (c - a) changes by (c - b) x da + (a - c) x db + (b - a) x dc.
        edges = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        summed = (self._incidence @ faces).astype(np.float32)
        length = np.maximum(np.linalg.norm(summed, axis=1), 1e-12)[:, None, None]
        unit = (summed / length[:, 0])[:, :, None]
        flat = self._shape_basis.reshape(len(vertices), -1)
        turned = sum(
            np.cross(edges[:, k, :, None], (corner @ flat).reshape(len(faces), 3, -1), axis=1)
            for k, corner in enumerate(self._corner_of)
        )
        summed_turns = self._incidence @ turned.reshape(len(faces), -1)
        moved = summed_turns.reshape(self._shape_basis.shape) / length
        return np.asarray(moved - unit * (moved * unit).sum(axis=1, keepdims=True), np.float32)

    def moved(self, state: State, delta: NDArray[np.float64], shape: bool) -> State:
        """A state after a step (P,), whose parameters are in the order of `jacobian`."""
        sizes = [len(state.identity), len(state.expression), len(state.albedo)]
        cuts = np.cumsum([*(sizes if shape else (0, 0, 0)), 3, 3])
        a, e, t, turn, shift, light = np.split(delta, cuts)
        pose = Rigid(
            rotation_from_vector(turn) @ state.crop_from_face.rotation,
            state.crop_from_face.translation + shift,
        )
        lit = (state.light + light.reshape(N_BANDS, 3)).astype(np.float32)
        if not shape:
            return replace(state, crop_from_face=pose, light=lit)
        expression = state.expression + e
        if self.model.expression_prior == "unit_interval":
            expression = np.clip(expression, 0.0, 1.0)
        return State(
            (state.identity + a).astype(np.float32),
            expression.astype(np.float32),
            (state.albedo + t).astype(np.float32),
            pose,
            lit,
        )


def _interpolate(values: Array, samples: Samples) -> Array:
    """(M, X) values at the samples, of (V, X) values at vertices."""
    return np.asarray(np.einsum("mk,mkx->mx", samples.weights, values[samples.corners]))


def _look_up(image: Array, px: Array) -> Array:
    """(M, 3) bilinear samples of (H, W, 3), the border repeated."""
    x, y = np.ascontiguousarray(px[:, :1], np.float32), np.ascontiguousarray(px[:, 1:], np.float32)
    blocks = [
        cv2.remap(
            image,
            x[i : i + 30000],
            y[i : i + 30000],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for i in range(0, len(px), 30000)
    ]
    return np.concatenate(blocks)[:, 0] if blocks else np.zeros((0, 3), np.float32)


def _sh_slope(normals: Array) -> Array:
    """(M, 9, 3) derivative of `illumination.sh_basis` by the normal."""
    x, y, z = normals.T
    s3, s5, s15 = (np.float32(np.sqrt(k)) for k in (3, 5, 15))
    o = np.zeros_like(x)
    one = o + 1
    rows = [
        (o, o, o),
        (o, s3 * one, o),
        (o, o, s3 * one),
        (s3 * one, o, o),
        (s15 * y, s15 * x, o),
        (o, s15 * z, s15 * y),
        (o, o, 3 * s5 * z),
        (s15 * z, o, s15 * x),
        (s15 * x, -s15 * y, o),
    ]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1).astype(np.float32)
