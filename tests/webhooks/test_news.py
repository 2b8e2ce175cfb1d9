"""What is said of a grant, to the byte."""

from dataclasses import replace
from typing import Any

import pytest

from broker.grants import Grant, LaunchContext, Terms, Trouble, lasting_health
from broker.scopes import Scopes
from broker.webhooks.news import REASONS, message, reason
from tests.docs.pages import code, read, rows

CONTEXT = LaunchContext(patient="canary-patient", subject="canary-subject", fhir_user="Practitioner/canary")
TERMS = Terms(
    "general", "https://ehr.example", "general-launch", "launch", "chart", Scopes.parse("patient/*.rs"), CONTEXT
)
GRANT = Grant(
    tag="4TqB0xWm2LrZ",
    terms=TERMS,
    state="needs_reauth",
    generation=3,
    created_at=500,
    since=1_796_000_000.75,
    renew_at=1070,
    expires_at=1100,
    refreshable=True,
    cause="the token endpoint answered invalid_grant (status 400)",
    sealed_tokens=b"canary-tokens",
)


def test_a_message_is_this_and_names_nobody() -> None:
    body = message(GRANT, lasting_health(GRANT, now=1_796_000_001), before="healthy", now=1_796_000_001.5)

    assert body == (
        '{"type":"grant.health_changed","timestamp":"2026-11-30T00:53:21Z","data":{"grant":"4TqB0xWm2LrZ",'
        '"ehr":"general","registration":"general-launch","app":"chart","health":"needs_reauth","before":"healthy",'
        '"since":"2026-11-30T00:53:20Z","reason":"refresh_refused",'
        '"evidence":"the token endpoint answered invalid_grant (status 400)",'
        '"action":"have the person authorize again: broker grants reauthorize GRANT makes a link"}}'
    )
    assert "canary" not in body


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "refresh_refused"),
        ({"state": "uncertain"}, "answer_lost"),
        ({"state": "suspended"}, "somebody_else"),
        ({"state": "revoked"}, "ended_here"),
        ({"state": "active"}, "well_again"),
        ({"state": "active", "trouble": Trouble(1, 2, 3, "ehr_unreachable")}, "ehr_unreachable"),
        ({"state": "needs_reauth", "trouble": Trouble(1, 2, 3, "ehr_unreachable")}, "refresh_refused"),
    ],
)
def test_the_reason_is_one_word(changes: dict[str, Any], said: str) -> None:
    assert reason(replace(GRANT, **changes)) == said


def test_every_reason_is_documented() -> None:
    table = rows(read("docs/operations.md"), "`reason` | Means")

    assert [code(row[0]) for row in table[:-1]] == list(REASONS.values())
    assert table[-1][0] == "any other"
