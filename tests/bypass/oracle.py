"""What a request does to a world of nine resources, worked out in the plainest way and with none of the broker's code.

A server that does all that FHIR lets it do is played: everything that it would read, find, tell of, write or delete is
listed, as far as its token opens it. What is listed must be what the handle may do, each for itself.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias
from urllib.parse import unquote

ME, OTHER = "pat-1", "pat-2"
LAB, VITAL = "lab", "vital"
PLACE: Final = "sessionID"
"""A parameter that is a place in the results of some search: of all else that is asked no notice is taken."""


@dataclass(frozen=True)
class Thing:
    """A resource: whose it is, its category, and what it refers to."""

    type: str
    id: str
    patient: str | None = None
    category: str | None = None
    refers_to: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`Type/id`."""
        return f"{self.type}/{self.id}"

    @property
    def resource(self) -> dict[str, object]:
        """The resource itself, as a server answers it."""
        subject = {"subject": {"reference": f"Patient/{self.patient}"}} if self.patient else {}
        category = {"category": [{"coding": [{"system": "c", "code": self.category}]}]} if self.category else {}
        return {"resourceType": self.type, "id": self.id, **subject, **category}


def _observation(id_: str, patient: str, category: str) -> Thing:
    return Thing("Observation", id_, patient, category, (f"Patient/{patient}", "Practitioner/d1"))


WORLD: Final = (
    Thing("Patient", ME, ME, None, ("Practitioner/d1",)),
    Thing("Patient", OTHER, OTHER),
    _observation("o1", ME, LAB),
    _observation("o2", ME, VITAL),
    _observation("o3", OTHER, LAB),
    _observation("o4", OTHER, VITAL),
    Thing("Condition", "c1", ME, None, (f"Patient/{ME}",)),
    Thing("Condition", "c2", OTHER, None, (f"Patient/{OTHER}",)),
    Thing("Practitioner", "d1"),
)
NAMED: Final = {thing.name: thing for thing in WORLD}
TYPES: Final = sorted({thing.type for thing in WORLD})
Deed: TypeAlias = tuple[str, Thing]
"""A letter, and what it is done to. A capital one only tells of it: it is in no answer that could be looked at. Of two
letters either will do: what is included with the results of a search, a search for it would show as well."""
Pairs: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True)
class Holder:
    """Scope texts of a handle, of the app's policy and of the EHR's token; and the patients of handle and context."""

    held: str
    policy: str
    granted: str
    context: str | None
    only: str | None

    def may(self, deed: Deed) -> bool:
        """Whether the handle may do it."""
        narrow = self.only is None or deed[1].patient in {None, self.only}
        return narrow and any(
            _at(level, deed, self.context) and all(_says(text, level, (letter, deed[1])) for text in self._texts)
            for level, letter in product(("patient", "user", "system"), deed[0])
        )

    def opens(self, deed: Deed) -> bool:
        """Whether the EHR's token opens it."""
        return any(
            _at(level, deed, self.context) and _says(self.granted, level, (letter, deed[1]))
            for level, letter in product(("patient", "user", "system"), deed[0])
        )

    @property
    def _texts(self) -> tuple[str, ...]:
        return self.held, self.policy, self.granted


def forbidden(
    holder: Holder, requests: Iterable[tuple[str, str]], is_released: Callable[[Thing], bool] = lambda _: True
) -> list[Deed]:
    """Return what these requests would do that the handle may not: each is a method and a path with its query.

    What is answered and not released is not done.
    """
    done = [deed for method, url in requests for deed in _deeds(method, url)]
    shown = [deed for deed in done if deed[0] not in {"r", "s", "rs"} or is_released(deed[1])]
    return [deed for deed in shown if holder.opens(deed) and not holder.may(deed)]


def _at(level: str, deed: Deed, context: str | None) -> bool:
    """Whether a resource is within a level: a `patient/` scope is for the patient in context, and for nobody's."""
    return level != "patient" or (context is not None and deed[1].patient in {None, context})


def _says(text: str, level: str, deed: Deed) -> bool:
    letter, thing = deed
    for word in text.split():
        place, _, query = word.partition("?")
        at, _, access = place.partition("/")
        type_, _, letters = access.partition(".")
        wanted = unquote(query.partition("=")[2])
        if at == level and type_ in {"*", thing.type} and letter.lower() in letters and wanted in {"", thing.category}:
            return True
    return False


