"""All losses. None uses a landmark.

Synthetic crops are compared with what they were rendered from; photographs with renderings of
the answer, with
other crops of themselves, and with what faces are like. All take batches and return a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from face_recon_ros.training.geometry import project

_EPS = 1e-12


def reprojection(points: Tensor, true_points: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean distance of vertices in the crop.

    Args:
        points: (B, N, 3) nominal crop camera, metres.
        true_points: (B, N, 3).
        weights: (B,) of each crop; None: all alike.

    Returns:
        () crop sides.
    """
    distance = _length(project(points) - project(true_points)).mean(1)
    return _weighted_mean(distance, weights)


def vertex_distance_mm(
    vertices: Tensor, true_vertices: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean distance of vertices in the face frame, (B, N, 3) metres -> () millimetres."""
    return _weighted_mean(1e3 * _length(vertices - true_vertices).mean(1), weights)


def shape_distance_mm(
    vertices: Tensor, true_vertices: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean distance of vertices once place and size are made equal: what a crop can show.

    A single crop does not show the size of a head; that part of `vertex_distance_mm` is noise
    which drowns the shape.

    Args:
        vertices: (B, N, 3) face frame, metres.
        true_vertices: (B, N, 3).
        weights: (B,).

    Returns:
        () millimetres, at the true size.
    """
    shape = vertices - vertices.mean(1, keepdim=True)
    true_shape = true_vertices - true_vertices.mean(1, keepdim=True)
    size, true_size = (v.square().sum((1, 2), keepdim=True).sqrt() for v in (shape, true_shape))
    return vertex_distance_mm(shape * (true_size / size), true_shape, weights)


def coefficients(values: Tensor, true_values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of (B, K) coefficients."""
    return _weighted_mean((values - true_values).square().flatten(1).mean(1), weights)


def rotation_geodesic(
    rotation: Tensor, true_rotation: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean angle between rotations, smooth at zero, (B, 3, 3) each -> () radians."""
    # |A - B|_F = 2 sqrt(2) sin(angle / 2)
    squared = (rotation - true_rotation).square().sum((1, 2))
    half_sine = torch.sqrt(squared + _EPS) / 8**0.5
    return _weighted_mean(2 * torch.asin(torch.clamp(half_sine, max=1 - 1e-6)), weights)


def log_distance(
    translation: Tensor, true_translation: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean absolute logarithm of the ratio of distances, (B, 3) each."""
    ratio = torch.log(_length(translation) / _length(true_translation))
    return _weighted_mean(torch.sqrt(ratio.square() + 1e-6), weights)


def vertex_colour(colours: Tensor, true_colours: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean absolute difference of lit vertex colours, (B, N, 3) each, sRGB-encoded."""
    return _weighted_mean((colours - true_colours).abs().mean((1, 2)), weights)


def confidence(
    value: Tensor, error_mm: Tensor, weights: Tensor | None = None, *, scale_mm: float = 3.0
) -> Tensor:
    """The confidence should predict the error of the identity.

    Args:
        value: (B, 1) in (0, 1).
        error_mm: (B,) distance of the neutral shapes; no gradient flows into it.
        weights: (B,).
        scale_mm: error at which the confidence should be 1 / e.
    """
    target = torch.exp(-error_mm.detach() / scale_mm)
    return _weighted_mean((value[:, 0] - target).square(), weights)


def photometric(rendering: Tensor, photograph: Tensor, attention: Tensor) -> Tensor:
    """Robust colour difference (Deng et al. 2019, eq. 3): L2,1 under attention and visibility.

    Args:
        rendering: (B, H, W, 3) in [0, 1].
        photograph: (B, H, W, 3) in [0, 1].
        attention: (B, H, W) weight; zero where the face is not visible.

    Returns:
        () mean over the attended pixels of each photograph, then over photographs.
    """
    difference = _length(rendering - photograph) * attention
    return (difference.sum((1, 2)) / torch.clamp(attention.sum((1, 2)), min=1.0)).mean()


def perception(features: Tensor, true_features: Tensor) -> Tensor:
    """Cosine distance of deep face features (Deng et al. 2019, eq. 6), (B, D) each -> ()."""
    return (1 - functional.cosine_similarity(features, true_features, dim=1)).mean()


def normal_prior(values: Tensor) -> Tensor:
    """Mean square of coefficients that are standard normal, (B, K) -> ()."""
    return values.square().mean()


def activation_prior(values: Tensor) -> Tensor:
    """Few muscles move at a time: mean absolute activation, (B, K) -> ()."""
    return values.abs().mean()


def albedo_symmetry(albedo: Tensor, symmetry: Tensor) -> Tensor:
    """Mean absolute difference of mirrored vertices.

    Args:
        albedo: (B, V, 3).
        symmetry: (V,) index of the mirror vertex, -1 where there is none.
    """
    paired = symmetry >= 0
    return (albedo[:, paired] - albedo[:, symmetry[paired]]).abs().mean()


def albedo_variance(albedo: Tensor, attention: Tensor) -> Tensor:
    """Variance of reflectance over the skin (Deng et al. 2019, eq. 8).

    Args:
        albedo: (B, V, 3).
        attention: (V,) weight.
    """
    weight = attention[:, None] / attention.sum()
    mean = (albedo * weight).sum(1, keepdim=True)
    return ((albedo - mean).square() * weight).sum((1, 2)).mean()


def white_light(illumination: Tensor) -> Tensor:
    """Light is near white: mean square of the channels' differences, (B, 9, 3) -> ()."""
    return (illumination - illumination.mean(2, keepdim=True)).square().mean()


def same_person(identity: Tensor, person: Tensor) -> Tensor:
    """Photographs of one person should agree.

    Args:
        identity: (B, K_id).
        person: (B,) integer; below 0: unknown.

    Returns:
        () mean squared distance to the person's mean, over those with two photographs or more.
    """
    same = (person[:, None] == person[None]) & (person[:, None] >= 0)
    count = same.sum(1)
    several = count > 1
    if not bool(several.any()):
        return identity.sum() * 0.0
    mean = (same.to(identity.dtype) @ identity) / torch.clamp(count, min=1)[:, None]
    return (identity - mean)[several].square().mean()


def features(hints: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Mean squared distance to a teacher's feature maps, whitened per channel over the batch.

    Args:
        hints: (B, C, H, W) per stage.
        teacher: (B, C, H', W'), sampled at the hints' places; no gradient flows into them.
    """
    parts = []
    for ours, theirs in zip(hints, teacher, strict=True):
        if theirs.shape != ours.shape:
            theirs = functional.interpolate(
                theirs, ours.shape[2:], mode="bilinear", align_corners=False
            )
        target = functional.batch_norm(theirs.detach(), None, None, training=True, eps=1e-3)
        parts.append((ours - target).square().mean())
    return torch.stack(parts).mean()


def _length(x: Tensor) -> Tensor:
    return torch.sqrt(x.square().sum(-1) + _EPS)


def _weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return values.mean()
    return (values * weights).sum() / torch.clamp(weights.sum(), min=1e-6)
