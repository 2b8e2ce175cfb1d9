"""Catalogs that `broker.toml` names: their EHRs stand beside those of the file itself."""

from pathlib import Path
from typing import Any

from broker.catalog import Catalog, parse, settings_of
from broker.errors import ConfigurationError
from broker.settings.places import Place


def append_catalogs(tables: dict[str, Any], folder: Path) -> tuple[list[str], list[tuple[Place, str]]]:
    """Append the EHRs of `ehr_catalogs` to `tables["ehr"]`; return `file: id` of each, and the faults."""
    appended: list[str] = []
    faults: list[tuple[Place, str]] = []
    names = tables.get("ehr_catalogs") or []
    rows = tables.setdefault("ehr", []) if names else []
    if not isinstance(names, list) or not isinstance(rows, list):
        return [], []  # the model says what is wrong
    for name in names:
        try:
            catalog = read_catalog(folder / str(name))
        except ConfigurationError as error:
            faults.append((("ehr_catalogs",), error.detail))
            continue
        rows.extend(dict(settings_of(entry)) for entry in catalog.ehrs)
        appended.extend(f"{name}: {entry.id}" for entry in catalog.ehrs)
    return appended, faults


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
