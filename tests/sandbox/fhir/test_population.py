"""The population is synthetic, seeded, valid and plausible."""

import json
import re
from collections.abc import Iterator
from datetime import date

import pytest

from sandbox.fhir.compartment import patient_of, references
from sandbox.population import build
from sandbox.population.build import TYPES
from sandbox.population.codes import DIABETES, PROBLEMS
from sandbox.population.elements import Population, Resource, years_between
from sandbox.population.people import CAST, TODAY
from tests.sandbox.fhir.conftest import Ehr


@pytest.mark.parametrize("type_", TYPES)
def test_every_resource_is_valid_fhir_r4(population: Population, type_: str) -> None:
    from fhir.resources.R4B import get_fhir_model_class  # noqa: PLC0415 - half a second that other tests need not pay

    model = get_fhir_model_class(type_)
    assert population[type_]
    for id_, resource in population[type_].items():
        assert json.loads(model.model_validate(resource).model_dump_json())["id"] == id_


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert json.dumps(build(7, 12)) == json.dumps(build(7, 12))


def test_another_seed_gives_other_people() -> None:
    assert build(7, 12)["Patient"].keys().isdisjoint(build(8, 12)["Patient"].keys())


def test_a_small_population_is_the_beginning_of_a_large_one(population: Population) -> None:
    small = build(7, 12)["Observation"]
    assert small.items() <= population["Observation"].items()
    assert len(small) > 100


def test_the_cast_comes_first_and_there_are_at_least_two_hundred_patients(ehr: Ehr) -> None:
    names = [patient["name"][0]["text"] for patient in ehr.all("Patient")]
    assert names[:2] == ["Amy Shaw", "Camila Lopez"]
    assert names[: len(CAST)] == [member.name for member in CAST]
    assert len(names) == 200


def test_every_id_is_one_that_fhir_allows(population: Population) -> None:
    assert all(re.fullmatch(r"e[A-Za-z0-9.-]{22}3", id_) for resources in population.values() for id_ in resources)


def test_every_resource_is_a_first_version_with_an_instant(population: Population) -> None:
    for resource in _everything(population):
        assert resource["meta"]["versionId"] == "1"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", resource["meta"]["lastUpdated"])


def test_every_reference_leads_to_a_resource(population: Population) -> None:
    found = [key for resource in _everything(population) for key in references(resource)]
    assert len(found) > 10_000
    assert all(id_ in population[type_] for type_, id_ in found)


def test_every_note_has_its_text_and_both_are_the_same_patients(population: Population) -> None:
    for document in population["DocumentReference"].values():
        type_, id_ = document["content"][0]["attachment"]["url"].split("/")
        assert population[type_][id_]["securityContext"]["reference"] == document["subject"]["reference"]


def test_patients_have_race_ethnicity_identifier_telecom_and_address(ehr: Ehr) -> None:
    for patient in ehr.all("Patient"):
        assert [extension["url"].rpartition("/")[2] for extension in patient["extension"]][:2] == [
            "us-core-race",
            "us-core-ethnicity",
        ]
        assert {"identifier", "name", "telecom", "address", "gender", "birthDate"} <= patient.keys()


def test_record_numbers_are_unique(ehr: Ehr) -> None:
    numbers = {patient["identifier"][0]["value"] for patient in ehr.all("Patient")}
    assert len(numbers) == 200


def test_every_medication_is_for_a_condition_the_patient_has(ehr: Ehr) -> None:
    conditions = {(c["subject"]["reference"], c["code"]["coding"][0]["code"]) for c in ehr.all("Condition")}
    orders = ehr.all("MedicationRequest")
    assert len(orders) > 50
    for order in orders:
        assert (order["subject"]["reference"], order["reasonCode"][0]["coding"][0]["code"]) in conditions


def test_nobody_has_a_condition_outside_its_ages(ehr: Ehr) -> None:
    ages = {problem.snomed[0]: problem.ages for problem in PROBLEMS}
    for condition in ehr.all("Condition"):
        low, high = ages[condition["code"]["coding"][0]["code"]]
        assert low <= _age(ehr.population, condition["subject"]["reference"]) <= high


def test_nothing_happened_before_birth(ehr: Ehr) -> None:
    for type_, element in (("Immunization", "occurrenceDateTime"), ("Condition", "onsetDateTime")):
        for resource in ehr.all(type_):
            patient = patient_of(resource)
            assert patient is not None
            assert resource[element] > ehr.population["Patient"][patient]["birthDate"]


def test_hemoglobin_a1c_is_raised_in_diabetes_and_only_there(ehr: Ehr) -> None:
    diabetics = {c["subject"]["reference"] for c in ehr.all("Condition") if c["code"]["coding"][0]["code"] == DIABETES}
    results = [o for o in ehr.all("Observation") if o["code"]["coding"][0]["code"] == "4548-4"]
    assert diabetics & {o["subject"]["reference"] for o in results}
    for result in results:
        assert (result["valueQuantity"]["value"] >= 6.5) == (result["subject"]["reference"] in diabetics)


@pytest.mark.parametrize(
    ("loinc", "low", "high"),
    [
        ("8867-4", 58, 96),
        ("9279-1", 12, 20),
        ("8310-5", 36.2, 37.4),
        ("2708-6", 95, 100),
        ("8302-2", 70, 181),
        ("29463-7", 7, 105),
        ("39156-5", 14.8, 31.2),
        ("2823-3", 3.5, 5.1),
        ("2160-0", 0.6, 2.1),
    ],
)
def test_values_are_in_a_human_range(ehr: Ehr, loinc: str, low: float, high: float) -> None:
    values = [o["valueQuantity"]["value"] for o in ehr.all("Observation") if o["code"]["coding"][0]["code"] == loinc]
    assert len(values) > 200
    assert low <= min(values) <= max(values) <= high


def test_systolic_pressure_is_above_diastolic(ehr: Ehr) -> None:
    panels = [o["component"] for o in ehr.all("Observation") if "component" in o]
    assert len(panels) > 200
    assert all(systolic["valueQuantity"]["value"] > d["valueQuantity"]["value"] for systolic, d in panels)


def test_national_provider_identifiers_have_a_true_check_digit(ehr: Ehr) -> None:
    for resource in ehr.all("Practitioner") + ehr.all("Organization"):
        digits = [int(digit) for digit in "80840" + resource["identifier"][0]["value"]]
        doubled = [sum(divmod(digit * 2, 10)) for digit in digits[-2::-2]]
        assert (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _everything(population: Population) -> Iterator[Resource]:
    for resources in population.values():
        yield from resources.values()


def _age(population: Population, reference: str) -> int:
    born = population["Patient"][reference.split("/")[1]]["birthDate"]
    return years_between(date.fromisoformat(born), TODAY)
