"""Sets of scopes, always canonical: letters united, and no part that another part already says."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from broker.errors import InvalidScope
from broker.scopes.grammar import read_word, read_word_leniently
from broker.scopes.measure import MOST_WORDS, Measure, require_few_words
from broker.scopes.resource import LEVELS, Parameters, Place, ResourceScope, in_order

_ANY: Final = ""


@dataclass(frozen=True, slots=True)
class Scopes:
    """A set of scopes. `others` are launch, identity, refresh and vendor scopes (SC-10 to SC-13).

    Raises `InvalidScope` when what is left of it is more than `broker/scopes/measure.py` allows.
    """

    resources: frozenset[ResourceScope] = frozenset()
    others: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.resources) > 1 or any(scope.parameters for scope in self.resources):  # else nothing is said twice
            object.__setattr__(self, "resources", _canonical(self.resources))

    @classmethod
    def parse(cls, text: str, *, lenient: bool = False) -> "Scopes":
        """Read a `scope` parameter (RFC 6749 §3.3; doubled and trailing spaces are harmless, OA-02).

        Strict, for what an app or the operator wrote: raises `InvalidScope` naming the first malformed word, or for too
        much, counted as written.
        Lenient, for what an EHR answered (SC-16): a malformed word, one that says too much, and what comes after too
        many, grants nothing.
        """
        words = text.split()[:MOST_WORDS] if lenient else list(filter(None, text.split(" ")))
        require_few_words(words)
        parsed = [read_word_leniently(word) if lenient else read_word(word) for word in words]
        resources = (scope for scope in parsed if isinstance(scope, ResourceScope))
        others = (word for word in parsed if isinstance(word, str))
        return cls(frozenset(_limited(resources, lenient=lenient)), frozenset(others))

    def __str__(self) -> str:
        """Return the canonical text: v2, merged, sorted; it parses to an equal set."""
        return " ".join(sorted([*self.others, *map(str, self.resources)]))

    def __bool__(self) -> bool:
        return bool(self.resources or self.others)

    def union(self, other: "Scopes") -> "Scopes":
        """Return what either allows."""
        return Scopes(self.resources | other.resources, self.others | other.others)

    def intersection(self, other: "Scopes") -> "Scopes":
        """Return what both allow. Raises `InvalidScope` when that takes too many scopes to say."""
        near: defaultdict[tuple[str, str], list[ResourceScope]] = defaultdict(list)
        for theirs in other.resources:
            near[theirs.level, theirs.type].append(theirs)
            near[theirs.level, _ANY].append(theirs)
        met = (
            mine.meet(theirs)
            for mine in self.resources
            for theirs in (
                near[mine.level, _ANY] if mine.type == "*" else near[mine.level, mine.type] + near[mine.level, "*"]
            )
        )
        return Scopes(frozenset(scope for scope in met if scope), self.others & other.others)

    def narrows(self, other: "Scopes") -> bool:
        """Whether this asks for nothing beyond `other`."""
        return self.others <= other.others and all(
            set(mine.letters)
            <= {letter for theirs in other.resources if theirs.includes(mine) for letter in theirs.letters}
            for mine in self.resources
        )

    def covers(
        self,
        type: str,  # noqa: A002 -- FHIR's word
        letter: str,
        *,
        parameters: Iterable[tuple[str, str]] = (),
        levels: Collection[str] = LEVELS,
    ) -> bool:
        """Whether one letter on one type is allowed at one of the levels; type `*` asks for every type.

        A scope with parameters covers only a request that says each of them literally (SC-05), so `parameters` must be
        the search pairs that restrict this very access and no other: those of `Need.parameters`.
        """
        asked = set(parameters)
        return any(
            scope.level in levels
            and scope.type in ("*", type)
            and letter in set(scope.letters)
            and asked.issuperset(scope.parameters)
            for scope in self.resources
        )

    def filters(
        self,
        type: str,  # noqa: A002 -- FHIR's word
        letter: str,
        levels: Collection[str],
    ) -> tuple[Parameters, ...]:
        """Return the search pairs under which one letter on one type is allowed at one of the levels, sorted (SC-05).

        Any one group of pairs is enough; an empty one asks for nothing. Without groups it is not allowed at all.
        """
        found = (
            scope.parameters
            for scope in self.resources
            if scope.level in levels and scope.type in ("*", type) and letter in scope.letters
        )
        return tuple(sorted(set(found)))


def _canonical(scopes: Iterable[ResourceScope]) -> frozenset[ResourceScope]:
    """Unite letters (SC-07), and drop every letter that a wider scope already gives.

    Only what is left counts. Each scope comes after those that can include it, and is held against what was kept of
    them: never more than the limits allow, however many scopes come in.
    """
    united: defaultdict[Place, str] = defaultdict(str)
    for scope in scopes:
        united[scope.place] += scope.letters
    measure = Measure()
    kept: defaultdict[tuple[str, str], list[ResourceScope]] = defaultdict(list)
    for place, letters in sorted(united.items(), key=_wide_first):
        level, type_, parameters = place
        scope = ResourceScope(level, type_, in_order(letters), parameters)
        wider = (one.letters for shelf in {type_, "*"} for one in kept[level, shelf] if one.includes(scope))
        if left := in_order(set(letters).difference(*wider)):
            measure.take(place)
            kept[level, type_].append(ResourceScope(level, type_, left, parameters))
    return frozenset(scope for shelf in kept.values() for scope in shelf)


def _wide_first(united: tuple[Place, str]) -> tuple[bool, int]:
    (_, type_, parameters), _ = united
    return type_ != "*", len(parameters)


def _limited(scopes: Iterable[ResourceScope], *, lenient: bool) -> Iterator[ResourceScope]:
    measure = Measure()
    for scope in scopes:
        try:
            measure.take(scope.place)
        except InvalidScope:
            if lenient:
                continue
            raise
        yield scope
