"""Scopes as one EHR understands them: the least that its dialect can say, and its own types for a wildcard."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidScope
from broker.scopes import Dialect, Rendered, Scopes, choose_dialect, expand_wildcards, render
from tests.scopes.oracle import allowed, least_in_v1
from tests.scopes.writing import OTHERS, others, texts, words


@pytest.mark.parametrize(
    ("setting", "capabilities", "dialect"),
    [
        ("v1", ["permission-v2"], "v1"),
        ("v2", ["permission-v1"], "v2"),
        ("v2", [], "v2"),
        ("auto", ["launch-ehr", "permission-v1", "permission-v2"], "v2"),
        ("auto", ["permission-v1"], "v1"),
        ("auto", [], "v1"),
    ],
)
def test_a_dialect_is_the_one_that_is_set_or_the_one_that_the_ehr_lists(
    setting: Literal["v1", "v2", "auto"], capabilities: list[str], dialect: Dialect
) -> None:
    """Q9, SC-04: an EHR that lists nothing is older than v2."""
    assert choose_dialect(setting, capabilities) == dialect


@pytest.mark.parametrize(
    ("text", "v1"),
    [
        ("patient/Observation.rs openid", "openid patient/Observation.read"),
        ("patient/Observation.cud", "patient/Observation.write"),
        ("user/*.cruds launch/patient", "launch/patient user/*.read user/*.write"),
        ("patient/*.rs patient/Observation.cruds", "patient/*.read patient/Observation.write"),
        ("system/Patient.read system/Patient.write", "system/Patient.read system/Patient.write"),
        ("", ""),
    ],
)
def test_v1_says_exactly_the_same_where_it_can(text: str, v1: str) -> None:
    """Q9, SC-03, OR-06: never `.*`."""
    assert render(Scopes.parse(text), "v1") == Rendered(v1)
    assert Scopes.parse(v1) == Scopes.parse(text)


@pytest.mark.parametrize(
    ("text", "v1", "widened"),
    [
        ("openid patient/Observation.r", "openid patient/Observation.read", ["patient/Observation.r"]),
        ("patient/Observation.s", "patient/Observation.read", ["patient/Observation.s"]),
        ("user/Task.cu", "user/Task.write", ["user/Task.cu"]),
        ("user/Task.crus", "user/Task.read user/Task.write", ["user/Task.crus"]),
        ("patient/Observation.rs?category=x", "patient/Observation.read", ["patient/Observation.rs?category=x"]),
        (
            "patient/Observation.r?a=1 patient/Observation.s?b=2",
            "patient/Observation.read",
            ["patient/Observation.r?a=1", "patient/Observation.s?b=2"],
        ),
        ("patient/*.r patient/Observation.s", "patient/*.read", ["patient/*.r", "patient/Observation.s"]),
        ("patient/Patient.rs patient/Task.d", "patient/Patient.read patient/Task.write", ["patient/Task.d"]),
    ],
)
def test_what_v1_cannot_say_is_asked_for_a_little_wider_and_named(text: str, v1: str, widened: list[str]) -> None:
    """Q9, SC-06."""
    rendered = render(Scopes.parse(text), "v1")
    assert rendered.text == v1
    assert list(map(str, rendered.widened)) == widened


@given(words, others)
def test_v1_text_is_the_least_that_covers_what_is_asked(written: list[str], kept: frozenset[str]) -> None:
    """Q9."""
    scopes = Scopes.parse(" ".join([*written, *kept]))
    rendered = render(scopes, "v1")
    again = Scopes.parse(rendered.text)
    assert allowed(rendered.text) == least_in_v1(allowed(" ".join(written)))
    assert scopes.narrows(again)
    assert again.others == kept
    assert (again == scopes) is (rendered.widened == ())
    assert scopes.resources.issuperset(rendered.widened)


@given(texts, others)
def test_v2_text_is_exact_and_canonical(text: str, kept: frozenset[str]) -> None:
    """Q9, SC-04."""
    scopes = Scopes.parse(" ".join([text, *kept]))
    assert render(scopes, "v2") == Rendered(str(scopes))


@pytest.mark.parametrize(
    ("text", "types", "expanded"),
    [
        ("patient/*.rs", ["Observation", "Patient"], "patient/Observation.rs patient/Patient.rs"),
        ("patient/*.rs patient/Observation.cud", ["Observation"], "patient/Observation.cruds"),
        ("system/*.r?_tag=x", ["Patient", "Patient"], "system/Patient.r?_tag=x"),
        ("user/*.rs patient/Task.rs openid", ["Patient"], "openid patient/Task.rs user/Patient.rs"),
        ("patient/Task.rs", ["Patient"], "patient/Task.rs"),
        ("patient/*.rs openid", [], "openid"),
        ("patient/*.rs", ["*", "", "Patient.rs openid", "patient", "Patient\n", "Obs*"], ""),
    ],
)
def test_a_wildcard_becomes_the_types_that_the_ehr_lists(text: str, types: list[str], expanded: str) -> None:
    """OR-06, SC-08. What the EHR's document says is no scope text: only names of types are taken from it."""
    assert str(expand_wildcards(Scopes.parse(text), types)) == expanded


@given(words, others, st.frozensets(st.sampled_from(["Patient", "Device"])))
def test_expanding_opens_what_the_wildcard_opened_of_these_types(
    written: list[str], kept: frozenset[str], types: frozenset[str]
) -> None:
    """OR-06. Of a type that the EHR does not list, what was named beyond the wildcard stays."""
    scopes = Scopes.parse(" ".join([*written, *kept]))
    expanded = expand_wildcards(scopes, types)
    opened, before = allowed(str(expanded)), allowed(" ".join(written))
    wild = allowed(" ".join(word for word in written if "/*." in word))
    named = allowed(" ".join(word for word in written if "/*." not in word))
    assert {atom for atom in opened if atom[1] in types} == {atom for atom in before if atom[1] in types}
    assert named - wild <= opened
    assert {atom for atom in opened if atom[1] not in types} <= named
    assert expanded.narrows(scopes)
    assert expanded.others == kept
    assert expand_wildcards(expanded, types) == expanded


def test_more_types_than_can_be_asked_for_are_refused() -> None:
    """OR-06."""
    types = [f"T{chr(65 + number // 26)}{chr(97 + number % 26)}" for number in range(201)]
    assert len(expand_wildcards(Scopes.parse("patient/*.rs"), types[:200]).resources) == 200
    with pytest.raises(InvalidScope, match="more than 200"):
        expand_wildcards(Scopes.parse("patient/*.rs"), types)


@pytest.mark.parametrize("word", OTHERS)
@pytest.mark.parametrize("dialect", ["v1", "v2"])
def test_a_word_outside_the_grammar_is_the_same_in_both_dialects(word: str, dialect: Dialect) -> None:
    """SC-10, SC-12, SC-13."""
    assert render(Scopes.parse(word), dialect) == Rendered(word)
