"""Operations at three levels, by GET and by POST: what they need, whom they name, and what is not theirs (SC-02)."""

import json
from typing import Any

import pytest

from broker.errors import UninterpretableInteraction
from broker.interactions import Interaction, Need
from broker.interactions.operations import OPERATIONS
from broker.interactions.parameters import MOST_PARAMETERS
from tests.interactions.asking import FORM, JSON, ask, ask_bundle, entry, needs


def parameter(name: str, value: Any, kind: str = "String") -> dict[str, Any]:
    return {"name": name, "resource" if kind == "resource" else f"value{kind}": value}


def parameters(*listed: Any, **members: Any) -> bytes:
    return json.dumps({"resourceType": "Parameters", "parameter": list(listed)} | members).encode()


def post(path: str, body: bytes, **headers: str) -> Interaction:
    return ask(f"POST {path}", body, **({"Content_Type": JSON} | headers))


@pytest.mark.parametrize(
    ("line", "needed", "patients"),
    [
        ("GET Patient/a/$everything?_count=5&_summary=true", "Patient.r *.r *.s", ("a",)),
        ("HEAD Patient/a/$everything", "Patient.r *.r *.s", ("a",)),
        ("GET DocumentReference/$docref?patient=a&start=2020", "DocumentReference.r DocumentReference.s", ("a",)),
        ("GET List/$find?patient=a&name=current-problems", "List.r List.s", ("a",)),
        ("GET Patient/a/$summary", "Patient.r *.r *.s", ("a",)),
        ("GET Patient/$summary?identifier=http://x|1", "Patient.r *.r *.s", ()),
        ("GET Composition/1/$document", "Composition.r *.r", ()),
        ("GET $meta", "*.s", ()),
        ("GET Task/$meta", "Task.s", ()),
        ("GET Patient/a/$meta?_format=json", "Patient.r", ("a",)),
        ("GET ValueSet/$expand?url=http://x&filter=ab", "ValueSet.r ValueSet.s", ()),
        ("GET ValueSet/1/$validate-code?code=a&system=b", "ValueSet.r ValueSet.s", ()),
        ("GET CodeSystem/$validate-code?url=a&code=b", "CodeSystem.r CodeSystem.s", ()),
        ("GET CodeSystem/$lookup?system=a&code=b", "CodeSystem.r CodeSystem.s", ()),
        ("GET CodeSystem/1/$subsumes?codeA=a&codeB=b", "CodeSystem.r CodeSystem.s", ()),
        ("GET ConceptMap/$translate?code=a&system=b", "ConceptMap.r ConceptMap.s", ()),
    ],
)
def test_an_operation_that_is_defined_needs_what_it_reaches(line: str, needed: str, patients: tuple[str, ...]) -> None:
    interaction = ask(line)
    assert (interaction.kind, needs(interaction), interaction.patients) == ("operation", needed, patients)
    assert interaction.understood
    assert interaction.safe
    assert interaction.operation == line.partition("?")[0].rpartition("/")[2].split(" ")[-1]
    assert ask(f"{interaction.method} {interaction.path}?{interaction.query}") == interaction


