"""A request for an operation: whose it is, and what it needs (SC-02, PX-14).

A known operation is read to the last parameter. Of one that is not in the table nothing is known but its place: it
needs every letter on every type, and `policy` asks for the operator's word besides.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from broker.interactions.document import references
from broker.interactions.interaction import Interaction, Need, Pairs
from broker.interactions.operations import Operation, find_operation, is_defined
from broker.interactions.parameters import read_parameters
from broker.interactions.request import Request, interaction_of, letters_on
from broker.interactions.search import (
    NOWHERE,
    Reach,
    listed_types,
    patients_referred_to,
    read_criteria,
    read_search,
    read_shown,
)
from broker.interactions.syntax import refuse, resource_id, resource_type

MOST_REFERENCES: Final = 4096
"""Different ones in the resources that an operation is given: each is a need to decide on."""
_NAME: Final = re.compile(r"\$[a-z][A-Za-z0-9-]{0,63}")
_LEVELS: Final = ("system", "type", "instance")
_UNKNOWN_REACH: Final = {"GET": "rs", "POST": "cruds"}


def is_operation(segments: tuple[str, ...]) -> bool:
    """Whether a path ends in an operation's name."""
    return bool(segments) and segments[-1].startswith("$")


def read_operation(request: Request) -> Interaction:
    """Return the operation that a request asks for. Raises `UninterpretableInteraction`."""
    *place, name = request.segments
    method = "GET" if request.method == "HEAD" else request.method
    if method not in _UNKNOWN_REACH or len(place) >= len(_LEVELS) or not _NAME.fullmatch(name):
        refuse("an operation is got or posted, at the base, at a type or at a resource")
    type_ = resource_type(place[0]) if place else "*"
    id_ = resource_id(place[1]) if place[1:] else None
    if name == "$export":
        refuse("a bulk export is not an ordinary operation")
    if operation := find_operation(name, type_, _LEVELS[len(place)], method):
        return replace(_known(request, operation, type_, id_), operation=name)
    if is_defined(name, type_):
        refuse("this operation is not asked for at this level, or not by this method")
    return replace(_unknown(request, type_, id_, _UNKNOWN_REACH[method]), operation=name, understood=False)


def _known(request: Request, operation: Operation, type_: str, id_: str | None) -> Interaction:
    given = read_parameters(request, operation)
    confining = tuple(pair for pair in given.pairs if pair[0] == operation.bound_by)
    needs = tuple(Need(type_, letter, confining) for letter in operation.needs)
    for other in listed_types(given.pairs):
        needs += letters_on(other, operation.needs_of_others)
    if operation.about_patient and type_ == "Patient":
        needs = tuple(replace(need, bound_to=id_) for need in needs)
    reach = Reach.union((_reach(type_, operation, given.pairs), *_reach_of_resources(given.resources)))
    interaction = interaction_of(request, "operation", type_, id_, needs=needs, reach=reach)
    posted = given.pairs if request.method == "POST" else ()
    return replace(interaction, parameters=request.query + posted, body=request.body, safe=True)


def _unknown(request: Request, type_: str, id_: str | None, letters: str) -> Interaction:
    """Pass on what cannot be understood. The patients that it names are known as far as they show."""
    shown = [read_shown(type_, pair).patients + patients_referred_to(pair[1]) for pair in request.query]
    reach = Reach(patients=tuple(id_ for patients in shown for id_ in patients))
    interaction = interaction_of(request, "operation", type_, id_, needs=letters_on("*", letters), reach=reach)
    return replace(interaction, body=request.body)


def _reach(type_: str, operation: Operation, pairs: Pairs) -> Reach:
    if operation.is_search:
        return read_search(type_, pairs)
    named = tuple((name, value) for name, value in pairs if not name.startswith("_"))
    return read_criteria(type_, named) if named else NOWHERE


def _reach_of_resources(resources: Iterable[dict[str, Any]]) -> Iterable[Reach]:
    """Yield what resources refer to, which the answer may tell whether it exists, and who they are."""
    referred = dict.fromkeys(chain.from_iterable(map(references, resources)))
    if len(referred) > MOST_REFERENCES:
        refuse(f"more than {MOST_REFERENCES} different references")
    yield from (_reach_of_reference(reference) for reference in referred if reference[:1] != "#")
    for resource in resources:
        if resource["resourceType"] == "Patient" and "id" in resource:
            yield Reach(patients=(resource_id(str(resource["id"])),))


def _reach_of_reference(reference: str) -> Reach:
    if "?" in reference:
        refuse("a conditional reference in a parameter")
    if reference.startswith("urn:"):
        return NOWHERE
    type_, _, id_ = reference.partition("/_history/")[0].rpartition("/")
    type_ = resource_type(type_.rpartition("/")[2])
    return Reach((Need(type_, "r"),), (resource_id(id_),) if type_ == "Patient" else ())
