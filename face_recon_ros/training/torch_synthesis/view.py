"""Heads before cameras and what a crop shows of them, in batches, as in `synthesis.faces`.

Crop, camera and picture are one here: `crop sides` from the middle of the final crop.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from face_recon_ros.core.crop_pose import CAMERA_FROM_FRONTAL_FACE, CROP_FOCAL
from face_recon_ros.training.geometry import rotation_from_vector
from face_recon_ros.training.torch_synthesis.drawing import Draw


class Framing(NamedTuple):
    """Which square around a face becomes the crop; see `augment.CropChange`.

    Attributes:
        shift: (B, 2) of its middle, crop sides before zooming.
        zoom: (B,) its side over that of the crop around the face box.
        roll: (B,) radians, clockwise.
        flip: (B,) mirrored last of all.
        beside: (B,) the face is beside it, or far too large or small.
    """

    shift: Tensor
    zoom: Tensor
    roll: Tensor
    flip: Tensor
    beside: Tensor


class View(NamedTuple):
    """A camera on each of B heads.

    Attributes:
        rotation: (B, 3, 3) camera_from_face.
        translation: (B, 3) metres.
        focal: (B,) crop sides.
        middle: (B, 2) x/z, y/z of the crop's middle.
        framing: of the crop.
    """

    rotation: Tensor
    translation: Tensor
    focal: Tensor
    middle: Tensor
    framing: Framing

    def project(self, in_camera: Tensor) -> Tensor:
        """(B, N, 3) camera frame, metres -> (B, N, 2) crop sides from the middle."""
        f = self.framing
        slope = in_camera[..., :2] / in_camera[..., 2:]
        u = (slope - self.middle[:, None]) * self.focal[:, None, None] @ _turn(f.roll).mT
        return _flipped(f.flip[:, None], u)

    def rays(self, seen: Tensor) -> Tensor:
        """Inverse of `project`: (B, N, 2) crop sides -> (B, N, 3) directions of depth 1."""
        f = self.framing
        u = _flipped(f.flip[:, None], seen) @ _turn(f.roll) / self.focal[:, None, None]
        return torch.cat([u + self.middle[:, None], torch.ones_like(u[..., :1])], 2)

    def crop_from_face(self) -> tuple[Tensor, Tensor]:
        """The pose in the nominal crop camera, as `core.crop_pose` has it: the label.

        Returns:
            (B, 3, 3) rotation and (B, 3) translation, metres. Flipped ones are of the mirrored
            face.
        """
        t = self.translation
        seen = _flipped(self.framing.flip, self.project(t[:, None])[:, 0])
        ray = torch.cat([seen / CROP_FOCAL, torch.ones_like(seen[:, :1])], 1)
        scale = self._scale(ray, t)
        rotation = _towards(ray) @ self._roll @ _towards(t).mT @ self.rotation
        translation = ray * (t.norm(dim=1) / scale / ray.norm(dim=1))[:, None]
        return self._mirrored(rotation, translation)

    def from_crop_pose(self, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
        """Faces in the nominal crop camera -> in this one, normalised.

        As `core.normalised_camera.NormalisedCamera.from_crop_pose`; mirrored ones stay mirrored.
        """
        rotation, ray = self._mirrored(rotation, translation)
        seen = _flipped(self.framing.flip, CROP_FOCAL * ray[:, :2] / ray[:, 2:])
        towards = self.rays(seen[:, None])[:, 0]
        distance = ray.norm(dim=1) * self._scale(ray, towards)
        placed = towards * (distance / towards.norm(dim=1))[:, None]
        turned = _towards(towards) @ self._roll.mT @ _towards(ray).mT @ rotation
        n = self._normalised_from_camera
        return self._mirrored(n @ turned, (n @ placed[..., None])[..., 0])

    def in_normalised(self) -> tuple[Tensor, Tensor]:
        """The heads themselves, (B, 3, 3) and (B, 3), as `from_crop_pose` has them."""
        n = self._normalised_from_camera
        return self._mirrored(n @ self.rotation, (n @ self.translation[..., None])[..., 0])

    def project_normalised(self, points: Tensor) -> Tensor:
        """(B, N, 3) in the normalised camera -> (B, N, 2) crop sides from the middle."""
        points = _flipped(self.framing.flip[:, None], points)
        return self.project(points @ self._normalised_from_camera)

    @property
    def _roll(self) -> Tensor:
        roll = torch.zeros_like(self.rotation)
        roll[:, :2, :2], roll[:, 2, 2] = _turn(self.framing.roll), 1.0
        return roll

    @property
    def _normalised_from_camera(self) -> Tensor:
        ahead = torch.cat([self.middle, torch.ones_like(self.middle[:, :1])], 1)
        return self._roll @ _towards(ahead).mT

    def _scale(self, nominal: Tensor, ray: Tensor) -> Tensor:
        """(B,) how much farther away than in the nominal camera a face is that looks as large.

        Image scale around a direction of a pinhole camera: f (length over depth)^(3/2).
        """
        own = self.focal * (ray.norm(dim=1) / ray[:, 2]) ** 1.5
        return own / (CROP_FOCAL * (nominal.norm(dim=1) / nominal[:, 2]) ** 1.5)

    def _mirrored(self, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
        """Poses of the mirrored faces in the mirrored pictures, where they are; an involution."""
        side = torch.where(self.framing.flip, -1.0, 1.0)
        other = torch.ones_like(side)
        across = torch.stack([side, other, other], 1)
        faces = torch.stack([other, side, other], 1)
        return across[:, :, None] * rotation * faces[:, None], translation * across


def draw_view(skin: Tensor, margin: float, turned_away: float, no_face: float, draw: Draw) -> View:
    """A camera on each head, zoomed to hold its crop.

    Args:
        skin: (B, N, 3) vertices of the heads' facial skin, face frame.
        margin: side of the crop over the side of the face box.
        turned_away: share of heads that show their back.
        no_face: share of crops that lie beside the face, or are far too large or small.
        draw: source of randomness.
    """
    yaw, pitch, roll = _attitude(draw)
    back = draw.uniform(math.radians(110), math.radians(250))
    yaw = torch.where(draw.chance(turned_away), back, yaw)
    none = torch.zeros_like(yaw)
    turn = (
        rotation_from_vector(torch.stack([roll, none, none], 1))
        @ rotation_from_vector(torch.stack([none, pitch, none], 1))
        @ rotation_from_vector(torch.stack([none, none, yaw], 1))
    )
    aside = torch.cat([draw.uniform(-1, 1, 2) * math.radians(18), none[:, None]], 1)
    off_axis = rotation_from_vector(aside)
    frontal = torch.as_tensor(CAMERA_FROM_FRONTAL_FACE, dtype=torch.float32, device=draw.device)
    rotation = off_axis @ frontal @ turn
    translation = off_axis[:, :, 2] * draw.log_uniform(0.35, 6.0)[:, None]
    points = skin @ rotation.mT + translation[:, None]
    slope = points[..., :2] / points[..., 2:]
    low, high = slope.amin(1), slope.amax(1)
    framing = draw_framing(no_face, draw)
    side = (high - low).prod(1).sqrt() * margin
    middle = (low + high) / 2 + framing.shift * side[:, None]
    return View(rotation, translation, 1 / (side * framing.zoom), middle, framing)


def draw_framing(no_face: float, draw: Draw) -> Framing:
    """Crops scattered as the detector's boxes are, and some where no face is; see `Jitter`."""
    shift = draw.normal(1.0, 2).clamp(-3, 3) * 0.05
    zoom = torch.exp(draw.normal(0.07).clamp(-0.3, 0.3))
    roll = torch.where(draw.chance(0.1), draw.uniform(-0.6, 0.6), draw.normal(0.12))
    beside = draw.chance(no_face)
    angle, away = draw.uniform(0, 2 * math.pi), draw.uniform(0.6, 1.1)
    odd = torch.where(draw.chance(0.5), draw.uniform(0.25, 0.45), draw.uniform(2.4, 4.0))
    odd = torch.where(draw.chance(1 / 3), torch.ones_like(odd), odd)
    away = torch.where(odd == 1, away, 0.4 * away)[:, None]
    elsewhere = away * torch.stack([torch.cos(angle), torch.sin(angle)], 1)
    return Framing(
        torch.where(beside[:, None], elsewhere, shift),
        torch.where(beside, odd, zoom),
        roll,
        draw.chance(0.5),
        beside,
    )


