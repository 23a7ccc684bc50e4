"""The 68 iBUG landmarks as annotators place them: 51 fixed points and a contour that moves.

300-W's annotators mark points 0 to 16 on the visible outline of the face. On a turned head that is
not the jaw line of the far side but the edge of the cheek, so a fixed vertex there is "wrong" by a
centimetre however good the reconstruction. Each contour landmark therefore slides along a line
over the skin, from its vertex on the jaw towards the middle of the face, to the point that lies
farthest outward in the image ("landmark marching", Zhu et al. 2015, "High-fidelity pose and
expression normalization", section 3.2). On a face seen from the front, annotators space these
points nearly evenly, and vertices of a mesh do not lie so: the lines begin at places of their own
along the jaw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.morphable_model import FACIAL_SKIN, MorphableModel, VertexNormals
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.surface_points import SurfacePoints
from face_recon_ros.evaluation.metrics import CONTOUR, INNER, N_LANDMARKS

Array = NDArray[np.float64]

_STEPS = 24
#: A line ends this far along its way to the midline: beyond lies the nose, which no annotator
#: takes for the edge.
_LINE_END = 0.65
#: From how far a face is seen whose contour landmarks are spaced, metres.
_FROM_M = 1.0
#: Annotators put contour landmarks 0 to 8 so much farther down than at even distances, as a share
#: of the way to the chin: the mean on the frontal faces of AFW, whose halves say so of each other.
_LOWER = np.array([0.013, 0.028, 0.021, 0.013, 0.002, 0.0, 0.0, 0.0, 0.0])
#: Where on the midline each contour landmark's line heads to, as a landmark index.
_TARGETS = np.array([27, 28, 29, 30, 33, 51, 57, 57, 57, 57, 57, 51, 33, 30, 29, 28, 27])


class LandmarkProjector:
    """Projects the 68 landmarks of reconstructed faces. Built once per face model."""

    def __init__(self, model: MorphableModel) -> None:
        """Lays the contour lines over the mean face.

        Args:
            model: whole head (the coarse level will do and is faster).

        Raises:
            ModelError: the model lacks landmarks.
        """
        marks = model.landmarks_68
        if len(marks) != N_LANDMARKS or (marks < 0).any() or not model.landmarks.known.all():
            raise ModelError(
                f"{N_LANDMARKS} landmark vertices in the face model",
                f"{int((marks >= 0).sum())}",
                "take the whole head, not a part of it",
            )
        corners, weights = _contour_lines(model)
        inner = model.landmarks.corners[INNER], model.landmarks.weights[INNER]
        self._places = SurfacePoints(
            np.concatenate([inner[0], corners.reshape(-1, 3)]),
            np.concatenate([inner[1], weights.reshape(-1, 3)]).astype(np.float32),
        )
        n = model.n_vertices
        self._mean = self._places.of(model.mean_shape)
        self._identity_basis, self._expression_basis = (
            self._places.of(basis.reshape(n, 3, -1)).reshape(len(self._mean) * 3, -1)
            for basis in (model.identity_basis, model.expression_basis)
        )
        self._normals = VertexNormals(model.triangles, n)(model.mean_shape)[marks]
        yz = model.mean_shape[marks[CONTOUR]][:, 1:].astype(np.float64)
        yz[:, 1] = np.minimum(yz[:, 1] - model.mean_shape[marks[33], 2], 0.0)
        self._outward = yz / np.linalg.norm(yz, axis=1, keepdims=True)

    def points(
        self, identity: ArrayLike, expression: ArrayLike
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decodes what may become a landmark.

        Args:
            identity: (K_id,).
            expression: (K_exp,).

        Returns:
            (51, 3) inner landmarks and (17, S, 3) contour lines, metres, face frame.
        """
        flat = (
            self._mean.reshape(-1)
            + self._identity_basis @ np.asarray(identity, np.float32)
            + self._expression_basis @ np.asarray(expression, np.float32)
        )
        points = flat.reshape(-1, 3)
        n = len(INNER)
        return points[:n], points[n:].reshape(len(CONTOUR), -1, 3)

    def project(
        self,
        identity: ArrayLike,
        expression: ArrayLike,
        camera_from_face: Rigid,
        camera: PinholeCamera,
    ) -> Array:
        """The landmarks in the image.

        Args:
            identity: (K_id,).
            expression: (K_exp,).
            camera_from_face: the head.
            camera: of the image.

        Returns:
            (68, 2) pixels.
        """
        return camera.project(
            camera_from_face.apply(self.place(identity, expression, camera_from_face, camera))
        )

    def place(
        self,
        identity: ArrayLike,
        expression: ArrayLike,
        camera_from_face: Rigid,
        camera: PinholeCamera,
    ) -> NDArray[np.float32]:
        """(68, 3) landmarks in the face frame, metres, the contour chosen for this view."""
        inner, lines = self.points(identity, expression)
        line_px = camera.project(camera_from_face.apply(lines))
        up = _direction_in_image(camera, camera_from_face, np.array([0.0, 0.0, 1.0]))
        left = np.array([-up[1], up[0]])  # of a face that looks into the camera, in any roll
        direction = self._outward[:, :1] * left + self._outward[:, 1:] * up
        extent = np.einsum("ksx,kx->ks", line_px, direction)
        chosen = lines[CONTOUR, np.nanargmax(extent, axis=1)]
        return np.concatenate([chosen, inner])

    def visible(self, camera_from_face: Rigid) -> NDArray[np.bool_]:
        """(68,) whether the mean face's skin at each landmark faces the camera.

        The contour always counts as visible, being where the eye sees the edge. Occlusion by
        other parts of the face is not looked at.
        """
        marks = self._mean[: len(INNER)]
        normals = camera_from_face.rotation @ self._normals[INNER].T.astype(np.float64)
        facing = (normals.T * camera_from_face.apply(marks)).sum(axis=1) < 0
        return np.concatenate([np.ones(len(CONTOUR), bool), facing])


