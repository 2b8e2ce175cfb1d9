"""`_count`: how many matches a page is asked for, where a handle has a cap on that.

A server may give fewer, and by FHIR no more; what `_include` and `_revinclude` add is not counted.
"""

import re
from dataclasses import replace
from typing import Final

from broker.errors import InsufficientScope
from broker.interactions import LIMITABLE, Interaction
from broker.interactions.interaction import Pairs
from broker.interactions.syntax import decode_pairs, encode_pairs

COUNT: Final = "_count"
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_PAGED: Final = ("search-", "history-")
_ONE_AT_A_TIME: Final = frozenset(LIMITABLE) - {kind for kind in LIMITABLE if kind.startswith(_PAGED)}
_COUNTED_OPERATIONS: Final = frozenset({"$everything", "$lastn"})


def capped(interaction: Interaction, most: int) -> Interaction:
    """Return the interaction that asks for at most `most` matches a page.

    Raises `InsufficientScope` for an operation of which nobody can ask that.
    """
    if not _answers_pages(interaction):
        return interaction
    query = decode_pairs(interaction.query.encode())
    if interaction.body is None:
        pairs = _capped_pairs(query, most)
        return replace(interaction, query=encode_pairs(pairs), parameters=pairs)
    form = _capped_pairs(decode_pairs(interaction.body), most)
    return replace(interaction, parameters=query + form, body=encode_pairs(form).encode())


def require_capped(entry: Interaction, most: int) -> None:
    """Raises `InsufficientScope` unless an entry of a Bundle asks for no more by itself: it goes on as it came."""
    if _answers_pages(entry) and _capped_pairs(entry.parameters, most) != entry.parameters:
        raise _not_capped(f"a search in a Bundle must itself ask for a {COUNT} of at most {most}")


def _answers_pages(interaction: Interaction) -> bool:
    if interaction.kind in _ONE_AT_A_TIME:
        return False
    if interaction.kind.startswith(_PAGED):
        return True
    if interaction.code in _COUNTED_OPERATIONS and interaction.method in {"GET", "HEAD"}:
        return True
    raise _not_capped(f"{interaction.code} cannot be asked for a {COUNT}")


def _capped_pairs(pairs: Pairs, most: int) -> Pairs:
    """Return the pairs with one `_count`: some servers fold the case of names, and some take the last."""
    counts = [(name, value) for name, value in pairs if name.lower() == COUNT]
    asked = [int(value) for _, value in counts if _NUMBER.fullmatch(value)]
    fewest = min([most, *asked])
    if [name for name, _ in counts] == [COUNT] and asked == [fewest]:
        return pairs
    others = tuple((name, value) for name, value in pairs if name.lower() != COUNT)
    return (*others, (COUNT, str(fewest)))


def _not_capped(why: str) -> InsufficientScope:
    return InsufficientScope(f"limit max_count: {why}", public=f"The access token's limit is max_count: {why}.")
