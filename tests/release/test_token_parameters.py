"""Search parameters of type token, evaluated on a resource (FHIR R4 §3.1.1.4.10)."""

from typing import Any

import pytest

from broker.token_parameters import alternatives, can_evaluate, read_tokens, satisfies

LOINC = "http://loinc.org"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "meta": {"tag": [{"system": "t", "code": "red"}], "security": [{"code": "R"}]},
    "identifier": [{"system": "urn:mrn", "value": "7"}],
    "status": "final",
    "category": [{"coding": [{"system": CATEGORY, "code": "laboratory"}, {"code": "lab"}]}, {"text": "vital-signs"}],
    "code": {"coding": [{"system": LOINC, "code": "4548-4"}, {"system": LOINC}], "text": "2345-7"},
}
ENCOUNTER = {"resourceType": "Encounter", "class": {"system": "v3", "code": "AMB"}}


@pytest.mark.parametrize(
    ("name", "value", "holds"),
    [
        ("category", "laboratory", True),
        ("category", f"{CATEGORY}|laboratory", True),
        ("category", f"{CATEGORY}|", True),
        ("category", "|lab", True),
        ("category", "lab", True),
        ("category", "x,laboratory", True),
        ("category", f"y|x,{CATEGORY}|laboratory", True),
        ("category", "vital-signs", False),
        ("category", "Laboratory", False),
        ("category", "laboratory ", False),
        ("category", "|laboratory", False),
        ("category", f"{CATEGORY}|lab", False),
        ("category", "http://other|laboratory", False),
        ("category", "http://other|", False),
        ("category", r"x\,laboratory", False),
        ("category", "", False),
        ("category", "laboratory,", False),
        ("category", "|", False),
        ("category", "a|b|laboratory", False),
        ("category", "laboratory\\", False),
        ("code", f"{LOINC}|4548-4", True),
        ("code", "2345-7", False),
        ("status", "final", True),
        ("status", "final,amended", True),
        ("status", "amended", False),
        ("status", "http://hl7.org/fhir/observation-status|final", False),
        ("status", "|final", False),
        ("identifier", "urn:mrn|7", True),
        ("identifier", "7", True),
        ("identifier", "urn:mrn|", True),
        ("identifier", "urn:other|7", False),
        ("_id", "o1", True),
        ("_id", "o2", False),
        ("_tag", "t|red", True),
        ("_security", "|R", True),
        ("_security", "t|R", False),
        ("category:not", "vital-signs", False),
        ("Category", "laboratory", False),
        ("subject", "Patient/1", False),
        ("date", "2020", False),
        ("clinical-status", "active", False),
    ],
)
def test_a_parameter_holds_of_a_resource_or_does_not(name: str, value: str, *, holds: bool) -> None:
    """SC-05."""
    assert satisfies(OBSERVATION, [[(name, value)]]) is holds


