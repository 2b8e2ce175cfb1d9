"""Scopes of an authorization request on their way to the EHR, and the context on its way back. Pure."""

from typing import Any

import pytest

from broker.apps import Allowance
from broker.flows.authorize_app import allowed_scopes, ehr_scopes
from broker.flows.issue_handle import context_members
from broker.grants import LaunchContext
from broker.scopes import Scopes
from broker.settings import RegistrationSettings

ROLE = "launch/relatedperson?role=guardian"
REGISTERED = f"launch launch/patient launch/encounter {ROLE} openid fhirUser offline_access patient/*.rs"


def allowance(scopes: str, registered: str = REGISTERED) -> Allowance:
    registration = RegistrationSettings.model_validate(
        {"id": "r", "ehr": "e", "flow": "launch", "client_id": "c", "scopes": registered}
    )
    return Allowance(registration, Scopes.parse(scopes).intersection(Scopes.parse(registered)))


@pytest.mark.parametrize(
    ("asked", "policy", "allowed"),
    [
        (f"patient/*.rs {ROLE}", f"patient/*.rs {ROLE}", f"patient/*.rs {ROLE}"),
        (f"patient/*.rs {ROLE}", "patient/*.rs launch/relatedperson", "patient/*.rs"),
        ("patient/*.rs launch/patient openid", "patient/*.rs openid", "openid patient/*.rs"),
        ("patient/*.cruds fhirUser", "patient/*.rs fhirUser", "fhirUser patient/*.rs"),
    ],
)
def test_an_app_may_have_what_its_policy_names_word_for_word(asked: str, policy: str, allowed: str) -> None:
    """AL-09, AL-19: a role hint is part of its word."""
    assert allowed_scopes(Scopes.parse(asked), allowance(policy)) == Scopes.parse(allowed)


@pytest.mark.parametrize(
    ("asked", "context"),
    [
        ("patient/*.rs", set()),
        ("patient/*.rs launch/patient", {"launch/patient"}),
        (f"patient/*.rs {ROLE}", {ROLE}),
        ("patient/*.rs launch", set()),
    ],
)
def test_the_ehr_is_asked_for_the_context_that_the_app_asks_for_and_no_other(asked: str, context: set[str]) -> None:
    """AL-07, AL-19: role hints go on as they are; `launch` belongs to EHR launches alone."""
    sent = ehr_scopes(Scopes.parse(asked), allowance(REGISTERED))

    assert {word for word in sent.others if word.startswith("launch")} == context
    assert sent.resources == Scopes.parse("patient/*.rs").resources


def test_context_comes_as_smart_defines_it_and_absent_members_are_left_out() -> None:
    """(CX-01) (CX-02) (CX-03) (CX-05) (CX-06) (CX-07) (CX-08) (CX-09) (AL-23): each in its own type."""
    context = LaunchContext(
        patient="p1",
        encounter="e1",
        fhir_user="Practitioner/1",
        need_patient_banner=False,
        smart_style_url="https://ehr.example/style.json",
        tenant="clinic",
        intent="reconcile-medications",
        fhir_context=({"reference": "ImagingStudy/1"},),
        app_context="opaque to the broker",
        extensions={"__epic.dstu2.patient": "d1"},
        issuer="https://ehr.example",
        subject="person",
    )

    assert context_members(context) == {
        "patient": "p1",
        "encounter": "e1",
        "need_patient_banner": False,
        "smart_style_url": "https://ehr.example/style.json",
        "tenant": "clinic",
        "intent": "reconcile-medications",
        "fhirContext": [{"reference": "ImagingStudy/1"}],
        "appContext": "opaque to the broker",
        "__epic.dstu2.patient": "d1",
    }
    assert context_members(LaunchContext()) == {}


@pytest.mark.parametrize("name", ["access_token", "refresh_token", "id_token", "authorization_details"])
def test_no_extension_stands_for_what_the_broker_writes_itself(name: str) -> None:
    """CX-09, HB-07, ID-09: not even if a profile allows it."""
    extensions: dict[str, Any] = {name: "raw", "patient": "another", "username": "u"}

    assert context_members(LaunchContext(patient="p1", extensions=extensions)) == {"patient": "p1", "username": "u"}
