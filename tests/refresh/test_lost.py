"""A refresh token whose answer was lost is sent again only where the EHR's profile says that it is safe (RF-05)."""

from dataclasses import fields

import pytest

from broker.errors import (
    AuditUnavailable,
    BrokerError,
    EhrAnswerLost,
    EhrAnswerUnreadable,
    EhrError,
    EhrMisbehaved,
    EhrRefused,
    EhrUnreachable,
    KeyUnavailable,
    NotFound,
    SealBroken,
    StoreUnavailable,
)
from broker.grants import began_at
from broker.grants.failures import ACTIONS, Kind, classify, kind_of
from broker.profiles import Profile, profile
from broker.refresh.lost import Again, attempt_name, can_be_found_out, may_send_again

STRICT = profile("generic")
GRACE = STRICT.model_copy(update={"refresh_grace": 60})
ASKED = STRICT.model_copy(update={"introspect_lost": True})
BOTH = STRICT.model_copy(update={"refresh_grace": 60, "introspect_lost": True})
REUSABLE = STRICT.model_copy(update={"refresh_tokens": "reusable"})


@pytest.mark.parametrize(
    ("known", "asked_at", "now", "again"),
    [
        (STRICT, 100, 100.1, "no"),
        (STRICT, None, 100, "no"),
        (GRACE, 100, 129.9, "yes"),
        (GRACE, 100, 130, "no"),
        (GRACE, 100, 99, "no"),
        (GRACE, None, 100, "no"),
        (ASKED, 100, 100.1, "ask"),
        (ASKED, None, 100, "ask"),
        (BOTH, 100, 129.9, "yes"),
        (BOTH, 100, 130, "ask"),
        (REUSABLE, None, 100, "yes"),
        (REUSABLE, 100, 9999, "yes"),
    ],
)
def test_what_may_be_sent_again_stands_in_the_profile(
    known: Profile, asked_at: float | None, now: float, again: Again
) -> None:
    """RF-05, RF-15."""
    assert may_send_again(known, asked_at=asked_at, now=now) == again


@pytest.mark.parametrize(
    ("known", "can"), [(STRICT, False), (GRACE, True), (ASKED, True), (BOTH, True), (REUSABLE, True)]
)
def test_an_answer_is_looked_for_only_where_it_can_be_found(known: Profile, can: bool) -> None:  # noqa: FBT001  # expected
    assert can_be_found_out(known) is can


def test_an_attempts_name_says_when_it_began() -> None:
    assert began_at(attempt_name("abc-_9", 1234.5678)) == pytest.approx(1234.568)
    assert began_at("") is None
    assert began_at("dead") is None
    assert began_at("a@b") is None


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (EhrUnreachable("no connection"), "ehr_outage", "ehr_unreachable"),
        (EhrUnreachable("503", retry_after=0.0), "ehr_outage", "ehr_unreachable"),
        (EhrUnreachable("429", retry_after=30.0), "transient", "ehr_unreachable"),
        (EhrAnswerLost("no answer"), "lost", "ehr_answer_lost"),
        (EhrAnswerUnreadable("2xx without a token"), "quirk", "ehr_answer_unreadable"),
        (EhrMisbehaved("HTML"), "quirk", "ehr_misbehaved"),
        (EhrRefused("x", error="invalid_grant"), "grant", "invalid_grant"),
        (EhrRefused("x", error="invalid_client"), "client", "invalid_client"),
        (EhrRefused("x", error="unauthorized_client"), "client", "unauthorized_client"),
        (EhrRefused("x", error="invalid_scope"), "client", "invalid_scope"),
        (EhrRefused("x", error="unsupported_grant_type"), "client", "unsupported_grant_type"),
        (EhrRefused("x", error="invalid_request"), "quirk", "invalid_request"),
        (EhrRefused("x", error="temporarily_unavailable"), "transient", "temporarily_unavailable"),
        (EhrRefused("x", error="server_error"), "ehr_outage", "server_error"),
        (EhrRefused("x", error="something_of_a_vendor"), "quirk", "something_of_a_vendor"),
        (KeyUnavailable("x"), "key", "key_unavailable"),
        (SealBroken("x"), "key", "seal_broken"),
        (NotFound("x"), "client", "not_found"),
        (StoreUnavailable("x"), "broker", "store_unavailable"),
        (AuditUnavailable("x"), "broker", "audit_unavailable"),
    ],
)
def test_every_failure_is_somebodys_and_has_one_thing_to_do(error: BrokerError, kind: Kind, code: str) -> None:
    """RF-08."""
    failure = classify(error)

    assert (failure.kind, failure.code) == (kind, code)
    assert failure.action == ACTIONS[kind]
    if isinstance(error, EhrError):  # of nothing else a code is kept
        assert kind_of(code) == ("ehr_outage" if code == "ehr_unreachable" else kind)
    assert {field.name for field in fields(failure)} == {"kind", "code"}
