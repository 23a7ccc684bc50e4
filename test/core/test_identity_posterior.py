"""Identity over a track: it sharpens, it is bounded, and what is seen twice is no news."""

import numpy as np
import pytest

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.identity_posterior import (
    IdentityPosterior,
    PosteriorConfig,
)
from face_recon_ros.core.person import Person, learn_identities
from face_recon_ros.core.point_fit import FitPrior, FitState, PointFit
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import rotation_from_vector

K = 6
FRONTAL = np.eye(3)


def turned(k):
    """A head's attitude that differs from all others by half a radian at least."""
    return rotation_from_vector([0, 0.5 * k, 0])


def picture(truth, noise, random):
    """A picture in which the identity was seen once: its own posterior, and what it tells."""
    told = np.eye(K) / noise**2
    return np.linalg.solve(np.eye(K) + told, told @ (truth + random.normal(0, noise, K))), told


def test_one_picture_is_believed():
    truth, random = np.ones(K), np.random.default_rng(4)
    posterior = IdentityPosterior(K)
    mean, told = picture(truth, 0.5, random)
    posterior.add(mean, told, FRONTAL)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-9)
    np.testing.assert_allclose(posterior.information, np.eye(K) + told, rtol=1e-9)


def test_independent_pictures_give_the_product_of_gaussians():
    random = np.random.default_rng(0)
    truth = random.standard_normal(K)
    posterior = IdentityPosterior(K, PosteriorConfig(max_views=1e9))
    pull = np.zeros(K)
    for k in range(5):
        identity, told = picture(truth, 0.5, random)
        posterior.add(identity, told, turned(k))
        pull += (np.eye(K) + told) @ identity
    np.testing.assert_allclose(posterior.information, np.eye(K) * (1 + 5 / 0.25), rtol=1e-6)
    np.testing.assert_allclose(posterior.mean, pull / (1 + 5 / 0.25), atol=1e-6)


def test_the_posterior_sharpens_and_then_hardly_moves():
    random = np.random.default_rng(1)
    truth = random.standard_normal(K)
    posterior = IdentityPosterior(K, PosteriorConfig(max_views=12))
    deviation, moved = [], []
    for _ in range(400):
        before = posterior.mean
        posterior.add(*picture(truth, 0.8, random), FRONTAL)
        deviation.append(posterior.deviation.max())
        moved.append(np.abs(posterior.mean - before).max())
    assert (np.diff(deviation) <= 1e-12).all()
    assert deviation[-1] < 0.5 * deviation[0]
    assert max(moved[200:]) < 0.15 * max(moved[:3])
    # however long the video, it is worth no more than so many independent pictures
    assert posterior.information.max() <= 1 + 12 / 0.64 + 1e-6
    np.testing.assert_allclose(posterior.mean, truth, atol=4 * deviation[-1])


def test_a_side_seen_before_counts_for_a_part_of_a_new_one():
    frames, pictures = (IdentityPosterior(K) for _ in range(2))
    random = np.random.default_rng(2)
    for posterior, step in ((frames, 0), (pictures, 1)):
        for k in range(4):
            posterior.add(*picture(np.ones(K), 0.5, random), turned(step * k))
    assert (frames.deviation > pictures.deviation).all()


def test_pictures_that_show_nothing_leave_anybody():
    posterior = IdentityPosterior(K)
    for _ in range(9):
        posterior.add(np.zeros(K), np.zeros((K, K)), FRONTAL)
    np.testing.assert_allclose(posterior.mean, 0, atol=1e-9)
    np.testing.assert_allclose(posterior.deviation, 1)


def test_answers_that_lean_to_the_mean_are_stood_upright():
    """Each answer leans to the mean by what it leaves open; together they must not lean as far."""
    random, true = np.random.default_rng(5), 0.5
    forever, ratio, together = PosteriorConfig(max_views=1e9), [], 12 * true
    for _ in range(60):
        truth = random.standard_normal(K)
        posterior = IdentityPosterior(K, forever)
        for k in range(12):
            seen = truth + random.normal(0, true**-0.5, K)
            alone = true * seen / (1 + true)  # what a calibrated network answers
            posterior.add(alone, true * np.eye(K), turned(k))
        ratio.append((posterior.mean @ truth) / (truth @ truth))
    assert np.mean(ratio) == pytest.approx(together / (1 + together), abs=0.05)


