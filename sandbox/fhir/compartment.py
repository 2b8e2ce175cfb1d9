"""Whose chart a resource is in (the FHIR R4 Patient compartment, reduced to the types this server holds)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.population.elements import Resource

PATIENT_ELEMENT: Mapping[str, str] = {
    "AllergyIntolerance": "patient",
    "Basic": "subject",
    "Binary": "securityContext",
    "Condition": "subject",
    "DocumentReference": "subject",
    "Encounter": "subject",
    "Immunization": "patient",
    "MedicationRequest": "subject",
    "Observation": "subject",
}
SHARED_TYPES = frozenset({"Organization", "Practitioner"})
"""Types of no patient, which every patient's app may read."""

_REFERENCE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})(?:/_history/[A-Za-z0-9.-]{1,64})?")


def parse_reference(reference: object) -> tuple[str, str] | None:
    """`Type/id` as a pair; None for anything that does not point into this server, absolute URLs included."""
    matched = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    return (matched[1], matched[2]) if matched else None


def patient_of(resource: Resource) -> str | None:
    """Return the id of the patient whose chart holds `resource`, or None."""
    if resource["resourceType"] == "Patient":
        return resource.get("id")
    element: Any = resource.get(PATIENT_ELEMENT.get(resource["resourceType"], ""))
    target = parse_reference(element.get("reference")) if isinstance(element, dict) else None
    return target[1] if target and target[0] == "Patient" else None


def references(node: object) -> Iterator[tuple[str, str]]:
    """Every literal reference anywhere in a resource, as (type, id)."""
    if isinstance(node, dict):
        target = parse_reference(node.get("reference"))
        if target:
            yield target
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)
