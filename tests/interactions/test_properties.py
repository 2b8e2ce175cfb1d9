import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.errors import UninterpretableInteraction
from broker.interactions import Interaction, parse_interaction, wants_body
from tests.interactions.asking import FORM, JSON, ask, ask_bundle, entry

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SEGMENTS = (
    "Patient",
    "Observation",
    "1",
    "a-b.c",
    "_search",
    "_history",
    "$everything",
    "*",
    "metadata",
    "..",
    "%2e",
    "",
)
PATHS = (
    "", "Patient", "Patient/1", "Patient/a-b.c/_history", "Patient/1/_history/2", "Patient/_history", "_history",
    "Patient/_search", "Patient/1/Task", "Patient/1/*/_search", "Patient/1/$everything", "Observation/$lastn",
    "_search", "metadata",
)  # fmt: skip
PAIRS = (
    "code=a|b", "patient=1", "patient=Patient/2", "subject=Group/1", "_id=7", "_include=Task:patient", "_include=*",
    "_revinclude=Task:focus", "_has:Task:focus:code=x", "subject:Patient.name=+b", "_type=Patient,Task", "_count=5",
    "_getpages=a", "_sort=-date", "_format=json", "name=a%26b", "name=%e2%82%ac",
)  # fmt: skip
BROKEN_PAIRS = ("_filter=x", "broken", "a=%zz", "a=\x00", "", "code=", "a;b=c")
HEADERS = (
    (b"content-type", FORM.encode()), (b"Content-Type", JSON.encode()), (b"If-None-Exist", b"identifier=1"),
    (b"If-None-Match", b"*"), (b"Prefer", b"return=representation"),
)  # fmt: skip
BROKEN_HEADERS = ((b"x-http-method", b"PUT"), (b"Prefer", b"respond-async"), (b"\xff", b"\xff"))


def joined(separator: str, parts: tuple[str, ...], most: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(parts), max_size=most).map(separator.join).map(str.encode)


methods = st.sampled_from(METHODS)
paths = st.sampled_from(PATHS).map(str.encode)
queries = joined("&", PAIRS, 2)
headers = st.lists(st.sampled_from(HEADERS), max_size=2, unique=True)
wild_methods = methods | st.text(max_size=5)
wild_paths = st.one_of(paths, st.binary(max_size=40), joined("/", SEGMENTS, 5))
wild_queries = st.one_of(queries, st.binary(max_size=40), joined("&", PAIRS + BROKEN_PAIRS, 4))
wild_headers = st.lists(
    st.one_of(st.sampled_from(HEADERS + BROKEN_HEADERS), st.tuples(st.binary(), st.binary())), max_size=3
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["GET", "Patient", "Bundle"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["request", "resource", "reference", "url", "method", "entry", "a"]), inner)
    ),
    max_leaves=8,
)
bundles = st.builds(
    lambda members, entries: json.dumps(
        {"resourceType": "Bundle", "type": "batch", "entry": entries} | members
    ).encode(),
    st.dictionaries(st.sampled_from(["type", "entry", "total"]), values, max_size=1),
    st.lists(values, max_size=2),
)
bodies = st.one_of(st.none(), st.binary(max_size=40), queries, bundles)


@given(wild_methods, wild_paths, wild_queries, wild_headers, bodies)
def test_any_request_is_understood_or_refused(
    method: str, path: bytes, query: bytes, sent: list[tuple[bytes, bytes]], body: bytes | None
) -> None:
    try:
        interaction = parse_interaction(method, path, query, sent, body)
    except UninterpretableInteraction:
        return
    assert interaction.needs or interaction.kind == "capabilities"
    assert all(need.letter in tuple("cruds") for need in interaction.needs)
    assert (interaction.method, interaction.path) == (method, path.decode())


@given(methods, paths, queries, headers, bodies)
def test_what_is_forwarded_means_the_same_again(
    method: str, path: bytes, query: bytes, sent: list[tuple[bytes, bytes]], body: bytes | None
) -> None:
    try:
        first = parse_interaction(method, path, query, sent, body)
    except UninterpretableInteraction:
        return
    again = parse_interaction(first.method, first.path.encode(), first.query.encode(), sent, first.body)
    assert again == first


@given(wild_methods, wild_paths, wild_queries, wild_headers, bodies, bodies)
def test_a_body_that_is_not_wanted_changes_nothing(
    method: str, path: bytes, query: bytes, sent: list[tuple[bytes, bytes]], one: bytes | None, other: bytes | None
) -> None:
    if wants_body(method, path):
        return

    def read(body: bytes | None) -> Interaction | str:
        try:
            return parse_interaction(method, path, query, sent, body)
        except UninterpretableInteraction as refused:
            return refused.detail

    assert read(one) == read(other)


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=3))
def test_any_printable_value_survives_the_way_through(pairs: list[tuple[str, str]]) -> None:
    def escape(text: str) -> str:
        return "".join(f"%{byte:02x}" for byte in text.encode())

    printable = [(f"a-{number}", value) for number, (_, value) in enumerate(pairs) if value.isprintable()]
    query = "&".join(f"{name}={escape(value)}" for name, value in printable)
    interaction = ask(f"GET Observation?{query}")
    assert interaction.parameters == tuple(printable)
    assert ask(f"GET Observation?{interaction.query}").parameters == interaction.parameters


LINES = (
    "GET Patient/1", "GET Observation?category=lab", "GET Task?_include=Task:subject", "GET Task/1/_history",
    "DELETE Task?code=1", "GET Patient/2/$everything", "GET ?_type=Patient,Task", "GET Patient/1/*", "DELETE Patient/3",
)  # fmt: skip
WRITES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("POST Patient", {"resourceType": "Patient"}),
    ("PUT Patient/1", {"resourceType": "Patient", "id": "1"}),
    ("PUT Task?code=1", {"resourceType": "Task"}),
    ("PATCH Task/1", {"resourceType": "Parameters"}),
)


@given(st.lists(st.sampled_from([*LINES, *WRITES]), min_size=1, max_size=8))
def test_a_bundle_needs_the_union_of_what_its_entries_need_alone(
    chosen: list[str | tuple[str, dict[str, Any]]],
) -> None:
    """SC-09."""
    requests = [(line, None) if isinstance(line, str) else line for line in chosen]
    bundle = ask_bundle(*(entry(line, resource) for line, resource in requests))
    alone = [ask(line) for line, _ in requests]
    assert set(bundle.needs) == {need for interaction in alone for need in interaction.needs}
    assert set(bundle.patients) == {id_ for interaction in alone for id_ in interaction.patients}
    assert bundle.entries == tuple(alone)
    assert len(set(bundle.needs)) == len(bundle.needs)
