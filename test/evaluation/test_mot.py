"""The tracking metrics, against cases worked out by hand."""

import math

import numpy as np
import pytest

from face_recon_ros.evaluation.mot import FoundFace, MotAccumulator, TrueFace


def box(x, side=10.0):
    return np.array([x, 0.0, x + side, side])


def run(frames, rate=10.0):
    """Frames of ({person: x}, {id: x}); a person whose name ends with ? is unclear."""
    counts = MotAccumulator()
    for k, (truth, found) in enumerate(frames):
        counts.add(
            k / rate,
            [TrueFace(p.rstrip("?"), box(x), not p.endswith("?")) for p, x in truth.items()],
            [FoundFace(t, box(x)) for t, x in found.items()],
        )
    return counts.figures()


def test_nothing_asked_nothing_counted():
    figures = run([])
    assert figures["faces"] == figures["ghosts"] == figures["id_switches"] == 0
    assert math.isnan(figures["mota"]) and math.isnan(figures["idf1"])


def test_everything_right():
    figures = run([({"A": 0, "B": 100}, {"a": 1, "b": 101})] * 20)
    assert figures["mota"] == figures["idf1"] == figures["recall"] == figures["precision"] == 1.0
    assert figures["id_switches"] == figures["ghosts"] == 0


def test_a_new_id_halfway_is_one_switch_and_half_the_identity():
    figures = run([({"A": 0}, {"a": 0})] * 10 + [({"A": 0}, {"b": 0})] * 10)
    assert figures["id_switches"] == 1
    assert figures["mota"] == pytest.approx(1 - 1 / 20)
    # 10 of 20 under the id that fits best: 2 * 10 / (20 + 20)
    assert figures["idf1"] == pytest.approx(0.5)


def test_two_who_trade_ids_are_two_switches():
    figures = run(
        [({"A": 0, "B": 100}, {"a": 0, "b": 100})] * 5
        + [({"A": 0, "B": 100}, {"b": 0, "a": 100})] * 5
    )
    assert figures["id_switches"] == 2 and figures["idf1"] == pytest.approx(0.5)


def test_misses_and_false_positives():
    figures = run([({"A": 0}, {}), ({"A": 0}, {"a": 0}), ({}, {"a": 50}), ({"A": 0}, {"a": 0})])
    assert (figures["misses"], figures["false_positives"]) == (1, 1)
    assert figures["mota"] == pytest.approx(1 - 2 / 3)
    assert figures["idf1"] == pytest.approx(2 * 2 / (3 + 3))


def test_matches_that_hold_are_kept():
    """A second track that lies a little better is no switch."""
    figures = run([({"A": 0}, {"a": 1}), ({"A": 0}, {"a": 2, "z": 0})])
    assert figures["id_switches"] == 0 and figures["false_positives"] == 1


def test_matches_are_kept_over_a_gap_and_no_track_twice():
    """As py-motmetrics has it: the last match counts, however long ago it was."""
    gap = [({"A": 0}, {"a": 0}), ({"A": 0}, {})]
    assert run([*gap, ({"A": 0}, {"a": 2, "z": 0})])["id_switches"] == 0
    handed_on = [*gap, ({"B": 0}, {"a": 0}), ({"A": 0, "B": 1}, {"a": 0, "z": 1})]
    figures = run(handed_on)
    assert figures["id_switches"] == 1 and figures["false_positives"] == 0


def test_unclear_faces_count_neither_way():
    figures = run([({"A?": 0}, {"a": 0}), ({"A?": 0}, {})] * 10)
    assert figures["faces"] == 0 and figures["false_positives"] == 0 and figures["ghosts"] == 0


@pytest.mark.parametrize("frames, ghosts", [(3, 0), (4, 1), (30, 1)])
def test_a_ghost_stays_for_more_than_a_fifth_of_a_second(frames, ghosts):
    figures = run([({"A": 0}, {"a": 0, "g": 300})] * frames + [({"A": 0}, {"a": 0})] * 5)
    assert figures["ghosts"] == ghosts


def test_returns():
    here, away = [({"A": 0}, {"a": 0})] * 10, [({}, {})] * 60
    assert run(here + away + here)["returns"] == {"same": 1, "wrong": 0, "new": 0}
    renamed = [({"A": 0}, {"b": 0})] * 10
    assert run(here + away + renamed)["returns"] == {"same": 0, "wrong": 0, "new": 1}
    other = [({"B": 0}, {"b": 0})] * 10
    assert run(other + here + away + renamed)["returns"] == {"same": 0, "wrong": 1, "new": 0}
    assert run(here + [({}, {})] * 20 + renamed)["returns"] == {"same": 0, "wrong": 0, "new": 0}
