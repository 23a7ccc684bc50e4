"""What a track's pictures say together about who is shown: a Gaussian over identity.

Each picture has a posterior of its own: the answer of its fit, which leans towards the mean face
by what that picture leaves open, because a network answers with the mean of what is possible.
Averages of such answers would lean as far after a hundred pictures. So posteriors are combined,
each with the prior taken out (Tresp 2000, "A Bayesian committee machine", Neural Computation 12):
identity sharpens and then hardly moves. Frames of one video that show a head from the same side
err alike, so each counts for a part of itself; a head seen from another side counts in full. All
of them together count for no more than a number of independent views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.rigid import angle_between

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PosteriorConfig:
    """How a person's pictures are put together.

    Attributes:
        frame_share: One frame of a video counts for this share of an independent picture.
        new_view: A head that is turned by more than this from all sides seen before, in
            radians, is a new view and counts in full.
        max_views: All frames together count for at most this number of independent
            pictures.
        min_change: The identity that is handed out changes only if the posterior's mean is
            off by more than this (RMS, standard deviations of the face model).
    """

    frame_share: float = ranged(0.15, 0.001, 1.0)
    new_view: float = ranged(0.2, 0.001, 3.1416)
    max_views: float = ranged(5.0, 1.0, 1e9)
    min_change: float = ranged(0.02, 0.0, 10.0)

    def __post_init__(self) -> None:
        check_ranges(self)


class IdentityPosterior:
    """Mean and information of one track's identity.

    Attributes:
        mean: (K_id,) standard deviations of the face model.
    """

    def __init__(
        self,
        k_identity: int,
        config: PosteriorConfig | None = None,
        population: float | NDArray[np.floating] = 0.0,
        training_mean: float | NDArray[np.floating] = 0.0,
    ) -> None:
        """Begins with the prior: unit variance around the population's mean.

        Args:
            k_identity: K_id.
            config: how pictures are put together.
            population: (K_id,) mean identity of people.
            training_mean: (K_id,) the mean around which pictures' own posteriors have their
                prior.
        """
        self._config = config or PosteriorConfig()
        self._population = np.broadcast_to(np.asarray(population, np.float64), k_identity)
        self._training_mean = training_mean
        self.mean: NDArray[np.floating] = self._population
        self._prior = np.eye(k_identity)
        self._seen = np.zeros((k_identity, k_identity))
        self._pull = np.zeros(k_identity)
        self._views: list[Array] = []
        self._handed_out: NDArray[np.float32] | None = None

    @property
    def information(self) -> Array:
        """(K_id, K_id) inverse covariance of the identity."""
        return np.asarray(self._prior + self._seen)

    @property
    def deviation(self) -> Array:
        """(K_id,) standard deviation of each coefficient."""
        return np.asarray(np.sqrt(np.linalg.inv(self.information).diagonal()))

    def add(
        self, identity: NDArray[np.floating], told: Array, rotation: NDArray[np.floating]
    ) -> None:
        """Adds a picture.

        Args:
            identity: (K_id,) the mean of this picture's own posterior.
            told: (K_id, K_id) what the picture adds to the prior's information, the unit matrix.
            rotation: (3, 3) camera_from_face, or crop_from_face: from which side it was seen.
        """
        share = self._share(np.asarray(rotation, np.float64))
        kept = 1.0 - share / self._config.max_views
        self._seen = kept * self._seen + share * told
        pull = (self._prior + told) @ identity - self._training_mean
        self._pull = kept * self._pull + share * pull
        self.mean = np.linalg.solve(self.information, self._pull + self._population)

    def _share(self, rotation: Array) -> float:
        """What a picture from this side counts for."""
        if any(angle_between(rotation, seen) < self._config.new_view for seen in self._views):
            return self._config.frame_share
        if len(self._views) < self._config.max_views:
            self._views.append(rotation)
        return 1.0

    def handed_out(self) -> NDArray[np.float32]:
        """(K_id,) the mean: the very same array as before while it has not moved noticeably."""
        mean = self.mean.astype(np.float32)
        last = self._handed_out
        if last is None or np.sqrt(np.square(mean - last).mean()) > self._config.min_change:
            self._handed_out = last = mean
        return last
