"""By which parameter a search of each type is bound to one patient, and which compartments are (FHIR R4)."""

import pytest

from broker.compartment import binding_pair, binding_pairs, is_bound_by_path, is_in_compartment

SUBJECT = """
CarePlan CareTeam ClinicalImpression Composition Condition DeviceRequest DeviceUseStatement DiagnosticReport
DocumentReference Encounter Flag Goal ImagingStudy List Media MedicationAdministration MedicationDispense
MedicationRequest MedicationStatement Observation Procedure QuestionnaireResponse RiskAssessment ServiceRequest Specimen
"""
"""Types with both search parameters, `patient` and `subject`."""
PATIENT = """
AllergyIntolerance Claim Consent Coverage Device EpisodeOfCare ExplanationOfBenefit
FamilyMemberHistory Immunization NutritionOrder RelatedPerson
"""
"""Types with `patient` alone."""
NEITHER = """
Account AdverseEvent Appointment AppointmentResponse AuditEvent Basic BodyStructure ChargeItem ClaimResponse
Communication CommunicationRequest CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue
DocumentManifest EnrollmentRequest ImmunizationEvaluation ImmunizationRecommendation Invoice MeasureReport
MolecularSequence Provenance RequestGroup ResearchSubject Schedule SupplyDelivery SupplyRequest VisionPrescription
"""
"""Further types of the Patient compartment."""
BESIDE_OTHERS = """
Account AllergyIntolerance Appointment AuditEvent Basic CarePlan CareTeam Claim Communication CommunicationRequest
Composition Condition Coverage DeviceRequest DocumentManifest DocumentReference ExplanationOfBenefit Invoice List
MedicationAdministration MedicationDispense Observation Procedure Provenance QuestionnaireResponse RequestGroup
Schedule ServiceRequest
"""
"""Those of which one patient's compartment holds what is about another, too."""
OUTSIDE = ("Binary", "Group", "Medication", "Organization", "Person", "Practitioner", "Task", "*", "")


@pytest.mark.parametrize("type_", [*SUBJECT.split(), *PATIENT.split(), *NEITHER.split(), *OUTSIDE])
def test_a_search_is_bound_by_the_parameters_that_its_type_has(type_: str) -> None:
    """PX-14."""
    by_patient = (
        {("patient", "p1"), ("patient", "Patient/p1")} if type_ in {*SUBJECT.split(), *PATIENT.split()} else set()
    )
    by_subject = {("subject", "Patient/p1")} if type_ in SUBJECT.split() else set()

    assert binding_pairs(type_, "p1") == by_patient | by_subject
    assert binding_pair(type_, "p1") == (("patient", "p1") if by_patient else None)


def test_a_search_of_patients_is_bound_by_the_id() -> None:
    """PX-14."""
    assert binding_pairs("Patient", "p1") == {("_id", "p1")}
    assert binding_pair("Patient", "p1") == ("_id", "p1")


@pytest.mark.parametrize("type_", [*SUBJECT.split(), *PATIENT.split(), *NEITHER.split(), *OUTSIDE, "Patient"])
def test_a_compartment_holds_the_types_that_are_about_its_patient(type_: str) -> None:
    """PX-14: a Device may be one patient's, and is in no compartment."""
    assert is_in_compartment(type_) is (type_ not in {*OUTSIDE, "Patient", "Device"})
    assert is_bound_by_path(type_) is (is_in_compartment(type_) and type_ not in BESIDE_OTHERS.split())
