"""How a grant is, said from what is known of it alone."""

from dataclasses import replace

import pytest

from broker.grants import Grant, LaunchContext, Terms, Trouble, health_of
from broker.grants.failures import ACTIONS, Kind
from broker.grants.health import Health
from broker.scopes import Scopes

TERMS = Terms("ehr", "https://ehr.example", "r", "launch", "app", Scopes.parse("patient/*.rs"), LaunchContext())
HEALTHY = Grant(
    tag="t" * 12,
    terms=TERMS,
    state="active",
    generation=3,
    created_at=500,
    since=1000,
    renew_at=1070,
    expires_at=1100,
    refreshable=True,
    cause=None,
    sealed_tokens=b"",
)
TROUBLED = replace(HEALTHY, trouble=Trouble(1080.0, 1090.0, 4, "invalid_client"))
UNCERTAIN = replace(HEALTHY, state="uncertain", cause="lost", since=1071)


@pytest.mark.parametrize(
    ("grant", "now", "health", "since", "evidence"),
    [
        (HEALTHY, 1050, "healthy", 1000, "generation 3"),
        (HEALTHY, 1150, "healthy", 1000, "generation 3"),
        (replace(HEALTHY, attempted_by="me@1072.5"), 1075, "refreshing", 1072.5, "a refresh has begun and not ended"),
        (replace(HEALTHY, attempted_by="me"), 1075, "refreshing", 1000, "a refresh has begun and not ended"),
        (
            replace(TROUBLED, attempted_by="me@1092"),
            1095,
            "refreshing",
            1092,
            "a refresh has begun and not ended; before it 4 refreshes failed, the last one with invalid_client",
        ),
        (TROUBLED, 1095, "degraded", 1080, "4 refreshes failed, the last one with invalid_client"),
        (
            replace(TROUBLED, attempted_by="me@1"),
            1095,
            "degraded",
            1080,
            "4 refreshes failed, the last one with invali",
        ),
        (UNCERTAIN, 1099, "uncertain", 1071, "lost; its access token serves until its end"),
        (UNCERTAIN, 1100, "needs_reauth", 1100, "lost; its access token has ended"),
        (replace(HEALTHY, refreshable=False), 1099, "healthy", 1000, "generation 3"),
        (
            replace(HEALTHY, refreshable=False),
            1100,
            "needs_reauth",
            1100,
            "its access token has ended, and there is no",
        ),
        (replace(HEALTHY, state="needs_reauth", cause="invalid_grant"), 1050, "needs_reauth", 1000, "invalid_grant"),
        (replace(HEALTHY, state="suspended", cause="another patient"), 1050, "suspended", 1000, "another patient"),
        (replace(HEALTHY, state="revoked", cause="by an operator"), 1050, "revoked", 1000, "by an operator"),
    ],
)
def test_the_health_of_a_grant_has_evidence_and_a_beginning(
    grant: Grant, now: float, health: Health, since: float, evidence: str
) -> None:
    """RF-13."""
    report = health_of(grant, now=now)

    assert (report.health, report.since) == (health, since)
    assert report.evidence.startswith(evidence)
    assert report.action


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_client", "client"),
        ("invalid_scope", "client"),
        ("invalid_grant", "grant"),
        ("server_error", "ehr_outage"),
        ("ehr_unreachable", "ehr_outage"),
        ("ehr_answer_lost", "ehr_outage"),
        ("ehr_misbehaved", "quirk"),
        ("something_of_a_vendor", "quirk"),
    ],
)
def test_what_to_do_about_a_grant_that_is_not_renewed_depends_on_what_failed_last(code: str, kind: Kind) -> None:
    """RF-08."""
    troubled = replace(HEALTHY, trouble=Trouble(1080.0, 1090.0, 4, code))

    assert health_of(troubled, now=1095).action == ACTIONS[kind]
