"""Identity over a track: it sharpens, it is bounded, and what is seen twice is no news."""

import numpy as np
import pytest

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.identity_posterior import (
    IdentityAnswers,
    IdentityPosterior,
    PosteriorConfig,
)
from face_recon_ros.core.person import Person, identity_priors, learn_identities
from face_recon_ros.core.point_fit import FitPrior, FitState, PointFit
from face_recon_ros.core.reconstructor_config import ReconstructorConfig
from face_recon_ros.core.rigid import rotation_from_vector

K = 6
FRONTAL = np.eye(3)


def turned(k):
    """A head's attitude that differs from all others by half a radian at least."""
    return rotation_from_vector([0, 0.5 * k, 0])


def covariance(random, scale):
    a = random.normal(0, scale, (K, 2 * K))
    return a @ a.T / (2 * K)


def measured(seed=0, person=0.2, population=None):
    """A network's answers: mean, response, covariances, and the model of them."""
    random = np.random.default_rng(seed)
    response = 0.5 * np.eye(K) + random.normal(0, 0.05, (K, K))
    people = np.zeros(K) if population is None else population
    parts = (
        random.normal(0, 0.3, K),
        response,
        covariance(random, person),
        covariance(random, 0.4),
    )
    return parts, IdentityAnswers(*parts, people)


def test_before_the_first_picture_a_person_is_the_populations_mean():
    population = np.linspace(-1, 1, K)
    posterior = IdentityPosterior(measured(population=population)[1])
    np.testing.assert_array_equal(posterior.mean, population)
    np.testing.assert_allclose(posterior.deviation, 1)


@pytest.mark.parametrize("pictures", [1.0, 3.0, 7.5])
def test_the_posterior_is_what_gaussians_say(pictures):
    """Beside conditioning the joint Gaussian of identity and mean answer."""
    population = np.linspace(-1, 1, K)
    (mean, response, person, picture), answers = measured(population=population)
    seen = np.random.default_rng(1).standard_normal(K)
    joint = response @ response.T + person + picture / pictures
    gain = response.T @ np.linalg.inv(joint)
    ours, information = answers.posterior(seen, pictures)
    np.testing.assert_allclose(ours, population + gain @ (seen - mean), atol=1e-9)
    np.testing.assert_allclose(np.linalg.inv(information), np.eye(K) - gain @ response, atol=1e-9)


def test_what_is_promised_is_true():
    """Errors over promised deviations are one, after one picture and after many."""
    random = np.random.default_rng(2)
    (mean, response, person, picture), answers = measured()
    for count in (1, 6):
        scores = []
        for _ in range(300):
            truth = random.standard_normal(K)
            own = random.multivariate_normal(np.zeros(K), person)
            posterior = IdentityPosterior(answers)
            for k in range(count):
                noise = random.multivariate_normal(np.zeros(K), picture)
                posterior.add(mean + response @ truth + own + noise, turned(k))
            scores.append((posterior.mean - truth) / posterior.deviation)
        assert np.sqrt(np.square(scores).mean()) == pytest.approx(1, abs=0.1)


def test_one_picture_of_an_uncalibrated_network_is_believed():
    """Its answer is the mean of what is possible."""
    population, information = np.linspace(-1, 1, K), np.linspace(0.1, 3, K)
    answers = IdentityAnswers.uncalibrated(information, population, population, K)
    posterior = IdentityPosterior(answers)
    said = np.random.default_rng(3).standard_normal(K)
    posterior.add(said, FRONTAL)
    np.testing.assert_allclose(posterior.mean, said, atol=1e-9)
    np.testing.assert_allclose(posterior.information, np.diag(1 + information), atol=1e-6)


def test_the_networks_own_mean_is_exchanged_for_the_populations():
    """A network that knows nothing answers with its training's mean."""
    population = np.linspace(-1, 1, K)
    answers = IdentityAnswers.uncalibrated(0.0, population, 0.5, K)
    posterior = IdentityPosterior(answers)
    for k in range(9):
        posterior.add(np.full(K, 0.5), turned(k))
    np.testing.assert_allclose(posterior.mean, population, atol=1e-6)
    np.testing.assert_allclose(posterior.deviation, 1, atol=1e-4)


