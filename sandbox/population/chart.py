"""What a chart says between visits: problems, medications, allergies and immunizations."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from sandbox.population.codes import ALLERGENS, NO_KNOWN_ALLERGY, PROBLEMS, VACCINES, Problem
from sandbox.population.elements import HL7, RXNORM, Resource, coding, concept, instant, meta, reference, status
from sandbox.population.ids import new_id
from sandbox.population.people import TODAY, Person
from sandbox.population.practice import Practice

NOW = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)

_KNOWN_ALLERGY_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Chart:
    """Whose chart is written, and with what."""

    random: Random
    person: Person
    patient: Resource
    clinician: Resource
    practice: Practice

    def new(self, type_: str, profile: str, updated: datetime) -> Resource:
        """Return the first elements of a new entry."""
        return {"resourceType": type_, "id": new_id(self.random), "meta": meta(profile, updated)}

    @property
    def subject(self) -> Resource:
        """A reference to the patient."""
        return reference(self.patient, self.person.name)

    @property
    def author(self) -> Resource:
        """A reference to the clinician."""
        return reference(self.clinician, self.clinician["name"][0]["text"])

    def past(self, years: float) -> datetime:
        """Return a working hour in the last `years`, within the person's life."""
        days = min(int(years * 365), max(30, (TODAY - self.person.birth_date).days - 30))
        moment = NOW - timedelta(days=self.random.randint(14, days))
        return moment.replace(hour=self.random.randint(14, 21), minute=self.random.choice((0, 15, 30, 45)))


def standing_entries(chart: Chart) -> Iterator[Resource]:
    """Problems with their medications, allergies, immunizations."""
    for problem in PROBLEMS:
        if problem.snomed[0] in chart.person.problems:
            onset = chart.past(8)
            yield _condition(chart, problem, onset)
            if problem.medication:
                yield _medication_request(chart, problem, problem.medication, onset)
    yield _allergy(chart)
    for vaccine, from_age in VACCINES:
        if chart.person.age >= from_age:
            yield _immunization(chart, vaccine)


def _condition(chart: Chart, problem: Problem, onset: datetime) -> Resource:
    category = coding(f"{HL7}/condition-category", "problem-list-item", "Problem List Item")
    return {
        **chart.new("Condition", "us-core-condition-problems-health-concerns", onset),
        "clinicalStatus": status("condition-clinical", "active"),
        "verificationStatus": status("condition-ver-status", "confirmed"),
        "category": [concept(category)],
        "code": concept(*problem.codings),
        "subject": chart.subject,
        "onsetDateTime": onset.date().isoformat(),
        "recordedDate": instant(onset),
    }


def _medication_request(chart: Chart, problem: Problem, medication: tuple[str, str], onset: datetime) -> Resource:
    return {
        **chart.new("MedicationRequest", "us-core-medicationrequest", onset),
        "status": chart.random.choice(("active", "active", "active", "completed")),
        "intent": "order",
        "category": [concept(coding(f"{HL7}/medicationrequest-category", "community", "Community"))],
        "medicationCodeableConcept": concept(coding(RXNORM, *medication)),
        "subject": chart.subject,
        "authoredOn": instant(onset),
        "requester": chart.author,
        "reasonCode": [concept(*problem.codings)],
        "dosageInstruction": [{"text": problem.dose}],
    }


def _allergy(chart: Chart) -> Resource:
    """One allergy, or the statement that there is none."""
    recorded = chart.past(8)
    known = chart.random.random() < _KNOWN_ALLERGY_SHARE
    substance, category, reaction = chart.random.choice(ALLERGENS)
    details = {
        "category": [category],
        "criticality": chart.random.choice(("low", "high")),
    }
    return {
        **chart.new("AllergyIntolerance", "us-core-allergyintolerance", recorded),
        "clinicalStatus": status("allergyintolerance-clinical", "active"),
        "verificationStatus": status("allergyintolerance-verification", "confirmed"),
        **(details if known else {}),
        "code": concept(substance if known else NO_KNOWN_ALLERGY),
        "patient": chart.subject,
        "recordedDate": instant(recorded),
        "recorder": chart.author,
        **({"reaction": [{"manifestation": [concept(reaction)]}]} if known else {}),
    }


def _immunization(chart: Chart, vaccine: Resource) -> Resource:
    given = chart.past(5)
    return {
        **chart.new("Immunization", "us-core-immunization", given),
        "status": "completed",
        "vaccineCode": concept(vaccine),
        "patient": chart.subject,
        "occurrenceDateTime": instant(given),
        "primarySource": True,
    }
