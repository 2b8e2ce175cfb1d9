"""Bulk Data kick-off: `$export` of the system, of all patients or of a Group, parsed into what it reads (BD-01, BD-02).

What goes on to the EHR is made anew from what was understood here, by GET or as a Parameters resource. Nothing that
narrows an export is relied on: `_since`, `_elements`, `_typeFilter` and `patient` may be ignored by a server, so an
export needs every type that it names as a whole, and without `_type` all types there are.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from broker.errors import UninterpretableInteraction
from broker.interactions.headers import RequestHeaders
from broker.interactions.interaction import Interaction, Need, Pairs
from broker.interactions.search import NOWHERE, Reach, read_search
from broker.interactions.syntax import decode_query, encode_pairs, resource_id, resource_type, split_path

EXPORT: Final = "$export"
NDJSON: Final = "application/fhir+ndjson"
_NDJSON: Final = frozenset({NDJSON, "application/ndjson", "ndjson"})
_JSON: Final = frozenset({"application/fhir+json", "application/json"})
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
_ELEMENT: Final = re.compile(r"(?:[A-Z][A-Za-z]{1,63}\.)?[a-z][A-Za-z0-9]{0,63}")
_FILTERS: Final = re.compile(r",(?=[A-Za-z]+\?)")
"""Between two searches of one `_typeFilter`; any other comma stands within one."""
_PROVENANCE: Final = frozenset({"LatestProvenanceResources", "RelevantProvenanceResources"})
_ONCE: Final = frozenset({"_outputFormat", "_since", "_until", "allowPartialManifests", "organizeOutputBy"})
_VALUES: Final = ("valueString", "valueCode", "valueInstant", "valueDateTime", "valueUri", "valueBoolean")


@dataclass(frozen=True, slots=True)
class Export:
    """A kick-off, understood."""

    interaction: Interaction
    """Its method, path and query are those of the request to the EHR by GET."""
    parameters: Pairs = field(repr=False)
    """In order; of lists each item by itself."""
    separate_status: bool = False
    """Whether the app wants the status in a header of its own (BD-04)."""

    @property
    def resource(self) -> bytes:
        """The request to the EHR by POST: a Parameters resource, lists as repeated parameters (BD-02)."""
        listed = [{"name": name, **_typed(name, value)} for name, value in self.parameters]
        return json.dumps({"resourceType": "Parameters", "parameter": listed}, separators=(",", ":")).encode()


def parse_export(
    method: str, raw_path: bytes, raw_query: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes | None
) -> Export:
    """Return the export that a request kicks off; arguments as of `parse_interaction`, `body` of a POST as a whole.

    Raises `UninterpretableInteraction`, whose public text names what to change.
    """
    asked, segments = RequestHeaders.read(headers, may_be_async=True), split_path(raw_path)
    level = _level(segments)
    if method not in {"GET", "POST"}:
        _refuse("an export is kicked off by GET or by POST")
    if not asked.responds_async:
        _refuse("an export is asked for with the header Prefer: respond-async")
    given = decode_query(raw_query)
    if method == "POST" and body:
        if asked.media_type not in _JSON:
            _refuse("the parameters are posted as application/fhir+json in UTF-8")
        given += tuple(_posted(body))
    parameters = tuple(item for name, value in given for item in _items(name, value))
    _require_sound(method, parameters)
    reach = Reach.union(_reach(name, value) for name, value in parameters)
    types = tuple(dict.fromkeys(value for name, value in parameters if name == "_type")) or ("*",)
    read = [Need(type_, letter) for type_ in types for letter in "rs"]
    members = [Need("Group", "r")] if level == "Group" else []
    interaction = Interaction(
        kind="operation",
        method=method,
        path="/".join(segments),
        query=encode_pairs(_joined(parameters)),
        type=level,
        needs=tuple(dict.fromkeys([*read, *members, *reach.needs])),
        parameters=parameters,
        patients=reach.patients,
        operation=EXPORT,
    )
    return Export(interaction, parameters, asked.separate_status)


def _level(segments: tuple[str, ...]) -> str | None:
    """Return the type whose export it is; None for that of the whole system."""
    match segments:
        case ("$export",):
            return None
        case ("Patient", "$export"):
            return "Patient"
        case ("Group", id_, "$export"):
            resource_id(id_)
            return "Group"
    return _refuse("an export is of the system, of Patient or of one Group")


def _posted(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield the parameters of a Parameters resource."""
    try:
        resource = json.loads(body)
    except (ValueError, RecursionError):
        resource = None
    if not isinstance(resource, dict) or resource.get("resourceType") != "Parameters":
        _refuse("the body is a Parameters resource")
    if not resource.keys() <= {"resourceType", "id", "meta", "parameter"}:
        _refuse("the Parameters resource has members beside parameter")
    listed = resource.get("parameter", [])
    if not isinstance(listed, list):
        _refuse("parameter is a list")
    yield from map(_posted_parameter, listed)