@pytest.mark.parametrize(
    ("path", "listed", "needed", "patients"),
    [
        ("Patient/a/$everything", [], "Patient.r *.r *.s", ("a",)),
        (
            "Patient/a/$everything",
            [parameter("_type", "Task", "Code"), parameter("_type", "Flag,List")],
            "Patient.r Task.r Task.s Flag.r Flag.s List.r List.s",
            ("a",),
        ),
        ("Patient/a/$everything", [parameter("_count", 5, "Integer")], "Patient.r *.r *.s", ("a",)),
        (
            "DocumentReference/$docref",
            [
                parameter("patient", "a", "Id"),
                parameter("on-demand", True, "Boolean"),
                parameter("type", {"coding": [{"code": "x"}]}, "CodeableConcept"),
            ],
            "DocumentReference.r DocumentReference.s",
            ("a",),
        ),
        ("List/$find", [parameter("patient", "a"), parameter("patient", "b")], "List.r List.s", ("a", "b")),
        (
            "Patient/$match",
            [
                parameter("resource", {"resourceType": "Patient", "id": "a", "link": [{"other": {}}]}, "resource"),
                parameter("count", 3, "Integer"),
            ],
            "Patient.r Patient.s",
            ("a",),
        ),
        (
            "Observation/$validate",
            [
                parameter(
                    "resource",
                    {
                        "resourceType": "Observation",
                        "subject": {"reference": "https://ehr.example/fhir/Patient/a/_history/2"},
                        "performer": [{"reference": text} for text in ("Practitioner/1", "#x", "urn:uuid:1")],
                    },
                    "resource",
                )
            ],
            "Observation.r Observation.s Practitioner.r Patient.r",
            ("a",),
        ),
        ("CodeSystem/$lookup", [parameter("coding", {"code": "x"}, "Coding")], "CodeSystem.r CodeSystem.s", ()),
        ("ValueSet/$expand", [parameter("valueSet", {"resourceType": "ValueSet"}, "resource")], "ValueSet.r ValueSet.s",
         ()),
    ],
)  # fmt: skip
def test_the_parameters_of_a_post_are_read_from_its_body(
    path: str, listed: list[dict[str, Any]], needed: str, patients: tuple[str, ...]
) -> None:
    body = parameters(*listed)
    interaction = post(path, body)
    assert (set(needs(interaction).split()), interaction.patients) == (set(needed.split()), patients)
    assert (interaction.body, interaction.safe, interaction.understood) == (body, True, True)
    assert post(path, body) == interaction


def test_a_posted_value_is_the_text_that_a_query_would_have() -> None:
    listed = (parameter("patient", "a"), parameter("start", "2020"), parameter("on-demand", True, "Boolean"))
    posted = post("DocumentReference/$docref?_format=json", parameters(*listed))
    assert posted.parameters == (("_format", "json"), ("patient", "a"), ("start", "2020"), ("on-demand", "true"))


@pytest.mark.parametrize("path", ["Patient/$match", "Patient/1/$validate"])
def test_a_resource_may_be_the_body_itself(path: str) -> None:
    assert post(path, b'{"resourceType": "Patient", "id": "1"}').patients == ("1",)


def test_a_resource_without_an_id_names_nobody_nor_does_one_that_is_no_patient() -> None:
    assert post("Patient/$match", b'{"resourceType": "Patient"}').patients == ()
    assert post("Task/$validate", b'{"resourceType": "Task", "id": "1"}').patients == ()


def test_the_parameters_of_a_query_are_there_once() -> None:
    assert ask("GET List/$find?patient=a&name=b").parameters == (("patient", "a"), ("name", "b"))


def test_validating_a_patient_is_not_about_this_patient_alone() -> None:
    """It tells whether what the resource refers to exists."""
    interaction = post("Patient/a/$validate", b'{"resourceType": "Patient"}')
    assert {need.bound_to for need in interaction.needs} == {None}


def test_a_post_without_a_body_has_no_parameters() -> None:
    interaction = ask("POST Patient/a/$everything", b"")
    assert (needs(interaction), interaction.body, interaction.parameters) == ("Patient.r *.r *.s", b"", ())


@pytest.mark.parametrize(
    ("line", "bound"),
    [
        ("GET Patient/a/$everything", "a"),
        ("GET Patient/a/$summary", "a"),
        ("GET Patient/a/$meta", "a"),
        ("GET Patient/$everything", None),
        ("GET Encounter/a/$everything", None),
        ("GET Task/a/$meta", None),
        ("GET Composition/a/$document", None),
        ("GET Patient/a/$graphql", None),
    ],
)
def test_only_what_is_defined_to_be_about_its_patient_is_bound_to_it(line: str, bound: str | None) -> None:
    """PX-14."""
    assert {need.bound_to for need in ask(line).needs} == {bound}


