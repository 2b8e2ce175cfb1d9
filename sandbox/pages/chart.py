"""What a patient's chart shows, taken from the FHIR resources."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.launching import Resources

Resource = Mapping[str, Any]

_UNITS = {"mm[Hg]": "mmHg", "Cel": "°C", "kg/m2": "kg/m²"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a chart."""

    what: str
    value: str
    when: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a chart, the newest entry first."""

    title: str
    entries: list[Entry]


def sections(population: Resources, patient: str) -> list[Section]:
    """Return the chart of one patient."""

    def own(type_: str) -> list[Resource]:
        return [resource for resource in population.get(type_, {}).values() if _is_about(resource, patient)]

    observations = own("Observation")
    return [
        Section("Problems", _entries(own("Condition"), 12)),
        Section("Vital signs", _latest(_of_category(observations, "vital-signs"))),
        Section("Results", _latest(_of_category(observations, "laboratory"))),
        Section("Medications", _entries(own("MedicationRequest"), 12)),
        Section("Allergies", _entries(own("AllergyIntolerance"), 12)),
        Section("Immunizations", _entries(own("Immunization"), 8)),
        Section("Encounters", _entries(own("Encounter"), 8)),
    ]


def contact(patient: Resource) -> list[str]:
    """Return address and telephone, a line each."""
    address: Resource = next(iter(patient.get("address", ())), {})
    place = [*address.get("line", ()), address.get("city"), address.get("state"), address.get("postalCode")]
    telecom = [point.get("value") for point in patient.get("telecom", ())]
    return [line for line in (", ".join(filter(None, place)), " · ".join(filter(None, telecom))) if line]


def _is_about(resource: Resource, patient: str) -> bool:
    reference = resource.get("subject") or resource.get("patient") or {}
    return bool(reference.get("reference") == f"Patient/{patient}")


def _of_category(observations: Iterable[Resource], category: str) -> Iterator[Resource]:
    for observation in observations:
        codings = (coding for concept in observation.get("category", ()) for coding in concept.get("coding", ()))
        if any(coding.get("code") == category for coding in codings):
            yield observation


def _entries(resources: Iterable[Resource], most: int) -> list[Entry]:
    entries = [Entry(_text(_concept(resource)), _value(resource), _date(resource)) for resource in resources]
    return sorted(entries, key=lambda entry: entry.when, reverse=True)[:most]


def _latest(observations: Iterable[Resource]) -> list[Entry]:
    """Return the newest observation of each kind, as a flow sheet would."""
    newest: dict[str, Entry] = {}
    for entry in sorted(_entries(observations, most=10_000), key=lambda entry: entry.when):
        newest[entry.what] = entry
    return [newest[what] for what in sorted(newest)]


def _concept(resource: Resource) -> Any:
    for element in ("code", "medicationCodeableConcept", "vaccineCode"):
        if element in resource:
            return resource[element]
    return next(iter(resource.get("type", ())), None)


def _text(concept: Any) -> str:
    concept = concept or {}
    coding: Resource = next(iter(concept.get("coding", ())), {})
    return str(concept.get("text") or coding.get("display") or coding.get("code") or "")


def _value(resource: Resource) -> str:
    """Return an observation's value, its components' values, or the status of anything else."""
    if "component" in resource:
        return " / ".join(map(_value, resource["component"]))
    if quantity := resource.get("valueQuantity"):
        unit = quantity.get("unit", "")
        return f"{quantity.get('value', '')} {_UNITS.get(unit, unit)}".strip()
    if "valueCodeableConcept" in resource:
        return _text(resource["valueCodeableConcept"])
    status = resource.get("clinicalStatus")
    return str(resource.get("valueString") or (_text(status) if status else resource.get("status", "")).capitalize())


def _date(resource: Resource) -> str:
    for element in ("effectiveDateTime", "onsetDateTime", "authoredOn", "occurrenceDateTime", "recordedDate"):
        if element in resource:
            return str(resource[element])[:10]
    return str(resource.get("period", {}).get("start", ""))[:10]
