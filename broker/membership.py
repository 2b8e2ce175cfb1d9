"""Whose a resource is: the Patient compartment of FHIR R4 (CompartmentDefinition/patient), element by element.

Narrower than the definition in one respect. By it an Observation about one patient that another one took down is in the
compartment of both. Here a resource is a patient's only if, besides, nothing in it says that it is about somebody else:
another patient; a Group, a Person or a RelatedPerson; or what may be another patient's for all that it says, such as a
Device or an Observation.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.elements import elements

_ABOUT: Final[Mapping[str, str]] = {
    "Account": "subject",
    "AdverseEvent": "subject",
    "AllergyIntolerance": "patient",
    "Appointment": "participant.actor",
    "AppointmentResponse": "actor",
    "AuditEvent": "agent.who entity.what",
    "Basic": "subject",
    "BodyStructure": "patient",
    "CarePlan": "subject",
    "CareTeam": "subject",
    "ChargeItem": "subject",
    "Claim": "patient",
    "ClaimResponse": "patient",
    "ClinicalImpression": "subject",
    "Communication": "subject",
    "CommunicationRequest": "subject",
    "Composition": "subject",
    "Condition": "subject",
    "Consent": "patient",
    "Coverage": "beneficiary",
    "CoverageEligibilityRequest": "patient",
    "CoverageEligibilityResponse": "patient",
    "DetectedIssue": "patient",
    "Device": "patient",  # in no compartment, and yet one patient's where it says so
    "DeviceRequest": "subject",
    "DeviceUseStatement": "subject",
    "DiagnosticReport": "subject",
    "DocumentManifest": "subject",
    "DocumentReference": "subject",
    "Encounter": "subject",
    "EnrollmentRequest": "candidate",
    "EpisodeOfCare": "patient",
    "ExplanationOfBenefit": "patient",
    "FamilyMemberHistory": "patient",
    "Flag": "subject",
    "Goal": "subject",
    "ImagingStudy": "subject",
    "Immunization": "patient",
    "ImmunizationEvaluation": "patient",
    "ImmunizationRecommendation": "patient",
    "Invoice": "subject",
    "List": "subject",
    "MeasureReport": "subject",
    "Media": "subject",
    "MedicationAdministration": "subject",
    "MedicationDispense": "subject",
    "MedicationRequest": "subject",
    "MedicationStatement": "subject",
    "MolecularSequence": "patient",
    "NutritionOrder": "patient",
    "Observation": "subject",
    "Procedure": "subject",
    "Provenance": "target",
    "QuestionnaireResponse": "subject",
    "RelatedPerson": "patient",
    "RequestGroup": "subject",
    "ResearchSubject": "individual",
    "RiskAssessment": "subject",
    "Schedule": "actor",
    "ServiceRequest": "subject",
    "Specimen": "subject",
    "SupplyDelivery": "patient",
    "SupplyRequest": "deliverTo",
    "VisionPrescription": "patient",
}
"""Whom a resource is about: nobody else may stand there, and nothing that cannot be read."""
_INVOLVED: Final[Mapping[str, str]] = {
    "AllergyIntolerance": "recorder asserter",
    "Basic": "author",
    "CarePlan": "activity.detail.performer",
    "CareTeam": "participant.member",
    "Claim": "payee.party",
    "Communication": "sender recipient",
    "CommunicationRequest": "sender recipient requester",
    "Composition": "author attester.party",
    "Condition": "asserter",
    "Coverage": "policyHolder subscriber payor",
    "DeviceRequest": "performer",
    "DocumentManifest": "author recipient",
    "DocumentReference": "author",
    "ExplanationOfBenefit": "payee.party",
    "Invoice": "recipient",
    "List": "source",
    "MedicationAdministration": "performer.actor",
    "MedicationDispense": "receiver",
    "Observation": "performer",
    "Procedure": "performer.actor",
    "QuestionnaireResponse": "author",
    "RequestGroup": "action.participant",
    "ServiceRequest": "performer",
}
"""Who else stands in it, by which it is in the compartment of a patient, too. Where nothing says whom it is about, it
may be about any of them."""
_BESIDE: Final[Mapping[str, Collection[str]]] = {
    "Appointment": frozenset({"Device", "RelatedPerson"}),
    "AuditEvent": _ABOUT.keys(),
}
"""What may stand beside the patient whom a resource names: who comes along, and what of the patient's was looked at."""
_SHARED: Final = frozenset(
    {
        "ActivityDefinition",
        "CodeSystem",
        "ConceptMap",
        "Endpoint",
        "HealthcareService",
        "InsurancePlan",
        "Library",
        "Location",
        "Measure",
        "Medication",
        "MedicationKnowledge",
        "NamingSystem",
        "Organization",
        "OrganizationAffiliation",
        "PlanDefinition",
        "Practitioner",
        "PractitionerRole",
        "Questionnaire",
        "StructureDefinition",
        "Substance",
        "ValueSet",
    }
)
_REFERENCE: Final = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient of one EHR."""

    id: str
    fhir_base: str
    """Where the EHR's references may begin."""

    def owns(self, resource: Mapping[str, Any]) -> bool:
        """Whether a resource is this patient's alone: the patient, or in the compartment and about nobody else.

        Never a Group or a Person: they are in it for the others that they name.
        """
        type_ = resource.get("resourceType")
        if type_ == "Patient":
            return resource.get("id") == self.id
        if not isinstance(type_, str) or type_ not in _ABOUT:
            return False
        about = [self._target(reference) for reference in _references(resource, _ABOUT[type_])]
        involved = [self._target(reference) for reference in _references(resource, _INVOLVED.get(type_, ""))]
        others = {*(about or involved)} - {("Patient", self.id)}
        is_of_others = any(other is None or not _may_stand(other[0], type_) for other in others)
        return ("Patient", self.id) in {*about, *involved} and not is_of_others

    def _target(self, reference: Any) -> tuple[str, str] | None:
        """Return type and id of a literal reference into this EHR; None for any other."""
        text = reference.get("reference") if isinstance(reference, dict) else None
        if not isinstance(text, str):
            return None
        found = _REFERENCE.fullmatch(text.removeprefix(f"{self.fhir_base}/"))
        return (found[1], found[2]) if found else None


def may_be_owned(type_: str) -> bool:
    """Whether a resource of this type can be shown to be one patient's."""
    return type_ == "Patient" or type_ in _ABOUT


def is_shared(type_: str) -> bool:
    """Whether resources of this type hold nothing of any patient: who and what an EHR has for all of them.

    Written out, since a type that the definition does not name (Task, Binary) may well be about a patient.
    """
    return type_ in _SHARED


def _may_stand(type_: str, within: str) -> bool:
    """Whether one of this type beside the patient, in a resource of the other, says nothing of anybody else."""
    return is_shared(type_) or type_ in _BESIDE.get(within, ())


def _references(resource: Mapping[str, Any], paths: str) -> Iterator[Any]:
    for path in paths.split():
        yield from elements(resource, path)
