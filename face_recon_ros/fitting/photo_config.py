"""Settings and results of the fit to a photograph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.types import Coefficients

Array = NDArray[np.float32]


@dataclass(frozen=True)
class FitLevel:
    """One stage, coarse to fine.

    Attributes:
        blur_px: standard deviation of the low pass at 224 pixels.
        iterations: at most.
        shape: whether identity, expression and albedo move; otherwise pose and light only.
    """

    blur_px: float
    iterations: int
    shape: bool


@dataclass(frozen=True)
class FitConfig:
    """How to fit.

    Attributes:
        levels: coarse to fine.
        samples: skin pixels compared at once.
        pixel_sigma: standard deviation of a pixel's difference that is no fault, of [0, 1].
        effective_share: neighbouring pixels err together: how much of a sample each one counts.
        expression_sigma: prior, in activations (`unit_interval`) or standard deviations.
        turn_sigma: how far a level may turn the head, radians.
        shift_sigma: how far it may move it sideways, of its distance.
        depth_sigma: how far away, of its distance: a face that shrinks onto a smooth cheek would
            match it perfectly.
        light_sigma: prior of illumination coefficients around the start's.
        tint_sigma: prior of their differences between colour channels.
        seed: of the choice of samples.
    """

    levels: tuple[FitLevel, ...] = (
        FitLevel(6.0, 8, False),
        FitLevel(4.0, 10, True),
        FitLevel(2.0, 10, True),
        FitLevel(1.0, 10, True),
    )
    samples: int = 3000
    pixel_sigma: float = 0.05
    effective_share: float = 0.05
    expression_sigma: float = 0.2
    turn_sigma: float = 0.2
    shift_sigma: float = 0.005
    depth_sigma: float = 0.025
    light_sigma: float = 0.3
    tint_sigma: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """A fitted face.

    Attributes:
        coefficients: one row.
        photometric_start: mean absolute difference over the skin before, of 255.
        photometric_end: and after.
        history: cost after each step, per level; it falls from step to step on the same samples.
    """

    coefficients: Coefficients
    photometric_start: float
    photometric_end: float
    history: tuple[tuple[float, ...], ...] = field(default=())
