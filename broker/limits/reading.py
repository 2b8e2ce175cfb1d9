"""Limits as apps and operators write them. Every `ValueError` says what must be written instead."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from math import ceil
from typing import Any, Final, TypeVar

from broker.errors import InvalidRequest, UninterpretableInteraction
from broker.interactions import LIMITABLE
from broker.interactions.syntax import resource_type
from broker.limits.limits import Limits
from broker.limits.networks import canonical, read_network

T = TypeVar("T")

MOST_WORDS: Final = 64
"""Of types, interactions or networks in one limit."""
LARGEST_COUNT: Final = 1_000_000
_OPERATION: Final = re.compile(r"\$[a-z][A-Za-z0-9-]{0,63}")
_COUNT: Final = re.compile(r"[0-9]{1,7}")
_SECONDS: Final = re.compile(r"[0-9]{1,11}")
_DATE_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def read_limits(form: Mapping[str, str]) -> Limits:
    """Return the limits that the parameters of a token exchange name. Raises `InvalidRequest` naming the parameter."""
    given: dict[str, Any] = {name: read_parameter(form, name, _READERS[name]) for name in _READERS.keys() & form.keys()}
    return Limits(**given)


def read_moment(text: str) -> float:
    """Return seconds since 1970, from these or from a time of RFC 3339."""
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        seconds = datetime.fromisoformat(text).timestamp() if _DATE_TIME.fullmatch(text) else -1.0
    except ValueError:  # a day or an hour that there is not
        seconds = -1.0
    if seconds >= 0:
        return seconds
    raise ValueError("must be seconds since 1970, or a time such as 2027-01-31T08:00:00Z")


def read_type(text: str) -> str:
    """Return the name of a FHIR type."""
    try:
        return resource_type(text)
    except UninterpretableInteraction:
        raise ValueError("must be a FHIR type, such as Observation") from None


def read_interaction(text: str) -> str:
    """Return the name of an interaction."""
    if text in LIMITABLE or _OPERATION.fullmatch(text):
        return text
    raise ValueError(f"must be an operation, such as $everything, or one of {', '.join(LIMITABLE)}")


def of_each(text: str, read: Callable[[str], T]) -> frozenset[T]:
    """Return what a list with blanks between its words holds."""
    words = text.split(" ")
    if len(words) > MOST_WORDS or not all(words):
        raise ValueError(f"must be a list of at most {MOST_WORDS}, with one blank between two")
    return frozenset(map(read, words))


def read_parameter(form: Mapping[str, str], name: str, read: Callable[[str], T]) -> T | None:
    """Return a parameter, if it is there. Raises `InvalidRequest` naming it for the `ValueError` of `read`."""
    try:
        return read(form[name]) if name in form else None
    except ValueError as error:
        raise InvalidRequest(f"{name} is malformed", public=f"{name} {error}.") from None


def _count(text: str) -> int:
    if _COUNT.fullmatch(text) and 0 < int(text) <= LARGEST_COUNT:
        return int(text)
    raise ValueError(f"must be a whole number from 1 to {LARGEST_COUNT}")


def read_true(text: str) -> bool:
    """Return what a parameter says that is there to say yes."""
    if text == "true":
        return True
    raise ValueError("can only be true; leave it out otherwise")


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "types": lambda text: of_each(text, read_type),
    "interactions": lambda text: of_each(text, read_interaction),
    "not_before": lambda text: ceil(read_moment(text)),
    "max_count": _count,
    "read_only": read_true,
    "network": lambda text: canonical(of_each(text, read_network)),
}
