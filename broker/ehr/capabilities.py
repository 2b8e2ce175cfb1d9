"""What capabilities mean: which the broker knows, and which sets of them an EHR satisfies (DS-16, DS-17). Pure."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

KNOWN: Final[Mapping[str, str]] = {
    "launch-ehr": "launch from a chart",
    "launch-standalone": "launch by the app",
    "authorize-post": "authorization requests by POST",
    "client-public": "registrations without authentication",
    "client-confidential-symmetric": "registrations with a secret",
    "client-confidential-asymmetric": "registrations with a key",
    "sso-openid-connect": "id_tokens",
    "context-banner": "the patient banner flag",
    "context-style": "style of the EHR",
    "context-ehr-patient": "patient of an EHR launch",
    "context-ehr-encounter": "encounter of an EHR launch",
    "context-standalone-patient": "patient chosen in a standalone launch",
    "context-standalone-encounter": "encounter chosen in a standalone launch",
    "permission-offline": "refresh tokens that outlast the session",
    "permission-online": "refresh tokens that last for the session",
    "permission-patient": "patient/ scopes",
    "permission-user": "user/ scopes",
    "permission-v1": "scopes of SMART 1",
    "permission-v2": "scopes of SMART 2",
    "smart-app-state": "App State",
}
"""Capabilities of SMART App Launch 2.2, and what each lets the broker use."""
_CLIENTS: Final = frozenset({"client-public", "client-confidential-symmetric"})
_SETS: Final[Mapping[str, Collection[str]]] = {
    "Patient-Standalone": ("launch-standalone", "context-standalone-patient", "permission-patient"),
    "Patient-EHR": ("launch-ehr", "context-ehr-patient", "permission-patient"),
    "Clinician-Standalone": ("launch-standalone", "permission-user", "permission-patient"),
    "Clinician-EHR": (
        "launch-ehr",
        "context-ehr-patient",
        "context-ehr-encounter",
        "permission-user",
        "permission-patient",
    ),
}


def unknown(capabilities: Iterable[str]) -> list[str]:
    """Return what is listed and not SMART's: kept, shown, and never in the way."""
    return [capability for capability in capabilities if capability not in KNOWN]


def capability_sets(capabilities: Collection[str]) -> list[str]:
    """Return the capability sets of SMART App Launch 2.2 that an EHR satisfies."""
    listed = set(capabilities)
    return [name for name, needed in _SETS.items() if listed.issuperset(needed) and listed & _CLIENTS]
