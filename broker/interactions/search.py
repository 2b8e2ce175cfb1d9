"""Search parameters: what they filter by, what they add to the answer, whom they name (SC-02, SC-05, PX-14).

A parameter is understood in one of these ways, or the request is refused:

* how the answer looks: `_format`, `_summary`, `_elements`, `_totalMethod` (as fhirpy asks for a count), …; it needs
  nothing
* how many and in which order: `_count`, `_sort`, `_total`; a chained `_sort` is refused
* what comes with it: `_include` needs `r` on the included type, `_revinclude` needs `s` on the including type
* a filter on the searched type; every hop of a chain (`subject:Patient.name`) and of `_has` needs `s` on the type it
  reaches, because the answer tells whether such a resource exists; a type that is not named is every type

A filter whose name FHIR does not define is told apart (`Interaction.unlisted`): it may not be a filter at all.

Refused by not being listed: `_filter`, `_query`, `_list`, `_in`, `_graph`, `_contained`, `_cascade` and any other
underscore parameter, and modifiers FHIR does not have. `:in` and `:not-in` are of value sets alone: with a group or a
list they would say what `_in` and `_list` do.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from broker.errors import UninterpretableInteraction
from broker.interactions.interaction import Need, Pairs
from broker.interactions.search_names import unlisted
from broker.interactions.syntax import refuse, resource_id, resource_type

PRESENTATION: Final = frozenset({"_format", "_pretty", "_summary", "_elements", "_totalMethod"})
RESULT: Final = PRESENTATION | {"_count", "_offset", "_sort", "_total"}
MOST_HOPS: Final = 8
MOST_TYPES: Final = 256
"""More than FHIR has, in one list."""

_INCLUDE: Final = re.compile(r"_(rev)?include(?::iterate|:recurse)?")
_INCLUDED: Final = re.compile(r"([A-Za-z]+):([a-z][A-Za-z0-9_-]*|\*)(?::([A-Za-z]+))?")
_SORT: Final = re.compile(r"-?_?[a-z][A-Za-z0-9-]*(?:,-?_?[a-z][A-Za-z0-9-]*)*")
_HAS: Final = re.compile(r"_has:([A-Za-z]+):[a-z][A-Za-z0-9_-]*:(.+)")
_CHAIN: Final = re.compile(r"([a-z][A-Za-z0-9_-]*)(?::([A-Z][A-Za-z]*))?\.(.+)")
_FILTER: Final = re.compile(
    r"([a-z][A-Za-z0-9_-]*|_id|_lastUpdated|_tag|_profile|_security|_source|_language|_text|_content)"
    r"(?::(missing|exact|contains|not|text|in|not-in|above|below|identifier|of-type|code-text|[A-Z][A-Za-z]*))?"
)
_MEMBERSHIP: Final = re.compile(r"(?:^|[/|])(?:Group|List|CareTeam)/", re.IGNORECASE)
_REFERENCE_TO_PATIENT: Final = re.compile(r"(?:^|[/|])Patient/([A-Za-z0-9\-.]{1,64})", re.IGNORECASE)
_TARGETS: Final = {"patient": "Patient", "medication": "Medication"}
"""Reference parameters with one possible target wherever FHIR defines them; the target of any other is unknown."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What parameters ask for beyond the searched type itself, and the patients they name."""

    needs: tuple[Need, ...] = ()
    patients: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    """The names of a search's parameters that FHIR does not define."""

    @classmethod
    def union(cls, reaches: Iterable["Reach"]) -> "Reach":
        """Return all of it, each need and patient once."""
        listed = list(reaches)
        needs = dict.fromkeys(need for reach in listed for need in reach.needs)
        patients = dict.fromkeys(id_ for reach in listed for id_ in reach.patients)
        names = dict.fromkeys(name for reach in listed for name in reach.unlisted)
        return cls(tuple(needs), tuple(patients), tuple(names))


NOWHERE: Final = Reach()


def read_search(type_: str, pairs: Pairs) -> Reach:
    """Read the parameters of a search on `type_`; `*` where the search is not on one type."""
    reach = Reach.union(_read_search_pair(type_, name, value) for name, value in pairs)
    return replace(reach, unlisted=unlisted(name for name, _ in pairs))


def read_shown(type_: str, pair: tuple[str, str]) -> Reach:
    """Read a parameter as a search would; nothing of one that no search has."""
    try:
        return _read_search_pair(type_, *pair)
    except UninterpretableInteraction:
        return NOWHERE


def read_criteria(type_: str, pairs: Pairs) -> Reach:
    """Read the criteria of a conditional interaction: filters and nothing else, and at least one."""
    if not pairs:
        refuse("a conditional interaction without criteria")
    return Reach.union(_read_filter(type_, name, value) for name, value in pairs)