def _direction_in_image(camera: PinholeCamera, camera_from_face: Rigid, axis: Array) -> Array:
    """(2,) unit direction in which a short step along a face axis moves in the image."""
    step = 0.01 * axis
    ends = camera.project(camera_from_face.apply(np.stack([-step, step])))
    moved = ends[1] - ends[0]
    length = float(np.linalg.norm(moved))
    return np.asarray(moved / length if length > 1e-9 else np.array([0.0, -1.0]))


def _spaced(contour: Array) -> Array:
    """(17, 3) points along the same line, spaced as annotators space them as seen from the front.

    The chin stays where it is.
    """
    seen = contour[:, 1:] / (_FROM_M - contour[:, :1])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(seen, axis=0), axis=1))])
    last = len(contour) - 1
    chin = last // 2
    steps = np.arange(last + 1) + chin * np.concatenate([_LOWER, -_LOWER[-2::-1]])
    wanted = np.interp(steps, [0, chin, last], along[[0, chin, last]])
    return np.column_stack([np.interp(wanted, along, x) for x in contour.T])


def _contour_lines(model: MorphableModel) -> tuple[NDArray[np.intp], Array]:
    """Lines over the facial skin of the mean face, one per contour landmark.

    Returns:
        (17, S, 3) vertex indices and (17, S, 3) barycentric weights.
    """
    shape = model.mean_shape.astype(np.float64)
    marks = model.landmarks_68
    skin = model.triangles[model.subsets[FACIAL_SKIN][model.triangles].all(axis=1)].astype(np.intp)
    ears = (shape[marks[0]] + shape[marks[16]]) / 2
    centre = np.array([ears[0], 0.0, shape[marks[33], 2]])
    start, end = _spaced(shape[marks[CONTOUR]]) - centre, shape[marks[_TARGETS]] - centre
    share = np.linspace(0.0, _LINE_END, _STEPS)[:, None]
    corners = np.empty((len(CONTOUR), _STEPS, 3), np.intp)
    weights = np.zeros((len(CONTOUR), _STEPS, 3))
    for k in CONTOUR:
        corners[k] = marks[k]
        weights[k, :, 0] = 1.0
        rays = _unit(_unit(start[k]) * (1 - share) + _unit(end[k]) * share)
        hit, where, barycentric = _outermost_hits(centre, rays, shape[skin])
        corners[k][hit] = skin[where[hit]]
        weights[k][hit] = barycentric[hit]
    return corners, weights


def _outermost_hits(
    origin: Array, rays: Array, corners: Array
) -> tuple[NDArray[np.bool_], NDArray[np.intp], Array]:
    """Farthest triangle each ray leaves through (Moeller and Trumbore 1997)."""
    a = corners[:, 0]
    ab, ac = corners[:, 1] - a, corners[:, 2] - a
    normal = np.cross(ray := rays[:, None], ac[None])
    determinant = (normal * ab).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / determinant
        offset = origin - a
        v = (normal * offset).sum(-1) * inverse
        q = np.cross(offset, ab)
        w = (ray * q).sum(-1) * inverse
        reach = (ac * q).sum(-1) * inverse
    eps = 1e-9
    good = (v >= -eps) & (w >= -eps) & (v + w <= 1 + eps) & (reach > 0) & np.isfinite(reach)
    reach = np.where(good, reach, -np.inf)
    where = reach.argmax(axis=1)
    row = np.arange(len(rays))
    v, w = v[row, where], w[row, where]
    return good.any(axis=1), where, np.stack([1 - v - w, v, w], -1)


def _unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))
