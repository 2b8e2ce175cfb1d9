"""Scopes parse as SMART writes them, and to nothing otherwise (SC-01 to SC-07)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.fhir.scopes import Permission, parse_permission, parse_permissions

LETTERS = "cruds"


@pytest.mark.parametrize(
    ("scope", "permission"),
    [
        ("patient/Observation.read", Permission("patient", "Observation", frozenset("rs"))),
        ("user/Observation.write", Permission("user", "Observation", frozenset("cud"))),
        ("system/*.*", Permission("system", "*", frozenset("cruds"))),
        ("patient/*.Read", Permission("patient", "*", frozenset("rs"))),
        ("patient/Patient.r", Permission("patient", "Patient", frozenset("r"))),
        ("patient/*.cruds", Permission("patient", "*", frozenset("cruds"))),
        (
            "patient/Observation.rs?category=http://x|laboratory&status=final",
            Permission(
                "patient", "Observation", frozenset("rs"), (("category", "http://x|laboratory"), ("status", "final"))
            ),
        ),
    ],
)
def test_a_resource_scope_is_a_permission(scope: str, permission: Permission) -> None:
    """SC-01, SC-03, SC-05."""
    assert parse_permission(scope) == permission


@pytest.mark.parametrize(
    "scope",
    [
        "",
        "openid",
        "launch/patient",
        "offline_access",
        "patient/Observation",
        "patient/Observation.",
        "patient/Observation.sr",
        "patient/Observation.dus",
        "patient/Observation.rr",
        "patient/Observation.admin",
        "patient/Observation.rs?",
        "patient/Observation.rs?&",
        "patient/observation.rs",
        "Patient/Observation.rs",
        "group/Observation.rs",
        "patient/Observation.rs patient/Condition.rs",
        "patient/.rs",
        "patient/**.rs",
    ],
)
def test_anything_else_gives_nothing(scope: str) -> None:
    """SC-01."""
    assert parse_permission(scope) is None


@given(st.sets(st.sampled_from(LETTERS), min_size=1), st.sampled_from(["patient", "user", "system"]))
def test_letters_in_order_are_exactly_those_letters(letters: set[str], level: str) -> None:
    verb = "".join(letter for letter in LETTERS if letter in letters)
    assert parse_permission(f"{level}/Condition.{verb}") == Permission(level, "Condition", frozenset(letters))


@given(st.permutations(LETTERS).map("".join).filter(lambda verb: verb != LETTERS))
def test_letters_out_of_order_give_nothing(verb: str) -> None:
    assert parse_permission(f"patient/Condition.{verb}") is None


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    permissions = parse_permissions([text, f"patient/{text}", f"patient/Patient.{text}", f"patient/Patient.r?{text}"])
    assert all(permission.level in {"patient", "user", "system"} for permission in permissions)
