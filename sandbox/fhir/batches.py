"""Batch and transaction Bundles: each entry is a call of its own, with the caller's rights (SC-09)."""

import json
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from sandbox.fhir.exchange import Answer, Call, parse_resource
from sandbox.fhir.outcome import FhirError, bad_request
from sandbox.fhir.parameters import PARAMETERS
from sandbox.fhir.server import Server
from sandbox.fhir.writing import find_existing
from sandbox.population.elements import Resource

Room = Callable[[Server, Call], Answer]

_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "GET": 3}
"""In which a transaction acts (FHIR R4, http.html#trules)."""
_CONDITIONS = {"ifMatch": "if-match", "ifNoneMatch": "if-none-match", "ifNoneExist": "if-none-exist"}


def process_bundle(server: Server, call: Call, answer: Room) -> Answer:
    """Act on every entry: a batch answers each for itself, a transaction is refused whole when one is."""
    bundle = parse_resource(call, "Bundle")
    kind, entries = bundle.get("type"), bundle.get("entry", [])
    if kind not in ("batch", "transaction") or not isinstance(entries, list):
        raise bad_request("Only a batch or a transaction is processed here.", "not-supported")
    act = _batch if kind == "batch" else _transaction
    responses = act(server, call, entries, answer)
    return Answer(200, {"resourceType": "Bundle", "type": f"{kind}-response", "entry": responses})


def _batch(server: Server, call: Call, entries: list[Any], answer: Room) -> list[Resource]:
    return [_attempt(server, call, entry, answer) for entry in entries]


def _attempt(server: Server, call: Call, entry: Any, answer: Room) -> Resource:
    try:
        return _response(answer(server, _entry_call(server, call, entry)))
    except FhirError as error:
        return {"response": {"status": _status(error.status), "outcome": error.resource}}


def _transaction(server: Server, call: Call, entries: list[Any], answer: Room) -> list[Resource]:
    calls = [_entry_call(server, call, entry) for entry in entries]
    named = [(entry.get("fullUrl"), c) for c, entry in zip(calls, entries, strict=True)]
    names = {url: _name(server, c) for url, c in named if isinstance(url, str)}
    responses: dict[int, Resource] = {}
    with server.repository.all_or_nothing():
        for index in sorted(range(len(calls)), key=lambda i: _ORDER[calls[i].method]):
            try:
                responses[index] = _response(answer(server, _renamed(calls[index], names)))
            except FhirError as error:
                text = f"Nothing was done, because of entry {index}: {error.diagnostics}"
                raise FhirError(error.status, error.code, text, error.headers) from error
    return [responses[index] for index in range(len(calls))]


def _entry_call(server: Server, outer: Call, entry: Any) -> Call:
    """Return the call an entry stands for; raises FhirError (400) for what cannot be one."""
    request = entry.get("request") if isinstance(entry, dict) else None
    request = request if isinstance(request, dict) else {}
    method, url = str(request.get("method")), _split(str(request.get("url")))
    segments = tuple(unquote(part) for part in url.path.split("/") if part)
    misplaced = url.scheme or url.netloc or not segments or (method == "POST" and len(segments) > 1)
    if method not in _ORDER or misplaced:
        raise bad_request("An entry's request needs a method and a URL relative to the FHIR base.")
    headers = {name: str(request[element]) for element, name in _CONDITIONS.items() if element in request}
    return Call(
        method=method,
        segments=segments,
        query=tuple(parse_qsl(url.query, keep_blank_values=True)),
        headers={"accept": "application/fhir+json", "prefer": outer.headers.get("prefer", ""), **headers},
        body=json.dumps(entry.get("resource")).encode(),
        rights=outer.rights,
        assigned_id=server.new_id() if method == "POST" else None,
    )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise bad_request(f"'{url}' is not a URL.") from error


def _name(server: Server, call: Call) -> str:
    """Return what a reference to an entry's `fullUrl` becomes: the resource it will be, or the one that exists."""
    conditional = call.method == "POST" and call.segments[0] in PARAMETERS
    existing = find_existing(server, call, call.segments[0]) if conditional else None
    if existing:
        return f"{existing['resourceType']}/{existing['id']}"
    return "/".join((*call.segments, call.assigned_id) if call.assigned_id else call.segments)


def _renamed(call: Call, names: dict[str, str]) -> Call:
    return replace(call, body=json.dumps(_substitute(json.loads(call.body), names)).encode())


def _substitute(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _substitute(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_substitute(value, names) for value in node]
    return names.get(node, node) if isinstance(node, str) else node


def _response(answer: Answer) -> Resource:
    response = {"status": _status(answer.status)}
    for element, header in (("location", "Location"), ("etag", "ETag")):
        if header in answer.headers:
            response[element] = answer.headers[header]
    resource = answer.resource
    if resource and "lastUpdated" in resource.get("meta", {}):
        response["lastModified"] = resource["meta"]["lastUpdated"]
    return {"resource": resource, "response": response} if resource else {"response": response}


def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
