import json
from typing import Any

import pytest

from broker.errors import UninterpretableInteraction
from broker.interactions import Need
from broker.interactions.bundle import MOST_ENTRIES
from tests.interactions.asking import FORM, JSON, ask, ask_bundle, entry, needs

PATIENT = {"resourceType": "Patient"}
READ = entry("GET Patient/1")


def bundle_text(**members: Any) -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": "batch", "entry": [READ]} | members).encode()


def send(body: bytes, **headers: str) -> None:
    ask("POST ", body, **({"Content_Type": JSON} | headers))


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_bundle_needs_what_its_entries_need(kind: str) -> None:
    """SC-09."""
    interaction = ask_bundle(
        entry("GET Patient/a"),
        entry("GET Observation?patient=b&_include=Observation:performer:Practitioner"),
        entry("POST Patient", PATIENT),
        entry("DELETE Task/1"),
        entry("GET Patient/a/_history"),
        kind=kind,
    )
    assert (interaction.kind, interaction.label, interaction.type, interaction.path) == (kind, kind, None, "")
    assert needs(interaction) == "Patient.r Observation.s Practitioner.r Patient.c Task.d"
    assert interaction.patients == ("a", "b")
    assert [each.label for each in interaction.entries] == [
        "read Patient",
        "search-type Observation",
        "create Patient",
        "delete Task",
        "history-instance Patient",
    ]
    assert not interaction.safe


def test_a_bundle_is_forwarded_as_it_was_checked() -> None:
    body = b" " + bundle_text().replace(b"}", b" }") + b"\n"
    assert ask("POST ", body, Content_Type=JSON).body == body


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/fhir+json; charset=UTF-8; fhirVersion=4.0", "Application/FHIR+JSON"],
)
def test_a_bundle_is_json_however_it_says_so(content_type: str) -> None:
    assert ask_bundle(READ, Content_Type=content_type).kind == "transaction"


def test_the_parameters_of_a_bundle_are_those_of_its_url() -> None:
    assert ask("POST ?_format=json", bundle_text(), Content_Type=JSON).parameters == (("_format", "json"),)


def test_the_filter_of_one_entry_does_not_count_for_another() -> None:
    """SC-05, SC-09."""
    interaction = ask_bundle(entry("GET Observation?category=lab"), entry("GET Observation"), kind="batch")
    assert interaction.needs == (Need("Observation", "s", (("category", "lab"),)), Need("Observation", "s"))


@pytest.mark.parametrize(
    ("written", "kind", "needed"),
    [
        (entry("GET Patient/1", ifNoneMatch='W/"1"'), "read", "Patient.r"),
        (entry("HEAD Patient/1"), "read", "Patient.r"),
        (entry("GET ?_type=Patient"), "search-system", "Patient.s"),
        (entry("GET ?_getpages=1"), "search-page", "*.s"),
        (entry("POST Patient", PATIENT, ifNoneExist="identifier=a"), "conditional-create", "Patient.c Patient.s"),
        (entry("POST Patient", PATIENT | {"id": "1"}), "create", "Patient.c"),
        (
            entry("POST Patient", PATIENT | {"reference": {"a": "b"}, "link": {"reference": None}}),
            "create",
            "Patient.c",
        ),
        (entry("GET Patient/1", id="a", ifModifiedSince="2020-01-01T00:00:00Z"), "read", "Patient.r"),
        (entry("GET Patient/1", extension=[]), "read", "Patient.r"),
        (entry("PUT Patient/1", PATIENT, ifMatch='W/"1"'), "update", "Patient.u"),
        (entry("PUT Patient/1", PATIENT | {"id": "1"}), "update", "Patient.u"),
        (entry("PUT Patient/1", PATIENT, ifNoneMatch="*"), "update", "Patient.u Patient.c"),
        (entry("PUT Patient?identifier=a", PATIENT), "conditional-update", "Patient.u Patient.c Patient.s"),
        (entry("PATCH Patient/1", {"resourceType": "Binary"}), "patch", "Patient.u"),
        (entry("DELETE Patient?identifier=a"), "conditional-delete", "Patient.d Patient.s"),
        (entry("GET Patient/1/$everything?_type=Task"), "operation", "Patient.r Task.r Task.s"),
    ],
)
def test_an_entry_is_an_interaction_like_any_other(written: dict[str, Any], kind: str, needed: str) -> None:
    interaction = ask_bundle(written)
    assert (interaction.entries[0].kind, needs(interaction), needs(interaction.entries[0])) == (kind, needed, needed)


def test_a_preference_of_the_bundle_holds_for_its_entries() -> None:
    patch = entry("PATCH Patient/1", {"resourceType": "Parameters"})
    assert needs(ask_bundle(patch, Prefer="return=representation")) == "Patient.u Patient.r"


