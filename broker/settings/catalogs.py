"""Catalogs that `broker.toml` names: their EHRs stand beside those of the file itself."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

from broker.catalog import Catalog, Entry, parse, settings_of
from broker.errors import ConfigurationError
from broker.settings.rules import Fault

_REFERENCE: Final = "catalog:"
_OF_THE_CATALOG: Final = ("fhir_base", "enabled")
"""What an operator enables in a catalog is an address, so neither is changed from outside of it (BR-05)."""


def apply_catalogs(tables: dict[str, Any], folder: Path) -> tuple[list[str], list[Fault]]:
    """Read `ehr_catalogs`, and put their EHRs into `tables`, also where a registration names a catalog's.

    An `[[ehr]]` with the id of an imported one says what this one has otherwise. Returns `file: id` of each EHR that
    was appended to `tables["ehr"]`, and the faults.
    """
    names = tables.get("ehr_catalogs") or []
    catalogs: dict[str, Catalog] = {}
    faults: list[Fault] = []
    for name in map(str, names if isinstance(names, list) else []):
        try:
            catalogs[name] = read_catalog(folder / name)
        except ConfigurationError as error:
            faults.append((("ehr_catalogs",), error.detail))
            catalogs[name] = Catalog()
    appended, wrong = _bring_in(tables, catalogs) if catalogs else ([], [])
    return appended, [*faults, *wrong, *_resolve_references(tables, catalogs)]


def _bring_in(tables: dict[str, Any], catalogs: Mapping[str, Catalog]) -> tuple[list[str], list[Fault]]:
    rows = tables.setdefault("ehr", [])
    if not isinstance(rows, list):
        return [], []  # the model says what is wrong
    own = {str(row.get("id")): index for index, row in enumerate(rows) if isinstance(row, dict)}
    appended: list[str] = []
    faults: list[Fault] = []
    for name, catalog in catalogs.items():
        for entry in catalog.ehrs:
            if (index := own.pop(entry.id, None)) is None:
                rows.append(dict(settings_of(entry)))
                appended.append(f"{name}: {entry.id}")
            else:
                faults += _overlay(rows, index, entry, name)
    return appended, faults


def _overlay(rows: list[Any], index: int, entry: Entry, catalog: str) -> Iterable[Fault]:
    imported = settings_of(entry)
    beyond = [key for key in _OF_THE_CATALOG if key in rows[index]]
    rows[index] = {**imported, **rows[index], **{key: imported[key] for key in _OF_THE_CATALOG}}
    fix = "remove it here, and see broker ehrs enable|disable"
    return [(("ehr", index, key), f"{entry.id!r} is imported, and {catalog} says this. Fix: {fix}") for key in beyond]


def _resolve_references(tables: dict[str, Any], catalogs: Mapping[str, Catalog]) -> list[Fault]:
    rows = tables.get("registration")
    return [
        (("registration", index, "ehr"), fault)
        for index, row in enumerate(rows if isinstance(rows, list) else [])
        for fault in (_resolve(row, catalogs) if isinstance(row, dict) else ())
    ]


def _resolve(registration: dict[str, Any], catalogs: Mapping[str, Catalog]) -> Iterator[str]:
    """Put the enabled EHRs of a catalog where it is named; yield what is wrong."""
    named = registration.get("ehr")
    named = [named] if isinstance(named, str) else named
    if named == []:
        yield "names no EHR"
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return  # the model says what is wrong
    references = {name: catalogs.get(name.removeprefix(_REFERENCE)) for name in named if name.startswith(_REFERENCE)}
    if references:
        meant = (_enabled(references[name]) if name in references else [name] for name in named)
        registration["ehr"] = list(dict.fromkeys(chain.from_iterable(meant)))
        registration.setdefault("callback", "own")  # a redirect URI must not change when a second EHR is enabled
    for name, catalog in references.items():
        if catalog is None:
            yield f"there is no {name}; ehr_catalogs: {', '.join(catalogs) or 'none'}"


def _enabled(catalog: Catalog | None) -> list[str]:
    return [entry.id for entry in catalog.ehrs if entry.enabled] if catalog is not None else []


def read_catalog(path: Path) -> Catalog:
    """Read one catalog. Raises `ConfigurationError` that names the file."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist. Fix: broker ehrs import SOURCE --catalog {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.detail}") from None
