from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.grants import LaunchContext
from broker.grants.launch_context import complete, read_context, read_fhir_user

BASE = "https://ehr.example/r4"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "patient",
    "encounter",
    "fhirUser",
    "need_patient_banner",
    "smart_style_url",
    "tenant",
    "intent",
    "fhirContext",
    "appContext",
)


def read(**members: Any) -> LaunchContext:
    return read_context(members, fhir_user=None, fhir_base=BASE)


def test_an_answer_without_context_has_none() -> None:
    assert read(access_token="at", scope="x") == LaunchContext()


def test_a_whole_context_is_read() -> None:
    assert read(
        patient="p1",
        encounter="e1",
        fhirUser=f"{BASE}/Practitioner/d1",
        need_patient_banner=True,
        smart_style_url="https://ehr.example/style.json",
        tenant="clinic",
        intent="reconcile-medications",
        fhirContext=[{"reference": "Task/1", "role": "launch"}],
        appContext='{"card": 7}',
    ) == LaunchContext(
        patient="p1",
        encounter="e1",
        fhir_user="Practitioner/d1",
        need_patient_banner=True,
        smart_style_url="https://ehr.example/style.json",
        tenant="clinic",
        intent="reconcile-medications",
        fhir_context=({"reference": "Task/1", "role": "launch"},),
        app_context='{"card": 7}',
    )


EXTENSIONS = ["__epic.dstu2.patient", "https://vendor.example/x", "profile"]


@pytest.mark.parametrize("name", EXTENSIONS)
def test_what_smart_does_not_define_is_passed_on_where_the_profile_names_it(name: str) -> None:
    """CX-09, EP-14."""
    context = read_context({name: "T1"}, fhir_user=None, fhir_base=BASE, extensions=(name, "__other"))

    assert context == LaunchContext(extensions={name: "T1"})


def test_a_vendor_member_without_end_is_not_passed_on() -> None:
    """CX-09, TR-06."""
    context = read_context({"__x": "x" * 20_000}, fhir_user=None, fhir_base=BASE, extensions=("__x",))

    assert context.extensions == {}


@pytest.mark.parametrize("value", ["\ud800", float("nan"), float("-inf")])
def test_what_no_answer_could_carry_on_is_not_passed_on(value: object) -> None:
    """CX-09, CX-03: half a surrogate pair is valid in JSON and has no UTF-8; Python reads NaN, and JSON has none."""
    members = {"__x": [value], "fhirContext": [{"reference": "Task/1", "identifier": {"value": value}}]}

    assert read_context(members, fhir_user=None, fhir_base=BASE, extensions=("__x",)) == LaunchContext()


def test_what_came_later_fills_in_and_changes_nothing() -> None:
    """CX-11."""
    known, later = LaunchContext(patient="p1", tenant="a"), LaunchContext(patient="p2", tenant="b", encounter="e1")

    assert complete(known, later) == LaunchContext(patient="p1", tenant="a", encounter="e1")
    assert complete(later, LaunchContext()) == later
    assert complete(LaunchContext(), later) == later


@pytest.mark.parametrize("name", EXTENSIONS)
def test_what_smart_does_not_define_is_not_passed_on(name: str) -> None:
    """CX-09, EP-14."""
    assert read(**{name: "canary"}) == LaunchContext()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("p1", "p1"),
        (1234, "1234"),
        ("{type}/p1", "p1"),
        (f"{BASE}/{{type}}/p1", "p1"),
        ("a-B.9", "a-B.9"),
        ("x" * 64, "x" * 64),
        ("x" * 65, None),
        ("", None),
        (None, None),
        (True, None),
        (1.5, None),
        (["p1"], None),
        ({"reference": "p1"}, None),
        ("p 1", None),
        ("p1\n", None),
        ("../p1", None),
        ("p1/_history/2", None),
        ("p1?x=y", None),
        ("p%31", None),
        ("{type}/{type}/p1", None),
        ("Group/p1", None),
        ("https://other.example/r4/{type}/p1", None),
        ("１", None),
    ],
)
@pytest.mark.parametrize("type_", ["Patient", "Encounter"])
def test_patient_and_encounter_are_plain_ids(written: object, meant: str | None, type_: str) -> None:
    """CX-01, CX-02."""
    value = written.replace("{type}", type_) if isinstance(written, str) else written

    assert getattr(read(**{type_.lower(): value}), type_.lower()) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("false", False),
        ("False", False),
        ("TRUE", True),
        (None, None),
        ("", None),
        ("yes", None),
        (1, None),
        (0, None),
        ([True], None),
    ],
)
def test_the_patient_banner_is_a_boolean(written: object, meant: bool | None) -> None:  # noqa: FBT001  # a table's column
    """CX-05, NC-07."""
    assert read(need_patient_banner=written).need_patient_banner is meant


