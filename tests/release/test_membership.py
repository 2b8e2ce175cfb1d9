"""Whose a resource is, by the elements of CompartmentDefinition/patient (FHIR R4)."""

from typing import Any

import pytest

from broker.compartment import binding_pair, is_in_compartment
from broker.membership import Patient, is_shared, may_be_owned

BASE = "https://ehr.example/R4"
ME = Patient("pat-1", BASE)


def to(reference: object) -> dict[str, Any]:
    return {"reference": reference}


MINE, OTHER = to("Patient/pat-1"), to("Patient/pat-2")


@pytest.mark.parametrize(
    "resource",
    [
        {"resourceType": "Patient", "id": "pat-1"},
        {"resourceType": "Observation", "subject": MINE},
        {"resourceType": "Observation", "subject": to("Patient/pat-1/_history/3")},
        {"resourceType": "Observation", "subject": to(f"{BASE}/Patient/pat-1")},
        {"resourceType": "Observation", "subject": to(f"{BASE}/Patient/pat-1/_history/3")},
        {"resourceType": "Observation", "subject": MINE, "performer": [OTHER]},
        {"resourceType": "Observation", "performer": [to("Practitioner/pr1"), MINE]},
        {"resourceType": "Observation", "subject": MINE, "performer": [to("RelatedPerson/9"), {"display": "somebody"}]},
        {"resourceType": "Observation", "subject": to("Location/l1"), "performer": [MINE]},
        {"resourceType": "QuestionnaireResponse", "subject": to("Practitioner/pr1"), "author": MINE},
        {"resourceType": "Communication", "sender": MINE, "recipient": [to("Practitioner/pr1")]},
        {"resourceType": "Communication", "subject": MINE, "sender": MINE, "recipient": [OTHER]},
        {
            "resourceType": "Appointment",
            "participant": [{"actor": MINE}, {"actor": to("RelatedPerson/9")}, {"actor": to("Device/d1")}],
        },
        {"resourceType": "AuditEvent", "entity": [{"what": MINE}, {"what": to("Observation/1")}]},
        {"resourceType": "AllergyIntolerance", "patient": MINE},
        {"resourceType": "Appointment", "participant": [{"actor": to("Practitioner/pr1")}, {"actor": MINE}]},
        {"resourceType": "CarePlan", "activity": [{"detail": {"performer": [MINE]}}]},
        {"resourceType": "Coverage", "beneficiary": MINE, "subscriber": OTHER},
        {"resourceType": "Device", "patient": MINE},
        {"resourceType": "Provenance", "target": [MINE]},
        {"resourceType": "AuditEvent", "agent": [{"who": to("Practitioner/pr1")}], "entity": [{"what": MINE}]},
        {"resourceType": "SupplyRequest", "deliverTo": MINE},
        {"resourceType": "EnrollmentRequest", "candidate": MINE},
    ],
)
def test_what_the_compartment_holds_of_nobody_else_is_the_patients(resource: dict[str, Any]) -> None:
    """PX-14."""
    assert ME.owns(resource)
    assert not Patient("pat-2", BASE).owns(resource)


