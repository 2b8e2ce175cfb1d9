"""Hold what a probe saw against a profile, and write the `[[ehr]]` block that fits (DS-16, DS-17). Pure."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from broker.ehr.capabilities import capability_sets, unknown
from broker.ehr.probe import Sight
from broker.profiles import Profile

_CLOCK_SECONDS: Final = 30.0
"""More than this, and assertions or id_tokens are refused by careful servers (CA-06, CA-11)."""
_CERTIFICATE_SECONDS: Final = 30 * 86_400.0
_METHODS: Final = frozenset(
    {"private_key_jwt", "client_secret_basic", "client_secret_post", "tls_client_auth", "self_signed_tls_client_auth"}
)


def differences(sight: Sight, profile: Profile) -> dict[str, Any]:
    """Return the settings that this server seems to need otherwise than the profile says."""
    return dict(_differences(sight, profile))


def _differences(sight: Sight, profile: Profile) -> Iterator[tuple[str, Any]]:
    found = sight.endpoints
    if found is not None and found.capabilities:
        has_v2 = found.has("permission-v2")
        if profile.scope_dialect == "v2" and not has_v2:
            yield "scope_dialect", "v1"
        if profile.authorize_post == "never" and found.has("authorize-post"):
            yield "authorize_post", "any_launch"
    if sight.openid_place is not None and sight.openid_place != profile.metadata_path:
        yield "metadata_path", sight.openid_place
    supported = found.document.get("scopes_supported") if found else None
    resources = [s for s in supported if isinstance(s, str) and "/" in s] if isinstance(supported, list) else []
    narrow = [scope for scope in resources if re.match(r"(patient|user|system)/[A-Z]", scope)]
    if narrow and not any("/*." in scope for scope in resources) and not profile.expand_wildcards:
        yield "expand_wildcards", True


def warnings(sight: Sight, now: float) -> list[str]:
    """Return what an operator should look at, each with the rule it is about; `now` is in seconds."""
    return [*sight.problems, *(sight.endpoints.warnings if sight.endpoints else ()), *_warnings(sight, now)]


def _warnings(sight: Sight, now: float) -> Iterator[str]:
    found = sight.endpoints
    if found is not None and found.authentication_methods and not _METHODS & set(found.authentication_methods):
        yield "no authentication method that the broker knows is listed (DS-10)"
    if found is not None and found.sso_off:
        yield found.sso_off
    if found is not None and found.has("sso-openid-connect") and sight.usable_keys == 0:
        yield "sso-openid-connect is listed, and no key was found to verify id_tokens with (ID-02)"
    base = urlsplit(sight.fhir_base)
    for name, url in sorted((found.urls() if found else {}).items()):
        if urlsplit(url).hostname != base.hostname:
            yield f"{name} is on another host, {urlsplit(url).hostname}: make sure that it is the vendor's (DS-15)"
    if sight.redirects:
        yield "the FHIR base answers with a redirect, which is never followed with a token (PX-05)"
    if sight.clock_offset is not None and abs(sight.clock_offset) > _CLOCK_SECONDS:
        yield f"its clock is {sight.clock_offset:+.0f} s off this one (CA-06, CA-11)"
    if sight.handshake is not None and sight.handshake.certificate_ends < now + _CERTIFICATE_SECONDS:
        yield f"its certificate ends on {_day(sight.handshake.certificate_ends)} (TK-08)"
    if sight.unasked_type.endswith("xml"):
        yield "without an Accept header its CapabilityStatement is XML; the broker always sends one (EP-09)"


def report(sight: Sight, name: str, profile: Profile, now: float) -> dict[str, Any]:
    """Return everything as one JSON document."""
    found, statement = sight.endpoints, sight.statement or {}
    software = statement.get("software")
    handshake = sight.handshake
    return {
        "fhir_base": sight.fhir_base,
        "usable": found is not None,
        "endpoints": found.urls() if found else {},
        "endpoints_from": found.source if found else None,
        "issuer": found.issuer if found else None,
        "capabilities": list(found.capabilities) if found else [],
        "capability_sets": capability_sets(found.capabilities) if found else [],
        "other_capabilities": unknown(found.capabilities) if found else [],
        "authentication_methods": list(found.authentication_methods) if found else [],
        "iss_in_callback": bool(found and found.iss_in_callback),
        "openid_configuration": sight.openid_place,
        "openid_issuer": sight.openid_issuer,
        "id_token_keys": sight.usable_keys,
        "fhir_version": _printable(statement.get("fhirVersion")),
        "software": _printable(software.get("name")) if isinstance(software, dict) else None,
        "resource_types": len(_types(statement)),
        "bulk_export": _exports(statement),
        "metadata_without_accept": sight.unasked_type,
        "tls": handshake.version if handshake else None,
        "certificate_ends": _day(handshake.certificate_ends) if handshake else None,
        "clock_offset_seconds": round(sight.clock_offset) if sight.clock_offset is not None else None,
        "profile": name,
        "differences": differences(sight, profile),
        "warnings": warnings(sight, now),
        "broker_toml": ehr_block(sight, name, profile),
    }


def ehr_block(sight: Sight, name: str, profile: Profile) -> str:
    """Return an `[[ehr]]` table that loads as it is."""
    base = urlsplit(sight.fhir_base)
    label = re.sub(r"[^a-z0-9]+", "-", (base.hostname or "ehr").lower()).strip("-")[:60]
    said = {"id": label, "name": base.hostname or "", "fhir_base": sight.fhir_base, "profile": name}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**said, **differences(sight, profile)}.items()]
    return "\n".join(["[[ehr]]", *lines]) + "\n"


def _types(statement: Any) -> list[str]:
    rest = statement.get("rest")
    parts = [part for part in rest if isinstance(part, dict)] if isinstance(rest, list) else []
    resources = [r for part in parts if isinstance(part.get("resource"), list) for r in part["resource"]]
    return [r["type"] for r in resources if isinstance(r, dict) and isinstance(r.get("type"), str)]


def _exports(statement: Any) -> bool:
    """Whether the CapabilityStatement names `$export` anywhere (BD-01)."""
    text = json.dumps(statement.get("rest"))
    return '"name": "export"' in text or '"name": "$export"' in text or "/export" in text


def _printable(value: object) -> str | None:
    return value[:100] if isinstance(value, str) and value.isprintable() else None


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
