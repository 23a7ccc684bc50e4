"""What a track's pictures say together about who is shown: a Gaussian over identity.

A network answers with the mean of what is possible, so each answer leans towards the mean face,
and so would any average of answers. All answers for one person also share errors: of this skin,
these brows, this nose. The two-covariance model of speaker and face recognition says both
(Prince & Elder 2007, "Probabilistic linear discriminant analysis for inferences about identity",
ICCV; Bruemmer & de Villiers 2010, "The speaker partitioning problem", Odyssey): an answer is a
linear response to who the person is, an error of this person, and an error of this picture. All
three are measured on people whose pictures were never trained on (`training.people_answers`).

Frames of one video that show a head from the same side err alike. So pictures are averaged side by
side of the head, and a side counts for little more than one picture, however often it is seen.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recon_ros.core.ranges import check_ranges, ranged
from face_recon_ros.core.rigid import angle_between

Array = NDArray[np.float64]

#: A side of the head counts for this many independent pictures at most, and what is known of it
#: is the mean of about so many of the last pictures.
_SIDE_COUNTS, _SIDE_REMEMBERS = 1.5, 50
#: Share of the errors of an uncalibrated network's answers that all pictures of a person have.
_SHARED = 0.5
_LEAST_VARIANCE = 1e-6
#: So many results are remembered, 100 kB each.
_GAINS = 32


@dataclass(frozen=True)
class PosteriorConfig:
    """How a person's pictures are put together.

    Attributes:
        frame_share: One frame of a video counts for this share of an independent picture,
            where its side of the head was seen before.
        new_view: A head that is turned by more than this from all sides seen before, in
            radians, is a new view and counts in full.
        max_sides: A head is known from at most this number of sides.
        min_change: The identity that is handed out changes only if the posterior's mean is
            off by more than this (RMS, standard deviations of the face model).
    """

    frame_share: float = ranged(0.15, 0.001, 1.0)
    new_view: float = ranged(0.2, 0.001, 3.1416)
    max_sides: int = ranged(16, 1, 1000)
    min_change: float = ranged(0.02, 0.0, 10.0)

    def __post_init__(self) -> None:
        check_ranges(self)


class IdentityAnswers:
    """How a network's answers for a person relate to who it is: the two-covariance model.

    answer = mean + response (identity - population) + error of the person + error of the picture

    Attributes:
        mean: (K_id,) mean answer for a person who is the population's mean.
        population: (K_id,) mean identity of people, whose variance is one.
    """

    def __init__(
        self,
        mean: ArrayLike,
        response: ArrayLike,
        person: ArrayLike,
        picture: ArrayLike,
        population: ArrayLike,
    ) -> None:
        """Diagonalises both covariances at once.

        Args:
            mean: (K_id,).
            response: (K_id, K_id) change of the answer with the identity.
            person: (K_id, K_id) covariance of the errors that all pictures of a person share.
            picture: (K_id, K_id) covariance of the other errors, from picture to picture.
            population: (K_id,).

        Raises:
            ValueError: a covariance is not positive definite, or not finite.
        """
        self.mean, self.population = (np.asarray(v, np.float64) for v in (mean, population))
        if not all(np.isfinite(v).all() for v in (self.mean, self.population, response, person)):
            raise ValueError("identity answers that are not finite")
        try:
            root = np.linalg.inv(np.linalg.cholesky(np.asarray(picture, np.float64)))
        except np.linalg.LinAlgError:
            raise ValueError("a covariance of pictures that is not positive definite") from None
        values, vectors = np.linalg.eigh(root @ np.asarray(person, np.float64) @ root.T)
        if not (values > -1e-6).all():
            raise ValueError("a covariance of persons below zero")
        self._shared = np.maximum(values, 0.0)  # variance, where a picture's is one
        self._whiten = vectors.T @ root
        self._response = self._whiten @ np.asarray(response, np.float64)
        # A head that has shown all its sides counts for the same in each image.
        self._gain = functools.lru_cache(_GAINS)(self._gain_of)

    @staticmethod
    def uncalibrated(
        information: ArrayLike, population: ArrayLike, training_mean: ArrayLike, k_identity: int
    ) -> IdentityAnswers:
        """Of a network of which only the information of one answer is known.

        The mean of what is possible has the response i / (1 + i) and errors of variance
        i / (1 + i)^2 where i is the information beyond the prior's.

        Args:
            information: (K_id,) or one of all, beyond the prior's.
            population: (K_id,) or one of all: mean identity of people.
            training_mean: likewise, of the people that the network was trained on.
            k_identity: K_id.
        """
        i, people, trained = (
            np.broadcast_to(np.asarray(v, np.float64), k_identity)
            for v in (information, population, training_mean)
        )
        response = i / (1 + i)
        variance = np.maximum(response / (1 + i), _LEAST_VARIANCE)
        mean = trained + response * (people - trained)
        shared, own = np.diag(_SHARED * variance), np.diag((1 - _SHARED) * variance)
        return IdentityAnswers(mean, np.diag(response), shared, own, people)

    def posterior(self, answer: Array, pictures: float) -> tuple[Array, Array]:
        """Who it is, after some pictures.

        Args:
            answer: (K_id,) mean of their answers.
            pictures: how many independent ones they count for, above 0.

        Returns:
            (K_id,) mean and (K_id, K_id) information.
        """
        gain, information = self._gain(pictures)
        return self.population + gain @ (answer - self.mean), information

    def _gain_of(self, pictures: float) -> tuple[Array, Array]:
        """(K_id, K_id) from answers to identities, and the information, after some pictures."""
        weighed = self._response.T / (self._shared + 1.0 / pictures)
        information = np.eye(len(self.mean)) + weighed @ self._response
        return np.linalg.solve(information, weighed @ self._whiten), information


@dataclass
class _Side:
    """A side of a head.

    Attributes:
        rotation: (3, 3) of the head when it was first seen from there.
        answer: (K_id,) mean answer.
        frames: how many it is the mean of.
    """

    rotation: Array
    answer: Array
    frames: int = 1

    def add(self, answer: Array) -> None:
        self.frames += 1
        self.answer = self.answer + (answer - self.answer) / min(self.frames, _SIDE_REMEMBERS)


class IdentityPosterior:
    """Mean and information of one track's identity.

    Attributes:
        mean: (K_id,) standard deviations of the face model.
        information: (K_id, K_id) inverse covariance of the identity.
    """

    def __init__(self, answers: IdentityAnswers, config: PosteriorConfig | None = None) -> None:
        """Begins with the prior: unit variance around the population's mean.

        Args:
            answers: of the network that will look at the person.
            config: how pictures are put together.
        """
        self._answers, self._config = answers, config or PosteriorConfig()
        self.mean: NDArray[np.floating] = answers.population
        self.information: Array = np.eye(len(self.mean))
        self._sides: list[_Side] = []
        self._handed_out: NDArray[np.float32] | None = None

    @property
    def deviation(self) -> Array:
        """(K_id,) standard deviation of each coefficient."""
        return np.asarray(np.sqrt(np.linalg.inv(self.information).diagonal()))

    def add(self, answer: NDArray[np.floating], rotation: NDArray[np.floating]) -> None:
        """Adds a picture.

        Args:
            answer: (K_id,) of this picture for itself.
            rotation: (3, 3) camera_from_face, or crop_from_face: from which side it was seen.
        """
        said, rotation = answer.astype(np.float64), np.asarray(rotation, np.float64)
        away = [angle_between(rotation, side.rotation) for side in self._sides]
        full = len(away) >= self._config.max_sides
        if away and (full or min(away) < self._config.new_view):
            self._sides[int(np.argmin(away))].add(said)
        else:
            self._sides.append(_Side(rotation.astype(np.float64), said))
        counts = np.array([self._counts(side) for side in self._sides])
        mean = counts @ np.array([side.answer for side in self._sides]) / counts.sum()
        self.mean, self.information = self._answers.posterior(mean, float(counts.sum()))

    def _counts(self, side: _Side) -> float:
        """How many independent pictures it is worth."""
        return min(1.0 + self._config.frame_share * (side.frames - 1), _SIDE_COUNTS)

    def handed_out(self) -> NDArray[np.float32]:
        """(K_id,) the mean: the very same array as before while it has not moved noticeably."""
        mean = self.mean.astype(np.float32)
        last = self._handed_out
        if last is None or np.sqrt(np.square(mean - last).mean()) > self._config.min_change:
            self._handed_out = last = mean
        return last
