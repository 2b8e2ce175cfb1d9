"""A kick-off of an export: what it needs, what of it goes on to the EHR, and what is refused."""

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import UninterpretableInteraction
from broker.interactions import Export, Need, parse_export, parse_interaction

ASYNC = ((b"prefer", b"respond-async"),)
JSON = ((b"content-type", b"application/fhir+json"),)


def by_get(path: str = "$export", query: str = "", headers: tuple[tuple[bytes, bytes], ...] = ASYNC) -> Export:
    return parse_export("GET", path.encode(), query.encode(), headers, None)


def by_post(*parameters: dict[str, Any], path: str = "$export", query: str = "") -> Export:
    resource = {"resourceType": "Parameters", "parameter": list(parameters)}
    return parse_export("POST", path.encode(), query.encode(), ASYNC + JSON, json.dumps(resource).encode())


def needed(export: Export) -> set[str]:
    return {f"{need.type}.{need.letter}" for need in export.interaction.needs}


NEEDS = {
    "everything": ("$export", "", {"*.r", "*.s"}),
    "all patients": ("Patient/$export", "", {"*.r", "*.s"}),
    "a group": ("Group/g.1/$export", "", {"*.r", "*.s", "Group.r"}),
    "one type": ("$export", "_type=Patient", {"Patient.r", "Patient.s"}),
    "two types": ("$export", "_type=Patient,Group", {"Patient.r", "Patient.s", "Group.r", "Group.s"}),
    "two types, repeated": ("$export", "_type=Patient&_type=Group", {"Patient.r", "Patient.s", "Group.r", "Group.s"}),
    "a type of a group": ("Group/g1/$export", "_type=Patient", {"Patient.r", "Patient.s", "Group.r"}),
    "what narrows nothing": (
        "$export",
        (
            "_type=Patient&_since=2026-01-31T00:00:00Z&_until=2026-01-31T00:00:00.5%2B01:00&_elements=id,Patient.name"
            "&_outputFormat=ndjson&allowPartialManifests=true&organizeOutputBy=Patient"
        ),
        {"Patient.r", "Patient.s"},
    ),
    "a filter": (
        "$export",
        "_type=Patient&_typeFilter=Condition%3Fclinical-status%3Dactive",
        {"Patient.r", "Patient.s", "Condition.r", "Condition.s"},
    ),
    "two filters in one": (
        "$export",
        "_type=Patient&_typeFilter=Patient%3Fgender%3Da,b,Condition%3Fcode%3Dc",
        {"Patient.r", "Patient.s", "Condition.r", "Condition.s"},
    ),
    "a filter that reaches further": (
        "$export",
        "_type=Condition&_typeFilter=Condition%3Fpatient.name%3Dx%26_include%3DCondition:encounter:Encounter",
        {"Condition.r", "Condition.s", "Patient.s", "Encounter.r"},
    ),
    "associated data": (
        "$export",
        "_type=Patient&includeAssociatedData=LatestProvenanceResources,RelevantProvenanceResources",
        {"Patient.r", "Patient.s", "Provenance.r", "Provenance.s"},
    ),
}


@pytest.mark.parametrize(("path", "query", "needs"), NEEDS.values(), ids=NEEDS)
def test_an_export_needs_to_read_and_search_what_it_names(path: str, query: str, needs: set[str]) -> None:
    """(BD-14) (BD-16)"""
    assert needed(by_get(path, query)) == needs


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("$export", "operation $export"),
        ("Patient/$export", "operation Patient $export"),
        ("Group/1/$export", "operation Group $export"),
    ],
)
def test_an_export_is_written_down_by_its_level_and_no_id(path: str, label: str) -> None:
    assert by_get(path).interaction.label == label


def test_lists_go_on_by_get_as_one_parameter_each() -> None:
    """(OR-08) Some EHRs take no repeated `_type`."""
    export = by_get(query="_type=Patient&_elements=id&_type=Group,Condition")

    assert export.interaction.query == "_type=Patient,Group,Condition&_elements=id"


def test_filters_go_on_as_they_were_written() -> None:
    query = "_typeFilter=Patient%3Fname%3Da%2520b&_typeFilter=Group%3Ftype%3Dperson,Group%3Ftype%3Danimal"

    again = parse_qsl(by_get(query=query).interaction.query)

    assert again == parse_qsl(query)


