"""Create, update and delete (FHIR R4, http.html sections 3.1.0.4, 3.1.0.7 and 3.1.0.8)."""

from base64 import b64encode
from urllib.parse import parse_qsl

from sandbox.fhir.exchange import Answer, Call, parse_resource
from sandbox.fhir.outcome import FhirError, bad_request, outcome, precondition_failed
from sandbox.fhir.query import parse_query
from sandbox.fhir.repository import Key
from sandbox.fhir.search import search
from sandbox.fhir.server import Server, version_headers
from sandbox.fhir.validation import require_id, require_readable
from sandbox.population.elements import Resource


def create(server: Server, call: Call, type_: str) -> Answer:
    """201 with the new version's `Location`; with `If-None-Exist`, 200 and the one that exists already."""
    resource = _binary(call) if _is_raw(call, type_) else parse_resource(call, type_)
    call.rights.require_for("c", {name: value for name, value in resource.items() if name != "id"})
    require_readable(resource)
    existing = find_existing(server, call, type_)
    if existing:
        return _written(server, call, 200, existing)
    resource["id"] = call.assigned_id or server.new_id()
    return _written(server, call, 201, server.repository.put(resource, "POST"))


def find_existing(server: Server, call: Call, type_: str) -> Resource | None:
    """Return the one match of `If-None-Exist`, if it is asked; raises FhirError 412 when there are several."""
    criteria = call.headers.get("if-none-exist")
    if criteria is None:
        return None
    query = parse_query(type_, parse_qsl(criteria.removeprefix("?"), keep_blank_values=True))
    if query.ignored or not query.conditions:
        raise bad_request(f"If-None-Exist cannot be decided by '{criteria}'.", "not-supported")
    found = search(query, server.repository, call.rights)
    if len(found) > 1:
        raise precondition_failed(f"If-None-Exist matches {len(found)} resources.")
    return found[0] if found else None


def _is_raw(call: Call, type_: str) -> bool:
    return type_ == "Binary" and "json" not in call.headers.get("content-type", "json")


def _binary(call: Call) -> Resource:
    """Raw content as a Binary; `X-Security-Context` says whose it is (FHIR R4, binary.html#security)."""
    resource: Resource = {"resourceType": "Binary", "contentType": call.headers["content-type"]}
    if "x-security-context" in call.headers:
        resource["securityContext"] = {"reference": call.headers["x-security-context"]}
    return {**resource, "data": b64encode(call.body).decode()}


def update(server: Server, call: Call, key: Key) -> Answer:
    """200, or 201 where nothing was; `If-Match` must name the current version.

    Both what was and what will be must be open to the caller: an update can move a resource to another chart.
    """
    resource = parse_resource(call, key[0])
    require_id(key[1])
    if resource.get("id") != key[1]:
        raise bad_request("The body's id is not the URL's.")
    call.rights.require_for("u", resource)
    current = server.repository.get(key)
    if current:
        call.rights.require_for("u", current)
    _require_match(call, current)
    require_readable(resource)
    return _written(server, call, 200 if current else 201, server.repository.put(resource, "PUT"))


def delete(server: Server, call: Call, key: Key) -> Answer:
    """204, also for what is deleted already."""
    call.rights.require("d", key[0])
    try:
        current = server.repository.read(key)
    except FhirError as error:
        if error.status == 410:
            return Answer(204)
        raise
    call.rights.require_for("d", current)
    _require_match(call, current)
    server.repository.delete(key)
    return Answer(204)


def _require_match(call: Call, current: Resource | None) -> None:
    wanted = call.headers.get("if-match")
    held = version_headers(current)["ETag"] if current else None
    if wanted is not None and wanted != held:
        raise precondition_failed(f"If-Match is {wanted}, the current version is {held or 'none'}.")


def _written(server: Server, call: Call, status: int, resource: Resource) -> Answer:
    """Return what the caller prefers to see of a stored resource (`Prefer: return=…`)."""
    number = resource["meta"]["versionId"]
    location = f"{server.base_url()}/{resource['resourceType']}/{resource['id']}/_history/{number}"
    headers = {"Location": location, **version_headers(resource)}
    prefer = call.headers.get("prefer", "")
    if "return=minimal" in prefer:
        return Answer(status, headers=headers)
    if "return=OperationOutcome" in prefer:
        return Answer(status, outcome("information", "informational", f"Stored as version {number}."), headers)
    return Answer(status, resource, headers)
