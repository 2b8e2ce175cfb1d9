"""What one rule opens, and of which rules an answer can show anything."""

from typing import Any

import pytest

from broker.interactions import Need
from broker.membership import Patient
from broker.part import Held
from broker.release import Checks, Rule
from broker.scopes import Scopes

ME = Patient("me", "https://ehr.example/R4")
CATEGORY, CODE, DATE = ("category", "laboratory"), ("code", "1"), ("date", "gt2020")


def observation(patient: str, *codes: str) -> dict[str, Any]:
    found: dict[str, Any] = {"subject": {"reference": f"Patient/{patient}"}}
    if "laboratory" in codes:
        found["category"] = {"coding": [{"code": "laboratory"}]}
    if "1" in codes:
        found["code"] = {"coding": [{"code": "1"}]}
    return {"resourceType": "Observation", **found}


@pytest.mark.parametrize(
    ("rule", "can"),
    [
        (Rule("Observation", ()), True),
        (Rule("Observation", (), ME), True),
        (Rule("*", (), ME), True),
        (Rule("Practitioner", ()), True),
        (Rule("Practitioner", (), ME), False),
        (Rule("Practitioner", (), ME, with_shared=True), True),
        (Rule("Task", ()), True),
        (Rule("Task", (), ME, with_shared=True), False),
        (Rule("Binary", ()), False),
        (Rule("Bundle", ()), False),
        (Rule("Parameters", ()), False),
        (Rule("Observation", ((CATEGORY,),)), True),
        (Rule("Observation", ((DATE,),)), False),
        (Rule("Observation", ((CATEGORY, DATE),)), False),
        (Rule("Observation", ((DATE,), (CATEGORY,))), True),
    ],
)
def test_a_rule_can_open_something_if_an_answer_can_show_it(rule: Rule, *, can: bool) -> None:
    """SC-05, PX-14."""
    assert rule.can_allow() is can


@pytest.mark.parametrize(
    ("rule", "resource", "opened"),
    [
        (Rule("Observation", ()), observation("other"), True),
        (Rule("*", ()), observation("other"), True),
        (Rule("Condition", ()), observation("me"), False),
        (Rule("Observation", (), ME), observation("me"), True),
        (Rule("Observation", (), ME), observation("other"), False),
        (Rule("*", (), ME, with_shared=True), observation("other"), False),
        (Rule("*", (), ME, with_shared=True), {"resourceType": "Practitioner"}, True),
        (Rule("*", (), ME), {"resourceType": "Practitioner"}, False),
        (Rule("*", (), ME, with_shared=True), {"resourceType": "Task"}, False),
        (Rule("Observation", ((CATEGORY,), (CODE,))), observation("me", "1"), True),
        (Rule("Observation", ((CATEGORY, CODE),)), observation("me", "1"), False),
        (Rule("Observation", ((CATEGORY, CODE),)), observation("me", "1", "laboratory"), True),
        (Rule("Observation", ((CATEGORY,),), ME), observation("other", "laboratory"), False),
    ],
)
def test_a_rule_opens_resources_of_its_type_its_patient_and_its_filters(
    rule: Rule, resource: dict[str, Any], *, opened: bool
) -> None:
    """SC-05, PX-14."""
    assert rule.allows(resource["resourceType"], resource) is opened
    assert Checks("resource", (Rule("Flag", ()), rule)).allow(resource) is opened


@pytest.mark.parametrize("holder", ["Bundle", "Parameters"])
def test_what_holds_other_resources_is_opened_by_no_rule(holder: str) -> None:
    """PX-14."""
    assert Checks("resource", (Rule("*", ()), Rule(holder, ()))).allow({"resourceType": holder}) is False


OUTCOME: dict[str, Any] = {"resourceType": "OperationOutcome"}


@pytest.mark.parametrize("outcome", [OUTCOME, OUTCOME | {"contained": [{"resourceType": "Medication"}]}])
def test_the_ehrs_word_on_the_request_is_released_under_any_rule(outcome: dict[str, Any]) -> None:
    assert Checks("resource", (Rule("Flag", ()),)).allow(outcome) is True
    assert Checks("batch", (Rule("Flag", ()),)).allow_entry({"response": {"status": "404", "outcome": outcome}}) is True


