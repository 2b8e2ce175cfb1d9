"""Read, vread and history of one instance (FHIR R4, http.html sections 3.1.0.2, 3.1.0.3 and 3.1.0.13)."""

from base64 import b64decode

from sandbox.fhir.exchange import Answer, Call
from sandbox.fhir.outcome import FhirError, forbidden
from sandbox.fhir.repository import Key, Version
from sandbox.fhir.server import Server, version_headers
from sandbox.population.elements import Resource


def read(server: Server, call: Call, key: Key) -> Answer:
    """Answer the current version; 304 when the caller holds it already (`If-None-Match`)."""
    call.rights.require("r", key[0])
    resource = server.repository.read(key)
    call.rights.require_for("r", resource)
    headers = version_headers(resource)
    if call.headers.get("if-none-match") == headers["ETag"]:
        return Answer(304, headers=headers)
    if key[0] == "Binary" and "json" not in call.headers.get("accept", ""):
        return _content(resource, headers)
    return Answer(200, resource, headers)


def _content(binary: Resource, headers: dict[str, str]) -> Answer:
    """Answer a Binary as what it is, which is what a browser asks for (FHIR R4, binary.html#rest)."""
    content = b64decode(binary.get("data", ""))
    return Answer(200, headers=headers, content=content, media_type=binary["contentType"])


def vread(server: Server, call: Call, key: Key, number: str) -> Answer:
    """One version; raises FhirError 410 for the one that is a deletion."""
    for version in _versions(server, call, key):
        if str(version.number) == number:
            if version.resource is None:
                raise FhirError(410, "deleted", f"{key[0]}/{key[1]} was deleted in version {number}.")
            return Answer(200, version.resource, version_headers(version.resource))
    raise FhirError(404, "not-found", f"{key[0]}/{key[1]} has no version '{number}'.")


def history(server: Server, call: Call, key: Key) -> Answer:
    """All versions the caller's scopes open, newest first."""
    versions = _versions(server, call, key)
    base = server.base_url()
    bundle = {
        "resourceType": "Bundle",
        "type": "history",
        "total": len(versions),
        "link": [{"relation": "self", "url": f"{base}/{key[0]}/{key[1]}/_history"}],
        "entry": [_history_entry(version, key, base) for version in reversed(versions)],
    }
    return Answer(200, bundle)


def _versions(server: Server, call: Call, key: Key) -> list[Version]:
    """Judge each version by itself: a resource may have moved from one chart to another."""
    call.rights.require("r", key[0])
    versions = server.repository.versions(key)
    opened = [v for v in versions if v.resource is None or call.rights.allow("r", v.resource)]
    if all(version.resource is None for version in opened):
        raise forbidden(f"The access token's scopes do not let it read this {key[0]}.")
    return opened


def _history_entry(version: Version, key: Key, base: str) -> Resource:
    url = f"{key[0]}/{key[1]}"
    entry: Resource = {"fullUrl": f"{base}/{url}"}
    if version.resource is not None:
        entry["resource"] = version.resource
    entry["request"] = {"method": version.method, "url": key[0] if version.method == "POST" else url}
    status = {"POST": "201", "DELETE": "204"}.get(version.method, "200")
    etag = f'W/"{version.number}"'
    return {**entry, "response": {"status": status, "etag": etag, "lastModified": version.updated}}