def test_a_patient_parameter_restricts_what_it_is_defined_to() -> None:
    pair = (("patient", "a"),)
    wanted = (Need("DocumentReference", "r", pair), Need("DocumentReference", "s", pair))
    assert ask("GET DocumentReference/$docref?patient=a&type=x").needs == wanted
    assert {need.parameters for need in ask("GET Patient/$summary?identifier=a").needs} == {()}


@pytest.mark.parametrize(
    ("line", "named", "needed"),
    [
        ("GET $graphql?query=%7Ba%7D", "$graphql", "*.r *.s"),
        ("HEAD $graphql", "$graphql", "*.r *.s"),
        ("POST $graphql", "$graphql", "*.c *.r *.u *.d *.s"),
        ("GET $everything", "$everything", "*.r *.s"),
        ("GET Observation/$stats?subject=Patient/a", "Observation/$stats", "*.r *.s"),
        ("POST Observation/1/$stats", "Observation/$stats", "*.c *.r *.u *.d *.s"),
        ("GET Practitioner/1/$everything", "Practitioner/$everything", "*.r *.s"),
        ("POST Patient/1/$merge", "Patient/$merge", "*.c *.r *.u *.d *.s"),
    ],
)
def test_an_operation_that_nobody_defined_needs_everything_and_a_name(line: str, named: str, needed: str) -> None:
    interaction = ask(line)
    assert (interaction.kind, interaction.named, needs(interaction)) == ("operation", named, needed)
    assert not interaction.understood
    assert interaction.safe is (not line.startswith("POST"))
    assert interaction.body is None


@pytest.mark.parametrize(
    ("line", "patients"),
    [
        ("GET Patient/a/$graphql", ("a",)),
        ("GET Observation/$stats?subject=Patient/a", ("a",)),
        ("GET Observation/$stats?patient=a", ("a",)),
        ("GET $graphql?query=x/Patient/a", ("a",)),
        ("GET $graphql?_odd:thing=x/Patient/a", ("a",)),
    ],
)
def test_the_patients_that_an_unknown_operation_names_are_known_as_far_as_they_show(
    line: str, patients: tuple[str, ...]
) -> None:
    """PX-14."""
    assert ask(line).patients == patients


def test_the_body_of_an_unknown_operation_with_a_known_name_goes_on_as_it_came() -> None:
    assert ask("POST Practitioner/1/$everything", b"not looked at").body == b"not looked at"


PATIENT = {"resourceType": "Patient"}


