"""A person's own neutral face: what a track's expressions have in common is not expression.

High brows look like raised ones. Networks that see one picture cannot tell them apart, and answer
for one person with the same error again and again. So what a person shows on average, beyond what
people show on average, is taken out of each answer: person-specific normalisation, as in OpenFace
(Baltrusaitis et al. 2015, "Cross-dataset learning and person-specific normalisation for automatic
Action Unit detection", FG). How much of it is error was measured, channel by channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: A face is another one after about so many seconds, and the last so many moments are remembered.
_MOMENT_S, _MOMENTS = 1.0, 10.0


@dataclass(frozen=True)
class NeutralAnswers:
    """What a network answers for people on average, and how much of a person's own is error.

    Attributes:
        mean: (K_exp,) activations over all people.
        error_ratio: (K_exp,) variance of a person's own error over that of answers for one
            person; 0: the channel is not normalised.
    """

    mean: Array
    error_ratio: Array


class NeutralExpression:
    """Normalises the expressions of one track."""

    def __init__(self, answers: NeutralAnswers | None) -> None:
        """Begins with a person of whom nothing is known.

        Args:
            answers: of the network; None: expressions stay as they are.
        """
        self._answers = answers
        self._mean: Array | None = None
        self._moments = 0.0
        self._stamp = 0.0

    def __call__(self, expression: NDArray[np.float32], stamp: float) -> NDArray[np.float32]:
        """Takes out what was the person's own before, and remembers what is shown now.

        Args:
            expression: (K_exp,) activations of one image.
            stamp: of the image, seconds.

        Returns:
            (K_exp,) activations in [0, 1]; those of a track's first image as they are.
        """
        if self._answers is None:
            return expression
        if self._mean is None:
            self._mean, self._moments, self._stamp = expression.astype(np.float64), 1.0, stamp
            return expression
        known = self._moments * self._answers.error_ratio
        own = known / (1.0 + known) * (self._mean - self._answers.mean)
        share = 1.0 - math.exp(-abs(stamp - self._stamp) / _MOMENT_S)
        self._moments = min(self._moments + share, _MOMENTS)
        self._mean += share / self._moments * (expression - self._mean)
        self._stamp = stamp
        return np.clip(expression - own, 0.0, 1.0).astype(np.float32)
