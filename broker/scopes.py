"""SMART scopes: parsed once, kept in one canonical form, compared by meaning (SC-01 to SC-16).

A word that looks like a SMART scope and is not one is an error where an app or the operator wrote it, and nothing at
all where an EHR answered it. Words outside SMART's grammar are kept as they are and open no FHIR data.

`Scopes` is always canonical: letters united, and no part that another part already says. So two scope texts that mean
the same are equal, whatever dialect, order or spelling they were written in (SC-04, SC-07).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from broker.errors import InvalidScope

LETTERS: Final = "cruds"
LEVELS: Final = ("patient", "user", "system")
MOST_RESOURCE_SCOPES: Final = 200
"""Different resource scopes in one set: what a stranger writes has an end."""
MOST_FILTERS: Final = 16
"""Different parameter sets for one level and type: each is held against each, so their number is what costs."""
_ANY: Final = ""

_V1_LETTERS: Final = {"read": "rs", "write": "cud", "*": "cruds"}
_V1_VERBS: Final = {letters: verb for verb, letters in _V1_LETTERS.items()}
_WORD: Final = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3, scope-token
_SMART_LIKE: Final = re.compile(r"(?:patient|user|system|launch)/.*", re.IGNORECASE)
_RESOURCE: Final = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]*)\.([A-Za-z]+|\*)(?:\?(.+))?")
_V2_VERB: Final = re.compile(r"(?=.)c?r?u?d?s?")
_V1_SHOUTED: Final = re.compile(r"(.*(?:patient|user|system)/(?:\*|[A-Z][A-Za-z]*)\.)((?i:read|write))")
_CONTEXT: Final = re.compile(r"launch/[a-z]+(?:\?role=[^&?]+)?")
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_SMART_URI: Final = "http://smarthealthit.org/fhir/scopes/"
_OPENID_URI: Final = "http://openid.net/specs/openid-connect-core-1_0#"
_SMART_WORDS: Final = frozenset({"launch", "fhirUser", "online_access", "offline_access"})
_OPENID_WORDS: Final = frozenset({"openid", "profile", "offline_access", "email", "address", "phone"})

Parameters: TypeAlias = tuple[tuple[str, str], ...]
_Place: TypeAlias = tuple[str, str, Parameters]


@dataclass(frozen=True, slots=True)
class ResourceScope:
    """Access to one FHIR type, or to every type now and later (`*`, SC-08), at one level.

    `letters` is a subset of `cruds` in that order. `parameters` are decoded search pairs, sorted: all must hold.
    """

    level: str
    type: str
    letters: str
    parameters: Parameters = field(default=(), repr=False)

    def __str__(self) -> str:
        pairs = "&".join(f"{_encode(name)}={_encode(value)}" for name, value in self.parameters)
        return f"{self.level}/{self.type}.{self.letters}" + (f"?{pairs}" if pairs else "")

    @property
    def place(self) -> tuple[str, str, Parameters]:
        """Everything but the letters."""
        return self.level, self.type, self.parameters

    def includes(self, other: "ResourceScope") -> bool:
        """Whether whatever `other` matches is matched by this one too, letters apart."""
        return (
            self.level == other.level
            and self.type in ("*", other.type)
            and set(self.parameters) <= set(other.parameters)
        )

    def meet(self, other: "ResourceScope") -> "ResourceScope | None":
        """Return what both allow, under the restrictions of both, or None."""
        type_ = other.type if self.type == "*" else self.type
        if self.level != other.level or other.type not in ("*", type_):
            return None
        letters = _in_order(set(self.letters) & set(other.letters))
        parameters = _sorted_pairs(self.parameters + other.parameters)
        return ResourceScope(self.level, type_, letters, parameters) if letters else None


@dataclass(frozen=True, slots=True)
class Scopes:
    """A set of scopes. `others` are launch, identity, refresh and vendor scopes (SC-10 to SC-13).

    Raises `InvalidScope` when it would hold more than `MOST_RESOURCE_SCOPES`, or more than `MOST_FILTERS` for one type.
    """

    resources: frozenset[ResourceScope] = frozenset()
    others: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "resources", _canonical(self.resources))

    @classmethod
    def parse(cls, text: str, *, lenient: bool = False) -> "Scopes":
        """Read a `scope` parameter (RFC 6749 §3.3; doubled and trailing spaces are harmless, OA-02).

        Strict, for what an app or the operator wrote: raises `InvalidScope` naming the first malformed word.
        Lenient, for what an EHR answered (SC-16): a malformed word, and what comes after too many, grants nothing.
        """
        words = text.split() if lenient else filter(None, text.split(" "))
        parsed = [_lenient_word(word) if lenient else _word(word) for word in words]
        resources = (scope for scope in parsed if isinstance(scope, ResourceScope))
        others = (word for word in parsed if isinstance(word, str))
        return cls(frozenset(_first(MOST_RESOURCE_SCOPES, resources) if lenient else resources), frozenset(others))

    def __str__(self) -> str:
        """Return the canonical text: v2, merged, sorted; it parses to an equal set."""
        return " ".join(sorted([*self.others, *map(str, self.resources)]))

    def __bool__(self) -> bool:
        return bool(self.resources or self.others)

    def as_v1(self) -> str:
        """Return the text for an EHR that speaks v1 (SC-03). Raises `InvalidScope` for what v1 cannot say exactly."""
        return " ".join(sorted([*self.others, *map(_v1, self.resources)]))

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


def _canonical(scopes: Iterable[ResourceScope]) -> frozenset[ResourceScope]:
    """Unite letters (SC-07), then drop every letter that a wider scope already gives."""
    united: defaultdict[_Place, str] = defaultdict(str)
    for scope in scopes:
        united[scope.place] += scope.letters
        if len(united) > MOST_RESOURCE_SCOPES:
            raise InvalidScope(f"more than {MOST_RESOURCE_SCOPES} different resource scopes")
    shelves: defaultdict[tuple[str, str], list[ResourceScope]] = defaultdict(list)
    for (level, type_, parameters), letters in united.items():
        shelves[level, type_].append(ResourceScope(level, type_, _in_order(letters), parameters))
        if len(shelves[level, type_]) > MOST_FILTERS:
            raise InvalidScope(f"more than {MOST_FILTERS} different filters for one type")
    return frozenset(
        ResourceScope(level, type_, left, scope.parameters)
        for (level, type_), shelf in list(shelves.items())
        for scope in shelf
        if (left := _left_over(scope, shelf + shelves[level, "*"]))
    )


def _left_over(scope: ResourceScope, near: Iterable[ResourceScope]) -> str:
    given = (wider.letters for wider in near if wider != scope and wider.includes(scope))
    return _in_order(set(scope.letters).difference(*given))


def _first(most: int, scopes: Iterable[ResourceScope]) -> Iterator[ResourceScope]:
    places: set[_Place] = set()
    filters: Counter[tuple[str, str]] = Counter()
    for scope in scopes:
        shelf = scope.level, scope.type
        if scope.place not in places:
            if len(places) >= most or filters[shelf] >= MOST_FILTERS:
                continue
            places.add(scope.place)
            filters[shelf] += 1
        yield scope


def _in_order(letters: Collection[str]) -> str:
    return "".join(letter for letter in LETTERS if letter in letters)


def _sorted_pairs(pairs: Iterable[tuple[str, str]]) -> Parameters:
    return tuple(sorted(set(pairs)))


def _word(word: str) -> ResourceScope | str:
    """Return a resource scope, or the short form of any other word. Raises `InvalidScope`."""
    if not _WORD.fullmatch(word):
        raise _malformed(word)
    short = _short_form(word)
    if found := _RESOURCE.fullmatch(short):
        level, type_, verb, query = found.groups()
        return ResourceScope(level, type_, _letters(verb, word, has_query=query is not None), _parameters(query, word))
    if _SMART_LIKE.fullmatch(short) and not _CONTEXT.fullmatch(short):
        raise _malformed(word)
    return short


def _lenient_word(word: str) -> ResourceScope | str | None:
    """Return what a word means, or None: also `.Read` and `.WRITE`, as Epic answers them (SC-16)."""
    if found := _V1_SHOUTED.fullmatch(word):
        word = found[1] + found[2].lower()
    try:
        return _word(word)
    except InvalidScope:
        return None


def _short_form(word: str) -> str:
    """Turn a URI form into the word it stands for (SC-14); any other word is itself."""
    if word.startswith(_SMART_URI):
        rest = word.removeprefix(_SMART_URI)
        return rest if rest in _SMART_WORDS or _SMART_LIKE.fullmatch(rest) else word
    rest = word.removeprefix(_OPENID_URI)
    return rest if rest in _OPENID_WORDS else word


def _letters(verb: str, word: str, *, has_query: bool) -> str:
    if verb in _V1_LETTERS and not has_query:  # v1 has no search parameters
        return _V1_LETTERS[verb]
    if not _V2_VERB.fullmatch(verb):
        raise _malformed(word)
    return verb


def _parameters(query: str | None, word: str) -> Parameters:
    if query is None:
        return ()
    pairs = [tuple(_decode(part, word) for part in pair.split("=")) for pair in query.split("&")]
    if not all(len(pair) == 2 and _PARAMETER_NAME.fullmatch(pair[0]) and pair[1] for pair in pairs):
        raise _malformed(word)
    return _sorted_pairs((name, value) for name, value in pairs)


def _decode(text: str, word: str) -> str:
    if "+" in text or _BAD_ESCAPE.search(text):  # a bare plus is a space to some and a plus to others
        raise _malformed(word)
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise _malformed(word) from None
    if _CONTROL.search(decoded):
        raise _malformed(word)
    return decoded


def _encode(text: str) -> str:
    return quote(text, safe="/:|,")  # as SMART's own examples write them, and EHRs compare them


def _v1(scope: ResourceScope) -> str:
    verb = _V1_VERBS.get(scope.letters)
    if verb is None or scope.parameters:
        raise InvalidScope(f"{scope} has no exact v1 form: .read is rs, .write is cud, .* is cruds")
    return f"{scope.level}/{scope.type}.{verb}"


def _malformed(word: str) -> InvalidScope:
    return InvalidScope(f"malformed scope {word[:100]!r}")