def test_a_conditional_reference_is_a_search_however_deep_it_lies() -> None:
    resource = {
        "resourceType": "Encounter",
        "subject": {"reference": "Patient?_id=a"},
        "participant": [{"individual": {"reference": "Practitioner?organization:Organization.name=x"}}],
        "partOf": {"reference": "Encounter/2"},
        "serviceProvider": {"reference": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"},
        "contained": [{"extension": [{"valueReference": {"Reference": "Task?code=a"}}]}],
    }
    interaction = ask_bundle(entry("POST Encounter", resource))
    assert set(needs(interaction).split()) == {"Encounter.c", "Patient.s", "Practitioner.s", "Organization.s", "Task.s"}
    assert interaction.patients == ("a",)


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"request": None},
        {"request": []},
        {"request": "GET Patient/1"},
        {"Request": {"method": "GET", "url": "Patient/1"}},
        {"request": {"method": "GET"}},
        {"request": {"url": "Patient/1"}},
        {"request": {"method": None, "url": "Patient/1"}},
        {"request": {"method": ["GET"], "url": "Patient/1"}},
        {"request": {"method": "GET", "url": None}},
        {"request": {"method": "GET", "url": ["Patient/1"]}},
        {"request": {"method": "GET", "Url": "Patient/1"}},
        {"request": {"method": "GET", "url": "Patient/1", "_url": {"id": "a"}}},
        {"request": {"method": "GET", "url": "Patient/1", "x-http-method-override": "DELETE"}},
        {"request": {"method": "POST", "url": "Patient", "IfNoneExist": "identifier=a"}, "resource": PATIENT},
        {"request": {"method": "POST", "url": "Patient", "ifNoneExist": None}, "resource": PATIENT},
        {"request": {"method": "POST", "url": "Patient", "ifNoneExist": {}}, "resource": PATIENT},
        "GET Patient/1",
        None,
        7,
        [READ],
        entry("get Patient/1"),
        entry("OPTIONS Patient/1"),
        entry("GET /Patient/1"),
        entry("GET ./Patient/1"),
        entry("GET ../Patient/1"),
        entry("GET Patient/1/../2"),
        entry("GET Patient//1"),
        entry("GET Patient/%31"),
        entry("GET Patient/1#a"),
        entry("GET Patient/1 "),
        entry("GET Patient/é"),
        entry("GET Patient/\ud800"),
        entry("GET http://ehr.example/fhir/Patient/1"),
        entry("GET https://other.example/Patient/1"),
        entry("GET //other.example/Patient/1"),
        entry("GET urn:uuid:1"),
        entry("GET metadata"),
        entry("GET Patient?_filter=a"),
        entry("GET Patient?name=a??b&_query=x"),
        entry("GET Patient?patient=1;code=2"),
        entry("GET Patient/_search?name=a"),
        entry("POST Patient/_search?name=a"),
        entry("POST Patient/_search", PATIENT),
        entry("POST _search", PATIENT),
        entry("POST ", PATIENT),
        entry("POST ", {"resourceType": "Bundle", "type": "batch", "entry": [READ]}),
        entry("POST /", {"resourceType": "Bundle", "type": "batch", "entry": [READ]}),
        entry("POST Bundle", {"resourceType": "Bundle", "type": "batch", "entry": [READ]}),
        entry("PUT Bundle/1", {"resourceType": "Bundle", "type": "transaction", "entry": [READ]}),
        entry("POST Patient/$everything", PATIENT),
        entry("GET Patient/1/$graphql"),
        entry("GET Patient/$export"),
        entry("DELETE Patient"),
        entry("DELETE Patient?"),
        entry("PUT Patient", PATIENT),
        entry("POST Patient"),
        entry("PUT Patient/1"),
        entry("PATCH Patient/1"),
        entry("POST Patient", {}),
        entry("POST Observation", PATIENT),
        entry("PUT Observation/1", PATIENT),
        entry("PUT Observation?code=a", PATIENT),
        entry("PUT Patient/1", PATIENT | {"id": "2"}),
        entry("PUT Patient/1", PATIENT | {"id": None}),
        entry("GET Patient/1", PATIENT),
        entry("DELETE Patient/1", PATIENT),
        entry("POST Patient", PATIENT, ifNoneExist=""),
        entry("POST Patient", PATIENT, ifNoneExist="Patient?identifier=a"),
        entry("POST Patient", PATIENT, ifNoneExist="_filter=a"),
        entry("POST Patient", PATIENT, ifNoneExist="identifier=\ud800"),
        entry("PUT Patient/1", PATIENT, ifNoneExist="identifier=a"),
        entry("GET Patient/1", ifNoneExist="identifier=a"),
        entry("GET Patient/1", ifMatch='W/"1"'),
        entry("HEAD Patient/1", ifMatch='W/"1"'),
        entry("POST Patient", PATIENT | {"link": {"reference": "http://other.example/Patient?name=a"}}),
        entry("POST Patient", PATIENT | {"link": {"reference": "Patient?"}}),
        entry("POST Patient", PATIENT | {"link": {"reference": "Patient?_filter=a"}}),
        entry("POST Patient", PATIENT | {"link": {"reference": "?name=a"}}),
        entry("POST Patient", PATIENT | {"link": {"reference": "Patient?name=a&_include=*"}}),
        entry("POST Patient", PATIENT | {"link": {"reference": "Patient?name=é"}}),
        entry("POST Patient", PATIENT | {"link": {"reference": "Patient?name=\ud800"}}),
    ],
)  # fmt: skip
def test_one_entry_that_cannot_be_checked_refuses_the_whole_bundle(written: Any) -> None:
    """SC-09."""
    with pytest.raises(UninterpretableInteraction, match=r"^entry 2: "):
        ask_bundle(READ, written, READ)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"Bundle"',
        b"{}",
        b"{",
        b"not json",
        b"<Bundle/>",
        bundle_text() + b"x",
        bundle_text() + bundle_text(),
        b"\xef\xbb\xbf" + bundle_text(),
        bundle_text().decode().encode("utf-16"),
        bundle_text().decode().encode("utf-32"),
        bundle_text().replace(b"batch", b"b\xe4tch"),
        bundle_text().replace(b"batch", b"b\xc0\xa1tch"),
        bundle_text().replace(b'"type"', b"'type'"),
        bundle_text().replace(b"]}", b"],}"),
        b"/* */" + bundle_text(),
        bundle_text(total=float("nan")),
        bundle_text(total=float("-inf")),
        bundle_text().replace(b'"type"', b'"type": "document", "type"'),
        bundle_text().replace(b'"type"', b'"Type": "document", "type"'),
        bundle_text().replace(b'"method": "GET"', b'"method": "GET", "method": "DELETE"'),
        bundle_text().replace(b'"method": "GET"', b'"method": "DELETE", "method": "GET"'),
        bundle_text().replace(b'"method": "GET"', b'"method": "GET", "m\\u0065thod": "DELETE"'),
        bundle_text().replace(b'"method": "GET"', b'"method": "GET", "METHOD": "DELETE"'),
        bundle_text().replace(b'"url"', b'"url": "Patient/2", "url"'),
        bundle_text().replace(b'"request"', b'"request": {"method": "DELETE", "url": "Patient/1"}, "request"'),
        bundle_text().replace(b'"entry"', b'"entry": [], "entry"'),
        bundle_text().replace(b'"resourceType"', b'"resourceType": "Parameters", "resourceType"'),
        bundle_text(resourceType="Parameters"),
        bundle_text(resourceType=None),
        bundle_text(type="document"),
        bundle_text(type="searchset"),
        bundle_text(type="history"),
        bundle_text(type="Batch"),
        bundle_text(type=["batch"]),
        bundle_text(type=None),
        bundle_text(entry=None),
        bundle_text(entry=[]),
        bundle_text(entry={}),
        bundle_text(entry={"request": READ["request"]}),
        bundle_text(entry="GET Patient/1"),
        bundle_text(entry=[READ] * (MOST_ENTRIES + 1)),
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)  # fmt: skip
def test_a_body_with_another_reading_is_no_bundle(body: bytes) -> None:
    with pytest.raises(UninterpretableInteraction) as refused:
        send(body)
    assert refused.value.__context__ is None


