"""Laws of identity aggregation."""

import numpy as np
import pytest

from face_recon_ros.core.aggregation import Aggregate, AggregationConfig
from face_recon_ros.core.errors import ConfigError

K = 40


def frames(n, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(K)
    return truth, truth + noise * rng.standard_normal((n, K))


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


def test_one_frame_is_itself():
    np.testing.assert_array_equal(Aggregate(AggregationConfig())(np.arange(3.0)), [0, 1, 2])


def test_the_error_falls_as_one_over_root_n():
    truth, seen = frames(100)
    aggregate = Aggregate(AggregationConfig(min_change=0.0))
    errors = [rms(aggregate(x) - truth) for x in seen]
    assert errors[-1] < 1.3 * rms(seen[0] - truth) / np.sqrt(100)


def test_confidence_weighs():
    """Far below the outlier scale it is the weighted mean of Deng et al."""
    aggregate = Aggregate(AggregationConfig(outlier_scale=1e6, min_change=0.0))
    values, weights = np.array([[0.0], [1.0], [2.0]]), [0.2, 0.5, 0.3]
    for v, w in zip(values, weights, strict=True):
        mean = aggregate(v, w)
    assert mean[0] == pytest.approx(np.average(values[:, 0], weights=weights))


def test_wrong_frames_do_little_harm():
    truth, seen = frames(60)
    _, others = frames(60, seed=9)
    aggregate = Aggregate(AggregationConfig())
    for k in range(60):
        mean = aggregate(others[k] if k % 6 == 5 else seen[k])
    assert (
        rms(mean - truth)
        < 0.15
        < rms(np.mean(np.where((np.arange(60) % 6 == 5)[:, None], others, seen), axis=0) - truth)
    )


def test_a_wrong_start_is_outgrown():
    truth, seen = frames(60)
    aggregate = Aggregate(AggregationConfig())
    aggregate(-truth)
    for x in seen:
        mean = aggregate(x)
    assert rms(mean - truth) < 0.2


def test_a_settled_mean_is_the_same_array():
    """So that whoever decoded it may keep the result."""
    _, seen = frames(400, noise=0.1)
    aggregate = Aggregate(AggregationConfig())
    out = [aggregate(x) for x in seen]
    assert out[-1] is out[-50]
    assert len({id(x) for x in out}) < 20


def test_off_hands_each_frame_through():
    aggregate = Aggregate(AggregationConfig(enabled=False))
    _, seen = frames(5)
    for x in seen.astype(np.float32):
        np.testing.assert_array_equal(aggregate(x), x)


def test_no_coefficients_at_all():
    aggregate = Aggregate(AggregationConfig())
    assert aggregate(np.zeros(0)).shape == aggregate(np.zeros(0)).shape == (0,)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError):
        AggregationConfig(outlier_scale=0.0)
