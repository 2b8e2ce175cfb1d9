"""The life of signing keys, as a decision: whatever the EHRs' caches do, some key in the set is one that they take."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.keys.ring import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Ring, RingKey, Standing, changes, retry_at
from broker.keys.rings import decode, encode
from broker.secret import Secret

HOUR = 3600.0
WAITS = {"epic": 29 * HOUR}


def key(kid: str, state: str = "active", at: float = 0.0) -> RingKey:
    return RingKey(kid, "ES384", state, since=at, published_at=at, private=Secret(kid))  # type: ignore[arg-type]  # a State


def states(ring: Ring) -> dict[str, str]:
    return {key.kid: key.state for key in ring.keys}


def order(ring: Ring, ehr: str = "epic", now: float = 1000.0) -> list[str]:
    return [key.kid for key in ring.order(ehr, now)]


NEW = Ring((key("old"),)).begun(key("new", "published", 10.0))
SEEN = NEW.seen({"new": 1}, WAITS, 20.0)
ACTIVE = SEEN.heard("epic", [], "new", 30.0)


def test_a_new_key_waits_in_the_set_and_does_not_sign() -> None:
    """(RG-11)"""
    assert order(NEW) == ["old", "new"]
    assert [key.kid for key in NEW.live] == ["old", "new"]


@pytest.mark.parametrize(
    ("fetches", "now", "state"),
    [
        ({}, 11.0, "published"),
        ({"old": 3}, 11.0, "published"),
        ({"new": 1}, 11.0, "seen"),
        ({}, 10.0 + 29 * HOUR - 1, "published"),
        ({}, 10.0 + 29 * HOUR, "seen"),
    ],
)
def test_it_is_seen_when_fetched_or_when_no_cache_can_hide_it(fetches: dict[str, int], now: float, state: str) -> None:
    """(RG-11, EP-06)"""
    assert states(NEW.seen(fetches, WAITS, now))["new"] == state


def test_a_seen_key_is_tried_first_with_the_old_one_behind_it() -> None:
    assert order(SEEN) == ["new", "old"]


def test_the_first_ehr_that_takes_it_makes_it_active() -> None:
    assert states(ACTIVE) == {"old": "retiring", "new": "active"}
    assert order(ACTIVE) == ["new", "old"]


def test_a_refused_trial_goes_back_to_waiting_and_is_tried_again_later_and_later() -> None:
    ring = SEEN.heard("epic", ["new"], "old", 30.0)

    assert states(ring) == {"old": "active", "new": "seen"}
    assert order(ring, now=30.0 + FIRST_RETRY_SECONDS - 1) == ["old", "new"]
    assert order(ring, now=30.0 + FIRST_RETRY_SECONDS) == ["new", "old"]
    again = ring.heard("epic", ["new"], "old", 1000.0)
    assert retry_at(again.standing("epic"), "new") == 1000.0 + 2 * FIRST_RETRY_SECONDS
    assert retry_at(Standing(refused={"new": (50, 0.0)}), "new") == LONGEST_RETRY_SECONDS


def test_an_ehr_that_refuses_the_active_key_gets_the_old_one_back() -> None:
    ring = ACTIVE.heard("epic", ["new"], "old", 40.0)

    assert states(ring) == {"old": "active", "new": "seen"}
    assert order(ring, now=41.0) == ["old", "new"]


def test_one_ehr_that_lags_keeps_the_old_key_and_takes_it_from_no_other() -> None:
    ring = ACTIVE.heard("second", ["new"], "old", 40.0)

    assert states(ring) == {"old": "retiring", "new": "active"}
    assert (order(ring, now=41.0), order(ring, "second", 41.0)) == (["new", "old"], ["old", "new"])
    waits = {**WAITS, "second": 300.0}
    assert list(ring.stuck(waits, 90 * HOUR)) == ["second"]
    assert states(ring.tidied(waits, 90 * HOUR))["old"] == "retiring"
    done = ring.heard("second", [], "new", 91 * HOUR)
    assert states(done.tidied(waits, 92 * HOUR)) == {"old": "retired", "new": "active"}


@pytest.mark.parametrize(("now", "state"), [(30.0 + 29 * HOUR - 1, "retiring"), (30.0 + 29 * HOUR, "retired")])
def test_the_old_key_leaves_after_the_longest_cache_and_without_its_private_part(now: float, state: str) -> None:
    """(RG-11, RG-07)"""
    ring = ACTIVE.tidied(WAITS, now)

    assert states(ring)["old"] == state
    assert (ring.keys[0].private is None) == (state == "retired")


def test_what_an_ehr_lags_is_learned_and_waited_for_the_next_time() -> None:
    waits = {"epic": 300.0}
    ring = SEEN.heard("epic", ["new"], "old", 20.0).heard("epic", [], "new", 10.0 + 48 * HOUR)
    steady = ring.tidied(waits, 200 * HOUR)
    again = steady.begun(key("newer", "published", 300 * HOUR))

    assert steady.standings == {"epic": Standing(lag=48 * HOUR)}
    assert states(again.seen({}, waits, 347 * HOUR))["newer"] == "published"
    assert states(again.seen({}, waits, 348 * HOUR))["newer"] == "seen"


def test_what_is_no_news_changes_nothing() -> None:
    assert SEEN.heard("epic", [], "old", 30.0) is SEEN
    assert ACTIVE.heard("epic", [], "new", 40.0) is ACTIVE
    assert ACTIVE.heard("epic", [], "unknown", 40.0) is ACTIVE


@pytest.mark.parametrize(
    ("ring", "kid", "after"),
    [
        (SEEN, "new", {"old": "active", "new": "retired"}),
        (SEEN, "old", {"old": "retired", "new": "active"}),
        (ACTIVE, "old", {"old": "retired", "new": "active"}),
        (ACTIVE, "new", {"old": "active", "new": "retired"}),
    ],
)
def test_an_operator_can_retire_a_key_at_once(ring: Ring, kid: str, after: dict[str, str]) -> None:
    assert states(ring.without(kid, 50.0)) == after


@pytest.mark.parametrize(("kid", "says"), [("old", "the only key"), ("none", "there is no key none")])
def test_the_only_key_and_an_unknown_one_are_not_retired(kid: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Ring((key("old"),)).without(kid, 50.0)


def test_a_ring_is_read_as_it_was_written() -> None:
    ring = ACTIVE.heard("second", ["new"], "old", 40.0)

    assert decode(encode(ring)) == ring
    assert "Secret(•••)" in repr(ring)


def test_what_changes_is_told_key_by_key() -> None:
    assert [(key.kid, was) for key, was in changes(SEEN, ACTIVE)] == [("old", "active"), ("new", "seen")]
    assert [(key.kid, was) for key, was in changes(Ring(()), NEW)] == [("old", None), ("new", None)]


@settings(max_examples=200)
@given(
    lags=st.lists(st.floats(0, 60 * HOUR), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 3), st.floats(1, 8 * HOUR)), min_size=1, max_size=60),
)
def test_whatever_the_caches_do_no_request_fails(lags: list[float], steps: list[tuple[int, float]]) -> None:
    """(RG-11): EHRs that each go on for a time with the set they fetched, and ask for it again only after that."""
    waits = {f"e{number}": max(300.0, lag) for number, lag in enumerate(lags)}
    ring, now, made = Ring((key("k0"),)), 0.0, 0
    caches = {ehr: (0.0, {"k0"}) for ehr in waits}
    for chosen, pause in steps:
        now += pause
        if len(ring.live) == 1:
            made += 1
            ring = ring.begun(key(f"k{made}", "published", now))
        ring = ring.seen({}, waits, now).tidied(waits, now)
        number = chosen % len(lags)
        ehr, lag = f"e{number}", lags[number]
        if now - caches[ehr][0] >= lag:
            caches[ehr] = (now, {key.kid for key in ring.live})
        tried = [key.kid for key in ring.order(ehr, now)]
        taken = next((kid for kid in tried if kid in caches[ehr][1]), None)

        assert taken is not None, (ring, caches[ehr])
        ring = ring.heard(ehr, tried[: tried.index(taken)], taken, now)
        assert [key.state for key in ring.live].count("active") == 1
        assert all((key.private is None) == (not key.is_live) for key in ring.keys)


def test_only_what_is_in_the_set_keeps_its_private_part() -> None:
    ring = replace(ACTIVE, keys=(replace(ACTIVE.keys[0], private=None, state="retired"), ACTIVE.keys[1]))

    assert [key.kid for key in ring.live] == ["new"]
