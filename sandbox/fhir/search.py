"""Find the resources a query asks for, within the caller's rights."""

from collections.abc import Iterable, Iterator

from sandbox.fhir.compartment import PATIENT_ELEMENT, parse_reference
from sandbox.fhir.matching import fold, interval_of, matches
from sandbox.fhir.outcome import forbidden
from sandbox.fhir.parameters import Parameter, elements
from sandbox.fhir.query import Chain, Condition, Criterion, Has, Inclusion, Query
from sandbox.fhir.repository import Key, Repository
from sandbox.fhir.rights import Rights
from sandbox.population.elements import Resource


def search(query: Query, repository: Repository, rights: Rights) -> list[Resource]:
    """Every match, sorted; raises FhirError (403) when the query looks at what the caller's scopes do not open."""
    _require_rights(query, rights)
    launch = rights.confined_to("s", query.type)
    named = list(_patients_named(query))
    if launch and any(patients != {launch} for patients in named):
        raise forbidden("The access token opens only its launch patient's chart.")
    patient = launch or next((min(patients) for patients in named if len(patients) == 1), None)
    found = [
        resource
        for resource in repository.every(query.type, patient)
        if rights.allow("s", resource) and all(_holds(c, resource, repository, rights) for c in query.conditions)
    ]
    for parameter, descending in reversed(query.sort):
        found = _sorted(found, parameter, descending=descending)
    return found


def _require_rights(query: Query, rights: Rights) -> None:
    """Chains and inclusions look at other types: those need scopes too, or they would answer questions about them."""
    rights.require("s", query.type)
    for type_ in _types_asked(query.conditions):
        rights.require("s", type_)
    for inclusion in query.revincludes:
        rights.require("s", inclusion.source)
    for inclusion in query.includes:
        if not any(rights.cover("r", target) for target in inclusion.targets):
            raise forbidden(f"The access token has no scope to read {' or '.join(inclusion.targets)}.")


def _types_asked(conditions: Iterable[Condition]) -> Iterator[str]:
    for condition in conditions:
        if isinstance(condition, Chain):
            yield condition.target
            yield from _types_asked([condition.inner])
        elif isinstance(condition, Has):
            yield condition.source
            yield from _types_asked([condition.inner])


def _patients_named(query: Query) -> Iterator[set[str]]:
    """For each condition that names patients: their ids."""
    for condition in query.conditions:
        if not isinstance(condition, Criterion) or condition.modifier not in {"", "Patient"}:
            continue
        by_reference = condition.parameter.paths == ((PATIENT_ELEMENT.get(query.type, ""),),)
        by_id = query.type == "Patient" and condition.parameter.name == "_id"
        if by_reference or by_id:
            yield {_id_of(value) for value in condition.values}


def _id_of(value: str) -> str:
    target = parse_reference(value)
    return target[1] if target else value


def _holds(condition: Condition, resource: Resource, repository: Repository, rights: Rights) -> bool:
    if isinstance(condition, Criterion):
        return _criterion_holds(condition, resource)
    if isinstance(condition, Chain):
        others = (r for r in _referred(condition.parameter, resource, repository) if _is(r, condition.target))
    else:
        others = (r for r in repository.every(condition.source) if _refers(condition.parameter, r, resource))
    return any(rights.allow("s", r) and _holds(condition.inner, r, repository, rights) for r in others)


def _criterion_holds(criterion: Criterion, resource: Resource) -> bool:
    answers = (matches(criterion.parameter, criterion.modifier, value, resource) for value in criterion.values)
    return all(answers) if criterion.modifier == "not" else any(answers)


def _is(resource: Resource, type_: str) -> bool:
    return bool(resource["resourceType"] == type_)


def _keys_referred(parameter: Parameter, resource: Resource) -> Iterator[Key]:
    for path in parameter.paths:
        for element in elements(resource, path):
            key = parse_reference(element.get("reference")) if isinstance(element, dict) else None
            if key:
                yield key


def _referred(parameter: Parameter, resource: Resource, repository: Repository) -> Iterator[Resource]:
    for key in _keys_referred(parameter, resource):
        other = repository.get(key)
        if other is not None:
            yield other


def _refers(parameter: Parameter, source: Resource, target: Resource) -> bool:
    return (target["resourceType"], target["id"]) in _keys_referred(parameter, source)


def _sorted(resources: list[Resource], parameter: Parameter, *, descending: bool) -> list[Resource]:
    """Stable; what has no value comes last in both directions."""
    keyed = [(_sort_value(parameter, resource), resource) for resource in resources]
    valued = sorted(((k, r) for k, r in keyed if k is not None), key=lambda pair: pair[0], reverse=descending)
    return [r for _, r in valued] + [r for k, r in keyed if k is None]


def _sort_value(parameter: Parameter, resource: Resource) -> str | None:
    """Return a text that sorts as the parameter's kind does."""
    found = [element for path in parameter.paths for element in elements(resource, path)]
    if not found:
        return None
    if parameter.kind == "date":
        return interval_of(found[0])[0].isoformat()
    return fold(_text(found[0]))


def _text(element: object) -> str:
    """Return a code, name or reference as text."""
    if not isinstance(element, dict):
        return str(element)
    named = element.get("coding", [element])[0]
    return str(next((named[name] for name in ("code", "value", "family", "reference") if name in named), ""))


def included(query: Query, found: list[Resource], repository: Repository, rights: Rights) -> list[Resource]:
    """Return what `_include` and `_revinclude` add to a page, each once, nothing the scopes do not open."""
    added: dict[Key, Resource] = {}
    for inclusion in query.includes:
        for resource in found:
            for other in _referred(inclusion.parameter, resource, repository):
                if other["resourceType"] in inclusion.targets and rights.allow("r", other):
                    added[other["resourceType"], other["id"]] = other
    for inclusion in query.revincludes:
        for other in _pointing_at(inclusion, found, repository):
            if rights.allow("s", other):
                added[other["resourceType"], other["id"]] = other
    for resource in found:
        added.pop((resource["resourceType"], resource["id"]), None)
    return list(added.values())


def _pointing_at(inclusion: Inclusion, found: list[Resource], repository: Repository) -> Iterator[Resource]:
    wanted = {(resource["resourceType"], resource["id"]) for resource in found}
    if inclusion.target:
        wanted = {key for key in wanted if key[0] == inclusion.target}
    for other in repository.every(inclusion.source):
        if not wanted.isdisjoint(_keys_referred(inclusion.parameter, other)):
            yield other
