"""Put the population together: the practice, a chart for each patient, and groups of patients."""

from collections.abc import Iterator
from random import Random

from sandbox.population.chart import NOW, Chart, standing_entries
from sandbox.population.codes import DIABETES
from sandbox.population.elements import Population, Resource, instant, reference
from sandbox.population.ids import new_id
from sandbox.population.patient import build_patient
from sandbox.population.people import CAST, Person, person
from sandbox.population.practice import Practice, build_practice
from sandbox.population.visits import visit_entries

TYPES = (
    "AllergyIntolerance",
    "Binary",
    "Condition",
    "DocumentReference",
    "Encounter",
    "Group",
    "Immunization",
    "MedicationRequest",
    "Observation",
    "Organization",
    "Patient",
    "Practitioner",
)


def build(seed: int, patients: int) -> Population:
    """Return the population of `seed`: type, then id, then resource, the cast's patients first.

    Each chart is seeded by itself: the first patients are the same in a small population and in a large one.
    """
    practice = build_practice(Random(f"{seed}:practice"))
    population: Population = {type_: {} for type_ in TYPES}
    people: list[tuple[Person, Resource]] = []
    for resource in practice.organizations + practice.practitioners:
        _add(population, resource)
    for number in range(patients):
        chart = _open_chart(Random(f"{seed}:{number}"), number, practice)
        people.append((chart.person, chart.patient))
        for resource in (chart.patient, *standing_entries(chart), *visit_entries(chart)):
            _add(population, resource)
    for group in _groups(Random(f"{seed}:groups"), people):
        _add(population, group)
    return population


def _add(population: Population, resource: Resource) -> None:
    population[resource["resourceType"]][resource["id"]] = resource


def _open_chart(random: Random, number: int, practice: Practice) -> Chart:
    someone = person(random, number)
    patient = build_patient(random, someone, number, practice)
    return Chart(random, someone, patient, random.choice(practice.practitioners), practice)


def _groups(random: Random, people: list[tuple[Person, Resource]]) -> Iterator[Resource]:
    yield _group(random, "Demonstration cast", people[: len(CAST)])
    yield _group(random, "Diabetes registry", [member for member in people if DIABETES in member[0].problems])


def _group(random: Random, name: str, members: list[tuple[Person, Resource]]) -> Resource:
    return {
        "resourceType": "Group",
        "id": new_id(random),
        "meta": {"versionId": "1", "lastUpdated": instant(NOW)},
        "identifier": [{"system": "urn:oid:1.2.840.114350.1.13.0.1.7.2.698283", "value": name}],
        "active": True,
        "type": "person",
        "actual": True,
        "name": name,
        "quantity": len(members),
        "member": [{"entity": reference(patient, someone.name)} for someone, patient in members],
    }
