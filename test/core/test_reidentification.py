"""Laws of re-identification: an old id only for who was seen before; when in doubt, a new one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recon_ros.core.errors import ConfigError
from face_recon_ros.core.reidentification import ReIdentificationConfig, ReIdentifier

WIDTH = 512


def gallery(**config):
    counter = itertools.count()
    return ReIdentifier(lambda: f"new{next(counter)}", ReIdentificationConfig(**config))


def person(seed):
    vector = np.random.default_rng(seed).standard_normal(WIDTH)
    return vector / np.linalg.norm(vector)


def look(of, seed=0, similarity=0.8):
    """A unit vector of a given cosine to another."""
    other = np.random.default_rng((seed, 1)).standard_normal(WIDTH)  # no `person` is drawn so
    other -= (other @ of) * of
    other /= np.linalg.norm(other)
    return similarity * of + np.sqrt(1 - similarity**2) * other


def meet(known, name, of, start=0.0, looks=4):
    """A person alone for some looks; the last stamp."""
    for k in range(looks):
        known.follow([name], start + k)
        known.see({name: look(of, seed=k)})
    return start + looks - 1


def test_nobody_is_nobody():
    known = gallery()
    known.follow([], 0.0)
    assert known.wanted() == [] and known.see({}) == {}
    assert known.see({"stranger": person(0)}) == {}  # of no track


def test_a_person_back_has_the_old_id():
    known = gallery()
    end = meet(known, "a", person(1))
    known.follow(["b"], end + 20)
    assert known.is_anonymous("b") and known.wanted() == ["b"]
    assert known.see({"b": look(person(1), seed=9)}) == {"b": "a"}
    known.follow(["a"], end + 21)
    assert not known.is_anonymous("a")


def test_after_the_memory_a_person_is_new():
    known = gallery(memory_s=30.0)
    end = meet(known, "a", person(1))
    known.follow([], end + 29)
    known.follow(["b"], end + 31)
    assert not known.is_anonymous("b")
    assert known.see({"b": look(person(1))}) == {}


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_a_stranger_never_gets_an_old_id(seed):
    known = gallery()
    end = meet(known, "a", person(seed))
    known.follow(["b"], end + 5)
    for k in range(4):
        assert known.see({"b": look(person(seed + 50_000), seed=100 + k)}) == {}
    assert not known.is_anonymous("b")


def test_two_who_are_alike_leave_and_neither_id_is_given():
    """Both lost people look like the one who is back: better a new id than a wrong one."""
    known = gallery()
    twin = look(person(1), similarity=0.99)
    for k in range(4):
        known.follow(["a", "b"], float(k))
        known.side_by_side(["a", "b"])
        known.see({"a": person(1), "b": twin})
    known.follow(["c"], 10.0)
    for _ in range(4):
        assert known.see({"c": person(1)}) == {}


def test_people_seen_side_by_side_say_how_alike_people_are():
    base = person(1)
    alike = look(base, similarity=0.7)
    known = gallery()
    for k in range(4):
        known.follow(["a", "b"], float(k))
        known.side_by_side(["a", "b"])
        known.see({"a": base, "b": alike})
    known.follow(["b", "c"], 10.0)
    third = look(base, seed=77, similarity=0.72)
    assert known.see({"c": third}) == {}  # 0.72 is much, but no more than a and b have
    known.follow(["b", "d"], 11.0)
    assert known.see({"d": look(base, seed=78, similarity=0.95)}) == {"d": "a"}


def test_a_track_that_moved_on_to_another_face_gets_another_id():
    known = gallery()
    end = meet(known, "a", person(1))
    known.follow(["a"], end + 1)
    assert known.see({"a": person(2)}) == {}  # one look may be a hand before the face
    assert known.wanted() == ["a"]
    known.follow(["a"], end + 1.1)
    (new,) = known.see({"a": person(2)}).values()
    known.follow([new], end + 1.2)
    known.follow([new, "c"], end + 2)
    assert known.see({"c": look(person(1), seed=5)}) == {"c": "a"}


def test_two_who_traded_tracks_while_crossing_get_their_ids_back():
    known = gallery()
    for k in range(4):
        known.follow(["a", "b"], float(k))
        known.see({"a": look(person(1), k), "b": look(person(2), k)})
    known.follow(["a", "b"], 5.0)
    known.contest("a")
    known.contest("b")
    assert sorted(known.wanted()) == ["a", "b"]
    assert known.see({"a": look(person(2), 8), "b": look(person(1), 9)}) == {"a": "b", "b": "a"}


def test_of_two_who_met_one_look_settles_both_and_the_other_is_looked_at_next():
    known = gallery()
    for k in range(4):
        known.follow(["a", "b"], float(k))
        known.see({"a": look(person(1), k), "b": look(person(2), k)})
    known.follow(["a", "b"], 5.0)
    known.contest("a")
    known.contest("b")
    assert known.see({"a": look(person(2), 8)}) == {"b": "a", "a": "b"}
    known.follow(["a", "b"], 5.1)
    assert known.wanted() == ["a"]
    assert known.see({"a": person(3)}) == {"a": "new0"}  # a third one came in between


def test_a_crossing_that_went_well_changes_nothing():
    known = gallery()
    for k in range(4):
        known.follow(["a", "b"], float(k))
        known.see({"a": look(person(1), k), "b": look(person(2), k)})
    known.contest("a")
    known.follow(["a", "b"], 4.1)
    assert known.wanted() == ["a"]
    assert known.see({"a": look(person(1), 8)}) == {}
    assert known.wanted() == []


def test_an_anonymous_face_is_held_back_for_a_moment_only():
    known = gallery(max_anonymous_s=0.5)
    end = meet(known, "a", person(1))
    known.follow(["b"], end + 5.0)
    assert known.is_anonymous("b")
    known.follow(["b"], end + 5.6)
    assert not known.is_anonymous("b")
    assert known.see({"b": look(person(1), 5)}) == {"b": "a"}  # it turned round at last


def test_a_second_track_of_a_face_takes_up_the_id_when_the_first_one_ends():
    known = gallery()
    end = meet(known, "a", person(1))
    known.follow(["a", "b"], end + 1.0)  # the detector finds the face beside its lagging track
    known.see({"b": look(person(1), 7)})
    known.follow(["b"], end + 1.2)
    assert known.wanted() == ["b"]
    assert known.see({"b": look(person(1), 8)}) == {"b": "a"}


def test_an_id_that_nobody_was_told_is_forgotten_with_its_track():
    """Else short tracks of somebody who returns would stand in the way of the old id."""
    known = gallery(max_anonymous_s=1.0)
    end = meet(known, "a", person(1))
    known.follow(["b"], end + 10)
    known.see({"b": look(person(1), seed=9, similarity=0.4)})  # blurred: not sure
    known.follow([], end + 10.2)
    known.follow(["c"], end + 10.4)
    assert known.see({"c": look(person(1), seed=9, similarity=0.6)}) == {"c": "a"}


def test_one_look_that_missed_the_face_makes_nobody_new():
    known = gallery()
    end = meet(known, "a", person(1))
    known.follow(["b"], end + 10)
    assert known.see({"b": person(99)}) == {}  # of the back of the head
    assert known.is_anonymous("b")
    known.follow(["b"], end + 10.1)
    assert known.see({"b": look(person(1), seed=9)}) == {"b": "a"}


def test_a_track_that_shows_no_face_yet_is_held_back_when_it_does():
    known = gallery(max_anonymous_s=0.5)
    end = meet(known, "a", person(1))
    for k in range(20):
        known.follow(["b"], end + 10 + k / 10)
        known.postpone("b")
    assert known.is_anonymous("b")
    known.follow(["b"], end + 12.5)
    assert not known.is_anonymous("b")


def two_side_by_side():
    """A gallery that saw a and b beside each other in four frames, at 0 to 3 s."""
    known = gallery()
    for k in range(4):
        known.follow(["a", "b"], k)
        known.side_by_side(["a", "b"])
        known.see({"a": look(person(1), seed=k), "b": look(person(2), seed=k)})
    return known


def test_two_who_traded_tracks_unseen_get_their_ids_back():
    """Only one of the tracks is in doubt: the other one is looked at before an id is made."""
    known = two_side_by_side()
    known.follow(["a", "b"], 5.0)
    known.contest("a")
    assert known.see({"a": look(person(2), seed=9)}) == {}
    assert known.wanted()[0] == "b"
    known.follow(["a", "b"], 5.1)
    assert known.see({"b": look(person(1), seed=9)}) == {"a": "b", "b": "a"}


def test_a_twin_who_takes_over_a_track_is_new_when_the_other_one_stays():
    known = two_side_by_side()
    known.follow(["a", "b"], 5.0)
    known.contest("a")
    assert known.see({"a": look(person(2), seed=9)}) == {}
    known.follow(["a", "b"], 5.1)
    renamed = known.see({"a": look(person(2), seed=8), "b": look(person(2), seed=7)})
    known.follow([renamed.get("a", "a"), "b"], 5.2)
    renamed = renamed or known.see({"a": look(person(2), seed=10)})
    assert renamed["a"] not in ("a", "b") and "b" not in renamed


def test_a_mirror_is_another_face_and_both_keep_their_ids():
    known = gallery()
    for k in range(40):
        known.follow(["a", "b"], k)
        known.side_by_side(["a", "b"])
        who = {name: look(person(1), seed=10 * k + i) for i, name in enumerate("ab")}
        assert known.see(who) == {}


def test_nobody_missing_nobody_held_back():
    known = gallery()
    known.follow(["a", "b"], 0.0)
    assert not known.is_anonymous("a") and not known.is_anonymous("b")


def test_looks_are_seldom():
    known = gallery(look_every_s=2.0)
    looks = 0
    for k in range(300):
        known.follow(["a"], k / 30)
        for name in known.wanted():
            known.see({name: look(person(1), k)})
            looks += 1
    assert 3 <= looks <= 8


@pytest.mark.parametrize("bad", [np.zeros(WIDTH), np.full(WIDTH, np.nan)])
def test_a_useless_look_says_nothing(bad):
    known = gallery()
    end = meet(known, "a", person(1))
    known.follow(["b"], end + 1)
    assert known.see({"b": bad}) == {}
    assert known.wanted() == ["b"]


@pytest.mark.parametrize("wrong", [{"same": 0.1}, {"memory_s": -1.0}, {"margin": -0.1}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        ReIdentificationConfig(**wrong)


def test_a_track_in_doubt_says_nothing_of_who_is_with_whom():
    """Else who lost the track to a neighbour could never have the old id again."""
    known = two_side_by_side()
    known.contest("a")  # it slid onto the second face, whose own track ended: c is the first
    known.follow(["a", "c"], 4.0)
    known.side_by_side(["a", "c"])
    assert known.see({"a": look(person(2), seed=9)}) == {"a": "b"}
    known.follow(["b", "c"], 4.1)
    assert known.see({"c": look(person(1), seed=8)}) == {"c": "a"}


def test_of_two_lost_ids_of_one_person_the_older_one_is_taken_up():
    """Somebody had a new id by mistake: that must not stand in the way of the next return."""
    known = gallery()
    end = meet(known, "a", person(1))
    for k in range(6):  # a lags behind where nobody is any more
        known.follow(["a", "b"], end + 1 + k)
        known.see({"b": look(person(1), seed=k)})
    known.follow([], end + 8)
    known.follow(["c"], end + 10)
    assert known.see({"c": look(person(1), seed=9)}) == {"c": "a"}


def test_neighbours_of_a_track_that_had_moved_on_are_not_its_persons():
    known = two_side_by_side()
    known.follow(["a", "c"], 4.0)  # a is on the second face, unnoticed; c shows the first one
    known.side_by_side(["a", "c"])
    known.contest("a")
    assert known.see({"a": look(person(2), seed=9)}) == {"a": "b"}
    known.follow(["b", "c"], 4.1)
    assert known.see({"c": look(person(1), seed=8)}) == {"c": "a"}


def test_a_track_in_doubt_is_held_back_until_a_look_and_no_longer_than_a_moment():
    known = two_side_by_side()
    known.doubt("a")
    assert known.is_anonymous("a") and not known.is_anonymous("b")
    assert known.wanted()[0] == "a"
    known.see({"a": look(person(1), seed=9)})
    assert not known.is_anonymous("a")
    known.doubt("a")
    for stamp in (3.5, 4.0, 4.5):  # in doubt all the time, and nobody looks
        known.follow(["a", "b"], stamp)
        known.doubt("a")
    assert not known.is_anonymous("a")


def test_without_looks_there_is_no_doubt():
    known = gallery()
    known.follow(["a"], 0.0)
    known.doubt("a")
    known.doubt("nobody")
    assert not known.is_anonymous("a")


def test_one_look_at_a_track_that_moved_on_does_not_make_its_face_a_new_person():
    """It may have been a bad look at somebody who is known."""
    known = two_side_by_side()
    known.follow(["b"], 4.0)
    known.contest("b")
    (new,) = known.see({"b": look(person(7), seed=31)}).values()
    known.follow([new], 4.1)
    assert known.is_anonymous(new)
    assert known.see({new: look(person(1), seed=2)}) == {new: "a"}


def test_a_track_that_waits_is_no_lost_person_but_its_id_may_be_taken_up():
    known = two_side_by_side()
    known.follow(["b"], 4.0, waiting=["a"])
    known.follow(["b", "c"], 4.1, waiting=["a"])
    assert known.is_anonymous("c")
    assert known.see({"c": look(person(1), seed=9)}) == {"c": "a"}


@pytest.mark.parametrize("similarity", [0.45, 0.9])
def test_a_look_that_tells_nobody_from_another_says_nothing(similarity):
    """A face half covered or turned away is a little like everyone: the doubt goes on."""
    known = two_side_by_side()
    known.follow(["a", "b"], 4.0)
    known.doubt("a")
    poor = person(1) + person(2)
    poor /= np.linalg.norm(poor)
    assert known.see({"a": look(poor, seed=9, similarity=similarity)}) == {}
    assert known.is_anonymous("a")
    assert known.see({"a": look(person(1), seed=9)}) == {}
    assert not known.is_anonymous("a")


def test_who_was_once_seen_in_profile_is_known_by_it_long_after():
    """A profile is hardly like the mean of the looks, most of which are at the face's front."""
    front, aside = person(1), look(person(1), seed=5, similarity=0.4)
    known = gallery()
    seen = [front, front, aside, aside] + 20 * [front]
    for k, view in enumerate(seen):
        known.follow(["a"], float(k))
        known.see({"a": look(view, seed=k, similarity=0.98)})
    known.follow(["b"], 40.0)
    assert known.see({"b": look(aside, seed=99, similarity=0.9)}) == {"b": "a"}


