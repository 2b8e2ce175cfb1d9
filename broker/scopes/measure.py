"""How much scopes may say.

What a stranger writes has an end, and others wait while searches, and each resource of an answer, are held against it.
What is more is an error where an app or the operator wrote it. Where an EHR answered it, it grants nothing.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from broker.errors import InvalidScope
from broker.scopes.resource import Parameters, Place
from broker.token_parameters import alternatives

MOST_WORDS: Final = 1000
"""Words in one text, of whatever kind."""
MOST_RESOURCE_SCOPES: Final = 200
"""Different resource scopes in one set."""
MOST_FILTERS: Final = 16
"""Different parameter sets for one level and type: each is held against each, so their number is what costs."""
MOST_PARAMETERS: Final = 8
"""Search parameters in one scope."""
MOST_ALTERNATIVES: Final = 64
"""Between the commas of one value."""
LONGEST_FILTER: Final = 8192
"""Characters in the names and values of one scope: a search that has to say them has no more for its query."""


@dataclass(slots=True)
class Measure:
    """Counts what is in one set."""

    places: set[Place] = field(default_factory=set)
    filters: Counter[tuple[str, str]] = field(default_factory=Counter)

    def take(self, place: Place) -> None:
        """Count a place, once. Raises `InvalidScope` for one too many, or for one that says too much."""
        if place in self.places:
            return
        level, type_, parameters = place
        if len(parameters) > MOST_PARAMETERS:
            raise _too_much(f"more than {MOST_PARAMETERS} search parameters in one scope")
        if sum(len(name) + len(value) for name, value in parameters) > LONGEST_FILTER:
            raise _too_much(f"more than {LONGEST_FILTER} characters in the search parameters of one scope")
        if len(self.places) >= MOST_RESOURCE_SCOPES:
            raise _too_much(f"more than {MOST_RESOURCE_SCOPES} different resource scopes")
        if self.filters[level, type_] >= MOST_FILTERS:
            raise _too_much(f"more than {MOST_FILTERS} different filters for one type")
        self.places.add(place)
        self.filters[level, type_] += 1


def require_few_words(words: list[str]) -> None:
    """Raise `InvalidScope` for too many."""
    if len(words) > MOST_WORDS:
        raise _too_much(f"more than {MOST_WORDS} words")


def require_few_alternatives(parameters: Parameters) -> None:
    """Raise `InvalidScope` where a value has too many. What scopes allow together has no other values than they."""
    if any(len(alternatives(value)) > MOST_ALTERNATIVES for _, value in parameters):
        raise _too_much(f"more than {MOST_ALTERNATIVES} alternatives in one value")


def _too_much(what: str) -> InvalidScope:
    return InvalidScope(what, public=f"The scope has {what}.")
