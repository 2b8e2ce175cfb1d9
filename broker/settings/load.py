"""Read `broker.toml`: every fault is found in one go, each with its line and what to do."""

import re
import tomllib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from broker.errors import ConfigurationError
from broker.secret import Secret
from broker.settings.model import Settings
from broker.settings.rules import Fault, find_faults

_HEADER: Final = re.compile(r"\s*\[+\s*[\w\"'.-]+\s*\]")


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read and check the file; secrets it refers to are read too.

    Raises `ConfigurationError` with one line per fault: `broker.toml:12: ehr.fhir_base: …`.
    """
    text = _read(path, "give --config, or set BROKER_CONFIG")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    faults = _resolve_secrets(tables, path.parent, environ)
    try:
        settings = Settings.model_validate(tables)
    except ValidationError as error:
        faults += [_fault(e["type"], e["msg"], tuple(e["loc"])) for e in error.errors()]
    else:
        faults += find_faults(settings)
        if not faults:
            return settings
    raise ConfigurationError(*(f"{path}:{_line_of(text, place)}: {_name(place)}: {what}" for place, what in faults))


def _read(path: Path, fix: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist. Fix: {fix}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from None


def _resolve_secrets(tables: dict[str, Any], folder: Path, environ: Mapping[str, str]) -> list[Fault]:
    faults: list[Fault] = []
    rows = tables.get("registration")
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        if isinstance(row, dict) and "client_secret" in row:
            try:
                row["client_secret"] = resolve_secret(row["client_secret"], folder, environ)
            except ConfigurationError as error:
                faults.append((("registration", index, "client_secret"), error.detail))
                row["client_secret"] = Secret("")  # stands in, so that it is not reported as missing too
    return faults


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


def _fault(kind: str, message: str, place: tuple[str | int, ...]) -> Fault:
    if place[:1] == ("ehr",) and place[2:3] == ("profile",) and len(place) > 3:  # its settings stand in the EHR's table
        place = (*place[:2], *place[3:])
    return place, _explain(kind, message, place)


def _explain(kind: str, message: str, place: tuple[str | int, ...]) -> str:
    if kind == "extra_forbidden":
        return f"unknown key {place[-1]!r}. Fix: remove it, or see docs/configuration.md for the known ones"
    if kind == "missing":
        return "is missing"
    if kind == "tuple_type":
        return "must be a list; a table that there can be several of is written with two brackets: [[ehr]]"
    return message.removeprefix("Value error, ")


def _name(place: tuple[str | int, ...]) -> str:
    return ".".join(f"[{part + 1}]" if isinstance(part, int) else part for part in place).replace(".[", "[")


def _line_of(text: str, place: tuple[str | int, ...]) -> int:
    """Find the line of a key: the n-th `[[table]]` header along the path, then the key below it.

    A key that is not there is reported at its table's header, or at line 1 of the file.
    """
    lines = text.splitlines()
    start, path = 0, ""
    for part, following in zip(place, [*place[1:], None], strict=True):
        if isinstance(part, int):
            continue
        path = f"{path}.{part}" if path else part
        if isinstance(following, int):
            header = re.compile(rf"\s*\[\[\s*{re.escape(path)}\s*\]\]")
            found = [i for i, line in enumerate(lines) if i >= start and header.match(line)]
            start = found[following] if following < len(found) else start
        else:
            start = _key_line(lines, start, path, part)
    return start + 1


def _key_line(lines: list[str], start: int, path: str, key: str) -> int:
    assignment, header = re.compile(rf"\s*{re.escape(key)}\s*="), re.compile(rf"\s*\[+\s*{re.escape(path)}\s*\]")
    end = next((i for i in range(start + 1, len(lines)) if _HEADER.match(lines[i])), len(lines))
    in_table = (i for i in range(start, end) if assignment.match(lines[i]))
    as_table = (i for i in range(start, len(lines)) if header.match(lines[i]))
    return next(chain(in_table, as_table), start)
