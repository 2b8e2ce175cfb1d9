"""Search parameters that can be evaluated on a resource at hand: those of type token (FHIR R4).

What is not in the table cannot be checked here. A value is `code`, `system|code`, `|code` or `system|`, alternatives
after commas; comparison is exact, and a token without the asked system does not match (FHIR R4 §3.1.1.4.10).
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

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
_ALTERNATIVE: Final = re.compile(r"(?:^|,)([^,\\]*(?:\\.?[^,\\]*)*)", re.DOTALL)


Token: TypeAlias = tuple[str | None, str]
"""System and code, as a value asks for them: system None is any, an empty one none at all, an empty code any."""
_REMEMBERED: Final = 1024
"""Values of scopes that are known as tokens: the same are asked of many resources."""


def can_evaluate(type_: str, name: str, value: str) -> bool:
    """Whether it can be told of a resource of this type; type `*` asks whether it can for any."""
    if read_tokens(value) is None:
        return False
    if type_ == "*":
        return name in _EVERY_TYPE or any(name in parameters for parameters in _BY_TYPE.values())
    return _paths(type_, name) is not None


def satisfies(resource: Mapping[str, Any], filters: Collection[Sequence[tuple[str, str]]]) -> bool:
    """Whether a resource has all pairs of one of the groups; False also where that cannot be told.

    What it has is gathered once for each name, so that the time goes with the size of the resource, however much is
    asked of it.
    """
    shown = {name: frozenset(_shown(resource, name)) for name in {name for group in filters for name, _ in group}}
    return any(all(_has(shown[name], value) for name, value in group) for group in filters)


@lru_cache(_REMEMBERED)
def read_tokens(value: str) -> frozenset[Token] | None:
    """Return the alternatives; None unless each is a token."""
    tokens = frozenset(map(_read_token, alternatives(value)))
    return frozenset(token for token in tokens if token) if None not in tokens else None


def alternatives(value: str) -> list[str]:
    """Return what stands between the commas of a value, escapes intact (FHIR R4 §3.1.1.4.0.1)."""
    if "\\" not in value:
        return value.split(",")
    return _ALTERNATIVE.findall(value)


def _read_token(text: str) -> Token | None:
    found = _TOKEN.fullmatch(text)
    if not found or not text.strip("|"):
        return None
    system = _ESCAPED.sub(r"\1", found[1]) if found[2] else None
    return system, _ESCAPED.sub(r"\1", found[3])


def _paths(type_: str, name: str) -> str | None:
    return _BY_TYPE.get(type_, {}).get(name) or _EVERY_TYPE.get(name)


def _has(shown: frozenset[Token], value: str) -> bool:
    tokens = read_tokens(value)
    return tokens is not None and not tokens.isdisjoint(shown)


def _shown(resource: Mapping[str, Any], name: str) -> Iterator[Token]:
    """Yield every token that a resource has in a parameter."""
    type_ = resource.get("resourceType")
    paths = _paths(type_, name) if isinstance(type_, str) else None
    for path in paths.split() if paths else ():
        for element in elements(resource, path):
            yield from _tokens(element)


def _tokens(element: Any) -> Iterator[Token]:
    """Yield what asks for a code, boolean, Coding, CodeableConcept or Identifier.

    Of a bare code the system is not in the resource, so no value that names one asks for it.
    """
    if isinstance(element, bool):
        yield None, str(element).lower()
    elif isinstance(element, str):
        yield None, element
    elif isinstance(element, dict):
        codings = element.get("coding", [element])
        for coding in codings if isinstance(codings, list) else ():
            if isinstance(coding, dict):
                yield from _coded(coding.get("system") or "", coding.get("code", coding.get("value")))


def _coded(system: Any, code: Any) -> Iterator[Token]:
    is_system = isinstance(system, str)
    if is_system:
        yield system, ""
    if isinstance(code, str):
        yield None, code
        if is_system:
            yield system, code
