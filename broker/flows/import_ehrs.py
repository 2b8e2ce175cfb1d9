"""Bring what vendors and EHRs list into a catalog (BR-01…BR-05). Nothing imported is used until it is enabled."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

from broker.catalog import Catalog, Difference, merge
from broker.clock import Clock
from broker.egress import Egress
from broker.ehr.endpoints import parse_json_object
from broker.errors import ConfigurationError, EhrMisbehaved
from broker.listings import Listings, brands_named, read_listings
from broker.origins import origin

WELL_KNOWN: Final = "/.well-known/smart-configuration"
_BUNDLE_BYTES: Final = 256 << 20
_TIMEOUT_SECONDS: Final = 60.0
_NOT_MODIFIED: Final = 304


@dataclass(frozen=True, slots=True)
class Import:
    """What an import came to."""

    catalog: Catalog
    difference: Difference
    left_out: tuple[str, ...] = ()
    """What the source lists and the broker cannot use, each with the reason."""
    unchanged: bool = False
    """The source said that it is as it was (BR-01)."""


@dataclass(frozen=True, slots=True)
class ImportEhrs:
    """Reads a source and merges it."""

    egress: Egress
    clock: Clock

    async def __call__(self, source: str, catalog: Catalog, *, profile: str, environment: str = "production") -> Import:
        """Read a file, the URL of a bundle, or the URL of a smart-configuration that names one (BR-02).

        Raises `ConfigurationError`, `EhrError`, `InvalidRequest`.
        """
        known = catalog.etag if catalog.source == source else None
        document, etag = await self._read(source, known)
        if document is None:
            return Import(catalog, Difference(), unchanged=True)
        if "user_access_brand_bundle" in document:
            listings, etag = await self._of_the_ehr(source, document), None
        else:
            listings = await asyncio.to_thread(read_listings, document)
        ehrs, difference = merge(catalog, listings.found, profile=profile, environment=environment)
        imported = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Import(Catalog(source, etag, imported, ehrs), difference, listings.left_out)

    async def _of_the_ehr(self, source: str, configuration: Mapping[str, Any]) -> Listings:
        bundle, _ = await self._read(_place_of_bundle(source, str(configuration["user_access_brand_bundle"])), None)
        listings = await asyncio.to_thread(read_listings, bundle or {})
        base = source.removesuffix(WELL_KNOWN)
        found = tuple(replace(listing, own=listing.fhir_base == base) for listing in listings.found)
        return Listings(found, (*listings.left_out, *_ambiguous(configuration, bundle or {})))

    async def _read(self, source: str, etag: str | None) -> tuple[dict[str, Any] | None, str | None]:
        """Return the document and its ETag; no document where it is the one that is known."""
        if "://" not in source:
            return await asyncio.to_thread(_read_file, Path(source)), None
        headers = {"Accept": "application/fhir+json, application/json", **({"If-None-Match": etag} if etag else {})}
        answer = await self.egress.fetch("GET", source, headers=headers, timeout=_TIMEOUT_SECONDS, limit=_BUNDLE_BYTES)
        if answer.status == _NOT_MODIFIED and etag:
            return None, etag
        document = await asyncio.to_thread(parse_json_object, answer.body) if answer.status == 200 else None
        if document is None:
            raise EhrMisbehaved(f"the source answered status {answer.status} without a JSON object (DS-14)")
        return document, answer.headers.get("etag")


def _place_of_bundle(source: str, named: str) -> str:
    """Return where a smart-configuration says the bundle is; one from elsewhere cannot name a file of this machine.

    Raises `EhrMisbehaved`.
    """
    if "://" not in source:
        return named
    try:
        url = urljoin(source, named)
    except ValueError:
        url = ""
    if not origin(url):
        raise EhrMisbehaved("user_access_brand_bundle is not an http(s) URL (BR-02)")
    return url


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            body = file.read(_BUNDLE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from None
    if len(body) > _BUNDLE_BYTES:
        raise ConfigurationError(f"{path} is longer than {_BUNDLE_BYTES} bytes")
    document = parse_json_object(body)
    if document is None:
        raise ConfigurationError(f"{path} is not a JSON object. Fix: give a FHIR Bundle of Endpoints")
    return document


def _ambiguous(configuration: Mapping[str, Any], bundle: Mapping[str, Any]) -> tuple[str, ...]:
    identifier = configuration.get("user_access_brand_identifier")
    if not isinstance(identifier, dict):
        return ()
    count = brands_named(bundle, identifier)
    return () if count == 1 else (f"user_access_brand_identifier fits {count} Organizations, not one (BR-03)",)
