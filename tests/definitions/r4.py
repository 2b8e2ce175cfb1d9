"""The facts of FHIR R4 (4.0.1) in `fhir_r4.json`; `README.md` says what they are."""

import json
import re
from pathlib import Path
from typing import Any

_FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "fhir_r4.json").read_text())
COMPARTMENT: dict[str, list[str]] = _FACTS["patient_compartment"]
PARAMETERS: dict[str, dict[str, dict[str, Any]]] = _FACTS["search_parameters"]
OPERATIONS: dict[str, dict[str, dict[str, list[str]]]] = _FACTS["operations"]
SEARCH_NAMES: set[str] = set(_FACTS["search_names"])
NAMING_PATIENTS: set[str] = set(_FACTS["types_naming_patients"])
_LOOKS_AT = re.compile(r"\(?[A-Z][A-Za-z]+\.([A-Za-z.]+?)(?:\.where\(resolve\(\) is Patient\)| as ([A-Za-z]+)\))?")


def types_with(parameter: str) -> set[str]:
    """Return the types that define a search parameter."""
    return {type_ for type_, defined in PARAMETERS.items() if parameter in defined}


def elements(type_: str, parameter: str) -> set[str]:
    """Return the paths that a parameter looks at on this type; of a choice, as JSON names it."""
    found = [_LOOKS_AT.fullmatch(part) for part in PARAMETERS[type_][parameter]["expression"].split(" | ")]
    assert all(found)
    return {path[1] + (path[2] or "") for path in found if path}
