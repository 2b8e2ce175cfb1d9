"""The algebra of scopes against an oracle that shares no code with it, and the laws that a set of permissions has."""

from dataclasses import replace
from functools import reduce
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.errors import InvalidScope
from broker.scopes import Scopes
from broker.scopes.measure import MOST_FILTERS
from tests.scopes.oracle import UNIVERSE, V1, Atom, allowed
from tests.scopes.writing import others, texts, words, words_written


def covered(scopes: Scopes) -> frozenset[Atom]:
    return frozenset(
        (level, type_, letter, pairs)
        for level, type_, letter, pairs in UNIVERSE
        if scopes.covers(type_, letter, parameters=pairs, levels=(level,))
    )


scope_sets = texts.map(Scopes.parse)


@given(texts)
def test_scopes_cover_exactly_what_they_say(text: str) -> None:
    """SC-01, SC-03, SC-05, SC-08."""
    assert covered(Scopes.parse(text)) == allowed(text)


@given(words, others, st.randoms())
def test_order_repetition_and_print_do_not_change_scopes(
    written: list[str], kept: frozenset[str], random: Random
) -> None:
    """SC-01, SC-07, OA-02."""
    scopes = Scopes.parse(" ".join([*written, *kept]))
    again = [*written, *kept, *written]
    random.shuffle(again)
    assert Scopes.parse("  ".join(again)) == scopes
    assert Scopes.parse(str(scopes)) == scopes
    assert str(Scopes.parse(str(scopes))) == str(scopes)
    assert Scopes.parse(str(scopes), lenient=True) == scopes


@given(words)
def test_v1_and_v2_spellings_are_the_same_scopes(written: list[str]) -> None:
    """SC-03, SC-04."""
    in_v2 = [f"{access}.{V1.get(verb, verb)}" for access, _, verb in (word.rpartition(".") for word in written)]
    assert Scopes.parse(" ".join(in_v2)) == Scopes.parse(" ".join(written))


@given(words)
def test_letters_apart_and_letters_together_are_the_same_scopes(written: list[str]) -> None:
    """SC-07: `.r` and `.s` are `.rs`, both ways."""
    apart = [
        f"{access}.{letter}" + (f"?{query}" if query else "")
        for access, _, rest in (word.rpartition(".") for word in written)
        for verb, _, query in [rest.partition("?")]
        for letter in V1.get(verb, verb)
    ]
    assert Scopes.parse(" ".join(apart)) == Scopes.parse(" ".join(written))


@given(texts, texts, others, others)
def test_scopes_are_equal_just_when_they_allow_the_same(
    one: str, other: str, some: frozenset[str], more: frozenset[str]
) -> None:
    """SC-04, SC-07."""
    same = allowed(one) == allowed(other) and some == more
    left, right = Scopes.parse(" ".join([one, *some])), Scopes.parse(" ".join([other, *more]))
    assert (left == right) is same
    assert (str(left) == str(right)) is same
    assert left != right or hash(left) == hash(right)


@given(texts, texts, others, others)
def test_a_union_allows_what_either_allows(one: str, other: str, some: frozenset[str], more: frozenset[str]) -> None:
    """SC-07."""
    union = Scopes.parse(" ".join([one, *some])).union(Scopes.parse(" ".join([other, *more])))
    assert covered(union) == allowed(one) | allowed(other)
    assert union == Scopes.parse(" ".join([one, other, *some, *more]))


@given(texts, texts, others, others)
def test_an_intersection_allows_what_both_allow(
    one: str, other: str, some: frozenset[str], more: frozenset[str]
) -> None:
    """SC-08: a wildcard meets a type in that type, so that an app whose policy has no `*` does not get one."""
    both = Scopes.parse(" ".join([one, *some])).intersection(Scopes.parse(" ".join([other, *more])))
    assert covered(both) == allowed(one) & allowed(other)
    assert both.others == some & more


@given(words_written(), words_written())
def test_two_scopes_meet_in_what_both_allow_and_one_includes_another_letters_apart(one: str, other: str) -> None:
    (left,), (right,) = Scopes.parse(one).resources, Scopes.parse(other).resources
    met = left.meet(right)
    assert allowed(str(met or "")) == allowed(one) & allowed(other)
    assert met is None or met.letters
    every = [str(replace(scope, letters="cruds")) for scope in (left, right)]
    assert left.includes(right) is (allowed(every[1]) <= allowed(every[0]))


@given(texts, texts, others, others)
def test_scopes_narrow_others_just_when_they_allow_nothing_beyond_them(
    one: str, other: str, some: frozenset[str], more: frozenset[str]
) -> None:
    left, right = Scopes.parse(" ".join([one, *some])), Scopes.parse(" ".join([other, *more]))
    assert left.narrows(right) is (allowed(one) <= allowed(other) and some <= more)