def test_lists_go_on_by_post_as_repeated_parameters_of_their_types() -> None:
    """(BD-02)"""
    export = by_get(
        query="_type=Patient,Group&_since=2026-01-31T00:00:00Z&includeAssociatedData=LatestProvenanceResources"
        "&allowPartialManifests=false"
    )

    assert json.loads(export.resource) == {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "_type", "valueString": "Patient"},
            {"name": "_type", "valueString": "Group"},
            {"name": "_since", "valueInstant": "2026-01-31T00:00:00Z"},
            {"name": "includeAssociatedData", "valueCode": "LatestProvenanceResources"},
            {"name": "allowPartialManifests", "valueBoolean": False},
        ],
    }


def test_a_parameters_resource_is_read_like_a_query() -> None:
    """(BD-02)"""
    export = by_post(
        {"name": "_type", "valueString": "Patient,Condition"},
        {"name": "_type", "valueCode": "Group"},
        {"name": "_since", "valueInstant": "2026-01-31T00:00:00Z"},
        {"name": "allowPartialManifests", "valueBoolean": True},
        {"name": "patient", "valueReference": {"reference": "Patient/p1"}},
        {"name": "patient", "valueReference": {"reference": "p2"}},
    )

    assert {need.type for need in export.interaction.needs} == {"Patient", "Condition", "Group"}
    assert export.interaction.patients == ("p1", "p2")
    assert json.loads(export.resource)["parameter"][-2:] == [
        {"name": "patient", "valueReference": {"reference": "Patient/p1"}},
        {"name": "patient", "valueReference": {"reference": "Patient/p2"}},
    ]


def test_a_post_without_a_body_exports_everything() -> None:
    assert needed(parse_export("POST", b"$export", b"", ASYNC, b"")) == {"*.r", "*.s"}


@pytest.mark.parametrize(
    "prefer", [b"respond-async", b"RESPOND-ASYNC", b'"respond-async"', b"handling=strict, respond-async"]
)
def test_an_export_is_asked_for_asynchronously(prefer: bytes) -> None:
    """(BD-01)"""
    assert not by_get(headers=((b"Prefer", prefer),)).separate_status


def test_a_separate_status_is_noted() -> None:
    """(BD-04)"""
    assert by_get(headers=((b"prefer", b"respond-async, separate-export-status"),)).separate_status


REFUSED = {
    "no preference": ("GET", "$export", "", (), None),
    "another preference": ("GET", "$export", "", ((b"prefer", b"return=minimal"),), None),
    "head": ("HEAD", "$export", "", ASYNC, None),
    "delete": ("DELETE", "$export", "", ASYNC, None),
    "another method": ("GET", "$export", "", (*ASYNC, (b"x-http-method-override", b"DELETE")), None),
    "another level": ("GET", "Practitioner/$export", "", ASYNC, None),
    "one patient": ("GET", "Patient/1/$export", "", ASYNC, None),
    "no group": ("GET", "Group/$export", "", ASYNC, None),
    "an id that is none": ("GET", "Group/a_b/$export", "", ASYNC, None),
    "dots for an id": ("GET", "Group/../$export", "", ASYNC, None),
    "an encoded path": ("GET", "%24export", "", ASYNC, None),
    "a slash too many": ("GET", "$export/", "", ASYNC, None),
    "another case": ("GET", "$EXPORT", "", ASYNC, None),
    "a parameter nobody knows": ("GET", "$export", "_unknown=1", ASYNC, None),
    "a parameter in another case": ("GET", "$export", "_Type=Patient", ASYNC, None),
    "a format": ("GET", "$export", "_format=json", ASYNC, None),
    "a patient by get": ("GET", "$export", "patient=Patient/1", ASYNC, None),
    "another output": ("GET", "$export", "_outputFormat=application/vnd.apache.parquet", ASYNC, None),
    "two outputs": ("GET", "$export", "_outputFormat=ndjson&_outputFormat=ndjson", ASYNC, None),
    "two times": ("GET", "$export", "_since=2026-01-31T00:00:00Z&_since=2025-01-31T00:00:00Z", ASYNC, None),
    "a time that is none": ("GET", "$export", "_since=yesterday", ASYNC, None),
    "a time without offset": ("GET", "$export", "_until=2026-01-31T00:00:00", ASYNC, None),
    "a type that is none": ("GET", "$export", "_type=patient", ASYNC, None),
    "every type": ("GET", "$export", "_type=*", ASYNC, None),
    "an abstract type": ("GET", "$export", "_type=Resource", ASYNC, None),
    "an empty item": ("GET", "$export", "_type=Patient,,Group", ASYNC, None),
    "an element that is none": ("GET", "$export", "_elements=name%20or%201", ASYNC, None),
    "a filter without a search": ("GET", "$export", "_typeFilter=Patient", ASYNC, None),
    "a filter by what cannot be checked": ("GET", "$export", "_typeFilter=Patient%3F_filter%3Dx", ASYNC, None),
    "a filter after a filter": ("GET", "$export", "_typeFilter=Patient%3Fname%3Da,Group%3F_query%3Dx", ASYNC, None),
    "a filter with another type of id": ("GET", "$export", "_typeFilter=patient%3Fname%3Da", ASYNC, None),
    "other associated data": ("GET", "$export", "includeAssociatedData=_everything", ASYNC, None),
    "no boolean": ("GET", "$export", "allowPartialManifests=yes", ASYNC, None),
    "no parameters": ("POST", "$export", "", ASYNC + JSON, b"{}"),
    "another resource": ("POST", "$export", "", ASYNC + JSON, b'{"resourceType": "Patient"}'),
    "no json": ("POST", "$export", "", ASYNC + JSON, b"<Parameters/>"),
    "deep json": ("POST", "$export", "", ASYNC + JSON, b"[" * 100_000),
    "a form": (
        "POST",
        "$export",
        "",
        (*ASYNC, (b"content-type", b"application/x-www-form-urlencoded")),
        b"_type=Patient",
    ),
    "no content type": ("POST", "$export", "", ASYNC, b'{"resourceType": "Parameters"}'),
}