@pytest.mark.parametrize(
    ("resource", "name", "value", "holds"),
    [
        (ENCOUNTER, "class", "AMB", True),
        (ENCOUNTER, "class", "v3|AMB", True),
        (ENCOUNTER, "class", "IMP", False),
        ({"resourceType": "Patient", "active": True, "gender": "other"}, "active", "true", True),
        ({"resourceType": "Patient", "active": True}, "active", "false", False),
        ({"resourceType": "Patient", "active": "true"}, "active", "x|true", False),
        ({"resourceType": "Patient", "active": True}, "active", "x|true", False),
        ({"resourceType": ["Observation"], "category": "x"}, "category", "x", False),
        ({"resourceType": "Observation", "category": {"coding": 5}}, "category", "x", False),
        ({"resourceType": "Observation", "category": {"system": ["s"], "code": "x"}}, "category", "x", True),
        ({"resourceType": "Observation", "category": {"system": ["s"], "code": "x"}}, "category", "|x", False),
        ({"resourceType": "Observation", "category": {"system": 0, "code": "x"}}, "category", "|x", True),
        ({"resourceType": "Observation", "category": {"system": "s", "code": {}}}, "category", "s|", True),
        ({"resourceType": "Observation", "category": {"system": "s|t", "code": "a,b"}}, "category", r"s\|t|a\,b", True),
        (
            {"resourceType": "Observation", "category": {"system": "s|t", "code": "a,b"}},
            "category",
            r"s\|t|a\\,b",
            False,
        ),
        ({"resourceType": "Observation"}, "category", "x", False),
        ({"resourceType": "Observation", "category": None}, "category", "x", False),
        ({"resourceType": "Observation", "category": {"coding": "x"}}, "category", "x", False),
        ({"resourceType": "Observation", "category": {"coding": ["x", {"code": ["x"]}]}}, "category", "x", False),
        ({"resourceType": "Observation", "category": [[{"coding": [{"code": "x"}]}]]}, "category", "x", False),
        ({"resourceType": "Nothing", "category": "x"}, "category", "x", False),
        ({"category": "x"}, "category", "x", False),
        ({"resourceType": "AllergyIntolerance", "category": ["food"]}, "category", "food", True),
        (
            {"resourceType": "MedicationRequest", "medicationCodeableConcept": {"coding": [{"code": "m"}]}},
            "code",
            "m",
            True,
        ),
    ],
)
def test_each_kind_of_element_is_read_as_what_it_is(
    resource: dict[str, Any], name: str, value: str, *, holds: bool
) -> None:
    """SC-05."""
    assert satisfies(resource, [[(name, value)]]) is holds


@pytest.mark.parametrize(
    ("type_", "name", "value", "can"),
    [
        ("Observation", "category", "a,b|c", True),
        ("Observation", "category", "a,", False),
        ("Observation", "date", "2020", False),
        ("Observation", "clinical-status", "active", False),
        ("Observation", "category:in", "x", False),
        ("Whatever", "_tag", "x", True),
        ("Whatever", "category", "x", False),
        ("*", "category", "x", True),
        ("*", "_tag", "x", True),
        ("*", "date", "x", False),
    ],
)
def test_it_is_known_beforehand_what_can_be_told(type_: str, name: str, value: str, *, can: bool) -> None:
    """SC-06."""
    assert can_evaluate(type_, name, value) is can


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (r"a\,b", [r"a\,b"]),
        (r"a\\,b", [r"a\\", "b"]),
        ("a\\", ["a\\"]),
        ("a,\\", ["a", "\\"]),
        ("a\\\n,b", ["a\\\n", "b"]),
        (",", ["", ""]),
        ("", [""]),
    ],
)
def test_alternatives_stand_between_commas_that_are_not_escaped(value: str, parts: list[str]) -> None:
    assert alternatives(value) == parts


class Coding(dict[str, str]):
    """Counts how often somebody looks at it."""

    looked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.looked += 1
        return super().get(key, default)


def test_however_much_is_asked_of_it_a_resource_is_looked_at_once_for_each_parameter() -> None:
    """SC-05: others wait meanwhile. Asked token by token, as much as scopes may say takes minutes."""
    codings = [Coding(system="s", code=str(number)) for number in range(3)]
    resource = {"resourceType": "Observation", "category": [{"coding": codings}], "status": "final"}
    codes = ",".join(f"s|x{number}" for number in range(64))
    filters = [(("category", f"{codes},{group}-"), ("status", "final")) for group in range(16)]

    assert satisfies(resource, filters) is False
    assert {coding.looked for coding in codings} == {3}
    assert satisfies(resource, [*filters, (("category", "s|2"), ("status", "final"))]) is True


def test_a_value_of_a_scope_is_read_once() -> None:
    """SC-05: it is asked of every resource."""
    value = ",".join(f"s|read{number}" for number in range(64))
    assert read_tokens(value) is read_tokens(value)
    assert read_tokens.cache_info().maxsize == 1024


def test_a_long_value_is_read_once_not_once_for_each_of_its_characters() -> None:
    """What an app wrote is compared with its scope while others wait; quadratic, this takes half an hour."""
    long = "x" * (8 << 20)

    assert alternatives(f"{long},b") == [long, "b"]