def test_answers_that_lean_to_the_mean_are_stood_upright():
    """Each answer leans to the mean by what it leaves open; together they lean less."""
    random, ratio = np.random.default_rng(5), []
    answers = IdentityAnswers.uncalibrated(0.5, 0.0, 0.0, K)
    for _ in range(60):
        truth = random.standard_normal(K)
        posterior = IdentityPosterior(answers)
        for k in range(12):
            posterior.add(truth / 3 + random.normal(0, 0.3, K), turned(k))
        ratio.append((posterior.mean @ truth) / (truth @ truth))
    assert np.mean(ratio) > 0.45  # a third in each answer


def test_the_posterior_sharpens_and_then_hardly_moves():
    random = np.random.default_rng(1)
    (mean, response, _, picture), answers = measured()
    truth = random.standard_normal(K)
    posterior = IdentityPosterior(answers)
    deviation, moved = [], []
    for _ in range(400):
        before = posterior.mean
        noise = random.multivariate_normal(np.zeros(K), picture)
        posterior.add(mean + response @ truth + noise, FRONTAL)
        deviation.append(posterior.deviation.max())
        moved.append(np.abs(posterior.mean - before).max())
    assert (np.diff(deviation) <= 1e-12).all()
    assert deviation[-1] < deviation[0]
    assert max(moved[200:]) < 0.2 * max(moved[:3])


def test_one_side_of_a_head_is_worth_little_more_than_one_picture():
    _, answers = measured()
    frames, one, two = (IdentityPosterior(answers) for _ in range(3))
    for _ in range(1000):
        frames.add(np.ones(K), FRONTAL)
    one.add(np.ones(K), FRONTAL)
    for k in range(2):
        two.add(np.ones(K), turned(k))
    assert (one.deviation > frames.deviation).all()
    assert (frames.deviation > two.deviation).all()


def test_a_side_is_the_mean_of_its_pictures_and_counts_by_their_number():
    """In whatever order they come, and for one and a half pictures at most."""
    _, answers = measured()
    sides = np.array([0, 1, 2, 0, 2, 0, 0, 0, 0])
    said = np.random.default_rng(6).standard_normal((len(sides), K))
    posterior = IdentityPosterior(answers, PosteriorConfig(frame_share=0.15))
    for answer, side in zip(said, sides, strict=True):
        posterior.add(answer, turned(side))
    counts = np.array([1.5, 1.0, 1.15])
    mean = counts @ [said[sides == k].mean(0) for k in range(3)] / counts.sum()
    expected = answers.posterior(mean, counts.sum())
    np.testing.assert_allclose(posterior.mean, expected[0], atol=1e-9)
    np.testing.assert_allclose(posterior.information, expected[1], atol=1e-9)


def test_a_person_who_looks_different_for_long_is_known_as_that():
    _, answers = measured()
    posterior, other = IdentityPosterior(answers), IdentityPosterior(answers)
    for k in range(400):
        posterior.add(np.full(K, float(k >= 200)), FRONTAL)
        other.add(np.ones(K), FRONTAL)
    np.testing.assert_allclose(posterior.mean, other.mean, atol=0.05)


def test_what_is_shared_by_a_persons_pictures_is_never_averaged_away():
    (_, response, person, _), answers = measured(person=0.5)
    posterior = IdentityPosterior(answers, PosteriorConfig(max_sides=1000, new_view=0.001))
    for k in range(400):
        posterior.add(np.zeros(K), rotation_from_vector([0, 0.005 * k, 0]))
    most = np.eye(K) + response.T @ np.linalg.inv(person) @ response
    assert np.linalg.eigvalsh(most - posterior.information).min() > -1e-6
    np.testing.assert_allclose(posterior.information, most, rtol=0.1, atol=0.1)


def test_no_more_sides_are_kept_than_asked_for():
    _, answers = measured()
    posterior = IdentityPosterior(answers, PosteriorConfig(max_sides=2))
    for k in range(5):
        posterior.add(np.ones(K), turned(k))
    _, two = answers.posterior(np.ones(K), 1.0 + 1.45)  # the second is the nearest of the others
    np.testing.assert_allclose(posterior.information, two, atol=1e-9)