def test_the_bundle_that_those_bodies_spoil_is_good() -> None:
    for good in (
        bundle_text(),
        bundle_text(entry=[READ] * MOST_ENTRIES),
        bundle_text(total=1).replace(b"1}", b"1" * 5000 + b"}"),
    ):
        assert ask("POST ", good, Content_Type=JSON).kind in {"batch", "transaction"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": ""},
        {"Content_Type": FORM},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/xml"},
        {"Content_Type": "application/fhir+xml"},
        {"Content_Type": "application/json-patch+json"},
        {"Content_Type": "application/json, application/fhir+xml"},
        {"Content_Type": "application /json"},
        {"Content_Type": "application/json; charset=utf-16"},
        {"Content_Encoding": "gzip"},
        {"If_None_Exist": "identifier=a"},
        {"Prefer": "respond-async"},
        {"X_HTTP_Method_Override": "PUT"},
    ],
)
def test_a_bundle_is_plain_json(headers: dict[str, str]) -> None:
    with pytest.raises(UninterpretableInteraction):
        send(bundle_text(), **headers)


@pytest.mark.parametrize(
    "line",
    ["POST ?_type=Patient", "POST ?_format=json&_format=xml", "POST ?patient=1", "POST ?_getpages=1", "PUT ", "PATCH "],
)
def test_a_bundle_is_posted_to_the_base_alone(line: str) -> None:
    with pytest.raises(UninterpretableInteraction):
        ask(line, bundle_text(), Content_Type=JSON)


def test_a_refused_entry_is_named_by_number_and_not_by_content() -> None:
    with pytest.raises(UninterpretableInteraction) as refused:
        ask_bundle(READ, entry("GET Patient?canary:x=canary"))
    assert refused.value.detail == "entry 2: a search parameter that cannot be checked"