def test_a_look_told_late_says_what_it_would_have_said_at_once():
    known = gallery()
    end = meet(known, "a", person(1))
    known.follow(["b"], end + 20)
    known.follow(["b"], end + 20.1)
    assert known.is_anonymous("b")
    assert known.see({"b": look(person(1), seed=9)}, end + 20) == {"b": "a"}
    known.follow(["a"], end + 20.2)
    assert not known.is_anonymous("a")
    known.follow([], end + 20.3)
    assert known.see({"a": look(person(2), seed=9)}, end + 20.2) == {}  # of no track any more


def test_a_look_told_late_takes_no_doubt_back_that_arose_since():
    known = two_side_by_side()
    known.doubt("a")
    known.follow(["a", "b"], 3.1)
    known.doubt("a")
    known.see({"a": look(person(1), seed=9)}, 3.0)
    assert known.is_anonymous("a") and known.wanted()[0] == "a"
    known.see({"a": look(person(1), seed=8)}, 3.1)
    assert not known.is_anonymous("a") and not known.wanted()
    known.follow(["a", "b"], 3.2)
    known.contest("a")
    assert known.see({"a": look(person(7), seed=7)}, 3.1) == {}  # not in doubt then: one look


def test_nobody_is_found_in_a_look_at_another_face_of_an_image_that_shows_both():
    known = gallery()
    meet(known, "a", person(1))
    known.follow(["a", "c"], 4.0)
    known.follow(["c"], 4.1)  # now `a` is lost
    assert known.see({"c": look(person(1), seed=9)}, 4.0) == {}
    assert known.see({"c": look(person(1), seed=8)}) == {"c": "a"}
