"""Read the launch context that came with an EHR's token (CX-01…CX-09), in all the shapes EHRs send it. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final

from broker.grants import LaunchContext

_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_FHIR_USER: Final = re.compile(r"(Patient|Practitioner|PractitionerRole|RelatedPerson|Person)/[A-Za-z0-9\-.]{1,64}")


def read_context(members: Mapping[str, Any], *, fhir_user: str | None, fhir_base: str) -> LaunchContext:
    """Keep what SMART defines; vendor extensions are not passed on (CX-09)."""
    return LaunchContext(
        patient=_resource_id(members.get("patient"), "Patient", fhir_base),
        encounter=_resource_id(members.get("encounter"), "Encounter", fhir_base),
        fhir_user=read_fhir_user(fhir_user or members.get("fhirUser"), fhir_base),
        need_patient_banner=_boolean(members.get("need_patient_banner")),
        smart_style_url=_text(members.get("smart_style_url")),
        tenant=_text(members.get("tenant")),
        intent=_text(members.get("intent")),
        fhir_context=_fhir_context(members.get("fhirContext")),
    )


def read_fhir_user(value: object, fhir_base: str) -> str | None:
    """Return `Type/id` when the user is on this FHIR server; another host's is not passed on (ID-06)."""
    text = str(value or "").removeprefix(f"{fhir_base}/")
    return text if _FHIR_USER.fullmatch(text) else None


def _resource_id(value: object, resource_type: str, fhir_base: str) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).removeprefix(f"{fhir_base}/").removeprefix(f"{resource_type}/")
    return text if _ID.fullmatch(text) else None


def _boolean(value: object) -> bool | None:
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 2048 and value.isprintable() else None


def _fhir_context(value: object) -> tuple[Mapping[str, Any], ...]:
    items = value if isinstance(value, list) else []
    return tuple({"reference": i} if isinstance(i, str) else i for i in items if isinstance(i, str | dict))