def allow_only(names: frozenset[str], pairs: Pairs) -> None:
    """Refuse a parameter that this interaction does not have: a server may know one that changes its meaning."""
    if not names.issuperset(name for name, _ in pairs):
        refuse("a parameter that this interaction does not have")


def require_one_format(pairs: Pairs) -> None:
    """Refuse a second `_format`: the answer must be in the format that was looked at."""
    if sum(name == "_format" for name, _ in pairs) > 1:
        refuse("more than one _format")


def restricting(pairs: Pairs) -> Pairs:
    """Return the pairs of a search on one type that make its answer smaller: the filters."""
    return tuple((name, value) for name, value in pairs if name not in RESULT and not _INCLUDE.fullmatch(name))


def listed_types(pairs: Pairs) -> tuple[str, ...]:
    """Return the types that `_type` parameters list, or `*` when there is none."""
    listed = dict.fromkeys(part for name, value in pairs if name == "_type" for part in value.split(","))
    if len(listed) > MOST_TYPES:
        refuse(f"more than {MOST_TYPES} types")
    return tuple(map(resource_type, listed)) or ("*",)


def patients_referred_to(value: str) -> tuple[str, ...]:
    """Return the ids of the patients that a value names as `Patient/id`."""
    return tuple(_REFERENCE_TO_PATIENT.findall(value))


def _read_search_pair(type_: str, name: str, value: str) -> Reach:
    if name == "_sort" and not _SORT.fullmatch(value):
        refuse("a sort order that is not a list of parameters")
    if name in RESULT:
        return NOWHERE
    if include := _INCLUDE.fullmatch(name):
        source, target = _read_include(value)
        return Reach((Need(source, "s") if include[1] else Need(target, "r"),))
    return _read_filter(type_, name, value)


def _read_include(value: str) -> tuple[str, str]:
    """Return the source and the target type of `Source:parameter[:Target]`; `*` is everything."""
    if value == "*":
        return "*", "*"
    found = _INCLUDED.fullmatch(value)
    if not found:
        refuse("an include that is not Type:parameter or Type:parameter:Target")
    source, parameter, target = found.groups()
    return resource_type(source), resource_type(target) if target else _TARGETS.get(parameter, "*")


def _read_filter(type_: str, name: str, value: str) -> Reach:
    """Follow chains and `_has` to the parameter at their end."""
    needs: list[Need] = []
    while hop := _hop(name):
        type_, name = hop
        needs.append(Need(type_, "s"))
        if len(needs) > MOST_HOPS:
            refuse("a chain that is too long")
    found = _FILTER.fullmatch(name)
    if not found:
        refuse("a search parameter that cannot be checked")
    if found[2] and found[2][0].isupper():
        resource_type(found[2])
    return Reach(tuple(needs), tuple(_named_patients(type_, found[1], found[2], value.split(","))))


def _hop(name: str) -> tuple[str, str] | None:
    """Return the type that the first step of a chain reaches, and the rest of the chain."""
    if found := _HAS.fullmatch(name):
        return resource_type(found[1]), found[2]
    if found := _CHAIN.fullmatch(name):
        parameter, target, rest = found.groups()
        return resource_type(target) if target else _TARGETS.get(parameter, "*"), rest
    return None


def _named_patients(type_: str, name: str, modifier: str | None, values: list[str]) -> Iterator[str]:
    """Yield the patient ids among alternatives; where a parameter must name patients, anything else is refused."""
    match name.lower(), modifier:  # some servers fold the case of names
        case (of, "in" | "not-in") if of in {"_id", "patient", "subject"} or any(map(_MEMBERSHIP.search, values)):
            refuse("who is in a group or a list, which may tell of other patients")
        case (_, "Patient") | ("patient", None):
            yield from map(_patient_id, values)
        case ("_id", None) if type_ in ("Patient", "*"):
            yield from map(_patient_id, values)
        case ("subject", None):
            yield from _subject_ids(values)
        case _:
            yield from (id_ for value in values for id_ in patients_referred_to(value))


def _patient_id(value: str) -> str:
    return resource_id(value.removeprefix("Patient/"))


def _subject_ids(values: list[str]) -> list[str]:
    """Return the patient ids of `Type/id` alternatives; with other subjects among them, they would confine nothing."""
    split = (value.partition("/") for value in values)
    subjects = [(resource_type(type_), resource_id(id_)) for type_, _, id_ in split]
    patients = [id_ for type_, id_ in subjects if type_ == "Patient"]
    if patients and len(patients) < len(subjects):
        refuse("a list of patients and other subjects")
    return patients
