"""What of an answer goes on to the app, held against an oracle that reads it whole."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.errors import AnswerWithheld, EhrMisbehaved
from broker.flows.check_answer import Checker, checker
from broker.membership import Patient
from broker.release import Checks, Rule, Shape

BASE = "https://ehr.example/R4"
ME = Patient("me", BASE)
LAB = ((("category", "laboratory"),),)
RULES = (Rule("Observation", LAB, ME), Rule("Patient", (), ME), Rule("Practitioner", (), ME, with_shared=True))
NOTICE = {
    "severity": "information",
    "code": "suppressed",
    "details": {
        "coding": [{"system": "urn:smart-token-broker:error", "code": "answer_withheld"}],
        "text": "What the access token does not cover is not shown.",
    },
}


def passed(
    body: bytes, shape: Shape, *, status: int = 200, size: int = 1 << 20, rules: tuple[Rule, ...] = RULES
) -> bytes:
    stage: Checker = checker(Checks(shape, rules), status)
    out = b"".join(stage.feed(body[at : at + size]) for at in range(0, len(body), size))
    return out + stage.finish()


def observation(patient: str = "me", category: str = "laboratory", **more: Any) -> dict[str, Any]:
    coding = [{"coding": [{"system": "c", "code": category}]}]
    return {"resourceType": "Observation", "subject": {"reference": f"Patient/{patient}"}, "category": coding, **more}


MINE, OTHERS, VITAL = observation(), observation("other"), observation(category="vital-signs")
PRACTITIONER = {"resourceType": "Practitioner", "id": "pr"}
PATIENT = {"resourceType": "Patient", "id": "me"}
RESOURCES: list[tuple[Any, bool]] = [
    (MINE, True),
    (PATIENT, True),
    (PRACTITIONER, True),
    ({"resourceType": "OperationOutcome", "issue": []}, True),
    (MINE | {"contained": [{"resourceType": "Medication", "id": "m"}]}, True),
    (MINE | {"contained": []}, True),
    (OTHERS, False),
    (VITAL, False),
    ({"resourceType": "Patient", "id": "other"}, False),
    ({"resourceType": "Organization", "id": "o"}, False),
    ({"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": MINE}]}, False),
    ({"resourceType": "Parameters", "parameter": [{"name": "x", "resource": MINE}]}, False),
    (MINE | {"contained": [{"resourceType": "Patient", "id": "other"}]}, False),
    (MINE | {"contained": [OTHERS]}, False),
    (MINE | {"contained": [{"id": "x"}]}, False),
    (MINE | {"contained": {"resourceType": "Medication"}}, False),
    (MINE | {"contained": [{"resourceType": "Medication", "contained": []}]}, False),
    (MINE | {"Subject": {"reference": "Patient/other"}}, False),
    ({"subject": {"reference": "Patient/me"}}, False),
    ({"resourceType": "observation", **{k: v for k, v in MINE.items() if k != "resourceType"}}, False),
    (None, False),
    ([MINE], False),
    ("Observation", False),
]


@pytest.mark.parametrize(("resource", "released"), RESOURCES)
def test_one_resource_is_released_as_it_was_written_or_not_at_all(resource: Any, *, released: bool) -> None:
    """PX-14, SC-05."""
    body = json.dumps(resource, indent=3).encode()
    if released:
        assert passed(body, "resource", size=5) == body
    else:
        with pytest.raises(AnswerWithheld):
            passed(body, "resource", size=5)


@pytest.mark.parametrize(("resource", "released"), RESOURCES)
@pytest.mark.parametrize("shape", ["searchset", "history", "batch"])
def test_an_entry_is_released_as_the_resource_in_it_is(shape: Shape, resource: Any, *, released: bool) -> None:
    """PX-14, SC-05."""
    entry = json.dumps({"fullUrl": "urn:canary", "resource": resource}, indent=1)
    body = f'{{"resourceType":"Bundle","type":"x","entry":[ {entry}\n]}}'.encode()

    out = passed(body, shape)

    assert (entry.encode() in out) is released
    assert (b"urn:canary" in out) is released
    json.loads(out)


@pytest.mark.parametrize(
    ("entry", "released"),
    [
        ({"response": {"status": "201 Created", "location": "Observation/1"}}, False),
        ({"response": {"status": "304 Not Modified", "etag": 'W/"1"', "lastModified": "2027-01-01T00:00:00Z"}}, False),
        ({"response": {"status": "304 Not Modified"}}, False),
        ({"response": {"status": "410 Gone", "lastModified": "2027-01-01T00:00:00Z"}}, False),
        ({"response": {"status": ["404"]}}, False),
        ({"response": {"status": "404 Not Found"}}, True),
        ({"response": {"status": "404", "outcome": {"resourceType": "OperationOutcome", "issue": []}}}, True),
        ({"resource": MINE, "response": {"status": "200", "etag": 'W/"1"'}}, True),
        ({"response": {"status": "200", "outcome": OTHERS}}, False),
        ({"response": {"status": "200", "outcome": "x"}}, False),
        ({"response": "x"}, False),
        ({"resource": MINE, "Resource": OTHERS}, False),
        ({"resource": MINE, "extension": [{"valueString": "x"}]}, False),
        ({"fullUrl": "Observation/1"}, False),
        ({}, False),
        (None, False),
        ([], False),
    ],
)
def test_in_a_batch_places_count(entry: Any, *, released: bool) -> None:
    """SC-09: what may not be released is a refusal of that entry."""
    first, last = {"resource": PATIENT}, {"resource": PRACTITIONER}
    body = json.dumps({"resourceType": "Bundle", "type": "batch-response", "entry": [first, entry, last]}).encode()

    answered = json.loads(passed(body, "batch", size=3))

    assert answered["entry"][0] == first
    assert answered["entry"][2] == last
    refused = {"resourceType": "OperationOutcome", "issue": [NOTICE | {"severity": "error"}]}
    assert answered["entry"][1] == (
        entry if released else {"response": {"status": "403 Forbidden", "outcome": refused}}
    )


@pytest.mark.parametrize(
    "entry", [{"fullUrl": "x"}, {"request": {"method": "DELETE", "url": "Observation/9"}}, {"response": {}}]
)
@pytest.mark.parametrize("shape", ["searchset", "history"])
def test_an_entry_without_a_resource_tells_of_what_is_hidden(shape: Shape, entry: dict[str, Any]) -> None:
    body = json.dumps({"resourceType": "Bundle", "entry": [entry]}).encode()

    assert entry not in json.loads(passed(body, shape)).get("entry", [])


# Against an oracle


def expected(bundle: dict[str, Any], shape: Shape, releases: Callable[[Any], bool]) -> dict[str, Any]:
    """Filter the plainest way."""
    kept: dict[str, Any] = {name: bundle[name] for name in ("resourceType", "type", "id") if name in bundle}
    if "link" in bundle:
        kept["link"] = [link for link in bundle["link"] if link["relation"] != "last"]
    entries = [entry for entry in bundle.get("entry", []) if releases(entry)]
    if shape == "searchset":
        outcome = {"resourceType": "OperationOutcome", "issue": [NOTICE]}
        entries.append({"resource": outcome, "search": {"mode": "outcome"}})
    return kept | ({"entry": entries} if entries else {})


def is_mine(entry: Any) -> bool:
    return any(entry.get("resource") == resource for resource, released in RESOURCES if released)


entries = st.sampled_from([{"fullUrl": f"{BASE}/x", "resource": resource} for resource, _ in RESOURCES])
members = st.fixed_dictionaries(
    {"resourceType": st.just("Bundle")},
    optional={
        "type": st.just("searchset"),
        "id": st.text(max_size=3),
        "meta": st.just({"lastUpdated": "2026-01-01T00:00:00Z"}),
        "total": st.integers(0, 9),
        "link": st.lists(
            st.sampled_from([{"relation": relation, "url": "u"} for relation in ("self", "next", "last")]), max_size=3
        ),
        "entry": st.lists(entries, max_size=6),
        "signature": st.just({"data": "x"}),
        "extension": st.just([{"url": "x", "valueString": "hidden"}]),
    },
)


@given(bundle=members, order=st.randoms(), shape=st.sampled_from(["searchset", "history"]), size=st.integers(1, 400),
       indent=st.sampled_from([None, 2]))  # fmt: skip
@example(bundle={"resourceType": "Bundle"}, order=None, shape="searchset", size=1, indent=None)
def test_of_any_bundle_what_the_oracle_keeps_goes_on(
    bundle: dict[str, Any], order: Any, shape: Shape, size: int, indent: int | None
) -> None:
    """PX-14, SC-05: whatever the chunks, and in whatever order the members come."""
    names = list(bundle)
    if order is not None:
        order.shuffle(names)
    body = json.dumps({name: bundle[name] for name in names}, indent=indent).encode()

    out = json.loads(passed(body, shape, size=size))

    assert out == expected(bundle, shape, is_mine)


@given(count=st.integers(0, 5), hidden=st.integers(0, 5), cut=st.integers(1, 300))
def test_nothing_in_a_page_depends_on_what_was_withheld(count: int, hidden: int, cut: int) -> None:
    """PX-14: not its text, not its total, not its last page."""

    def page(withheld: int) -> bytes:
        listed = [{"resource": MINE}] * count + [{"resource": OTHERS}] * withheld
        link = [{"relation": "self", "url": "s"}, {"relation": "last", "url": f"l{count + withheld}"}]
        bundle = {"resourceType": "Bundle", "total": count + withheld, "link": link, "entry": listed}
        if not listed:
            del bundle["entry"]
        return passed(json.dumps(bundle).encode(), "searchset", size=cut)

    assert page(hidden) == page(0)


def test_what_is_released_keeps_its_bytes() -> None:
    """FHIR decimals, escapes and the white space within are as the EHR wrote them."""
    one = '{ "resource" : {"resourceType":"Patient","id":"me","x":1.10e0,"y":"\\u00e9\\/é" } }'
    two = '{"resource":{"id":"me",\t"resourceType":"Patient"}}'
    body = f'\n{{ "resourceType" : "Bundle" , "type":"history" ,\r\n "entry" : [ {one} \n, {two} ] }}\n'.encode()

    for shape in ("history", "batch"):
        out = f'{{"resourceType" : "Bundle","type":"history","entry":[{one},{two}]}}'
        assert passed(body, shape, size=1).decode() == out
    assert f"[{one},{two},{{" in passed(body, "searchset").decode()


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"type":"searchset"}',
        b'{"resourceType":"Patient","id":"other"}',
        b'{"resourceType":"bundle"}',
        b'{"resourceType":["Bundle"]}',
        b'{"resourceType":"Bundle"',
        b'{"resourceType":"Bundle","entry":{}',
        b'{"id":"x","entry":[{"resource":{"resourceType":"Patient","id":"me"}}],"resourceType":"Patient"}',
        b'{"resourceType":"Patient","resourceType":"Bundle","id":"other"}',
        b'{"resourceType":"OperationOutcome","issue":[]}',
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_of_what_is_no_bundle_nothing_goes_out(body: bytes, size: int) -> None:
    """OA-04."""
    stage, out = checker(Checks("searchset", RULES), 200), bytearray()

    def play() -> None:
        for at in range(0, len(body), size):
            out.extend(stage.feed(body[at : at + size]))
        out.extend(stage.finish())

    with pytest.raises(EhrMisbehaved):
        play()
    assert bytes(out) in {b"", b'{"resourceType":"Bundle"'}


@pytest.mark.parametrize("entry", ['{"resource":{}}', "null", "1", '"x"'])
def test_what_stands_for_the_entries_and_is_no_list_is_left_out(entry: str) -> None:
    body = f'{{"resourceType":"Bundle","entry":{entry}}}'.encode()

    assert json.loads(passed(body, "searchset")) == expected({"resourceType": "Bundle"}, "searchset", is_mine)


@pytest.mark.parametrize("shape", ["resource", "searchset", "batch"])
@pytest.mark.parametrize("status", [400, 404, 500])
def test_an_error_is_an_outcome_or_nothing(shape: Shape, status: int) -> None:
    """PX-14: whatever the EHR calls it."""
    outcome = b'{"resourceType":"OperationOutcome","issue":[{"code":"not-found"}]}'

    assert passed(outcome, shape, status=status) == outcome
    assert passed(b"", shape, status=status) == b""
    for body in (json.dumps(MINE).encode(), b'{"resourceType":"Bundle"}', b'{"error":"x"}'):
        with pytest.raises(AnswerWithheld):
            passed(body, shape, status=status)


@pytest.mark.parametrize("relation", ["[]", "{}", '["self"]', "null", "1"])
def test_a_link_whose_relation_is_no_text_is_left_out(relation: str) -> None:
    body = f'{{"resourceType":"Bundle","link":[{{"relation":{relation},"url":"u"}}]}}'.encode()

    assert json.loads(passed(body, "history")) == {"resourceType": "Bundle", "link": []}


@pytest.mark.parametrize("depth", range(900, 1000))
def test_what_is_nested_nearly_too_deep_is_withheld(depth: int) -> None:
    body = b'{"resourceType":"Observation","subject":' + b"[" * depth + b"]" * depth + b"}"

    with pytest.raises((AnswerWithheld, EhrMisbehaved)):
        passed(body, "resource")


def test_what_is_withheld_before_it_is_known_to_be_a_bundle_takes_no_memory() -> None:
    stage = checker(Checks("searchset", RULES), 200)
    stage.feed(b'{"entry":[1')
    tracemalloc.start()
    for _ in range(16):
        assert stage.feed(b",1" * (8 << 10)) == b""
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 256 << 10


def test_a_resource_that_is_too_long_is_not_held() -> None:
    stage = checker(Checks("resource", RULES), 200)
    for _ in range(8):
        assert stage.feed(b" " * (1 << 20)) == b""
    with pytest.raises(EhrMisbehaved, match="more than"):
        stage.feed(b" ")