@pytest.mark.parametrize(
    "line",
    [
        "PUT Patient/1/$everything",
        "PATCH Patient/1/$meta",
        "DELETE $graphql",
        "OPTIONS $graphql",
        "GET Patient/$match",
        "GET Patient/$validate",
        "GET Observation/1/$lastn",
        "GET Composition/$document",
        "GET $expand/1",
        "GET CodeSystem/1/$lookup",
        "GET $export",
        "GET Patient/$export",
        "GET Group/1/$export",
        "GET Practitioner/$export",
        "GET Patient/1/$everything?patient=2",
        "GET Patient/1/$everything?_include=*",
        "GET Patient/1/$summary?persist=true",
        "GET Composition/1/$document?persist=true",
        "GET DocumentReference/$docref?patient=Group/1",
        "GET DocumentReference/$docref?patient=a&subject=Patient/2",
        "GET DocumentReference/$docref?Patient=a",
        "GET DocumentReference/$docref?patient:missing=a",
        "GET List/$find?patient=a&_query=x",
        "GET ValueSet/$expand?valueSet=x",
        "GET Patient/1/$meta?_type=Task",
        "GET Patient/1/$everything?_format=json&_format=xml",
        "GET $graphql?_format=json&_format=xml",
        "GET $graphql?=a",
    ],
)
def test_an_operation_asked_for_as_it_is_not_defined_is_refused(line: str) -> None:
    with pytest.raises(UninterpretableInteraction):
        ask(line)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"<Parameters/>",
        b"\xef\xbb\xbf" + parameters(),
        parameters().decode().encode("utf-16"),
        parameters() + parameters(),
        parameters(parameter=None),
        parameters(parameter={}),
        parameters(parameter="x"),
        parameters(implicitRules="http://x"),
        parameters(contained=[PATIENT]),
        parameters(extension=[]),
        parameters(None),
        parameters("patient"),
        parameters({"name": "patient"}),
        parameters({"valueString": "a"}),
        parameters({"name": None, "valueString": "a"}),
        parameters({"name": "patient", "valueString": "a", "valueId": "b"}),
        parameters({"name": "patient", "valueString": "a", "_valueString": {}}),
        parameters({"name": "patient", "_valueString": {}}),
        parameters({"name": "patient", "part": []}),
        parameters({"name": "patient", "value": "a"}),
        parameters({"name": "patient", "valuestring": "a"}),
        parameters({"name": "patient", "Name": "patient"}),
        parameters({"name": "patient", "extension": []}),
        parameters(parameter("patient", "")),
        parameters(parameter("patient", None)),
        parameters(parameter("patient", ["a"])),
        parameters(parameter("patient", {"reference": "Patient/a"}, "Reference")),
        parameters(parameter("patient", {"value": "a"}, "Identifier")),
        parameters(parameter("patient", "a\u0000")),
        parameters(parameter("patient", "Group/1")),
        parameters(parameter("patient", "a b")),
        parameters(parameter("Patient", "a")),
        parameters(parameter("patient", PATIENT, "resource")),
        parameters(parameter("subject", "a")),
        parameters(parameter("type", {"reference": "Patient/1"}, "CodeableConcept")),
        parameters(parameter("type", "a", "CodeableConcept")),
        parameters(parameter("type", ["a"], "CodeableConcept")),
        parameters(parameter("type", {"code": "a"}, "Quantity")),
        parameters(parameter("type", {"value": "a"}, "Identifier")),
        parameters(parameter("start", "")),
        parameters(parameter("start", "2020\u0000")),
        parameters({"name": ["start"], "valueString": "2020"}),
        parameters(parameter("_format", "json")),
        parameters(*[parameter("start", "2020")] * (MOST_PARAMETERS + 1)),
        b'{"resourceType": "Parameters", "parameter": [{"name": "patient", "valueId": "a", "valueId": "b"}]}',
        b'{"resourceType": "Parameters", "parameter": [], "Parameter": []}',
        b'{"resourceType": "DocumentReference"}',
        b'{"resourceType": "parameters", "parameter": []}',
    ],
)  # fmt: skip
def test_a_body_with_another_reading_has_no_parameters(body: bytes) -> None:
    with pytest.raises(UninterpretableInteraction) as refused:
        post("DocumentReference/$docref", body)
    assert refused.value.__context__ is None