def _deeds(method: str, url: str) -> Iterator[Deed]:
    path, _, query = url.partition("?")
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&"))] if query else []
    parts = path.split("/") if path else []
    match parts:
        case [*_, operation] if operation.startswith("$"):
            yield from _operation(method, parts[:-1], operation, pairs)
        case [*place, "_history"] | [*place, "_history", _]:
            letter = "r" if len(place) == 2 else "s"
            yield from ((letter, thing) for thing in _at_place(place))
        case ["Patient", id_, member]:
            mine = [thing for thing in WORLD if thing.patient == id_ and member in {"*", thing.type}]
            yield from _search(mine, pairs)
        case [type_, id_]:
            yield from _instance(method, NAMED[f"{type_}/{id_}"])
        case [type_] if method == "POST":
            yield from (("c", thing) for thing in _of(type_))
        case [type_]:
            yield from _search_or_write(method, _of(type_), pairs)
        case _:
            listed = [type_ for name, value in pairs if name == "_type" for type_ in value.split(",")]
            rest = [pair for pair in pairs if pair[0] != "_type"]
            yield from _search([thing for type_ in listed or TYPES for thing in _of(type_)], rest)


def _of(type_: str) -> list[Thing]:
    return [thing for thing in WORLD if thing.type == type_]


def _at_place(place: list[str]) -> list[Thing]:
    return [thing for thing in WORLD if thing.name.split("/")[: len(place)] == place]


def _instance(method: str, thing: Thing) -> Iterator[Deed]:
    """Read, delete or replace; what is written may be about anybody, since the body says. A patient stays who it is."""
    if method in {"PUT", "PATCH"} and thing.type != "Patient":
        yield from (("u", written) for written in _of(thing.type))
    yield {"GET": "r", "HEAD": "r", "DELETE": "d"}.get(method, "u"), thing


def _search_or_write(method: str, things: list[Thing], pairs: Pairs) -> Iterator[Deed]:
    is_read = method in {"GET", "HEAD"}
    yield from _search(things, pairs if is_read else [pair for pair in pairs if pair[0] != PLACE])
    matches = _matches(things, pairs)
    if method == "DELETE":
        yield from (("d", thing) for thing in matches)
    if method in {"PUT", "PATCH"}:
        yield from (("u", thing) for thing in things)
    if method == "PUT":
        yield from (("c", thing) for thing in things)


def _search(things: list[Thing], pairs: Pairs) -> Iterator[Deed]:
    """What is found, what comes with it, and what a chain or `_has` tells of."""
    found = list(WORLD) if any(name == PLACE for name, _ in pairs) else _matches(things, pairs)
    yield from (("s", thing) for thing in found)
    for name, value in pairs:
        if name.startswith("_include"):
            included = [NAMED[target] for thing in found for target in thing.refers_to]
            wanted = value.split(":")[2:] or ([] if value.count(":") == 1 else TYPES)
            yield from (("rs", thing) for thing in included if thing.type in (wanted or _targets(value)))
        elif name.startswith("_revinclude"):
            source = value.partition(":")[0]
            yield from (("s", thing) for thing in _referring(found) if source in {"*", thing.type})
        elif name.startswith("_has:"):
            yield from (("S", thing) for thing in _referring(things) if thing.type == name.split(":")[1])
        elif "." in name:
            yield from (("S", NAMED[target]) for thing in things for target in _chained(thing, name))


def _targets(include: str) -> list[str]:
    """Return the types that the parameter of an include may lead to."""
    return {"patient": ["Patient"], "subject": ["Patient"], "performer": ["Practitioner"]}.get(
        include.partition(":")[2], TYPES
    )


def _chained(thing: Thing, name: str) -> list[str]:
    to = "Practitioner/" if name.startswith("performer") else "Patient/"
    return [target for target in thing.refers_to if target.startswith(to)]


def _referring(things: list[Thing]) -> list[Thing]:
    names = {thing.name for thing in things}
    return [thing for thing in WORLD if names & set(thing.refers_to)]


def _matches(things: list[Thing], pairs: Pairs) -> list[Thing]:
    """Apply what filters; a chain and `_has` are taken to match everything."""
    for name, value in pairs:
        values = {part.removeprefix("Patient/") for part in value.split(",")}
        match name.lower():
            case "patient" | "subject" | "subject:patient":
                things = [thing for thing in things if thing.patient in values and thing.type != "Patient"]
            case "patient:not":
                things = [thing for thing in things if thing.patient not in values]
            case "category":
                things = [thing for thing in things if thing.category in values]
            case "_id":
                things = [thing for thing in things if thing.id in values]
    return things


def _operation(method: str, place: list[str], name: str, pairs: Pairs) -> Iterator[Deed]:
    match name:
        case "$everything" | "$summary":
            whose = place[1] if len(place) > 1 else None
            listed = [type_ for key, value in pairs if key == "_type" for type_ in value.split(",")] or TYPES
            chart = [thing for thing in WORLD if whose is None or thing.patient == whose]
            yield from (("r", thing) for thing in chart if thing.type in {*listed, "Patient"})
        case "$lastn":  # shows what a search by the same parameters does
            yield from _search(_of("Observation"), pairs)
        case "$meta":
            yield from (("r" if len(place) > 1 else "s", thing) for thing in _at_place(place))
        case _:  # whatever it is, it may be anything, as far as its method is true
            yield from ((letter, thing) for letter in ("cruds" if method == "POST" else "rs") for thing in WORLD)
