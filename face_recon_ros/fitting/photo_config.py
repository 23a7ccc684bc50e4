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
    """How to fit: as is right where a network's answer is the start, which is near the truth.

    Attributes:
        levels: coarse to fine.
        samples: skin pixels compared at once.
        pixel_sigma: standard deviation of a pixel's difference that is no fault, of [0, 1].
        effective_share: neighbouring pixels err together, and hair, glasses and shadows are not
            the model's: how much of a sample each one counts.
        identity_sigma: how far identity may go from the start's, standard deviations.
        expression_sigma: how far expression may: activations (`unit_interval`) or standard
            deviations.
        turn_sigma: how far the head may turn, radians.
        shift_sigma: how far it may move sideways, of its distance.
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
    effective_share: float = 0.01
    identity_sigma: float = 0.3
    expression_sigma: float = 0.05
    turn_sigma: float = 0.03
    shift_sigma: float = 0.002
    depth_sigma: float = 0.01
    light_sigma: float = 0.3
    tint_sigma: float = 0.1
    seed: int = 0


#: From mean faces, of which nothing is known.
FROM_SCRATCH = FitConfig(
    effective_share=0.05,
    identity_sigma=1.0,
    expression_sigma=0.2,
    turn_sigma=0.2,
    shift_sigma=0.005,
    depth_sigma=0.025,
)


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
