"""A new authorization is the same one, or it is refused: by everything that the grant knows, and never wider."""

from dataclasses import replace
from typing import Any

import pytest

from broker.errors import AccessDenied
from broker.grants import LaunchContext, Terms
from broker.grants.same_person import is_about_somebody, same_terms
from broker.scopes import Scopes

CONTEXT = LaunchContext(patient="p", fhir_user="Practitioner/u", issuer="https://ehr.example", subject="u")
TERMS = Terms(
    "ehr", "https://ehr.example/r4", "r", "launch", "app", Scopes.parse("patient/*.rs offline_access"), CONTEXT
)


def but(**changes: Any) -> Terms:
    """The terms with another context."""
    return replace(TERMS, context=replace(CONTEXT, **changes))


@pytest.mark.parametrize(
    ("known", "answered"),
    [
        (TERMS, TERMS),
        (TERMS, but(fhir_user=None)),
        (TERMS, but(encounter="e", tenant="t", intent="other")),
        (but(encounter="e", tenant="t"), TERMS),
        (but(subject=None, issuer=None), TERMS),
        (but(subject=None, issuer=None, fhir_user=None), TERMS),
        (but(patient=None), TERMS),
    ],
)
def test_what_the_grant_knows_has_to_be_said_again_and_the_rest_is_filled_in(known: Terms, answered: Terms) -> None:
    terms = same_terms(known, answered)

    for name in ("patient", "fhir_user", "issuer", "subject", "encounter", "tenant", "intent"):
        was, said = getattr(known.context, name), getattr(answered.context, name)
        assert getattr(terms.context, name) == (said if was is None else was)


@pytest.mark.parametrize(
    ("known", "answered", "cause"),
    [
        (TERMS, replace(TERMS, ehr="other"), "of another ehr"),
        (TERMS, replace(TERMS, fhir_base="https://other.example"), "of another fhir_base"),
        (TERMS, replace(TERMS, registration="other"), "of another registration"),
        (TERMS, replace(TERMS, flow="backend"), "of another flow"),
        (TERMS, but(patient="q"), "of another patient"),
        (TERMS, but(patient=None), "does not say its patient"),
        (TERMS, but(issuer="https://other.example"), "of another issuer"),
        (TERMS, but(subject="v"), "of another subject"),
        (TERMS, but(subject=None, issuer=None), "does not say its issuer"),
        (TERMS, but(fhir_user="Practitioner/v"), "of another fhir_user"),
        (but(subject=None, issuer=None), but(fhir_user=None), "does not say its fhir_user"),
        (but(encounter="e"), but(encounter="f"), "of another encounter"),
        (but(tenant="t"), but(tenant="u"), "of another tenant"),
        (replace(TERMS, context=LaunchContext()), TERMS, "nothing tells whom"),
        (TERMS, replace(TERMS, scopes=Scopes.parse("user/*.rs")), "granted nothing that the grant had"),
    ],
)
def test_somebody_else_or_something_else_is_refused(known: Terms, answered: Terms, cause: str) -> None:
    with pytest.raises(AccessDenied, match=cause):
        same_terms(known, answered)


@pytest.mark.parametrize(
    ("granted", "kept"),
    [
        ("patient/*.cruds offline_access", "offline_access patient/*.rs"),
        ("patient/Patient.r", "patient/Patient.r"),
        ("patient/*.rs system/*.rs", "patient/*.rs"),
    ],
)
def test_scopes_shrink_and_never_grow(granted: str, kept: str) -> None:
    assert str(same_terms(TERMS, replace(TERMS, scopes=Scopes.parse(granted))).scopes) == kept


@pytest.mark.parametrize(
    ("context", "scopes", "told"),
    [
        (LaunchContext(subject="u", issuer="i"), "user/*.rs", True),
        (LaunchContext(fhir_user="Patient/p"), "user/*.rs", True),
        (LaunchContext(patient="p"), "patient/*.rs", True),
        (LaunchContext(patient="p"), "patient/*.rs user/Practitioner.r", False),
        (LaunchContext(), "patient/*.rs", False),
    ],
)
def test_a_patient_alone_tells_who_it_is_where_all_access_is_to_that_patient(
    context: LaunchContext, scopes: str, *, told: bool
) -> None:
    assert is_about_somebody(replace(TERMS, context=context, scopes=Scopes.parse(scopes))) == told
