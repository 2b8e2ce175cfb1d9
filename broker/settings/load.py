"""Read `broker.toml`: every fault is found in one go, each with its line and what to do."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from broker.clock import Clock, system_clock
from broker.errors import ConfigurationError
from broker.secret import Secret
from broker.settings.catalogs import apply_catalogs
from broker.settings.model import Settings
from broker.settings.places import Place, line_of, name_of
from broker.settings.proof_rules import find_proof_faults
from broker.settings.rules import Fault, find_faults

_REFERENCES: Final = {
    "ehr": frozenset({"certificate", "certificate_key"}),
    "registration": frozenset({"client_secret", "certificate", "certificate_key"}),
    "webhook": frozenset({"secret"}),
}
"""By table, the keys that say where something stands."""
_FILES: Final = (
    ("issuer", "jwks_file", "name a file that holds a JWK Set"),
    ("ehr", "ca_file", "name a file that holds certificates as PEM"),
)
"""Tables and keys that name a file which is read later, and again when it has changed."""
_SECRETS: Final = frozenset({"client_secret", "secret"})


def load(path: Path, environ: Mapping[str, str], clock: Clock = system_clock) -> Settings:
    """Read and check the file; secrets and catalogs it refers to are read too. Dates in it are held against `clock`.

    Raises `ConfigurationError` with one line per fault: `broker.toml:12: ehr.fhir_base: …`.
    """
    text = _read(path, "give --config, or set BROKER_CONFIG")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    own_ehrs = len(tables["ehr"]) if isinstance(tables.get("ehr"), list) else 0
    imported, faults = apply_catalogs(tables, path.parent)
    faults += _resolve_secrets(tables, path.parent, environ)
    faults += _resolve_files(tables, path.parent)
    try:
        settings = Settings.model_validate(tables)
    except ValidationError as error:
        faults += [_fault(e["type"], e["msg"], tuple(e["loc"])) for e in error.errors()]
    else:
        faults += [*find_faults(settings), *find_proof_faults(settings, clock())]
        if not faults:
            return settings

    def where(place: Place) -> str:
        if place[0] == "ehr" and len(place) > 1 and isinstance(place[1], int) and place[1] >= own_ehrs:
            return f"{path.parent / imported[place[1] - own_ehrs]}: {name_of(place[2:])}"
        return f"{path}:{line_of(text, place)}: {name_of(place)}"

    raise ConfigurationError(*(f"{where(place)}: {what}" for place, what in faults))


def _read(path: Path, fix: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist. Fix: {fix}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from None


def _resolve_secrets(tables: dict[str, Any], folder: Path, environ: Mapping[str, str]) -> list[Fault]:
    faults: list[Fault] = []
    tabled = [(table, tables.get(table), keys) for table, keys in _REFERENCES.items()]
    listed = [(table, rows, keys) for table, rows, keys in tabled if isinstance(rows, list)]
    for table, index, row, keys in ((t, i, row, keys) for t, rows, keys in listed for i, row in enumerate(rows)):
        for key in sorted(keys & row.keys()) if isinstance(row, dict) else ():
            try:
                row[key] = _resolve(key, row[key], folder, environ)
            except ConfigurationError as error:
                faults.append(((table, index, key), error.detail))
                # Stands in, so that it is not reported as missing too.
                row[key] = (Secret(""),) if key in _SECRETS else folder
    return faults


def _resolve_files(tables: dict[str, Any], folder: Path) -> list[Fault]:
    faults: list[Fault] = []
    for table, key, fix in _FILES:
        rows = tables.get(table)
        for index, row in enumerate(rows if isinstance(rows, list) else []):
            if isinstance(row, dict) and isinstance(row.get(key), str):
                row[key] = folder / row[key]
                try:
                    _read(row[key], fix)
                except ConfigurationError as error:
                    faults.append(((table, index, key), error.detail))
    return faults


def _resolve(key: str, reference: object, folder: Path, environ: Mapping[str, str]) -> tuple[Secret, ...] | Path:
    if key in _SECRETS:
        references = reference if isinstance(reference, list) else [reference]
        return tuple(resolve_secret(one, folder, environ) for one in references)
    kind, _, name = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if kind != "file" or not name:
        raise ConfigurationError("a certificate and its key stand in files of their own. Fix: write file:PATH")
    path = folder / name
    if "-----BEGIN " not in _read(path, "name a file that holds it as PEM"):
        raise ConfigurationError(f"{path} is not PEM")
    return path


def resolve_secret(reference: object, folder: Path, environ: Mapping[str, str]) -> Secret:
    """Follow `env:NAME` or `file:PATH` (relative to `broker.toml`). Raises `ConfigurationError`, for literals too."""
    kind, _, name = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if kind == "env":
        value = environ.get(name, "")
    elif kind == "file":
        value = _read(folder / name, "name a file that holds the secret").rstrip("\r\n")
    else:
        raise ConfigurationError("a secret never stands in the file itself. Fix: write env:NAME or file:PATH")
    if not value:
        raise ConfigurationError(f"{reference} is empty or not set")
    return Secret(value)


def _fault(kind: str, message: str, place: Place) -> Fault:
    if place[:1] == ("ehr",) and place[2:3] == ("profile",) and len(place) > 3:  # its settings stand in the EHR's table
        place = (*place[:2], *place[3:])
    return place, _explain(kind, message, place)


def _explain(kind: str, message: str, place: Place) -> str:
    if kind == "extra_forbidden":
        return f"unknown key {place[-1]!r}. Fix: remove it, or see docs/configuration.md for the known ones"
    if kind == "missing":
        return "is missing"
    if kind == "tuple_type":
        return "must be a list; a table that there can be several of is written with two brackets: [[ehr]]"
    return message.removeprefix("Value error, ")
