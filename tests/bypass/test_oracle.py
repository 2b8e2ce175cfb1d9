"""Whatever the decision allows, a plain reading of FHIR and SMART finds nothing in it that the handle may not do."""

import json
from itertools import product
from typing import Final
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import InsufficientScope, UninterpretableInteraction
from broker.interactions import Interaction, parse_interaction
from broker.policy import Permit, decide
from tests.bypass.oracle import LAB, ME, OTHER, TYPES, Deed, Holder, forbidden
from tests.test_policy import REGISTRATION, app, grant, handle, known

PATHS: Final = (
    "", "Patient", "Observation", "Condition", "Practitioner", f"Patient/{ME}", f"Patient/{OTHER}", "Observation/o1",
    "Observation/o3", "Condition/c2", "Practitioner/d1", "_history", "Observation/_history", "Patient/_history",
    "Observation/o3/_history", f"Patient/{OTHER}/_history/1", f"Patient/{ME}/_history", f"Patient/{ME}/Observation",
    f"Patient/{OTHER}/Observation", f"Patient/{ME}/*", f"Patient/{ME}/Condition", f"Patient/{ME}/Practitioner",
    f"Patient/{ME}/$everything", f"Patient/{OTHER}/$everything", "Patient/$everything", f"Patient/{ME}/$summary",
    "Observation/$lastn", f"Patient/{ME}/$meta", "Observation/$meta", "Observation/o3/$meta", "$meta",
    "Observation/$stats", f"Patient/{ME}/$stats",
)  # fmt: skip
PAIRS: Final = (
    f"patient={ME}", f"patient={OTHER}", f"patient={ME},{OTHER}", f"subject=Patient/{ME}", f"subject=Patient/{OTHER}",
    f"subject:Patient={OTHER}", f"PATIENT={OTHER}", f"patient:not={ME}", "category=lab", "category=vital",
    "category=lab,vital", f"_id={ME}", f"_id={OTHER}", "_id=o3", "_type=Observation", "_type=Observation,Patient",
    "_include=Observation:subject", "_include=Observation:patient", "_include=Observation:subject:Patient",
    "_include=Observation:performer:Practitioner", "_include=*", "_include:iterate=Observation:*",
    "_revinclude=Observation:subject", "_revinclude=Condition:subject", "_revinclude=*", "patient.name=x",
    "subject:Patient.name=x", "performer:Practitioner.name=x", "_has:Observation:patient:category=lab",
    "_has:Condition:subject:code=x", "_count=5", "code=x", "sessionID=C",
)  # fmt: skip
METHODS: Final = ("GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
WORDS: Final = tuple(
    f"{level}/{type_}.{letters}{query}"
    for level, type_, letters, query in product(
        ("patient", "user", "system"),
        ("Patient", "Observation", "Condition", "*"),
        ("rs", "r", "s", "cruds", "cud"),
        ("", f"?category={LAB}"),
    )
)

USUAL: Final = (
    "system/*.cruds", "system/*.rs", "patient/*.cruds", "patient/*.rs", "user/*.rs", "system/Observation.rs",
    "patient/Observation.rs patient/Patient.rs", "user/Observation.cruds user/Patient.r", "system/Observation.cud",
    f"system/Observation.rs?category={LAB}", f"patient/Observation.rs?category={LAB} patient/Patient.rs",
    f"user/Observation.rs?category={LAB} user/Condition.rs user/Patient.rs",
)  # fmt: skip

words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
ample = st.sampled_from(["patient/*.cruds user/*.cruds system/*.cruds", "patient/*.cruds user/*.cruds"])
SEARCHED: Final = ("Observation", "Observation", "Patient", "Condition", f"Patient/{ME}/Observation", "")


def request(method: str, path: str, pairs: list[str]) -> tuple[str, str]:
    return method, f"{path}?{'&'.join(pairs)}" if pairs else path


requests = st.one_of(
    st.builds(request, st.just("GET"), st.sampled_from(PATHS), st.just([])),
    st.builds(
        request,
        st.sampled_from(["GET", "DELETE"]),
        st.sampled_from(SEARCHED),
        st.lists(st.sampled_from(PAIRS), max_size=3),
    ),
    st.builds(request, st.sampled_from(METHODS), st.sampled_from(PATHS), st.lists(st.sampled_from(PAIRS), max_size=1)),
)
batches = st.lists(requests, min_size=2, max_size=3)


@st.composite
def holders(draw: st.DrawFn) -> Holder:
    granted = draw(st.one_of(ample, ample, words))
    held = draw(st.one_of(st.sampled_from(USUAL), st.sampled_from(USUAL), words))
    policy = draw(st.one_of(ample, ample, words))
    return Holder(held, policy, granted, draw(st.sampled_from([None, ME, ME])), draw(st.sampled_from([None, None, ME])))


def read(asked: list[tuple[str, str]]) -> Interaction:
    if len(asked) == 1:
        method, url = asked[0]
        path, _, query = url.partition("?")
        body = b"" if path.endswith(("$everything", "$summary", "$meta")) else None
        return parse_interaction(method, path.encode(), query.encode(), (), body)
    entries = [{"request": {"method": method, "url": url}} | resource(method, url) for method, url in asked]
    bundle = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode()
    return parse_interaction("POST", b"", b"", [(b"content-type", b"application/fhir+json")], bundle)


def resource(method: str, url: str) -> dict[str, object]:
    type_ = url.partition("?")[0].partition("/")[0]
    return {"resource": {"resourceType": type_}} if method in {"POST", "PUT", "PATCH"} else {}


UNKNOWN: Final = frozenset[tuple[str, str]]()
ALL: Final = frozenset(
    product(TYPES, ("patient", "subject", "category", "code", "_id", "PATIENT", "performer", "_has"))
)
"""What the EHR says that it can be searched by: nothing, or whatever is searched by here."""


def permitted(
    holder: Holder, asked: list[tuple[str, str]], searchable: frozenset[tuple[str, str]] = UNKNOWN
) -> Permit | None:
    apps = known(app(holder.policy, REGISTRATION, "Observation/$stats", "Patient/$stats"))
    held, token = handle(holder.held, patient=holder.only), grant(holder.granted, patient=holder.context)
    try:
        return decide(held, token, apps, read(asked), None, searchable)
    except (InsufficientScope, UninterpretableInteraction):
        return None


def harm(holder: Holder, permit: Permit, asked: list[tuple[str, str]]) -> list[Deed]:
    """Return what is done that the handle may not, as the request goes on, and as far as the answer is released."""
    checks, sent = permit.checks, permit.interaction
    if not sent.entries:
        asked = [(sent.method, f"{sent.path}?{unquote(sent.query)}" if sent.query else sent.path)]
    return forbidden(holder, asked, (lambda thing: checks.allow(thing.resource)) if checks else lambda _: True)


@settings(max_examples=1000)
@given(holders(), requests, st.sampled_from([UNKNOWN, ALL]))
def test_what_is_allowed_does_nothing_that_the_handle_may_not(
    holder: Holder, request: tuple[str, str], searchable: frozenset[tuple[str, str]]
) -> None:
    """TR-05, SC-02, SC-05, PX-14."""
    if permit := permitted(holder, [request], searchable):
        assert harm(holder, permit, [request]) == []


@settings(max_examples=300)
@given(holders(), batches)
def test_no_entry_of_an_allowed_batch_does_what_the_handle_may_not(
    holder: Holder, asked: list[tuple[str, str]]
) -> None:
    """SC-09."""
    if permit := permitted(holder, asked):
        assert harm(holder, permit, asked) == []
        assert all(permitted(holder, [request]) for request in asked)


HOLDERS: Final = {
    "one patient": Holder("system/*.cruds", "system/*.cruds", "system/*.cruds", None, ME),
    "in context": Holder("patient/*.cruds", "patient/*.cruds", "patient/*.cruds user/*.cruds", ME, None),
    "one type": Holder("system/Observation.rs", "system/*.cruds", "system/*.cruds", None, None),
    "laboratory": Holder(f"system/Observation.rs?category={LAB}", "system/*.cruds", "system/*.cruds", None, None),
    "everything": Holder("system/*.cruds", "system/*.cruds", "system/*.cruds", None, None),
}


@pytest.mark.parametrize("searchable", [UNKNOWN, ALL], ids=["unknown", "all"])
@pytest.mark.parametrize("name", HOLDERS)
def test_all_searches_with_two_parameters_and_all_requests_with_one_agree(
    name: str, searchable: frozenset[tuple[str, str]]
) -> None:
    """Of every request of this universe, what is allowed is harmless; some is allowed, and some is harmful."""
    holder = HOLDERS[name]
    twice = [f"{one}&{two}" for one, two in product(PAIRS, PAIRS)]
    urls = [
        *PATHS,
        *(f"{path}?{pair}" for path, pair in product(PATHS, PAIRS)),
        *(f"{path}?{pairs}" for path, pairs in product(("", "Observation"), twice)),
    ]
    decided = {url: permitted(holder, [("GET", url)], searchable) for url in urls}
    allowed = {url: permit for url, permit in decided.items() if permit}
    assert [url for url, permit in allowed.items() if harm(holder, permit, [("GET", url)])] == []
    assert allowed
    assert any(forbidden(holder, [("GET", url)]) for url in urls) is (name != "everything")
