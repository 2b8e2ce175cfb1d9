"""Which search parameters can be told of which type, and what each of them looks at (FHIR R4)."""

import pytest

from broker.token_parameters import can_evaluate, satisfies

TABLE = """
*: _id=id _security=meta.security _tag=meta.tag identifier
AllergyIntolerance: category clinical-status=clinicalStatus code=code+reaction.substance criticality type
  verification-status=verificationStatus
Appointment: service-category=serviceCategory service-type=serviceType status
Basic: code
CarePlan: category intent status
CareTeam: category status
Claim: status use
Communication: category status
Composition: category status type
Condition: category clinical-status=clinicalStatus code severity verification-status=verificationStatus
Consent: category scope status
Coverage: status type
Device: status type
DeviceRequest: intent status
DiagnosticReport: category code status
DocumentManifest: identifier=masterIdentifier+identifier
DocumentReference: category identifier=masterIdentifier+identifier security-label=securityLabel status type
Encounter: class status type
EpisodeOfCare: status type
ExplanationOfBenefit: status
FamilyMemberHistory: relationship status
Goal: achievement-status=achievementStatus category lifecycle-status=lifecycleStatus
Group: actual code type
ImagingStudy: status
Immunization: status vaccine-code=vaccineCode
List: code status
Location: status type
Media: status type
Medication: code status
MedicationAdministration: code=medicationCodeableConcept status
MedicationDispense: code=medicationCodeableConcept status type
MedicationRequest: category code=medicationCodeableConcept intent priority status
MedicationStatement: category code=medicationCodeableConcept status
Observation: category code status
Organization: active type
Patient: active gender
Practitioner: active gender
PractitionerRole: active role=code specialty
Procedure: category code status
Questionnaire: status
QuestionnaireResponse: status
RelatedPerson: active gender relationship
ServiceRequest: category code intent priority status
Specimen: status type
Task: code intent status
"""
"""By type, the parameters of type token; after `=` the elements that one looks at, if they are called otherwise."""


def paths(words: str) -> dict[str, str]:
    """Return the elements of each parameter, joined by `+`."""
    return {name: path or name for name, _, path in (word.partition("=") for word in words.split())}


LINES = [line.partition(":") for line in TABLE.replace("\n  ", " ").strip().splitlines()]
OF_TYPE = {type_: paths(words) for type_, _, words in LINES}
OF_EVERY = OF_TYPE.pop("*")
NAMES = sorted({*OF_EVERY, *(name for names in OF_TYPE.values() for name in names), "date", "subject", "_lastUpdated"})


def resource(type_: str, path: str) -> dict[str, object]:
    """A resource with `x` at a path, and nothing else."""
    name, _, rest = path.partition(".")
    return {"resourceType": type_, name: {rest: "x"} if rest else "x"}


@pytest.mark.parametrize("type_", [*OF_TYPE, "Flag"])
def test_of_a_type_its_own_parameters_can_be_told_and_no_others(type_: str) -> None:
    """SC-05, SC-06."""
    known = OF_EVERY | OF_TYPE.get(type_, {})

    assert {name for name in NAMES if can_evaluate(type_, name, "x")} == set(known)
    for name, path in known.items():
        assert all(satisfies(resource(type_, one), [[(name, "x")]]) for one in path.split("+"))
        assert satisfies(resource(type_, "elsewhere"), [[(name, "x")]]) is False


def test_of_some_type_each_parameter_of_any_can_be_told() -> None:
    """SC-08."""
    assert [name for name in NAMES if not can_evaluate("*", name, "x")] == ["_lastUpdated", "date", "subject"]
