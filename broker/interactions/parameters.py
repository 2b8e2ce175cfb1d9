"""The parameters of a known operation, of a query or of a body, each of them one that the operation has."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from broker.interactions.document import JSON, read_object, references
from broker.interactions.interaction import Pairs
from broker.interactions.operations import Operation
from broker.interactions.request import Request
from broker.interactions.search import PRESENTATION, allow_only
from broker.interactions.syntax import refuse

MOST_PARAMETERS: Final = 256
LONGEST_TEXT: Final = 8192
"""Characters of one parameter in a body: as many as a query may be."""
_TEXT: Final = re.compile(
    r"value(?:Boolean|Canonical|Code|Date|DateTime|Decimal|Id|Instant|Integer|PositiveInt|String|Time|UnsignedInt|Uri|Url)"
)
_STRUCTURE: Final = frozenset({"valueCoding", "valueCodeableConcept"})
_MEMBERS: Final = frozenset({"resourceType", "id", "meta", "language", "parameter"})


@dataclass(frozen=True, slots=True)
class Given:
    """What an operation was given."""

    pairs: Pairs = field(default=(), repr=False)
    """Text, numbers and the like, also those of a body, as text."""
    resources: tuple[dict[str, Any], ...] = field(default=(), repr=False)


def read_parameters(request: Request, operation: Operation) -> Given:
    """Return the parameters; `Patient/$match` and its like also take the resource itself for a body.

    By POST they are in the body alone: some servers read only one of the two (EP-22). Raises
    `UninterpretableInteraction` for one that the operation does not have: a server may know one that changes its
    meaning.
    """
    if request.method != "POST":
        if not operation.is_search:
            allow_only(PRESENTATION | operation.parameters, request.query)
        return Given(request.query)
    allow_only(PRESENTATION, request.query)
    if not request.body:
        return Given()
    if request.headers.media_type not in JSON:
        refuse("the parameters of an operation are posted as UTF-8 JSON")
    found = read_object(request.body)
    if found.get("resourceType") == "Parameters":
        return _read_body(found, operation, request.segments)
    if "resource" not in operation.resources:
        refuse("the parameters of an operation are posted as a Parameters resource")
    return Given(resources=(_resource(found, "resource", request.segments),))


def _read_body(found: dict[str, Any], operation: Operation, segments: tuple[str, ...]) -> Given:
    listed = found.get("parameter", [])
    if not _MEMBERS.issuperset(found) or not isinstance(listed, list) or len(listed) > MOST_PARAMETERS:
        refuse("a Parameters resource with other members than it has, or with too many parameters")
    pairs: list[tuple[str, str]] = []
    resources: list[dict[str, Any]] = []
    for name, member, value in map(_parameter, listed):
        if _TEXT.fullmatch(member) and name in operation.parameters:
            pairs.append((name, _short(_text(value))))
        elif member == "resource" and name in operation.resources and isinstance(value, dict):
            resources.append(_resource(value, name, segments))
        elif not (member in _STRUCTURE and name in operation.structures and _is_plain(value)):
            refuse("a parameter that this operation does not have, or not of this type")
    return Given(tuple(pairs), tuple(resources))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else refuse(f"a parameter of more than {LONGEST_TEXT} characters")


def _parameter(parameter: Any) -> tuple[str, str, Any]:
    """Return name, member and value of one parameter that has these and nothing else."""
    if not isinstance(parameter, dict) or len(parameter) != 2 or not isinstance(parameter.get("name"), str):
        refuse("a parameter that is not a name and one value")
    (member,) = parameter.keys() - {"name"}
    return parameter["name"], member, parameter[member]


def _text(value: Any) -> str:
    """Return text, a number or a boolean as a query would have it."""
    text = str(value).lower() if isinstance(value, bool) else value
    return text if isinstance(text, str) and text and text.isprintable() else refuse("a parameter that is not text")


def _is_plain(structure: Any) -> bool:
    return isinstance(structure, dict) and not any(references(structure))


def _resource(found: dict[str, Any], parameter: str, segments: tuple[str, ...]) -> dict[str, Any]:
    """Check that a resource is of the type that the operation is asked for at, and not another one than the URL's."""
    if found.get("resourceType") != segments[0] or segments[0] == "Bundle":
        refuse("a resource of another type than this operation takes")
    if parameter == "resource" and len(segments) > 2 and found.get("id", segments[1]) != segments[1]:
        refuse("a resource with another id than the URL")
    return found
