"""A face seen through the mean face: pose-normalised pictures, and their frame.

The mean face under an estimated pose says which pixel shows which part of the surface. A picture
sampled there always shows the nose in the middle and the chin below, at one size, whatever the
head's pose; what then differs between two people is where their features really are. The grid is
a cylinder around the head's vertical axis (rows: height, columns: azimuth).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.crop import Picture
from face_recon_ros.core.errors import ModelError
from face_recon_ros.core.morphable_model import MorphableModel, VertexNormals
from face_recon_ros.core.normalised_camera import NormalisedCamera
from face_recon_ros.core.rasterizer import rasterize

Float32 = NDArray[np.float32]

#: Cells of the grid, per side, and pixels of a rectified picture per cell.
CELLS = 24
PIXELS_PER_CELL = 4
RECTIFIED_PX = CELLS * PIXELS_PER_CELL

#: The cylinder: its axis behind the sellion, what it spans, and how much denser the middle is.
_AXIS_X = -0.095
_HEIGHT = (0.075, -0.135)
_AZIMUTH = np.radians(78.0)
_MIDDLE = 0.7
#: Crop sides: where a point that the camera does not see is looked up, far outside.
_UNSEEN = 100.0


@dataclass(frozen=True)
class FaceFrame:
    """How a pose shows the mean face: the frame of the displacements of points.

    Displacements are metres at the sellion's depth, across the line of sight, with the head's roll
    in the picture taken out: right and down in a picture in which the head is upright.

    Attributes:
        camera_from_face: (N, 3, 4) rotation and translation in a camera of focal length 1,
            `core.normalised_camera`; metres.
        upright: (N, 2, 2) turns picture vectors so that the head is upright.
    """

    camera_from_face: NDArray[np.float64]
    upright: NDArray[np.float64]

    @staticmethod
    def of(rotation: NDArray[np.floating], translation: NDArray[np.floating]) -> FaceFrame:
        """The frame of N poses.

        Args:
            rotation: (N, 3, 3) camera_from_face.
            translation: (N, 3) metres.
        """
        r, t = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
        up = r[:, :2, 2]
        length = np.maximum(np.linalg.norm(up, axis=1), 1e-6)
        sine, cosine = up[:, 0] / length, -up[:, 1] / length
        upright = np.stack([cosine, sine, -sine, cosine], 1).reshape(-1, 2, 2)
        return FaceFrame(np.concatenate([r, t[:, :, None]], 2), upright)

    @property
    def depth(self) -> NDArray[np.float64]:
        """(N,) of the sellion, metres."""
        return np.maximum(self.camera_from_face[:, 2, 3], 1e-3)

    def place(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """(P, 3) or (N, P, 3) face frame -> (N, P, 3) camera frame, metres."""
        r, t = self.camera_from_face[:, :, :3], self.camera_from_face[:, None, :, 3]
        return np.asarray(np.asarray(points, np.float64) @ r.transpose(0, 2, 1) + t)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where points are seen.

        Args:
            points: (P, 3) or (N, P, 3) face frame, metres.

        Returns:
            (N, P, 2) in the picture of focal length 1: x / z and y / z.
        """
        x = self.place(points)
        return np.asarray(x[..., :2] / np.maximum(x[..., 2:], 1e-3))

    def displacement(
        self, seen: NDArray[np.floating], mean_points: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """(N, P, 2) as `project` has them -> metres from where the mean's points (P, 3) lie."""
        away = np.asarray(seen, np.float64) - self.project(mean_points)
        return np.asarray(away @ self.upright.transpose(0, 2, 1) * self.depth[:, None, None])

    def seen(
        self, displacement: NDArray[np.floating], mean_points: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Inverse of `displacement`: (N, P, 2) metres -> (N, P, 2) as `project` has them."""
        away = np.asarray(displacement, np.float64) @ self.upright / self.depth[:, None, None]
        return np.asarray(self.project(mean_points) + away)


class Rectifier:
    """Samples images on the mean face's surface.

    Attributes:
        points: (CELLS * CELLS, 3) of the mean face's surface, face frame, metres, row by row.
        normals: (CELLS * CELLS, 3) outwards there.
    """

    def __init__(self, model: MorphableModel) -> None:
        """Lays the grid on the mean face.

        Args:
            model: face model, whole head (or a part that covers the face).

        Raises:
            ModelError: the mesh has no face where the grid is.
        """
        mean = model.mean_shape.astype(np.float64)
        radius = np.hypot(mean[:, 0] - _AXIS_X, mean[:, 1])
        places = grid_coordinates(mean)
        front = mean[:, 0] > _AXIS_X
        triangles = model.triangles[front[model.triangles].all(1)]
        depth = (1.0 / np.maximum(radius, 1e-3)).astype(np.float32)  # the outermost wins
        fragments = rasterize(
            np.ascontiguousarray(places, np.float32), depth, triangles, CELLS, CELLS
        )
        known = fragments.triangle >= 0
        if known.mean() < 0.5:
            raise ModelError(
                "a face model whose mean covers the front of a head",
                f"a mesh that covers {known.mean():.0%} of it",
                "use the whole head or its part `face`, in the face frame",
            )
        corners = triangles[np.maximum(fragments.triangle, 0)]
        weights = fragments.weights[..., None].astype(np.float64)
        normals = VertexNormals(model.triangles, model.n_vertices)(model.mean_shape)
        self.points = _spread((mean[corners] * weights).sum(2), known)
        outward = _spread((normals[corners] * weights).sum(2), known)
        length = np.linalg.norm(outward, axis=1, keepdims=True)
        self.normals = (outward / np.maximum(length, 1e-9)).astype(np.float32)

    def sample(
        self,
        picture: Picture,
        camera: NormalisedCamera,
        frame: FaceFrame,
        index: int,
    ) -> NDArray[np.uint8]:
        """One face's rectified picture.

        Args:
            picture: that shows the face.
            camera: that its pose is in.
            frame: of N poses.
            index: which of them.

        Returns:
            (RECTIFIED_PX, RECTIFIED_PX, 3) uint8; black outside the picture.
        """
        pose, crop = frame.camera_from_face[index], picture.place_of(camera.crop)
        seen = camera.project(self.points @ pose[:, :3].T + pose[:, 3])
        seen = np.clip(np.nan_to_num(seen, nan=_UNSEEN), -_UNSEEN, _UNSEEN)
        px = (crop.side_px * seen) @ crop.image_from_crop_rotation.T + crop.centre_px
        px = px.reshape(CELLS, CELLS, 2).astype(np.float32)
        size = (RECTIFIED_PX, RECTIFIED_PX)
        grid = cv2.resize(px, size, interpolation=cv2.INTER_LINEAR)
        return sample_grid(picture.rgb, np.asarray(grid, np.float32))

    def seen_normals(self, frame: FaceFrame) -> Float32:
        """Which way the surface looks, for the network.

        Returns:
            (N, CELLS, CELLS, 3) normals of the mean face: right and down in the upright picture,
            and away from the camera.
        """
        n = self.normals @ frame.camera_from_face[:, :, :3].transpose(0, 2, 1)
        n[..., :2] = n[..., :2] @ frame.upright.transpose(0, 2, 1)
        return np.asarray(n.reshape(-1, CELLS, CELLS, 3), np.float32)


def sample_grid(rgb: NDArray[np.uint8], px: Float32) -> NDArray[np.uint8]:
    """(H', W', 3) colours at (H', W', 2) image pixels, antialiased where the grid is coarse."""
    some = px[::4, ::4]  # neighbours lie alike
    step = np.median(np.linalg.norm(np.diff(some, axis=1), axis=2)) / 4
    shrink = int(np.clip(step / 1.5, 1, 16))
    if shrink > 1:
        low = np.floor(px.min((0, 1))).astype(int) - 2 * shrink
        high = np.ceil(px.max((0, 1))).astype(int) + 2 * shrink
        x0, y0 = np.maximum(low, 0)
        x1, y1 = np.minimum(high + 1, rgb.shape[1::-1])
        if x1 - x0 < shrink or y1 - y0 < shrink:
            return np.zeros((*px.shape[:2], 3), np.uint8)
        part = rgb[y0:y1, x0:x1]
        size = (max(1, (x1 - x0) // shrink), max(1, (y1 - y0) // shrink))
        rgb = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        ratio = np.array(size) / np.array([x1 - x0, y1 - y0])
        px = ((px - [x0, y0] + 0.5) * ratio - 0.5).astype(np.float32)
    x, y = np.ascontiguousarray(px[..., 0]), np.ascontiguousarray(px[..., 1])
    return np.asarray(
        cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8
    )


def grid_coordinates(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 3) points near the mean face's surface, metres -> (N, 2) column and row of the grid."""
    azimuth = np.arctan2(points[:, 1], points[:, 0] - _AXIS_X) / _AZIMUTH
    # columns are denser in the middle: azimuth = m c + (1 - m) c^3, inverted by Newton's steps
    c = np.clip(azimuth, -3, 3)
    for _ in range(12):
        c = c - (_MIDDLE * c + (1 - _MIDDLE) * c**3 - azimuth) / (
            _MIDDLE + 3 * (1 - _MIDDLE) * c**2
        )
    top, bottom = _HEIGHT
    row = (top - points[:, 2]) / (top - bottom)
    return np.column_stack([(c + 1) / 2, row]) * CELLS - 0.5


def _spread(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(CELLS, CELLS, C) -> rows of cells; unknown ones take their nearest known neighbour's."""
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    first = np.zeros(labels.max() + 1, np.intp)
    first[labels[known]] = np.flatnonzero(known)
    return np.asarray(values.reshape(-1, values.shape[2])[first[labels.ravel()]])
