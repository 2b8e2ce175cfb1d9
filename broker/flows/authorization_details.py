"""`authorization_details` (RFC 9396) of type `smart_on_fhir`: SMART's way to name the FHIR server a token is for. Pure.

The broker issues a handle for one FHIR base, so a request has one entry with that one location. What the entry asks by
`scope` is asked beside the `scope` parameter (RFC 9396 §3).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from broker.errors import InvalidAuthorizationDetails
from broker.flows.scope_text import read_requested
from broker.grants import LaunchContext
from broker.scopes import Scopes

TYPE: Final = "smart_on_fhir"
_KNOWN: Final = frozenset({"type", "locations", "scope"})


def read_details(text: str | None, fhir_base: str) -> Scopes:
    """Return what the entry asks for this FHIR base; nothing where there is no such parameter.

    Raises `InvalidAuthorizationDetails` for more than one entry, another type or location, and members that this type
    does not have (RFC 9396 §5); `InvalidScope`.
    """
    if text is None:
        return Scopes()
    entry = _only_entry(text)
    if entry.get("type") != TYPE:
        raise InvalidAuthorizationDetails("authorization_details of another type")
    if entry.get("locations") not in ([fhir_base], [f"{fhir_base}/"]):
        raise InvalidAuthorizationDetails("authorization_details for another location than aud")
    scope = entry.get("scope", "")
    if not entry.keys() <= _KNOWN or not isinstance(scope, str):
        raise InvalidAuthorizationDetails("authorization_details with a member that is not known or not text")
    return read_requested(scope)


def granted_details(fhir_base: str, scope: str, context: LaunchContext) -> list[dict[str, Any]]:
    """Return the granted entry for the token response (TR-10)."""
    entry: dict[str, Any] = {"type": TYPE, "locations": [fhir_base], "scope": scope}
    known = {"patient": context.patient, "encounter": context.encounter}
    entry |= {name: value for name, value in known.items() if value is not None}
    return [entry | ({"fhirContext": list(context.fhir_context)} if context.fhir_context else {})]


def _only_entry(text: str) -> Mapping[str, Any]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or len(entries) != 1 or not isinstance(entries[0], dict):
        raise InvalidAuthorizationDetails("authorization_details is not a JSON array of one object")
    return entries[0]