def _attitude(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) yaw, pitch, roll, radians, as `synthesis.faces.sample_attitude`."""
    kind = draw.uniform(0, 1)
    yaw = draw.normal(22).clamp(-60, 60)
    yaw = torch.where(kind > 0.5, draw.uniform(-60, 60), yaw)
    yaw = torch.where(kind > 0.85, draw.uniform(-92, 92), yaw)
    pitch = draw.normal(14).clamp(-42, 42)
    roll = torch.where(draw.chance(0.8), draw.normal(9), draw.uniform(-45, 45))
    return torch.deg2rad(yaw), torch.deg2rad(pitch), torch.deg2rad(roll)


def _flipped(flip: Tensor, vectors: Tensor) -> Tensor:
    """(..., K) with the first component's sign changed where it is said."""
    first = torch.where(flip, -vectors[..., 0], vectors[..., 0])
    return torch.cat([first[..., None], vectors[..., 1:]], -1)


def _turn(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 2, 2), clockwise as seen in a picture."""
    c, s = torch.cos(angle), torch.sin(angle)
    return torch.stack([c, -s, s, c], 1).view(-1, 2, 2)


def _towards(ray: Tensor) -> Tensor:
    """(B, 3, 3) smallest rotations that turn the optical axis to (B, 3) rays, z > 0."""
    x, y, z = (ray / ray.norm(dim=1, keepdim=True)).unbind(1)
    k = 1 / (1 + z)
    return torch.stack(
        [1 - k * x * x, -k * x * y, x, -k * x * y, 1 - k * y * y, y, -x, -y, z], 1
    ).view(-1, 3, 3)
