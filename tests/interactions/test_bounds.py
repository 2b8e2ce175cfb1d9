"""How much a request may hold: the numbers that docs/interactions.md gives, and that one more is refused."""

import json
from typing import Any

import pytest

from broker import json_values
from broker.errors import UninterpretableInteraction
from broker.interactions import bundle, operation_request, parameters, parse_interaction, search, syntax
from tests.docs.pages import read
from tests.interactions.asking import JSON, ask, ask_bundle, entry

PATIENT = {"resourceType": "Patient"}


def test_the_bounds_are_those_that_are_documented() -> None:
    found = (
        syntax.LONGEST_PATH,
        syntax.LONGEST_QUERY,
        syntax.LONGEST_FORM,
        syntax.MOST_PAIRS,
        parameters.MOST_PARAMETERS,
        bundle.MOST_ENTRIES,
        bundle.MOST_ASKED,
        parameters.LONGEST_TEXT,
        bundle.MOST_CONDITIONAL_REFERENCES,
        search.MOST_HOPS,
        search.MOST_TYPES,
        operation_request.MOST_REFERENCES,
        json_values.MOST_VALUES,
    )
    assert found == (2048, 8192, 262144, 256, 256, 500, 4096, 8192, 20, 8, 256, 4096, 250000)
    page = read("docs/interactions.md")
    said = "paths over 2048 bytes, queries over 8192, forms over 262144, more than 256 parameters, more than 500"
    assert said in page
    assert (
        "in a Bundle more than 4096 parameters and needs in all, over 8192 characters in a parameter of a body" in page
    )
    assert "more than 8 hops" in page
    assert "more than 256 types in `_type`, 4096 different references in what an operation is given" in page
    assert "250,000 values in a body" in page
    assert "of more than 8 Mi characters or 250,000 values" in page


@pytest.mark.parametrize(("length", "allowed"), [(262144, True), (262145, False)])
def test_a_form_has_so_many_bytes(length: int, *, allowed: bool) -> None:
    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    form = b"code=".ljust(length, b"x")
    if allowed:
        assert parse_interaction("POST", b"Observation/_search", b"", headers, form).body == form
    else:
        with pytest.raises(UninterpretableInteraction, match="too long"):
            parse_interaction("POST", b"Observation/_search", b"", headers, form)


@pytest.mark.parametrize(("count", "allowed"), [(20, True), (21, False)])
def test_a_resource_has_so_many_conditional_references(count: int, *, allowed: bool) -> None:
    resource = PATIENT | {"link": [{"other": {"reference": f"Patient?_id={number}"}} for number in range(count)]}
    if allowed:
        assert len(ask_bundle(entry("POST Patient", resource)).patients) == 20
    else:
        with pytest.raises(UninterpretableInteraction, match="too many conditional references"):
            ask_bundle(entry("POST Patient", resource))


@pytest.mark.parametrize(("last", "allowed"), [(255, True), (256, False)])
def test_a_bundle_asks_for_so_much_in_all(last: int, *, allowed: bool) -> None:
    """Deciding on it would keep everybody else waiting: each entry has a need of its own, and its parameters."""
    lines = [entry(f"GET Observation?{'&'.join(['code=x'] * pairs)}") for pairs in [*[255] * 15, last]]
    if allowed:
        assert len(ask_bundle(*lines).entries) == 16
    else:
        with pytest.raises(UninterpretableInteraction, match="more than 4096 parameters and needs"):
            ask_bundle(*lines)


@pytest.mark.parametrize(("length", "allowed"), [(8192, True), (8193, False)])
def test_a_parameter_of_a_body_has_so_many_characters(length: int, *, allowed: bool) -> None:
    headers = [(b"content-type", b"application/fhir+json")]
    given: dict[str, Any] = {"resourceType": "Parameters", "parameter": [{"name": "patient", "valueId": "p"}]}
    given["parameter"].append({"name": "type", "valueString": "x" * length})
    body = json.dumps(given).encode()
    if allowed:
        assert parse_interaction("POST", b"DocumentReference/$docref", b"", headers, body).kind == "operation"
    else:
        with pytest.raises(UninterpretableInteraction, match="more than 8192 characters"):
            parse_interaction("POST", b"DocumentReference/$docref", b"", headers, body)


