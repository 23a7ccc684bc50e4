"""Rotations and the nominal crop camera in torch, as in `core.rigid` and `core.crop_pose`."""

from __future__ import annotations

import torch
from torch import Tensor

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, CROP_FOCAL


def pose_from_heads(
    attitude: Tensor, position: Tensor, nominal_distance_m: float
) -> tuple[Tensor, Tensor]:
    """The pose in the nominal crop camera from what a crop shows.

    Args:
        attitude: (B, 3) Gibbs vector of the attitude to the viewing ray (zero: looking at the
            camera).
        position: (B, 3) sellion's offset from the middle of the crop right and down, in crop
            sides, and
            the logarithm of its depth over `nominal_distance_m`.
        nominal_distance_m: metres.

    Returns:
        (B, 3) rotation vector in radians and (B, 3) translation in metres, as in
        `core.types.Coefficients`.
    """
    depth = nominal_distance_m * torch.exp(position[:, 2:])
    xy = position[:, :2] / CROP_FOCAL
    ray = torch.cat([xy, torch.ones_like(depth)], 1)
    translation = ray * depth
    quaternion = quaternion_multiply(
        quaternion_towards(ray), torch.cat([attitude, torch.ones_like(depth)], 1)
    )
    return vector_from_quaternion(quaternion), translation


def quaternion_towards(ray: Tensor) -> Tensor:
    """Smallest rotation from the optical axis to a ray.

    Args:
        ray: (B, 3) with z > 0.

    Returns:
        (B, 4) xyzw of any length.
    """
    x, y, z = ray.unbind(1)
    length = torch.sqrt(x * x + y * y + z * z)
    return torch.stack([-y, x, torch.zeros_like(x), z + length], 1)


def quaternion_multiply(b: Tensor, a: Tensor) -> Tensor:
    """(B, 4) xyzw of the rotation that does `a` first, then `b`."""
    bx, by, bz, bw = b.unbind(1)
    ax, ay, az, aw = a.unbind(1)
    return torch.stack(
        [
            bw * ax + bx * aw + by * az - bz * ay,
            bw * ay - bx * az + by * aw + bz * ax,
            bw * az + bx * ay - by * ax + bz * aw,
            bw * aw - bx * ax - by * ay - bz * az,
        ],
        1,
    )


def vector_from_quaternion(quaternion: Tensor) -> Tensor:
    """(B, 4) xyzw of any length -> (B, 3) rotation vector, radians, of length at most pi."""
    imaginary, w = quaternion[:, :3], quaternion[:, 3:]
    imaginary = imaginary * torch.where(w < 0, -1.0, 1.0)
    w = w.abs()
    sine = torch.sqrt((imaginary * imaginary).sum(1, keepdim=True) + 1e-20)
    # atan in place of atan2: the same for w >= 0, and ONNX has it
    angle_over_sine = 2.0 * torch.atan(sine / torch.clamp(w, min=1e-12)) / sine
    return imaginary * angle_over_sine


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Exponential map, (B, 3) radians -> (B, 3, 3)."""
    squared = (vector * vector).sum(1)[:, None, None]
    angle = torch.sqrt(squared + 1e-20)
    small = squared < 1e-8
    a = torch.where(small, 1.0 - squared / 6.0, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - squared / 24.0, (1.0 - torch.cos(angle)) / (squared + 1e-20))
    x, y, z = vector.unbind(1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    return torch.eye(3, dtype=vector.dtype, device=vector.device) + a * k + b * (k @ k)


def crop_from_face_points(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Moves points into the nominal crop camera.

    Args:
        points: (B, N, 3) face frame, metres.
        rotation: (B, 3) as in `core.types.Coefficients`.
        translation: (B, 3) likewise.

    Returns:
        (B, N, 3) nominal crop camera frame, metres.
    """
    frontal = torch.as_tensor(CAMERA_FROM_FRONTAL_FACE, dtype=points.dtype, device=points.device)
    rotation_matrix = rotation_from_vector(rotation) @ frontal
    return points @ rotation_matrix.transpose(1, 2) + translation[:, None]


def project(points: Tensor) -> Tensor:
    """Nominal crop camera, (..., 3) metres -> (..., 2) crop sides from the middle of the crop."""
    return CROP_FOCAL * points[..., :2] / torch.clamp(points[..., 2:], min=1e-3)