@pytest.mark.parametrize(("method", "path", "query", "headers", "body"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused(
    method: str, path: str, query: str, headers: tuple[tuple[bytes, bytes], ...], body: bytes | None
) -> None:
    """(BD-01) (PX-02)"""
    with pytest.raises(UninterpretableInteraction):
        parse_export(method, path.encode(), query.encode(), headers, body)


@pytest.mark.parametrize(
    "parameter",
    [
        {"name": "_type"},
        {"valueString": "Patient"},
        {"name": "_type", "valueString": 1},
        {"name": "_type", "valueString": ""},
        {"name": "_type", "valueString": "Patient", "valueCode": "Group"},
        {"name": "_type", "part": [{"name": "x", "valueString": "Patient"}]},
        {"name": "_type", "resource": {"resourceType": "Patient"}},
        {"name": "patient", "valueString": "Patient/1"},
        {"name": "patient", "valueReference": {"identifier": {"value": "1"}}},
        {"name": "patient", "valueReference": {"reference": "Patient/1", "identifier": {"value": "2"}}},
        {"name": "patient", "valueReference": {"reference": "https://elsewhere.example/Patient/1"}},
        {"name": "patient", "valueReference": {"reference": "Group/1"}},
        {"name": "_since", "valueInstant": "2026-01-31T00:00:00Z\n"},
        "Patient",
        None,
    ],
    ids=repr,
)
def test_a_parameter_has_a_name_and_one_value(parameter: Any) -> None:
    with pytest.raises(UninterpretableInteraction):
        by_post(parameter)


@pytest.mark.parametrize("query", ["_type=patient", "_unknown=Camila", "_since=Camila", "_typeFilter=Camila"])
def test_a_refusal_says_what_to_change_and_repeats_nothing(query: str) -> None:
    with pytest.raises(UninterpretableInteraction) as refused:
        by_get(query=query)

    assert refused.value.public
    assert "Camila" not in refused.value.public + refused.value.detail


@pytest.mark.parametrize("path", ["$export", "Patient/$export", "Group/1/$export", "_bulk/0123", "_bulk/0123/0-1-0"])
def test_nothing_else_takes_an_export_or_an_asynchronous_request(path: str) -> None:
    for headers in ((), ASYNC):
        with pytest.raises(UninterpretableInteraction):
            parse_interaction("GET", path.encode(), b"", headers, None)


TYPES = st.sampled_from(["Patient", "Group", "Observation", "Condition", "Provenance"])


@given(st.lists(TYPES, min_size=1), st.booleans())
def test_what_goes_on_to_the_ehr_is_what_was_decided_on(types: list[str], is_repeated: bool) -> None:  # noqa: FBT001
    query = "&".join(f"_type={type_}" for type_ in types) if is_repeated else f"_type={','.join(types)}"
    export = by_get(query=query)

    again = by_get(query=export.interaction.query)
    posted = parse_export("POST", b"$export", b"", ASYNC + JSON, export.resource)

    assert again.interaction.needs == posted.interaction.needs == export.interaction.needs
    assert set(export.interaction.needs) == {Need(type_, letter) for type_ in types for letter in "rs"}
