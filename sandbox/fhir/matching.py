"""Does a resource match one value of one search parameter? Pure (FHIR R4, search.html sections 3.1.1.4.7 ff.)."""

import re
import unicodedata
from calendar import isleap, monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.fhir.compartment import parse_reference
from sandbox.fhir.outcome import bad_request
from sandbox.fhir.parameters import Parameter, elements
from sandbox.population.elements import Resource

PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")

Interval = tuple[datetime, datetime]
"""From (included) to (excluded); a day is the interval of its 24 hours."""

_TIME = re.compile(r"\d{4}(?:-(\d\d)(?:-(\d\d)(?:T(\d\d:\d\d)(:\d\d(\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII)
_ALWAYS = datetime.max.replace(tzinfo=UTC)
_NEVER = datetime.min.replace(tzinfo=UTC)


def matches(parameter: Parameter, modifier: str, value: str, resource: Resource) -> bool:
    """Tell whether an element the parameter looks at has `value`; raises FhirError (400) for an unreadable value."""
    found = [element for path in parameter.paths for element in elements(resource, path)]
    if modifier == "missing":
        return (not found) == (value == "true")
    if parameter.kind == "token":
        return _token_among(value, found) != (modifier == "not")
    if parameter.kind == "string":
        return any(_string_matches(value, modifier, text) for element in found for text in _texts(element))
    if parameter.kind == "date":
        return any(_date_matches(value, interval_of(element)) for element in found)
    return any(_reference_matches(value, modifier, element) for element in found)


def _token_among(value: str, found: list[Any]) -> bool:
    system, bar, code = value.rpartition("|")
    return any(
        (not bar or (held_system or "") == system) and (held_code == code or (bool(bar) and not code))
        for element in found
        for held_system, held_code in _tokens(element)
    )


def _tokens(element: Any) -> Iterator[tuple[str | None, str | None]]:
    """Yield (system, code) of a code, boolean, Coding, CodeableConcept, Identifier or ContactPoint."""
    if isinstance(element, bool):
        yield None, str(element).lower()
    elif isinstance(element, str):
        yield None, element
    elif isinstance(element, dict):
        for coding in element.get("coding", [element]):
            yield coding.get("system"), coding.get("code", coding.get("value"))


def fold(text: str) -> str:
    """Without case and accents, as string search compares."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def _texts(element: Any) -> Iterator[str]:
    """Yield the strings inside a string, HumanName or Address."""
    if isinstance(element, str):
        yield element
    elif isinstance(element, dict):
        for value in element.values():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    yield text


def _string_matches(value: str, modifier: str, text: str) -> bool:
    if modifier == "exact":
        return text == value
    wanted, held = fold(value), fold(text)
    return wanted in held if modifier == "contains" else held.startswith(wanted)


def _reference_matches(value: str, modifier: str, element: Any) -> bool:
    held = parse_reference(element.get("reference")) if isinstance(element, dict) else None
    wanted = parse_reference(value)
    if held is None:
        return False
    return held == wanted if wanted else held[1] == value and modifier in {"", held[0]}


def interval(text: str) -> Interval:
    """Return the time a FHIR date, dateTime or instant covers; without a zone it is taken as UTC. Raises ValueError."""
    written = _TIME.fullmatch(text)
    if written is None:
        raise ValueError("not a FHIR date")
    month, day, minutes, seconds, fraction = written.groups()
    start = _utc(text + ("" if day else "-01" if month else "-01-01"))
    if fraction:
        width = timedelta(microseconds=1)
    elif seconds:
        width = timedelta(seconds=1)
    elif minutes:
        width = timedelta(minutes=1)
    elif day:
        width = timedelta(days=1)
    else:
        width = timedelta(days=monthrange(start.year, start.month)[1] if month else 365 + isleap(start.year))
    # 9999-12-31 stands for "for ever" in many EHRs, and has no day after it.
    return start, start + min(width, _ALWAYS - start)


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def interval_of(element: Any) -> Interval:
    """Return the time a date element or a Period covers; an open end reaches to the end of time."""
    if not isinstance(element, dict):
        return interval(str(element))
    start = interval(element["start"])[0] if "start" in element else _NEVER
    end = interval(element["end"])[1] if "end" in element else _ALWAYS
    return start, end


def _date_matches(value: str, held: Interval) -> bool:
    prefix, text = (value[:2], value[2:]) if value[:2] in PREFIXES else ("eq", value)
    try:
        wanted = interval(text.replace(" ", "+"))
    except (ValueError, OverflowError) as error:
        raise bad_request(f"'{value}' is not a date this server can search by.", "value") from error
    within = wanted[0] <= held[0] and held[1] <= wanted[1]
    answers = {
        "eq": within,
        "ne": not within,
        "gt": held[1] > wanted[1],
        "lt": held[0] < wanted[0],
        "ge": held[1] > wanted[1] or within,
        "le": held[0] < wanted[0] or within,
        "sa": held[0] >= wanted[1],
        "eb": held[1] <= wanted[0],
        "ap": held[0] < wanted[1] and wanted[0] < held[1],
    }
    return answers[prefix]
