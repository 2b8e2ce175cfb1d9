"""The launch context that came with an EHR's token (CX-01…CX-11), in all the shapes EHRs send it. Pure."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

MOST_BYTES: Final = 16_384
"""Of `fhirContext`, of `appContext`, and of the vendor members that apps may see, as JSON each; more is left out."""
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_FHIR_USER: Final = re.compile(r"(Patient|Practitioner|PractitionerRole|RelatedPerson|Person)/[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What the EHR said about the session (spec §6). It identifies a person, so it is only ever kept sealed."""

    patient: str | None = None
    encounter: str | None = None
    fhir_user: str | None = None
    """`Type/id` on the EHR's FHIR server (ID-06)."""
    need_patient_banner: bool | None = None
    smart_style_url: str | None = None
    tenant: str | None = None
    intent: str | None = None
    fhir_context: tuple[Mapping[str, Any], ...] = ()
    app_context: str | None = None
    """What a Task or a CDS Hooks card gives the app: opaque, so passed on as it came (AL-23)."""
    extensions: Mapping[str, Any] = field(default_factory=dict)
    """Vendor members that the EHR's profile lets apps see (CX-09)."""
    issuer: str | None = None
    """With `subject`: who signed in, as a verified id_token said (ID-08)."""
    subject: str | None = None


def read_context(
    members: Mapping[str, Any], *, fhir_user: str | None, fhir_base: str, extensions: Collection[str] = ()
) -> LaunchContext:
    """Keep what SMART defines, and of vendor members those named in `extensions` (CX-09)."""
    return LaunchContext(
        patient=_resource_id(members.get("patient"), "Patient", fhir_base),
        encounter=_resource_id(members.get("encounter"), "Encounter", fhir_base),
        fhir_user=read_fhir_user(fhir_user or members.get("fhirUser"), fhir_base),
        need_patient_banner=_boolean(members.get("need_patient_banner")),
        smart_style_url=_text(members.get("smart_style_url")),
        tenant=_text(members.get("tenant")),
        intent=_text(members.get("intent")),
        fhir_context=_fhir_context(members.get("fhirContext")),
        app_context=_opaque(members.get("appContext")),
        extensions=_extensions(members, extensions),
    )


def complete(known: LaunchContext, later: LaunchContext) -> LaunchContext:
    """Fill in what was absent with what came later; what is known stays as it is (CX-11)."""
    nothing = LaunchContext()
    absent = [one.name for one in fields(known) if getattr(known, one.name) == getattr(nothing, one.name)]
    return replace(known, **{name: getattr(later, name) for name in absent})


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


def _opaque(value: object) -> str | None:
    return value if isinstance(value, str) and value and is_small(value) else None


def _fhir_context(value: object) -> tuple[Mapping[str, Any], ...]:
    items = value if isinstance(value, list) else []
    objects = ({"reference": item} if isinstance(item, str) else item for item in items)
    sound = tuple(item for item in objects if isinstance(item, dict) and _points_somewhere(item))
    return sound if is_small(sound) else ()


def _points_somewhere(item: Mapping[str, Any]) -> bool:
    """CX-03: a reference, canonical or identifier; a role and a type, where there is one, is a word."""
    texts = [item[name] for name in ("reference", "canonical", "type", "role") if name in item]
    target = any(name in item for name in ("reference", "canonical", "identifier"))
    return target and all(map(_text, texts)) and isinstance(item.get("identifier", {}), dict)


def _extensions(members: Mapping[str, Any], allowed: Collection[str]) -> Mapping[str, Any]:
    """CX-09: what the profile names, as it came."""
    found = {name: members[name] for name in allowed if name in members and members[name] is not None}
    return found if is_small(found) else {}


def is_small(value: object) -> bool:
    """Whether it is JSON of at most `MOST_BYTES`, in UTF-8: what has none cannot be in an answer to an app either."""
    try:
        return len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode()) <= MOST_BYTES
    except (ValueError, RecursionError):
        return False
