"""One FHIR call and its answer, apart from HTTP: a request from outside and a Bundle's entry become the same thing."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.fhir.outcome import FhirError, bad_request
from sandbox.fhir.rights import Rights
from sandbox.population.elements import Resource

DEEPEST = 100
"""Levels of nesting in a body."""
FHIR_JSON = "application/fhir+json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked, and with which rights."""

    method: str
    segments: tuple[str, ...]
    """The decoded path below the FHIR base, without empty parts."""
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    rights: Rights
    assigned_id: str | None = None
    """For a create in a transaction: the id chosen before, so that other entries can refer to it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent: a resource as JSON, or `content` of its own media type, or nothing."""

    status: int
    resource: Resource | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    stream: Iterator[bytes] | None = None
    """Content that is made while it is sent."""
    media_type: str = FHIR_JSON

    @property
    def body(self) -> bytes:
        """The bytes of the answer."""
        if self.content is not None:
            return self.content
        return b"" if self.resource is None else json.dumps(self.resource, separators=(",", ":")).encode()


def parse_resource(call: Call, type_: str) -> Resource:
    """Return the resource in the body; raises FhirError 415 for XML, 400 for what is not a JSON resource of `type_`."""
    if "xml" in call.headers.get("content-type", ""):
        raise FhirError(415, "not-supported", "Send application/fhir+json.")
    try:
        resource = json.loads(call.body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise bad_request("The body is not JSON.", "structure") from error
    if not isinstance(resource, dict) or resource.get("resourceType") != type_:
        raise bad_request(f"The body is not a {type_}.", "structure")
    if not isinstance(resource.get("meta", {}), dict):
        raise bad_request("meta is not an object.", "structure")
    _require_shallow(resource)
    return resource


def _require_shallow(resource: Resource) -> None:
    """Raise FhirError (400) for nesting that no resource has and that recursion would not survive."""
    level: list[Any] = [resource]
    for _ in range(DEEPEST):
        inner = [list(node.values()) if isinstance(node, dict) else node for node in level]
        level = [child for nodes in inner for child in nodes if isinstance(child, dict | list)]
    if level:
        raise bad_request(f"The body is nested more than {DEEPEST} deep.", "structure")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