# The laws. Chains are built by union, because three sets drawn apart are hardly ever one.


@given(scope_sets, scope_sets, scope_sets)
def test_narrowing_is_a_partial_order(a: Scopes, b: Scopes, c: Scopes) -> None:
    two, three = a.union(b), a.union(b).union(c)
    assert a.narrows(a)
    assert a.narrows(two)
    assert two.narrows(three)
    assert a.narrows(three)
    assert (two.narrows(a) and a.narrows(two)) is (two == a)


@given(scope_sets, scope_sets, scope_sets)
def test_union_intersection_and_covering_are_monotone(a: Scopes, b: Scopes, c: Scopes) -> None:
    wider = a.union(b)
    assert a.union(c).narrows(wider.union(c))
    assert a.intersection(c).narrows(wider.intersection(c))
    assert covered(a) <= covered(wider)


@given(scope_sets, scope_sets, scope_sets)
def test_an_intersection_is_the_greatest_lower_bound(a: Scopes, b: Scopes, c: Scopes) -> None:
    both = a.intersection(b)
    assert both.narrows(a)
    assert both.narrows(b)
    assert c.narrows(both) is (c.narrows(a) and c.narrows(b))
    assert both == b.intersection(a)
    assert both.intersection(c) == a.intersection(b.intersection(c))
    assert a.intersection(a) == a


@given(scope_sets, scope_sets, scope_sets)
def test_a_union_is_the_least_upper_bound(a: Scopes, b: Scopes, c: Scopes) -> None:
    either = a.union(b)
    assert either.narrows(c) is (a.narrows(c) and b.narrows(c))
    assert either == b.union(a)
    assert either.union(c) == a.union(b.union(c))
    assert (either == b) is a.narrows(b)


@given(scope_sets, scope_sets, scope_sets)
def test_union_and_intersection_absorb_and_distribute(a: Scopes, b: Scopes, c: Scopes) -> None:
    assert a.union(a.intersection(b)) == a
    assert a.intersection(a.union(b)) == a
    assert a.intersection(b.union(c)) == a.intersection(b).union(a.intersection(c))
    assert a.intersection(Scopes()) == Scopes()


@pytest.mark.parametrize("count", [1, 6, MOST_FILTERS])
@pytest.mark.parametrize("wider", ["", "patient/*.r", "patient/*.s?category=0"])
def test_as_many_filters_as_there_may_be_meet_themselves(count: int, wider: str) -> None:
    """SC-05: what two filters make together is narrower than each, and does not count."""
    filters = " ".join(f"patient/Observation.rs?category={number}" for number in range(count))
    scopes = Scopes.parse(filters).union(Scopes.parse(wider))
    assert scopes.intersection(scopes) == scopes == scopes.union(scopes)


def test_what_a_wider_scope_gives_does_not_count() -> None:
    narrow = [Scopes.parse(f"patient/Observation.rs?category={number}") for number in range(MOST_FILTERS + 1)]
    most = reduce(Scopes.union, narrow[:-1])
    with pytest.raises(InvalidScope, match="more than 16"):
        most.union(narrow[-1])
    every = Scopes.parse("patient/*.rs")
    assert most.union(every).union(narrow[-1]) == every


FRAGMENTS = (
    *("patient/", "user/", "*", "Observation", ".", "rs", "read", "Read", "WRITE", "s", "launch", "openid"),
    *("?", "&", "=", "%", "%41", "+", " ", "\t", "é"),
    *("http://smarthealthit.org/fhir/scopes/", "http://openid.net/specs/openid-connect-core-1_0#"),
)
any_texts = st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join))


@given(any_texts)
@example("0patient/A.READ")
def test_any_text_is_parsed_strictly_or_refused_as_invalid_scope(text: str) -> None:
    """SC-01."""
    try:
        scopes = Scopes.parse(text)
    except InvalidScope:
        return
    assert Scopes.parse(str(scopes)) == scopes
    assert Scopes.parse(text, lenient=True) == scopes


@given(any_texts)
def test_text_read_leniently_covers_nothing_that_its_well_formed_words_do_not(text: str) -> None:
    """SC-16."""
    lenient = Scopes.parse(text, lenient=True)
    assert Scopes.parse(str(lenient)) == lenient
    strict = Scopes()
    for word in text.split():
        quiet = word.replace("Read", "read").replace("WRITE", "write")
        for spelling in {word, quiet}:
            try:
                strict = strict.union(Scopes.parse(spelling))
            except InvalidScope:
                continue
    assert lenient.narrows(strict)
