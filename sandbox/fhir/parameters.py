"""The search parameters of each type: names of FHIR R4 and US Core, and where in the resource each one looks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.population.elements import Resource

Kind = Literal["date", "reference", "string", "token"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter of one type."""

    name: str
    kind: Kind
    paths: tuple[tuple[str, ...], ...]
    """Element paths; a choice type lists each of its spellings."""
    targets: tuple[str, ...] = ()
    """For a reference: the types it may point at."""


def _token(name: str, *paths: str) -> Parameter:
    return Parameter(name, "token", _split(paths))


def _date(name: str, *paths: str) -> Parameter:
    return Parameter(name, "date", _split(paths))


def _string(name: str, *paths: str) -> Parameter:
    return Parameter(name, "string", _split(paths))


def _reference(name: str, path: str, *targets: str) -> Parameter:
    return Parameter(name, "reference", _split((path,)), targets)


def _split(paths: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(path.split(".")) for path in paths)


def _of(*parameters: Parameter) -> Mapping[str, Parameter]:
    every_type = (_token("_id", "id"), _date("_lastUpdated", "meta.lastUpdated"))
    return {parameter.name: parameter for parameter in every_type + parameters}


def _subject() -> tuple[Parameter, Parameter]:
    return _reference("patient", "subject", "Patient"), _reference("subject", "subject", "Patient")


PARAMETERS: Mapping[str, Mapping[str, Parameter]] = {
    "AllergyIntolerance": _of(
        _reference("patient", "patient", "Patient"),
        _token("clinical-status", "clinicalStatus"),
        _token("verification-status", "verificationStatus"),
        _token("category", "category"),
        _token("criticality", "criticality"),
        _token("code", "code"),
        _date("date", "recordedDate"),
        _reference("recorder", "recorder", "Practitioner"),
    ),
    "Basic": _of(
        *_subject(),
        _token("code", "code"),
        _date("created", "created"),
        _reference("author", "author", "Patient", "Practitioner"),
    ),
    "Binary": _of(),
    "Condition": _of(
        *_subject(),
        _token("clinical-status", "clinicalStatus"),
        _token("verification-status", "verificationStatus"),
        _token("category", "category"),
        _token("code", "code"),
        _date("onset-date", "onsetDateTime", "onsetPeriod"),
        _date("recorded-date", "recordedDate"),
        _reference("encounter", "encounter", "Encounter"),
    ),
    "DocumentReference": _of(
        *_subject(),
        _token("status", "status"),
        _token("category", "category"),
        _token("type", "type"),
        _token("identifier", "identifier", "masterIdentifier"),
        _date("date", "date"),
        _date("period", "context.period"),
        _reference("author", "author", "Practitioner", "Organization"),
        _reference("encounter", "context.encounter", "Encounter"),
    ),
    "Encounter": _of(
        *_subject(),
        _token("status", "status"),
        _token("class", "class"),
        _token("type", "type"),
        _token("identifier", "identifier"),
        _date("date", "period"),
        _reference("participant", "participant.individual", "Practitioner"),
        _reference("practitioner", "participant.individual", "Practitioner"),
        _reference("service-provider", "serviceProvider", "Organization"),
    ),
    "Group": _of(
        _token("identifier", "identifier"),
        _token("type", "type"),
        _token("actual", "actual"),
        _token("code", "code"),
        _reference("member", "member.entity", "Patient"),
    ),
    "Immunization": _of(
        _reference("patient", "patient", "Patient"),
        _token("status", "status"),
        _token("vaccine-code", "vaccineCode"),
        _date("date", "occurrenceDateTime"),
    ),
    "MedicationRequest": _of(
        *_subject(),
        _token("status", "status"),
        _token("intent", "intent"),
        _token("category", "category"),
        _token("code", "medicationCodeableConcept"),
        _date("authoredon", "authoredOn"),
        _reference("encounter", "encounter", "Encounter"),
        _reference("requester", "requester", "Practitioner"),
    ),
    "Observation": _of(
        *_subject(),
        _token("status", "status"),
        _token("category", "category"),
        _token("code", "code"),
        _date("date", "effectiveDateTime", "effectivePeriod", "effectiveInstant"),
        _reference("encounter", "encounter", "Encounter"),
        _reference("performer", "performer", "Practitioner", "Organization"),
    ),
    "Organization": _of(
        _string("name", "name", "alias"),
        _string("address", "address"),
        _token("identifier", "identifier"),
        _token("active", "active"),
    ),
    "Patient": _of(
        _token("identifier", "identifier"),
        _string("name", "name"),
        _string("family", "name.family"),
        _string("given", "name.given"),
        _token("gender", "gender"),
        _date("birthdate", "birthDate"),
        _token("active", "active"),
        _token("email", "telecom"),
        _token("phone", "telecom"),
        _string("address", "address"),
        _string("address-city", "address.city"),
        _string("address-state", "address.state"),
        _string("address-postalcode", "address.postalCode"),
        _reference("general-practitioner", "generalPractitioner", "Practitioner", "Organization"),
        _reference("organization", "managingOrganization", "Organization"),
    ),
    "Practitioner": _of(
        _token("identifier", "identifier"),
        _string("name", "name"),
        _string("family", "name.family"),
        _string("given", "name.given"),
        _token("active", "active"),
    ),
}
"""By type, then by name. A type that is not here is not served."""


def elements(resource: Resource, path: Iterable[str]) -> list[Any]:
    """Every element at `path`, lists opened on the way."""
    found: list[Any] = [resource]
    for name in path:
        children = [node[name] for node in found if isinstance(node, dict) and name in node]
        found = [leaf for child in children for leaf in (child if isinstance(child, list) else [child])]
    return found
