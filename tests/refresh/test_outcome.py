import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ehr.token_endpoint import TokenAnswer
from broker.grants import LaunchContext, Terms, TokenSet
from broker.refresh.outcome import granted_scopes, names_another_patient, refreshed_terms, renew_at, token_set
from broker.scopes import Scopes
from broker.secret import Secret

NOW = 1000.0
BASE = "https://ehr.example/r4"


def answer(
    *, refresh_token: str | None = None, lifetime: float = 3600, scope: str | None = None, **members: object
) -> TokenAnswer:
    return TokenAnswer(Secret("at-2"), Secret(refresh_token) if refresh_token else None, None, lifetime, scope, members)


def terms(scopes: str = "patient/*.rs", patient: str | None = "p1") -> Terms:
    context = LaunchContext(patient=patient)
    return Terms("epic", BASE, "epic-launch", "launch", "growth", Scopes.parse(scopes), context)


@pytest.mark.parametrize(
    ("lifetime", "when"), [(3600, 4570), (300, 1270), (100, 1090), (60, 1054), (10, 1009), (1, 1000.9)]
)
def test_a_token_is_renewed_a_tenth_of_its_life_or_30_seconds_before_its_end(lifetime: float, when: float) -> None:
    assert renew_at(NOW, lifetime) == pytest.approx(when)


@given(st.floats(0.001, 604_800))
def test_a_token_is_renewed_while_it_lives(lifetime: float) -> None:
    assert NOW < renew_at(NOW, lifetime) < NOW + lifetime


def test_a_first_token_set_is_what_the_ehr_issued() -> None:
    assert token_set(answer(refresh_token="rt-1", lifetime=300), now=NOW) == TokenSet(
        Secret("at-2"), Secret("rt-1"), renew_at=1270, expires_at=1300
    )


@pytest.mark.parametrize(
    ("previous", "sent", "kept"),
    [("rt-1", None, "rt-1"), ("rt-1", "rt-2", "rt-2"), (None, "rt-2", "rt-2"), (None, None, None)],
)
def test_a_refresh_token_that_was_not_replaced_stays(previous: str | None, sent: str | None, kept: str | None) -> None:
    """RF-03."""
    before = TokenSet(Secret("at-1"), Secret(previous) if previous else None, 0, 0)

    renewed = token_set(answer(refresh_token=sent), now=NOW, previous=before)

    assert renewed.refresh_token == (Secret(kept) if kept else None)
    assert renewed.access_token == Secret("at-2")


@pytest.mark.parametrize(
    ("said", "granted"),
    [
        (None, "patient/*.rs offline_access"),
        ("", ""),
        ("patient/*.rs", "patient/*.rs"),
        ("patient/Observation.read", "patient/Observation.rs"),
        ("patient/Observation.Read patient/Observation.read ", "patient/Observation.rs"),
        ("nonsense/ patient/x.rs", "nonsense/"),
        ("user/*.cruds", "user/*.cruds"),
    ],
)
def test_the_granted_scopes_are_what_the_ehr_says_or_what_was_asked(said: str | None, granted: str) -> None:
    """Q4, TR-04, SC-16."""
    asked = Scopes.parse("patient/*.rs offline_access")

    assert granted_scopes(answer(scope=said), asked) == Scopes.parse(granted)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (None, "patient/*.rs"),
        ("patient/*.rs", "patient/*.rs"),
        ("patient/*.cruds user/*.cruds", "patient/*.rs"),
        ("patient/Observation.rs", "patient/Observation.rs"),
        ("user/*.rs", ""),
        ("", ""),
    ],
)
def test_a_refresh_shrinks_scopes_and_never_grows_them(said: str | None, left: str) -> None:
    """RF-11."""
    refreshed = refreshed_terms(terms(), answer(scope=said))

    assert refreshed.scopes == Scopes.parse(left)
    assert refreshed.scopes.narrows(terms().scopes)


def test_a_refresh_changes_nothing_but_scopes() -> None:
    refreshed = refreshed_terms(terms(), answer(patient="p2", fhirUser="Patient/2", tenant="x"))

    assert refreshed == terms()


@pytest.mark.parametrize("patient", ["p2", "Patient/p2", f"{BASE}/Patient/p2", "P1", "p1 ", 5, ["p1"], {"p1": 1}, True])
def test_a_refresh_that_names_another_patient_is_noticed(patient: object) -> None:
    """CX-11."""
    assert names_another_patient(terms(), answer(patient=patient))


@pytest.mark.parametrize("patient", ["p1", "Patient/p1", f"{BASE}/Patient/p1", "", None])
def test_a_refresh_that_names_the_same_patient_or_none_is_fine(patient: object) -> None:
    """CX-01: in whichever of the forms that a launch may use too."""
    assert not names_another_patient(terms(), answer(patient=patient))
    assert not names_another_patient(terms(), answer())


def test_the_same_patient_as_a_number_is_the_same() -> None:
    assert not names_another_patient(terms(patient="1234"), answer(patient=1234))


def test_a_grant_without_patient_has_no_other() -> None:
    assert not names_another_patient(terms(patient=None), answer(patient="p2"))


@pytest.mark.parametrize(
    "patient", ["https://other.example/r4/Patient/p1", "http://ehr.example/r4/Patient/p1", "Group/p1"]
)
def test_a_patient_of_the_same_id_elsewhere_is_another(patient: str) -> None:
    assert names_another_patient(terms(), answer(patient=patient))