def test_before_the_first_picture_a_person_is_the_populations_mean():
    population = np.linspace(-1, 1, K)
    posterior = IdentityPosterior(K, None, population, 0.5)
    np.testing.assert_array_equal(posterior.mean, population)
    for _ in range(9):  # pictures that show nothing: the network answers with its training's mean
        posterior.add(np.full(K, 0.5), np.zeros((K, K)), FRONTAL)
    np.testing.assert_allclose(posterior.mean, population, atol=1e-12)


@pytest.mark.parametrize("training_mean", [0.0, 0.7])
def test_the_networks_own_mean_is_exchanged_for_the_populations(training_mean):
    """As if each picture's answer had been found with the population's prior."""
    random, population = np.random.default_rng(6), np.linspace(-1, 1, K)
    posterior = IdentityPosterior(K, PosteriorConfig(max_views=1e9), population, training_mean)
    information, pull = np.eye(K), population.copy()
    for k in range(4):
        told, seen = np.diag(random.uniform(0, 3, K)), random.standard_normal(K)
        answer = np.linalg.solve(np.eye(K) + told, told @ seen + training_mean)
        posterior.add(answer, told, turned(k))
        information, pull = information + told, pull + told @ seen
    np.testing.assert_allclose(posterior.mean, np.linalg.solve(information, pull), atol=1e-9)


def test_the_identity_handed_out_is_the_same_array_until_it_moves():
    random = np.random.default_rng(3)
    posterior = IdentityPosterior(K)
    posterior.add(*picture(np.ones(K), 0.01, random), FRONTAL)
    first = posterior.handed_out()
    posterior.add(posterior.mean + 1e-4, np.eye(K), FRONTAL)
    assert posterior.handed_out() is first
    posterior.add(posterior.mean + 1.0, 3 * posterior.information, FRONTAL)
    assert posterior.handed_out() is not first


@pytest.mark.parametrize(
    "values", [{"frame_share": 0}, {"max_views": 0.5}, {"min_change": -1}, {"new_view": 0}]
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ConfigError):
        PosteriorConfig(**values)


def test_a_picture_tells_the_same_whatever_was_known_before_it():
    """A fit that began with a person's posterior gives away what its picture says alone."""
    random, k = np.random.default_rng(3), 5
    prior = FitPrior(
        0.1, (0.1, 0.1, 0.1), np.linspace(0.8, 1.3, k), np.ones(2), 1.0, start_information=0.2
    )
    first, points = prior.identity_information(k), np.diag(np.linspace(0, 4, k))
    guess, seen = random.normal(0, 0.3, (2, k))
    told = []
    for mean, before in ((guess, first), (random.standard_normal(k), 5 * np.eye(k))):
        after = before + points
        identity = np.linalg.solve(after, points @ seen + before @ mean)
        person = Person(ReconstructorConfig(), None)
        learn_identities(
            [person],
            guess[None],
            (mean[None], before[None]),
            prior,
            point_fit(identity, after),
            PosteriorConfig(),
        )
        told.append(person.posterior)
    np.testing.assert_allclose(told[0].mean, told[1].mean, atol=1e-9)
    np.testing.assert_allclose(told[0].information, 1.2 * np.eye(k) + points, atol=1e-9)
    alone = np.linalg.solve(first + points, points @ seen + first @ guess)
    np.testing.assert_allclose(told[0].mean, alone, atol=1e-9)


def point_fit(identity, information):
    """Of one face that converged."""
    state = FitState(np.eye(3)[None], np.zeros((1, 3)), identity[None], np.zeros((1, 2)))
    none = np.zeros((1, 6, 6))
    return PointFit(state, none, none, information[None], np.ones(1), np.ones(1, bool))