@pytest.mark.parametrize(
    "resource",
    [
        {},
        {"resourceType": None},
        {"resourceType": ["Observation"], "subject": MINE},
        {"resourceType": "observation", "subject": MINE},
        {"resourceType": "Patient"},
        {"resourceType": "Patient", "id": "pat-2", "link": [{"other": MINE}]},
        {"resourceType": "Patient", "id": ["pat-1"]},
        {"resourceType": "Observation", "subject": [[MINE]]},
        {"resourceType": "Observation", "subject": [MINE, []]},
        {"resourceType": "Observation", "performer": [[MINE]]},
        {"resourceType": "Appointment", "participant": ["actor", 1, None]},
        {"resourceType": "Appointment", "participant": [{"actor": MINE}, [{"actor": OTHER}]]},
        {"resourceType": "Appointment", "participant": [{"actor": MINE}, {"actor": [[OTHER]]}]},
        {"resourceType": "Group", "member": [{"entity": MINE}]},
        {"resourceType": "Person", "link": [{"target": MINE}]},
        {"resourceType": "Practitioner", "id": "pat-1"},
        {"resourceType": "Binary", "securityContext": MINE},
        {"resourceType": "Task", "for": MINE},
        {"resourceType": "Observation"},
        {"resourceType": "Observation", "subject": OTHER},
        {"resourceType": "Observation", "subject": OTHER, "performer": [MINE]},
        {"resourceType": "Observation", "subject": [MINE, OTHER]},
        {"resourceType": "Observation", "subject": "Patient/pat-1"},
        {"resourceType": "Observation", "patient": MINE},
        {"resourceType": "Observation", "focus": [MINE]},
        {"resourceType": "Observation", "subject": to("Patient/pat-10")},
        {"resourceType": "Observation", "subject": to("Patient/PAT-1")},
        {"resourceType": "Observation", "subject": to("patient/pat-1")},
        {"resourceType": "Observation", "subject": to("/Patient/pat-1")},
        {"resourceType": "Observation", "subject": to("./Patient/pat-1")},
        {"resourceType": "Observation", "subject": to("Patient/pat-1 ")},
        {"resourceType": "Observation", "subject": to("Patient/pat-1\n")},
        {"resourceType": "Observation", "subject": to("Patient/pat-1/Observation/2")},
        {"resourceType": "Observation", "subject": to("Patient/pat-1?x=y")},
        {"resourceType": "Observation", "subject": to("Patient?identifier=pat-1")},
        {"resourceType": "Observation", "subject": to("https://elsewhere.example/R4/Patient/pat-1")},
        {"resourceType": "Observation", "subject": to(f"{BASE}.evil.example/Patient/pat-1")},
        {"resourceType": "Observation", "subject": to(f"{BASE}/../R4/Patient/pat-1")},
        {"resourceType": "Observation", "subject": to("urn:uuid:7b1f0f4e-0000-4000-8000-000000000000")},
        {"resourceType": "Observation", "subject": to("#pat-1")},
        {"resourceType": "Observation", "subject": to(None)},
        {"resourceType": "Observation", "subject": {"type": "Patient", "identifier": {"value": "pat-1"}}},
        {"resourceType": "Observation", "subject": {"display": "somebody"}, "performer": [MINE]},
        {"resourceType": "Observation", "subject": to("#p"), "performer": [MINE]},
        {"resourceType": "Appointment", "participant": [{"actor": MINE}, {"actor": OTHER}]},
        {"resourceType": "Communication", "subject": OTHER, "sender": MINE},
        {"resourceType": "Coverage", "beneficiary": OTHER, "subscriber": MINE},
        {"resourceType": "RelatedPerson", "patient": OTHER},
        {"resourceType": "Provenance", "target": [to("Observation/1")]},
        {"resourceType": "Provenance", "target": [MINE, OTHER]},
        {"resourceType": "Provenance", "target": [MINE, to("Observation/1")]},
        {"resourceType": "Observation", "subject": to("Group/g1"), "performer": [MINE]},
        {"resourceType": "Observation", "subject": to("Device/d1"), "performer": [MINE]},
        {"resourceType": "Observation", "performer": [MINE, OTHER]},
        {"resourceType": "Observation", "performer": [MINE, {"display": "somebody"}]},
        {"resourceType": "Basic", "subject": to("Person/2"), "author": MINE},
        {"resourceType": "QuestionnaireResponse", "subject": to("RelatedPerson/9"), "author": MINE},
        {"resourceType": "QuestionnaireResponse", "subject": to("Encounter/2"), "author": MINE},
        {"resourceType": "Communication", "sender": MINE, "recipient": [OTHER]},
        {"resourceType": "Communication", "sender": MINE, "recipient": [to("Group/g1")]},
        {"resourceType": "Account", "subject": [MINE, to("Device/d1")]},
        {"resourceType": "Schedule", "actor": [MINE, to("RelatedPerson/9")]},
        {"resourceType": "Appointment", "participant": [{"actor": MINE}, {"actor": to("Group/g1")}]},
        {"resourceType": "Appointment", "participant": [{"actor": to("RelatedPerson/9")}]},
        {"resourceType": "AuditEvent", "entity": [{"what": MINE}, {"what": OTHER}]},
        {"resourceType": "AuditEvent", "entity": [{"what": MINE}, {"what": to("Group/g1")}]},
        {"resourceType": "AuditEvent", "entity": [{"what": MINE}, {"what": to("Person/2")}]},
        {"resourceType": "AuditEvent", "entity": [{"what": to("Observation/1")}]},
        {"resourceType": "Encounter", "Subject": MINE},
    ],
)
def test_what_is_about_somebody_else_or_cannot_be_read_is_not(resource: dict[str, Any]) -> None:
    """PX-14."""
    assert not ME.owns(resource)


def test_nothing_is_both_one_patients_and_everybodys() -> None:
    types = [type_ for type_ in PATIENTS if is_shared(type_)]

    assert types == []
    assert not is_shared("Group")
    assert not may_be_owned("Group")


SHARED = """
ActivityDefinition CodeSystem ConceptMap Endpoint HealthcareService InsurancePlan Library Location Measure
Medication MedicationKnowledge NamingSystem Organization OrganizationAffiliation PlanDefinition Practitioner
PractitionerRole Questionnaire StructureDefinition Substance ValueSet
"""
"""Types whose resources hold nothing of any patient: definitions, terminology, and who and what an EHR works with."""


