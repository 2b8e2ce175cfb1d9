"""A search request, parsed: criteria, inclusions and how to present the result (FHIR R4, search.html)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sandbox.fhir.outcome import bad_request
from sandbox.fhir.parameters import PARAMETERS, Parameter

DEFAULT_COUNT = 20
MAX_COUNT = 100

_MODIFIERS = {
    "token": {"", "not", "missing"},
    "string": {"", "exact", "contains", "missing"},
    "date": {"", "missing"},
    "reference": {"", "missing"},
}
_PRESENTATION = {"_format", "_pretty", "_total"}
_SEPARATOR = re.compile(r"(?<!\\),")


@dataclass(frozen=True, slots=True)
class Criterion:
    """One parameter with its alternatives: any of `values` will do."""

    parameter: Parameter
    modifier: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """`subject:Patient.name=x`: what `parameter` refers to, of type `target`, must itself match `inner`."""

    parameter: Parameter
    target: str
    inner: "Condition"


@dataclass(frozen=True, slots=True)
class Has:
    """`_has:Observation:patient:code=x`: some resource of type `source` that refers here must match `inner`."""

    source: str
    parameter: Parameter
    inner: "Condition"


Condition = Criterion | Chain | Has


@dataclass(frozen=True, slots=True)
class Inclusion:
    """`_include` (follow `parameter` from a match) or `_revinclude` (what points at a match)."""

    source: str
    parameter: Parameter
    target: str | None
    """The type asked for, or None for all the parameter's targets."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The types an `_include` can bring in."""
        return (self.target,) if self.target else self.parameter.targets


@dataclass(frozen=True, slots=True)
class Query:
    """A search on one type. Conditions are ANDed. `count` is a page's matches."""

    type: str
    conditions: tuple[Condition, ...] = ()
    includes: tuple[Inclusion, ...] = ()
    revincludes: tuple[Inclusion, ...] = ()
    sort: tuple[tuple[Parameter, bool], ...] = ()
    """Each with True for descending."""
    count: int = DEFAULT_COUNT
    total_only: bool = False
    understood: tuple[tuple[str, str], ...] = ()
    """The pairs that were acted on: they make the self link."""
    ignored: tuple[str, ...] = ()
    """Names of the parameters that were not."""


def parse_query(type_: str, pairs: Iterable[tuple[str, str]]) -> Query:
    """Parse decoded search parameters; raises FhirError (400) for a known parameter with an impossible value."""
    query = Query(type_)
    for name, value in pairs:
        if name in _PRESENTATION:
            continue
        changed = _with(query, name, value)
        if changed is None:
            query = replace(query, ignored=(*query.ignored, name))
        else:
            query = replace(changed, understood=(*query.understood, (name, value)))
    return query


def _with(query: Query, name: str, value: str) -> Query | None:
    """`query` with one parameter more; None when the parameter is not known here."""
    match name:
        case "_count":
            return _with_count(query, value)
        case "_summary" if value in {"count", "false"}:
            return replace(query, total_only=value == "count")
        case "_sort":
            return replace(query, sort=tuple(_sort_key(query.type, key) for key in value.split(",")))
        case "_include":
            return replace(query, includes=(*query.includes, _inclusion(value, query.type)))
        case "_revinclude":
            return replace(query, revincludes=(*query.revincludes, _inclusion(value)))
    condition = parse_condition(query.type, name, value)
    return replace(query, conditions=(*query.conditions, condition)) if condition else None


def _with_count(query: Query, value: str) -> Query:
    if not value.isascii() or not value.isdigit() or len(value) > len("1000000"):
        raise bad_request(f"_count must be a whole number, not '{value}'.", "value")
    count = min(int(value), MAX_COUNT)
    return replace(query, count=count, total_only=query.total_only or count == 0)


def _sort_key(type_: str, key: str) -> tuple[Parameter, bool]:
    name = key.removeprefix("-")
    if name not in PARAMETERS[type_]:
        raise bad_request(f"{type_} cannot be sorted by '{name}'.", "not-supported")
    return PARAMETERS[type_][name], key.startswith("-")


def _inclusion(value: str, matched: str | None = None) -> Inclusion:
    source, _, rest = value.partition(":")
    name, _, target = rest.partition(":")
    parameter = _reference_parameter(source, name)
    if matched not in {None, source} or target not in {"", *parameter.targets}:
        raise bad_request(f"'{value}' cannot be included.", "not-supported")
    return Inclusion(source, parameter, target or None)


def _reference_parameter(type_: str, name: str) -> Parameter:
    parameter = PARAMETERS.get(type_, {}).get(name)
    if parameter is None or parameter.kind != "reference":
        raise bad_request(f"'{type_}:{name}' is not a reference this server follows.", "not-supported")
    return parameter


def parse_condition(type_: str, name: str, value: str) -> Condition | None:
    """Return what one search parameter demands; None when `type_` has no such parameter."""
    if name.startswith("_has:"):
        return _has(name, value)
    head, dot, rest = name.partition(".")
    base, _, modifier = head.partition(":")
    parameter = PARAMETERS[type_].get(base)
    if parameter is None:
        return None
    if dot:
        return _chain(parameter, modifier, rest, value)
    if modifier not in _MODIFIERS[parameter.kind] and modifier not in parameter.targets:
        raise bad_request(f"The modifier ':{modifier}' is not supported on '{base}'.", "not-supported")
    if not value or (modifier == "missing" and value not in {"true", "false"}):
        raise bad_request(f"'{name}' cannot be '{value}'.", "value")
    return Criterion(parameter, modifier, tuple(_unescape(part) for part in _SEPARATOR.split(value)))


def _chain(parameter: Parameter, modifier: str, rest: str, value: str) -> Chain:
    target = modifier or (parameter.targets[0] if len(parameter.targets) == 1 else "")
    inner = parse_condition(target, rest, value) if target in parameter.targets else None
    if inner is None:
        raise bad_request(f"'{parameter.name}' cannot be chained to '{rest}'.", "not-supported")
    return Chain(parameter, target, inner)


def _has(name: str, value: str) -> Has:
    _, source, reference, rest = (*name.split(":", 3), "", "")[:4]
    parameter = _reference_parameter(source, reference)
    inner = parse_condition(source, rest, value)
    if inner is None:
        raise bad_request(f"{source} is not searched by '{rest}'.", "not-supported")
    return Has(source, parameter, inner)


def _unescape(value: str) -> str:
    return re.sub(r"\\([,$\\])", r"\1", value)
