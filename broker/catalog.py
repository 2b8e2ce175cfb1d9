"""Catalogs: files of imported EHRs, one line each, that `broker.toml` names. Merging is pure; an operator enables."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from broker.errors import ConfigurationError
from broker.listings import Listing

_LONGEST_SLUG: Final = 40
_HEAD: Final = ("source", "etag", "imported")
_SETTINGS: Final = ("id", "name", "fhir_base", "profile", "environment", "enabled")


@dataclass(frozen=True, slots=True)
class Entry:
    """One imported EHR."""

    id: str
    name: str
    fhir_base: str
    profile: str
    listed_as: str
    fhir_version: str | None = None
    enabled: bool = False
    """Nothing imported is in use until an operator says so (BR-05)."""
    listed: bool = True
    """Whether the source still lists it; one that it no longer lists is kept."""
    environment: str = "production"
    """As in `[[ehr]]` (EP-02)."""
    own: bool = False
    """Whether the EHR's own smart-configuration says so: a vendor's list does not change it any more (BR-02)."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The content of one file."""

    source: str = ""
    etag: str | None = None
    """Of the source when it was read, so that it is asked only for what changed (BR-01)."""
    imported: str = ""
    """When, as an RFC 3339 time."""
    ehrs: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """What an import changed."""

    added: tuple[Entry, ...] = ()
    changed: tuple[tuple[Entry, Entry], ...] = ()
    """Before and after."""
    removed: tuple[Entry, ...] = ()
    disabled: tuple[str, ...] = field(default=())
    """Ids that were in use and are not any more, because their address changed."""


def merge(
    catalog: Catalog, listings: Iterable[Listing], *, profile: str, environment: str = "production"
) -> tuple[tuple[Entry, ...], Difference]:
    """Return the new entries, sorted by id, and what is different. New entries get the profile and environment.

    An endpoint is known again by what the source calls it, or by its address. One whose address changed while it was
    enabled is disabled: what was approved was the address. One that is listed no more is kept, and says so, unless its
    address is now another's.
    """
    by_name = {entry.listed_as: entry for entry in catalog.ehrs}
    by_base = {entry.fhir_base: entry for entry in catalog.ehrs}
    taken = {entry.id for entry in catalog.ehrs}
    kept: dict[str, Entry] = {}
    added, changed, disabled = [], [], []
    for listing in listings:
        known = by_name.get(listing.listed_as) or by_base.get(listing.fhir_base)
        if known is None or known.id in kept:
            entry = _new(listing, profile, environment, taken)
            taken.add(entry.id)
            added.append(entry)
        else:
            entry = _updated(known, listing)
            if entry != known:
                changed.append((known, entry))
            if known.enabled and not entry.enabled:
                disabled.append(entry.id)
        kept[entry.id] = entry
    gone = [entry for entry in catalog.ehrs if entry.id not in kept]
    addresses = {entry.fhir_base for entry in kept.values()}
    kept |= {entry.id: replace(entry, listed=False) for entry in gone if entry.fhir_base not in addresses}
    removed = tuple(entry for entry in gone if entry.listed)
    entries = tuple(kept[name] for name in sorted(kept))
    return entries, Difference(tuple(added), tuple(changed), removed, tuple(disabled))


def enable(catalog: Catalog, ids: Iterable[str], *, enabled: bool) -> Catalog:
    """Return the catalog with these EHRs switched. Raises `ConfigurationError` naming those that it does not hold."""
    wanted = set(ids)
    if unknown := wanted - {entry.id for entry in catalog.ehrs}:
        raise ConfigurationError(f"no catalog holds {', '.join(sorted(unknown))}. Fix: see broker ehrs list")
    switched = (replace(entry, enabled=enabled) if entry.id in wanted else entry for entry in catalog.ehrs)
    return replace(catalog, ehrs=tuple(switched))


def dump(catalog: Catalog) -> str:
    """Return the file's text: JSON with one EHR a line, so that version control shows what changed."""
    head = "".join(f"{json.dumps(name)}: {json.dumps(getattr(catalog, name))},\n" for name in _HEAD)
    rows = ",\n".join(json.dumps(asdict(entry), ensure_ascii=False) for entry in catalog.ehrs)
    return f'{{\n{head}"ehrs": [\n{rows}\n]\n}}\n'


def parse(text: str) -> Catalog:
    """Read a catalog. Raises `ConfigurationError` that names the entry."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError("not a catalog: not JSON. Fix: write it with broker ehrs import") from None
    rows = document.get("ehrs") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise ConfigurationError('not a catalog: no list "ehrs". Fix: write it with broker ehrs import')
    return Catalog(
        source=str(document.get("source") or ""),
        etag=str(document["etag"]) if document.get("etag") else None,
        imported=str(document.get("imported") or ""),
        ehrs=tuple(_entry(number, row) for number, row in enumerate(rows, 1)),
    )


def _entry(number: int, row: Any) -> Entry:
    try:
        entry = Entry(**row)
    except TypeError:
        raise ConfigurationError(f"entry {number} is not an object with the keys of an EHR") from None
    texts = (entry.id, entry.name, entry.fhir_base, entry.profile, entry.listed_as, entry.environment)
    if not all(isinstance(text, str) for text in texts) or {
        type(entry.enabled),
        type(entry.listed),
        type(entry.own),
    } != {bool}:
        raise ConfigurationError(f"entry {number}: a key has a value of the wrong type")
    return entry


def settings_of(entry: Entry) -> Mapping[str, Any]:
    """Return the entry as an `[[ehr]]` table says it."""
    return {name: getattr(entry, name) for name in _SETTINGS}


def _new(listing: Listing, profile: str, environment: str, taken: set[str]) -> Entry:
    slug = re.sub(r"[^a-z0-9]+", "-", listing.name.lower()).strip("-")[:_LONGEST_SLUG].strip("-") or "ehr"
    digest = hashlib.sha256(listing.fhir_base.encode()).hexdigest()
    length = next(size for size in range(6, len(digest)) if f"{slug}-{digest[:size]}" not in taken)
    return Entry(
        id=f"{slug}-{digest[:length]}",
        name=listing.name,
        fhir_base=listing.fhir_base,
        profile=profile,
        listed_as=listing.listed_as,
        fhir_version=listing.fhir_version,
        environment=environment,
        own=listing.own,
    )


def _updated(known: Entry, listing: Listing) -> Entry:
    if known.own and not listing.own:
        return replace(known, listed=True)
    moved = known.fhir_base != listing.fhir_base
    return replace(
        known,
        name=listing.name,
        fhir_base=listing.fhir_base,
        listed_as=listing.listed_as,
        fhir_version=listing.fhir_version,
        enabled=known.enabled and not moved,
        listed=True,
        own=listing.own,
    )
