"""`broker ehrs import|enable|disable`: catalogs of EHRs, which are files beside `broker.toml`."""

import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.catalog import Catalog, Difference, Entry, dump, enable
from broker.cli.session import JsonOption, run
from broker.clock import system_clock
from broker.egress import Egress
from broker.errors import ConfigurationError
from broker.flows.import_ehrs import Import, ImportEhrs
from broker.profiles import profile_names
from broker.settings.catalogs import read_catalog

CatalogOption = Annotated[
    Path, typer.Option("--catalog", help="the catalog file, as ehr_catalogs in broker.toml names it")
]
IdsArgument = Annotated[list[str], typer.Argument(help="ids of EHRs in the catalog")]


def import_ehrs(
    source: Annotated[str, typer.Argument(help="a Bundle: a file, its URL, or a smart-configuration's URL")],
    *,
    catalog: CatalogOption,
    profile: Annotated[str, typer.Option(help="the profile of EHRs that are new")] = "generic",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would change; write nothing")] = False,
    allow_loopback_http: Annotated[bool, typer.Option(help="read http:// from this machine")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a vendor's list of endpoints into a catalog, disabled, and show what changed."""
    if profile not in profile_names():
        raise ConfigurationError(f"there is no profile {profile!r}; known: {', '.join(profile_names())}")
    known = read_catalog(catalog) if catalog.exists() else Catalog()
    imported = run(lambda: _import(source, known, profile, allow_loopback_http=allow_loopback_http))
    if not dry_run and not imported.unchanged:
        _write(catalog, imported.catalog)
    if as_json:
        print(json.dumps(_document(imported), indent=2))
    else:
        _print(imported, catalog, dry_run=dry_run)


def enable_ehrs(ids: IdsArgument, *, catalog: CatalogOption) -> None:
    """Let registrations use EHRs of a catalog; brokers read it when they start."""
    _write(catalog, enable(read_catalog(catalog), ids, enabled=True))
    print(f"enabled {', '.join(ids)}; restart the broker to use them")


def disable_ehrs(ids: IdsArgument, *, catalog: CatalogOption) -> None:
    """Let nobody use EHRs of a catalog; brokers read it when they start."""
    _write(catalog, enable(read_catalog(catalog), ids, enabled=False))
    print(f"disabled {', '.join(ids)}; restart the broker to stop using them")


async def _import(source: str, known: Catalog, profile: str, *, allow_loopback_http: bool) -> Import:
    egress = Egress(allow_loopback_http=allow_loopback_http)
    try:
        return await ImportEhrs(egress, system_clock)(source, known, profile=profile)
    finally:
        await egress.close()


def _write(path: Path, catalog: Catalog) -> None:
    """Replace the file whole: who reads it meanwhile sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8") as file:
        file.write(dump(catalog))
        file.flush()
        os.fsync(file.fileno())
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    Path(file.name).chmod(mode)
    Path(file.name).replace(path)


def _document(imported: Import) -> dict[str, Any]:
    difference = imported.difference
    return {
        "ehrs": len(imported.catalog.ehrs),
        "unchanged": imported.unchanged,
        "added": [asdict(entry) for entry in difference.added],
        "changed": [{"before": asdict(before), "after": asdict(after)} for before, after in difference.changed],
        "removed": [asdict(entry) for entry in difference.removed],
        "disabled": list(difference.disabled),
        "left_out": list(imported.left_out),
    }


def _print(imported: Import, catalog: Path, *, dry_run: bool) -> None:
    if imported.unchanged:
        print("the source has not changed")
        return
    for line in _lines(imported.difference):
        print(line)
    for cause in imported.left_out:
        print(f"! {cause}")
    found = imported.difference
    counted = f"{len(found.added)} added, {len(found.changed)} changed, {len(found.removed)} no longer listed"
    print(f"{counted}, {len(imported.left_out)} left out; {len(imported.catalog.ehrs)} EHRs in all")
    for name in found.disabled:
        print(
            f"{name} was enabled and has another address now, so it is disabled. Look at it, then: broker ehrs enable"
        )
    print("nothing was written" if dry_run else f"written to {catalog}")


def _lines(difference: Difference) -> list[str]:
    added = [f"+ {entry.id}  {entry.fhir_base}" for entry in difference.added]
    changed = [f"~ {after.id}  {_changes(before, after)}" for before, after in difference.changed]
    removed = [f"- {entry.id}  {entry.fhir_base}" for entry in difference.removed]
    return [*added, *changed, *removed]


def _changes(before: Entry, after: Entry) -> str:
    same = replace(before, enabled=after.enabled)
    old, new = asdict(same), asdict(after)
    return ", ".join(f"{name}: {old[name]} -> {new[name]}" for name in old if old[name] != new[name])
