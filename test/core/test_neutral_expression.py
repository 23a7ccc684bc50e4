"""A person's own neutral face: what is always there is taken out, what changes stays."""

import numpy as np
import pytest

from face_recon_ros.core.neutral_expression import NeutralAnswers, NeutralExpression

K = 3
MEAN = np.array([0.1, 0.2, 0.3])
ANSWERS = NeutralAnswers(MEAN, np.array([0.5, 0.0, 1e6]))


def test_without_a_measurement_nothing_changes():
    neutral, seen = NeutralExpression(None), np.full(K, 0.4, np.float32)
    for stamp in range(5):
        assert neutral(seen, float(stamp)) is seen


def test_one_image_says_nothing_of_the_person():
    seen = np.full(K, 0.9, np.float32)
    np.testing.assert_array_equal(NeutralExpression(ANSWERS)(seen, 3.0), seen)


def test_what_is_always_there_is_taken_out_as_far_as_it_is_error():
    neutral, seen = NeutralExpression(ANSWERS), np.full(K, 0.6, np.float32)
    for stamp in range(200):
        out = neutral(seen, 0.5 * stamp)
    known = 10 * 0.5
    share = np.array([known / (1 + known), 0.0, 1.0])
    np.testing.assert_allclose(out, 0.6 - share * (0.6 - MEAN), atol=1e-3)


@pytest.mark.parametrize("rate_hz", [30, 100])
def test_a_person_is_known_by_the_seconds_and_not_by_the_images(rate_hz):
    """The first image and four seconds are five moments, three of one face and two of another."""
    neutral = NeutralExpression(ANSWERS)
    for k in range(4 * rate_hz + 1):
        shown = 0.8 if k <= 2 * rate_hz else 0.4
        out = neutral(np.full(K, shown, np.float32), k / rate_hz)
    known, mean = 5 * 0.5, (3 * 0.8 + 2 * 0.4) / 5
    assert out[0] == pytest.approx(0.4 - known / (1 + known) * (mean - MEAN[0]), abs=0.01)


def test_an_expression_of_a_moment_stays():
    neutral, rest = NeutralExpression(ANSWERS), np.full(K, 0.3, np.float32)
    for stamp in range(20):
        before = neutral(rest, float(stamp))
    raised = rest + np.array([0.5, 0.0, 0.0], np.float32)
    assert neutral(raised, 20.1)[0] - before[0] == pytest.approx(0.5, abs=0.02)


def test_the_same_moment_counts_once():
    once, often = NeutralExpression(ANSWERS), NeutralExpression(ANSWERS)
    high, low = np.full(K, 0.8, np.float32), np.full(K, 0.2, np.float32)
    for neutral, times in ((once, 1), (often, 50)):
        neutral(low, 0.0)
        for _ in range(times):
            neutral(high, 0.0)
    np.testing.assert_array_equal(once(low, 5.0), often(low, 5.0))


def test_activations_stay_in_their_range_when_time_jumps():
    neutral, random = NeutralExpression(ANSWERS), np.random.default_rng(0)
    for stamp in (0.0, 5.0, -100.0, 1e9, 3.0):
        out = neutral(random.random(K).astype(np.float32), stamp)
        assert out.dtype == np.float32
        assert ((out >= 0) & (out <= 1)).all()
