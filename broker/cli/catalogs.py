"""`broker ehrs import|enable|disable`: catalogs of EHRs, which are files beside `broker.toml`."""

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from broker.catalog import Catalog, Difference, Entry, dump, enable
from broker.cli.session import JsonOption, run
from broker.clock import system_clock
from broker.egress import Egress
from broker.errors import ConfigurationError
from broker.flows.import_ehrs import Import, ImportEhrs
from broker.profiles import profile_names
from broker.settings.catalogs import read_catalog
from broker.settings.ehr import Environment

_MOST_NAMED: Final = 20
CatalogOption = Annotated[
    Path, typer.Option("--catalog", help="the catalog file, as ehr_catalogs in broker.toml names it")
]
IdsArgument = Annotated[list[str] | None, typer.Argument(help="ids of EHRs in the catalog")]
AllOption = Annotated[bool, typer.Option("--all", help="all of the catalog, instead of ids")]


def import_ehrs(
    source: Annotated[str, typer.Argument(help="a Bundle: a file, its URL, or a smart-configuration's URL")],
    *,
    catalog: CatalogOption,
    profile: Annotated[str, typer.Option(help="the profile of EHRs that are new")] = "generic",
    environment: Annotated[Environment, typer.Option(help="the environment of EHRs that are new")] = "production",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would change; write nothing")] = False,
    allow_loopback_http: Annotated[bool, typer.Option(help="read http:// from this machine")] = False,
    allow_private_host: Annotated[
        list[str] | None, typer.Option(help="a host at a private address; repeatable")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a vendor's list of endpoints into a catalog, disabled, and show what changed."""
    if profile not in profile_names():
        raise ConfigurationError(f"there is no profile {profile!r}; known: {', '.join(profile_names())}")
    known = read_catalog(catalog) if catalog.exists() else Catalog()
    egress = Egress(allow_loopback_http=allow_loopback_http, allow_private_hosts=allow_private_host or [])
    imported = run(lambda: _import(egress, source, known, profile, environment))
    if not dry_run and not imported.unchanged:
        _write(catalog, imported.catalog)
    if as_json:
        print(json.dumps(_document(imported), indent=2))
    else:
        _print(imported, catalog, dry_run=dry_run)


def enable_ehrs(ids: IdsArgument = None, *, catalog: CatalogOption, every: AllOption = False) -> None:
    """Let registrations use EHRs of a catalog; brokers read it when they start. `--all` means those still listed."""
    known = read_catalog(catalog)
    switched = _chosen(ids, every=every, of=(entry for entry in known.ehrs if entry.listed))
    _write(catalog, enable(known, switched, enabled=True))
    print(f"enabled {_named(switched)}; restart the broker to use them")


def disable_ehrs(ids: IdsArgument = None, *, catalog: CatalogOption, every: AllOption = False) -> None:
    """Let nobody use EHRs of a catalog; brokers read it when they start."""
    known = read_catalog(catalog)
    switched = _chosen(ids, every=every, of=known.ehrs)
    _write(catalog, enable(known, switched, enabled=False))
    print(f"disabled {_named(switched)}; restart the broker to stop using them")


def _chosen(ids: list[str] | None, *, every: bool, of: Iterable[Entry]) -> list[str]:
    if bool(ids) == every:
        raise ConfigurationError("it is not said which EHRs. Fix: give their ids, or --all instead")
    return ids or [entry.id for entry in of]


def _named(ids: list[str]) -> str:
    return ", ".join(ids) if len(ids) <= _MOST_NAMED else f"{len(ids)} EHRs"


async def _import(egress: Egress, source: str, known: Catalog, profile: str, environment: str) -> Import:
    try:
        return await ImportEhrs(egress, system_clock)(source, known, profile=profile, environment=environment)
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
