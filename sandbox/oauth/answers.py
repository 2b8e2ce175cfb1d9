"""How token answers can be bent: what vendors were seen to send, and what they must not (TR-04, nasty case 6)."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sandbox.faults import Armed, edit
from sandbox.oauth.scopes import ClinicalScope, in_dialect
from sandbox.settings import Settings

Document: TypeAlias = Mapping[str, Any]
Scopes: TypeAlias = list[str]


def bend(settings: Settings, document: Document, struck: Armed) -> dict[str, Any]:
    """Return a token answer as a fault leaves it."""
    effect = struck.fault.effect
    if effect in _SCOPES:
        return {**document, "scope": _SCOPES[effect](document["scope"].split())}
    if effect == "details":
        return {**document, "authorization_details": _details(settings, document, struck.parameters["location"])}
    return _EDITS[effect](document, struck)


def _details(settings: Settings, document: Document, other: str) -> list[dict[str, Any]]:
    """Return what the token is good for here, and the same at another server, with another patient (TR-10)."""
    here = {
        "type": "smart_on_fhir",
        "locations": [settings.fhir_base],
        "fhirVersions": ["4.0.1"],
        **{name: document[name] for name in ("scope", "patient", "encounter") if name in document},
    }
    return [here, {**here, "locations": [other], "patient": "patient-of-another-server"}]


def _as_text(document: Document, struck: Armed) -> dict[str, Any]:
    member = struck.parameters["member"]
    value = document.get(member)
    return {**document, member: str(value).lower() if isinstance(value, bool) else str(value)}


def _narrower(scopes: Scopes) -> str:
    clinical = [scope for scope in scopes if ClinicalScope.parse(scope)]
    return " ".join(scope for scope in scopes if scope not in clinical[-1:])


def _split(scopes: Scopes) -> str:
    parts = [(scope, ClinicalScope.parse(scope)) for scope in scopes]
    return " ".join(" ".join(parsed.split()) if parsed else scope for scope, parsed in parts)


def _odd_case(scopes: Scopes) -> str:
    v1 = in_dialect(scopes, "v1")
    return " ".join([*v1, *(scope.replace(".read", ".Read") for scope in v1 if scope.endswith(".read"))])


_EDITS: Mapping[str, Callable[[Document, Armed], dict[str, Any]]] = {
    "edit": edit,
    "set": lambda document, struck: {**document, **struck.parameters},
    "text": _as_text,
}
_SCOPES: Mapping[str, Callable[[Scopes], str]] = {
    "scope_narrower": _narrower,
    "scope_wider": lambda scopes: " ".join([*scopes, "user/*.cruds"]),
    "scope_split": _split,
    "scope_twice": lambda scopes: " ".join([*scopes, *scopes]),
    "scope_odd_case": _odd_case,
    "scope_v1": lambda scopes: " ".join(in_dialect(scopes, "v1")),
    "scope_words": lambda scopes: " ".join(["profile", *scopes, "epic.scanning.dmsusername", "DEFAULT"]),
    "scope_blanks": lambda scopes: f"  {'  '.join(scopes)} ",
}
