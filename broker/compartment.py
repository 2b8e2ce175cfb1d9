"""Which search parameter binds a type to one patient: the Patient compartment of FHIR R4, as far as EHRs search by it.

A server that does not know a parameter may ignore it and answer about everybody. So `patient=` binds a search only on
the types that define it (R4 search parameters `clinical-patient` and the types' own `patient`), and only where it looks
at one reference to whom the resource is about; `subject=` likewise. `tests/definitions` holds both against R4.
"""

from typing import Final

_BY_PATIENT: Final = frozenset(
    {
        "AllergyIntolerance",
        "CarePlan",
        "CareTeam",
        "Claim",
        "ClinicalImpression",
        "Composition",
        "Condition",
        "Consent",
        "Coverage",
        "Device",
        "DeviceRequest",
        "DeviceUseStatement",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "EpisodeOfCare",
        "ExplanationOfBenefit",
        "FamilyMemberHistory",
        "Flag",
        "Goal",
        "ImagingStudy",
        "Immunization",
        "List",
        "Media",
        "MedicationAdministration",
        "MedicationDispense",
        "MedicationRequest",
        "MedicationStatement",
        "NutritionOrder",
        "Observation",
        "Procedure",
        "QuestionnaireResponse",
        "RelatedPerson",
        "RiskAssessment",
        "ServiceRequest",
        "Specimen",
    }
)
_BY_SUBJECT: Final = frozenset(
    {
        "CarePlan",
        "CareTeam",
        "ClinicalImpression",
        "Composition",
        "Condition",
        "DeviceRequest",
        "DeviceUseStatement",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "Flag",
        "Goal",
        "ImagingStudy",
        "List",
        "Media",
        "MedicationAdministration",
        "MedicationDispense",
        "MedicationRequest",
        "MedicationStatement",
        "Observation",
        "Procedure",
        "QuestionnaireResponse",
        "RiskAssessment",
        "ServiceRequest",
        "Specimen",
    }
)
_IN_COMPARTMENT: Final = frozenset(
    {
        *_BY_PATIENT - {"Device"},
        "Account",
        "AdverseEvent",
        "Appointment",
        "AppointmentResponse",
        "AuditEvent",
        "Basic",
        "BodyStructure",
        "ChargeItem",
        "ClaimResponse",
        "Communication",
        "CommunicationRequest",
        "CoverageEligibilityRequest",
        "CoverageEligibilityResponse",
        "DetectedIssue",
        "DocumentManifest",
        "EnrollmentRequest",
        "ImmunizationEvaluation",
        "ImmunizationRecommendation",
        "Invoice",
        "MeasureReport",
        "MolecularSequence",
        "Provenance",
        "RequestGroup",
        "ResearchSubject",
        "Schedule",
        "SupplyDelivery",
        "SupplyRequest",
        "VisionPrescription",
    }
)
_BESIDE_OTHERS: Final = frozenset(
    {
        "Account",
        "AllergyIntolerance",
        "Appointment",
        "AuditEvent",
        "Basic",
        "CarePlan",
        "CareTeam",
        "Claim",
        "Communication",
        "CommunicationRequest",
        "Composition",
        "Condition",
        "Coverage",
        "DeviceRequest",
        "DocumentManifest",
        "DocumentReference",
        "ExplanationOfBenefit",
        "Invoice",
        "List",
        "MedicationAdministration",
        "MedicationDispense",
        "Observation",
        "Procedure",
        "Provenance",
        "QuestionnaireResponse",
        "RequestGroup",
        "Schedule",
        "ServiceRequest",
    }
)
"""Types of which a patient's compartment holds what is about another one, too: where the patient is the author, the
performer, the payer; or where a resource may be about several, as an Appointment."""


def is_in_compartment(type_: str) -> bool:
    """Whether `Patient/{id}/{type_}` is what has to do with this patient.

    Types outside the Patient compartment are not: a server may answer about everybody. Nor are `Group`, `Patient` and
    `Person`, which are in it for the others that they name or link, and `*`, which is every type.
    """
    return type_ in _IN_COMPARTMENT


def is_bound_by_path(type_: str) -> bool:
    """Whether `Patient/{id}/{type_}` can only be about this patient."""
    return is_in_compartment(type_) and type_ not in _BESIDE_OTHERS


def binding_pair(type_: str, patient: str) -> tuple[str, str] | None:
    """Return the pair that restricts a search of this type to this patient, if there is one."""
    if type_ == "Patient":
        return "_id", patient
    return ("patient", patient) if type_ in _BY_PATIENT else None


def binding_pairs(type_: str, patient: str) -> frozenset[tuple[str, str]]:
    """Return the search pairs any one of which restricts a search of this type to this patient."""
    if type_ == "Patient":
        return frozenset({("_id", patient)})
    by_patient = {("patient", patient), ("patient", f"Patient/{patient}")} if type_ in _BY_PATIENT else set()
    by_subject = {("subject", f"Patient/{patient}")} if type_ in _BY_SUBJECT else set()
    return frozenset(by_patient | by_subject)
