"""What a visit leaves in the chart: the encounter, vital signs, laboratory results and a note."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta

from sandbox.population.chart import Chart
from sandbox.population.codes import (
    BLOOD_PRESSURE,
    BODY_MASS_INDEX,
    DIASTOLIC,
    HEIGHT,
    LABORATORY,
    SYSTOLIC,
    VITAL_SIGNS,
    WEIGHT,
    Measure,
)
from sandbox.population.elements import (
    HL7,
    LOINC,
    SNOMED,
    US_CORE,
    Resource,
    coding,
    concept,
    instant,
    quantity,
    reference,
)

_CATEGORIES = {
    "vital-signs": coding(f"{HL7}/observation-category", "vital-signs", "Vital Signs"),
    "laboratory": coding(f"{HL7}/observation-category", "laboratory", "Laboratory"),
}
_MEDICAL_RECORD = "urn:oid:1.2.840.114350.1.13.0.1.7.3.698084.8"


def visit_entries(chart: Chart) -> Iterator[Resource]:
    """Two to four visits of the last three years; the first of them drew blood."""
    times = sorted(chart.past(3) for _ in range(chart.random.randint(2, 4)))
    for number, start in enumerate(times):
        encounter = _encounter(chart, start)
        yield encounter
        yield from _vital_signs(chart, encounter, start)
        if number == 0 or chart.random.random() < 0.5:
            yield from (_measured(chart, encounter, start, "laboratory", measure) for measure in LABORATORY)
        yield from _note(chart, encounter, start)


def _encounter(chart: Chart, start: datetime) -> Resource:
    end = start + timedelta(minutes=chart.random.choice((20, 30, 45)))
    clinic = chart.random.choice(chart.practice.organizations[1:])
    return {
        **chart.new("Encounter", "us-core-encounter", end),
        "identifier": [
            {"use": "usual", "system": _MEDICAL_RECORD, "value": str(chart.random.randint(10000, 99999999))}
        ],
        "status": "finished",
        "class": coding(f"{HL7}/v3-ActCode", "AMB", "ambulatory"),
        "type": [concept(coding(SNOMED, "185349003", "Encounter for check up"))],
        "subject": chart.subject,
        "participant": [{"individual": chart.author}],
        "period": {"start": instant(start), "end": instant(end)},
        "serviceProvider": reference(clinic, clinic["name"]),
    }


def _observation(chart: Chart, encounter: Resource, taken: datetime, category: str, code: Resource) -> Resource:
    profile = "us-core-vital-signs" if category == "vital-signs" else "us-core-observation-lab"
    return {
        **chart.new("Observation", profile, taken),
        "status": "final",
        "category": [concept(_CATEGORIES[category])],
        "code": concept(code),
        "subject": chart.subject,
        "encounter": reference(encounter),
        "effectiveDateTime": instant(taken),
        "issued": instant(taken + timedelta(minutes=5)),
        "performer": [chart.author],
    }


def _value(chart: Chart, measure: Measure) -> Resource:
    ill = measure.raised_by in chart.person.problems
    low, high = measure.raised_to if ill else (measure.low, measure.high)
    value = round(chart.random.uniform(low, high), measure.decimals)
    return quantity(value if measure.decimals else int(value), measure.unit)


def _measured(chart: Chart, encounter: Resource, taken: datetime, category: str, measure: Measure) -> Resource:
    observation = _observation(chart, encounter, taken, category, measure.coding)
    observation["valueQuantity"] = _value(chart, measure)
    if category == "laboratory":
        limits = {"low": quantity(measure.low, measure.unit), "high": quantity(measure.high, measure.unit)}
        observation["referenceRange"] = [limits]
    return observation


def _vital_signs(chart: Chart, encounter: Resource, taken: datetime) -> Iterator[Resource]:
    pressure = _observation(chart, encounter, taken, "vital-signs", BLOOD_PRESSURE)
    pressure["component"] = [
        {"code": concept(measure.coding), "valueQuantity": _value(chart, measure)} for measure in (SYSTOLIC, DIASTOLIC)
    ]
    yield pressure
    for measure in VITAL_SIGNS:
        yield _measured(chart, encounter, taken, "vital-signs", measure)
    height, weight = _build(chart)
    index = round(weight / (height / 100) ** 2, 1)
    for code, value, unit in ((HEIGHT, height, "cm"), (WEIGHT, weight, "kg"), (BODY_MASS_INDEX, index, "kg/m2")):
        observation = _observation(chart, encounter, taken, "vital-signs", code)
        yield {**observation, "valueQuantity": quantity(value, unit)}


def _build(chart: Chart) -> tuple[float, float]:
    """Height in cm and weight in kg that go with sex and age."""
    grown = {"female": 163.0, "male": 176.0}[chart.person.gender]
    height = min(grown, 77.0 + 6 * chart.person.age) + chart.random.randint(-4, 4)
    index = chart.random.uniform(15, 18) if chart.person.age < 13 else chart.random.uniform(20, 31)
    return height, round(index * (height / 100) ** 2, 1)


def _note(chart: Chart, encounter: Resource, written: datetime) -> Iterator[Resource]:
    """Write a DocumentReference and the Binary that holds its text."""
    text = (
        f"Progress note\n\nPatient: {chart.person.name}\nDate: {written:%Y-%m-%d}\n"
        f"Seen for a check up. Chart reviewed, plan discussed; return as needed.\n"
        f"Signed: {chart.author['display']}\n"
    )
    binary = {
        "resourceType": "Binary",
        "id": chart.new("Binary", "", written)["id"],
        "meta": {"versionId": "1", "lastUpdated": instant(written)},
        "contentType": "text/plain",
        "securityContext": {"reference": chart.subject["reference"]},
        "data": b64encode(text.encode()).decode(),
    }
    yield binary
    category = coding(
        f"{US_CORE.replace('StructureDefinition', 'CodeSystem')}/us-core-documentreference-category",
        "clinical-note",
        "Clinical Note",
    )
    attachment = {
        "contentType": "text/plain",
        "url": f"Binary/{binary['id']}",
        "title": "Progress note",
        "creation": instant(written),
    }
    yield {
        **chart.new("DocumentReference", "us-core-documentreference", written),
        "status": "current",
        "docStatus": "final",
        "type": concept(coding(LOINC, "11506-3", "Progress note")),
        "category": [concept(category)],
        "subject": chart.subject,
        "date": instant(written),
        "author": [chart.author],
        "content": [{"attachment": attachment}],
        "context": {"encounter": [reference(encounter)], "period": encounter["period"]},
    }
