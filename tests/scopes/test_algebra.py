"""The algebra of scopes against an oracle that shares no code with it: every (level, type, letter, parameters) atom."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, combinations, product
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidScope
from broker.scopes import Scopes

LEVELS = ("patient", "user", "system")
TYPES = ("*", "Patient", "Observation")
PAIRS = (("category", "lab|x"), ("code", "a&b"), ("code", "c"))
ENCODED = {("category", "lab|x"): "category=lab|x", ("code", "a&b"): "code=a%26b", ("code", "c"): "code=c"}
VERBS = {"read": "rs", "write": "cud", "*": "cruds"} | {
    "".join(letters): "".join(letters) for size in range(1, 6) for letters in combinations("cruds", size)
}
WORDS = ("openid", "launch", "launch/patient", "offline_access", "__vendor")

Pair = tuple[str, str]
Atom = tuple[str, str, str, frozenset[Pair]]


@dataclass(frozen=True)
class Written:
    """A scope as somebody wrote it."""

    level: str
    type: str
    verb: str
    pairs: tuple[Pair, ...]

    def __str__(self) -> str:
        query = "&".join(ENCODED[pair] for pair in self.pairs)
        return f"{self.level}/{self.type}.{self.verb}" + (f"?{query}" if query else "")

    def allows(self, atom: Atom) -> bool:
        level, type_, letter, pairs = atom
        return (
            level == self.level
            and self.type in ("*", type_)
            and letter in VERBS[self.verb]
            and all(pair in pairs for pair in self.pairs)
        )


ATOMS: tuple[Atom, ...] = tuple(
    (level, type_, letter, frozenset(pairs))
    for level, type_, letter in product(LEVELS, TYPES, "cruds")
    for pairs in chain.from_iterable(combinations(PAIRS, size) for size in range(4))
)


def allowed(written: Iterable[Written]) -> frozenset[Atom]:
    listed = list(written)
    return frozenset(atom for atom in ATOMS if any(scope.allows(atom) for scope in listed))


def covered(scopes: Scopes) -> frozenset[Atom]:
    return frozenset(atom for atom in ATOMS if scopes.covers(atom[1], atom[2], parameters=atom[3], levels=(atom[0],)))


def parsed(written: Iterable[Written], words: Iterable[str] = ()) -> Scopes:
    return Scopes.parse(" ".join([*map(str, written), *words]))


@st.composite
def scopes_written(draw: st.DrawFn) -> Written:
    verb = draw(st.sampled_from(sorted(VERBS)))
    most = 0 if verb in ("read", "write", "*") else 3
    pairs = draw(st.lists(st.sampled_from(PAIRS), max_size=most, unique=True))
    return Written(draw(st.sampled_from(LEVELS[:2])), draw(st.sampled_from(TYPES)), verb, tuple(pairs))


sets_written = st.lists(scopes_written(), max_size=5)
words = st.frozensets(st.sampled_from(WORDS))


@given(sets_written)
def test_scopes_cover_exactly_what_they_say(written: list[Written]) -> None:
    assert covered(parsed(written)) == allowed(written)


@given(sets_written, words, st.randoms())
def test_order_repetition_and_print_do_not_change_scopes(
    written: list[Written], others: frozenset[str], random: Random
) -> None:
    scopes = parsed(written, others)
    again = [*map(str, written), *others, *map(str, written)]
    random.shuffle(again)
    assert Scopes.parse("  ".join(again)) == scopes
    assert Scopes.parse(str(scopes)) == scopes
    assert str(Scopes.parse(str(scopes))) == str(scopes)
    assert Scopes.parse(str(scopes), lenient=True) == scopes


@given(sets_written)
def test_v1_and_v2_spellings_are_the_same_scopes(written: list[Written]) -> None:
    in_v2 = [Written(scope.level, scope.type, VERBS[scope.verb], scope.pairs) for scope in written]
    assert parsed(in_v2) == parsed(written)


@given(sets_written)
def test_v1_text_covers_the_same_or_is_refused(written: list[Written]) -> None:
    scopes = parsed(written)
    try:
        text = scopes.as_v1()
    except InvalidScope:
        return
    assert covered(Scopes.parse(text)) == allowed(written)


@given(sets_written, sets_written, words, words)
def test_scopes_are_equal_just_when_they_allow_the_same(
    one: list[Written], other: list[Written], some: frozenset[str], more: frozenset[str]
) -> None:
    same = allowed(one) == allowed(other) and some == more
    assert (parsed(one, some) == parsed(other, more)) is same
    assert (str(parsed(one, some)) == str(parsed(other, more))) is same


@given(sets_written, sets_written, words, words)
def test_a_union_allows_what_either_allows(
    one: list[Written], other: list[Written], some: frozenset[str], more: frozenset[str]
) -> None:
    union = parsed(one, some).union(parsed(other, more))
    assert covered(union) == allowed(one) | allowed(other)
    assert union.others == some | more


@given(sets_written, sets_written, words, words)
def test_an_intersection_allows_what_both_allow(
    one: list[Written], other: list[Written], some: frozenset[str], more: frozenset[str]
) -> None:
    both = parsed(one, some).intersection(parsed(other, more))
    assert covered(both) == allowed(one) & allowed(other)
    assert both.others == some & more


@given(sets_written, sets_written, words, words)
def test_scopes_narrow_others_just_when_they_allow_nothing_beyond_them(
    one: list[Written], other: list[Written], some: frozenset[str], more: frozenset[str]
) -> None:
    assert parsed(one, some).narrows(parsed(other, more)) is (allowed(one) <= allowed(other) and some <= more)


@given(sets_written, sets_written, sets_written)
def test_narrowing_is_a_partial_order(one: list[Written], two: list[Written], three: list[Written]) -> None:
    a, b, c = parsed(one), parsed(two), parsed(three)
    assert a.narrows(a)
    assert not (a.narrows(b) and b.narrows(a)) or a == b
    assert not (a.narrows(b) and b.narrows(c)) or a.narrows(c)


@given(sets_written, sets_written, sets_written)
def test_an_intersection_is_the_greatest_lower_bound(
    one: list[Written], two: list[Written], three: list[Written]
) -> None:
    a, b, c = parsed(one), parsed(two), parsed(three)
    both = a.intersection(b)
    assert both.narrows(a)
    assert both.narrows(b)
    assert both == b.intersection(a)
    assert both.intersection(c) == a.intersection(b.intersection(c))
    assert c.narrows(both) is (c.narrows(a) and c.narrows(b))


@given(sets_written, sets_written)
def test_a_union_is_the_least_upper_bound(one: list[Written], two: list[Written]) -> None:
    a, b = parsed(one), parsed(two)
    assert a.narrows(a.union(b))
    assert a.union(b) == b.union(a)
    assert (a.union(b) == b) is a.narrows(b)


FRAGMENTS = (
    *("patient/", "user/", "*", "Observation", ".", "rs", "read", "Read", "WRITE", "s", "launch", "openid"),
    *("?", "&", "=", "%", "%41", "+", " ", "\t", "é"),
    *("http://smarthealthit.org/fhir/scopes/", "http://openid.net/specs/openid-connect-core-1_0#"),
)
texts = st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join))


@given(texts)
def test_any_text_is_parsed_strictly_or_refused_as_invalid_scope(text: str) -> None:
    try:
        scopes = Scopes.parse(text)
    except InvalidScope:
        return
    assert Scopes.parse(str(scopes)) == scopes
    assert Scopes.parse(text, lenient=True) == scopes


@given(texts)
def test_text_read_leniently_covers_nothing_that_its_well_formed_words_do_not(text: str) -> None:
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