def test_the_identity_handed_out_is_the_same_array_until_it_moves():
    _, answers = measured()
    posterior = IdentityPosterior(answers)
    for _ in range(9):
        posterior.add(np.ones(K), FRONTAL)
    first = posterior.handed_out()
    posterior.add(np.ones(K) + 0.01, FRONTAL)
    assert np.abs(posterior.mean - first).max() > 1e-4
    assert posterior.handed_out() is first
    posterior.add(np.ones(K) + 5.0, turned(2))
    assert posterior.handed_out() is not first
    np.testing.assert_allclose(posterior.handed_out(), posterior.mean, rtol=1e-6)


@pytest.mark.parametrize(
    "values", [{"frame_share": 0}, {"max_sides": 0}, {"min_change": -1}, {"new_view": 0}]
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ConfigError):
        PosteriorConfig(**values)


@pytest.mark.parametrize(
    ("which", "value"),
    [(0, np.full(K, np.nan)), (2, -np.eye(K)), (3, np.zeros((K, K)))],
)
def test_covariances_that_are_none_are_refused(which, value):
    parts = list(measured()[0])
    parts[which] = value
    with pytest.raises(ValueError, match=r"answers|covariance"):
        IdentityAnswers(*parts, np.zeros(K))


def test_a_picture_tells_the_same_whatever_was_known_before_it():
    """A fit that began with a person's posterior gives away what its picture says alone."""
    random, k = np.random.default_rng(3), 5
    prior = FitPrior(
        0.1, (0.1, 0.1, 0.1), np.linspace(0.8, 1.3, k), np.ones(2), 1.0, start_information=0.2
    )
    first, points = prior.identity_information(k), np.diag(np.linspace(0, 4, k))
    guess, seen = random.normal(0, 0.3, (2, k))
    answers = IdentityAnswers.uncalibrated(2.0, 0.0, 0.0, k)
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
            answers,
        )
        told.append(person.posterior)
    np.testing.assert_allclose(told[0].mean, told[1].mean, atol=1e-9)
    alone = np.linalg.solve(first + points, points @ seen + first @ guess)
    np.testing.assert_allclose(told[0].mean, alone, atol=1e-6)


def test_what_was_learnt_of_a_person_is_known_before_the_next_fit():
    """Of a face whose fit did not converge nothing is learnt."""
    k = 5
    prior = FitPrior(0.1, (0.1, 0.1, 0.1), 1.0, np.ones(2), 1.0, start_information=0.2)
    answers = IdentityAnswers.uncalibrated(2.0, 0.0, 0.0, k)
    people = [Person(ReconstructorConfig(), None) for _ in range(2)]
    met, unmet = people
    seen = np.random.default_rng(4).normal(0, 0.3, (2, k))
    for count, converged in ((1.0, True), (1.0, False), (2.0, True)):
        before = identity_priors(people, seen, prior)
        fit = PointFit(
            FitState(
                np.stack([turned(count)] * 2), np.zeros((2, 3)), seen + 0.1, np.zeros((2, 2))
            ),
            *np.zeros((2, 2, 6, 6)),
            before[1] + np.eye(k),
            np.zeros((2, 8, k)),
            np.ones(2),
            np.array([converged, False]),
        )
        new = met.posterior is None
        found = learn_identities(people, seen, before, prior, fit, answers)
        expected = fit.state.identity.copy()
        if new:  # then pose and expression had better know it at once
            expected[0] = met.posterior.handed_out()
        np.testing.assert_array_equal(found, expected)
        mean, information = identity_priors(people, seen, prior)
        np.testing.assert_array_equal(mean, [met.posterior.mean, seen[1]])
        _, sure = answers.posterior(np.zeros(k), count)
        np.testing.assert_allclose(information, [sure, prior.identity_information(k)])
        assert unmet.posterior is None


def point_fit(identity, information):
    """Of one face that converged."""
    state = FitState(np.eye(3)[None], np.zeros((1, 3)), identity[None], np.zeros((1, 2)))
    none, k = np.zeros((1, 6, 6)), len(identity)
    moved = np.zeros((1, 8, k))
    return PointFit(state, none, none, information[None], moved, np.ones(1), np.ones(1, bool))
