"""Token introspection: what an active token is told to be, and how little an inactive one is."""

import httpx2
import pytest

from tests.onc.kit import decoded
from tests.stage import App, BrokerStage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def introspected(app: App, token: str, **more: str) -> httpx2.Response:
    url = f"{app.base.rpartition('/fhir/')[0]}/oauth/introspect"
    return await app.http.post(url, data={"client_id": app.client_id, "token": token, **more})


async def test_an_active_token_is_described_as_its_token_response_described_it(public: App, stage: BrokerStage) -> None:
    """smart_token_introspection_response_group: scope, client_id, exp, context, iss, sub, fhirUser (IN-02, HB-06)."""
    given = await public.standalone()
    _, identity = decoded(given["id_token"])
    told = (await introspected(public, given["access_token"])).json()

    assert (told["active"], told["client_id"], told["token_type"]) == (True, "growth-chart", "Bearer")
    assert told["scope"] == given["scope"]
    assert told["patient"] == given["patient"]
    assert told["aud"] == stage.base
    assert 0 < told["exp"] - stage.clock() <= 300
    assert isinstance(told["exp"], int)
    assert (told["iss"], told["sub"]) == (identity["iss"], identity["sub"])
    assert told["fhirUser"] == identity["fhirUser"]


async def test_the_encounter_of_an_ehr_launch_is_told(public: App, stage: BrokerStage) -> None:
    """smart_token_introspection_response_group: launch context of an EHR launch (IN-02)."""
    patient = (await public.standalone())["patient"]
    given = await public.launched(stage.sandbox.launch("broker-launch", patient))
    told = (await introspected(public, given["access_token"])).json()

    assert (told["patient"], told["encounter"]) == (patient, given["encounter"])


async def test_without_openid_nobody_is_named(public: App) -> None:
    """IN-02: `iss` and `sub` where an id_token was issued, and nowhere else."""
    given = await public.standalone(scope="patient/*.rs")
    told = (await introspected(public, given["access_token"])).json()

    assert told["active"] is True
    assert not {"iss", "sub", "fhirUser"} & told.keys()


@pytest.mark.parametrize("token", ["invalid_token_value", "sbh_", "x" * 5000])
async def test_an_invalid_token_is_inactive_and_nothing_else(public: App, token: str) -> None:
    """smart_token_introspection_response_group: `active` alone (IN-04, RFC 7662 §2.2)."""
    answer = await introspected(public, token)

    assert (answer.status_code, answer.json()) == (200, {"active": False})


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "urn:example:unknown"])
async def test_a_hint_helps_nobody_and_hides_nothing(public: App, hint: str) -> None:
    """RFC 7662 §2.1: a wrong hint does not hide a token; a refresh token is no access token (IN-01)."""
    given = await public.standalone()

    assert (await introspected(public, given["access_token"], token_type_hint=hint)).json()["active"] is True
    assert (await introspected(public, given["refresh_token"], token_type_hint=hint)).json() == {"active": False}
