"""Scopes as one EHR understands them: in v1 or v2 words, with or without wildcards (Q9, OR-06)."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from broker.scopes.algebra import Scopes
from broker.scopes.grammar import V1_LETTERS
from broker.scopes.resource import ResourceScope, in_order

Dialect: TypeAlias = Literal["v1", "v2"]

_V1_VERBS: Final = ("read", "write")  # `.*` is both of them, and Oracle does not take it (OR-06)
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]*")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A `scope` parameter for an EHR. It asks for exactly what was meant where `widened` is empty.

    `widened` are the scopes that the dialect could only say wider, sorted by their text. What the EHR then grants
    beyond them is for the caller to keep to itself.
    """

    text: str
    widened: tuple[ResourceScope, ...] = ()


def choose_dialect(setting: Literal["v1", "v2", "auto"], capabilities: Collection[str]) -> Dialect:
    """Return the dialect to ask in; `auto` is v2 where the EHR lists `permission-v2`, and v1 elsewhere (Q9)."""
    if setting == "auto":
        return "v2" if "permission-v2" in capabilities else "v1"
    return setting


def render(scopes: Scopes, dialect: Dialect) -> Rendered:
    """Return the words of the dialect; in v1 the least that cover `scopes`: `.r` is asked as `.read`, `?…` is dropped.

    v1 says `.*` as `.read` and `.write`, which is the same to every EHR (SC-03).
    """
    if dialect == "v2":
        return Rendered(str(scopes))
    said = Scopes(frozenset(map(_least_wider, scopes.resources)), scopes.others)
    words = (word for scope in said.resources for word in _v1_words(scope))
    widened = (scope for scope in scopes.resources if _least_wider(scope) != scope)
    return Rendered(" ".join(sorted([*said.others, *words])), tuple(sorted(widened, key=str)))


def expand_wildcards(scopes: Scopes, types: Iterable[str]) -> Scopes:
    """Return the scopes with each `*` replaced by `types`: those that the EHR's CapabilityStatement lists.

    Of a wildcard nothing is left for a type that is not listed, and what is no name of a type is passed over. Raises
    `InvalidScope` when that takes too many scopes to say.
    """
    named = [type_ for type_ in types if _TYPE.fullmatch(type_)]
    return Scopes(frozenset(one for scope in scopes.resources for one in _expanded(scope, named)), scopes.others)


def _least_wider(scope: ResourceScope) -> ResourceScope:
    letters = "".join(V1_LETTERS[verb] for verb in _verbs(scope))
    return ResourceScope(scope.level, scope.type, in_order(letters))


def _verbs(scope: ResourceScope) -> Iterator[str]:
    return (verb for verb in _V1_VERBS if set(scope.letters) & set(V1_LETTERS[verb]))


def _v1_words(scope: ResourceScope) -> Iterator[str]:
    return (f"{scope.level}/{scope.type}.{verb}" for verb in _verbs(scope))


def _expanded(scope: ResourceScope, types: Iterable[str]) -> Iterable[ResourceScope]:
    if scope.type != "*":
        return (scope,)
    return (ResourceScope(scope.level, type_, scope.letters, scope.parameters) for type_ in types)
