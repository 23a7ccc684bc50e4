"""What is known of the person on a track, beyond one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from face_recon_ros.core.aggregation import Aggregate
from face_recon_ros.core.camera import PinholeCamera
from face_recon_ros.core.crop import Crop
from face_recon_ros.core.decoding import MeshDecoder
from face_recon_ros.core.identity_posterior import (
    IdentityAnswers,
    IdentityPosterior,
)
from face_recon_ros.core.inference import Prediction
from face_recon_ros.core.neutral_expression import NeutralAnswers, NeutralExpression
from face_recon_ros.core.point_fit import FitPrior, PointFit
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import Rigid
from face_recon_ros.core.smoothing import OneEuroRigid, OneEuroVector
from face_recon_ros.core.starts import LastAnswer
from face_recon_ros.core.texture import Appearance, View
from face_recon_ros.core.texture_sampler import TextureSampler
from face_recon_ros.core.types import Float32, Track


class Person:
    """What is known of a track: aggregates, filters, and what was decoded of them."""

    def __init__(
        self,
        config: ReconstructorConfig,
        sampler: TextureSampler | None,
        neutral: NeutralAnswers | None = None,
    ) -> None:
        """A person of whom nothing is known yet.

        Args:
            config: of the filters and averages.
            sampler: of the person's own colours; None: the model's will do.
            neutral: what the network answers for people on average; None: not known.
        """
        self._config = config.posterior
        self._neutral = NeutralExpression(neutral if config.normalise_expression else None)
        self.appearance = None if sampler is None else Appearance(sampler)
        self.waits = -1  # images since the last look at colours; -1 before the first
        self.identity = Aggregate(config.aggregation)
        self.albedo = Aggregate(config.aggregation)
        self.posterior: IdentityPosterior | None = None
        self.last: LastAnswer | None = None
        self.smooth(config)
        #: What was decoded -> the coefficients it was decoded from, and the result.
        self.decoded: dict[str, tuple[Float32, Float32]] = {}

    def smooth(self, config: ReconstructorConfig) -> None:
        """Restarts the filters."""
        self.pose = OneEuroRigid(config.smooth_rotation, config.smooth_translation)
        self._smooth_expression = OneEuroVector(config.smooth_expression)
        self.smooths_pose = config.smooth_rotation.enabled or config.smooth_translation.enabled

    def expression(self, seen: Float32, stamp: float) -> Float32:
        """(K_exp,) beyond the person's own neutral face, and smoothed."""
        normalised = self._neutral(seen, stamp)
        return self._smooth_expression(normalised, stamp).astype(np.float32)

    def saw(
        self,
        track: Track,
        camera_from_face: Rigid,
        row: Prediction,
        crop: Crop,
        camera: PinholeCamera,
    ) -> None:
        """Remembers where the head was found; see `LastAnswer.after`."""
        self.last = LastAnswer.after(self.last, track.stamp, camera_from_face, row, crop, camera)

    def identity_deviation(self, k_identity: int) -> NDArray[np.float64]:
        """(K_id,) standard deviations; the prior's where no fit says more."""
        return np.ones(k_identity) if self.posterior is None else self.posterior.deviation

    def learn(
        self, answer: NDArray[np.floating], rotation: NDArray[np.floating], of: IdentityAnswers
    ) -> IdentityPosterior:
        """Adds the (K_id,) answer for a picture of a head turned by (3, 3) `rotation`."""
        self.posterior = self.posterior or IdentityPosterior(of, self._config)
        self.posterior.add(answer, rotation)
        return self.posterior

    def known_identity(self, seen: Float32, confidence: float) -> Float32:
        """(K_id,) the person's identity, after it was seen once more."""
        if self.posterior is not None:
            return self.posterior.handed_out()
        return self.identity(seen, confidence)

    def colours(self, shaded: Float32, view: View | None) -> Float32:
        """Colours of the person's mesh in an image.

        Args:
            shaded: (V, 3) of the model under the image's light.
            view: how the image shows the face; None: nobody looked.

        Returns:
            (V, 3) with what this image and those before have shown.
        """
        if self.appearance is None:
            return shaded
        if view is not None:
            self.appearance.add(view.comparison, view.px_per_mm)
        return self.appearance.colours(shaded)


def due_for_a_look(people: Sequence[Person]) -> set[int]:
    """Whose colours are sampled in an image: of people never seen, and of one of the others.

    Colours change slowly, and sampling them costs as much as the rest of decoding: in a crowd it
    is done in turn.

    Args:
        people: N, of one image.

    Returns:
        Indices into `people`.
    """
    due = {i for i, person in enumerate(people) if person.waits < 0}
    known = [i for i in range(len(people)) if i not in due]
    due |= set(sorted(known, key=lambda i: -people[i].waits)[:1])
    for i, person in enumerate(people):
        person.waits = 0 if i in due else person.waits + 1
    return due