def _posted_parameter(part: Any) -> tuple[str, str]:
    name = part.get("name") if isinstance(part, dict) else None
    if not isinstance(name, str) or len(part) != 2:
        _refuse("each parameter has a name and one value")
    if name == "patient":
        reference = part.get("valueReference")
        value = reference.get("reference") if isinstance(reference, dict) and len(reference) == 1 else None
    else:
        value = next((part[member] for member in _VALUES if member in part), None)
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, str) or not value or not value.isprintable():
        _refuse("each parameter has a name and one value")
    return name, value


def _items(name: str, value: str) -> Iterator[tuple[str, str]]:
    """Take a list apart: `_type=Patient,Condition` is two of them. A `_typeFilter` stays as it was written."""
    listed = name in {"_type", "_elements", "includeAssociatedData"}
    yield from ((name, item) for item in (value.split(",") if listed else [value]))


def _require_sound(method: str, parameters: Pairs) -> None:
    names = [name for name, _ in parameters]
    if unknown := set(names) - _READ.keys():
        known = ", ".join(sorted(_READ))
        _refuse(f"{len(unknown)} parameters are none of {known}")
    if any(names.count(name) > 1 for name in _ONCE):
        _refuse(f"of {', '.join(sorted(_ONCE))} each is given once")
    if "patient" in names and method == "GET":
        _refuse("patient belongs to an export by POST")


def _reach(name: str, value: str) -> Reach:
    """Check a parameter's value, and return what it reads beyond the listed types."""
    return _READ[name](value)


def _one_of(allowed: frozenset[str], says: str) -> Callable[[str], Reach]:
    def read(value: str) -> Reach:
        return NOWHERE if value in allowed else _refuse(says)

    return read


def _instant(value: str) -> Reach:
    says = "_since and _until are instants, such as 2026-01-31T00:00:00Z"
    return NOWHERE if _INSTANT.fullmatch(value) else _refuse(says)


def _type(value: str) -> Reach:
    resource_type(value)
    return NOWHERE


def _element(value: str) -> Reach:
    return NOWHERE if _ELEMENT.fullmatch(value) else _refuse("_elements lists elements, such as Patient.name")


def _associated(value: str) -> Reach:
    if value not in _PROVENANCE:
        _refuse(f"includeAssociatedData is one of {', '.join(sorted(_PROVENANCE))}")
    return Reach((Need("Provenance", "r"), Need("Provenance", "s")))


def _patient(value: str) -> Reach:
    return Reach(patients=(resource_id(value.removeprefix("Patient/")),))


def _filter(value: str) -> Reach:
    """Read the searches of a `_typeFilter`, each `Type?parameters` as in a URL."""
    return Reach.union(map(_search, _FILTERS.split(value)))


def _search(text: str) -> Reach:
    name, mark, query = text.partition("?")
    if not mark or not query:
        _refuse("_typeFilter is a search, such as Observation?category=laboratory")
    type_ = resource_type(name)
    found = read_search(type_, decode_query(query.encode("utf-8", "surrogatepass")))
    return Reach((Need(type_, "r"), Need(type_, "s"), *found.needs), found.patients)


_READ: Final[Mapping[str, Callable[[str], Reach]]] = {
    "_outputFormat": _one_of(_NDJSON, f"_outputFormat is {NDJSON}"),
    "_since": _instant,
    "_until": _instant,
    "_type": _type,
    "_elements": _element,
    "_typeFilter": _filter,
    "includeAssociatedData": _associated,
    "patient": _patient,
    "allowPartialManifests": _one_of(frozenset({"true", "false"}), "allowPartialManifests is true or false"),
    "organizeOutputBy": _type,
}


def _joined(parameters: Pairs) -> Iterator[tuple[str, str]]:
    """Put lists together again: some EHRs refuse a repeated `_type` (OR-08)."""
    for name in dict.fromkeys(name for name, _ in parameters):
        values = [value for given, value in parameters if given == name]
        yield from [(name, value) for value in values] if name == "_typeFilter" else [(name, ",".join(values))]


def _typed(name: str, value: str) -> dict[str, Any]:
    match name:
        case "patient":
            return {"valueReference": {"reference": value if "/" in value else f"Patient/{value}"}}
        case "_since" | "_until":
            return {"valueInstant": value}
        case "includeAssociatedData":
            return {"valueCode": value}
        case "allowPartialManifests":
            return {"valueBoolean": value == "true"}
    return {"valueString": value}


def _refuse(why: str) -> NoReturn:
    """`why` never quotes the request, and names what to change."""
    raise UninterpretableInteraction(why, public=f"This export cannot be checked: {why}.")
