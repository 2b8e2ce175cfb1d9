import json
from dataclasses import replace
from typing import Any

import pytest

from broker.egress import Answer
from broker.ehr.introspection import Introspection, bearer, parse_introspection
from broker.errors import EhrError, EhrMisbehaved, EhrRefused, EhrUnreachable
from broker.flows.introspect_grant import differences
from broker.grants import Grant, LaunchContext, Terms
from broker.scopes import Scopes
from broker.secret import Secret

SAID: dict[str, Any] = {"active": True, "scope": "patient/*.read", "client_id": "broker", "exp": 1100}
GRANT = Grant(
    tag="t" * 12,
    terms=Terms(
        "ehr",
        "https://ehr.example/r4",
        "r",
        "launch",
        "app",
        Scopes.parse("patient/*.rs offline_access"),
        LaunchContext(patient="p1", encounter="e1", issuer="https://ehr.example", subject="u1"),
    ),
    state="active",
    generation=1,
    created_at=1000,
    since=1000,
    renew_at=1070,
    expires_at=1100,
    refreshable=True,
    cause=None,
    sealed_tokens=b"",
)


def read(document: object, status: int = 200) -> Introspection:
    return parse_introspection(Answer(status, {}, json.dumps(document).encode()))


def named(**said: Any) -> list[str]:
    return list(differences(GRANT, read({**SAID, **said}), client_id="broker"))


def test_an_answer_about_a_live_token_is_read() -> None:
    """IN-02."""
    assert read({**SAID, "patient": "p1"}) == Introspection(
        True, "patient/*.read", "broker", 1100.0, {**SAID, "patient": "p1"}
    )


def test_of_an_inactive_token_nothing_else_is_taken() -> None:
    """IN-04."""
    assert read({**SAID, "active": False, "patient": "canary"}) == Introspection(active=False)


@pytest.mark.parametrize(
    ("document", "status", "error"),
    [
        ({}, 200, EhrMisbehaved),
        ({"active": "true"}, 200, EhrMisbehaved),
        ([], 200, EhrMisbehaved),
        (SAID, 302, EhrMisbehaved),
        ({"error": "invalid_client"}, 401, EhrRefused),
        ({}, 503, EhrUnreachable),
    ],
)
def test_what_is_no_introspection_response_is_refused(document: object, status: int, error: type[EhrError]) -> None:
    """IN-01."""
    with pytest.raises(error):
        read(document, status)


async def test_a_bearer_token_can_authorize_the_request() -> None:
    """IN-03, EP-20."""
    proof = await bearer(Secret("at"))("https://ehr.example/introspect")

    assert (proof.headers, proof.fields) == ({"Authorization": "Bearer at"}, {})


@pytest.mark.parametrize(
    "said",
    [{}, {"scope": None}, {"exp": 1159}, {"exp": "soon"}, {"patient": "Patient/p1"}, {"sub": "u1"}, {"client_id": 5}],
)
def test_what_agrees_or_is_left_out_is_no_difference(said: dict[str, Any]) -> None:
    """IN-02."""
    assert named(**said) == []


@pytest.mark.parametrize(
    ("said", "difference"),
    [
        ({"active": False}, "the EHR says that the token is not active"),
        ({"scope": "patient/Patient.read"}, "scope: the EHR says patient/Patient.rs; the grant has patient/*.rs"),
        (
            {"scope": "patient/*.rs user/Observation.r?code=canary"},
            "scope: the EHR says patient/*.rs user/Observation.r?...; the grant has patient/*.rs",
        ),
        ({"exp": 1000}, "exp: the EHR says -100 s"),
        ({"client_id": "another"}, "client_id is another"),
        ({"patient": "canary"}, "patient is another"),
        ({"encounter": "canary"}, "encounter is another"),
        ({"sub": "canary"}, "sub is another"),
    ],
)
def test_a_difference_is_named_without_naming_anybody(said: dict[str, Any], difference: str) -> None:
    """IN-02."""
    assert named(**said) == [difference]


def test_a_patient_that_only_the_ehr_knows_is_a_difference() -> None:
    """IN-02, CX-10."""
    patientless = replace(GRANT, terms=replace(GRANT.terms, context=LaunchContext()))
    said = differences(patientless, read({**SAID, "patient": "p1"}), client_id="broker")

    assert list(said) == ["patient is another"]