def identity_priors(
    people: list[Person], seen: NDArray[np.floating], prior: FitPrior
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is known of N people's identity before a fit.

    Args:
        people: N.
        seen: (N, K_id) in this image before the fit, which counts for those not met before.
        prior: of the fit.

    Returns:
        (N, K_id) means and (N, K_id, K_id) information.
    """
    mean = np.asarray(seen, np.float64) + prior.start_shift
    information = np.repeat(prior.identity_information(mean.shape[1])[None], len(people), 0)
    for i, person in enumerate(people):
        if person.posterior is not None:
            mean[i], information[i] = person.posterior.mean, person.posterior.information
    return mean, information


def learn_identities(
    people: list[Person],
    seen: NDArray[np.floating],
    known: tuple[NDArray[np.float64], NDArray[np.float64]],
    prior: FitPrior,
    fit: PointFit,
    answers: IdentityAnswers,
) -> NDArray[np.float64]:
    """Adds what a fit says of N people's identity to what is known of them.

    A fit with the prior N(m, B^-1) and points of information P answers with x, where
    (B + P) x = B m + P s, and s is what the points say. So P s = (B + P) x - B m, and of the
    picture for itself, whose start g has information A, the answer a is (A + P) a = A g + P s.

    Args:
        people: N.
        seen: (N, K_id) in this image before the fit.
        known: `identity_priors`, which the fit started from.
        prior: of the fit.
        fit: of N faces; those that did not converge say nothing.
        answers: what such answers say of a person.

    Returns:
        (N, K_id) who they are, as pose and expression should have it: of people who were not known
        before what is known now; of others the fit's, which began with what was known.
    """
    first = prior.identity_information(seen.shape[1])
    rows = np.flatnonzero(fit.converged)
    after, (mean, before) = fit.identity_information[rows], (values[rows] for values in known)
    answer = fit.state.identity[rows].astype(np.float64)
    points = after - before
    pull = after @ answer[..., None] - before @ mean[..., None] + first @ seen[rows][..., None]
    alone = np.linalg.solve(first + points, pull)[..., 0]
    identity = fit.state.identity.astype(np.float64)
    for i, answer in zip(rows, alone, strict=True):
        new = people[i].posterior is None
        posterior = people[i].learn(answer, fit.state.rotation[i], answers)
        if new:
            identity[i] = posterior.handed_out()
    return identity


def decoded(
    people: list[Person],
    what: str,
    coefficients: list[Float32],
    decode: Callable[[Float32], Float32],
) -> Float32:
    """What `decode` makes of each person's coefficients, again only where they are another array.

    Args:
        people: N.
        what: it is remembered as.
        coefficients: N rows.
        decode: (M, K) -> (M, ...).

    Returns:
        (N, ...).
    """
    changed = [
        i
        for i, (person, row) in enumerate(zip(people, coefficients, strict=True))
        if what not in person.decoded or person.decoded[what][0] is not row
    ]
    if changed:
        fresh = decode(np.stack([coefficients[i] for i in changed]))
        for i, value in zip(changed, fresh, strict=True):
            people[i].decoded[what] = coefficients[i], value
    return np.stack([person.decoded[what][1] for person in people])


def decode_people(
    decoder: MeshDecoder,
    people: list[Person],
    coloured: bool,
    identity: list[Float32],
    expression: Float32,
    albedo: list[Float32],
    poses: Sequence[Rigid],
    illumination: Float32,
) -> tuple[Float32, Float32, Float32]:
    """The meshes of N people, as `GraphDecoder` makes them; what is known of a person is kept.

    Args:
        decoder: of one step after the other.
        people: N.
        coloured: else there are no normals and colours, N empty rows.
        identity: N of (K_id,).
        expression: (N, K_exp).
        albedo: N of (K_alb,).
        poses: N, crop_from_face.
        illumination: (N, 9, 3).

    Returns:
        Vertices (N, V, 3), normals (N, 3, V), colours (N, V, 3).
    """
    neutral = decoded(people, "neutral", identity, decoder.neutral)
    vertices = decoder.express(neutral, expression)
    if not coloured:
        none = np.zeros((len(people), 0, 3), np.float32)
        return vertices, none, none
    skin = decoded(people, "reflectance", albedo, decoder.reflectance)
    normals = decoder.normals(vertices, poses)
    return vertices, normals, decoder.colours(normals, skin, illumination)