@pytest.mark.parametrize("name", ["tenant", "intent", "smart_style_url"])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("x", "x"),
        ("é", "é"),
        ("x" * 2048, "x" * 2048),
        ("x" * 2049, None),
        ("", None),
        (5, None),
        (["x"], None),
        ("a\nb", None),
        ("\ud800", None),
    ],
)
def test_a_text_is_bounded_and_printable(name: str, written: object, meant: str | None) -> None:
    """CX-06, CX-07, CX-08."""
    assert getattr(read(**{name: written}), name) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["Task/1", "ImagingStudy/2"], ({"reference": "Task/1"}, {"reference": "ImagingStudy/2"})),
        ([{"canonical": "https://x.example|1", "type": "Questionnaire"}],
         ({"canonical": "https://x.example|1", "type": "Questionnaire"},)),
        ([{"reference": "Task/1", "role": "https://x.example/role"}, "Task/2", 5, None, ["Task/3"]],
         ({"reference": "Task/1", "role": "https://x.example/role"}, {"reference": "Task/2"})),
        ([{"identifier": {"system": "s", "value": "v"}, "role": "launch"}],
         ({"identifier": {"system": "s", "value": "v"}, "role": "launch"},)),
        ([{}, {"role": "launch"}, {"reference": ""}, {"reference": 5}, {"identifier": "x"}, {"canonical": "a\nb"}], ()),
        ([{"reference": "Task/1", "role": ""}, {"reference": "Task/2", "type": ""}, ""], ()),
        ([{"reference": "Task/1", "more": "x" * 20_000}], ()),
        ([], ()),
        (None, ()),
        ("Task/1", ()),
        ({"reference": "Task/1"}, ()),
    ],
)  # fmt: skip
def test_the_fhir_context_is_a_list_of_objects(written: object, meant: tuple[dict[str, str], ...]) -> None:
    """CX-03, CX-04: strings of the second edition are converted."""
    assert read(fhirContext=written).fhir_context == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("x", "x"),
        ('{"step":\n "two"}', '{"step":\n "two"}'),
        ("é" * 8000, "é" * 8000),
        ("x" * 16_382, "x" * 16_382),
        ("x" * 16_383, None),
        ("\ud800", None),
        ("", None),
        (None, None),
        (5, None),
        ({"card": 7}, None),
        (["x"], None),
    ],
)
def test_the_context_for_the_app_is_a_text_that_nobody_reads(written: object, meant: str | None) -> None:
    """AL-23."""
    assert read(appContext=written).app_context == meant


@pytest.mark.parametrize("type_", ["Patient", "Practitioner", "PractitionerRole", "RelatedPerson", "Person"])
@pytest.mark.parametrize("prefix", ["", f"{BASE}/"])
def test_a_user_on_this_server_is_type_and_id(type_: str, prefix: str) -> None:
    """ID-06."""
    assert read_fhir_user(f"{prefix}{type_}/u-1", BASE) == f"{type_}/u-1"


@pytest.mark.parametrize(
    "value",
    [
        "https://other.example/r4/Practitioner/1",
        f"{BASE}x/Practitioner/1",
        f"{BASE}/Practitioner/1/_history/2",
        "http://ehr.example/r4/Practitioner/1",
        "Device/1",
        "practitioner/1",
        "Practitioner/",
        "Practitioner",
        "Practitioner/1 ",
        "Practitioner/1\n",
        "Practitioner/../Patient/1",
        "",
        None,
        5,
        ["Practitioner/1"],
    ],
)
def test_any_other_user_is_not_passed_on(value: object) -> None:
    """ID-06."""
    assert read_fhir_user(value, BASE) is None


def test_the_user_of_the_id_token_wins() -> None:
    """ID-09: what was verified goes before what was said."""
    context = read_context({"fhirUser": "Patient/2"}, fhir_user="Practitioner/1", fhir_base=BASE)

    assert context.fhir_user == "Practitioner/1"


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, json_values)))
def test_whatever_an_ehr_sends_gives_a_context(members: dict[str, Any]) -> None:
    context = read_context(members, fhir_user=None, fhir_base=BASE)

    assert context.patient is None or len(context.patient) <= 64
    assert context.need_patient_banner in {None, True, False}
