from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ehr.id_token import Identity
from broker.ehr.token_answer import TokenAnswer
from broker.errors import EhrMisbehaved
from broker.grants import LaunchContext, Terms, TokenSet
from broker.grants.sealing import dump_terms, dump_tokens, load_terms, load_tokens
from broker.refresh.outcome import (
    granted_context,
    granted_scopes,
    names_another_patient,
    names_another_user,
    refreshed_terms,
    share_of_life,
    token_set,
)
from broker.scopes import Scopes
from broker.secret import Secret

NOW = 1000.0
BASE = "https://ehr.example/r4"
ISSUER = "https://ehr.example/oauth/"


def answer(
    *,
    refresh_token: str | None = None,
    lifetime: float | None = 3600,
    scope: str | None = None,
    refresh_lifetime: float | None = None,
    **members: object,
) -> TokenAnswer:
    refresh = Secret(refresh_token) if refresh_token else None
    return TokenAnswer(Secret("at-2"), refresh, None, lifetime, scope, members, refresh_lifetime)


def kept(said: TokenAnswer, previous: TokenSet | None = None, share: float = 0.75) -> TokenSet:
    return token_set(said, now=NOW, share=share, default_lifetime=300, previous=previous)


def terms(scopes: str = "patient/*.rs", patient: str | None = "p1", **context: Any) -> Terms:
    known = LaunchContext(patient=patient, **context)
    return Terms("epic", BASE, "epic-launch", "launch", "growth", Scopes.parse(scopes), known)


@pytest.mark.parametrize(("drawn", "share"), [(b"\0\0\0\0", 0.6), (b"\xff\xff\xff\xff", 0.9), (b"\x80\0\0\0", 0.75)])
def test_a_token_is_renewed_after_60_to_90_percent_of_its_life(drawn: bytes, share: float) -> None:
    """RF-06."""
    assert share_of_life(lambda count: drawn[:count]) == pytest.approx(share)


@given(st.binary(min_size=4, max_size=4), st.floats(60, 86_400))
def test_lifetimes_from_a_minute_to_a_day_are_renewed_while_the_token_lives(drawn: bytes, lifetime: float) -> None:
    """TR-07, RF-06."""
    made = kept(answer(lifetime=lifetime), share=share_of_life(lambda _: drawn))

    assert NOW + 0.59 * lifetime < made.renew_at < NOW + 0.91 * lifetime
    assert made.expires_at == NOW + lifetime


def test_a_first_token_set_is_what_the_ehr_issued() -> None:
    assert kept(answer(refresh_token="rt-1", lifetime=400, refresh_lifetime=7200, tenant="x")) == TokenSet(
        Secret("at-2"),
        Secret("rt-1"),
        renew_at=1300,
        expires_at=1400,
        lifetime=400,
        expected_end=8200,
    )


@pytest.mark.parametrize(
    ("previous", "sent", "left"),
    [("rt-1", None, "rt-1"), ("rt-1", "rt-2", "rt-2"), (None, "rt-2", "rt-2"), (None, None, None)],
)
def test_a_refresh_token_that_was_not_replaced_stays(previous: str | None, sent: str | None, left: str | None) -> None:
    """RF-03, EP-16, OR-04, NC-03."""
    before = TokenSet(Secret("at-1"), Secret(previous) if previous else None, 0, 0)

    renewed = kept(answer(refresh_token=sent), before)

    assert renewed.refresh_token == (Secret(left) if left else None)
    assert renewed.access_token == Secret("at-2")


@pytest.mark.parametrize(
    ("said", "before", "lifetime"), [(None, 570.0, 570), (None, None, 300), (60, 570.0, 60), (3600, None, 3600)]
)
def test_a_lifetime_that_is_not_said_is_the_last_one_or_the_profiles(
    said: float | None, before: float | None, lifetime: float
) -> None:
    """RF-09, Q8."""
    previous = TokenSet(Secret("at-1"), None, 0, 0, lifetime=before) if before else None

    assert kept(answer(lifetime=said), previous).lifetime == lifetime


def test_the_end_of_a_rolling_authorization_stays_as_it_was_first_said() -> None:
    """RF-13, EP-16."""
    before = TokenSet(Secret("at-1"), None, 0, 0, expected_end=9000)

    assert kept(answer(), before).expected_end == 9000
    assert kept(answer(refresh_lifetime=60), before).expected_end == 1060


def test_unknown_members_change_nothing_of_what_is_kept() -> None:
    """TR-06, RF-12: whatever an app may see of them is in the launch context."""
    assert kept(answer(__vendor=[1], active_ttl=5)) == kept(answer())
    assert b"vendor" not in dump_tokens(kept(answer(__vendor=[1])))


def test_what_is_sealed_is_what_was_given() -> None:
    tokens = kept(answer(refresh_token="rt", refresh_lifetime=60, __vendor={"a": [1]}))
    whole = terms(issuer=ISSUER, subject="u1", extensions={"__x": 1}, fhir_context=({"reference": "Task/1"},))

    assert load_tokens(dump_tokens(tokens)) == tokens
    assert load_terms(dump_terms(whole)) == whole


# TR-04: the eight ways in which what was granted differs from what was asked

ASKED = "launch/patient offline_access patient/Observation.rs patient/Patient.rs"