@pytest.mark.parametrize("type_", SHARED.split())
def test_what_an_ehr_has_for_all_patients_is_nobodys(type_: str) -> None:
    """PX-14."""
    assert is_shared(type_)
    assert not may_be_owned(type_)
    assert not ME.owns({"resourceType": type_, "id": "pat-1", "subject": MINE})


@pytest.mark.parametrize(
    "type_", ["Binary", "Bundle", "Group", "Parameters", "Person", "Task", "Subscription", "*", ""]
)
def test_what_may_be_about_a_patient_is_not_nobodys(type_: str) -> None:
    """PX-14."""
    assert not is_shared(type_)


ELEMENTS = """
Account: subject
AdverseEvent: subject
AllergyIntolerance: patient | recorder asserter
Appointment: participant.actor
AppointmentResponse: actor
AuditEvent: agent.who entity.what
Basic: subject | author
BodyStructure: patient
CarePlan: subject | activity.detail.performer
CareTeam: subject | participant.member
ChargeItem: subject
Claim: patient | payee.party
ClaimResponse: patient
ClinicalImpression: subject
Communication: subject | sender recipient
CommunicationRequest: subject | sender recipient requester
Composition: subject | author attester.party
Condition: subject | asserter
Consent: patient
Coverage: beneficiary | policyHolder subscriber payor
CoverageEligibilityRequest: patient
CoverageEligibilityResponse: patient
DetectedIssue: patient
Device: patient
DeviceRequest: subject | performer
DeviceUseStatement: subject
DiagnosticReport: subject
DocumentManifest: subject | author recipient
DocumentReference: subject | author
Encounter: subject
EnrollmentRequest: candidate
EpisodeOfCare: patient
ExplanationOfBenefit: patient | payee.party
FamilyMemberHistory: patient
Flag: subject
Goal: subject
ImagingStudy: subject
Immunization: patient
ImmunizationEvaluation: patient
ImmunizationRecommendation: patient
Invoice: subject | recipient
List: subject | source
MeasureReport: subject
Media: subject
MedicationAdministration: subject | performer.actor
MedicationDispense: subject | receiver
MedicationRequest: subject
MedicationStatement: subject
MolecularSequence: patient
NutritionOrder: patient
Observation: subject | performer
Procedure: subject | performer.actor
Provenance: target
QuestionnaireResponse: subject | author
RelatedPerson: patient
RequestGroup: subject | action.participant
ResearchSubject: individual
RiskAssessment: subject
Schedule: actor
ServiceRequest: subject | performer
Specimen: subject
SupplyDelivery: patient
SupplyRequest: deliverTo
VisionPrescription: patient
"""
"""CompartmentDefinition/patient of FHIR R4, with the elements that its search parameters look at: those that say whom a
resource is about, and after the bar who else stands in it. Without Group and Person; with Device."""
TABLE = [tuple(part.split() for part in line.replace(":", "").split("|")) for line in ELEMENTS.strip().splitlines()]
ROWS = [(first[0], path, True) for first, *_ in TABLE for path in first[1:]]
ROWS += [(first[0], path, False) for first, *more in TABLE for path in (more[0] if more else ())]
PATIENTS = ["Patient", *(first[0] for first, *_ in TABLE if first[0] != "Device")]


def nested(path: str, reference: dict[str, Any]) -> dict[str, Any]:
    """A resource's member with a reference at a dotted path, each step in a list."""
    name, _, rest = path.partition(".")
    return {name: [nested(rest, reference)] if rest else [reference]}


@pytest.mark.parametrize(("type_", "path", "is_about"), ROWS)
def test_each_element_of_the_definition_puts_a_resource_into_the_compartment(
    type_: str, path: str, *, is_about: bool
) -> None:
    """PX-14: one that says whom it is about puts it there alone; any other beside somebody else, if that is said."""
    assert ME.owns({"resourceType": type_, **nested(path, MINE)})
    assert not ME.owns({"resourceType": type_, **nested(path, OTHER)})
    name = path.partition(".")[0]
    both = {"resourceType": type_, name: nested(path, OTHER)[name] + nested(path, MINE)[name]}
    assert not ME.owns(both)
    if not is_about:
        about = next(about for of, about, is_about in ROWS if of == type_ and is_about)
        assert ME.owns(both | nested(about, MINE))


@pytest.mark.parametrize("type_", PATIENTS)
def test_every_type_of_the_compartment_can_be_told_to_be_a_patients(type_: str) -> None:
    assert may_be_owned(type_)
    assert type_ == "Patient" or is_in_compartment(type_)


@pytest.mark.parametrize("type_", [*PATIENTS, "Device"])
def test_a_type_that_a_search_can_bind_can_be_checked_too(type_: str) -> None:
    pair = binding_pair(type_, "pat-1")

    assert pair in {None, ("patient", "pat-1"), ("_id", "pat-1")}
    assert may_be_owned(type_)