def test_the_body_that_those_spoil_is_good() -> None:
    listed = [parameter("patient", "a"), *[parameter("start", "2020")] * (MOST_PARAMETERS - 1)]
    assert post("DocumentReference/$docref", parameters(*listed, id="1", meta={}, language="en")).patients == ("a",)


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("Patient/$match", {"resourceType": "Observation"}),
        ("Patient/$match", {"resourceType": "Bundle"}),
        ("Patient/$match", {"resourceType": "Patient", "id": "a b"}),
        ("Patient/$match", {"resourceType": "Patient", "id": None, "generalPractitioner": {"reference": "x"}}),
        ("Patient/1/$validate", {"resourceType": "Patient", "id": "2"}),
        ("Observation/$validate", PATIENT),
        ("Bundle/$validate", {"resourceType": "Bundle"}),
        ("Observation/$validate", {"resourceType": "Observation", "subject": {"reference": "Patient?name=a"}}),
        ("Observation/$validate", {"resourceType": "Observation", "subject": {"reference": "Patient?x=y/Task/1"}}),
        ("Observation/$validate", {"resourceType": "Observation", "subject": {"reference": "Patient/a b"}}),
        ("Observation/$validate", {"resourceType": "Observation", "subject": {"reference": "Patient"}}),
        ("Observation/$validate", {"resourceType": "Observation", "subject": {"reference": "patient/1"}}),
        ("Observation/$validate", {"resourceType": "Observation", "subject": {"reference": ""}}),
        ("ValueSet/$expand", {"resourceType": "ValueSet"}),
    ],
)
@pytest.mark.parametrize("bare", [True, False])
def test_a_resource_that_does_not_belong_to_the_operation_is_refused(
    path: str, resource: dict[str, Any], *, bare: bool
) -> None:
    body = json.dumps(resource).encode() if bare else parameters(parameter("resource", resource, "resource"))
    with pytest.raises(UninterpretableInteraction):
        post(path, body)


@pytest.mark.parametrize("written", [parameter("resource", PATIENT, "Coding"), parameter("resource", "x", "resource")])
def test_a_resource_in_a_parameter_is_one_and_is_called_so(written: dict[str, Any]) -> None:
    with pytest.raises(UninterpretableInteraction):
        post("Patient/$match", parameters(written))


def test_a_resource_that_is_not_the_one_of_the_url_may_have_an_id_of_its_own() -> None:
    body = parameters(parameter("valueSet", {"resourceType": "ValueSet", "id": "2"}, "resource"))
    assert post("ValueSet/1/$expand", body).id == "1"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": FORM},
        {"Content_Type": "application/fhir+xml"},
        {"Content_Type": "application/json; charset=utf-16"},
        {"Content_Type": ""},
        {"Content_Encoding": "gzip"},
        {"If_None_Exist": "identifier=a"},
        {"Prefer": "respond-async"},
    ],
)
def test_parameters_are_plain_json(headers: dict[str, str]) -> None:
    with pytest.raises(UninterpretableInteraction):
        post("Patient/a/$everything", parameters(), **headers)


@pytest.mark.parametrize("query", ["patient=a", "_count=5", "_type=Task", "start=2020"])
def test_a_post_has_no_parameters_in_its_url(query: str) -> None:
    """EP-22."""
    with pytest.raises(UninterpretableInteraction):
        post(f"Patient/a/$everything?{query}", parameters())


def test_a_body_that_decides_must_have_been_read() -> None:
    with pytest.raises(UninterpretableInteraction, match="not read"):
        ask("POST Patient/a/$everything", None, Content_Type=JSON)


@pytest.mark.parametrize(
    "written",
    [
        entry("POST Patient/$match", {"resourceType": "Parameters"}),
        entry("POST Patient/$match", PATIENT),
        entry("POST Patient/1/$everything"),
        entry("GET $graphql?query=a"),
        entry("GET Observation/$stats"),
        entry("POST Observation/$stats", {"resourceType": "Observation"}),
    ],
)
def test_a_bundle_holds_only_operations_that_a_url_says_all_of(written: dict[str, Any]) -> None:
    """SC-09."""
    with pytest.raises(UninterpretableInteraction, match=r"^entry 1: "):
        ask_bundle(written)
    assert ask_bundle(entry("GET Patient/1/$summary")).entries[0].operation == "$summary"


def test_no_two_rows_are_for_the_same_request() -> None:
    asked = [
        (row.name, row.type, level, method) for row in OPERATIONS for level in row.levels for method in row.methods
    ]
    assert len(asked) == len(set(asked))
    assert all(row.type in {"Patient", "*"} for row in OPERATIONS if row.about_patient)