@pytest.mark.parametrize(
    ("said", "granted"),
    [
        (ASKED, ASKED),
        ("launch/patient patient/Patient.rs", "launch/patient patient/Patient.rs"),
        (f"{ASKED} user/*.cruds", f"{ASKED} user/*.cruds"),
        (
            "launch/patient offline_access patient/Patient.rs patient/Observation.s patient/Observation.r",
            ASKED,
        ),
        ("launch/patient offline_access patient/Observation.read patient/Patient.read", ASKED),
        ("patient/*.rs", "patient/*.rs"),
        (
            "  patient/Observation.Read patient/Observation.read patient/Observation.rs  a.b-c  ",
            "a.b-c patient/Observation.rs",
        ),
        (f"{ASKED} profile epic.scanning.dmsusername", f"{ASKED} profile epic.scanning.dmsusername"),
    ],
    ids=["exact", "narrower", "wider", "split", "v1 for v2", "wildcard for types", "odd words", "extras"],
)
def test_a_grant_is_of_what_the_ehr_granted_in_each_of_the_eight_cases(said: str, granted: str) -> None:
    """TR-04, TR-05, OA-02, SC-16, EP-15, NC-06."""
    assert granted_scopes(answer(scope=said), Scopes.parse(ASKED)) == Scopes.parse(granted)


def test_v2_is_understood_where_v1_was_asked() -> None:
    """TR-04, Q9."""
    asked = Scopes.parse("patient/Observation.read")

    assert granted_scopes(answer(scope="patient/Observation.rs"), asked) == asked


def test_a_scope_that_is_not_said_is_what_was_asked_unless_the_profile_wants_one() -> None:
    """Q4."""
    asked = Scopes.parse(ASKED)

    assert granted_scopes(answer(), asked, missing="as_requested") == asked
    with pytest.raises(EhrMisbehaved, match="Q4"):
        granted_scopes(answer(), asked, missing="refuse")


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
    """Q4, TR-04, SC-16, EP-15, NC-06."""
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
        ("", "patient/*.rs"),
        (" ", "patient/*.rs"),
    ],
)
def test_a_refresh_shrinks_scopes_and_never_grows_them(said: str | None, left: str) -> None:
    """RF-11."""
    refreshed = refreshed_terms(terms(), answer(scope=said))

    assert refreshed.scopes == Scopes.parse(left)
    assert refreshed.scopes.narrows(terms().scopes)


def test_context_that_was_absent_is_filled_in_by_a_refresh() -> None:
    """CX-11, NC-08."""
    refreshed = refreshed_terms(
        terms(patient=None),
        answer(patient="p2", encounter="e1", fhirUser="Patient/2", need_patient_banner="false", __x=1),
        extensions=("__x",),
    )

    assert refreshed.context == LaunchContext(
        patient="p2", encounter="e1", fhir_user="Patient/2", need_patient_banner=False, extensions={"__x": 1}
    )
    assert (terms(patient=None).context_missing, refreshed.context_missing) == (True, False)


def test_context_that_is_known_is_not_changed_by_a_refresh() -> None:
    """CX-11."""
    known = terms(encounter="e1", tenant="clinic", need_patient_banner=False)

    assert refreshed_terms(known, answer(encounter="e2", tenant="x", need_patient_banner=True)) == known


def test_who_signed_in_is_filled_in_by_a_verified_id_token() -> None:
    """CX-11, ID-08."""
    refreshed = refreshed_terms(terms(), answer(), Identity(ISSUER, "u1", "Practitioner/1"))

    context = refreshed.context
    assert (context.issuer, context.subject, context.fhir_user) == (ISSUER, "u1", "Practitioner/1")


@pytest.mark.parametrize(("said", "assumed"), [(None, True), ("", True), ("patient/*.rs", False)])
def test_a_scope_is_assumed_until_the_ehr_says_one(said: str | None, *, assumed: bool) -> None:
    """Q4, RF-09."""
    from_the_first = Terms(**{**{name: getattr(terms(), name) for name in Terms.__slots__}, "scope_assumed": True})

    assert refreshed_terms(from_the_first, answer(scope=said)).scope_assumed is assumed


@pytest.mark.parametrize(
    ("claims", "another"),
    [
        ({}, True),
        ({"iss": ISSUER, "sub": "u1", "aud": "broker"}, False),
        ({"iss": ISSUER, "sub": "u1", "aud": ["x", "broker"]}, False),
        ({"iss": ISSUER, "sub": "u1", "aud": "the EHR's own"}, False),
        ({"iss": ISSUER, "sub": "u2", "aud": "broker"}, True),
        ({"iss": ISSUER.rstrip("/"), "sub": "u1", "aud": "broker"}, True),
        ({"iss": ISSUER, "sub": "u1", "aud": "other"}, True),
        ({"iss": ISSUER, "sub": "u1"}, True),
        ({"iss": ISSUER, "sub": ["u1"], "aud": "broker"}, True),
        (None, False),
    ],
)
def test_a_refresh_whose_id_token_is_of_another_user_is_noticed(
    claims: dict[str, object] | None, *, another: bool
) -> None:
    """ID-08: issuer, subject and audience stay."""
    known = terms(issuer=ISSUER, subject="u1")

    assert names_another_user(known, claims, ("broker", "the EHR's own")) is another
    assert not names_another_user(terms(), claims, ("broker",))


def test_a_context_holds_the_identity_of_the_id_token() -> None:
    context = granted_context(
        answer(patient="p1", __x=1, __y=2),
        Identity(ISSUER, "u1", "Practitioner/1"),
        fhir_base=BASE,
        extensions=("__y",),
    )

    assert context == LaunchContext(
        patient="p1", fhir_user="Practitioner/1", issuer=ISSUER, subject="u1", extensions={"__y": 2}
    )


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
