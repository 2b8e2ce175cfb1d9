"""What scope texts allow, by a naive reading of SMART and with none of the broker's code.

The universe is small enough to be listed: every (level, type, letter, search pairs of a request). `Device` is a type
that nobody here writes, so only a wildcard opens it; `*` asks for every type at once.
"""

from itertools import chain, combinations, product
from typing import Final, TypeAlias
from urllib.parse import unquote

Pair: TypeAlias = tuple[str, str]
Atom: TypeAlias = tuple[str, str, str, frozenset[Pair]]

LEVELS: Final = ("patient", "user", "system")
PAIRS: Final = (("category", "lab|x"), ("code", "a&b"), ("code", "c"))
UNIVERSE: Final[tuple[Atom, ...]] = tuple(
    (level, type_, letter, frozenset(pairs))
    for level, type_, letter in product(LEVELS, ("Patient", "Observation", "Device", "*"), "cruds")
    for pairs in chain.from_iterable(combinations(PAIRS, size) for size in range(len(PAIRS) + 1))
)
V1: Final = {"read": "rs", "write": "cud", "*": "cruds"}


def allowed(text: str) -> frozenset[Atom]:
    """Return everything that at least one word of a scope text allows."""
    return frozenset(chain.from_iterable(map(_allowed_by, text.split())))


def least_in_v1(asked: frozenset[Atom]) -> frozenset[Atom]:
    """Return what every v1 text that allows `asked` allows too."""
    return frozenset(chain.from_iterable(_FORCED[atom] for atom in asked))


def _allowed_by(word: str) -> frozenset[Atom]:
    level, _, rest = word.removeprefix("http://smarthealthit.org/fhir/scopes/").partition("/")
    if level not in LEVELS:
        return frozenset()
    access, _, query = rest.partition("?")
    type_, _, verb = access.partition(".")
    pairs = {(unquote(name), unquote(value)) for name, _, value in (part.partition("=") for part in query.split("&"))}
    return frozenset(
        (asked_level, asked_type, letter, said)
        for asked_level, asked_type, letter, said in UNIVERSE
        if asked_level == level
        and type_ in ("*", asked_type)
        and letter in V1.get(verb, verb)
        and (not query or pairs <= said)
    )


_OF_V1: Final = [
    _allowed_by(f"{level}/{type_}.{verb}")
    for level, type_, verb in product(LEVELS, ("Patient", "Observation", "*"), ("read", "write"))
]
_FORCED: Final = {atom: frozenset[Atom].intersection(*(word for word in _OF_V1 if atom in word)) for atom in UNIVERSE}