@pytest.mark.parametrize("text", ["{},", "[],", "1,", '"a":1,', "[[", '[",","a"],'])
def test_values_are_counted_without_reading_them(text: str) -> None:
    values = sum(text.count(beginning) for beginning in ",[{")
    most = text * (json_values.MOST_VALUES // values)

    assert not json_values.has_too_many_values(most)
    assert json_values.has_too_many_values(most + text)


@pytest.mark.parametrize(("count", "allowed"), [(124999, True), (125000, False)])
def test_a_body_has_so_many_values(count: int, *, allowed: bool) -> None:
    """Reading them would keep everybody else waiting."""
    resource = {"resourceType": "Basic", "extension": [{}] * count}
    line, body = "POST Basic/$validate", json.dumps(resource).encode()
    if allowed:
        assert ask(line, body, Content_Type=JSON).kind == "operation"
    else:
        with pytest.raises(UninterpretableInteraction, match="a body of more than 250000 values"):
            ask(line, body, Content_Type=JSON)


@pytest.mark.parametrize(("count", "allowed"), [(4096, True), (4097, False)])
def test_an_operation_is_given_so_many_different_references(count: int, *, allowed: bool) -> None:
    """Each of them would be decided on."""
    halves = [range(count // 2), range(count // 2 - 5, count)]
    resources = [
        {"resourceType": "Basic", "extension": [{"valueReference": {"reference": f"Basic/{n}"}} for n in half]}
        for half in halves
    ]
    parameter = [{"name": "resource", "resource": resource} for resource in resources]
    body = json.dumps({"resourceType": "Parameters", "parameter": parameter}).encode()
    if allowed:
        assert ask("POST Basic/$validate", body, Content_Type=JSON).kind == "operation"
    else:
        with pytest.raises(UninterpretableInteraction, match="more than 4096 different references"):
            ask("POST Basic/$validate", body, Content_Type=JSON)


@pytest.mark.parametrize("line", ["GET ?_type=", "GET Patient/1/$everything?_type="])
@pytest.mark.parametrize(("count", "allowed"), [(256, True), (257, False)])
def test_a_request_lists_so_many_types(line: str, count: int, *, allowed: bool) -> None:
    types = ",".join(f"T{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(count))
    if allowed:
        assert {need.type for need in ask(f"{line}{types},Taa").needs} >= set(types.split(","))
    else:
        with pytest.raises(UninterpretableInteraction, match="more than 256 types"):
            ask(f"{line}{types}")


@pytest.mark.parametrize(("hops", "allowed"), [(8, True), (9, False)])
def test_a_chain_has_so_many_hops(hops: int, *, allowed: bool) -> None:
    line = f"GET Observation?{'part-of.' * hops}code=x"
    if allowed:
        assert ask(line).kind == "search-type"
    else:
        with pytest.raises(UninterpretableInteraction, match="too long"):
            ask(line)


@pytest.mark.parametrize(("hops", "allowed"), [(8, True), (9, False)])
def test_has_hops_as_a_chain_does(hops: int, *, allowed: bool) -> None:
    line = f"GET Observation?{'_has:Observation:part-of:' * hops}code=x"
    if allowed:
        assert ask(line).kind == "search-type"
    else:
        with pytest.raises(UninterpretableInteraction, match="too long"):
            ask(line)


@pytest.mark.parametrize(
    "longest", ["GET Patient/" + "a" * 64, "GET Observation?patient=" + "a" * 64, "GET " + "A" * 64, "GET $" + "a" * 64]
)
def test_a_word_is_so_long(longest: str) -> None:
    assert ask(longest).needs
    with pytest.raises(UninterpretableInteraction):
        ask(f"{longest}{longest[-1]}")
