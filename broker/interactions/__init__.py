"""Interactions: a FHIR REST request, parsed until it is known which scopes it needs, or refused (SC-02, SC-09, PX-07).

Every way in ends in an `Interaction` rebuilt from what was understood, or in `UninterpretableInteraction`. Nothing is
repaired and nothing is guessed: two programs that read one request differently are how a check is bypassed.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from broker.interactions.bundle import read_bundle
from broker.interactions.export import Export, parse_export
from broker.interactions.headers import RequestHeaders
from broker.interactions.interaction import LIMITABLE, Interaction, Need
from broker.interactions.operations import NAMES, is_defined
from broker.interactions.request import Request
from broker.interactions.requests import interpret, read_page
from broker.interactions.syntax import decode_form, decode_query, refuse, split_path

_DECIDED_BY_BODY: Final = frozenset({b"_search", *(name.encode() for name in NAMES)})

__all__ = [
    "LIMITABLE",
    "Export",
    "Interaction",
    "Need",
    "is_defined",
    "parse_export",
    "parse_interaction",
    "parse_page",
    "wants_body",
]


def wants_body(method: str, path: bytes) -> bool:
    """Whether the body must be read before deciding: a Bundle, a search by form, the parameters of an operation."""
    return method == "POST" and (not path or path.rpartition(b"/")[2] in _DECIDED_BY_BODY)


def parse_interaction(
    method: str, raw_path: bytes, raw_query: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes | None
) -> Interaction:
    """Return what a request is, from its parts as they were received.

    `raw_path` is what follows the FHIR base and its slash, percent-encoding intact, at most 2048 bytes; `raw_query` has
    no `?` and at most 8192 bytes. `body` is looked at where `wants_body` says so, and limited by the caller. Raises
    `UninterpretableInteraction`, whose `detail` names why without quoting the request.
    """
    request = _taken_apart(method, raw_path, raw_query, headers)
    if not wants_body(method, raw_path):
        return interpret(request)
    if body is None:
        refuse("the body was not read")
    if not request.segments:
        return read_bundle(request, body)
    if request.segments[-1] != "_search":
        return interpret(replace(request, body=body))
    if request.headers.media_type != "application/x-www-form-urlencoded":
        refuse("a search by POST is a form in UTF-8")
    return interpret(replace(request, form=decode_form(body)))


def parse_page(method: str, raw_path: bytes, raw_query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Interaction:
    """Return what following a server's page link is, as far as it can be read (PX-07); arguments as above.

    Its `needs` are those that its parameters show, and not those of the search. Raises `UninterpretableInteraction`.
    """
    return read_page(_taken_apart(method, raw_path, raw_query, headers))


def _taken_apart(method: str, raw_path: bytes, raw_query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Request:
    return Request(method, split_path(raw_path), decode_query(raw_query), RequestHeaders.read(headers))