@pytest.mark.parametrize(
    "resource",
    [
        None,
        [],
        {},
        {"resourceType": None},
        OUTCOME | {"contained": [observation("me")]},
        OUTCOME | {"contained": [{"resourceType": None}]},
        OUTCOME | {"contained": [{"resourceType": ["Medication"]}]},
        OUTCOME | {"contained": [None]},
        OUTCOME | {"contained": [{"resourceType": "Medication", "contained": []}]},
        OUTCOME | {"contained": {}},
        OUTCOME | {"contained": None},
        OUTCOME | {"ISSUE": [], "issue": []},
    ],
)
def test_what_cannot_be_told_is_not_released(resource: Any) -> None:
    checks = Checks("batch", (Rule("*", ()),))
    assert checks.allow(resource) is False
    assert checks.allow_entry({"resource": resource, "response": {}}) is False
    if resource is not None:
        assert checks.allow_entry({"response": {"status": "404", "outcome": resource}}) is False


FLAG = {"resourceType": "Flag"}


@pytest.mark.parametrize(
    ("entry", "released"),
    [
        ({"resource": FLAG}, True),
        *(({"resource": FLAG, name: "x"}, True) for name in ("fullUrl", "id", "link", "request", "search")),
        ({"resource": FLAG, "response": {}}, True),
        ({"resource": FLAG, "response": {"outcome": None}}, True),
        ({"resource": FLAG, "response": {"outcome": FLAG}}, False),
        ({"resource": FLAG, "response": None}, False),
        ({"resource": FLAG, "extension": "x"}, False),
        ({"resource": FLAG, "Response": {"outcome": FLAG}}, False),
        ({"fullUrl": "x"}, False),
        ({}, False),
        (None, False),
        ([], False),
    ],
)
@pytest.mark.parametrize("shape", ["searchset", "history", "batch"])
def test_an_entry_has_no_members_but_those_of_fhir(shape: Any, entry: Any, *, released: bool) -> None:
    assert Checks(shape, (Rule("Flag", ()),)).allow_entry(entry) is released


def test_an_entry_that_is_a_response_alone_is_released_in_a_batch_alone() -> None:
    """SC-09: elsewhere it tells of what is hidden."""
    entry = {"response": {"status": "404"}}
    assert [Checks(shape, ()).allow_entry(entry) for shape in ("searchset", "history", "batch")] == [False, False, True]


@pytest.mark.parametrize(
    ("response", "released"),
    [
        ({"status": "404"}, True),
        ({"status": "500 Internal Server Error", "id": "x", "outcome": OUTCOME}, True),
        ({"status": "304"}, False),
        ({"status": "200"}, False),
        ({"status": 404}, False),
        ({"status": ""}, False),
        ({}, False),
        ({"status": "404", "etag": "x"}, False),
    ],
)
def test_a_response_alone_is_an_error_and_no_more(response: dict[str, Any], *, released: bool) -> None:
    """SC-09: of what may not be read nothing is told, not even that it has not changed."""
    assert Checks("batch", ()).allow_entry({"response": response}) is released


@pytest.mark.parametrize(
    ("scopes", "granted", "in_context", "only", "rules"),
    [
        ("user/Observation.rs", "user/*.rs", None, None, [((), None, True)]),
        ("user/Observation.rs", "user/*.rs", "me", None, [((), None, True)]),
        ("user/Observation.rs", "user/*.rs", None, "me", [((), ME, True)]),
        ("user/Observation.rs", "patient/*.rs", None, "me", [((), None, True)]),
        ("patient/Observation.rs", "user/*.rs", "me", None, [((), ME, False)]),
        ("patient/Observation.rs", "user/*.rs", None, "me", [((), ME, False)]),
        ("patient/Observation.rs", "patient/*.rs", "me", None, [((), None, False)]),
        ("patient/Observation.rs", "user/*.rs", None, None, []),
        ("user/Observation.r", "user/*.rs", None, None, []),
        ("user/Observation.s?code=1", "user/*.rs", None, None, [(((CODE,),), None, True)]),
        ("user/Observation.s?code=1 user/Observation.s", "user/*.rs", None, None, [((), None, True)]),
        ("user/*.s patient/Observation.s?code=1", "user/*.s", "me", None, [((), None, True), (((CODE,),), ME, False)]),
    ],
)
def test_what_a_handle_holds_opens_what_is_covered_of_whom_it_is_for(
    scopes: str, granted: str, in_context: str | None, only: str | None, rules: list[tuple[Any, Patient | None, bool]]
) -> None:
    """SC-05, PX-14: whose it is has to be seen where the EHR's token reaches further."""
    held = Held(Scopes.parse(scopes), Scopes.parse(granted), in_context, only, ME.fhir_base, of_any_type=True)
    found = held.rules(Need("Observation", "s"))

    assert [(rule.filters, rule.patient, rule.with_shared) for rule in found] == rules
