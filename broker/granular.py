"""Scopes with search parameters, as one search can say them (SC-05, SC-06). Pure.

Scopes are alternatives, and the pairs of one scope all hold; a search says alternatives within one parameter only
(`category=a,b`). So several scopes are one search if they differ in the value of one parameter at most.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, TypeAlias

from broker.scopes import Parameters
from broker.token_parameters import alternatives

Searchable: TypeAlias = Collection[tuple[str, str]]
"""Types with the search parameters that an EHR's CapabilityStatement lists for each."""
_PLAIN: Final = re.compile(r"[a-z][A-Za-z0-9-]*|_id|_profile|_security|_source|_tag")
"""No modifier, no chain, and nothing that says how the answer looks."""
_HEAD: Final = re.compile(r"[:.]")


def as_search(filters: Sequence[Parameters]) -> Parameters | None:
    """Return the pairs that one search has to say for any of the groups to hold; None where it cannot say so."""
    shared = frozenset.intersection(*(frozenset(group) for group in filters))
    others = [tuple(pair for pair in group if pair not in shared) for group in filters]
    said = sorted(shared)
    if all(others):
        names = {name for group in others for name, _ in group}
        is_escaping = any("\\" in value for group in others for _, value in group)
        if len(names) != 1 or any(len(group) != 1 for group in others) or is_escaping:
            return None
        said.append((names.pop(), ",".join(value for group in others for _, value in group)))
    return tuple(said) if all(_PLAIN.fullmatch(name) for name, _ in said) else None


def is_said(pairs: Parameters, asked: Parameters) -> bool:
    """Whether a search that asks so stays within the pairs: it says each, or fewer of its alternatives."""
    given = _taken_apart(asked)
    return all(any(name == other and allowed >= said for other, said in given) for name, allowed in _taken_apart(pairs))


def _taken_apart(pairs: Parameters) -> Sequence[tuple[str, frozenset[str]]]:
    return [(name, frozenset(alternatives(value))) for name, value in pairs]


def can_search(searchable: Searchable, type_: str, names: Iterable[str]) -> bool:
    """Whether the EHR lists each of the parameters for the type, of a chain its first one.

    One that it does not list may be a page of another search, whatever else is said beside it.
    """
    listed = {_HEAD.split(name)[0] for name in names}
    return all((type_, name) in searchable or ("*", name) in searchable for name in listed)
