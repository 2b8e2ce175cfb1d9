"""Every FHIR interaction the broker knows, by method and path, and the letters each one needs (SC-02).

What is not in `interpret` is refused: whatever FHIR adds later.
"""

from typing import Final

from broker.interactions.interaction import Interaction, Need, Pairs
from broker.interactions.operation_request import is_operation, read_operation
from broker.interactions.request import Request, interaction_of, letters_on
from broker.interactions.search import (
    PRESENTATION,
    Reach,
    allow_only,
    listed_types,
    read_criteria,
    read_search,
    read_shown,
    require_one_format,
    restricting,
)
from broker.interactions.syntax import decode_query, is_id, refuse, resource_id, resource_type

FORMAT: Final = frozenset({"_format", "_pretty"})
_HISTORY: Final = PRESENTATION | {"_count", "_since", "_at", "_sort", "_total"}
_CAPABILITIES: Final = PRESENTATION | {"mode"}
_PAGE: Final = frozenset({"_getpages", "_getpagesoffset", "_pageId", "_bundletype"})
_COMPARTMENTS: Final = frozenset({"Patient", "Encounter", "Practitioner", "RelatedPerson", "Device"})
_WRITES: Final = {"PUT": ("update", "u"), "PATCH": ("patch", "u"), "DELETE": ("delete", "d")}
_CONDITIONAL_WRITES: Final = {"PUT": "ucs", "PATCH": "us", "DELETE": "ds"}  # a PUT that matches nothing creates


def interpret(request: Request) -> Interaction:
    """Return the interaction. Raises `UninterpretableInteraction`."""
    require_one_format(request.pairs)
    interaction = read_operation(request) if is_operation(request.segments) else _interpret(request)
    if request.headers.if_none_exist is not None and interaction.kind != "conditional-create":
        refuse("If-None-Exist belongs to a create")
    return interaction


def read_page(request: Request) -> Interaction:
    """Return the page behind a link that the server made, with what its parameters show; the rest is the server's.

    Only who knows which search the link goes on with can say what it needs (PX-07). Raises
    `UninterpretableInteraction`.
    """
    if request.method not in ("GET", "HEAD") or len(request.segments) > 1 or request.headers.if_none_exist is not None:
        refuse("a page is got from the base or from a type")
    require_one_format(request.query)
    type_ = resource_type(*request.segments) if request.segments else "*"
    reach = Reach.union(read_shown(type_, pair) for pair in request.query)
    return interaction_of(request, "search-page", type_, reach=reach)


def _interpret(request: Request) -> Interaction:  # noqa: C901, PLR0911 -- a table, one row per interaction
    match ("GET" if request.method == "HEAD" else request.method, *request.segments):
        case ("GET",) | ("POST", "_search"):
            return _search_system(request)
        case ("GET", "metadata"):
            allow_only(_CAPABILITIES, request.query)
            return interaction_of(request, "capabilities")
        case ("GET", "_history"):
            return _history(request, "history-system", "*", "s")
        case ("GET", type_) | ("POST", type_, "_search"):
            return _search_type(request, "search-type", resource_type(type_))
        case ("POST", type_):
            return _create(request, resource_type(type_))
        case ("PUT" | "PATCH" | "DELETE", type_):
            return _write_by_criteria(request, resource_type(type_))
        case ("GET", type_, "_history"):
            return _history(request, "history-type", resource_type(type_), "s")
        case ("GET", type_, id_):
            return _read(request, "read", resource_type(type_), resource_id(id_))
        case ("PUT" | "PATCH" | "DELETE", type_, id_):
            return _write(request, resource_type(type_), resource_id(id_))
        case ("GET", type_, id_, "_history"):
            return _history(request, "history-instance", resource_type(type_), "r", resource_id(id_))
        case ("GET", type_, id_, "_history", version) if is_id(version):
            return _read(request, "vread", resource_type(type_), resource_id(id_))
        case ("GET", owner, id_, member) | ("POST", owner, id_, member, "_search") if owner in _COMPARTMENTS:
            resource_id(id_)
            return _search_type(request, "search-compartment", member if member == "*" else resource_type(member))
    return refuse("no interaction that can be checked has this method and path")


def _read(request: Request, kind: str, type_: str, id_: str) -> Interaction:
    allow_only(PRESENTATION, request.query)
    return interaction_of(request, kind, type_, id_, needs=letters_on(type_, "r"))


def _history(request: Request, kind: str, type_: str, letter: str, id_: str | None = None) -> Interaction:
    allow_only(_HISTORY, request.query)
    return interaction_of(request, kind, type_, id_, needs=letters_on(type_, letter))


def _search_type(request: Request, kind: str, type_: str) -> Interaction:
    """Search one type, or (in a compartment) every type, which no filter surely restricts."""
    pairs = _search_pairs(request)
    own = Need(type_, "s", () if type_ == "*" else restricting(pairs))
    return interaction_of(request, kind, type_, needs=(own,), reach=read_search(type_, pairs))


def _search_system(request: Request) -> Interaction:
    """Search several types, or turn a page whose types only the server knows (HAPI's `_getpages`, PX-07)."""
    pairs = _search_pairs(request)
    is_page = request.form is None and any(name == "_getpages" for name, _ in pairs)
    apart = _PAGE if is_page else frozenset({"_type"})
    kind = "search-page" if is_page else "search-system"
    needs = tuple(Need(type_, "s") for type_ in listed_types(pairs))
    reach = read_search("*", tuple((name, value) for name, value in pairs if name not in apart))
    return interaction_of(request, kind, "*", needs=needs, reach=reach)


def _search_pairs(request: Request) -> Pairs:
    """Return all search pairs. By POST they are in the form alone: some servers read only one of the two (EP-22)."""
    if request.method == "POST":
        if request.form is None:
            refuse("a search by POST without its form")
        allow_only(PRESENTATION, request.query)
    return request.pairs


def _create(request: Request, type_: str) -> Interaction:
    """Read a create. A conditional one that matches answers what is stored, so being shown that needs `r`."""
    allow_only(FORMAT, request.query)
    if request.headers.if_none_exist is None:
        return interaction_of(request, "create", type_, needs=letters_on(type_, "c"))
    criteria = decode_query(request.headers.if_none_exist.encode("utf-8", "surrogatepass"))
    needs = letters_on(type_, "csr" if request.headers.returns_stored else "cs")
    reach = read_criteria(type_, criteria)
    return interaction_of(request, "conditional-create", type_, needs=needs, reach=reach)


def _write(request: Request, type_: str, id_: str) -> Interaction:
    """Read an update, patch or delete. `u` lets an update create (SC-02); If-None-Match asks it to, which needs `c`."""
    allow_only(FORMAT, request.query)
    kind, letters = _WRITES[request.method]
    if request.method == "PUT" and request.headers.if_none_match:
        letters += "c"
    return interaction_of(request, kind, type_, id_, needs=letters_on(type_, letters + _shown(request)))


def _write_by_criteria(request: Request, type_: str) -> Interaction:
    criteria = tuple((name, value) for name, value in request.query if name not in FORMAT)
    reach = read_criteria(type_, criteria)
    needs = letters_on(type_, _CONDITIONAL_WRITES[request.method] + _shown(request))
    kind = f"conditional-{_WRITES[request.method][0]}"
    return interaction_of(request, kind, type_, needs=needs, reach=reach)


def _shown(request: Request) -> str:
    """Return `r` for a patch that asks to be shown the result: that is reading what others wrote."""
    return "r" if request.method == "PATCH" and request.headers.returns_stored else ""
