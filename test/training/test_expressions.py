"""Laws of random expressions."""

import numpy as np
import pytest

from face_recon_ros.training.synthesis.expressions import sample_expression

NAMES = [*("mouthLeft", "jawLeft", "cheekPuff"), *("mouthSmileLeft", "mouthSmileRight")]


def drawn(strong, n=400):
    random = np.random.default_rng(0)
    return np.stack(
        [sample_expression(NAMES, "unit_interval", random, strong=strong) for _ in range(n)]
    )


def test_muscles_that_people_seldom_move_alone_move_in_strong_expressions():
    never, always = drawn(0.0)[:, :3], drawn(1.0)[:, :3]
    assert never.max() < 0.4  # the noise of muscles
    assert (always > 0.4).mean() > 10 * (never > 0.3).mean() + 0.1
    assert 0.02 < (drawn(0.2)[:, :3] > 0.4).mean() / (always > 0.4).mean() < 0.4


@pytest.mark.parametrize("strong", [0.0, 0.3, 1.0])
def test_activations_lie_between_none_and_all(strong):
    e = drawn(strong, 50)
    assert e.shape == (50, 5) and e.min() >= 0 and e.max() <= 1


OPPOSED = [
    *(("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")),
    *(
        (f"eyeLook{a}{s}", f"eyeLook{b}{s}")
        for a, b in (("Up", "Down"), ("In", "Out"))
        for s in ("Left", "Right")
    ),
]


@pytest.mark.parametrize("pair", OPPOSED)
def test_what_moves_against_each_other_never_moves_together(pair):
    """There is one jaw: both ways at once would be labels of what no picture shows."""
    names = [*NAMES, *(name for pair in OPPOSED for name in pair if name not in NAMES)]
    random = np.random.default_rng(0)
    e = [sample_expression(names, "unit_interval", random, strong=1.0) for _ in range(400)]
    one, other = np.array(e)[:, [names.index(name) for name in pair]].T
    assert not np.minimum(one, other).any()
    assert (one > 0.4).sum() > 5 and (other > 0.4).sum() > 5


def test_lips_do_not_go_through_each_other():
    """`mouthClose` closes the lips of an open jaw: there is no more of it than of `jawOpen`."""
    random = np.random.default_rng(0)
    names = [*NAMES, "mouthClose", "jawOpen"]
    e = [sample_expression(names, "unit_interval", random, strong=0.8) for _ in range(400)]
    close, jaw = np.array(e)[:, -2:].T
    assert (close <= jaw).all() and (close > 0.3).sum() > 5


def test_a_model_of_other_expressions_gets_normal_ones():
    e = sample_expression(["a", "b"], "normal", np.random.default_rng(0), strong=1.0)
    assert e.shape == (2,) and np.isfinite(e).all()
