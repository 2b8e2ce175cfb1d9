"""Granting: what was asked, cut down to what the client may have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.oauth.scopes import ClinicalScope, grant, needs_patient
from sandbox.pages.wording import explain

CLINICAL = st.builds(
    "{}/{}.{}".format,
    st.sampled_from(["patient", "user", "system"]),
    st.sampled_from(["*", "Observation", "Patient"]),
    st.sampled_from(["c", "r", "rs", "cud", "cruds", "s", "read", "write", "*"]),
)
SCOPES = st.lists(CLINICAL | st.sampled_from(["openid", "launch", "offline_access"]))


@pytest.mark.parametrize(
    ("asked", "allowed", "granted"),
    [
        ("openid", "openid", "openid"),
        ("openid", "", ""),
        ("", "openid", ""),
        ("patient/*.rs", "patient/*.rs", "patient/*.rs"),
        ("patient/Observation.rs", "patient/*.rs", "patient/Observation.rs"),
        ("patient/Observation.cruds", "patient/*.rs", "patient/Observation.rs"),
        ("patient/*.rs", "patient/Observation.rs patient/Patient.r", "patient/Observation.rs patient/Patient.r"),
        ("patient/Observation.read", "patient/*.rs", "patient/Observation.read"),
        ("patient/Observation.*", "patient/*.rs", "patient/Observation.rs"),
        ("patient/Observation.rs", "patient/Observation.read", "patient/Observation.rs"),
        ("patient/Observation.rs", "user/*.cruds", ""),
        ("patient/Observation.c", "patient/Observation.rs", ""),
        ("patient/Observation.rs?category=lab", "patient/*.rs", "patient/Observation.rs?category=lab"),
        ("patient/Observation.rs", "patient/Observation.rs?category=lab", "patient/Observation.rs?category=lab"),
        ("patient/Observation.rs?category=a", "patient/Observation.rs?category=b", ""),
        ("launch/encounter?role=x", "launch/encounter", "launch/encounter?role=x"),
        ("patient/Observation.sr", "patient/*.cruds", ""),
        ("patient/Observation.", "patient/*.cruds", ""),
        ("openid openid", "openid", "openid"),
    ],
)
def test_granted_is_asked_and_allowed(asked: str, allowed: str, granted: str) -> None:
    assert " ".join(grant(asked.split(), allowed.split())) == granted


@given(SCOPES, SCOPES)
def test_what_is_granted_would_be_granted_again(asked: list[str], allowed: list[str]) -> None:
    granted = grant(asked, allowed)
    assert set(granted) <= set(grant(granted, allowed))


@given(SCOPES, SCOPES)
def test_no_interaction_is_granted_that_was_not_both_asked_and_allowed(asked: list[str], allowed: list[str]) -> None:
    assert interactions(grant(asked, allowed)) <= interactions(asked) & interactions(allowed)


@pytest.mark.parametrize(
    ("scopes", "needed"),
    [("launch/patient", True), ("patient/*.rs", True), ("user/*.rs openid launch", False), ("", False)],
)
def test_a_patient_is_needed_for_patient_scopes(scopes: str, needed: bool) -> None:  # noqa: FBT001  # a table column
    assert needs_patient(scopes.split()) is needed


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("patient/Observation.r", "Read Observation records of this patient"),
        ("user/*.write", "Create, change and delete all records that you may see"),
        ("patient/Observation.rs?code=1&category=2",
         "Read and search Observation records of this patient, only where code=1 and category=2"),
        ("launch/patient?role=x", "Know which patient you chose"),
        ("https://vendor.example/scope", "https://vendor.example/scope"),
    ],
)  # fmt: skip
def test_scopes_are_explained_in_words(scope: str, said: str) -> None:
    assert explain(scope) == said


def interactions(scopes: list[str] | tuple[str, ...]) -> set[tuple[str, str, str]]:
    """Return what clinical scopes allow, over a world of three types."""
    parsed = [clinical for scope in scopes if (clinical := ClinicalScope.parse(scope))]
    return {
        (scope.level, kind, letter)
        for scope in parsed
        for kind in ("Observation", "Patient", "Condition")
        for letter in scope.letters
        if scope.kind in {"*", kind}
    }
