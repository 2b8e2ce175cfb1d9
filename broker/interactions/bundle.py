"""Batch and transaction: there is no scope for them, so every entry is an interaction of its own (SC-09).

The Bundle is forwarded as it was received, so it must have one reading only: unambiguous JSON, no unknown member beside
`method` and `url`, and a resource of the very type its URL names, since some servers follow the URL and some the
resource.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from broker.errors import UninterpretableInteraction
from broker.interactions.document import JSON, read_object, references
from broker.interactions.headers import RequestHeaders
from broker.interactions.interaction import Interaction, Need
from broker.interactions.request import Request
from broker.interactions.requests import FORMAT, interpret
from broker.interactions.search import NOWHERE, Reach, allow_only, read_criteria, require_one_format
from broker.interactions.syntax import decode_query, encode_pairs, refuse, resource_type, split_path

MOST_ENTRIES: Final = 500
MOST_ASKED: Final = 4096
"""Search parameters, and what they need, over all entries."""
MOST_CONDITIONAL_REFERENCES: Final = 20
_REQUEST_MEMBERS: Final = frozenset(
    {"id", "extension", "method", "url", "ifNoneMatch", "ifModifiedSince", "ifMatch", "ifNoneExist"}
)


def read_bundle(request: Request, body: bytes) -> Interaction:
    """Return the batch or transaction that `body` holds. Raises `UninterpretableInteraction` for any entry's sake."""
    allow_only(FORMAT, request.query)
    require_one_format(request.query)
    if request.headers.media_type not in JSON or request.headers.if_none_exist is not None:
        refuse("a Bundle is posted as UTF-8 JSON")
    bundle = read_object(body)
    entries = bundle.get("entry")
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") not in ("batch", "transaction"):
        refuse("not a Bundle of type batch or transaction")
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST_ENTRIES:
        refuse(f"a Bundle has 1 to {MOST_ENTRIES} entries")
    interactions = tuple(_within_measure(_numbered_entry(n, e, request.headers) for n, e in enumerate(entries, 1)))
    return Interaction(
        kind=bundle["type"],
        method=request.method,
        path="",
        query=encode_pairs(request.query),
        needs=_distinct(entry.needs for entry in interactions),
        parameters=request.query,
        patients=_distinct(entry.patients for entry in interactions),
        body=body,
        entries=interactions,
        returns=request.headers.returns,
    )


def _within_measure(entries: Iterable[Interaction]) -> Iterator[Interaction]:
    """Give the entries, as long as deciding on all of them stays short."""
    asked = 0
    for entry in entries:
        asked += len(entry.parameters) + len(entry.needs)
        if asked > MOST_ASKED:
            refuse(f"a Bundle with more than {MOST_ASKED} parameters and needs in all")
        yield entry


def _numbered_entry(number: int, entry: Any, headers: RequestHeaders) -> Interaction:
    try:
        return _read_entry(entry, headers)
    except UninterpretableInteraction as error:
        raise UninterpretableInteraction(f"entry {number}: {error.detail}") from None


def _read_entry(entry: Any, headers: RequestHeaders) -> Interaction:
    request = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(request, dict) or not _REQUEST_MEMBERS.issuperset(request):
        refuse("no request, or one with members FHIR does not have")
    method, url = _text(request, "method"), _text(request, "url")
    path, _, query = url.encode("utf-8", "surrogatepass").partition(b"?")
    entry_headers = RequestHeaders(
        media_type=None,
        if_none_exist=_text(request, "ifNoneExist") if "ifNoneExist" in request else None,
        if_none_match="ifNoneMatch" in request,
        returns=headers.returns,
    )
    interaction = interpret(Request(method, split_path(path), decode_query(query), entry_headers))
    if interaction.kind == "capabilities":
        refuse("capabilities are not asked for in a Bundle")
    if interaction.operation is not None and (method == "POST" or not interaction.understood):
        refuse("an operation by POST, or one that only an operator can allow, is asked for by itself")
    if interaction.method in ("GET", "HEAD") and "ifMatch" in request:
        refuse("ifMatch belongs to a write")
    reach = _read_resource(interaction, entry.get("resource"))
    return replace(
        interaction,
        needs=_distinct((interaction.needs, reach.needs)),
        patients=_distinct((interaction.patients, reach.patients)),
    )


def _read_resource(interaction: Interaction, resource: Any) -> Reach:
    """Check the resource of an entry against its URL; its conditional references are searches."""
    if interaction.method not in ("POST", "PUT", "PATCH"):
        return NOWHERE if resource is None else refuse("a resource in an entry that has no use for it")
    if not isinstance(resource, dict):
        refuse("a write without a resource")
    if interaction.method != "PATCH":
        if resource.get("resourceType") != interaction.type or interaction.type == "Bundle":
            refuse("a resource of another type than the URL, or a nested Bundle")
        if interaction.id is not None and resource.get("id", interaction.id) != interaction.id:
            refuse("a resource with another id than the URL")
    conditional = {reference for reference in references(resource) if "?" in reference}
    if len(conditional) > MOST_CONDITIONAL_REFERENCES:
        refuse("too many conditional references in one resource")
    return Reach.union(map(_read_reference, conditional))


def _read_reference(reference: str) -> Reach:
    """Read a conditional reference (`Practitioner?identifier=…`): it tells of a match, so it needs `s`."""
    type_, _, criteria = reference.partition("?")
    found = read_criteria(resource_type(type_), decode_query(criteria.encode("utf-8", "surrogatepass")))
    return Reach((Need(type_, "s"), *found.needs), found.patients)


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else refuse("a member of the request that is not text")


def _distinct(groups: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(groups)))
