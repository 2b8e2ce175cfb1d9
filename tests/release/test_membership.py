"""Whose a resource is, by the elements of CompartmentDefinition/patient (FHIR R4)."""

from typing import Any

import pytest

from broker.compartment import binding_pair, is_bound_by_path
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
        {"resourceType": "Observation", "subject": to("Group/g1"), "performer": [MINE]},
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


PATIENTS = [
    "Account",
    "AdverseEvent",
    "AllergyIntolerance",
    "Appointment",
    "AppointmentResponse",
    "AuditEvent",
    "Basic",
    "BodyStructure",
    "CarePlan",
    "CareTeam",
    "ChargeItem",
    "Claim",
    "ClaimResponse",
    "ClinicalImpression",
    "Communication",
    "CommunicationRequest",
    "Composition",
    "Condition",
    "Consent",
    "Coverage",
    "CoverageEligibilityRequest",
    "CoverageEligibilityResponse",
    "DetectedIssue",
    "DeviceRequest",
    "DeviceUseStatement",
    "DiagnosticReport",
    "DocumentManifest",
    "DocumentReference",
    "Encounter",
    "EnrollmentRequest",
    "EpisodeOfCare",
    "ExplanationOfBenefit",
    "FamilyMemberHistory",
    "Flag",
    "Goal",
    "ImagingStudy",
    "Immunization",
    "ImmunizationEvaluation",
    "ImmunizationRecommendation",
    "Invoice",
    "List",
    "MeasureReport",
    "Media",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationRequest",
    "MedicationStatement",
    "MolecularSequence",
    "NutritionOrder",
    "Observation",
    "Patient",
    "Procedure",
    "Provenance",
    "QuestionnaireResponse",
    "RelatedPerson",
    "RequestGroup",
    "ResearchSubject",
    "RiskAssessment",
    "Schedule",
    "ServiceRequest",
    "Specimen",
    "SupplyDelivery",
    "SupplyRequest",
    "VisionPrescription",
]
"""The types of CompartmentDefinition/patient of FHIR R4 that have parameters there, without Group and Person."""


@pytest.mark.parametrize("type_", PATIENTS)
def test_every_type_of_the_compartment_can_be_told_to_be_a_patients(type_: str) -> None:
    assert may_be_owned(type_)
    assert type_ == "Patient" or is_bound_by_path(type_)


@pytest.mark.parametrize("type_", [*PATIENTS, "Device"])
def test_a_type_that_a_search_can_bind_can_be_checked_too(type_: str) -> None:
    pair = binding_pair(type_, "pat-1")

    assert pair in {None, ("patient", "pat-1"), ("_id", "pat-1")}
    assert may_be_owned(type_)
