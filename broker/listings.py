"""Endpoints as vendors and providers list them: SMART user-access brand bundles, and plain bundles of Endpoints. Pure.

A listing is no permission to use an endpoint (BR-05): it only says where one is and what people call it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from broker.errors import InvalidRequest

MOST_LISTINGS: Final = 50_000
_FHIR_VERSION: Final = "http://hl7.org/fhir/StructureDefinition/endpoint-fhir-version"
_FHIR_REST: Final = "hl7-fhir-rest"
_VERSION_IN_PATH: Final = {"dstu2": "1.0.2", "stu3": "3.0.2", "r4": "4.0.1", "r4b": "4.3.0", "r5": "5.0.0"}
_LONGEST_NAME: Final = 200
_LOOPBACK: Final = {("http", "127.0.0.1"), ("http", "localhost"), ("http", "::1")}


@dataclass(frozen=True, slots=True)
class Listing:
    """One FHIR endpoint."""

    listed_as: str
    """What the source calls it, so that it is known again when its name or address changes."""
    name: str
    fhir_base: str
    fhir_version: str | None
    """Such as `4.0.1`; None when nothing tells."""
    own: bool = False
    """Whether the EHR's own smart-configuration led here: that beats what a vendor lists (BR-02)."""


@dataclass(frozen=True, slots=True)
class Listings:
    """What a bundle lists, and what of it could not be used, with the reason."""

    found: tuple[Listing, ...]
    left_out: tuple[str, ...] = field(default=())


def read_listings(bundle: Mapping[str, Any]) -> Listings:
    """Read a bundle of Endpoints, with or without the Organizations that are reached by them (BR-04).

    What is missing or says `data-absent-reason` is not needed (BR-06). Raises `InvalidRequest` when it is no Bundle, or
    lists more than `MOST_LISTINGS`.
    """
    entries = bundle.get("entry")
    if bundle.get("resourceType") != "Bundle" or not isinstance(entries, list):
        raise InvalidRequest("not a FHIR Bundle with entries", public="This is not a FHIR Bundle with entries.")
    resources = [
        (str(entry.get("fullUrl") or ""), entry["resource"])
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("resource"), dict)
    ]
    names = _names_of_endpoints(resources)
    found: dict[str, Listing] = {}
    left_out = []
    for full_url, endpoint in _endpoints(resources):
        listing, cause = _listing(full_url, endpoint, names)
        if listing is None:
            left_out.append(cause)
        elif listing.fhir_base in found:
            left_out.append(f"{listing.listed_as}: its address is listed twice")
        else:
            found[listing.fhir_base] = listing
        if len(found) > MOST_LISTINGS:
            raise InvalidRequest(f"more than {MOST_LISTINGS} endpoints", public="The Bundle lists too many endpoints.")
    return Listings(tuple(found.values()), tuple(left_out))


def brands_named(bundle: Mapping[str, Any], identifier: Mapping[str, Any]) -> int:
    """Return how many Organizations have the `user_access_brand_identifier`: exactly one may (BR-03)."""
    wanted = (identifier.get("system"), identifier.get("value"))
    entries = (entry.get("resource") for entry in _dicts(bundle.get("entry")))
    organizations = (found for found in entries if isinstance(found, dict) and "identifier" in found)
    return sum(
        any((known.get("system"), known.get("value")) == wanted for known in _dicts(found["identifier"]))
        for found in organizations
    )


def _endpoints(resources: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield Endpoints of their own, and those that an Organization contains."""
    for full_url, resource in resources:
        if resource.get("resourceType") == "Endpoint":
            yield full_url, resource
        for contained in _dicts(resource.get("contained")):
            if contained.get("resourceType") == "Endpoint":
                yield f"{full_url or resource.get('id', '')}#{contained.get('id', '')}", contained


def _names_of_endpoints(resources: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Return what Organizations call the endpoints that they refer to; a brand comes before one that is part of it."""
    names: dict[str, str] = {}
    organizations = [(url, found) for url, found in resources if found.get("resourceType") == "Organization"]
    for full_url, organization in sorted(organizations, key=lambda item: "partOf" in item[1]):
        for reference in _dicts(organization.get("endpoint")):
            target = str(reference.get("reference") or "")
            if target.startswith("#"):
                target = f"{full_url or organization.get('id', '')}{target}"
            names.setdefault(target, _text(organization.get("name")))
    return names


def _listing(full_url: str, endpoint: dict[str, Any], names: Mapping[str, str]) -> tuple[Listing | None, str]:
    listed_as = full_url or f"Endpoint/{endpoint.get('id', '')}"
    base = _base(endpoint.get("address"))
    if base is None:
        return None, f"{_text(listed_as)}: its address is not an absolute https URL"
    if endpoint.get("status") not in {None, "active"}:
        return None, f"{_text(listed_as)}: it is not active"
    kind = endpoint.get("connectionType")
    if isinstance(kind, dict) and kind.get("code") not in {None, _FHIR_REST}:
        return None, f"{_text(listed_as)}: it is not a FHIR REST endpoint"
    relative = f"Endpoint/{endpoint.get('id', '')}"
    named = names.get(full_url) or names.get(relative) or _text(endpoint.get("name")) or _managed_by(endpoint)
    host = urlsplit(base).hostname or ""
    return Listing(_text(listed_as), named or host, base, _version(endpoint, base)), ""


def _base(address: object) -> str | None:
    try:
        parts = urlsplit(address) if isinstance(address, str) else None
        secure = parts is not None and (parts.scheme == "https" or (parts.scheme, parts.hostname) in _LOOPBACK)
        usable = parts is not None and secure and parts.hostname and "@" not in parts.netloc
    except ValueError:
        return None
    if not usable or not isinstance(address, str) or re.search(r"[\s<>\"\\^`{|}?#]", address) or not address.isascii():
        return None
    return address.rstrip("/")


def _managed_by(endpoint: Mapping[str, Any]) -> str:
    named = (_text(found.get("name")) for found in _dicts(endpoint.get("contained")) if "name" in found)
    reference = endpoint.get("managingOrganization")
    return next(named, "") or _text(reference.get("display") if isinstance(reference, dict) else None)


def _version(endpoint: Mapping[str, Any], base: str) -> str | None:
    said = (found.get("valueCode") for found in _dicts(endpoint.get("extension")) if found.get("url") == _FHIR_VERSION)
    for version in said:
        if isinstance(version, str) and re.fullmatch(r"[0-9]+\.[0-9]+(\.[0-9]+)?", version):
            return version
    parts = (part.lower() for part in reversed(urlsplit(base).path.split("/")))
    return next((_VERSION_IN_PATH[part] for part in parts if part in _VERSION_IN_PATH), None)


def _text(value: object) -> str:
    """Return one printable line; names come from outside and are shown to operators."""
    printable = "".join(letter if letter.isprintable() else " " for letter in value) if isinstance(value, str) else ""
    return " ".join(printable.split())[:_LONGEST_NAME]


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
