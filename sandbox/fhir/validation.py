"""What a resource must be to be stored: everything this server will read of it later can be read.

That is less than validity: of the elements a profile demands, those nobody searches by are the client's business.
"""

import re
from base64 import b64decode
from typing import Any

from sandbox.fhir.matching import interval_of
from sandbox.fhir.outcome import FhirError
from sandbox.fhir.parameters import PARAMETERS, Kind, elements
from sandbox.population.elements import Resource

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[\w-]+=[\w.\"-]+)*", re.ASCII)


def require_id(id_: str) -> None:
    """Raise FhirError (400) for what is not a FHIR id."""
    if not _ID.fullmatch(id_):
        raise FhirError(400, "value", "An id is 1 to 64 letters, digits, dots and hyphens.")


def require_readable(resource: Resource) -> None:
    """Raise FhirError (422) when an element is not of the kind that search, read and compartments take it for."""
    for name, parameter in PARAMETERS[resource["resourceType"]].items():
        # The server writes the elements behind `_id` and `_lastUpdated` itself.
        found = [element for path in parameter.paths for element in elements(resource, path)]
        if not name.startswith("_") and not all(_readable(parameter.kind, element) for element in found):
            raise _unprocessable(f"The element behind '{name}' is not what {resource['resourceType']} has there.")
    if resource["resourceType"] == "Binary":
        _require_content(resource)


def _readable(kind: Kind, element: Any) -> bool:
    if kind == "date":
        return _is_time(element)
    if kind == "token":
        return isinstance(element, bool | str) or _is_coded(element)
    if kind == "reference":
        return isinstance(element, dict)
    return isinstance(element, dict | str)


def _is_time(element: Any) -> bool:
    bounds = [element.get("start", "2000"), element.get("end", "2000")] if isinstance(element, dict) else [element]
    try:
        return all(isinstance(bound, str) and interval_of(bound) is not None for bound in bounds)
    except (ValueError, OverflowError):
        return False


def _is_coded(element: Any) -> bool:
    codings = element.get("coding", []) if isinstance(element, dict) else None
    return isinstance(codings, list) and all(isinstance(coding, dict) for coding in codings)


def _require_content(binary: Resource) -> None:
    media_type, data = binary.get("contentType"), binary.get("data", "")
    if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
        raise _unprocessable("A Binary needs a contentType.")
    try:
        b64decode(data, validate=True)
    except (TypeError, ValueError) as error:
        raise _unprocessable("A Binary's data is base64.") from error


def _unprocessable(diagnostics: str) -> FhirError:
    return FhirError(422, "invalid", diagnostics)
