"""Search by GET and by POST, turning pages, and Patient `$everything`."""

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode

from sandbox.fhir import page_links
from sandbox.fhir.compartment import SHARED_TYPES, references
from sandbox.fhir.exchange import Answer, Call
from sandbox.fhir.outcome import bad_request
from sandbox.fhir.paging import Session, owner_of
from sandbox.fhir.query import Query, parse_query
from sandbox.fhir.repository import Key
from sandbox.fhir.search import search
from sandbox.fhir.server import Server
from sandbox.population.elements import Resource

Pairs = tuple[tuple[str, str], ...]


def search_type(server: Server, call: Call, type_: str) -> Answer:
    """Answer a searchset Bundle; an unknown parameter draws a warning, or 400 under `Prefer: handling=strict`."""
    if call.method == "GET" and page_links.read(dict(call.query)) is not None:
        return turn_page(server, call)
    query = parse_query(type_, _relative(server, _parameters(call)))
    if query.ignored and "handling=strict" in call.headers.get("prefer", ""):
        raise bad_request(f"{type_} is not searched by: {', '.join(query.ignored)}.", "not-supported")
    keys = tuple(_key(resource) for resource in search(query, server.repository, call.rights))
    session = Session(query, keys, owner_of(call.rights))
    return Answer(200, server.paging.first_page(session, _self_url(server, type_, query.understood), call.rights))


def _parameters(call: Call) -> Pairs:
    """Take a POST's parameters from its form alone: what stands in its URL is ignored (EP-22)."""
    if call.method != "POST":
        return call.query
    if "application/x-www-form-urlencoded" not in call.headers.get("content-type", ""):
        raise bad_request("Send application/x-www-form-urlencoded to _search.", "structure")
    return tuple(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))


def _relative(server: Server, pairs: Pairs) -> Iterator[tuple[str, str]]:
    """Read a reference written absolute on this base as the relative one."""
    base = f"{server.base_url()}/"
    return ((name, value.removeprefix(base)) for name, value in pairs)


def _self_url(server: Server, path: str, pairs: Pairs) -> str:
    return f"{server.base_url()}/{path}" + (f"?{urlencode(pairs)}" if pairs else "")


def _key(resource: Resource) -> Key:
    return resource["resourceType"], resource["id"]


def turn_page(server: Server, call: Call) -> Answer:
    """Answer the page behind a `next` or `previous` link."""
    pairs = page_links.read(dict(call.query))
    if pairs is None:
        raise bad_request("A search names a resource type.", "not-supported")
    return Answer(200, server.paging.page(pairs, call.rights))


def everything(server: Server, call: Call, patient: str) -> Answer:
    """Answer a patient's chart and the shared resources it refers to (FHIR R4, operation-patient-everything.html)."""
    key = ("Patient", patient)
    call.rights.require("r", "Patient")
    call.rights.require_for("r", server.repository.read(key))
    types = {type_ for name, value in call.query if name == "_type" for type_ in value.split(",")}
    query = parse_query("Patient", ((name, value) for name, value in call.query if name == "_count"))
    chart = [r for r in server.repository.chart(patient) if call.rights.allow("r", r)]
    keys = dict.fromkeys(_key(resource) for resource in chart + _shared(server, call, chart))
    wanted = tuple(key for key in keys if not types or key[0] in types)
    session = Session(Query("Patient", count=query.count), wanted, owner_of(call.rights), letter="r")
    url = _self_url(server, f"Patient/{patient}/$everything", call.query)
    return Answer(200, server.paging.first_page(session, url, call.rights))


def _shared(server: Server, call: Call, chart: list[Resource]) -> list[Resource]:
    """Practitioners and organizations that the chart names."""
    keys = dict.fromkeys(key for resource in chart for key in references(resource) if key[0] in SHARED_TYPES)
    found = (server.repository.get(key) for key in keys)
    return [resource for resource in found if resource and call.rights.allow("r", resource)]
