"""Search parameters that can be evaluated on a resource at hand: those of type token (FHIR R4).

What is not in the table cannot be checked here. A value is `code`, `system|code`, `|code` or `system|`, alternatives
after commas; comparison is exact, and a token without the asked system does not match (FHIR R4 §3.1.1.4.10).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.elements import elements

_EVERY_TYPE: Final[Mapping[str, str]] = {
    "_id": "id",
    "_security": "meta.security",
    "_tag": "meta.tag",
    "identifier": "identifier",
}
_BY_TYPE: Final[Mapping[str, Mapping[str, str]]] = {
    "AllergyIntolerance": {
        "category": "category",
        "clinical-status": "clinicalStatus",
        "code": "code reaction.substance",
        "criticality": "criticality",
        "type": "type",
        "verification-status": "verificationStatus",
    },
    "Appointment": {"service-category": "serviceCategory", "service-type": "serviceType", "status": "status"},
    "Basic": {"code": "code"},
    "CarePlan": {"category": "category", "intent": "intent", "status": "status"},
    "CareTeam": {"category": "category", "status": "status"},
    "Claim": {"status": "status", "use": "use"},
    "Communication": {"category": "category", "status": "status"},
    "Composition": {"category": "category", "status": "status", "type": "type"},
    "Condition": {
        "category": "category",
        "clinical-status": "clinicalStatus",
        "code": "code",
        "severity": "severity",
        "verification-status": "verificationStatus",
    },
    "Consent": {"category": "category", "scope": "scope", "status": "status"},
    "Coverage": {"status": "status", "type": "type"},
    "Device": {"status": "status", "type": "type"},
    "DeviceRequest": {"intent": "intent", "status": "status"},
    "DiagnosticReport": {"category": "category", "code": "code", "status": "status"},
    "DocumentManifest": {"identifier": "masterIdentifier identifier"},
    "DocumentReference": {
        "category": "category",
        "identifier": "masterIdentifier identifier",
        "security-label": "securityLabel",
        "status": "status",
        "type": "type",
    },
    "Encounter": {"class": "class", "status": "status", "type": "type"},
    "EpisodeOfCare": {"status": "status", "type": "type"},
    "ExplanationOfBenefit": {"status": "status"},
    "FamilyMemberHistory": {"relationship": "relationship", "status": "status"},
    "Goal": {
        "achievement-status": "achievementStatus",
        "category": "category",
        "lifecycle-status": "lifecycleStatus",
    },
    "Group": {"actual": "actual", "code": "code", "type": "type"},
    "ImagingStudy": {"status": "status"},
    "Immunization": {"status": "status", "vaccine-code": "vaccineCode"},
    "List": {"code": "code", "status": "status"},
    "Location": {"status": "status", "type": "type"},
    "Media": {"status": "status", "type": "type"},
    "Medication": {"code": "code", "status": "status"},
    "MedicationAdministration": {"code": "medicationCodeableConcept", "status": "status"},
    "MedicationDispense": {"code": "medicationCodeableConcept", "status": "status", "type": "type"},
    "MedicationRequest": {
        "category": "category",
        "code": "medicationCodeableConcept",
        "intent": "intent",
        "priority": "priority",
        "status": "status",
    },
    "MedicationStatement": {"category": "category", "code": "medicationCodeableConcept", "status": "status"},
    "Observation": {"category": "category", "code": "code", "status": "status"},
    "Organization": {"active": "active", "type": "type"},
    "Patient": {"active": "active", "gender": "gender"},
    "Practitioner": {"active": "active", "gender": "gender"},
    "PractitionerRole": {"active": "active", "role": "code", "specialty": "specialty"},
    "Procedure": {"category": "category", "code": "code", "status": "status"},
    "Questionnaire": {"status": "status"},
    "QuestionnaireResponse": {"status": "status"},
    "RelatedPerson": {"active": "active", "gender": "gender", "relationship": "relationship"},
    "ServiceRequest": {
        "category": "category",
        "code": "code",
        "intent": "intent",
        "priority": "priority",
        "status": "status",
    },
    "Specimen": {"status": "status", "type": "type"},
    "Task": {"code": "code", "intent": "intent", "status": "status"},
}
_TOKEN: Final = re.compile(r"(?:((?:[^\\|]|\\.)*)(\|))?((?:[^\\|]|\\.)*)", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_COMMA_OR_ESCAPED: Final = re.compile(r",|\\.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    """One alternative of a value."""

    system: str | None
    """None: any; empty: none at all."""
    code: str
    """Empty: any."""

    def matches(self, element: Any) -> bool:
        """Whether a code, boolean, Coding, CodeableConcept or Identifier has this token.

        Of a bare code the system is not in the resource, so it matches no value that names one.
        """
        if isinstance(element, bool):
            return self.system is None and self.code == str(element).lower()
        if isinstance(element, str):
            return self.system is None and self.code == element
        if not isinstance(element, dict):
            return False
        codings = element.get("coding", [element])
        return isinstance(codings, list) and any(self._is(coding) for coding in codings)

    def _is(self, coding: Any) -> bool:
        if not isinstance(coding, dict):
            return False
        system, code = coding.get("system"), coding.get("code", coding.get("value"))
        if self.code and code != self.code:
            return False
        return self.system is None or (system or "") == self.system


def can_evaluate(type_: str, name: str, value: str) -> bool:
    """Whether it can be told of a resource of this type; type `*` asks whether it can for any."""
    if read_tokens(value) is None:
        return False
    if type_ == "*":
        return name in _EVERY_TYPE or any(name in parameters for parameters in _BY_TYPE.values())
    return _paths(type_, name) is not None


def satisfies(resource: Mapping[str, Any], name: str, value: str) -> bool:
    """Whether a resource has one of the alternatives; False also where that cannot be told."""
    type_, tokens = resource.get("resourceType"), read_tokens(value)
    paths = _paths(type_, name) if isinstance(type_, str) else None
    if paths is None or tokens is None:
        return False
    found = [element for path in paths.split() for element in elements(resource, path)]
    return any(token.matches(element) for token in tokens for element in found)


def read_tokens(value: str) -> tuple[Token, ...] | None:
    """Return the alternatives; None unless each is a token."""
    tokens = tuple(map(_read_token, alternatives(value)))
    return tuple(token for token in tokens if token) if all(tokens) else None


def alternatives(value: str) -> list[str]:
    """Return what stands between the commas of a value, escapes intact (FHIR R4 §3.1.1.4.0.1)."""
    ends = [found.start() for found in _COMMA_OR_ESCAPED.finditer(value) if found[0] == ","]
    begins = [0, *(end + 1 for end in ends)]
    return [value[begin:end] for begin, end in zip(begins, [*ends, len(value)], strict=True)]


def _read_token(text: str) -> Token | None:
    found = _TOKEN.fullmatch(text)
    if not found or not text.strip("|"):
        return None
    system = _ESCAPED.sub(r"\1", found[1]) if found[2] else None
    return Token(system, _ESCAPED.sub(r"\1", found[3]))


def _paths(type_: str, name: str) -> str | None:
    return _BY_TYPE.get(type_, {}).get(name) or _EVERY_TYPE.get(name)
