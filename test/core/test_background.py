"""Laws of work beside the pipeline: one piece at a time, each result once, at once or later."""

import pytest
from fixtures import Later

from face_recon_ros.core.background import Background, executor_of


def broken():
    raise ValueError("a bad day")


def test_one_piece_of_work_at_a_time_and_its_result_once():
    executor = Later()
    background, other = Background(executor), Background(executor)
    assert background.take() is None and background.is_idle
    background.send(0.5, divmod, 7, 2)
    background.send(0.6, divmod, 9, 2)  # it is busy: nothing is queued
    assert len(executor.waiting) == 1 and not background.is_idle
    assert background.take() is None
    other.send(0.6, divmod, 9, 2)
    executor.run()
    assert not background.is_idle
    result = background.take()
    assert (result.stamp, result.value) == (0.5, (3, 1))
    assert background.is_idle and background.take() is None
    assert other.take().stamp == 0.6


def test_a_fault_is_told_and_the_next_piece_of_work_goes_on():
    background = Background(executor_of(live=False))
    background.send(0.0, broken)
    with pytest.raises(ValueError, match="bad day"):
        background.take()
    background.send(0.1, divmod, 7, 2)
    assert background.take().value == (3, 1)


@pytest.mark.parametrize("live", [False, True])
def test_live_it_is_done_in_a_thread_else_at_once(live):
    background = Background(executor_of(live=live))
    background.send(0.0, divmod, 7, 2)
    while (result := background.take()) is None:
        assert live
    assert result.value == (3, 1)
