"""FHIR data types as plain dicts, in the order the specification writes their elements."""

from datetime import date, datetime
from typing import Any

Resource = dict[str, Any]
Population = dict[str, dict[str, Resource]]
"""Type, then id, then resource."""

SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
CVX = "http://hl7.org/fhir/sid/cvx"
UCUM = "http://unitsofmeasure.org"
HL7 = "http://terminology.hl7.org/CodeSystem"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition"


def coding(system: str, code: str, display: str) -> Resource:
    """Return a Coding."""
    return {"system": system, "code": code, "display": display}


def concept(*codings: Resource) -> Resource:
    """Return a CodeableConcept whose text is the first coding's display."""
    return {"coding": list(codings), "text": codings[0]["display"]}


def status(system: str, code: str) -> Resource:
    """Return a CodeableConcept of one HL7 code, as clinical and verification statuses have it."""
    return {"coding": [coding(f"{HL7}/{system}", code, code.capitalize())]}


def reference(resource: Resource, display: str | None = None) -> Resource:
    """Return a Reference to `resource`, relative to the server's base."""
    literal = {"reference": f"{resource['resourceType']}/{resource['id']}"}
    return {**literal, "display": display} if display else literal


def quantity(value: float, unit: str, code: str | None = None) -> Resource:
    """Return a Quantity in UCUM; `unit` is what a person reads."""
    return {"value": value, "unit": unit, "system": UCUM, "code": code or unit}


def meta(profile: str, updated: datetime) -> Resource:
    """First-version metadata claiming a US Core profile."""
    return {"versionId": "1", "lastUpdated": instant(updated), "profile": [f"{US_CORE}/{profile}"]}


def instant(moment: datetime) -> str:
    """Return a FHIR instant in UTC to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def years_between(earlier: date, later: date) -> int:
    """Whole years, as ages are counted."""
    return later.year - earlier.year - ((later.month, later.day) < (earlier.month, earlier.day))
