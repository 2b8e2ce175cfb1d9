"""`broker registrations`: what an operator copies into an EHR's form is what the broker will say there."""

import re

import pytest

from tests.commands.program import Operator
from tests.stage import App, BrokerStage
from tests.stage.broker import BACKEND_SCOPES, LAUNCH_SCOPES


async def test_registrations_are_listed_in_the_order_of_the_file(at_stage: Operator) -> None:
    plain, listed = await at_stage.run("registrations", "list"), await at_stage.run("registrations", "list", "--json")

    assert listed.json() == [
        {
            "registration": "sandbox-launch",
            "ehr": ["sandbox"],
            "environment": "production",
            "flow": "launch",
            "client_id": "broker-launch",
            "authentication": "private_key_jwt",
            "app": "growth-chart",
        },
        {
            "registration": "sandbox-backend",
            "ehr": ["sandbox"],
            "environment": "production",
            "flow": "backend",
            "client_id": "broker-backend",
            "authentication": "private_key_jwt",
            "app": None,
        },
    ]
    assert [line.split()[0] for line in plain.out.splitlines()] == ["registration", "sandbox-launch", "sandbox-backend"]


async def test_what_is_shown_is_what_the_ehr_will_be_sent(at_stage: Operator, stage: BrokerStage, app: App) -> None:
    """RG-01, RG-02, RG-03, AL-05."""
    (shown,) = (await at_stage.run("registrations", "show", "sandbox-launch", "--json")).json()
    await app.launched(stage.sandbox.launch("broker-launch", (await app.standalone())["patient"]))

    asked = stage.sandbox.journal("authorize")[-1]["parameters"]
    assert shown["launch_url"] == f"{stage.public_url}/launch/sandbox-launch"
    assert shown["redirect_uris"] == [asked["redirect_uri"]] == [f"{stage.public_url}/callback/sandbox-launch"]
    assert shown["jwks_url"] == f"{stage.public_url}/jwks/sandbox-launch"
    assert shown["client_id"] == asked["client_id"]
    assert set(shown["scopes"]["sandbox"].split()) == set(LAUNCH_SCOPES.split())
    assert (await app.http.get(shown["jwks_url"])).json()["keys"]


async def test_keys_are_shown_for_a_form_that_takes_no_url_and_are_those_published(
    at_stage: Operator, stage: BrokerStage, app: App
) -> None:
    """RG-03, RG-06."""
    (shown,) = (await at_stage.run("registrations", "show", "sandbox-backend", "--jwks", "--json")).json()

    assert shown["jwks"] == (await app.http.get(shown["jwks_url"])).json()
    assert shown["signing_alg"] == "RS384"
    assert (shown["launch_url"], shown["redirect_uris"]) == (None, [])
    assert shown["scopes"] == {"sandbox": BACKEND_SCOPES}


async def test_scopes_are_shown_in_the_words_of_the_ehr(at_stage: Operator, stage: BrokerStage) -> None:
    """OR-06 (Q9)."""
    path = at_stage.home / "broker.toml"
    path.write_text(path.read_text().replace("token_timeout = 4", 'token_timeout = 4\nscope_dialect = "v1"', 1))

    said = await at_stage.run("registrations", "show", "sandbox-backend")

    assert "scopes          sandbox: system/*.read system/*.write" in said.out.splitlines()


async def test_an_ehr_that_cannot_be_asked_hides_nothing_else(at_stage: Operator) -> None:
    path = at_stage.home / "broker.toml"
    path.write_text(re.sub(r'fhir_base = "[^"]+"', 'fhir_base = "http://127.0.0.1:1/fhir"', path.read_text(), count=1))

    said = await at_stage.run("registrations", "show", "sandbox-launch")

    assert said.status == 0
    assert "scopes          sandbox: unknown: ehr_unreachable" in said.out.splitlines()
    assert "/callback/sandbox-launch" in said.out


@pytest.mark.parametrize("as_json", [[], ["--json"]])
async def test_a_registration_that_is_not_there_is_said(at_stage: Operator, as_json: list[str]) -> None:
    said = await at_stage.run("registrations", "show", "nobody", *as_json)

    assert (said.status, said.out) == (1, "")
    assert "not_found" in said.err
